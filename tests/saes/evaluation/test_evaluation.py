"""Evaluation of SAEs against stock sae-lens, Hugging Face's own model with a hook, and float64 loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from evaluation_saes import CHOSEN, CONDITIONS, CORRUPTIONS, KINDS, D, float64_codes, identity_sae, random_sae, zero_sae
from sae_lens import SAE, GatedSAE, GatedSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
from sae_lens.evals import ExplainedVarianceCalculator
from sae_lens.saes.sae import SAEMetadata
from torch.nn.functional import cross_entropy

from mechvit import HookedViT
from mechvit.analysis import evaluate
from mechvit.data import Corruption
from mechvit.saes import SAEConfig, evaluate_sae, evaluate_saes, load_sae, sae_cosine, train_saes
from mechvit.saes.hook_site import sae_site


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
        cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(x.double(), x_hat, strict=True)]
        assert found.cosine == pytest.approx(sum(cosines) / len(cosines), rel=1e-5)
        assert found.l1 == pytest.approx(sum(map(sum, codes.tolist())) / len(x), rel=1e-5)
        fired = (codes > 0).reshape(24, -1, 96)
        cls, patches = (slice(0, 1), slice(1, None)) if tokens == "all" else (slice(0, 16), slice(0, 16))
        if tokens != "patches":
            assert found.l0_cls == pytest.approx(float(fired[:, cls].double().sum(2).mean()), abs=2 / 24)
        if tokens != "cls":
            assert found.l0_patches == pytest.approx(float(fired[:, patches].double().sum(2).mean()), abs=2 / 384)
        assert (found.l0_cls is None, found.l0_patches is None) == (tokens == "patches", tokens == "cls")
        rates = [sum(column) / len(x) for column in (codes > 0).T.tolist()]
        assert found.dense_fraction == pytest.approx(sum(rate > 0.1 for rate in rates) / 96, abs=1 / 96)
        dead = sum(not bool((codes[:, j] > 0).any()) for j in range(96))
        assert found.dead_fraction == dead / 96
        assert dead >= 7
        assert 2 < found.l0 < 60


def reference(logits, labels):
    """The model's scores by torchmetrics, accuracy and cross-entropy in float64."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    return {
        "accuracy": float((logits.argmax(-1) == labels).double().mean()),
        "ece": float(multiclass_calibration_error(logits.float().softmax(-1), labels, 5, n_bins=15)),
        "cross_entropy": float(cross_entropy(logits.double(), labels)),
    }


@pytest.mark.long
@pytest.mark.parametrize(("layer", "tokens"), [(1, "all"), (1, "patches"), (1, "cls"), (0, "patches"), (2, "all")])
@pytest.mark.parametrize("kind", KINDS)
def test_spliced_scores_match_hugging_face_with_a_hook(tiny_model, batch, hf_logits, kind, layer, tokens):
    sae = random_sae(kind, tokens=tokens, hook=f"blocks.{layer}.hook_resid_post")
    found = evaluate_saes(tiny_model, {kind: sae}, batch, CORRUPTIONS, seed=3, batch_size=10)
    assert list(found.quality) == [(kind, key) for key in CONDITIONS]
    mean = hf_logits("clean", layer)[1][:, CHOSEN[tokens]].double().mean(0)
    changes = {
        "untouched": None,
        "zero": torch.zeros_like,
        "mean": lambda x: mean.to(x).expand_as(x),
        "sae": sae.forward,
    }
    for key in CONDITIONS:
        wanted = {
            name: reference(hf_logits(key, layer, tokens, change)[0], batch.labels) for name, change in changes.items()
        }
        own = found.quality[kind, key]
        for name, scores in wanted.items():
            shown = own if name == "sae" else found.baselines[name, key]
            for metric, value in scores.items():
                assert getattr(shown, metric) == pytest.approx(value, abs=2e-5), (name, metric)
        assert len({scores["cross_entropy"] for scores in wanted.values()}) == 4
        for metric in ("accuracy", "cross_entropy"):
            best, value = wanted["untouched"][metric], wanted["sae"][metric]
            for floor, suffix in (("zero", ""), ("mean", "_from_mean")):
                shown, low = getattr(own, f"{metric}_recovered{suffix}"), wanted[floor][metric]
                if low == best:
                    assert math.isnan(shown)
                else:
                    assert shown == pytest.approx((value - low) / (best - low), rel=1e-3, abs=1e-3)


def test_top5_is_counted_among_more_than_five_classes(tiny_processor, tiny_images):
    import transformers

    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=19,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = HookedViT.from_hf(transformers.ViTForImageClassification(config).eval(), image_processor=tiny_processor)
        model.head.weight.normal_()
    sae = random_sae(hook="blocks.0.hook_resid_post")
    found = evaluate_saes(model, {"a": sae}, tiny_images, [], batch_size=9).baselines["untouched", "clean"]
    performance = evaluate(model, tiny_images)
    assert found.top5 == performance.top(5)
    assert found.ece == pytest.approx(performance.ece(), abs=1e-9)
    assert 0 < found.top5 < 1


@pytest.mark.parametrize("tokens", CHOSEN)
def test_a_perfect_sae_recovers_all_and_an_empty_one_nothing(tiny_model, batch, tokens):
    saes = {"perfect": identity_sae(tokens=tokens), "zero": zero_sae(tokens=tokens)}
    found = evaluate_saes(tiny_model, saes, batch, CORRUPTIONS)
    for key in CONDITIONS:
        perfect, zero = found.quality["perfect", key], found.quality["zero", key]
        assert perfect.explained_variance == pytest.approx(1, abs=1e-9)
        assert perfect.normalised_mse == pytest.approx(0, abs=1e-9)
        assert perfect.cosine == pytest.approx(1, abs=1e-9)
        assert perfect.l0 == pytest.approx(D)
        assert perfect.cross_entropy_recovered_from_mean == pytest.approx(1, abs=1e-5)
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


def test_one_pass_equals_one_at_a_time_in_any_batches(tiny_model, batch):
    saes = {kind: random_sae(kind) for kind in KINDS}
    found = evaluate_saes(
        tiny_model, saes, batch, CORRUPTIONS, cosine_corruptions=CORRUPTIONS[1:], batch_size=24, seed=3
    )
    assert list(found.cosine) == [(kind, CORRUPTIONS[1]) for kind in KINDS]
    for (kind, key), quality in found.quality.items():
        alone = evaluate_sae(tiny_model, saes[kind], batch, Corruption.parse(key), batch_size=5, seed=3)
        for name, value in vars(quality).items():
            if value is None:  # top5 of five classes
                assert getattr(alone, name) is None
                continue
            assert getattr(alone, name) == pytest.approx(value, rel=1e-4, abs=1e-4), name
    for (kind, key), cosine in found.cosine.items():
        alone = sae_cosine(tiny_model, saes[kind], batch, key, batch_size=5, seed=3)
        torch.testing.assert_close(alone.cosine, cosine.cosine, rtol=0, atol=1e-5)
    other = sae_cosine(tiny_model, saes["standard"], batch, CORRUPTIONS[1], seed=4)
    assert not torch.allclose(other.cosine, found.cosine["standard", CORRUPTIONS[1]].cosine, atol=1e-3)


def test_a_bare_encoder_has_reconstruction_only(tiny_hf, tiny_processor, tiny_model, batch):
    bare = HookedViT.from_hf(tiny_hf.vit, image_processor=tiny_processor)
    sae = random_sae()
    found, whole = evaluate_sae(bare, sae, batch, CORRUPTIONS[0]), evaluate_sae(tiny_model, sae, batch, CORRUPTIONS[0])
    assert found.explained_variance == pytest.approx(whole.explained_variance, abs=1e-6)
    assert found.accuracy is None
    assert found.to_frame()["metric"].tolist() == [
        "explained_variance",
        "normalised_mse",
        "cosine",
        "l0",
        "l0_cls",
        "l0_patches",
        "l1",
        "dead_fraction",
        "dense_fraction",
    ]


@pytest.mark.parametrize("kind", ["topk", "gated", "normalising"])
def test_other_kinds_of_sae_match_stock_sae_lens(tiny_model, batch, hf_logits, kind):
    cls, config, settings = {
        "topk": (TopKSAE, TopKSAEConfig, {"k": 9}),
        "gated": (GatedSAE, GatedSAEConfig, {}),
        "normalising": (StandardSAE, StandardSAEConfig, {"normalize_activations": "layer_norm"}),
    }[kind]
    about = SAEMetadata(hook_name="blocks.1.hook_resid_post", hook_tokens="all")
    sae = cls(config(d_in=D, d_sae=96, metadata=about, **settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in sae.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    found = evaluate_saes(tiny_model, {"a": sae}, batch, CORRUPTIONS, top_images=3, seed=3, batch_size=7)
    for key in CONDITIONS:
        x = hf_logits(key)[1].flatten(0, 1)
        stock = ExplainedVarianceCalculator()
        stock.add_batch(sae(x).detach(), x)
        own = found.quality["a", key]
        assert own.explained_variance == pytest.approx(stock.compute(), abs=1e-4)
        assert own.l0 == pytest.approx(float((sae.encode(x) > 0).double().sum(1).mean()), abs=0.02)
        spliced = hf_logits(key, 1, "all", lambda x: sae(x.flatten(0, 1)).reshape(x.shape))[0].double()
        assert own.cross_entropy == pytest.approx(float(cross_entropy(spliced, batch.labels)), abs=1e-4)
    if kind == "topk":
        assert 8 < found.quality["a", "clean"].l0 <= 9
    clean = sae.encode(hf_logits("clean")[1].flatten(0, 1)).detach()
    torch.testing.assert_close(found.features["a"].max_activation, clean.amax(0), rtol=1e-4, atol=1e-4)


def test_a_model_in_half_precision_is_measured_on_what_the_sae_says(tiny_model, batch):
    """The reconstruction is not rounded before it is compared with the activation that was read."""
    model = tiny_model.to(torch.bfloat16)
    found = evaluate_sae(model, identity_sae(), batch)
    assert found.explained_variance == pytest.approx(1, abs=1e-9)
    scaled = identity_sae()
    with torch.no_grad():
        scaled.W_dec *= 1 - 1e-4  # far below bfloat16's resolution
    found = evaluate_sae(model, scaled, batch)
    assert found.normalised_mse == pytest.approx(1e-8, rel=1e-2)
    assert found.cross_entropy_recovered == pytest.approx(1, abs=0.05)


def test_activations_are_cast_to_the_saes_dtype(tiny_model, batch):
    sae = random_sae()
    double = random_sae().double()
    double.dtype = torch.float64
    found, precise = evaluate_sae(tiny_model, sae, batch), evaluate_sae(tiny_model, double, batch)
    assert precise.explained_variance == pytest.approx(found.explained_variance, abs=1e-5)
    assert precise.explained_variance != found.explained_variance


def test_published_saes_of_train_saes_load_and_evaluate(tiny_model, tiny_images, tmp_path):
    config = SAEConfig(
        epochs=1, k=4, expansion_factor=4, train_batch_size_tokens=64, tokens="patches", l1_coefficient=0.1
    )
    paths = train_saes(tiny_model, tiny_images, tiny_images, tmp_path / "saes", config=config, progress=None)
    saes = {name: load_sae(path, "cpu") for name, path in paths.items()}
    found = evaluate_saes(tiny_model, saes, tiny_images, ["gaussian_blur_4"])
    for name, path in paths.items():
        stock = SAE.load_from_disk(path)
        assert sae_site(tiny_model, saes[name]) == ("blocks.1.hook_resid_post", "patches")
        for parameter, same in zip(saes[name].parameters(), stock.parameters(), strict=True):
            assert torch.equal(parameter, same)
        assert found.quality[name, "clean"].explained_variance < 1
        assert found.cosine[name, "gaussian_blur_4"].cosine.shape == (24, 16)


def test_images_without_labels_are_reconstructed_as_with_them(tiny_model, batch):
    """The reconstruction is measured all the same, accuracy is not, and latents are described without classes."""
    saes = {"sae": random_sae("batchtopk")}
    unlabelled = replace(batch, labels=torch.full_like(batch.labels, -1))
    known, found = (
        evaluate_saes(tiny_model, saes, images, CORRUPTIONS[:1], top_images=3, seed=3) for images in (batch, unlabelled)
    )
    assert not found.baselines
    own, with_classes = found.features["sae"], known.features["sae"]
    for name in ("firing_rate", "mean_activation", "max_activation", "top_score", "top_image", "top_patch"):
        torch.testing.assert_close(getattr(own, name), getattr(with_classes, name), equal_nan=True, rtol=0, atol=0)
    for name in ("top_label", "mass_label", "selective_label"):
        assert (getattr(own, name) == -1).all()
        assert (getattr(with_classes, name) >= 0).any()
    for name in ("top_label_purity", "mass_label_purity", "selectivity"):
        assert getattr(own, name).isnan().all()
    assert own.to_frame()["mass_label"].isna().all()
    for key, quality in found.quality.items():
        for name in ("explained_variance", "l0", "cosine", "dead_fraction"):
            assert getattr(quality, name) == getattr(known.quality[key], name)
        assert quality.accuracy is None
