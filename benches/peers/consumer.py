"""What all peers do alike: options, records of the topic, the table, the stopwatch, and several processes.

Each peer differs in how it computes and how it writes; what is here would be the same in any of them, so that a
difference between two figures comes from the peers and not from their frames.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException
from psycopg import sql
from tokenizers import Tokenizer

# How long a consumer waits until a batch is full. Under load batches are full at once; at the end of a topic the rest
# should not wait long.
BATCH_WAIT_SECONDS = 0.1

COLUMNS = ["document_id", "label", "probabilities", "confidence", "labelled_at"]


def base_parser(description: str, name: str) -> argparse.ArgumentParser:
    """Options of every peer."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--topic", required=True, help="is read from its start")
    parser.add_argument("--group", required=True, help="consumer group")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder that checkpoint.py wrote")
    parser.add_argument("--documents", type=int, required=True, help="the peer ends when it has labelled so many")
    parser.add_argument("--warm-up", type=int, default=0, help="so many more stand before them and are not counted")
    parser.add_argument("--name", default=name, help="rows go to the table peer_NAME")
    parser.add_argument("--batch", type=int, default=32, help="texts of one call of the model")
    return parser


@dataclass(frozen=True)
class Document:
    """One record of the topic."""

    document_id: str
    text: str

    @classmethod
    def parse(cls, value: bytes) -> "Document":
        """A JSON object with `id` and `text`."""
        record = json.loads(value)
        return cls(record["id"], record["text"])


@dataclass(frozen=True)
class Label:
    """A row of the table."""

    document_id: str
    label: str
    probabilities: list[float]
    confidence: float
    labelled_at: datetime

    @classmethod
    def of(cls, document_id: str, labels: Sequence[str], probabilities: Sequence[float]) -> "Label":
        """The class with the largest probability."""
        values = [float(value) for value in probabilities]
        confidence = max(values)
        return cls(document_id, labels[values.index(confidence)], values, confidence, datetime.now(UTC))

    def row(self) -> tuple:
        """Values in the order of COLUMNS."""
        return (self.document_id, self.label, self.probabilities, self.confidence, self.labelled_at)


class Table:
    """The peer's table. Writing is an upsert: after a crash records come again, and must not be there twice."""

    def __init__(self, name: str):
        self.connection = psycopg.connect(os.environ["DATABASE_URL"])
        self.name = sql.Identifier(f"peer_{name}")
        columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        updates = sql.SQL(", ").join(
            sql.SQL("{column} = excluded.{column}").format(column=sql.Identifier(column)) for column in COLUMNS[1:]
        )
        conflict = sql.SQL("ON CONFLICT (document_id) DO UPDATE SET {}").format(updates)
        self.insert = sql.SQL("INSERT INTO {} ({}) VALUES (%s, %s, %s, %s, %s) {}").format(self.name, columns, conflict)
        self.copy = sql.SQL("COPY staging ({}) FROM STDIN").format(columns)
        # An id that stands twice in one batch would make the upsert fail.
        self.move = sql.SQL("INSERT INTO {} ({}) SELECT DISTINCT ON (document_id) {} FROM staging {}").format(
            self.name, columns, columns, conflict
        )
        with self.connection.transaction():
            # Two processes that create one table at a time can collide in the catalogue.
            self.connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [name])
            self.connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {} (document_id text PRIMARY KEY, label text NOT NULL, "
                    "probabilities real[] NOT NULL, confidence real NOT NULL, labelled_at timestamptz NOT NULL)"
                ).format(self.name)
            )
            self.connection.execute(
                sql.SQL("CREATE TEMPORARY TABLE staging (LIKE {}) ON COMMIT DELETE ROWS").format(self.name)
            )

    def upsert_each(self, labels: Sequence[Label]):
        """One statement a row, sent in pipeline mode, in one transaction: what `executemany` of psycopg 3 does."""
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany(self.insert, [label.row() for label in labels])

    def upsert_copied(self, labels: Sequence[Label]):
        """COPY into a staging table and one upsert from it: the fastest way into a table with a primary key."""
        with self.connection.transaction(), self.connection.cursor() as cursor:
            with cursor.copy(self.copy) as copy:
                for label in labels:
                    copy.write_row(label.row())
            cursor.execute(self.move)


class Topic:
    """The peer's consumer: reads from the start, and commits offsets only when told to."""

    def __init__(self, topic: str, group: str):
        self.consumer = Consumer(
            {
                "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        self.consumer.subscribe([topic])

    def documents(self, count: int) -> list[Document]:
        """Up to `count` documents; fewer when no more came within a moment."""
        messages = self.consumer.consume(count, timeout=BATCH_WAIT_SECONDS)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
        return [Document.parse(message.value()) for message in messages]

    def commit(self):
        """Commits what was returned so far. Not waited for: after a crash the upsert bears records that come again."""
        self.consumer.commit(asynchronous=True)

    def close(self):
        """Commits what is not committed yet, waits for it, and leaves the group."""
        try:
            self.consumer.commit(asynchronous=False)
        except KafkaException as error:
            # Everything was committed already.
            if error.args[0].code() != KafkaError._NO_OFFSET:
                raise
        self.consumer.close()


class Progress:
    """Documents of all processes of a peer, and when the first of them was read and the last one committed."""

    def __init__(self, documents: int, warm_up: int):
        self.wanted = documents + warm_up
        self.warm_up = warm_up
        self.documents = documents
        context = multiprocessing.get_context("spawn")
        self.lock = context.Lock()
        self.done = context.Value("q", 0, lock=False)
        # Clocks of all processes of a machine agree in time.monotonic.
        self.begin = context.Value("d", 0.0, lock=False)
        self.end = context.Value("d", 0.0, lock=False)
        self.tokens = context.Value("q", 0, lock=False)

    def read(self):
        """To be called when documents were read, before they are computed."""
        with self.lock:
            if not self.begin.value and self.done.value >= self.warm_up:
                self.begin.value = time.monotonic()

    def committed(self, count: int):
        """To be called when documents were stored and their offsets committed."""
        with self.lock:
            self.done.value += count
            self.end.value = time.monotonic()

    def finished(self) -> bool:
        """Whether everything is stored."""
        return self.done.value >= self.wanted

    def count_tokens(self, checkpoint: Path, texts: Sequence[str]):
        """Adds up what the model read, warm-up included; done after the end, so that it costs no peer anything."""
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        tokenizer.enable_truncation(window_tokens(checkpoint))
        found = sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts)))
        with self.lock:
            self.tokens.value += found

    def report(self, name: str) -> str:
        """The peer's line."""
        seconds = self.end.value - self.begin.value
        return json.dumps(
            {
                "peer": name,
                "documents": self.documents,
                "seconds": round(seconds, 3),
                "documents_per_second": round(self.documents / seconds, 2),
                "mean_tokens": round(self.tokens.value / self.done.value, 1),
            }
        )


def window_tokens(checkpoint: Path) -> int:
    """The model's window, which peers truncate to."""
    return json.loads((checkpoint / "tokenizer_config.json").read_text())["model_max_length"]


def label_names(checkpoint: Path) -> list[str]:
    """Classes in the order of the logits."""
    names = json.loads((checkpoint / "config.json").read_text())["id2label"]
    return [names[str(index)] for index in range(len(names))]


def consume(
    options: argparse.Namespace,
    progress: Progress,
    window: int,
    classify: Callable[[Sequence[Document]], list[Label]],
    store: Callable[[Sequence[Label]], None],
):
    """The loop of a peer: read, classify, store, commit; `window` documents a time."""
    topic = Topic(options.topic, options.group)
    texts = []
    while not progress.finished():
        documents = topic.documents(window)
        if not documents:
            continue
        progress.read()
        store(classify(documents))
        topic.commit()
        progress.committed(len(documents))
        texts += [document.text for document in documents]
    topic.close()
    progress.count_tokens(options.checkpoint, texts)


def run_processes(count: int, work: Callable, *arguments):
    """`work` in so many processes, or in this one. New interpreters, because forked thread pools hang."""
    if count == 1:
        work(*arguments)
        return
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=arguments, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        raise SystemExit(f"{len(failed)} of {count} processes failed")


def run_peer(parser: argparse.ArgumentParser, work: Callable):
    """Reads the command line, lets `work` do it in as many processes as are asked for, and prints what came of it."""
    options = parser.parse_args()
    progress = Progress(options.documents, options.warm_up)
    run_processes(options.processes, work, options, progress)
    print(progress.report(options.name))
