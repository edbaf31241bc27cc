"""The recipe of a training: read back as it was given, from each of its records, or refused by what is missing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from mechvit.experiment.nulls import NullsConfig, recipe_of
from mechvit.experiment.nulls.trainer_state import check_batches
from mechvit.finetuning import FinetuneConfig

CONFIG = FinetuneConfig(learning_rate=2e-4, epochs=4, batch_size=16, weight_decay=0.1, warmup_fraction=0.25, seed=7)


def logged(folder: Path, **changes) -> Path:
    """A folder with a log as `finetune` writes it."""
    from dataclasses import asdict

    log = {"corruption": "fog_2", "members": ["fog_2"], "kept_epoch": 3.0, "kept_step": 15, "recipe": asdict(CONFIG)}
    log = {**log, "training_images": 76, "epochs": []} | changes
    (folder / "training_log.json").write_text(json.dumps({k: v for k, v in log.items() if v is not None}))
    return folder


def test_a_recorded_recipe_is_the_training_s(tmp_path):
    found = recipe_of(logged(tmp_path))
    assert found.schedule(76) == (20, 15)
    again = found.config(76, seed=7)
    for name in ("learning_rate", "epochs", "batch_size", "weight_decay", "warmup_fraction", "precision", "seed"):
        assert getattr(again, name) == getattr(CONFIG, name)
    assert (again.keep, again.planned_steps, again.stop_step) == ("last", 20, 15)
    assert found.condition().key == "fog_2"
    assert set(found.sources.values()) == {"training_log.json"}


def test_a_log_without_the_step_tells_it_by_the_epoch(tmp_path):
    assert recipe_of(logged(tmp_path, kept_step=None)).steps == 15


def test_a_log_of_an_earlier_version_tells_the_condition_and_the_epoch(tmp_path):
    logged(tmp_path, recipe=None, kept_step=None, training_images=None)
    with pytest.raises(
        ValueError, match=r"training_log.json of .* does not tell its training's learning rate, batch s"
    ):
        recipe_of(tmp_path)
    found = recipe_of(tmp_path, learning_rate=1e-4, batch_size=20, epochs=5)
    assert found.schedule(76) == (20, 12)
    assert found.sources["corruption"] == "training_log.json"
    assert found.sources["learning_rate"] == "given"
    assert found.sources["weight_decay"] == "default"


def test_nothing_is_guessed_where_nothing_tells(tmp_path):
    says = (
        r"records no training .*: give corruption='CONDITION', learning_rate=\(RATE\), batch_size=\(IMAGES\), epochs="
    )
    with pytest.raises(ValueError, match=says):
        recipe_of(tmp_path)
    with pytest.raises(ValueError, match=r"give learning_rate=\(RATE\)$"):
        recipe_of(tmp_path, corruption=("clean",), batch_size=8, epochs=2)
    given = {"corruption": ("gaussian_noise_4", "clean"), "batch_size": 8, "epochs": 2, "learning_rate": 1e-3}
    found = recipe_of(tmp_path, **given, steps=5, weight_decay=0.3)
    assert found.schedule(20) == (6, 5)
    assert found.config(20, 1) == FinetuneConfig(
        learning_rate=1e-3, epochs=2, batch_size=8, weight_decay=0.3, seed=1, keep="last", planned_steps=6, stop_step=5
    )
    assert found.condition().key == "clean+gaussian_noise_4"
    with pytest.raises(ValueError, match=r"steps must be at most the 6 of the whole training; got 9"):
        recipe_of(tmp_path, **given, steps=9).schedule(20)


def test_what_a_record_contradicts_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"learning_rate must be left out: .*training_log.json records 0.0002; got 0.1"
    ):
        recipe_of(logged(tmp_path), learning_rate=0.1)
    assert recipe_of(tmp_path, learning_rate=2e-4).learning_rate == 2e-4


def test_a_function_that_is_not_there_is_asked_for(tmp_path):
    logged(tmp_path, corruption="haze_3", members=["haze_3"], conditions={"haze_3": "0123"})
    with pytest.raises(ValueError, match=r"corruption must be given as in its training, with the file"):
        recipe_of(tmp_path).condition()
    own = tmp_path / "mine.py"
    own.write_text("def haze(images, level):\n    return images * (1 - level / 10)\n")
    with pytest.raises(ValueError, match=r"corruption haze_3 does something else than in the training: restore it"):
        recipe_of(tmp_path, corruption=(f"{own}:haze_3",)).condition()


# Hugging Face's own record


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the state of a real Trainer: 12 rows in batches of 4, 5 epochs, lr 1e-3 with warm-up."""

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            return {"x": torch.tensor([float(index)]), "labels": torch.tensor(index / 12)}

    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(1, 1)

        def forward(self, x, labels):
            found = self.line(x)[:, 0]
            return {"loss": (found - labels).square().mean(), "logits": found}

    folder = tmp_path_factory.mktemp("trainer")
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=5,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        warmup_steps=3,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=Line(), args=arguments, train_dataset=Rows())
    trainer.train()
    trainer.save_state()
    return folder


GIVEN = {"corruption": ("clean",), "learning_rate": 1e-3, "warmup_fraction": 0.2}


def test_hugging_face_s_state_tells_steps_and_batches(trained):
    with pytest.raises(
        ValueError, match=r"trainer_state.json of .* does not tell its training's condition, learning r"
    ):
        recipe_of(trained)
    found = recipe_of(trained, **GIVEN)
    assert (found.batch_size, found.schedule(12)) == (4, (15, 15))
    assert found.sources["steps"] == found.sources["batch_size"] == "trainer_state.json"
    assert found.config(12, 0).epochs == 5


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": 2e-3}, {"learning_rate": 5e-4}, {"warmup_fraction": None}, {"warmup_fraction": 0.6}]
)
def test_another_rate_than_the_logged_one_is_refused(trained, wrong):
    with pytest.raises(ValueError, match=r"learning_rate .* is not what .*trainer_state.json logs: .* at step"):
        recipe_of(trained, **GIVEN | wrong)


def test_a_cosine_schedule_is_not_taken_for_a_linear_one(trained, tmp_path):
    state = json.loads((trained / "trainer_state.json").read_text())
    for row in state["log_history"]:
        if "learning_rate" in row:
            row["learning_rate"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * row["step"] / 15))
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=r"is not what"):
        recipe_of(tmp_path, corruption=("clean",), learning_rate=1e-3)


def test_weights_of_either_of_two_steps_need_the_step(trained, tmp_path):
    state = json.loads((trained / "trainer_state.json").read_text())
    state |= {"best_model_checkpoint": "out/checkpoint-6", "best_global_step": 6}
    for name in ("model", "checkpoint-15"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=r"steps must be 6 or 15: .* names step 6 as the best"):
        recipe_of(tmp_path / "model", **GIVEN)
    assert recipe_of(tmp_path / "model", **GIVEN, steps=6).steps == 6
    assert recipe_of(tmp_path / "checkpoint-15", **GIVEN).steps == 15


def test_batches_that_do_not_make_the_steps_are_asked_for(trained):
    check_batches(trained / "trainer_state.json", 4, 12)
    with pytest.raises(
        ValueError, match=r"batch_size must be given, .* 15 steps in 5 epochs, and these 24 images in b"
    ):
        check_batches(trained / "trainer_state.json", 4, 24)
    assert recipe_of(trained, **GIVEN, batch_size=8).sources["batch_size"] == "given"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "other"}, "kind must be among clean, seeds, drift"),
        ({"count": 0}, "count must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and above 0"),
        ({"first_seed": 2**32 - 2}, "first_seed must leave room for 5 seeds"),
        ({"corruption": ()}, "corruption must name at least one"),
    ],
)
def test_settings_are_refused_at_once(changes, says):
    with pytest.raises(ValueError, match=says):
        NullsConfig(**{"base": "a", "like": "b", "out": "c", **changes})


def test_a_setting_that_was_added_later_leaves_finished_stages_finished():
    from mechvit.experiment.runs.stages import plain

    before = {"learning_rate", "epochs", "patience", "batch_size", "weight_decay", "warmup_fraction", "precision"}
    assert set(plain(CONFIG, for_key=True)) == {*before, "seed"}
    assert plain(CONFIG)["keep"] == "best"
    assert plain(FinetuneConfig(keep="last"), for_key=True)["keep"] == "last"
