"""Fine-tuning: what is saved is the best epoch, an ordinary checkpoint, trained on what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor, ViTForImageClassification

from mechvit.data import CLEAN, Corruption, corrupt, iter_batches, load_images, prepare
from mechvit.finetuning import FinetuneConfig, ViTShape, finetune, train_from_scratch
from mechvit.finetuning.adversarial import condition_collator
from mechvit.finetuning.callbacks import KeepBest
from mechvit.finetuning.rounding import round_weights

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


def losses(checkpoint: Path, images, corruption: Corruption, dtype: torch.dtype | str = "auto") -> tuple[float, float]:
    """Mean cross-entropy and accuracy by Hugging Face's model and torch's own loss."""
    model = ViTForImageClassification.from_pretrained(checkpoint, dtype=dtype).eval()
    loss = correct = count = 0.0
    with torch.no_grad():
        for batch in iter_batches(images, batch_size=50):
            x = corrupt(batch.images, corruption, batch.image_ids)
            logits = model((x - 0.5) / 0.5).logits
            loss += torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum").item()
            correct += (logits.argmax(-1) == batch.labels).sum().item()
            count += len(batch)
    return loss / count, correct / count


@pytest.mark.long
def test_base_learns(base, images):
    _, accuracy = losses(base, images["finetune_validation"], CLEAN)
    assert accuracy > 3 / 19


@pytest.mark.long
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


@pytest.mark.long
def test_finetuning_lowers_the_loss_on_its_corruption(base, images, tmp_path):
    config = FinetuneConfig(learning_rate=1e-3, epochs=3, batch_size=16)
    validation = images["finetune_validation"]
    out = finetune(
        base, images["finetune"], validation, tmp_path / "tuned", corruption=NOISE, config=config, progress=False
    )
    assert losses(out, validation, NOISE)[0] < losses(base, validation, NOISE)[0]
    assert AutoImageProcessor.from_pretrained(out, backend="pil", trust_remote_code=False).size == {
        "height": 32,
        "width": 32,
    }
    assert sorted(p.name for p in out.parent.iterdir()) == ["tuned"], "nothing is left beside the checkpoint"


@pytest.mark.long
def test_same_seed_same_weights(base, images, tmp_path):
    config = FinetuneConfig(epochs=1, batch_size=16)
    first, second = (
        finetune(
            base, images["finetune"], images["finetune_validation"], tmp_path / name, config=config, progress=False
        )
        for name in ("a", "b")
    )
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def half_bases(base, tmp_path_factory):
    """The base rounded to each half precision, and the very same weights in float32."""
    found = {}
    for dtype in (torch.bfloat16, torch.float16):
        for saved in (dtype, torch.float32):
            folder = tmp_path_factory.mktemp(f"{dtype}-{saved}".replace("torch.", ""))
            ViTForImageClassification.from_pretrained(base).to(dtype).to(saved).save_pretrained(folder)
            AutoImageProcessor.from_pretrained(base, backend="pil", trust_remote_code=False).save_pretrained(folder)
            found[dtype, saved] = folder
    return found


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_base_is_trained_in_float32(half_bases, images, tmp_path, dtype):
    """The same weights in float32 are the reference: the training must be theirs to the bit, whatever is saved."""
    config = FinetuneConfig(learning_rate=5e-5, epochs=2, batch_size=16)
    few, validation = images["finetune"].select(range(64)), images["finetune_validation"]

    def tuned(base, name, **options):
        return finetune(base, few, validation, tmp_path / name, config=config, progress=False, device="cpu", **options)

    expected = tuned(half_bases[dtype, torch.float32], "reference")
    wide = tuned(half_bases[dtype, dtype], "wide", save_dtype=torch.float32)
    assert (wide / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    own = tuned(half_bases[dtype, dtype], "own")
    found, reference = (
        ViTForImageClassification.from_pretrained(folder, dtype="auto").state_dict() for folder in (own, expected)
    )
    for name, weight in reference.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], weight.to(dtype)), name
    log = json.loads((own / "training_log.json").read_text())
    assert log["epochs"] == json.loads((expected / "training_log.json").read_text())["epochs"]
    assert log["dtype"] == str(dtype).removeprefix("torch.")
    loss, accuracy = losses(own, validation, CLEAN, dtype=torch.float32)
    assert log["as_saved"]["eval_loss"] == pytest.approx(loss, abs=1e-5)
    assert log["as_saved"]["eval_accuracy"] == pytest.approx(accuracy)


def test_a_weight_that_overflows_is_saved_in_float32(base):
    model = ViTForImageClassification.from_pretrained(base)
    with torch.no_grad():
        model.classifier.weight[0, 0] = 1e5
    with pytest.warns(UserWarning, match="too large for torch.float16"):
        assert round_weights(model, torch.float16) == torch.float32
    assert model.classifier.weight[0, 0] == 1e5
    assert round_weights(model, torch.bfloat16) == torch.bfloat16
    assert model.classifier.weight[0, 0] == torch.tensor(1e5).bfloat16().float()


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
    batch = condition_collator(NOISE, tiny_processor, torch.device("cpu"), seed=5)(rows)
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
