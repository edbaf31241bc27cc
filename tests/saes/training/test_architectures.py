"""Every architecture of sae-lens trains in lockstep with the others, is published as stock, and keeps its sparsity."""

from __future__ import annotations

import math

import pytest
import torch
from sae_lens import SAE, GatedSAE, JumpReLUSAE, MatryoshkaBatchTopKTrainingSAE, StandardSAE, TopKSAE
from safetensors.torch import load_file

from mechvit.saes import ARCHITECTURES, Sweep, TrainConfig, read_history, train_on
from mechvit.saes.config import PENALISED
from mechvit.saes.training.learner import build

CONFIG = {"epochs": 3, "k": 3, "expansion_factor": 4, "lr": 5e-3, "train_batch_size_tokens": 128, "patience": 9}
PUBLISHED = {
    "standard": StandardSAE,
    "batchtopk": JumpReLUSAE,
    "topk": TopKSAE,
    "jumprelu": JumpReLUSAE,
    "gated": GatedSAE,
    "matryoshka_batchtopk": JumpReLUSAE,
}


@pytest.fixture(scope="module")
def trained(make_streams, tmp_path_factory):
    """Every architecture, on one stream."""
    out = tmp_path_factory.mktemp("saes") / "all"
    config = TrainConfig(architectures=ARCHITECTURES, matryoshka_levels=3, **(CONFIG | {"epochs": 8}))
    return train_on(make_streams(), out, config=config, progress=None)


@pytest.mark.long
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reloaded_sae_is_stock_and_explains_what_training_measured(trained, make_streams, architecture):
    sae = SAE.load_from_disk(trained[architecture])
    assert type(sae) is PUBLISHED[architecture]
    x = torch.cat(list(make_streams().held_out())).double()
    with torch.no_grad():
        codes = sae.encode(x.float())
        error = (sae.decode(codes).double() - x).square().sum()
    found = 1 - float(error / (x - x.mean(0)).square().sum())
    history = read_history(trained[architecture].parent)
    own = history[history["architecture"] == architecture].pivot(index="epoch", columns="metric", values="value")
    best = own.loc[sae.cfg.metadata.best_epoch]
    # a batch's k x batch rule is one threshold when published
    thresholded = "batchtopk" in architecture
    assert found == pytest.approx(best["explained_variance"], abs=0.03 if thresholded else 1e-4)
    assert found > (0.5 if architecture == "standard" else 0.7)  # the penalty shrinks the vanilla SAE's codes
    l0 = float((codes != 0).sum(-1).float().mean())
    assert l0 == pytest.approx(best["l0"], rel=0.2 if thresholded else 1e-3)
    assert l0 == pytest.approx(3, rel=0.3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_penalty_is_steered_and_recorded(trained, architecture):
    sae = SAE.load_from_disk(trained[architecture])
    history = read_history(trained[architecture].parent)
    names = set(history[history["architecture"] == architecture]["metric"])
    name = {"standard": "l1_coefficient", "gated": "l1_coefficient", "jumprelu": "l0_coefficient"}.get(architecture)
    assert names & {"l1_coefficient", "l0_coefficient"} == ({name} if name else set())
    if name:  # 1 is where it began; jumprelu's quadratic penalty aims at k by itself
        details = sae.cfg.metadata.training_architecture_details
        assert (details[name] == 1.0) == (architecture == "jumprelu")
        assert details.get("target_l0") == (3 if architecture == "jumprelu" else None)


@pytest.mark.parametrize("architecture", PENALISED)
def test_sparsity_starts_at_k(make_streams, architecture):
    from mechvit.saes.training.train import _sample, _start

    streams = make_streams()
    config = TrainConfig(architectures=(architecture,), **CONFIG)
    sample = _sample(streams, 512)
    (learner,) = _start(streams, config, sample, torch.device("cpu"))
    with torch.no_grad():
        codes = learner.sae.encode(learner.trainer.activation_scaler(sample))
    assert float((codes != 0).sum(1).float().mean()) == pytest.approx(3, rel=0.1)


def test_matryoshka_levels_halve(tokens):
    config = TrainConfig(architectures=("matryoshka_batchtopk",), matryoshka_levels=3, **CONFIG)
    learner = build(config.saes({"h": 12})[0], 12, 10, config, torch.device("cpu"), slice(None))
    assert isinstance(learner.sae, MatryoshkaBatchTopKTrainingSAE)
    assert learner.sae.cfg.matryoshka_widths == [12, 24, 48]
    with pytest.raises(ValueError, match="matryoshka_levels of 10 need more latents than 48"):
        TrainConfig(architectures=("matryoshka_batchtopk",), matryoshka_levels=10, **CONFIG).saes({"h": 12})


def same_weights(one, two):
    first, second = (load_file(folder / "sae_weights.safetensors") for folder in (one, two))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.long
def test_a_sweep_trains_each_sae_as_if_alone(make_streams, tmp_path):
    sweep = Sweep(k=(2, 5), lr=(5e-3, 1e-3))
    config = TrainConfig(architectures=("topk", "batchtopk"), sweep=sweep, **CONFIG)
    found = train_on(make_streams(steps=10), tmp_path / "sweep", config=config, progress=None)
    assert list(found) == [
        f"{a}-k{k}-lr{lr}" for a in ("topk", "batchtopk") for k in (2, 5) for lr in ("0.005", "0.001")
    ]
    alone = TrainConfig(architectures=("batchtopk",), **(CONFIG | {"k": 5, "lr": 1e-3}))
    one = train_on(make_streams(steps=10), tmp_path / "one", config=alone, progress=None)
    assert same_weights(one["batchtopk"], found["batchtopk-k5-lr0.001"])
    assert not same_weights(one["batchtopk"], found["batchtopk-k5-lr0.005"])
    assert SAE.load_from_disk(found["topk-k2-lr0.005"]).cfg.k == 2


def test_each_hook_point_has_its_own_columns(make_streams, tmp_path):
    config = TrainConfig(architectures=("batchtopk",), **CONFIG)
    found = train_on(make_streams(steps=10, first=12, second=7), tmp_path / "two", config=config, progress=None)
    assert list(found) == ["batchtopk-first", "batchtopk-second"]
    sae = SAE.load_from_disk(found["batchtopk-second"])
    assert (sae.cfg.d_in, sae.cfg.d_sae, sae.cfg.metadata.hook_name) == (7, 28, "second")
    one = train_on(make_streams(steps=10, first=12), tmp_path / "one", config=config, progress=None)
    assert same_weights(one["batchtopk"], found["batchtopk-first"])


def test_activations_of_half_precision_are_taken(make_streams, tmp_path):
    streams, half = make_streams(steps=10), make_streams(steps=10)
    rows = half.rows
    half.rows = lambda *args: rows(*args).bfloat16()
    config = TrainConfig(architectures=("batchtopk",), **CONFIG)
    for given, out in ((streams, "wide"), (half, "half")):
        train_on(given, tmp_path / out, config=config, progress=None)
    found = [read_history(tmp_path / out)["value"].tolist() for out in ("wide", "half")]
    assert found[0] == pytest.approx(found[1], abs=0.05)
    assert found[0] != found[1]


def test_names_tell_what_varies():
    def names(widths=("h",), **changes):
        return [spec.name for spec in TrainConfig(**changes).saes(dict.fromkeys(widths, 8))]

    assert names() == ["standard", "batchtopk"]
    assert names(sweep=Sweep(k=(16,))) == ["standard", "batchtopk"]
    assert names(sweep=Sweep(expansion_factor=(8, 16)), architectures=("topk",)) == ["topk-x8", "topk-x16"]
    # the penalty concerns the vanilla SAE alone, and with a given penalty k does not
    assert names(sweep=Sweep(l1_coefficient=(0.5, 2.0))) == ["standard-l1_0.5", "standard-l1_2", "batchtopk"]
    assert names(l1_coefficient=1.0, sweep=Sweep(k=(4, 8))) == ["standard", "batchtopk-k4", "batchtopk-k8"]
    assert names(("a", "b"), architectures=("gated",)) == ["gated-a", "gated-b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 65}, "k must be at most the 64 latents"),
        ({"sweep": Sweep(k=(8, 65))}, "k must be at most the 64 latents"),
        ({"sweep": Sweep(lr=(1e-6,))}, "lr_end must be at most lr, 1e-06"),
        ({"architectures": ("topk",), "sweep": Sweep(l1_coefficient=(1.0,))}, "sweep.l1_coefficient is for standard"),
    ],
)
def test_refuses_sweeps_that_cannot_work(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"expansion_factor": 8, "k": 4} | changes)).saes({"h": 8})
    with pytest.raises(ValueError, match="k must name each once; got 4, 4"):
        Sweep(k=(4, 4))
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        Sweep(k=(0,))


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_other_schedules_of_the_learning_rate(make_streams, schedule):
    config = TrainConfig(
        architectures=("topk",), lr_schedule=schedule, warm_up_fraction=0.1, **(CONFIG | {"epochs": 1, "lr": 2e-3})
    )
    learner = build(config.saes({"h": 12})[0], 12, 40, config, torch.device("cpu"), slice(None))
    learner.trainer.activation_scaler.scaling_factor = 1.0
    rates = []
    for step in range(41):
        rates.append(learner.trainer.optimizer.param_groups[0]["lr"])
        if step < 40:
            learner.step(make_streams().rows(128, step))
    rise = [2e-3 * (i + 1) / 4 for i in range(4)]
    fall = [2e-3 * (1 - i / 36 if schedule == "linear" else 1) for i in range(37)]
    assert rates == pytest.approx(rise + fall, rel=1e-6, abs=1e-12)
    assert not math.isclose(rates[0], rates[-1])
