"""Fine-tuning: what is saved is the best epoch, an ordinary checkpoint, trained on what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor, ViTForImageClassification

from mechvit.data import CLEAN, Corruption, corrupt, iter_batches, load_images, prepare
from mechvit.finetuning import FinetuneConfig, ViTShape, finetune, train_from_scratch
from mechvit.finetuning.callbacks import KeepBest
from mechvit.finetuning.finetune import corrupting_collator

SHAPE = ViTShape(image_size=32, d_model=32, n_layers=2, n_heads=2, d_mlp=64)
NOISE = Corruption("gaussian_noise", 4)


@pytest.fixture(scope="module")
def images(tiny_processor):
    return {
        split: prepare(load_images("photos", split, limit=count, image_size=32), tiny_processor)
        for split, count in [("train", 304), ("finetune", 152), ("finetune_validation", 76)]
    }


@pytest.fixture(scope="module")
def base(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "base"
    config = FinetuneConfig(learning_rate=2e-3, epochs=4, batch_size=16)
    return train_from_scratch(
        SHAPE, images["train"], images["finetune_validation"], out, config=config, device="cpu", progress=False
    )


def losses(checkpoint: Path, images, corruption: Corruption) -> tuple[float, float]:
    """Mean cross-entropy and accuracy by Hugging Face's model and torch's own loss."""
    model = ViTForImageClassification.from_pretrained(checkpoint).eval()
    loss = correct = count = 0.0
    with torch.no_grad():
        for batch in iter_batches(images, batch_size=50):
            x = corrupt(batch.images, corruption, batch.image_ids)
            logits = model((x - 0.5) / 0.5).logits
            loss += torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum").item()
            correct += (logits.argmax(-1) == batch.labels).sum().item()
            count += len(batch)
    return loss / count, correct / count


def test_base_learns(base, images):
    _, accuracy = losses(base, images["finetune_validation"], CLEAN)
    assert accuracy > 3 / 19


def test_saved_weights_are_the_best_epochs(base, images, tmp_path):
    config = FinetuneConfig(learning_rate=1e-2, epochs=8, batch_size=8, patience=8)
    few, validation = images["finetune"].select(range(32)), images["finetune_validation"]
    out = finetune(base, few, validation, tmp_path / "tuned", corruption=NOISE, config=config, progress=False)
    log = json.loads((out / "training_log.json").read_text())
    best = min(log["epochs"], key=lambda epoch: epoch["eval_loss"])
    assert best["epoch"] == log["kept_epoch"]
    assert best is not log["epochs"][-1], "the fixture must get worse after its best epoch, or it shows nothing"
    loss, accuracy = losses(out, validation, NOISE)
    assert loss == pytest.approx(best["eval_loss"], abs=1e-4)
    assert accuracy == pytest.approx(best["eval_accuracy"])


def test_finetuning_lowers_the_loss_on_its_corruption(base, images, tmp_path):
    config = FinetuneConfig(learning_rate=1e-3, epochs=3, batch_size=16)
    validation = images["finetune_validation"]
    out = finetune(
        base, images["finetune"], validation, tmp_path / "tuned", corruption=NOISE, config=config, progress=False
    )
    assert losses(out, validation, NOISE)[0] < losses(base, validation, NOISE)[0]
    assert AutoImageProcessor.from_pretrained(out, backend="pil").size == {"height": 32, "width": 32}
    assert sorted(p.name for p in out.parent.iterdir()) == ["tuned"], "nothing is left beside the checkpoint"


def test_same_seed_same_weights(base, images, tmp_path):
    config = FinetuneConfig(epochs=1, batch_size=16)
    first, second = (
        finetune(
            base, images["finetune"], images["finetune_validation"], tmp_path / name, config=config, progress=False
        )
        for name in ("a", "b")
    )
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_early_stopping_counts_epochs_without_improvement():
    from transformers import TrainerControl, TrainerState

    model = torch.nn.Linear(1, 1)
    best, control, stopped = KeepBest(patience=2), TrainerControl(), []
    for epoch, loss in enumerate([1.0, 1.5, 0.5, 0.7, 0.6]):
        torch.nn.init.constant_(model.weight, epoch)
        best.on_evaluate(None, TrainerState(epoch=epoch), control, metrics={"eval_loss": loss}, model=model)
        stopped.append(control.should_training_stop)
    assert stopped == [False, False, False, False, True]
    best.restore(model)
    assert model.weight.item() == 2


def test_no_finite_loss_raises():
    with pytest.raises(RuntimeError, match="not finite in any epoch"):
        KeepBest(patience=1).restore(torch.nn.Linear(1, 1))


def test_collator_gives_the_corrupted_normalised_images(images, tiny_processor):
    rows = [images["finetune"].with_format("numpy")[i] for i in (3, 7)]
    batch = corrupting_collator(NOISE, tiny_processor, torch.device("cpu"), seed=5)(rows)
    pixels = torch.tensor([images["finetune"][i]["pixels"] for i in (3, 7)])
    ids = torch.tensor([images["finetune"][i]["image_id"] for i in (3, 7)])
    expected = (corrupt(pixels / 255, NOISE, ids, seed=5) - 0.5) / 0.5
    torch.testing.assert_close(batch["pixel_values"], expected)
    assert batch["labels"].tolist() == [3, 7]


def test_images_of_another_size_are_refused(base, tiny_images, tmp_path, tiny_processor):
    from transformers import ViTImageProcessorPil

    large = prepare(load_images("photos", "train", limit=4), ViTImageProcessorPil(size={"height": 48, "width": 48}))
    with pytest.raises(ValueError, match=r"makes images of \(32, 32\) pixels; the training images have \(48, 48\)"):
        finetune(base, large, large, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_beyond_the_model_are_refused(base, images, tmp_path):
    beyond = images["finetune"].remove_columns("label").add_column("label", [40] * len(images["finetune"]))
    with pytest.raises(ValueError, match="label 40, and the model has 19 classes"):
        finetune(base, beyond, beyond, tmp_path / "out")


def test_unprepared_images_are_refused(base, tmp_path):
    raw = load_images("photos", "train", limit=4)
    with pytest.raises(ValueError, match=r"lack pixels; make them with mechvit\.data\.prepare"):
        finetune(base, raw, raw, tmp_path / "out")


@pytest.mark.parametrize(("field", "value"), [("learning_rate", 0), ("epochs", -1), ("warmup_fraction", 1.0)])
def test_config_rejects(field, value):
    with pytest.raises(ValueError, match=field):
        FinetuneConfig(**{field: value})


def test_shape_rejects_a_patch_that_does_not_divide():
    with pytest.raises(ValueError, match="image_size 64 must be a multiple of patch_size 7"):
        ViTShape(patch_size=7)
