"""The planted pair of models is what it says."""

from __future__ import annotations

from mechvit.analysis import evaluate


def test_planted_models_differ_in_one_mlp_and_in_accuracy(planted):
    base, tuned, images = planted
    own = tuned.state_dict()
    changed = {name for name, tensor in base.state_dict().items() if not tensor.equal(own[name])}
    assert changed
    assert all(name.startswith("blocks.1.mlp.") for name in changed)
    assert evaluate(tuned, images, "gaussian_noise_2").accuracy == 1
    assert evaluate(base, images, "gaussian_noise_2").accuracy < 0.8
