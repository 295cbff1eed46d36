"""The files of one model in the work folder."""

from pathlib import Path


class Work:
    """The files of one model in the work folder."""

    def __init__(self, folder, model):
        self.folder = Path(folder) / model
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = self.folder / "tokenizer.json"
        self.frequencies = self.folder.parent / "frequencies.npy"
        self.hugging_face = self.folder / "checkpoint"
        self.roundings = self.folder / "roundings.json"
        self.exit_rules = self.folder / "exit-rules.txt"
        self.report = self.folder / "overlap.json"

    def texts(self, kind):
        """Token ids of one kind of texts: `labelled`, `unlabelled`, or a validation set."""
        return self.folder / f"{kind}.npz"

    def encoder(self, name):
        """Weights that a teacher of any model starts from."""
        return self.folder.parent / f"{name}.npz"

    def checkpoint(self, stage):
        """Of a stage of training."""
        return self.folder / f"{stage}.pt"
