//! `albertine … | head -1`: whoever reads the output may go away, and that is no failure.

use super::{Setup, unread};
use crate::support::{
    broker::produce_documents,
    pipeline::{Options, Stream},
};

/// Ended well, and said nothing about it.
fn assert_ends_cleanly(answer: &super::Answer) {
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{answer:#?}");
}

#[test]
fn short_output_that_nobody_reads_is_no_failure() {
    let setup = Setup::new();
    let text = setup.write("one.txt", "A fine kettle.\n");
    let text = text.to_str().unwrap();
    let commands: [&[&str]; 5] = [
        &["--help"],
        &["check"],
        &["database", "migrate", "--print-sql"],
        &["model", "list"],
        &["classify", "--model", "albert-sentiment", text],
    ];
    for arguments in commands {
        assert_ends_cleanly(&unread(&mut setup.command(arguments)));
    }
}

#[test]
fn long_output_that_nobody_reads_ends_a_classification() {
    let setup = Setup::new();
    // Far more than what a buffer holds.
    let lines = (0..1000).fold(String::new(), |lines, index| lines + &format!("Text {index} is good.\n"));
    let text = setup.write("many.txt", &lines);
    let arguments = ["classify", "--model", "albert-sentiment", text.to_str().unwrap()];
    assert_ends_cleanly(&unread(&mut setup.command(arguments)));
}

#[test]
fn peeking_ends_when_nobody_reads() {
    let stream = Stream::new(1);
    produce_documents(&stream.topic, 0..50);
    assert_ends_cleanly(&unread(stream.command(&Options::default()).args(["stream", "peek", "reviews"])));
}
