"""The difference lens on planted differences, against sums and spectra in numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from family_runs import build
from shifted_models import shifted

from mechvit.analysis import difference_lens
from mechvit.data import ImageBatch, normalize

LAYER = 1
"""The block whose output is shifted."""


@pytest.fixture
def constant(tiny_model):
    """A model, one that adds a constant vector to the output of block 1's MLP, and the vector."""
    vector = 0.5 * torch.randn(32, generator=torch.Generator().manual_seed(4))
    tuned = copy.deepcopy(tiny_model)
    with torch.no_grad():
        tuned.blocks[LAYER].mlp.fc2.bias.add_(vector)
    return tiny_model, tuned, vector.double()


def streams(model, images):
    """Every layer's residual stream, [layer, image, token, d_model], float64."""
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(3)] + ["blocks.2.hook_resid_post"]
    with torch.no_grad():
        _, cache = model.run_with_cache(normalize(images.images, model.image_processor), names_filter=names)
    return torch.stack([cache[name] for name in names]).double()


def test_a_planted_constant_is_given_back(constant, batch):
    base, tuned, vector = constant
    found = difference_lens(base, tuned, batch, batch.take(slice(3, 20)), directions=20, batch_size=7)
    for own in found.moments.values():
        assert (own.delta[: LAYER + 1] == 0).all()
        torch.testing.assert_close(own.delta[LAYER + 1], vector, rtol=0, atol=1e-6)
    summary = found.summary().set_index(["tokens", "layer"])
    for tokens in ("cls", "patches"):
        row = summary.loc[(tokens, LAYER + 1)]
        assert row["norm"] == pytest.approx(float(vector.norm()), rel=1e-6)
        assert row["top_share"] == pytest.approx(1, abs=1e-9)
        assert row["mean_share"] == pytest.approx(1, abs=1e-9)
        assert row["directions"] == 1
        assert row["shuffled_top_share"] < 0.9
        assert row["shuffled_directions"] > 1
        assert np.isnan(summary.loc[(tokens, 0), "top_share"])
        assert summary.loc[(tokens, 3), "top_share"] < 1 - 1e-4
    ranks = found.spectrum_frame().query("tokens == 'patches' and layer == @LAYER + 1")
    np.testing.assert_allclose(ranks["cumulative"], 1, atol=1e-9)
    assert ranks["shuffled_cumulative"].is_monotonic_increasing


def test_moments_match_sums_in_numpy(tiny_model, batch):
    tuned = shifted(copy.deepcopy(tiny_model), 0.2)
    unrelated, others = batch.take(slice(0, 13)), batch.take(slice(13, 24))
    found = difference_lens(tiny_model, tuned, others, unrelated, directions=5, batch_size=5)
    again = difference_lens(tiny_model, tuned, others, unrelated, directions=5, batch_size=13)
    own, other, mean = streams(tiny_model, unrelated), streams(tuned, unrelated), streams(tiny_model, others)
    for tokens, place in (("cls", slice(0, 1)), ("patches", slice(1, None))):
        moments = found.moments[tokens]
        B, T = (part[:, :, place].flatten(1, 2).numpy() for part in (own, other))
        for layer in range(4):
            delta = (T[layer] - B[layer]).mean(0)
            np.testing.assert_allclose(moments.delta[layer], delta, atol=1e-6)
            spectrum = np.linalg.svd(T[layer] - B[layer], compute_uv=False) ** 2 / len(B[layer])
            kept = min(32, len(spectrum))
            np.testing.assert_allclose(moments.eigenvalues[layer, :kept], spectrum[:kept], rtol=1e-4, atol=1e-5)
            pairs = (T[layer][:, None] - B[layer][None]).reshape(-1, 32)
            shuffled = np.linalg.svd(pairs, compute_uv=False)[:32] ** 2 / len(pairs)
            np.testing.assert_allclose(moments.shuffled[layer], shuffled, rtol=1e-4, atol=1e-4)
            lengths = moments.random[:, layer].norm(dim=-1)
            spread = float((B[layer] - B[layer].mean(0)).std())
            wanted = np.linalg.norm(delta) if spread > 1e-6 else lengths
            np.testing.assert_allclose(lengths, wanted, rtol=1e-6)
        np.testing.assert_allclose(found.mean[tokens], mean[:, :, place].mean((1, 2)), atol=1e-5)
        np.testing.assert_allclose(moments.random[:, 3], again.moments[tokens].random[:, 3], atol=1e-4)
        groups = len(moments.left_out)
        assert groups == 10
        weights = torch.bincount(torch.arange(13) % 10).double()  # the sizes of the groups, in some order
        assert (moments.left_out.mean(0) - moments.delta).abs().max() < 0.2 * float(weights.max()) * 3


def test_random_directions_have_the_covariance_of_the_stream(tiny_model, batch):
    tuned = shifted(copy.deepcopy(tiny_model), 0.2)
    found = difference_lens(tiny_model, tuned, batch, batch, directions=4000, layers=[2])
    own = streams(tiny_model, batch)[2][:, 1:].flatten(0, 1).numpy()
    wanted = np.cov(own.T)
    random = found.moments["patches"].random[:, 0].numpy()
    drawn = np.cov(random.T)
    cosine = (wanted * drawn).sum() / np.linalg.norm(wanted) / np.linalg.norm(drawn)
    assert cosine > 0.98
    assert np.abs(random.mean(0)).max() < 0.1 * np.linalg.norm(random[0])


def test_readings_are_those_of_the_heads(constant, batch):
    base, tuned, vector = constant
    with torch.no_grad():
        tuned.head.weight.mul_(1.5)
    found = difference_lens(base, tuned, batch, batch.take(slice(0, 12)), directions=50)
    mean = streams(base, batch)[LAYER + 1][:, :1].mean(0)
    for name, model in (("base", base), ("tuned", tuned)):
        with torch.no_grad():
            points = torch.stack([mean, mean + vector]).float()
            before, after = model.unembed_residual(points).double()
        wanted = after - before - (after - before).mean()
        reading = found.readings["cls", name]
        torch.testing.assert_close(reading.change[LAYER + 1], wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(reading.after[LAYER + 1], after.softmax(-1), rtol=1e-4, atol=1e-5)
        frame = found.to_frame(top=2, pair="mine").query("head == @name and tokens == 'cls' and layer == @LAYER + 1")
        order = wanted.argsort(descending=True).tolist()
        assert frame[frame["direction"] == "rises"]["class_id"].tolist() == [i for i in order[:2] if wanted[i] > 0]
        assert frame[frame["direction"] == "falls"]["class_id"].tolist()[0] == order[-1]
        assert (frame["low"] <= frame["change"]).all()
        assert (frame["change"] <= frame["high"]).all()
        rows = found.reading_frame().query("head == @name and tokens == 'cls'").set_index("layer")
        assert rows.loc[LAYER + 1, "size"] == pytest.approx(float(wanted.square().mean().sqrt()), rel=1e-4)
        beyond = (reading.random[:, LAYER + 1] >= reading.size[LAYER + 1]).sum()
        assert rows.loc[LAYER + 1, "p"] == pytest.approx(float(1 + beyond) / 51)
        assert rows.loc[0, "size"] == 0


def test_a_direction_that_the_head_reads_is_beyond_random_ones(tiny_model, batch):
    """The last block adds what raises class 3 alone."""
    tuned = copy.deepcopy(tiny_model)
    W = tiny_model.head.weight.detach()
    lifts = torch.linalg.pinv(W - W.mean(0)) @ (torch.eye(5)[3] - 0.2)
    with torch.no_grad():
        tuned.blocks[2].mlp.fc2.bias.add_(8 * lifts / lifts.norm())
    found = difference_lens(tiny_model, tuned, batch, batch, layers=[3])
    first = found.to_frame(top=1).query("tokens == 'cls' and direction == 'rises'")
    assert set(first["class_id"]) == {3}
    assert (found.reading_frame().query("tokens == 'cls'")["p"] < 0.1).all()


def test_photographs_are_the_unrelated_images(tiny_model, batch):
    tuned = shifted(copy.deepcopy(tiny_model), 0.1)
    found = difference_lens(tiny_model, tuned, batch, layers=[1, 3], directions=3)
    assert found.unrelated == 95
    assert found.images == 24
    assert set(found.summary()["layer"]) == {1, 3}
    assert "95 unrelated images, 2 layers" in repr(found)


@pytest.mark.parametrize("name", ["vit classifier", "siglip classifier", "dinov3 encoder", "dinov2 classifier, swiglu"])
def test_equal_models_have_no_difference(name):
    model = build(name, torch.float32)
    images = ImageBatch(torch.rand(4, 3, 32, 32), torch.full((4,), -1), torch.arange(4))
    found = difference_lens(model, copy.deepcopy(model), images, images, directions=3)
    assert (found.summary()["norm"] == 0).all()
    assert found.to_frame().empty
    assert (found.reading_frame()["size"] == 0).all()
    assert found.spectrum_frame()["cumulative"].isna().all()
    assert bool(found.readings) == (model.head is not None)
    assert ("cls" in found.moments) == model.cfg.cls_token


def test_bad_requests_are_refused(tiny_model, batch):
    for layers in ([], [4], [2, 1], [1, 1]):
        with pytest.raises(ValueError, match="layers must be one or more of 0 to 3, in order, none twice"):
            difference_lens(tiny_model, tiny_model, batch, batch, layers=layers)
    with pytest.raises(ValueError, match="at least two unrelated images; got 1"):
        difference_lens(tiny_model, tiny_model, batch, batch.take(slice(0, 1)))
    larger = copy.deepcopy(tiny_model).set_image_size(48)
    with pytest.raises(ValueError, match=r"their grids of patches \(rows, columns\) are \(4, 4\) and \(6, 6\)"):
        difference_lens(tiny_model, larger, batch, batch)
