"""Attribution patching against finite differences, on models where it must be exact, and its error against scipy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hf_zoo import ZOO
from scipy import stats
from torch import Tensor

from mechvit import HookedViT
from mechvit.analysis import attribution_error, attribution_patching, patch_models, resampled_means
from mechvit.analysis.interventions.recovery import foils
from mechvit.analysis.statistics.correlation import correlation, rank_correlation
from mechvit.data.batches import ImageBatch
from mechvit.data.corruptions import corrupt
from mechvit.data.pixels import normalize

NOISE, CLEAN = "gaussian_noise_2", "clean"
TOKENS = {"all": slice(None), "cls": slice(0, 1), "patches": slice(1, None)}
LABELS = list(TOKENS)


@pytest.fixture
def wide(tiny_model) -> HookedViT:
    """The tiny model in float64."""
    return copy.deepcopy(tiny_model).double()


@pytest.fixture
def other(wide) -> HookedViT:
    """A model near it: every weight another."""
    giver, generator = copy.deepcopy(wide), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in giver.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * parameter.std(correction=0) * noise)
    return giver


def pixels_of(model: HookedViT, batch: ImageBatch, key: str) -> Tensor:
    return normalize(corrupt(batch.images, key, batch.image_ids, seed=0), model.image_processor).to(model.cfg.dtype)


def first(batch: ImageBatch, n: int) -> ImageBatch:
    return ImageBatch(batch.images[:n], batch.labels[:n], batch.image_ids[:n])


def slope(
    receiver: HookedViT, giver: HookedViT, batch: ImageBatch, name: str, chosen: tuple, quantity="logit_difference"
) -> Tensor:
    """d/de of each image's quantity as the activation moves by e towards the giver's: central differences."""
    with torch.no_grad():
        pixels, n = pixels_of(receiver, batch, NOISE), torch.arange(len(batch))
        plain, cache = receiver.run_with_cache(pixels)
        logits, given = giver.run_with_cache(pixels_of(giver, batch, NOISE))
        foil = foils(batch.labels, plain, logits)
        move = torch.zeros_like(cache[name])
        move[chosen] = (given[name] - cache[name])[chosen]

        def margin(step: float) -> Tensor:
            logits = receiver.run_with_hooks(pixels, fwd_hooks=[(name, lambda x, hook: x + step * move)])
            if quantity == "divergence":
                theirs = giver(pixels_of(giver, batch, NOISE)).log_softmax(-1)
                own = logits.log_softmax(-1)
                return torch.nn.functional.kl_div(own, theirs, reduction="none", log_target=True).sum(-1)
            return logits[n, batch.labels] - logits[n, foil]

        return (margin(1e-4) - margin(-1e-4)) / 2e-4


@pytest.mark.parametrize("quantity", ["logit_difference", "divergence"])
def test_matches_finite_differences(wide, other, batch, quantity):
    few = first(batch, 3)
    if quantity == "divergence":
        few = ImageBatch(few.images, torch.full_like(few.labels, -1), few.image_ids)
    found = attribution_patching(wide, other, few, NOISE, tokens=LABELS, batch_size=2, quantity=quantity)
    assert len(found.components) == (4 + 3 + 3 + 6) * 3
    for component, effect in zip(found.components, found.effect, strict=True):
        chosen = (slice(None), TOKENS[component.tokens]) + ((component.head,) if component.head >= 0 else ())
        wanted = slope(wide, other, few, component.point(3), chosen, quantity)
        torch.testing.assert_close(effect.double(), wanted, rtol=1e-4, atol=1e-5)
    assert found.effect.abs().amax(1).sum() > (1 if quantity == "logit_difference" else 0.1)
    assert found.quantity == quantity


def test_errors_on_the_divergence_are_of_the_same_quantity(tiny_model, batch):
    """Exact effects are changes of KL(giver | receiver); without labels the logit difference is refused."""
    giver = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in giver.blocks[1].parameters():
            parameter.mul_(1.1)
    unlabelled = ImageBatch(batch.images, torch.full_like(batch.labels, -1), batch.image_ids)
    patching = patch_models(tiny_model, giver, unlabelled, NOISE)
    approximate = attribution_patching(tiny_model, giver, unlabelled, NOISE, quantity="divergence")
    table = attribution_error(approximate, patching, resamples=20).components
    wanted = patching.divergence.mean(1) - patching.receiver.divergence.mean()
    np.testing.assert_allclose(table["exact"], wanted, rtol=1e-6, atol=1e-9)
    whole = table.query("kind == 'resid' and layer == 3 and tokens == 'all'")  # all of the giver: nothing is left
    assert whole["exact"].item() == pytest.approx(-float(patching.receiver.divergence.mean()), rel=1e-5)
    with pytest.raises(ValueError, match=r"need a label of every image; \d+ of \d+ have none: .*quantity='divergence'"):
        attribution_patching(tiny_model, giver, unlabelled, NOISE)


def test_neurons_match_finite_differences(wide, other, batch):
    few = first(batch, 3)
    found = attribution_patching(wide, other, few, NOISE, kinds=("mlp",), batch_size=2)
    frame = found.neurons(pair="a").set_index(["layer", "neuron"])
    assert list(frame) == ["pair", "effect", "standard_error"]
    assert len(frame) == 3 * 64
    for layer, neuron in ((0, 5), (1, 63), (2, 0)):
        each = slope(wide, other, few, f"blocks.{layer}.mlp.hook_post", (slice(None), slice(None), neuron)).numpy()
        row = frame.loc[(layer, neuron)]
        assert row["effect"] == pytest.approx(each.mean(), rel=1e-3, abs=1e-6)
        assert row["standard_error"] == pytest.approx(stats.sem(each), rel=1e-3, abs=1e-6)
    single = attribution_patching(wide, other, first(batch, 1), NOISE, kinds=("mlp",))
    assert single.neurons()["standard_error"].isna().all()


@pytest.mark.parametrize("key", ["gaussian_blur_4", NOISE])
def test_parts_sum_to_their_whole(wide, batch, key):
    """In one model: heads to attention, neurons to the MLP, CLS and patches to all, and what a block adds to its
    change of the stream (all to first order)."""
    found = attribution_patching(wide, wide, batch, key, giver_corruption=CLEAN, tokens=LABELS)
    effect = {(c.kind, c.layer, c.head, c.tokens): e for c, e in zip(found.components, found.effect, strict=True)}
    mean = {place: e.double().mean() for place, e in effect.items()}
    for layer in range(3):
        for where in TOKENS:
            heads = sum(effect["head", layer, head, where] for head in range(2))
            torch.testing.assert_close(heads, effect["attn", layer, -1, where], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            found.neuron_effect[layer].sum(), mean["mlp", layer, -1, "all"], rtol=1e-4, atol=1e-5
        )
    for kind, layer, head, where in effect:
        if where == "all":
            parts = effect[kind, layer, head, "cls"] + effect[kind, layer, head, "patches"]
            torch.testing.assert_close(parts, effect[kind, layer, head, "all"], rtol=1e-4, atol=1e-5)
    assert min(e.abs().max() for (_, _, _, where), e in effect.items() if where == "all") > 1e-3


@pytest.fixture
def linear(tiny_processor) -> HookedViT:
    """A CLIP classifier, whose head reads the patches' mean through no LayerNorm, with blocks 1 and 2 that add nothing:
    its logits are linear in what block 0's MLP adds and in the stream after it."""
    model = HookedViT.from_hf(ZOO["clip classifier"](), tiny_processor)
    with torch.no_grad():
        for block in model.blocks[1:]:
            for parameter in (*block.attn.o.parameters(), *block.mlp.fc2.parameters()):
                parameter.zero_()
    return model


def test_exact_where_the_logits_are_linear(linear, batch):
    giver = copy.deepcopy(linear)
    with torch.no_grad():
        for parameter in giver.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    exact = patch_models(linear, giver, batch, NOISE, kinds=("resid", "attn", "mlp"), tokens=("all", "patches"))
    found = attribution_patching(linear, giver, batch, NOISE, kinds=("resid", "attn", "mlp"), tokens=("all", "patches"))
    bent = []
    for component, effect, wanted in zip(found.components, found.effect, exact.effect, strict=True):
        if (component.kind, component.layer) in (("resid", 0), ("attn", 0)):
            bent.append((effect - wanted).abs().max())
            continue
        # blocks 1 and 2 add nothing of the receiver's, so that what the giver's add is all there is
        torch.testing.assert_close(effect, wanted, rtol=1e-4, atol=2e-4)
    assert min(bent) > 1e-2, "through a LayerNorm and an MLP it is an approximation"
    error = attribution_error(found, exact).overall.set_index(["kind", "quantity"])["value"]
    assert error["mlp", "relative_error"] < 1e-4
    assert error["mlp", "pearson"] == pytest.approx(1, abs=1e-6)
    assert error["attn", "relative_error"] > 1e-2


def test_planted_mlp_is_found(planted):
    base, tuned, images = planted
    found = attribution_patching(base, tuned, images, NOISE)
    mean = {c[:3]: float(effect.mean()) for c, effect in zip(found.components, found.effect, strict=True)}
    none = [("resid", 0, -1), ("resid", 1, -1), ("attn", 0, -1), ("attn", 1, -1), ("mlp", 0, -1), ("head", 1, 0)]
    assert max(abs(mean[place]) for place in none) < 1e-5
    kinds = {place: value for place, value in mean.items() if place[0] in ("attn", "mlp", "head")}
    assert max(kinds, key=lambda place: abs(kinds[place])) == ("mlp", 1, -1)
    assert found.neuron_effect[0].abs().max() < 1e-5 < found.neuron_effect[1].abs().max()


def test_gradients_need_no_trainable_weights_and_leave_no_trace(tiny_model, batch):
    few = first(batch, 2)
    wanted = attribution_patching(tiny_model, tiny_model, few, NOISE, giver_corruption=CLEAN).effect
    with torch.inference_mode():
        found = attribution_patching(tiny_model, tiny_model, few, NOISE, giver_corruption=CLEAN).effect
    assert torch.equal(found, wanted)
    assert all(parameter.grad is None for parameter in tiny_model.parameters())
    found = attribution_patching(tiny_model.requires_grad_(False), tiny_model, few, NOISE, giver_corruption=CLEAN)
    assert torch.equal(found.effect, wanted)
    frame = found.to_frame(receiver="base")
    assert list(frame) == ["receiver", "kind", "layer", "head", "tokens", "image_id", "effect"]
    np.testing.assert_array_equal(frame["effect"].to_numpy().reshape(found.effect.shape), found.effect)


def test_error_matches_scipy_on_every_resample(tiny_model, batch):
    models = (tiny_model, tiny_model, batch, NOISE)
    exact = patch_models(*models, giver_corruption=CLEAN, kinds=("mlp", "head"), tokens=("all", "cls"))
    found = attribution_patching(*models, giver_corruption=CLEAN, kinds=("head", "attn", "mlp"))
    error = attribution_error(found, exact, resamples=60, level=0.9, seed=5)
    frame = error.components
    assert frame["kind"].tolist() == ["mlp"] * 3 + ["head"] * 6  # in the patching's order, all tokens alone
    x, y = (
        side[[side_of.components.index(tuple(row)) for row in frame[["kind", "layer", "head", "tokens"]].values]]
        for side_of, side in ((exact, exact.effect), (found, found.effect))
    )
    x, y = x.double().numpy(), y.double().numpy()
    np.testing.assert_allclose(frame["exact"], x.mean(1), rtol=1e-6)
    np.testing.assert_allclose(frame["approximate"], y.mean(1), rtol=1e-6)
    np.testing.assert_allclose(frame["error"], y.mean(1) - x.mean(1), rtol=1e-6, atol=1e-7)

    def quantities(weights, chosen):
        a, b = x[chosen] @ weights, y[chosen] @ weights
        return {
            "pearson": stats.pearsonr(a, b).statistic,
            "spearman": stats.spearmanr(a, b).statistic,
            "relative_error": np.linalg.norm(b - a) / np.linalg.norm(a),
        }

    overall = error.overall.set_index(["kind", "quantity"])
    shares = resampled_means(np.eye(24), resamples=60, seed=5)  # each image's share of every resample
    for kind, chosen in (("all", slice(None)), ("mlp", slice(0, 3)), ("head", slice(3, 9))):
        draws = [quantities(weights, chosen) for weights in shares]
        for name, value in draws[0].items():
            row = overall.loc[(kind, name)]
            assert row["components"] == {"all": 9, "mlp": 3, "head": 6}[kind]
            tails = np.quantile([draw[name] for draw in draws[1:]], [0.05, 0.95])
            np.testing.assert_allclose([row["value"], row["low"], row["high"]], [value, *tails], rtol=0, atol=1e-9)
    assert overall.loc[("all", "relative_error"), "value"] > 0.01
    low, high = frame["error_low"], frame["error_high"]
    assert ((low <= frame["error"]) & (frame["error"] <= high)).all()


def test_error_refuses_what_does_not_belong_together(tiny_model, batch):
    exact = patch_models(tiny_model, tiny_model, first(batch, 3), NOISE, kinds=("mlp",))
    other = attribution_patching(tiny_model, tiny_model, first(batch, 3), NOISE, kinds=("attn",))
    with pytest.raises(ValueError, match="3 and 3 images and share 0 components"):
        attribution_error(other, exact)
    fewer = attribution_patching(tiny_model, tiny_model, first(batch, 2), NOISE, kinds=("mlp",))
    with pytest.raises(ValueError, match="2 and 3 images"):
        attribution_error(fewer, exact)


def test_correlations_match_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (20, 9)).astype(float), rng.normal(size=(20, 9))  # ties on one side
    for found, reference in ((correlation, stats.pearsonr), (rank_correlation, stats.spearmanr)):
        np.testing.assert_allclose(found(x, y), [reference(a, b).statistic for a, b in zip(x, y, strict=True)])
    assert np.isnan(correlation(np.ones((1, 4)), y[:1, :4])).all()
