//! How fast a backlog goes through the program.

use std::time::{Duration, Instant};

use crate::{
    corpus,
    measure::wait_for_count,
    support::pipeline::{Options, Stream},
};

const LIMIT: Duration = Duration::from_mins(20);

/// Records a second, stored or, with a live topic, published, once a fifth is done.
pub fn records_a_second(options: &Options, partitions: i32, records: usize, record: impl Fn(usize) -> String) -> f64 {
    let stream = Stream::new(partitions);
    corpus::produce(&stream.topic, partitions, (0..records).map(|number| (number, record(number))));
    let process = stream.start(options);
    let done = if options.live { "albertine_records_published_total" } else { "albertine_documents_stored_total" };
    wait_for_count(&process, done, records / 5, LIMIT);
    let (began, before) = (Instant::now(), process.metric(done));
    wait_for_count(&process, done, records, LIMIT);
    let seconds = began.elapsed().as_secs_f64();
    process.stop();
    (records as f64 - before) / seconds
}
