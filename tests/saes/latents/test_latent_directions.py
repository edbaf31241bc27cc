"""A latent's direction, against decode(e_j) - decode(0) of stock sae-lens, and every analysis that reads it."""

from __future__ import annotations

import copy

import pytest
import torch
from foreign_saes import FOREIGN, RESCALED, decode_differences, folded, foreign_sae
from sae_lens import StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
from torch.nn.functional import cosine_similarity, normalize

from mechvit.data import CLEAN
from mechvit.saes import (
    Browsing,
    ablate_features,
    browse_features,
    evaluate_sae,
    evaluate_saes,
    feature_change,
    match_features,
    sae_features,
    sae_steering_direction,
    sensitive_features,
)
from mechvit.saes.dashboard.selection import match_mutually
from mechvit.saes.latents.ablation_sets import FeatureSets
from mechvit.saes.latents.directions import latent_directions, unit_directions
from mechvit.saes.latents.logit_effects import logit_effects

NOISE = "gaussian_noise_4"
ROUNDING = {"float64": 1e-14, "float32": 1e-6, "float16": 1e-6, "bfloat16": 1e-6}


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_direction_is_what_decode_adds(kind, dtype):
    """The weights are those of the SAE's dtype; what follows from them is computed in float32 at least."""
    sae = foreign_sae(kind, dtype)
    found, wanted = latent_directions(sae), decode_differences(sae)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=ROUNDING[dtype] * float(wanted.abs().max()))
    rows = torch.tensor([5, 0, 63])
    assert torch.equal(latent_directions(sae, rows), found[rows])
    torch.testing.assert_close(unit_directions(sae).double(), normalize(wanted, dim=1), rtol=0, atol=1e-6)
    assert torch.equal(found, sae.W_dec.to(found)) == (kind not in RESCALED)


def test_the_bias_takes_no_digit_away():
    """decode(e_j) - decode(0) in float32 would: a bias of 1e4 leaves three digits of a row."""
    sae = foreign_sae("standard")
    with torch.no_grad():
        sae.b_dec.fill_(1e4)
    assert torch.equal(latent_directions(sae), sae.W_dec)


class Doubled(StandardSAE):
    """A decoder that `W_dec` does not tell, but a sum of directions all the same."""

    def decode(self, codes):
        return 2 * super().decode(codes)


class Squared(StandardSAE):
    """No sum of directions."""

    def decode(self, codes):
        return super().decode(codes * codes)


class Saturated(StandardSAE):
    def decode(self, codes):
        return super().decode(codes).clamp(-1, 1)


def test_other_decoders_are_measured_or_refused():
    config = StandardSAEConfig(d_in=32, d_sae=64)
    doubled, squared, saturated = (cls(config) for cls in (Doubled, Squared, Saturated))
    for sae in (doubled, squared, saturated):
        sae.load_state_dict(foreign_sae("standard").state_dict())
    torch.testing.assert_close(latent_directions(doubled), 2 * doubled.W_dec.detach(), rtol=1e-5, atol=1e-6)
    for sae in (squared, saturated):
        with pytest.raises(ValueError, match=f"mine .{type(sae).__name__}. must decode codes to a finite sum"):
            latent_directions(sae, name="mine")
    nothing = foreign_sae("topk, rescaled")
    with torch.no_grad():
        nothing.W_dec[3] = 0  # sae-lens divides by its length: decode gives NaN
    with pytest.raises(ValueError, match="a finite sum of one vector per latent"):
        latent_directions(nothing)


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_where_decode_scales_as_it_read_a_latent_has_a_unit_vector_alone(tiny_model, batch, norm):
    sae, plain = foreign_sae("standard", normalize_activations=norm), foreign_sae("standard")
    sae.load_state_dict(plain.state_dict())
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():  # decode reads what encode kept
        sae.encode(x)
        code = torch.nn.functional.one_hot(torch.tensor([7]), 64).float()
        written = sae.decode(code.expand(4, -1))
        sae.encode(x)
        written = written - sae.decode(torch.zeros(4, 64))
    alike = cosine_similarity(written, unit_directions(sae)[7].expand(4, -1))
    torch.testing.assert_close(alike, torch.ones(4), rtol=0, atol=1e-5)
    assert written.norm(dim=1).std() > 1e-2 * written.norm(dim=1).mean()  # of another length in every token
    matched = match_features(sae, plain)
    assert matched.match.tolist() == list(range(64))
    torch.testing.assert_close(matched.cosine, torch.ones(64), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=rf"normalises its input \({norm}\)"):
        latent_directions(sae)
    with pytest.raises(ValueError, match=rf"normalises its input \({norm}\)"):
        sae_steering_direction(tiny_model, sae, batch, NOISE, n_latents=4)
    change = feature_change({"base": tiny_model}, sae, batch, NOISE).models["base"]
    with pytest.raises(ValueError, match=rf"normalises its input \({norm}\)"):
        sensitive_features(sae, change, 3)
    found = sae_features(tiny_model, sae, batch, top_images=2)
    assert found.logits is None  # what it writes has no length
    assert sae_features(tiny_model, plain, batch, top_images=2).logits is not None


def test_directions_of_joined_heads_need_no_head_width():
    """A hook_z SAE learns the heads' width from the first activation; its directions lie in the joined space."""
    sae = foreign_sae("topk, rescaled", hook="blocks.1.attn.hook_z", reshape_activations="hook_z")
    joined = foreign_sae("topk, rescaled")
    torch.testing.assert_close(latent_directions(sae), latent_directions(joined), rtol=0, atol=0)
    x = torch.randn(5, 2, 16)
    assert sae(x).shape == x.shape  # nothing is left behind


@pytest.mark.parametrize("kind", FOREIGN)
def test_ablation_is_that_of_the_sae_spliced_in_with_its_error(tiny_model, batch, kind):
    """The reference decodes with stock sae-lens: the codes at 0 within the spliced SAE, its error term kept."""
    sae = foreign_sae(kind)
    latents = torch.arange(20, 32)
    sets = FeatureSets(
        sensitive=latents,
        controls=latents[None] + 20,
        unmatched=latents[:0],
        sensitivity=torch.ones(64, dtype=torch.float64),
        rate=torch.ones(64, dtype=torch.float64),
    )
    found = ablate_features(tiny_model, sae, batch, [], sets, counts=(12,)).per_image
    pixels = (batch.images - 0.5) / 0.5
    point = f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post"

    def without(codes, hook):
        return codes.index_fill(-1, latents, 0)

    if "matching" in kind:  # its encode passes no hook point
        with torch.no_grad():
            x = tiny_model.run_with_cache(pixels)[1][sae.cfg.metadata.hook_name]
            codes = sae.encode(x)
            moved = x + sae.decode(codes.index_fill(-1, latents, 0)) - sae.decode(codes)
            logits = tiny_model(moved, start_at_layer=2)
    else:
        with torch.no_grad():
            logits = tiny_model.run_with_hooks_with_saes(
                pixels, saes=[sae], use_error_term=True, fwd_hooks=[(point, without)]
            )
    wanted = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
    own = found.query("kind == 'sensitive'")["loss"].to_numpy()
    untouched = found.query("kind == 'untouched'")["loss"].to_numpy()
    torch.testing.assert_close(torch.tensor(own), wanted, rtol=1e-4, atol=1e-4)
    assert abs(own - untouched).max() > 0.01


@pytest.mark.parametrize("kind", ["topk, rescaled"])
def test_every_analysis_gives_what_it_gives_of_the_folded_sae(tiny_model, batch, kind):
    """Folding the rows' lengths into the encoder, with sae-lens's own code, changes neither codes nor output."""
    sae = foreign_sae(kind)
    other = folded(sae)
    with torch.no_grad():
        x = tiny_model.run_with_cache((batch.images - 0.5) / 0.5)[1][sae.cfg.metadata.hook_name]
        torch.testing.assert_close(sae(x), other(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sae.encode(x), other.encode(x), rtol=1e-5, atol=1e-5)
    assert (sae.W_dec - other.W_dec).abs().max() > 0.5
    close = {"rtol": 1e-4, "atol": 1e-4}

    steering = [sae_steering_direction(tiny_model, s, batch, NOISE, n_latents=5).vector for s in (sae, other)]
    torch.testing.assert_close(*steering, **close)
    assert steering[0].norm() > 0.01

    change = feature_change({"base": tiny_model}, sae, batch, NOISE).models["base"]
    sets = [sensitive_features(s, change, 6, draws=2, caliper=3) for s in (sae, other)]
    assert torch.equal(sets[0].sensitive, sets[1].sensitive)
    torch.testing.assert_close(sets[0].sensitivity, sets[1].sensitivity, **close)
    ablated = [ablate_features(tiny_model, s, batch, [NOISE], sets[0], counts=(1, 6)).per_image for s in (sae, other)]
    torch.testing.assert_close(*(torch.tensor(frame["loss"].to_numpy()) for frame in ablated), **close)

    third = foreign_sae("standard", seed=4)
    matches = [match_features(s, third) for s in (sae, other)]
    assert torch.equal(matches[0].match, matches[1].match)
    torch.testing.assert_close(matches[0].cosine, matches[1].cosine, **close)
    chosen = torch.arange(64)
    torch.testing.assert_close(
        *(match_mutually(s, third, chosen).cosine for s in (sae, other)), equal_nan=True, **close
    )

    effects = [sae_features(tiny_model, s, batch, top_images=2).logits for s in (sae, other)]
    torch.testing.assert_close(effects[0].raised_by, effects[1].raised_by, **close)
    assert torch.equal(effects[0].raised, effects[1].raised)

    settings = Browsing(n_features=12, n_images=3, top_images=2, random_images=1, nearest=3, strongest=4)
    pages = [browse_features({"one": (tiny_model, s)}, batch, [NOISE], settings=settings) for s in (sae, other)]
    one, two = (page.saes["one"] for page in pages)
    assert torch.equal(one.chosen, two.chosen)
    assert torch.equal(one.strongest.feature, two.strongest.feature)
    torch.testing.assert_close(one.ablation.label_logit, two.ablation.label_logit, equal_nan=True, **close)
    torch.testing.assert_close(one.nearest_cosine, two.nearest_cosine, **close)
    assert one.ablation.label_logit.nan_to_num().abs().max() > 0.01


def test_logit_effects_are_those_of_the_decoded_unit_code(tiny_model):
    sae = foreign_sae("topk, rescaled")
    found = logit_effects(tiny_model, latent_directions(sae), top=5)
    wanted = logit_effects(tiny_model, decode_differences(sae).float(), top=5)
    torch.testing.assert_close(found.raised_by, wanted.raised_by, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.raised, wanted.raised)


@pytest.mark.parametrize("norm", ["expected_average_only_in", "covariance_whitening"])
def test_weights_that_lack_their_normalisation_are_refused(tiny_model, batch, norm):
    """sae-lens normalises so in training alone: what reads raw activations afterwards is the folded SAE."""
    sae = foreign_sae("standard", normalize_activations=norm)
    with pytest.raises(ValueError, match=f"its training normalised .{norm}., and its weights do not hold that yet"):
        evaluate_sae(tiny_model, sae, batch)
    with pytest.raises(ValueError, match=r"sae\.fold_activation_norm_scaling_factor"):
        tiny_model.add_sae(sae)
    if norm == "expected_average_only_in":
        sae.fold_activation_norm_scaling_factor(2.0)
        assert evaluate_sae(tiny_model, sae, batch).l0 > 0
        tiny_model.add_sae(sae)


LEAVES_HOOKS = {
    "in a context": lambda model, sae, zero: _within(model, sae, zero),
    "spliced in and taken out": lambda model, sae, zero: (
        model.add_sae(sae),
        model.add_hook(f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post", zero),
        model.reset_saes(),
    ),
    "replaced by another": lambda model, sae, zero: (
        model.add_sae(sae),
        model.add_hook(f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post", zero),
        model.add_sae(copy.deepcopy(sae)),
        model.reset_saes(),
    ),
}


def _within(model, sae, zero):
    with model.saes([sae]):
        model.add_hook(f"{sae.cfg.metadata.hook_name}.hook_sae_acts_post", zero)


@pytest.mark.parametrize("how", LEAVES_HOOKS)
def test_hooks_left_in_an_sae_are_refused_until_reset_hooks_clears_them(tiny_model, batch, how):
    sae = foreign_sae("jumprelu")
    wanted = evaluate_sae(tiny_model, sae, batch).l0
    assert wanted > 1
    LEAVES_HOOKS[how](tiny_model, sae, lambda codes, hook: codes * 0)
    assert not sae.encode(torch.randn(3, 32)).any()
    change = feature_change({"base": tiny_model}, foreign_sae("jumprelu"), batch, NOISE).models["base"]
    refused = {
        "evaluate_sae": lambda: evaluate_sae(tiny_model, sae, batch),
        "evaluate_saes": lambda: evaluate_saes(tiny_model, {"mine": sae}, batch, [NOISE]),
        "feature_change": lambda: feature_change({"base": tiny_model}, sae, batch, NOISE),
        "sensitive_features": lambda: sensitive_features(sae, change, 2),
        "match_features": lambda: match_features(sae, sae),
        "sae_steering_direction": lambda: sae_steering_direction(tiny_model, sae, batch, NOISE),
        "browse_features": lambda: browse_features({"mine": (tiny_model, sae)}, batch),
    }
    for call in refused.values():
        with pytest.raises(ValueError, match=r"has hooks at hook_sae_acts_post.*sae.reset_hooks"):
            call()
    tiny_model.reset_hooks()
    assert evaluate_sae(tiny_model, sae, batch).l0 == wanted
    assert tiny_model.hook_points() == list(tiny_model.hook_dict.values())


def test_hooks_that_sae_lens_or_torch_put_on_an_sae_are_refused_too(tiny_model, batch):
    sae = foreign_sae("jumprelu")
    sae.add_hook("hook_sae_input", lambda x, hook: x * 0)
    with pytest.raises(ValueError, match="the SAE 'sae' has hooks at hook_sae_input"):
        evaluate_sae(tiny_model, sae, batch)
    sae.reset_hooks()
    handle = sae.hook_sae_recons.register_forward_hook(lambda module, inputs, output: output * 0)
    with pytest.raises(ValueError, match="has hooks at hook_sae_recons"):
        evaluate_sae(tiny_model, sae, batch)
    handle.remove()
    assert evaluate_sae(tiny_model, sae, batch).l0 > 1


def test_a_hook_point_where_an_sae_is_spliced_in_is_named(tiny_model, batch):
    sae = foreign_sae("jumprelu")
    with (
        tiny_model.saes([sae]),
        pytest.raises(ValueError, match=r"where an SAE is spliced in: take it out with model.reset_saes\(\)"),
    ):
        evaluate_sae(tiny_model, sae, batch)
    assert evaluate_sae(tiny_model, sae, batch).l0 > 1


def test_transcoders_are_refused(tiny_model, batch):
    sae = foreign_sae("jumprelu")
    sae.cfg.metadata.hook_name_out = "blocks.2.hook_resid_post"
    with pytest.raises(ValueError, match=r"decode\(encode\(x\)\), at the point that it reads; the SAE 'sae' is 'jump"):
        evaluate_sae(tiny_model, sae, batch)


def test_codes_of_both_signs_are_measured_by_their_size_and_not_described(tiny_model, batch):
    sae = foreign_sae("abstopk, rescaled")
    with torch.no_grad():
        x = tiny_model.run_with_cache((batch.images - 0.5) / 0.5)[1][sae.cfg.metadata.hook_name]
        codes = sae.encode(x)
    assert (codes < 0).any()
    assert evaluate_sae(tiny_model, sae, batch).l1 == pytest.approx(float(codes.abs().sum(-1).mean()), rel=1e-5)
    with pytest.raises(ValueError, match=r"abstopk. fire with both signs"):
        sae_features(tiny_model, sae, batch)


def test_what_is_no_sae_is_named(tiny_model, batch):
    for given in ("saes/base/topk", TopKSAEConfig(d_in=32, d_sae=64), tiny_model, None):
        with pytest.raises(ValueError, match=r"^sae must be an SAE of sae-lens; got "):
            evaluate_sae(tiny_model, given, batch)
    assert TopKSAE is type(foreign_sae("topk"))
    assert evaluate_sae(tiny_model, foreign_sae("topk"), batch, CLEAN).l0 > 1
