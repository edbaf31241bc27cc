"""Figures of a training: in a CSV while it runs, and to the loggers that are asked for."""

from __future__ import annotations

import csv
import importlib.util
import sys
import types

import pytest
import torch

from mechvit import files
from mechvit.saes import TrainConfig, read_history, train_on
from mechvit.saes.training.learner import Learner
from mechvit.saes.training.training_log import LOG_COLUMNS, Logs

CONFIG = TrainConfig(
    architectures=("standard", "batchtopk"), epochs=2, k=3, expansion_factor=4, lr=5e-3, train_batch_size_tokens=64
)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def train(streams, out, **options):
    return train_on(streams, out, config=CONFIG, **({"log_every": 4, "progress": None} | options))


def installed(monkeypatch, package):
    """Make a package seem installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *about: object() if name == package else real(name, *about)
    )


@pytest.fixture
def streams(make_streams):
    return make_streams(batch=64, steps=10)


def test_metrics_grow_while_it_trains(streams, tmp_path, monkeypatch):
    """At every step the file holds the rows of all steps before that are multiples of log_every, and all checks."""
    seen, path, real = [], tmp_path / "saes.partial" / "metrics.csv", Learner.step

    def step(self, batch):
        found = rows(path)
        seen.append((self.trainer.n_training_steps, sorted({(int(r["step"]), r["split"]) for r in found})))
        return real(self, batch)

    monkeypatch.setattr(Learner, "step", step)
    train(streams, tmp_path / "saes")
    trained, checked = [(s, "train") for s in (4, 8, 12, 16, 20)], [(10, "held_out")]
    for steps, found in seen[::2]:  # the first of the two SAEs
        assert found == sorted(part for part in trained + checked if part[0] <= steps)


def test_metrics_agree_with_history_and_with_the_batches(streams, tmp_path, monkeypatch):
    outputs, real = {}, Learner.step

    def step(self, batch):
        output = real(self, batch)
        outputs[self.spec.name, self.trainer.n_training_steps] = output
        return output

    monkeypatch.setattr(Learner, "step", step)
    train(streams, tmp_path / "saes")
    found = rows(tmp_path / "saes" / "metrics.csv")
    assert list(found[0]) == list(LOG_COLUMNS)
    checks = [[r["architecture"], int(r["step"]), float(r["value"])] for r in found if r["split"] == "held_out"]
    history = read_history(tmp_path / "saes")
    assert checks == history[["architecture", "step", "value"]].values.tolist()
    values = {
        (r["architecture"], int(r["step"]), r["metric"]): float(r["value"]) for r in found if r["split"] == "train"
    }
    for name in CONFIG.architectures:
        out = outputs[name, 12]
        x, x_hat = out.sae_in.double(), out.sae_out.detach().double()
        variance = 1 - float((x - x_hat).square().sum() / (x - x.mean(0)).square().sum())
        assert values[name, 12, "explained_variance"] == pytest.approx(variance, abs=1e-5)
        assert values[name, 12, "l0"] == int((out.feature_acts.to_dense() != 0).sum()) / 64
        assert values[name, 12, "loss"] == pytest.approx(out.loss.item())
        assert values[name, 12, "lr"] > 0
    assert ("standard", 12, "l1_coefficient") in values
    assert ("batchtopk", 12, "l1_coefficient") not in values


def test_the_progress_bar_shows_variance_l0_and_dead_latents(streams, tmp_path, capsys):
    train(streams, tmp_path / "saes", progress="SAEs of a model")
    shown = capsys.readouterr().err
    assert "SAEs of a model" in shown
    assert "batchtopk EV 0." in shown
    assert ", L0 3, 0 dead" in shown


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    files.begin(tmp_path, "SAEs")
    logs = Logs(tmp_path)
    logs.write([("standard", step, 64 * step, 0, "train", "l0", 0.1 * step) for step in (5, 10, 15)])
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("standard,20,12")  # killed within a line
    again = Logs(tmp_path, after_step=10)
    again.write([("standard", 15, 960, 0, "train", "l0", 7.0)])
    assert [(r["step"], r["value"]) for r in rows(tmp_path / "metrics.csv")] == [
        ("5", "0.5"),
        ("10", "1.0"),
        ("15", "7.0"),
    ]


def test_wandb_gets_every_row(streams, tmp_path, monkeypatch):
    run = types.SimpleNamespace(logged=[], finished=0, id="abc")
    run.log = lambda values, step=None: run.logged.append(values)
    run.define_metric = lambda *args, **kwargs: None
    run.finish = lambda: setattr(run, "finished", run.finished + 1)
    started = []
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **kw: started.append(kw) or run))
    installed(monkeypatch, "wandb")
    train(streams, tmp_path / "saes", loggers=("wandb",))
    assert started[0]["name"] == "saes"
    assert started[0]["config"]["config"]["k"] == 3
    assert run.finished == 1
    found = rows(tmp_path / "saes" / "metrics.csv")
    assert len(run.logged) == len(found)
    first = found[0]
    key = f"{first['architecture']}/train/{first['metric']}"
    assert run.logged[0] == {key: float(first["value"]), "step": 4}


def test_a_training_that_goes_on_goes_on_in_the_same_wandb_run(tmp_path, monkeypatch):
    started = []

    def init(id, resume, **kwargs):
        started.append((id, resume))
        return types.SimpleNamespace(id=id or "new", define_metric=lambda *a, **k: None)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    installed(monkeypatch, "wandb")
    files.begin(tmp_path, "SAEs")
    for _ in range(2):
        Logs(tmp_path, loggers=("wandb",))
    assert started == [(None, "allow"), ("new", "allow")]


def test_tensorboard_gets_every_row(streams, tmp_path, monkeypatch):
    scalars = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            scalars.append((folder, purge_step))

        def add_scalar(self, *args, global_step):
            scalars.append((*args, global_step))

        def flush(self):
            pass

        def close(self):
            scalars.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    installed(monkeypatch, "tensorboard")
    train(streams, tmp_path / "saes", loggers=("tensorboard",))
    assert scalars[0] == (str(tmp_path / "saes.partial" / "tensorboard"), 1)
    assert scalars[-1] == "closed"
    assert len(scalars) - 2 == len(rows(tmp_path / "saes" / "metrics.csv"))


def test_a_logger_that_is_not_there_is_refused_before_training(streams, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="the logger 'tensorboard' needs the package tensorboard: pip install"):
        train(streams, tmp_path / "saes", loggers=("tensorboard",))
    with pytest.raises(ValueError, match="loggers must be among wandb, tensorboard; got 'mlflow'"):
        train(streams, tmp_path / "saes", loggers=("mlflow",))
    with pytest.raises(ValueError, match="log_every must be at least 1; got 0"):
        train(streams, tmp_path / "saes", log_every=0)
    assert not list(tmp_path.iterdir())
    assert torch.is_grad_enabled()
