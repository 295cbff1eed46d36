"""What is fitted after training: activation ranges, the classifier's bias, and the temperature.

All of it on held-out texts made for tuning (sst5 dev and one half of the airline texts); nothing here sees the
demo's texts or a set that is reported as a test.
"""

import json
from pathlib import Path

import torch
from torch.nn import functional

import corpora
import networks
import training

# Texts whose activations are looked at, and values kept of each site: enough that the ranges stop moving.
RANGE_TEXTS = 400
RANGE_VALUES = 4_000_000

# Shares of values clipped at each end that are tried; the one with the least squared error wins.
CLIPPED_SHARES = [0.0, 1e-7, 1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3]


def activation_ranges(student, encoded, max_length):
    """Site -> (scale, zero point) for unsigned 8 bits, over all passes."""
    generator = torch.Generator().manual_seed(1)
    seen = {site: [] for site in networks.QUANTISED_SITES}
    share = RANGE_VALUES / (RANGE_TEXTS * networks.PASSES)

    def observe(site, values):
        flat = values.detach().reshape(-1)
        picked = torch.randint(len(flat), (int(share),), generator=generator)
        seen[site].append(torch.cat([flat[picked], flat.min()[None], flat.max()[None]]))

    student.observer = observe
    with torch.inference_mode():
        for ids in encoded[:RANGE_TEXTS]:
            student(*training.padded([training.framed(ids[: max_length - 2])]))
    student.observer = None
    return {site: best_range(torch.cat(values)) for site, values in seen.items()}


def read_ranges(path):
    """Ranges that an export has stored."""
    return {site: tuple(pair) for site, pair in json.loads(Path(path).read_text()).items()}


def best_range(values):
    """Scale and zero point with the least squared error among the clipped ranges."""
    ordered = values.sort().values
    candidates = []
    for share in CLIPPED_SHARES:
        skip = int(share * len(ordered))
        low = min(0.0, ordered[skip].item())
        high = max(0.0, ordered[-1 - skip].item())
        scale = (high - low) / 255
        zero_point = min(255, max(0, round(-low / scale)))
        error = ((networks.quantised_activation(values, scale, zero_point) - values) ** 2).mean().item()
        candidates.append((error, scale, zero_point))
    _, scale, zero_point = min(candidates)
    return scale, zero_point


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
