"""Peer: confluent-kafka, transformers' `pipeline`, psycopg.

What the documentation of transformers shows and what most services that label texts in Python are made of: float32
PyTorch, batches padded to their longest text, in arrival order.
"""

import os

import torch
from consumer import Label, Progress, Table, base_parser, consume, label_names, window_tokens
from transformers import pipeline


def main():
    """Runs the peer."""
    options = base_parser(__doc__, "transformers_pipeline").parse_args()
    # One thread a core; PyTorch counts hyper-threads as well, which share the units that multiply.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    classifier = pipeline(
        "text-classification",
        model=str(options.checkpoint),
        device="cpu",
        batch_size=options.batch,
        dtype=torch.float32,
    )
    table, names = Table(options.name), label_names(options.checkpoint)
    progress = Progress(options.documents, options.warm_up)
    # Without `truncation` a long text is an error; every service of this kind sets it.
    settings = {"truncation": True, "max_length": window_tokens(options.checkpoint), "top_k": None}

    def classify(documents):
        labels = []
        for document, scores in zip(documents, classifier([one.text for one in documents], **settings)):
            by_name = {score["label"]: score["score"] for score in scores}
            labels.append(Label.of(document.document_id, names, [by_name[name] for name in names]))
        return labels

    # A batch of the model is a batch of the consumer and a transaction: the simplest loop that is at least once.
    consume(options, progress, options.batch, classify, table.upsert_each)
    print(progress.report(options.name))


if __name__ == "__main__":
    main()
