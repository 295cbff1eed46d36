//! Several streams and models in one process, and little room in flight.

use crate::support::{
    broker::produce_documents,
    eventually,
    pipeline::{Options, Stream},
};

#[test]
fn two_streams_on_one_topic_and_two_models_on_one_stream_are_labelled_side_by_side() {
    let stream = Stream::new(2);
    produce_documents(&stream.topic, 0..60);
    let extra = format!(
        r#"
[models.second]
path = "models/albert-sentiment"
[streams.copy]
topic = "{topic}"
group = "{topic}.copy"
models = ["second", "albert-sentiment"]
[streams.copy.fields]
id = "/id"
text = "/text"
"#,
        topic = stream.topic
    );
    let process = stream.start(&Options { extra, ..Options::default() });
    stream.wait_for_labels(120);
    eventually("both models have labelled the copy", || {
        (stream.database.number("SELECT count(*) FROM {s}.labels") == 180).then_some(())
    });
    let shown = stream.database.texts("SELECT DISTINCT stream || ' ' || model FROM {s}.current_labels ORDER BY 1");
    assert_eq!(shown, ["copy second", "reviews albert-sentiment"], "a view shows the first model of a task");
    let different = "SELECT count(*) FROM {s}.labels first JOIN {s}.labels second USING (stream, document_id) WHERE first.label <> second.label";
    assert_eq!(stream.database.number(different), 0, "one model under two names gave two answers");
    process.stop();
}

#[test]
fn little_room_in_flight_slows_a_stream_and_loses_nothing() {
    let stream = Stream::new(3);
    produce_documents(&stream.topic, 0..200);
    let options =
        Options { stream: "in_flight_documents_max = 6\nin_flight_bytes_max = \"1KiB\"".into(), ..Options::default() };
    let process = stream.start(&options);
    stream.wait_for_labels(200);
    stream.wait_for_positions(200);
    assert_eq!(process.metric("albertine_documents_inferred_total"), 200.0);
    assert_eq!(process.metric("albertine_records_received_total"), 200.0);
}
