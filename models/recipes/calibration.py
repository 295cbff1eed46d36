"""What is fitted after training: the classifier's bias and the temperature; and the file of activation ranges.

All of it on held-out texts made for tuning (sst5 dev and one half of the airline texts); nothing here sees the
demo's texts or a set that is reported as a test.
"""

import json
from pathlib import Path

import torch
from torch.nn import functional

import corpora


def read_ranges(path):
    """Site -> (scale, zero point) that an export has stored: the grid that a student can be trained on."""
    return {site: tuple(pair) for site, pair in json.loads(Path(path).read_text()).items()}


def write_ranges(path, ranges):
    """Stores the ranges of a conversion, whose only distinct layer is layer 0."""
    Path(path).write_text(json.dumps({site: pair for (_, site), pair in ranges.items()}, indent=2))


def macro_f1(predicted, labels):
    """Mean F1 of the three classes."""
    scores = []
    for label in range(3):
        hits = ((predicted == label) & (labels == label)).sum().item()
        asked = (predicted == label).sum().item() + (labels == label).sum().item()
        scores.append(2 * hits / asked if asked else 0.0)
    return sum(scores) / 3


def best_bias(logits, labels):
    """Addition to the logits with the best mean macro-F1 over several sets (lists of tensors, one a set)."""
    grid = [step / 10 for step in range(-15, 16)]

    def score(negative, positive):
        shift = torch.tensor([negative, 0.0, positive])
        return sum(macro_f1((own + shift).argmax(-1), wanted) for own, wanted in zip(logits, labels))

    # Small shifts are preferred: a whole tenth of a logit must buy at least a hundredth of a point.
    best = max(
        ((negative, positive) for negative in grid for positive in grid),
        key=lambda pair: score(*pair) - 0.001 * (abs(pair[0]) + abs(pair[1])),
    )
    return torch.tensor([best[0], 0.0, best[1]])


def best_temperature(logits, labels):
    """Divisor of the logits with the least negative log likelihood."""
    candidates = [step / 100 for step in range(40, 401)]
    losses = [functional.cross_entropy(logits / candidate, labels).item() for candidate in candidates]
    return candidates[losses.index(min(losses))]


def tuning_sets(data):
    """The sets that bias and temperature are fitted on."""
    held_out = corpora.held_out_sets(data)
    return [held_out["sst5_dev"], held_out["airline_tuning"]]
