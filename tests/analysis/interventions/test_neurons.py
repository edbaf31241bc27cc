"""Exact neuron patching against one plain hook at a time, its approximation, and what is chosen."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hf_zoo import ZOO
from scipy import stats
from shifted_models import shifted
from torch import Tensor

from mechvit import HookedViT
from mechvit.analysis import attribution_patching, choose_neurons, patch_models, patch_neurons, resampled_means
from mechvit.analysis.interventions.neuron_patching import Neuron
from mechvit.analysis.interventions.recovery import foils, logit_difference
from mechvit.data.batches import ImageBatch
from mechvit.data.corruptions import corrupt
from mechvit.data.pixels import normalize

NOISE, CLEAN = "gaussian_noise_2", "clean"


def pixels_of(model: HookedViT, batch: ImageBatch, key: str) -> Tensor:
    return normalize(corrupt(batch.images, key, batch.image_ids, seed=0), model.image_processor)


def divergence(giver: Tensor, logits: Tensor) -> Tensor:
    own, theirs = (part.double().log_softmax(-1) for part in (logits, giver))
    return torch.nn.functional.kl_div(own, theirs, reduction="none", log_target=True).sum(-1)


def one_by_one(receiver, giver, batch, giver_key, places, quantity="logit_difference") -> Tensor:
    """The effect of each neuron from a whole forward pass with one hook."""
    found = []
    with torch.no_grad():
        pixels = pixels_of(receiver, batch, NOISE)
        plain = receiver(pixels)
        other, cache = giver.run_with_cache(pixels_of(giver, batch, giver_key))
        foil = foils(batch.labels, plain, other)
        for layer, neuron in places:
            name = f"blocks.{layer}.mlp.hook_post"

            def swap(x, hook, name=name, neuron=neuron):
                x = x.clone()
                x[..., neuron] = cache[name][..., neuron]
                return x

            patched = receiver.run_with_hooks(pixels, fwd_hooks=[(name, swap)])
            if quantity == "divergence":
                found.append(divergence(other, patched) - divergence(other, plain))
                continue
            margins = (logit_difference(logits, batch.labels, foil) for logits in (patched, plain))
            found.append(next(margins) - next(margins))
    return torch.stack(found)


@pytest.mark.parametrize("name", ["vit classifier", "dinov2 classifier, swiglu", "siglip classifier"])
@pytest.mark.parametrize(("batch_size", "giver_key"), [(3, NOISE), (64, CLEAN)])
def test_matches_one_hook_at_a_time(name, batch, tiny_processor, batch_size, giver_key):
    receiver = HookedViT.from_hf(ZOO[name](), tiny_processor)
    giver, few = shifted(copy.deepcopy(receiver)), ImageBatch(batch.images[:5], batch.labels[:5], batch.image_ids[:5])
    places = [(2, 0), (0, 5), (0, receiver.cfg.d_mlp - 1), (1, 3), (0, 6)]
    found = patch_neurons(receiver, giver, few, NOISE, places, giver_corruption=giver_key, batch_size=batch_size)
    wanted = one_by_one(receiver, giver, few, giver_key, places)
    torch.testing.assert_close(found.exact, wanted, rtol=1e-4, atol=2e-5)
    assert found.exact.abs().max() > 1e-3
    whole = attribution_patching(receiver, giver, few, NOISE, giver_corruption=giver_key, kinds=("mlp",))
    for place, own in zip(places, found.approximate, strict=True):
        assert own.mean() == pytest.approx(float(whole.neuron_effect[place]), rel=1e-3, abs=1e-6)
    assert found.image_id.tolist() == few.image_ids.tolist()


def test_the_divergence_matches_one_hook_at_a_time(batch, tiny_processor):
    receiver = HookedViT.from_hf(ZOO["vit classifier"](), tiny_processor)
    few = ImageBatch(batch.images[:5], torch.full_like(batch.labels[:5], -1), batch.image_ids[:5])
    giver, places = shifted(copy.deepcopy(receiver)), [(2, 0), (0, 5), (1, 3)]
    found = patch_neurons(receiver, giver, few, NOISE, places, quantity="divergence", batch_size=3)
    wanted = one_by_one(receiver, giver, few, NOISE, places, "divergence")
    torch.testing.assert_close(found.exact.double(), wanted, rtol=1e-3, atol=1e-7)
    assert found.exact.abs().max() > 1e-5
    whole = attribution_patching(receiver, giver, few, NOISE, kinds=("mlp",), quantity="divergence")
    for place, own in zip(places, found.approximate, strict=True):
        assert own.mean() == pytest.approx(float(whole.neuron_effect[place]), rel=1e-3, abs=1e-7)


def test_nothing_changes_from_itself_or_where_nothing_differs(tiny_model, planted):
    base, tuned, images = planted
    found = patch_neurons(tiny_model, tiny_model, images, NOISE, [(0, 0), (2, 7)])
    assert found.exact.abs().max() < 1e-5
    assert found.approximate.abs().max() == 0
    found = patch_neurons(base, tuned, images, NOISE, [(0, 3), (1, 3)])
    assert found.exact[0].abs().max() < 1e-5  # block 1 alone is another's
    assert found.exact[1].abs().max() > 1e-3


def test_all_neurons_of_a_linear_model_sum_to_its_mlp(tiny_processor, batch):
    """A CLIP head reads the patches' mean through no LayerNorm, and blocks 1 and 2 add nothing."""
    model = HookedViT.from_hf(ZOO["clip classifier"](), tiny_processor)
    with torch.no_grad():
        for block in model.blocks[1:]:
            for parameter in (*block.attn.o.parameters(), *block.mlp.fc2.parameters()):
                parameter.zero_()
    giver = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in giver.blocks[0].mlp.fc1.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    found = patch_neurons(model, giver, batch, NOISE, [(0, neuron) for neuron in range(model.cfg.d_mlp)])
    torch.testing.assert_close(found.approximate, found.exact, rtol=1e-3, atol=1e-4)
    mlp = patch_models(model, giver, batch, NOISE, kinds=("mlp",)).effect[0]
    torch.testing.assert_close(found.exact.sum(0), mlp, rtol=1e-3, atol=5e-4)
    agreement = found.agreement(resamples=20).set_index("quantity")["value"]
    assert agreement["relative_error"] < 1e-3
    assert agreement["pearson"] == pytest.approx(1, abs=1e-4)


def test_tables_match_scipy_on_every_resample(tiny_model, batch):
    giver = shifted(copy.deepcopy(tiny_model))
    neurons = choose_neurons(attribution_patching(tiny_model, giver, batch, NOISE, kinds=("mlp",)), top=4, random=5)
    found = patch_neurons(tiny_model, giver, batch, NOISE, neurons)
    table = found.agreement(resamples=30, level=0.9, seed=2).set_index(["chosen", "quantity"])
    shares = resampled_means(np.eye(24), resamples=30, seed=2)
    for reason, rows in (("all", slice(None)), ("top", slice(0, 4)), ("random", slice(4, 9))):
        x, y = (side.double().numpy()[rows] @ shares.T for side in (found.exact, found.approximate))
        for name, of in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
            draws = [of(a, b).statistic for a, b in zip(x.T, y.T, strict=True)]
            wanted = [draws[0], *np.quantile(draws[1:], [0.05, 0.95])]
            np.testing.assert_allclose(
                table.loc[(reason, name), ["value", "low", "high"]].to_numpy(float), wanted, atol=1e-6
            )
        errors = np.linalg.norm(y - x, axis=0) / np.linalg.norm(x, axis=0)
        assert table.loc[(reason, "relative_error"), "value"] == pytest.approx(errors[0])
    frame = found.to_frame(resamples=30, pair="a")
    assert list(frame)[:5] == ["pair", "layer", "neuron", "chosen", "exact"]
    np.testing.assert_allclose(frame["error"], frame["approximate"] - frame["exact"], atol=1e-9)


def test_the_largest_and_others_are_chosen(tiny_model, batch):
    attribution = attribution_patching(tiny_model, shifted(copy.deepcopy(tiny_model)), batch, NOISE, kinds=("mlp",))
    chosen = choose_neurons(attribution, top=6, random=10, seed=4)
    assert [neuron.chosen for neuron in chosen] == ["top"] * 6 + ["random"] * 10
    assert len({neuron[:2] for neuron in chosen}) == 16
    sizes = [float(attribution.neuron_effect[neuron[:2]].abs()) for neuron in chosen]
    assert min(sizes[:6]) >= max(sizes[6:])
    assert sizes[:6] == sorted(sizes[:6], reverse=True)
    assert chosen[6:] != choose_neurons(attribution, top=6, random=10, seed=5)[6:]
    assert len(choose_neurons(attribution, top=190, random=10)) == 3 * 64


def test_what_is_not_there_is_refused(tiny_model, batch):
    for wrong, says in (
        ([], r"at least one .layer below 3, neuron below 64."),
        ([(3, 0)], r"\(3, 0\)"),
        ([(0, 64)], "64"),
    ):
        with pytest.raises(ValueError, match=says):
            patch_neurons(tiny_model, tiny_model, batch, NOISE, wrong)
    with pytest.raises(ValueError, match="none twice"):
        patch_neurons(tiny_model, tiny_model, batch, NOISE, [(0, 1), Neuron(0, 1, "top")])
