"""Turns ALBERT checkpoints of Hugging Face into model folders that albertine runs, and proves that they are equal.

Nothing of it is needed when the pipeline runs: a model folder holds ONNX graphs, a tokenizer and a manifest.
"""

__version__ = "1.0.0"

# Version of the folder that is written; the program refuses any other.
FOLDER_FORMAT = 3
