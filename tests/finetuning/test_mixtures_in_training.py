"""Fine-tuning on a mixture: what the model is shown in each epoch, and what its record says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from transformers import ViTForImageClassification

from mechvit.data import CLEAN, Corruption, Mixture, corrupt, drawn_members, iter_batches, load_images, prepare
from mechvit.finetuning import FinetuneConfig, ViTShape, finetune, train_from_scratch
from mechvit.finetuning.adversarial import condition_collator
from mechvit.finetuning.epochs import EpochRows

MIXTURE = Mixture((CLEAN, Corruption("gaussian_blur", 2), Corruption("gaussian_noise", 4)))
CONFIG = FinetuneConfig(learning_rate=1e-3, epochs=3, batch_size=16, patience=3, seed=7)
EPOCHS = 3


@pytest.fixture(scope="module")
def images(tiny_processor):
    return {
        split: prepare(load_images("photos", split, limit=count, image_size=32), tiny_processor)
        for split, count in [("train", 57), ("finetune", 76), ("finetune_validation", 38)]
    }


@pytest.fixture(scope="module")
def base(images, tmp_path_factory):
    shape = ViTShape(image_size=32, d_model=32, n_layers=2, n_heads=2, d_mlp=64)
    out = tmp_path_factory.mktemp("models") / "base"
    config = FinetuneConfig(learning_rate=2e-3, epochs=1, batch_size=16)
    return train_from_scratch(
        shape, images["train"], images["finetune_validation"], out, config=config, device="cpu", progress=False
    )


def tune(base, images, out, corruption, **changes):

    config = replace(CONFIG, **changes)
    parts = images["finetune"], images["finetune_validation"]
    return finetune(base, *parts, out, corruption=corruption, config=config, device="cpu", progress=False)


def shown(monkeypatch, base, images, out):
    """Every batch of pixels that the model was given, in order, as (training, pixel values)."""
    seen: list[tuple[bool, torch.Tensor]] = []
    forward = ViTForImageClassification.forward

    def watched(self, pixel_values=None, **kwargs):
        seen.append((self.training, pixel_values.clone()))
        return forward(self, pixel_values=pixel_values, **kwargs)

    monkeypatch.setattr(ViTForImageClassification, "forward", watched)
    tune(base, images, out, MIXTURE)
    return seen


def expected(images, epoch: int) -> list[tuple[int, torch.Tensor]]:
    """Each image's member and its normalised pixels in an epoch."""
    (batch,) = iter_batches(images, batch_size=len(images))
    places = drawn_members(MIXTURE, batch.image_ids, epoch=epoch, seed=CONFIG.seed)
    each = torch.stack([corrupt(batch.images, member, batch.image_ids, seed=CONFIG.seed) for member in MIXTURE.members])
    return [(int(place), (each[place, i] - 0.5) / 0.5) for i, place in enumerate(places)]


@pytest.mark.long
def test_every_epoch_shows_each_image_by_its_drawn_member(monkeypatch, base, images, tmp_path):
    seen = shown(monkeypatch, base, images, tmp_path / "mixed")
    training = torch.cat([pixels for train, pixels in seen if train])
    counts = torch.zeros(EPOCHS, 3)
    for epoch, rows in enumerate(training.split(len(images["finetune"]))):
        wanted = expected(images["finetune"], epoch)
        left = list(range(len(rows)))
        for place, pixels in wanted:
            (row,) = [i for i in left if torch.allclose(rows[i], pixels, atol=1e-6)]
            left.remove(row)
            counts[epoch, place] += 1
    assert counts.sum() == EPOCHS * 76
    assert (counts.sum(0) / counts.sum() - 1 / 3).abs().max() < 0.1, "each member is used about equally"
    assert not torch.equal(counts[0], counts[1]) or not torch.equal(counts[1], counts[2])


@pytest.mark.long
def test_validation_images_keep_their_member(monkeypatch, base, images, tmp_path):
    seen = shown(monkeypatch, base, images, tmp_path / "mixed")
    held_out = torch.cat([pixels for train, pixels in seen if not train]).split(38)
    assert len(held_out) == EPOCHS
    wanted = torch.stack([pixels for _, pixels in expected(images["finetune_validation"], 0)])
    for rows in held_out:
        torch.testing.assert_close(rows, wanted)


@pytest.mark.long
def test_same_seed_same_weights_and_another_seed_others(base, images, tmp_path):
    one, two, other = (
        tune(base, images, tmp_path / name, MIXTURE, epochs=1, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    weights = [(folder / "model.safetensors").read_bytes() for folder in (one, two, other)]
    assert weights[0] == weights[1] != weights[2]
    assert (one / "training_log.json").read_text() == (two / "training_log.json").read_text()


@pytest.mark.long
def test_the_record_names_what_it_was_trained_on(base, images, tmp_path):
    for corruption, members in (
        (MIXTURE, ["clean", "gaussian_blur_2", "gaussian_noise_4"]),
        (Mixture(MIXTURE.members[:2], "half"), ["clean", "gaussian_blur_2"]),
        (MIXTURE.members[2], ["gaussian_noise_4"]),
    ):
        out = tune(base, images, tmp_path / corruption.key, corruption, epochs=1)
        log = json.loads((out / "training_log.json").read_text())
        assert (log["corruption"], log["members"]) == (corruption.key, members)


def test_rows_carry_their_epoch(images, tiny_processor):
    rows = EpochRows(images["finetune"].with_format("numpy"))
    assert len(rows) == 76
    assert rows[3]["epoch"] == 0
    rows.epoch = 2
    batch = rows.__getitems__([3, 7])
    assert [row["epoch"] for row in batch] == [2, 2]
    assert [int(row["image_id"]) for row in batch] == [images["finetune"][i]["image_id"] for i in (3, 7)]
    got = condition_collator(MIXTURE, tiny_processor, torch.device("cpu"), CONFIG.seed)(batch)["pixel_values"]
    wanted = expected(images["finetune"], 2)
    torch.testing.assert_close(got, torch.stack([wanted[3][1], wanted[7][1]]))
