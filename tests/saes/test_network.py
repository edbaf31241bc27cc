"""The network up to a hook point and on from it, against a plain hook on the whole model."""

from __future__ import annotations

import pytest
import torch
from evaluation_saes import CHOSEN, CONDITIONS, CORRUPTIONS, identity_sae, random_sae
from torch.nn.functional import cross_entropy

from mechvit.data import CLEAN, Corruption, ImageBatch
from mechvit.saes import evaluate_sae, evaluate_saes
from mechvit.saes.hook_site import Site
from mechvit.saes.splicing import clean_mean, look

HOOKS = (
    "hook_embed",
    "blocks.0.hook_resid_pre",
    "blocks.2.hook_resid_pre",
    "blocks.1.hook_resid_post",
    "blocks.2.hook_resid_post",
    "blocks.1.ln1.hook_normalized",
    "blocks.1.hook_attn_out",
    "blocks.0.hook_resid_mid",
    "blocks.2.hook_mlp_out",
    "blocks.1.mlp.hook_post",
    "ln_final.hook_normalized",
)


def replaced(model, pixels, hook_name, tokens, change):
    """The whole model with a hook, and what it saw."""
    seen = []

    def hook(x, hook):
        seen.append(x.clone())
        out = x.clone()
        out[:, CHOSEN[tokens]] = change(x[:, CHOSEN[tokens]])
        return out

    with torch.no_grad():
        return model.run_with_hooks(pixels, fwd_hooks=[(hook_name, hook)]), seen[0]


@pytest.mark.parametrize("tokens", CHOSEN)
@pytest.mark.parametrize("hook", HOOKS)
def test_splicing_matches_a_hook_on_the_whole_model(tiny_model, pixels, hook, tokens):
    values = torch.randn(1, 1, 64 if "mlp.hook_post" in hook else 32, generator=torch.Generator().manual_seed(0))
    wanted, x = replaced(tiny_model, pixels["clean"], hook, tokens, lambda x: 0.5 * x + values)
    untouched = tiny_model(pixels["clean"])
    with torch.no_grad():
        seen = look(tiny_model, Site(hook, tokens), pixels["clean"])
        torch.testing.assert_close(seen.x, x[:, CHOSEN[tokens]], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(seen.untouched(), untouched, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.spliced(0.5 * seen.x + values), wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.untouched(), untouched, rtol=1e-4, atol=1e-5)  # nothing stays spliced
    if (hook, tokens) != ("blocks.2.hook_mlp_out", "patches") and not (
        tokens == "patches" and hook in ("blocks.2.hook_resid_post", "ln_final.hook_normalized")
    ):
        assert not torch.allclose(wanted, untouched, atol=1e-3)  # but where the head no longer sees patches


@pytest.mark.parametrize("hook", [h for h in HOOKS if "mlp.hook_post" not in h])
def test_an_sae_at_any_hook_point_matches_a_hook(tiny_model, batch, pixels, hook):
    sae = random_sae(hook=hook, tokens="patches" if hook == "hook_embed" else "all")
    found = evaluate_saes(tiny_model, {"a": sae}, batch, CORRUPTIONS, seed=3, batch_size=7)
    for key in CONDITIONS:
        logits, x = replaced(tiny_model, pixels[key], hook, sae.cfg.metadata.hook_tokens, sae.forward)
        own = found.quality["a", key]
        assert own.cross_entropy == pytest.approx(float(cross_entropy(logits.double(), batch.labels)), abs=2e-5)
        x = x[:, CHOSEN[sae.cfg.metadata.hook_tokens]].double()
        left = (x - sae(x.float()).detach().double()).square().sum()
        assert own.explained_variance == pytest.approx(1 - float(left / (x - x.mean((0, 1))).square().sum()), abs=1e-4)
        with torch.no_grad():
            untouched = float(cross_entropy(tiny_model(pixels[key]), batch.labels))
        assert found.baselines["untouched", key].cross_entropy == pytest.approx(untouched, abs=2e-5)


def test_a_perfect_sae_of_the_mlp_recovers_all(tiny_model, batch):
    found = evaluate_sae(tiny_model, identity_sae(d=64, hook="blocks.1.mlp.hook_post"), batch, CORRUPTIONS[1])
    assert found.explained_variance == pytest.approx(1, abs=1e-9)
    assert found.cross_entropy_recovered == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("tokens", CHOSEN)
@pytest.mark.parametrize("batch_size", [1, 7, 24])
def test_clean_mean_is_over_the_first_images_at_each_position(tiny_model, batch, hf_logits, tokens, batch_size):
    site = Site("blocks.1.hook_resid_post", tokens)
    x = hf_logits("clean")[1][:, CHOSEN[tokens]].double()
    with torch.no_grad():
        for n, wanted in ((10, x[:10].mean(0)), (24, x.mean(0)), (100, x.mean(0))):
            found = clean_mean(tiny_model, site, batch, n, batch_size)
            assert found.dtype == torch.float64
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_clean_mean_ignores_images_behind_the_bound(tiny_model, batch):
    images = batch.images.clone()
    images[10:] = 0
    other = ImageBatch(images, batch.labels, batch.image_ids)
    site = Site("blocks.0.hook_attn_out", "all")
    with torch.no_grad():
        found = [clean_mean(tiny_model, site, part, 10, 8) for part in (batch, other)]
    assert torch.equal(*found)


def test_hooked_points_see_the_corruption_of_each_image(tiny_model, batch, pixels):
    """The same image under clean and corrupted conditions in one pass is not mixed up."""
    sae = random_sae(hook="blocks.1.hook_mlp_out")
    together = evaluate_saes(tiny_model, {"a": sae}, batch, CORRUPTIONS, seed=3).quality
    for key in CONDITIONS:
        alone = evaluate_sae(tiny_model, sae, batch, CLEAN if key == "clean" else Corruption.parse(key), seed=3)
        for name, value in vars(alone).items():
            found = getattr(together["a", key], name)
            if value is None:  # the five best of five classes
                assert found is None, name
            else:
                assert found == pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True), name


def test_a_point_that_is_split_by_head_is_refused(tiny_model, batch):
    sae = random_sae(hook="blocks.1.ln1.hook_normalized")
    evaluate_sae(tiny_model, sae, batch)
    tiny_model.set_use_split_qkv_input(True)
    with pytest.raises(ValueError, match=r"one vector per token; it gave \[24, 17, 2, 32\].*split_qkv_input\(False\)"):
        evaluate_sae(tiny_model, sae, batch)
