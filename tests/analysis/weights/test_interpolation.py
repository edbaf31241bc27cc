"""Interpolated weights against models made of them, and exact ends."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from family_runs import build
from hypothesis import given
from hypothesis import strategies as st
from shifted_models import shifted
from torch.nn import functional as F

from mechvit.analysis import interpolate_weights
from mechvit.analysis.interventions.recovery import foils, logit_difference
from mechvit.analysis.weights.interpolation import between
from mechvit.analysis.weights.model_parts import model_parts
from mechvit.data import ImageBatch, corrupt, normalize

CORRUPTIONS = ("clean", "gaussian_noise_2")


def mixture(base, tuned, alpha, parts=None):
    """A copy of the base model with base + alpha (tuned - base) in float64."""
    named, theirs, weights = model_parts(base), tuned.state_dict(), base.state_dict()
    for part in named if parts is None else parts:
        for name in named[part]:
            own = weights[name].double()
            weights[name] = (own + alpha * (theirs[name].double() - own)).to(weights[name])
    model = copy.deepcopy(base)
    model.load_state_dict(weights)
    return model


@pytest.mark.long
@pytest.mark.parametrize("parts", [None, ("blocks.1", "head")])
def test_interpolation_matches_mixtures(tiny_model, batch, parts):
    tuned = shifted(copy.deepcopy(tiny_model))
    alphas = (-0.25, 0.0, 0.3, 1.0, 1.5)
    found = interpolate_weights(tiny_model, tuned, batch, CORRUPTIONS, alphas=alphas, parts=parts, batch_size=10)
    chosen = None if parts is None else [p for p in model_parts(tiny_model) if p.startswith(("blocks.1.", "head"))]
    for corruption in CORRUPTIONS:
        pixels = normalize(corrupt(batch.images, corruption, batch.image_ids, seed=0), tiny_model.image_processor)
        with torch.no_grad():
            foil = foils(batch.labels, tiny_model(pixels), tuned(pixels))
            for alpha in alphas:
                logits = mixture(tiny_model, tuned, alpha, chosen)(pixels)
                got = found.outcomes[corruption, alpha]
                assert torch.equal(got.correct, logits.argmax(-1) == batch.labels)
                loss = F.cross_entropy(logits.double(), batch.labels, reduction="none").float()
                torch.testing.assert_close(got.loss, loss, rtol=1e-4, atol=1e-4)
                wanted = logit_difference(logits, batch.labels, foil)
                torch.testing.assert_close(got.logit_difference, wanted, rtol=1e-4, atol=1e-4)


def test_ends_are_the_models_bit_for_bit(tiny_model, batch):
    tuned = shifted(copy.deepcopy(tiny_model))
    before = {name: parameter.clone() for name, parameter in tiny_model.named_parameters()}
    forth = interpolate_weights(tiny_model, tuned, batch, ["clean"], alphas=(0, 1))
    pixels = normalize(batch.images, tiny_model.image_processor)
    with torch.no_grad():
        foil = foils(batch.labels, tiny_model(pixels), tuned(pixels))
        for alpha, model in ((0.0, tiny_model), (1.0, tuned)):
            wanted = logit_difference(model(pixels), batch.labels, foil)
            assert torch.equal(forth.outcomes["clean", alpha].logit_difference, wanted)
    assert torch.equal(
        forth.outcomes["clean", 0.0].logit_difference, forth.outcomes["clean", "receiver"].logit_difference
    )
    assert all(torch.equal(parameter, before[name]) for name, parameter in tiny_model.named_parameters())


@given(
    st.lists(st.floats(-1e4, 1e4, width=16), min_size=2, max_size=2),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.floats(-2, 3),
)
def test_between_is_exact_at_its_ends_and_linear(values, dtype, alpha):
    base, tuned = (torch.tensor([value], dtype=dtype) for value in values)
    assert torch.equal(between(base, tuned, 0.0), base)
    assert torch.equal(between(base, tuned, 1.0), tuned)
    exact = base.double() + alpha * (tuned.double() - base.double())
    scale = float(max(base.abs().double(), tuned.abs().double(), torch.ones(1, dtype=torch.float64)))
    if dtype not in (torch.float16,) or exact.abs() < 6e4:
        error = (between(base, tuned, alpha).double() - exact).abs()
        assert float(error) <= 8 * torch.finfo(dtype).eps * scale * max(1, abs(alpha))


def test_families_with_layer_scale_and_tables_have_exact_ends():
    name = "beit classifier, all positions"
    base, tuned = build(name, torch.float32), shifted(build(name, torch.float32))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    batch = ImageBatch(images, torch.tensor([0, 1, 2, 3]), torch.arange(4))
    found = interpolate_weights(base, tuned, batch, ["clean"], alphas=(1,))
    with torch.no_grad():
        foil = foils(batch.labels, base(images), tuned(images))
        wanted = logit_difference(tuned(images), batch.labels, foil)
    assert torch.equal(found.outcomes["clean", 1.0].logit_difference, wanted)


def test_summary_is_of_paired_images(planted):
    base, tuned, images = planted
    found = interpolate_weights(base, tuned, images, CORRUPTIONS, alphas=(0, 0.5, 1))
    table = found.summary(resamples=300)
    assert list(table)[:3] == ["corruption", "alpha", "quantity"]
    assert len(table) == 2 * 3 * 4
    frame = found.to_frame()
    for (corruption, alpha), rows in frame.groupby(["corruption", "alpha"]):
        base_rows = frame[(frame["corruption"] == corruption) & (frame["alpha"] == 0)]
        here = table[(table["corruption"] == corruption) & (table["alpha"] == alpha)].set_index("quantity")
        for column, name in (("correct", "accuracy"), ("loss", "loss"), ("logit_difference", "logit_difference")):
            assert here.loc[name, "value"] == pytest.approx(rows[column].mean(), abs=1e-6)
            assert here.loc[name, "change"] == pytest.approx(rows[column].mean() - base_rows[column].mean(), abs=1e-6)
            assert here.loc[name, "low"] <= here.loc[name, "value"] <= here.loc[name, "high"]
    zero = table[table["alpha"] == 0]
    assert np.all(zero[["change", "change_low", "change_high"]] == 0)
    noisy = table[(table["corruption"] == "gaussian_noise_2") & (table["quantity"] == "accuracy")].set_index("alpha")
    assert noisy.loc[1.0, "value"] == 1
    assert noisy.loc[1.0, "change_low"] > 0


def test_bad_places_are_refused(tiny_model, batch):
    for alphas in ((), (0.5, 0.5)):
        with pytest.raises(ValueError, match="alphas must be at least one number, each once"):
            interpolate_weights(tiny_model, tiny_model, batch, ["clean"], alphas=alphas)
    with pytest.raises(ValueError, match="did you mean head"):
        interpolate_weights(tiny_model, tiny_model, batch, ["clean"], parts=["haed"])


def test_mixtures_are_measured_without_labels(tiny_model, batch):
    tuned = shifted(copy.deepcopy(tiny_model))
    bare = ImageBatch(batch.images, torch.full_like(batch.labels, -1), batch.image_ids)
    found = interpolate_weights(tiny_model, tuned, bare, ["clean"], alphas=(0.0, 0.5, 1.0))
    summary = found.summary(resamples=50)
    assert set(summary["quantity"]) == {"divergence"}
    rows = summary.set_index("alpha")
    assert rows.loc[1.0, "value"] == 0
    assert 0 < rows.loc[0.5, "value"] < rows.loc[0.0, "value"]
    assert rows.loc[0.0, "change"] == 0
    assert found.outcomes["clean", 0.5].loss.isnan().all()
