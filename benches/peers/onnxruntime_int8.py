"""Peer: confluent-kafka, ONNX Runtime with the usual dynamic int8 export, COPY.

What an engineer writes who has to make the plain pipeline fast on a CPU. Options are the steps that tuning takes:
`--processes 2` runs two processes with one thread each in one consumer group instead of one with two threads;
`--sort-by-length` reads a larger window and makes batches of nearly equal length, so that little is padded; `--batch 1`
pads nothing, since a core computes a text alone as fast as in a batch.
"""

import os

from classifier import Int8Classifier
from consumer import Table, base_parser, consume, run_peer


def work(options, progress):
    """One process of the peer."""
    threads = max(1, len(os.sched_getaffinity(0)) // options.processes)
    classifier = Int8Classifier(options.checkpoint, threads, options.batch, options.sort_by_length)
    table = Table(options.name)
    consume(options, progress, max(options.window, options.batch), classifier.classify, table.upsert_copied)


def main():
    """Runs the peer."""
    parser = base_parser(__doc__, "onnxruntime_int8")
    parser.add_argument("--processes", type=int, default=1, help="the cores are shared out among them")
    parser.add_argument("--sort-by-length", action="store_true", help="within a window of documents")
    parser.add_argument("--window", type=int, default=32, help="documents that are read, sorted and stored together")
    run_peer(parser, work)


if __name__ == "__main__":
    main()
