"""Fine-tuning under attacks, registered functions and paired pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTForImageClassification

from mechvit import HookedViT
from mechvit.analysis import evaluate
from mechvit.analysis.condition_images import shown_to
from mechvit.data import iter_batches, load_images, normalize, parse_condition, prepare
from mechvit.data.conditions import Attack
from mechvit.data.mixture_spec import Mixture, parse_training
from mechvit.finetuning import FinetuneConfig, ViTShape, finetune, train_from_scratch
from mechvit.finetuning.adversarial import UNATTACKED, AttackingTrainer, condition_collator

SHAPE = ViTShape(image_size=32, d_model=32, n_layers=2, n_heads=2, d_mlp=64)
CONFIG = FinetuneConfig(learning_rate=2e-3, epochs=3, batch_size=19)
ATTACK = Attack("pgd", 8)


@pytest.fixture(scope="module")
def images(tiny_processor):
    return {
        split: prepare(load_images("photos", split, limit=count, image_size=32), tiny_processor)
        for split, count in [("train", 95), ("finetune_validation", 38)]
    }


@pytest.fixture(scope="module")
def base(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "base"
    given = images["train"], images["finetune_validation"]
    return train_from_scratch(SHAPE, *given, out, config=CONFIG, device="cpu", progress=False)


def test_training_by_pgd_lowers_the_loss_under_pgd(base, images, tmp_path):
    given, own = (images["train"], images["finetune_validation"]), {}
    for name, condition in {"attacked": ATTACK, "clean": parse_condition("clean")}.items():
        options = {"config": CONFIG, "device": "cpu", "progress": False}
        out = finetune(base, *given, tmp_path / name, corruption=condition, **options)
        model = HookedViT.from_pretrained(out)
        own[name] = float(evaluate(model, given[1], ATTACK).loss.mean())
        log = json.loads((out / "training_log.json").read_text())
        if condition == ATTACK:
            best = min(log["epochs"], key=lambda epoch: epoch["eval_loss"])
            assert (log["corruption"], log["members"]) == ("pgd_8", ["pgd_8"])
            assert own[name] == pytest.approx(best["eval_loss"], abs=1e-3)  # attacked as it was after that epoch
    assert own["attacked"] < own["clean"]


@pytest.mark.parametrize("text", ["pgd_8", "clean+fog_2+pgd_8@self"])
def test_the_trainer_attacks_the_model_as_it_is(base, images, tiny_processor, text, tmp_path):
    from transformers import TrainingArguments

    condition = parse_training(text)
    members = condition.members if isinstance(condition, Mixture) else (condition,)
    hf = ViTForImageClassification.from_pretrained(base).train()
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    trainer = AttackingTrainer(model=hf, args=arguments, members=members, processor=tiny_processor, attack_seed=4)
    rows = list(images["train"].select(range(30)).with_format("numpy"))
    batch = condition_collator(condition, tiny_processor, torch.device("cpu"), 4)(rows)
    which, before = batch["attack"], batch["pixel_values"].clone()
    hf.zero_grad(set_to_none=True)
    with torch.no_grad():
        hf.classifier.weight.mul_(2)  # as after a step
    found = trainer._prepare_inputs(batch)
    assert set(found) == {"pixel_values", "labels"}
    assert hf.training
    assert all(parameter.grad is None for parameter in hf.parameters())
    hit = which != UNATTACKED
    assert 0 < int(hit.sum()) <= 30
    assert torch.equal(found["pixel_values"][~hit], before[~hit])
    clean = next(iter_batches(images["train"].select(range(30)), tiny_processor, 30))
    hooked = HookedViT.from_hf(hf.eval(), image_processor=tiny_processor)
    expected = normalize(shown_to(hooked, clean, ATTACK, seed=4).images, tiny_processor)
    assert float(((found["pixel_values"] - expected).abs() < 1e-5)[hit].double().mean()) > 0.99


def test_another_models_attack_is_refused(base, images, tmp_path):
    given = base, images["train"], images["finetune_validation"], tmp_path / "tuned"
    with pytest.raises(ValueError, match="attacks the model that is trained: give pgd_4; got pgd_4@base"):
        finetune(*given, corruption=parse_condition("pgd_4@base"), progress=False)
    with pytest.raises(ValueError, match="these images have none: load them from a folder"):
        finetune(*given, corruption=parse_condition(f"paired:{tmp_path}"), progress=False)


def test_partners_are_what_a_model_is_trained_on(tmp_path, tiny_processor):
    rng = np.random.default_rng(0)
    for label in ("ant", "bee"):
        for i in range(10):
            for root in ("day", "night"):
                path = tmp_path / root / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    day = prepare(load_images(f"folder:{tmp_path / 'day'}", "finetune"), tiny_processor)
    paired = parse_condition(f"paired:{tmp_path / 'night'}")
    rows = list(day.with_format("numpy"))
    found = condition_collator(paired, tiny_processor, torch.device("cpu"), 0)(rows)["pixel_values"]
    expected = [np.array(Image.open(tmp_path / "night" / path)) for path in day["path"]]
    expected = torch.tensor(np.stack(expected)).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(found, normalize(expected, tiny_processor))
