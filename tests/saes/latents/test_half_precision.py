"""SAEs of half precision: sums over latents and tokens are those of float64, where half's own overflow or stall."""

from __future__ import annotations

import copy

import pytest
import torch
from foreign_saes import foreign_sae

from mechvit.analysis.attention.capture import pattern_entropy, pattern_shift
from mechvit.analysis.inputs import wide, wide_sum
from mechvit.saes import Browsing, browse_features, evaluate_sae, evaluate_saes, sae_features
from mechvit.saes.dashboard.examples import ChosenTally
from mechvit.saes.evaluation.reconstruction import Reconstruction, code_cosine
from mechvit.saes.latents.statistics import CorruptionTally, FeatureTally

HALVES = [torch.float16, torch.bfloat16]
HALF = pytest.mark.parametrize("dtype", HALVES)


def large_codes(dtype, images=3, tokens=5, d_sae=200):
    """Codes whose sums over latents or tokens lie beyond half precision's 65504."""
    generator = torch.Generator().manual_seed(3)
    codes = 3000 * torch.rand(images, tokens, d_sae, generator=generator)
    codes[:, :, 0] = 30000
    return (codes * (torch.rand(codes.shape, generator=generator) < 0.5)).to(dtype)


@HALF
def test_l1_is_that_of_float64(dtype):
    codes = large_codes(dtype)
    x = torch.randn(3, 5, 8)
    found = Reconstruction()
    found.add(x, codes, x + 1)
    assert codes.double().sum(2).amax() > 65504
    wanted = float(codes.double().sum(2).mean())
    assert found.l1 / 15 == pytest.approx(wanted, rel=1e-6)


@HALF
def test_cosines_of_codes_are_those_of_float64(dtype):
    a, b = large_codes(dtype), large_codes(dtype).flip(0)
    wanted = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1)
    torch.testing.assert_close(code_cosine(a, b).double(), wanted, rtol=1e-5, atol=1e-6)


@HALF
def test_a_corruption_s_sums_are_those_of_float64(dtype):
    clean, other = large_codes(dtype), large_codes(dtype).flip(0)
    pair = CorruptionTally()
    pair.add(clean, other)
    found, (a, b) = pair.result(), (clean.double().flatten(0, 1), other.double().flatten(0, 1))
    torch.testing.assert_close(found.clean_mean, a.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.mean_difference, (b - a).mean(0), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found.mean_absolute_difference, (b - a).abs().mean(0), rtol=1e-6, atol=1e-6)


@HALF
def test_descriptions_of_latents_are_those_of_float64(dtype):
    codes, labels = large_codes(dtype, images=6), torch.tensor([0, 1, 0, 2, 1, 1])
    found = FeatureTally(top=2, n_tokens=5, first_patch=0)
    for part in (slice(0, 4), slice(4, 6)):
        found.add(codes[part], labels[part], part.start)
    result, plain = found.result(torch.arange(6), labels, None), codes.double()
    fired = (plain != 0).sum((0, 1))
    torch.testing.assert_close(result.mean_activation, plain.sum((0, 1)) / fired, rtol=1e-6, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(result.max_activation.double(), plain.amax((0, 1)))
    mass = torch.stack([plain[labels == label].sum((0, 1)) for label in range(3)])
    torch.testing.assert_close(result.mass_label_purity, mass.amax(0) / mass.sum(0), rtol=1e-5, atol=1e-6)
    assert len(result.to_frame()) == 200  # NumPy has no bfloat16


@HALF
def test_a_browser_s_tallies_are_those_of_float64(dtype):
    codes, labels = large_codes(dtype, images=4), torch.tensor([0, 1, 1, 0])
    tally = ChosenTally(codes.float().amax((0, 1)), 2)
    tally.add(wide(codes), labels)
    plain = codes.double()
    mass = torch.stack([plain[labels == label].sum((0, 1)) for label in range(2)])
    torch.testing.assert_close(tally.label_share(), (mass / mass.sum(0)).T, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_sums_of_single_and_double_precision_keep_their_bits():
    x = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    for values in (x, x.double()):
        assert wide(values) is values
        assert torch.equal(wide_sum(values, 1), values.sum(1))
        assert wide_sum(values, 1).dtype == values.dtype
    assert wide_sum(x.half(), 1).dtype == torch.float32


@HALF
def test_a_half_precision_sae_measures_as_its_weights_in_single_precision(tiny_model, batch, dtype):
    """Up to the SAE's own rounding: its latents are large enough that half precision's sums overflow."""
    sae = foreign_sae("topk", d_sae=96)
    with torch.no_grad():  # the same output from larger codes, the largest of which half precision just holds
        sae.b_dec.zero_()
        x = tiny_model.run_with_cache((batch.images - 0.5) / 0.5)[1][sae.cfg.metadata.hook_name]
        factor = 40000 / sae.encode(x).max()
        sae.W_enc.mul_(factor)
        sae.b_enc.mul_(factor)
        sae.W_dec.div_(factor)
        for weight in sae.parameters():
            weight.copy_(weight.to(dtype))
    half = copy.deepcopy(sae).to(dtype=dtype)
    one, two = (evaluate_sae(tiny_model, s, batch) for s in (sae, half))
    assert one.l1 > 65504
    assert two.l1 == pytest.approx(one.l1, rel=0.05)
    assert two.l0 == pytest.approx(one.l0, rel=0.01)
    cosine = evaluate_saes(tiny_model, {"half": half}, batch, ["gaussian_noise_4"]).cosine["half", "gaussian_noise_4"]
    assert cosine.cosine.isfinite().all()
    described = sae_features(tiny_model, half, batch, ["gaussian_noise_4"], top_images=3)
    assert torch.equal(described.mean_activation.isfinite(), described.firing_rate > 0)
    assert described.sensitivity["gaussian_noise_4"].clean_mean.isfinite().all()
    with torch.no_grad():
        half.W_enc.mul_(8)
    if dtype == torch.float16:  # now the codes themselves overflow
        with pytest.raises(ValueError, match=r"reconstruction of the SAE 'sae' is not finite.*dtype=torch.float32"):
            evaluate_sae(tiny_model, half, batch)
        return
    page = browse_features(
        {"half": (tiny_model, half)}, batch, settings=Browsing(n_features=8, n_images=2, top_images=2, nearest=2)
    ).saes["half"]
    assert page.label_share.nan_to_num(0).sum(1).round(decimals=6).unique().tolist() == [1]


@pytest.mark.long
@HALF
def test_attention_s_sums_are_those_of_float64(dtype):
    """Over as many heads and rows as a large model has, half precision's own sum is infinite or 3% off."""
    rows = torch.rand(1, 16, 700, 700, generator=torch.Generator().manual_seed(0)).softmax(-1).to(dtype)
    plain = rows.double()
    wanted = -(plain * plain.clamp_min(1e-30).log()).sum(-1).mean((1, 2))
    assert float(-(rows * rows.log()).sum((1, 2, 3))) > 65504
    torch.testing.assert_close(pattern_entropy(rows).double(), wanted, rtol=1e-5, atol=0)
    other = rows.roll(1, 2)
    cosine, squared = pattern_shift(rows, other, torch.linalg.vector_norm(wide(rows), dim=-1))
    apart = (plain - other.double()).square().sum(-1)
    torch.testing.assert_close(squared.double(), apart.mean((1, 2)), rtol=1e-4, atol=0)
    alike = torch.nn.functional.cosine_similarity(plain, other.double(), dim=-1)
    torch.testing.assert_close(cosine.double(), alike.mean((1, 2)), rtol=1e-5, atol=1e-6)
