"""Heads' numbers against Hugging Face's patterns, and their link with the effects against scipy on every resample."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hf_zoo import ZOO
from scipy import stats

from mechvit import HookedViT
from mechvit.analysis import head_links, patch_models, resampled_means
from mechvit.data.batches import ImageBatch

BLUR = "gaussian_blur_2"


@pytest.fixture
def giver(tiny_model) -> HookedViT:
    other, generator = copy.deepcopy(tiny_model), torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in other.blocks.parameters():
            parameter.add_(0.3 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    return other


@pytest.fixture
def links(tiny_model, giver, batch):
    patching = patch_models(tiny_model, giver, batch, BLUR, kinds=("mlp", "head"), tokens=("cls", "all"))
    return head_links(tiny_model, giver, batch, BLUR, patching, batch_size=7), patching


def numbers(pattern: np.ndarray) -> dict[str, float]:
    """One head's pattern over CLS and 4 x 4 patches in numbers, by loops."""
    entropy = -sum(p * math.log(p) for row in pattern for p in row) / 17
    distance = mass = 0.0
    for query in range(16):
        row = pattern[1 + query]
        far = [math.hypot(query // 4 - key // 4, query % 4 - key % 4) for key in range(16)]
        distance += float(np.dot(row[1:], far) / row[1:].sum()) / 16
        mass += row[0] / 16
    return {"distance": distance, "cls_mass": mass, "entropy": entropy}


def test_numbers_match_hugging_face(links, hf_pass):
    found, _ = links
    corrupted, clean = (hf_pass(key)[2] for key in (BLUR, "clean"))
    assert found.numbers["receiver", "entropy"].shape == (24, 3, 2)
    for image, layer, head in ((0, 0, 0), (3, 1, 1), (23, 2, 0)):
        wanted = numbers(corrupted[layer][image, head].double().numpy())
        wanted["entropy_difference"] = (
            wanted["entropy"] - numbers(clean[layer][image, head].double().numpy())["entropy"]
        )
        for name, value in wanted.items():
            assert float(found.numbers["receiver", name][image, layer, head]) == pytest.approx(value, abs=1e-5), name
    assert {model for model, _ in found.numbers} == {"receiver", "giver", "change"}


def test_change_is_giver_minus_receiver_and_swaps_sign(links, tiny_model, giver, batch):
    found, _ = links
    back = head_links(giver, tiny_model, batch, BLUR, patch_models(giver, tiny_model, batch, BLUR, kinds=("head",)))
    for name in ("distance", "cls_mass", "entropy", "entropy_difference"):
        torch.testing.assert_close(back.numbers["receiver", name], found.numbers["giver", name])
        change = found.numbers["giver", name] - found.numbers["receiver", name]
        torch.testing.assert_close(found.numbers["change", name], change)
        torch.testing.assert_close(back.numbers["change", name], -change)
        assert change.abs().max() > 1e-3


def test_effects_are_the_heads_own(links):
    found, patching = links
    for i, component in enumerate(patching.components):
        if component.kind == "head" and component.tokens == "all":
            own = found.effect[:, component.layer, component.head]
            torch.testing.assert_close(own, patching.effect[i].double())
    assert found.effect.std() > 1e-3
    frame = found.to_frame(resamples=50, receiver="base")
    assert list(frame) == [
        "receiver",
        "model",
        "number",
        "layer",
        "head",
        "value",
        "low",
        "high",
        "effect",
        "effect_low",
        "effect_high",
    ]
    assert len(frame) == 3 * 4 * 6
    row = frame.query("model == 'giver' and number == 'distance' and layer == 2 and head == 1").iloc[0]
    assert row["value"] == pytest.approx(found.numbers["giver", "distance"][:, 2, 1].mean())
    assert row["effect"] == pytest.approx(found.effect[:, 2, 1].mean())
    assert ((frame["low"] <= frame["value"]) & (frame["value"] <= frame["high"])).all()
    assert ((frame["effect_low"] <= frame["effect"]) & (frame["effect"] <= frame["effect_high"])).all()


@pytest.mark.long
def test_correlations_match_scipy_on_every_resample(links):
    found, _ = links
    table = found.correlations(resamples=40, level=0.8, seed=3, receiver="base").set_index(["model", "number"])
    shares = resampled_means(np.eye(24), resamples=40, seed=3)
    effect = shares @ found.effect.flatten(1).numpy()
    assert len(table) == 4 * 4
    assert (table["heads"] == 6).all()
    assert (table["receiver"] == "base").all()
    for key, values in found.numbers.items():
        own = shares @ values.flatten(1).numpy()
        draws = [stats.spearmanr(a, b).statistic for a, b in zip(own, effect, strict=True)]
        wanted = [draws[0], *np.quantile(draws[1:], [0.1, 0.9])]
        np.testing.assert_allclose(table.loc[key, ["value", "low", "high"]].to_numpy(float), wanted, atol=1e-9)
        if key[0] != "change":
            continue
        size = [stats.spearmanr(np.abs(a), b).statistic for a, b in zip(own, effect, strict=True)]
        row = table.loc[("size of change", key[1])]
        np.testing.assert_allclose(
            row[["value", "low"]].to_numpy(float), [size[0], np.quantile(size[1:], 0.1)], atol=1e-9
        )
        pairs = itertools.permutations(np.abs(own[0]))
        exact = np.mean([abs(stats.spearmanr(pair, effect[0]).statistic) >= abs(size[0]) - 1e-12 for pair in pairs])
        assert row["p"] == pytest.approx(exact, abs=0.02)


def test_a_family_without_cls_has_no_cls_mass(batch, tiny_processor):
    model = HookedViT.from_hf(ZOO["siglip classifier"](), tiny_processor)
    few = ImageBatch(batch.images[:2], batch.labels[:2], batch.image_ids[:2])
    patching = patch_models(model, model, few, BLUR, giver_corruption="clean", kinds=("head",))
    found = head_links(model, model, few, BLUR, patching)
    assert {number for _, number in found.numbers} == {"distance", "entropy", "entropy_difference"}
    assert found.numbers["change", "distance"].abs().max() == 0
    assert np.isnan(found.correlations(resamples=5).query("model == 'change'")["value"]).all()


def test_refuses_another_patching(tiny_model, giver, batch):
    few = ImageBatch(batch.images[:2], batch.labels[:2], batch.image_ids[:2])
    heads = patch_models(tiny_model, giver, few, BLUR, kinds=("head",))
    with pytest.raises(ValueError, match="images must be those of patching, in its order; got 24 and 2"):
        head_links(tiny_model, giver, batch, BLUR, heads)
    with pytest.raises(ValueError, match="must hold every head at tokens 'patches'"):
        head_links(tiny_model, giver, few, BLUR, heads, tokens="patches")
