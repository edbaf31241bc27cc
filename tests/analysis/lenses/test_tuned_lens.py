"""The tuned lens: gradients in float64, a planted rotation that only it can read, and one lens a model."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hf_zoo import ZOO
from safetensors.torch import load_file, save_file

from mechvit import HookedViT
from mechvit.analysis import (
    LensTraining,
    TunedLens,
    compare_lenses,
    logit_lens,
    train_tuned_lens,
    tuned_lens,
)
from mechvit.analysis.lenses.logit_lens import residual_hooks
from mechvit.analysis.lenses.tuned_lens import divergence, translated
from mechvit.data import ImageBatch, normalize
from mechvit.models.checkpoints.fingerprint import checkpoint_hash

QUICK = LensTraining(epochs=12, batch_size=16, lr=1e-2)
KEY = "gaussian_noise_4"


def lens_divergence(model, images, key="clean", lens=None, **options):
    """KL from the model's answer to a lens's, [image, layer]."""
    return compare_lenses(model, {"lens": lens}, images, key, **options)["lens"].divergence


def mixtures(batch, n, seed):
    """Blends of pairs of the images: as many different ones as are wanted."""
    generator = torch.Generator().manual_seed(seed)
    one, two = (torch.randint(len(batch), (n,), generator=generator) for _ in range(2))
    share = torch.rand(n, 1, 1, 1, generator=generator)
    images = share * batch.images[one] + (1 - share) * batch.images[two]
    return ImageBatch(images, batch.labels[one], 1000 * seed + torch.arange(n))


@pytest.fixture(scope="module")
def parts(batch):
    """Training, validation and test images."""
    return tuple(mixtures(batch, n, seed) for seed, n in enumerate((160, 48, 48), start=1))


@pytest.fixture
def trained(tiny_model, parts):
    return train_tuned_lens(tiny_model, *parts[:2], [KEY], config=QUICK)


@pytest.fixture
def turned(tiny_model):
    """A model whose last block does nothing but turn the residual stream: layer 2 holds what the head reads, turned."""
    rotation = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(4))).Q
    with torch.no_grad():
        for module in (tiny_model.blocks[2].attn, tiny_model.blocks[2].mlp):
            for parameter in module.parameters():
                parameter.zero_()
    point = tiny_model.blocks[2].hook_resid_post
    point.add_hook(lambda residual, hook: residual @ rotation, is_permanent=True)
    return tiny_model, rotation


# what it computes


def test_identity_is_the_logit_lens_and_perfect_at_the_last_layer(tiny_model, batch):
    lens = TunedLens.identity(tiny_model)
    plain, tuned = logit_lens(tiny_model, batch, KEY), tuned_lens(tiny_model, lens, batch, KEY)
    torch.testing.assert_close(plain.probability, tuned.probability, atol=1e-6, rtol=0)
    assert torch.equal(plain.rank, tuned.rank)
    found = lens_divergence(tiny_model, batch, KEY, lens=lens)
    assert found[:, -1].abs().max() < 1e-6
    assert found[:, :-1].mean() > 0.1


def test_reads_translated_residuals_as_hugging_face_would(tiny_model, tiny_hf, batch, hf_pass):
    lens = TunedLens.identity(tiny_model)
    generator = torch.Generator().manual_seed(2)
    for part in (lens.weight, lens.bias):
        part.copy_(0.3 * torch.randn(part.shape, generator=generator))
    _, hidden, _ = hf_pass(KEY)
    read = tuned_lens(tiny_model, lens, batch, KEY, batch_size=7)
    apart = lens_divergence(tiny_model, batch, KEY, lens=lens, batch_size=5)
    with torch.no_grad():
        final = tiny_hf.classifier(tiny_hf.vit.layernorm(hidden[3])[:, 0]).log_softmax(-1)
        for layer in range(4):
            h = hidden[layer][:, 0]
            h = h if layer == 3 else h + h @ lens.weight[layer] + lens.bias[layer]
            logits = tiny_hf.classifier(tiny_hf.vit.layernorm(h)).log_softmax(-1)
            expected = logits.exp()[range(24), batch.labels]
            torch.testing.assert_close(read.probability[:, layer], expected, atol=1e-5, rtol=0)
            wanted = (final.exp() * (final - logits)).sum(-1)
            torch.testing.assert_close(apart[:, layer], wanted, atol=2e-5, rtol=1e-4)
    assert read.probability.std() > 0.05


def test_gradients_match_float64(tiny_model, tiny_hf, batch):
    hooks, residuals = residual_hooks(tiny_model)
    with torch.no_grad():
        logits = tiny_model.run_with_hooks(normalize(batch.images, tiny_model.image_processor), fwd_hooks=hooks)
    generator = torch.Generator().manual_seed(3)
    weight, bias = (0.1 * torch.randn(shape, generator=generator) for shape in ((3, 32, 32), (3, 32)))
    found = [part.clone().requires_grad_() for part in (weight, bias)]
    stacked = torch.stack(residuals[:-1])
    divergence(tiny_model, translated(stacked, *found), logits.log_softmax(-1)).mean(1).sum().backward()

    wanted = [part.double().requires_grad_() for part in (weight, bias)]
    norm, head = copy.deepcopy(tiny_hf.vit.layernorm).double(), copy.deepcopy(tiny_hf.classifier).double()
    final, loss = logits.double().log_softmax(-1), 0
    for layer, h in enumerate(stacked[:, :, 0].double()):
        read = head(norm(h + h @ wanted[0][layer] + wanted[1][layer])).log_softmax(-1)
        loss = loss + (final.exp() * (final - read)).sum() / len(h)
    loss.backward()
    for own, expected in zip(found, wanted, strict=True):
        assert expected.grad.abs().max() > 1e-3
        torch.testing.assert_close(own.grad.double(), expected.grad, rtol=1e-4, atol=1e-6)


# training


def test_training_lowers_the_divergence_on_images_that_it_never_saw(tiny_model, parts, trained):
    for key in ("clean", KEY):
        before, after = (lens_divergence(tiny_model, parts[2], key, lens=lens).mean(0) for lens in (None, trained))
        assert (after[:-1] < 0.6 * before[:-1]).all()
    about = trained.about
    tuned, plain = (torch.tensor(about[f"held_out_divergence{of}"]) for of in ("", "_of_logit_lens"))
    assert (tuned <= plain).all()
    held_out = sum(lens_divergence(tiny_model, parts[1], key, lens=trained).mean(0)[:-1] for key in ("clean", KEY))
    torch.testing.assert_close(held_out / 2, tuned, rtol=1e-3, atol=1e-4)


def test_a_planted_rotation_is_read_by_the_tuned_lens_alone(turned, parts):
    model, rotation = turned
    config = LensTraining(epochs=60, batch_size=16, lr=1e-2, weight_decay=0)
    lens = train_tuned_lens(model, *parts[:2], config=config)
    plain, tuned = (lens_divergence(model, parts[2], lens=found)[:, 2].mean() for found in (None, lens))
    assert plain > 0.5
    assert tuned < 0.02 * plain
    exact = TunedLens.identity(model)
    exact.weight[2].copy_(rotation - torch.eye(32))
    assert lens_divergence(model, parts[2], lens=exact)[:, 2].max() < 1e-4
    ranks = [logit_lens(model, parts[2]).rank, tuned_lens(model, lens, parts[2]).rank]
    agreement = [float((rank[:, 2] == rank[:, 3]).float().mean()) for rank in ranks]
    assert agreement[0] < 0.6 < 0.9 < agreement[1]


def test_training_is_deterministic_and_leaves_the_model_alone(tiny_model, parts, trained):
    before = checkpoint_hash(tiny_model)
    torch.manual_seed(5)
    again = train_tuned_lens(tiny_model, *parts[:2], [KEY], config=QUICK)
    assert torch.equal(again.weight, trained.weight)
    assert again.about == trained.about
    assert checkpoint_hash(tiny_model) == before
    assert all(parameter.grad is None for parameter in tiny_model.parameters())
    other = train_tuned_lens(tiny_model, *parts[:2], [KEY], config=LensTraining(epochs=12, batch_size=16, seed=1))
    assert not torch.equal(other.weight, trained.weight)


@pytest.mark.parametrize("kind", ["batch", "dataset"])
def test_what_is_too_large_to_keep_is_computed_again(tiny_model, tiny_images, batch, kind, monkeypatch):
    images = batch if kind == "batch" else tiny_images
    config = LensTraining(epochs=4, batch_size=10)
    kept = train_tuned_lens(tiny_model, images, images, [KEY], config=config)
    monkeypatch.setattr("mechvit.analysis.lenses.tuned_lens_training.HELD_BYTES", 0)
    streamed = train_tuned_lens(tiny_model, images, images, [KEY], config=config)
    torch.testing.assert_close(streamed.weight, kept.weight, rtol=1e-2, atol=1e-4)
    assert kept.weight.abs().max() > 1e-2


def test_a_layer_that_cannot_improve_stays_the_logit_lens(tiny_model, parts):
    with torch.no_grad():
        for block in tiny_model.blocks[1:]:
            for parameter in block.parameters():
                parameter.zero_()
    lens = train_tuned_lens(tiny_model, *parts[:2], config=QUICK)
    assert lens.about["best_epoch"][0] > 0
    assert lens.about["best_epoch"][1:] == [0, 0]
    assert lens.weight[0].any()
    assert not lens.weight[1:].any()
    assert not lens.bias[1:].any()


@pytest.mark.parametrize("name", ["dinov2 classifier", "deit with teacher", "beit classifier, relative bias", "siglip"])
def test_one_translator_serves_all_tokens_of_a_head(batch, name):
    entry = next(entry for key, entry in ZOO.items() if key.startswith(name) and (name != "siglip" or entry.zero_shot))
    model = HookedViT.from_hf(entry(), **entry.zero_shot_head())
    lens = train_tuned_lens(model, batch, batch, config=LensTraining(epochs=5, batch_size=12, lr=1e-2))
    before, after = (lens_divergence(model, batch, lens=found).mean(0) for found in (None, lens))
    assert (after[:-1] < before[:-1]).all()
    assert after[-1].abs() < 1e-5
    assert tuned_lens(model, lens, batch).rank.shape == (24, model.cfg.n_layers + 1)


# files


def test_saved_and_loaded(trained, tiny_model, tmp_path):
    trained.save(tmp_path / "lens")
    loaded = TunedLens.load(tmp_path / "lens", tiny_model)
    assert torch.equal(loaded.weight, trained.weight)
    assert torch.equal(loaded.bias, trained.bias)
    assert loaded.about == json.loads(json.dumps(trained.about))
    assert {path.name for path in tmp_path.iterdir()} == {"lens"}
    with pytest.raises(ValueError, match="exists: give another folder"):
        trained.save(tmp_path / "lens")
    trained.save(tmp_path / "lens", overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tuned_lens.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is no earlier result of this kind"):
        trained.save(tmp_path / "other", overwrite=True)


def test_refused_for_another_model(trained, tiny_model, batch, tmp_path):
    trained.save(tmp_path / "lens")
    with torch.no_grad():
        tiny_model.blocks[0].mlp.b_in[0] += 1e-3
    for attempt in (
        lambda: TunedLens.load(tmp_path / "lens", tiny_model),
        lambda: tuned_lens(tiny_model, trained, batch),
        lambda: lens_divergence(tiny_model, batch, lens=trained),
    ):
        with pytest.raises(ValueError, match=f"another model .checkpoint hash {trained.checkpoint_hash[:12]}"):
            attempt()
    with pytest.raises(ValueError, match=r"no saved tuned lens: it lacks tuned_lens.safetensors and"):
        TunedLens.load(tmp_path, tiny_model)


def mark_nan(folder):
    weights = load_file(folder / "tuned_lens.safetensors")
    weights["bias"][1, 2] = torch.nan
    save_file(weights, folder / "tuned_lens.safetensors")


def cut(name, to):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:to])


def rewrite(text):
    return lambda folder: (folder / "tuned_lens.json").write_text(text)


DAMAGES = {
    "truncated": (cut("tuned_lens.safetensors", -9), r"tuned_lens\.safetensors is damaged"),
    "empty": (cut("tuned_lens.safetensors", 0), r"tuned_lens\.safetensors is damaged"),
    "not finite": (mark_nan, r"tuned_lens\.safetensors: bias holds 1 values that are NaN or infinite, of 96"),
    "cut JSON": (cut("tuned_lens.json", 5), r"tuned_lens\.json is damaged or no JSON"),
    "a list": (rewrite("[]"), r"tuned_lens\.json must hold a JSON object; got list"),
    "without the hash": (rewrite('{"about": {}}'), r"tuned_lens\.json lacks checkpoint_hash"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(trained, tiny_model, tmp_path, damage):
    spoil, message = DAMAGES[damage]
    trained.save(tmp_path / "lens")
    spoil(tmp_path / "lens")
    with pytest.raises(ValueError, match=message):
        TunedLens.load(tmp_path / "lens", tiny_model)


def test_translators_of_another_shape_are_named(trained, tiny_model, tmp_path):
    trained.save(tmp_path / "lens")
    save_file({"weight": trained.weight[:2].contiguous()}, tmp_path / "lens" / "tuned_lens.safetensors")
    with pytest.raises(ValueError, match=r"must hold weight \[3, 32, 32\] and bias \[3, 32\]; got"):
        TunedLens.load(tmp_path / "lens", tiny_model)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"patience": 0}, {"lr": 0.0}, {"weight_decay": -1.0}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LensTraining(**wrong)
