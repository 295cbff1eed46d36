"""The int8 model of two peers: the export that the usual tools make, and its call on ONNX Runtime.

The export is what a search for "ALBERT ONNX int8" leads to, with its known faults put right: attention in the plain
form, because the one of PyTorch's own operator adds a guard against NaN to every layer; a default type, without which
the quantiser leaves all products in float32; the module in evaluation mode.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy
import onnxruntime
from consumer import Document, Label, label_names, window_tokens
from tokenizers import Tokenizer

GRAPH = "int8.onnx"
NAMES = ["input_ids", "attention_mask", "token_type_ids"]


def export(checkpoint: Path):
    """Writes `int8.onnx` into the folder of a checkpoint."""
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer
    from transformers import AutoModelForSequenceClassification

    class Classifier(torch.nn.Module):
        """The model with positional inputs and one output, as an exporter wants it."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            """Logits."""
            return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager")
    exported, fused = checkpoint / "exported.onnx", checkpoint / "fused.onnx"
    axes = {name: {0: "batch", 1: "sequence"} for name in NAMES} | {"logits": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            # The wrapper, too: an exporter gives a module back in the mode it found it in, with all that is inside.
            Classifier(model).eval(),
            tuple(torch.ones(2, 16, dtype=torch.long) for _ in NAMES),
            exported,
            input_names=NAMES,
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    # There is no kind "albert"; that of BERT fuses normalisations and activations, though not ALBERT's attention.
    optimised = optimizer.optimize_model(
        str(exported),
        model_type="bert",
        num_heads=model.config.num_attention_heads,
        hidden_size=model.config.hidden_size,
    )
    optimised.save_model_to_file(str(fused))
    quantize_dynamic(
        str(fused),
        str(checkpoint / GRAPH),
        per_channel=True,
        weight_type=QuantType.QInt8,
        # As ONNX Runtime's documentation advises for cores without VNNI, where full 8-bit products saturate; it costs
        # no time.
        reduce_range=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    products = sum("MatMulInteger" in node.op_type for node in onnx.load(checkpoint / GRAPH).graph.node)
    if not products:
        raise SystemExit("the quantiser left every product in float32")
    exported.unlink()
    fused.unlink()


class Int8Classifier:
    """Texts to labels, in padded batches, in arrival order or sorted by length."""

    def __init__(self, checkpoint: Path, threads: int, batch: int, sort_by_length: bool):
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        # Shapes vary from batch to batch, and a memory pattern would be kept for each of them.
        settings.enable_mem_pattern = False
        self.session = onnxruntime.InferenceSession(
            str(checkpoint / GRAPH), settings, providers=["CPUExecutionProvider"]
        )
        self.inputs = {one.name for one in self.session.get_inputs()}
        # The tokenizer's own threads follow the session's, or two processes would have twice as many as cores.
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        self.tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self.tokenizer.enable_truncation(window_tokens(checkpoint))
        self.tokenizer.no_padding()
        self.labels = label_names(checkpoint)
        self.batch = batch
        self.sort_by_length = sort_by_length

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of the texts of each call."""
        order = range(len(lengths))
        if self.sort_by_length:
            order = sorted(order, key=lengths.__getitem__)
        for begin in range(0, len(order), self.batch):
            yield list(order[begin : begin + self.batch])

    def probabilities(self, encodings: Sequence) -> numpy.ndarray:
        """One call of the model."""
        shape = (len(encodings), max(len(encoding.ids) for encoding in encodings))
        feeds = {name: numpy.zeros(shape, numpy.int64) for name in NAMES}
        for place, encoding in enumerate(encodings):
            length = len(encoding.ids)
            feeds["input_ids"][place, :length] = encoding.ids
            feeds["attention_mask"][place, :length] = 1
            feeds["token_type_ids"][place, :length] = encoding.type_ids
        logits = self.session.run(["logits"], {name: feeds[name] for name in self.inputs})[0]
        exponentials = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def classify(self, documents: Sequence[Document]) -> list[Label]:
        """Labels in the order of the documents."""
        encodings = self.tokenizer.encode_batch_fast([document.text for document in documents])
        found = [None] * len(documents)
        for places in self.batches([len(encoding.ids) for encoding in encodings]):
            for place, values in zip(places, self.probabilities([encodings[place] for place in places])):
                found[place] = Label.of(documents[place].document_id, self.labels, values)
        return found
