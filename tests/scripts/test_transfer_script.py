"""transfer.py reads its words, trains and tests what they say, and prints the tables' numbers."""

from __future__ import annotations

from functools import partial

import pandas as pd
import pytest
from script_calls import script

from mechvit.cli.command_line import run
from mechvit.cli.main import read_options
from mechvit.data import Corruption

QUICK = ["--finetuning.epochs", "1", "--finetuning.learning-rate", "1e-3"]
QUICK += ["--resamples", "50", "--limit", "38", "--device", "cpu"]


@pytest.mark.long
def test_matrix_on_a_given_base(checkpoints, tmp_path, capsys):
    module, out = script("transfer"), tmp_path / "transfer"
    words = ["--corruptions", "box_blur_2", "sharpen_2", "shot_noise_3"]
    words += ["--mixtures", "half=clean+box_blur_2", "--no-control"]
    config = read_options("transfer", ["--model", checkpoints["base"], "--out", str(out), *words, *QUICK])
    module.main(config)
    printed = capsys.readouterr().out
    matrix = pd.read_parquet(out / "tables" / "transfer.parquet")
    assert list(dict.fromkeys(matrix["trained_on"])) == ["base", "shot_noise_3", "box_blur_2", "sharpen_2", "half"]
    assert len(pd.read_parquet(out / "tables" / "performance.parquet")) == 5 * 4 * 38
    lines = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.split()}
    for model, factor in (("base", "accuracy"), ("box_blur_2", "gain"), ("half", "gain")):
        rows = matrix[matrix["trained_on"] == model].set_index("tested_on")[factor] * 100
        assert list(rows.index) in [line.split() for line in printed.splitlines()], "the columns' names"
        assert [float(number) for number in lines[model][:4]] == pytest.approx(rows.tolist(), abs=0.051)
    assert f"open {out / 'transfer.html'}" in printed
    assert (out / "transfer.html").stat().st_size > 1_000_000
    module.main(config)
    assert "finetune/half: done before" in capsys.readouterr().out


def test_presets_are_read_first():
    parse = partial(read_options, "transfer")
    photos, imagenet = parse([]), parse(["--preset", "imagenet", "--mixtures"])
    assert (photos.counts.finetune, photos.finetuning.learning_rate) == (456, 3e-4)
    assert (imagenet.counts.finetune, imagenet.finetuning.learning_rate) == (10_000, 5e-5)
    assert imagenet.mixtures == ()
    assert parse(["--corruptions", "weather_2"]).single == tuple(
        Corruption(family, 2) for family in ("snow", "frost", "fog", "brightness")
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--corruptions frots_2 fog_3", "did you mean frost?"),
        ("--corruptions fog_3", "at least two to transfer between"),
        ("--mixtures fog_3+fog_3", "each once"),
    ],
)
def test_bad_words_are_refused_when_they_are_read(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        read_options("transfer", words.split())
    assert end.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_bad_input_ends_in_one_line(tmp_path, capsys):
    module = script("transfer")
    config = read_options("transfer", ["--model", "./nowhere", "--out", str(tmp_path / "out"), "--device", "cpu"])
    with pytest.raises(SystemExit) as end:
        run(module.main, config)
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert end.value.code == 2
    assert len(errors) == 1
    assert "./nowhere" in errors[0]
    assert not (tmp_path / "out").exists()
