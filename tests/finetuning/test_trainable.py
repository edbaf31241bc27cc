"""Checkpoints that can be fine-tuned: every family's ordinary classifier, and the others say why not."""

from __future__ import annotations

import re

import pytest
import torch
import transformers
from hf_zoo import ZOO
from safetensors.torch import load_file, save_file

from mechvit import HookedViT
from mechvit.analysis import evaluate
from mechvit.data import Corruption, iter_batches, load_images, normalize, prepare
from mechvit.experiment.inputs import read_checkpoint
from mechvit.finetuning import FinetuneConfig, finetune

CLASSIFIERS = {
    "vit classifier": 32,
    "msn classifier": 32,
    "deit classifier": 32,
    "beit classifier, relative bias": 32,
    "data2vec classifier, relative bias": 32,
    "dinov2 classifier": 48,  # another size than its positions' 32, as in the hub's checkpoints
    "registers classifier": 48,
    "ijepa classifier": 32,
    "clip classifier": 48,
    "siglip classifier": 32,
}


@pytest.fixture(scope="module")
def images():
    """Five crops of each size for training, with labels 0 to 4."""
    found = {}
    for side in (32, 48):
        processor = transformers.ViTImageProcessorPil(size={"height": side, "width": side})
        found[side] = processor, prepare(load_images("photos", "finetune", limit=5, image_size=side), processor)
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_family_is_fine_tuned_and_then_analysed(name, images, tmp_path):
    processor, prepared = images[CLASSIFIERS[name]]
    hf_model = ZOO[name]()
    hf_model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    config = FinetuneConfig(learning_rate=1e-3, epochs=3, batch_size=5)
    noise = Corruption("gaussian_noise", 2)
    out = finetune(
        tmp_path / "base",
        prepared,
        prepared,
        tmp_path / "tuned",
        corruption=noise,
        config=config,
        device="cpu",
        progress=False,
    )
    base, tuned = (HookedViT.from_pretrained(folder, device="cpu") for folder in (tmp_path / "base", out))
    assert tuned.cfg == base.cfg
    assert type(tuned.to_hf()) is type(hf_model)
    losses = [evaluate(model, prepared, noise).loss.mean() for model in (base, tuned)]
    assert losses[1] < losses[0] - 0.01
    (batch,) = iter_batches(prepared)
    with torch.no_grad():
        theirs = getattr(transformers, ZOO[name].architecture).from_pretrained(out).eval()
        resized = {"interpolate_pos_encoding": True} if name == "clip classifier" else {}
        logits = theirs(normalize(batch.images, processor), **resized).logits
        torch.testing.assert_close(tuned(normalize(batch.images, processor)), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("deit with teacher", "no loss"),
        ("siglip2 classifier", "cut into patches"),
        ("dinov3 encoder", "needs a classification head"),
        ("clip zero-shot", "needs a classification head"),
    ],
)
def test_what_cannot_be_fine_tuned_says_why(name, reason, images, tmp_path):
    processor, prepared = images[32]
    ZOO[name]().save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=reason) as error:
        finetune(tmp_path / "base", prepared, prepared, tmp_path / "tuned", progress=False)
    assert str(tmp_path / "base") in str(error.value)
    assert not (tmp_path / "tuned").exists()


def test_a_checkpoint_without_processor_is_refused(images, tmp_path):
    ZOO["vit classifier"]().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="image processor"):
        finetune(tmp_path, images[32][1], images[32][1], tmp_path / "tuned", progress=False)


def wrapped(tensors):
    return {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}


def without_a_block(tensors):
    return {name: tensor for name, tensor in tensors.items() if ".layer.1." not in name}


def diverged(tensors):
    return tensors | {"classifier.bias": tensors["classifier.bias"] * torch.nan}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrapped, "all names begin with `_orig_mod.`"),
        (without_a_block, "missing 16 weights of vit.layers.1"),
        (diverged, "classifier.bias holds 5 values that are NaN or infinite"),
        (None, "Nothing is unpickled"),
    ],
)
def test_weights_that_are_not_the_configs_are_refused_as_hooked_vit_refuses_them(change, said, images, tmp_path):
    processor, prepared = images[32]
    hf_model = ZOO["vit classifier"]()
    hf_model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.unlink()
    if change is None:
        torch.save(hf_model.state_dict(), tmp_path / "base" / "pytorch_model.bin")
    else:
        save_file(change(tensors), path, metadata={"format": "pt"})
    messages = []
    for load in (
        lambda: finetune(tmp_path / "base", prepared, prepared, tmp_path / "tuned", device="cpu", progress=False),
        lambda: HookedViT.from_pretrained(tmp_path / "base", device="cpu"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)) as error:
            load()
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert not (tmp_path / "tuned").exists()


def test_weights_are_read_before_an_image_is_prepared(tmp_path):
    """By the command, whose images may take minutes."""
    ZOO["vit classifier"]().save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    assert read_checkpoint(str(tmp_path))[0].num_labels == 5
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="Nothing is unpickled"):
        read_checkpoint(str(tmp_path))
