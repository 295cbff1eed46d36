"""The table of speeds: every candidate computes, for every shape that the checkpoint's positions allow."""

import json

from albertine_models.command import main
from albertine_models.speed import OURS_FLOAT, OURS_INT8, PEAK, USUAL_FLOAT, USUAL_INT8


def test_every_candidate_is_timed(checkpoint, capsys):
    # Dropout would show if a comparison ran in training mode.
    path = checkpoint(max_position_embeddings=128, hidden_dropout_prob=0.5)
    assert main(["speed", str(path), "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tokens_per_second"]
    assert set(found) == {OURS_FLOAT, OURS_INT8, PEAK, USUAL_FLOAT, USUAL_INT8}
    assert all(set(speeds) == {"1x16", "8x16", "1x128", "4x128"} for speeds in found.values())
    assert all(speed > 0 for speeds in found.values() for speed in speeds.values())
