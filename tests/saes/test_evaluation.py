"""Evaluation of SAEs against stock sae-lens, Hugging Face's own model with a hook, and float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig
from sae_lens.evals import ExplainedVarianceCalculator
from sae_lens.saes.sae import SAEMetadata
from torch.nn.functional import cross_entropy

from mechvit import HookedViT
from mechvit.data import CLEAN, Corruption, ImageBatch, corrupt, iter_batches
from mechvit.saes import SAEConfig, evaluate_sae, evaluate_saes, load_sae, sae_cosine, train_saes
from mechvit.saes.evaluation import code_cosine, sae_site

KINDS = {"standard": (StandardSAE, StandardSAEConfig), "batchtopk": (JumpReLUSAE, JumpReLUSAEConfig)}
CORRUPTIONS = ("gaussian_blur_2", "gaussian_noise_4")
CONDITIONS = ("clean", *CORRUPTIONS)
CHOSEN = {"all": slice(None), "patches": slice(1, None), "cls": slice(0, 1)}
D = 32


def empty_sae(kind="standard", d_in=D, d_sae=96, hook="blocks.1.hook_resid_post", tokens="all"):
    cls, config = KINDS[kind]
    metadata = SAEMetadata(hook_name=hook, hook_tokens=tokens)
    return cls(config(d_in=d_in, d_sae=d_sae, metadata=metadata))


def random_sae(kind="standard", **settings):
    """Every weight far from its start; the decoder is near the encoder's transpose, so that it rebuilds something."""
    sae = empty_sae(kind, **settings)
    generator = torch.Generator().manual_seed(len(kind))

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        directions = torch.nn.functional.normalize(normal(sae.cfg.d_sae, D), dim=1)
        sae.W_enc.copy_(directions.T + 0.02 * normal(D, sae.cfg.d_sae))
        sae.W_dec.copy_(0.6 * directions + 0.02 * normal(sae.cfg.d_sae, D))
        sae.b_enc.copy_(0.3 * normal(sae.cfg.d_sae) - 0.5)
        sae.b_enc[:7] = -1e4  # dead
        sae.b_dec.copy_(0.3 * normal(D))
        if kind == "batchtopk":
            sae.threshold.copy_(0.5 + torch.rand(sae.cfg.d_sae, generator=generator))
    return sae


def identity_sae(**settings):
    """relu(x) - relu(-x) = x."""
    sae = empty_sae(d_sae=2 * D, **settings)
    with torch.no_grad():
        sae.W_enc.copy_(torch.cat([torch.eye(D), -torch.eye(D)], dim=1))
        sae.W_dec.copy_(torch.cat([torch.eye(D), -torch.eye(D)]))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return sae


def zero_sae(**settings):
    sae = empty_sae(**settings)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.zero_()
    return sae


@pytest.fixture(scope="module")
def pixels(tiny_images, tiny_processor):
    """Condition -> each image corrupted alone and normalised by Hugging Face's own processor."""
    out = {}
    for key in CONDITIONS:
        images = []
        for row in tiny_images.with_format("numpy"):
            image = torch.from_numpy(np.array(row["pixels"]))[None].float() / 255
            image = corrupt(image, key, torch.tensor([int(row["image_id"])]), seed=3)
            images.append(tiny_processor(image[0].numpy(), do_resize=False, do_rescale=False)["pixel_values"][0])
        out[key] = torch.from_numpy(np.stack(images))
    return out


@pytest.fixture(scope="module")
def hf_logits(tiny_hf, pixels):
    """Hugging Face's model, with the output of one layer changed by `change`: (logits, that layer's own output)."""
    blocks = [module for module in tiny_hf.modules() if type(module).__name__ == "ViTLayer"]

    def run(key, layer=1, tokens="all", change=None):
        seen = []

        def hook(module, inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            seen.append(hidden.clone())
            if change is not None:
                hidden = hidden.clone()
                hidden[:, CHOSEN[tokens]] = change(hidden[:, CHOSEN[tokens]])
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = blocks[layer].register_forward_hook(hook)
        try:
            with torch.no_grad():
                return tiny_hf(pixels[key]).logits, seen[0]
        finally:
            handle.remove()

    return run


@pytest.fixture(scope="module")
def batch(tiny_images, hf_logits) -> ImageBatch:
    """The images with the clean model's own predictions as labels, but for every fourth."""
    whole = next(iter_batches(tiny_images, batch_size=24))
    labels = hf_logits("clean")[0].argmax(-1)
    labels[::4] = (labels[::4] + 1) % 5
    return ImageBatch(whole.images, labels, whole.image_ids)


def float64_codes(sae, x):
    """relu, and a threshold where there is one, in float64: [token, d_sae]."""
    W, b, b_dec = (p.detach().double() for p in (sae.W_enc, sae.b_enc, sae.b_dec))
    pre = (x.double() - b_dec) @ W + b
    floor = sae.threshold.detach().double() if hasattr(sae, "threshold") else torch.zeros(len(b))
    return torch.where(pre > floor, pre.clamp_min(0), 0)


@pytest.mark.parametrize("tokens", CHOSEN)
@pytest.mark.parametrize("kind", KINDS)
def test_reconstruction_matches_float64_and_sae_lens(tiny_model, batch, hf_logits, kind, tokens):
    sae = random_sae(kind, tokens=tokens)
    for key in CONDITIONS:
        x = hf_logits(key)[1][:, CHOSEN[tokens]].flatten(0, 1)
        codes = float64_codes(sae, x)
        x_hat = codes @ sae.W_dec.detach().double() + sae.b_dec.detach().double()
        found = evaluate_sae(tiny_model, sae, batch, key, seed=3, batch_size=7)
        stock = ExplainedVarianceCalculator()
        stock.add_batch(sae(x).detach(), x)
        assert found.explained_variance == pytest.approx(stock.compute(), abs=1e-4)
        spread = sum(float((x[:, i].double() - x[:, i].double().mean()).square().sum()) for i in range(D))
        left = float((x.double() - x_hat).square().sum())
        assert found.explained_variance == pytest.approx(1 - left / spread, abs=1e-5)
        relative = [float((a - b).square().sum() / a.square().sum()) for a, b in zip(x.double(), x_hat, strict=True)]
        assert found.normalised_mse == pytest.approx(sum(relative) / len(relative), rel=1e-5)
        assert found.l0 == pytest.approx(int((codes > 0).sum()) / len(x), abs=2 / len(x))
        dead = sum(not bool((codes[:, j] > 0).any()) for j in range(96))
        assert found.dead_fraction == dead / 96
        assert dead >= 7
        assert 2 < found.l0 < 60


@pytest.mark.parametrize(("layer", "tokens"), [(1, "all"), (1, "patches"), (1, "cls"), (0, "patches"), (2, "all")])
@pytest.mark.parametrize("kind", KINDS)
def test_recovered_matches_hugging_face_with_a_hook(tiny_model, batch, hf_logits, kind, layer, tokens):
    sae = random_sae(kind, tokens=tokens, hook=f"blocks.{layer}.hook_resid_post")
    found = evaluate_saes(tiny_model, {kind: sae}, batch, CORRUPTIONS, seed=3, batch_size=10).quality
    assert list(found) == [(kind, key) for key in CONDITIONS]
    for key in CONDITIONS:
        changes = {"untouched": None, "zero": torch.zeros_like, "sae": sae.forward}
        accuracy, loss = {}, {}
        for name, change in changes.items():
            logits = hf_logits(key, layer, tokens, change)[0].double()
            accuracy[name] = float((logits.argmax(-1) == batch.labels).double().mean())
            loss[name] = float(cross_entropy(logits, batch.labels))
        own = found[kind, key]
        assert own.accuracy == pytest.approx(accuracy["sae"], abs=1e-12)
        assert own.cross_entropy == pytest.approx(loss["sae"], abs=2e-5)
        assert len(set(loss.values())) == 3
        expected = (loss["sae"] - loss["zero"]) / (loss["untouched"] - loss["zero"])
        assert own.cross_entropy_recovered == pytest.approx(expected, rel=1e-3, abs=1e-3)
        if accuracy["untouched"] != accuracy["zero"]:
            expected = (accuracy["sae"] - accuracy["zero"]) / (accuracy["untouched"] - accuracy["zero"])
            assert own.accuracy_recovered == pytest.approx(expected, abs=1e-12)
        else:
            assert math.isnan(own.accuracy_recovered)


@pytest.mark.parametrize("tokens", CHOSEN)
def test_a_perfect_sae_recovers_all_and_an_empty_one_nothing(tiny_model, batch, tokens):
    saes = {"perfect": identity_sae(tokens=tokens), "zero": zero_sae(tokens=tokens)}
    found = evaluate_saes(tiny_model, saes, batch, CORRUPTIONS)
    for key in CONDITIONS:
        perfect, zero = found.quality["perfect", key], found.quality["zero", key]
        assert perfect.explained_variance == pytest.approx(1, abs=1e-9)
        assert perfect.normalised_mse == pytest.approx(0, abs=1e-9)
        assert perfect.l0 == pytest.approx(D)
        assert perfect.cross_entropy_recovered == pytest.approx(1, abs=1e-5)
        assert zero.explained_variance <= 0
        assert zero.normalised_mse == 1
        assert (zero.l0, zero.dead_fraction) == (0, 1)
        assert zero.cross_entropy_recovered == 0
        assert zero.accuracy != perfect.accuracy
        assert (perfect.accuracy_recovered, zero.accuracy_recovered) == (1, 0)
    assert (found.cosine["zero", CORRUPTIONS[0]].cosine == 1).all()  # two empty codes are the same code


def test_recovered_is_nan_where_ablation_changes_nothing(tiny_model, batch):
    found = evaluate_sae(tiny_model, random_sae(hook="blocks.2.hook_resid_post", tokens="patches"), batch)
    assert found.accuracy == 0.75  # the head reads CLS alone
    assert math.isnan(found.accuracy_recovered)
    assert math.isnan(found.cross_entropy_recovered)


@pytest.mark.parametrize("tokens", CHOSEN)
@pytest.mark.parametrize("kind", KINDS)
def test_cosine_matches_float64_loops(tiny_model, batch, hf_logits, kind, tokens):
    sae = random_sae(kind, tokens=tokens)
    compared = CHOSEN["cls" if tokens == "cls" else "patches"]
    clean_residuals = hf_logits("clean")[1][:, compared]
    with torch.no_grad():
        sae.b_dec.copy_(clean_residuals.mean((0, 1)))  # else all codes share the latents of the mean
    for key in CORRUPTIONS:
        pair = (clean_residuals, hf_logits(key)[1][:, compared])
        clean, other = (float64_codes(sae, x).tolist() for x in pair)
        found = sae_cosine(tiny_model, sae, batch, key, seed=3, batch_size=5)
        assert torch.equal(found.image_id, batch.image_ids)
        assert found.token.tolist() == list(range(1 if tokens == "cls" else 16))
        assert found.cosine.shape == (24, len(found.token))
        assert found.cosine.dtype == torch.float32
        for i in range(24):
            for j in range(len(found.token)):
                a, b = clean[i][j], other[i][j]
                dot = sum(p * q for p, q in zip(a, b, strict=True))
                expected = dot / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))
                assert float(found.cosine[i, j]) == pytest.approx(expected, abs=2e-5)
        assert float(found.cosine.min()) < 0.9 < float(found.cosine.max())


def test_cosine_of_clean_with_itself_is_one(tiny_model, batch):
    found = sae_cosine(tiny_model, random_sae("batchtopk"), batch, CLEAN)
    torch.testing.assert_close(found.cosine, torch.ones(24, 16), rtol=0, atol=1e-6)


def test_cosine_of_empty_codes():
    zero, one = torch.zeros(4), torch.tensor([0.0, 3.0, 0.0, 4.0])
    clean = torch.stack([zero, zero, one, one, one])
    other = torch.stack([zero, one, zero, 1e-18 * one, torch.tensor([0.0, 4.0, 1.0, 0.0])])
    expected = torch.tensor([1.0, 0.0, 0.0, 1.0, 12 / (5 * 17**0.5)])
    torch.testing.assert_close(code_cosine(clean, other), expected)


def test_one_pass_equals_one_at_a_time_in_any_batches(tiny_model, batch):
    saes = {kind: random_sae(kind) for kind in KINDS}
    found = evaluate_saes(
        tiny_model, saes, batch, CORRUPTIONS, cosine_corruptions=CORRUPTIONS[1:], batch_size=24, seed=3
    )
    assert list(found.cosine) == [(kind, CORRUPTIONS[1]) for kind in KINDS]
    for (kind, key), quality in found.quality.items():
        alone = evaluate_sae(tiny_model, saes[kind], batch, Corruption.parse(key), batch_size=5, seed=3)
        for name, value in vars(quality).items():
            assert getattr(alone, name) == pytest.approx(value, rel=1e-4, abs=1e-4), name
    for (kind, key), cosine in found.cosine.items():
        alone = sae_cosine(tiny_model, saes[kind], batch, key, batch_size=5, seed=3)
        torch.testing.assert_close(alone.cosine, cosine.cosine, rtol=0, atol=1e-5)
    other = sae_cosine(tiny_model, saes["standard"], batch, CORRUPTIONS[1], seed=4)
    assert not torch.allclose(other.cosine, found.cosine["standard", CORRUPTIONS[1]].cosine, atol=1e-3)


def test_frames(tiny_model, batch):
    saes = {kind: random_sae(kind) for kind in KINDS}
    found = evaluate_saes(tiny_model, saes, batch, CORRUPTIONS)
    quality, cosine = found.quality_frame(model="base"), found.cosine_frame(model="base")
    assert list(quality.columns) == ["model", "architecture", "corruption", "metric", "value"]
    assert len(quality) == 2 * 3 * 8
    row = quality.query("architecture == 'batchtopk' and corruption == 'gaussian_noise_4' and metric == 'l0'")
    assert row["value"].item() == found.quality["batchtopk", "gaussian_noise_4"].l0
    assert list(cosine.columns) == ["model", "architecture", "corruption", "image_id", "token", "cosine"]
    assert cosine["cosine"].dtype == np.float32
    assert len(cosine) == 2 * 2 * 24 * 16
    image = int(batch.image_ids[5])
    asked = (cosine[["architecture", "corruption", "image_id", "token"]] == ["standard", CORRUPTIONS[0], image, 9]).all(
        axis=1
    )
    assert cosine["cosine"][asked].item() == float(found.cosine["standard", CORRUPTIONS[0]].cosine[5, 9])
    none = evaluate_saes(tiny_model, saes, batch, CORRUPTIONS, cosine_corruptions=()).cosine_frame(model="base")
    assert list(none.columns) == list(cosine.columns)
    assert len(none) == 0


def test_a_bare_encoder_has_reconstruction_only(tiny_hf, tiny_processor, tiny_model, batch):
    bare = HookedViT.from_hf(tiny_hf.vit, image_processor=tiny_processor)
    sae = random_sae()
    found, whole = evaluate_sae(bare, sae, batch, CORRUPTIONS[0]), evaluate_sae(tiny_model, sae, batch, CORRUPTIONS[0])
    assert found.explained_variance == pytest.approx(whole.explained_variance, abs=1e-6)
    assert found.accuracy is None
    assert found.to_frame()["metric"].tolist() == ["explained_variance", "normalised_mse", "l0", "dead_fraction"]


def test_activations_are_cast_to_the_saes_dtype(tiny_model, batch):
    sae = random_sae()
    double = random_sae().double()
    double.dtype = torch.float64
    found, precise = evaluate_sae(tiny_model, sae, batch), evaluate_sae(tiny_model, double, batch)
    assert precise.explained_variance == pytest.approx(found.explained_variance, abs=1e-5)
    assert precise.explained_variance != found.explained_variance


@pytest.mark.filterwarnings("ignore:the standard SAE's L0 never came down")
def test_published_saes_of_train_saes_load_and_evaluate(tiny_model, tiny_images, tmp_path):
    config = SAEConfig(
        epochs=1, k=4, expansion_factor=4, train_batch_size_tokens=64, tokens="patches", l1_coefficient=0.1
    )
    paths = train_saes(tiny_model, tiny_images, tiny_images, tmp_path / "saes", config=config, progress=None)
    saes = {name: load_sae(path) for name, path in paths.items()}
    found = evaluate_saes(tiny_model, saes, tiny_images, ["gaussian_blur_4"])
    for name, path in paths.items():
        stock = SAE.load_from_disk(path)
        assert sae_site(tiny_model, saes[name]) == (1, "patches")
        for parameter, same in zip(saes[name].parameters(), stock.parameters(), strict=True):
            assert torch.equal(parameter, same)
        assert found.quality[name, "clean"].explained_variance < 1
        assert found.cosine[name, "gaussian_blur_4"].cosine.shape == (24, 16)


def test_load_refuses_other_folders(tmp_path):
    with pytest.raises(ValueError, match=r"lacks cfg\.json and sae_weights\.safetensors"):
        load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(ValueError, match=r"lacks sae_weights\.safetensors"):
        load_sae(tmp_path)


def test_refuses_saes_that_do_not_fit(tiny_model, batch):
    for sae, words in (
        (empty_sae(d_in=48), "width 48; the model's d_model is 32"),
        (empty_sae(hook="blocks.3.hook_resid_post"), r"blocks\.3\.hook_resid_post'; the model's are .* blocks\.2\."),
        (empty_sae(hook="blocks.1.hook_resid_pre"), r"reads the hook 'blocks\.1\.hook_resid_pre'"),
        (empty_sae(hook=None), "reads the hook None"),
        (empty_sae(tokens=None), "hook_tokens; got None"),
    ):
        with pytest.raises(ValueError, match=words):
            evaluate_sae(tiny_model, sae, batch)
    for pair in ({"tokens": "cls"}, {"hook": "blocks.0.hook_resid_post"}):
        with pytest.raises(ValueError, match="same hook and tokens"):
            evaluate_saes(tiny_model, {"a": random_sae(), "b": random_sae(**pair)}, batch, [])
    with pytest.raises(ValueError, match="at least one"):
        evaluate_saes(tiny_model, {}, batch, [])
    with pytest.raises(ValueError, match=r"measured; got \['gaussian_blur_4'\] besides"):
        evaluate_saes(tiny_model, {"a": random_sae()}, batch, CORRUPTIONS, cosine_corruptions=["gaussian_blur_4"])


def test_refuses_residuals_that_are_not_finite(tiny_model, batch):
    with torch.no_grad():
        tiny_model.blocks[1].mlp.b_out[3] = float("nan")
    with pytest.raises(ValueError, match=r"blocks\.1\.hook_resid_post.* must be finite"):
        sae_cosine(tiny_model, random_sae(), batch, CORRUPTIONS[0])
