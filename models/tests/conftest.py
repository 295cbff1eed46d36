"""Checkpoints made on the spot by `save_pretrained`: nothing is downloaded, every shape is real."""

import io
import shutil

import pytest
import sentencepiece
import torch
import transformers

from albertine_models.terminal import Terminal
from albertine_models.texts.ordinary import KINDS, ordinary_rows

# Enough that generated texts are told apart with a margin that int8 keeps.
TRAINING_STEPS = 250

# Small enough that a conversion takes seconds, with every axis of another size.
SMALL = {
    "embedding_size": 24,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "classifier_dropout_prob": 0.0,
    "id2label": dict(enumerate(KINDS)),
    "label2id": {name: index for index, name in enumerate(KINDS)},
}


@pytest.fixture(scope="session")
def spiece(tmp_path_factory):
    """A SentencePiece Unigram model with ALBERT's special tokens, trained on generated texts."""
    prefix = tmp_path_factory.mktemp("spiece") / "spiece"
    train_spiece(prefix)
    return prefix.with_suffix(".model")


def train_spiece(prefix):
    """Writes `prefix.model`; ids 0 to 4 are those of albert-base-v2."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(row.text for row in ordinary_rows(4000, pair=False, seed=9)),
        model_prefix=str(prefix),
        model_type="unigram",
        vocab_size=900,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        control_symbols=["[CLS]", "[SEP]"],
        user_defined_symbols=["[MASK]"],
        normalization_rule_name="nmt_nfkc_cf",
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )


@pytest.fixture
def checkpoint(tmp_path, spiece):
    """Makes a checkpoint's folder: `checkpoint(name, tokenizer="spiece", **configuration)`."""

    def make(name="checkpoint", tokenizer="spiece", **fields):
        return save_checkpoint(tmp_path / name, spiece, tokenizer, 0, fields)

    return make


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory, spiece):
    """A checkpoint that knows the kinds of generated texts."""
    return save_checkpoint(tmp_path_factory.mktemp("trained") / "kinds", spiece, "spiece", TRAINING_STEPS, {})


@pytest.fixture
def trained(tmp_path, trained_once):
    """A copy of it that a test may change."""
    return shutil.copytree(trained_once, tmp_path / "kinds")


def save_checkpoint(folder, spiece, tokenizer, train, fields):
    """A seeded AlbertForSequenceClassification, saved with its tokenizer."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    own = transformers.AlbertTokenizer.from_pretrained(write_spiece(folder, spiece))
    config = transformers.AlbertConfig(**{"vocab_size": len(own) + 3, **SMALL, **fields})
    model = transformers.AlbertForSequenceClassification(config)
    spread_weights(model)
    if train:
        train_on_kinds(model, own, train)
    model.save_pretrained(folder)
    if tokenizer == "json":
        (folder / "spiece.model").unlink()
        own.save_pretrained(folder)
    return folder


def write_spiece(folder, spiece):
    """The folder with only a SentencePiece model in it."""
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(spiece.read_bytes())
    return folder


def spread_weights(model):
    """Fresh weights are tiny and biases zero, which would hide a bias or a norm that is left out."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, values in model.named_parameters():
            noise = torch.randn(values.shape, generator=generator)
            if values.dim() == 1:
                values += 0.1 * noise
            elif "classifier" in name:
                values.copy_(noise / values.shape[1] ** 0.5)


def train_on_kinds(model, tokenizer, steps):
    """A few steps on the kinds of generated texts, so that int8 is judged on a network with a margin."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = ordinary_rows(2000, pair=False, seed=5)
    model.train()
    for step in range(steps):
        batch = rows[step * 32 % 1900 :][:32]
        inputs = tokenizer(
            [row.text for row in batch], padding=True, truncation=True, max_length=64, return_tensors="pt"
        )
        loss = model(**inputs, labels=torch.tensor([KINDS.index(row.label) for row in batch])).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()


@pytest.fixture
def terminal():
    """A terminal whose lines a test can read from `terminal.stream`."""
    return Terminal(io.StringIO())
