"""Peer: Quix Streams, with the model call of `onnxruntime_int8.py`.

A custom `BatchingSink`, as the documentation of Quix Streams shows for databases: it gathers records by partition
between two checkpoints, and `write` gets them as a batch, classifies them and writes them with COPY. Offsets are
committed by the checkpoint, after the sink was flushed: at least once, its default.
"""

import os
import tempfile
import threading
import time

from classifier import Int8Classifier
from consumer import BATCH_WAIT_SECONDS, Document, Progress, Table, base_parser, run_peer
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch


class ClassifyingSink(BatchingSink):
    """Classifies and stores the batches of a checkpoint."""

    def __init__(self, options, progress: Progress):
        # Without these callbacks Quix Streams logs a line at the start, and nothing else differs.
        super().__init__(on_client_connect_success=lambda: None)
        self.options, self.progress = options, progress
        threads = max(1, len(os.sched_getaffinity(0)) // options.processes)
        self.classifier = Int8Classifier(options.checkpoint, threads, options.batch, options.sort_by_length)
        self.table = Table(options.name)
        self.texts = []

    def add(self, *arguments, **keywords):
        """Called for each record."""
        self.progress.read()
        super().add(*arguments, **keywords)

    def write(self, batch: SinkBatch):
        """Called for each partition when a checkpoint is made."""
        documents = [Document(item.value["id"], item.value["text"]) for item in batch]
        self.table.upsert_copied(self.classifier.classify(documents))
        self.progress.committed(len(documents))
        self.texts += [document.text for document in documents]


def work(options, progress: Progress):
    """One instance of the application; several in one group are how Quix Streams scales."""
    sink = ClassifyingSink(options, progress)
    with tempfile.TemporaryDirectory() as state:
        application = Application(
            broker_address=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            consumer_group=options.group,
            auto_offset_reset="earliest",
            # A checkpoint after so many records, or after a moment without: the default of five seconds alone would
            # make one large batch of the whole topic, and leave the last records waiting.
            commit_every=options.window,
            commit_interval=options.interval,
            consumer_poll_timeout=BATCH_WAIT_SECONDS,
            auto_create_topics=False,
            state_dir=state,
            loglevel="WARNING",
        )
        topic = application.topic(options.topic, value_deserializer="json")
        application.dataframe(topic).sink(sink)
        threading.Thread(target=stop_when_finished, args=(application, progress), daemon=True).start()
        application.run()
    progress.count_tokens(options.checkpoint, sink.texts)


def stop_when_finished(application: Application, progress: Progress):
    """Ends the application when all processes together have stored everything."""
    while not progress.finished():
        time.sleep(BATCH_WAIT_SECONDS)
    application.stop()


def main():
    """Runs the peer."""
    parser = base_parser(__doc__, "quix_streams")
    parser.add_argument("--processes", type=int, default=1, help="instances; the cores are shared out among them")
    parser.add_argument("--sort-by-length", action="store_true", help="within the batch of a checkpoint")
    parser.add_argument("--window", type=int, default=256, help="records of a checkpoint")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds after which a checkpoint is made anyway")
    run_peer(parser, work)


if __name__ == "__main__":
    main()
