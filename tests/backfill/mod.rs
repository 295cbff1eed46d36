//! `albertine backfill`: files through a stream's models into its tables, every record once, whatever dies.

mod beside;
mod crashes;
mod formats;
mod jobs;
mod publishing;
mod soak;

use crate::support::{
    answer::Answer,
    database::Database,
    files::Files,
    pipeline::{Options, Process, Stream, output},
};

/// A stream that nobody runs, and files.
struct Setup {
    stream: Stream,
    files: Files,
    options: Options,
}

impl Setup {
    fn new() -> Self {
        let options = Options {
            instant_model: true,
            extra: "[backfill]\nlease = \"2s\"\nshard_bytes = \"8KiB\"".into(),
            stream: "batch_documents_max = 20".into(),
            ..Options::default()
        };
        Self { stream: Stream::new(1), files: Files::new(), options }
    }

    fn database(&self) -> &Database {
        &self.stream.database
    }

    /// Runs `albertine backfill` with these arguments to its end.
    fn run(&self, arguments: &[&str]) -> Answer {
        let mut command = self.stream.command(&self.options);
        Answer::of(command.arg("backfill").args(arguments), "")
    }

    /// Makes a job of this name, and lets others work on it.
    fn detach(&self, job: &str, files: &[&str]) {
        self.run(&[&["start", "reviews", "--detach", "--name", job], files].concat()).expect(0);
    }

    /// Starts a worker.
    fn work(&self, job: &str, failpoints: &str) -> Process {
        let options = Options { failpoints: failpoints.into(), ..self.options.clone() };
        self.stream.start_command(&options, &["backfill", "work", job])
    }

    /// Fails unless so many documents have their label, so many records were rejected, each once, all positions say
    /// so, and the program finds everything in order.
    fn assert_stored_once(&self, documents: i64, rejected: i64) {
        let database = self.database();
        let places = "SELECT count(DISTINCT (topic, partition, \"offset\")) FROM {s}.rejections";
        let rejections = database.number("SELECT count(*) FROM {s}.rejections");
        assert_eq!((rejections, database.number(places)), (rejected, rejected));
        let stored = "SELECT coalesce(sum(position), 0)::bigint FROM {s}.checkpoints WHERE topic LIKE 'backfill/%'";
        assert_eq!(database.number(stored), documents + rejected);
        self.assert_in_order(documents);
    }

    /// The same without what is counted of the jobs' records.
    fn assert_in_order(&self, documents: i64) {
        let database = self.database();
        assert_eq!(database.current_labels(), documents);
        assert_eq!(database.number("SELECT count(*) FROM {s}.labels"), documents);
        assert_eq!(database.differences_from_a_recount(), [] as [String; 0]);
        let (code, stdout, stderr) = output(self.stream.command(&self.options).arg("verify"), "");
        assert_eq!(code, Some(0), "{stdout}{stderr}");
    }
}
