"""No command runs code that a checkpoint brings, whatever is typed: tried on a pseudo-terminal that answers yes."""

from __future__ import annotations

import json
import os
import pty
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hostile_checkpoints import HARMLESS, HOSTILE, make_hostile
from PIL import Image
from script_calls import SCRIPTS, script

from mechvit.cli.command_line import run
from mechvit.cli.main import read_options

RECIPE = ("--corruption", "fog_2", "--epochs", "1", "--learning-rate", "1e-3", "--batch-size", "19", "--limit", "19")
COMMANDS: dict[str, tuple[str, ...]] = {
    "ablate_features": ("--model", "CHECKPOINT", "--sae", "SAE", "--corruptions", "gaussian_blur_2", "--out", "OUT"),
    "analyze": ("--base", "CHECKPOINT", "--tuned", "GOOD", "--out", "OUT"),
    "analyze, tuned": ("--base", "GOOD", "--tuned", "CHECKPOINT", "--out", "OUT"),
    "browse_features": ("--model", "CHECKPOINT", "--saes", "SAE", "--out", "OUT"),
    "cache_activations": ("--model", "CHECKPOINT", "--out", "OUT"),
    "compare": ("CHECKPOINT", "GOOD", "--out", "OUT"),
    "compare, tuned": ("GOOD", "CHECKPOINT", "--out", "OUT"),
    "compare_representations": ("--model", "CHECKPOINT", "GOOD", "--corruptions", "gaussian_blur_2", "--out", "OUT"),
    "evaluate": ("--model", "CHECKPOINT"),
    "evaluate_sae": ("--model", "CHECKPOINT", "--saes", "SAE"),
    "explore_attention": ("--model", "CHECKPOINT", "--out", "OUT"),
    "finetune": ("--model", "CHECKPOINT", "--corruption", "clean", "--limit", "19", "--out", "OUT"),
    "look": ("PICTURE", "--model", "CHECKPOINT", "--out", "OUT.html"),
    "nulls": ("CHECKPOINT", "--like", "GOOD", *RECIPE, "--out", "OUT"),
    "nulls, tuned": ("GOOD", "--like", "CHECKPOINT", *RECIPE, "--out", "OUT"),
    "patch_models": ("--receiver", "CHECKPOINT", "--giver", "GOOD", "--corruption", "gaussian_blur_2", "--out", "OUT"),
    "patch_models, giver": (
        "--receiver",
        "GOOD",
        "--giver",
        "CHECKPOINT",
        "--corruption",
        "gaussian_blur_2",
        "--out",
        "OUT",
    ),
    "reproduce": ("--model", "CHECKPOINT", "--limit", "19", "--out", "OUT"),
    "robustness": ("--model", "CHECKPOINT", "GOOD", "--out", "OUT"),
    "steer": ("--base", "CHECKPOINT", "--tuned", "GOOD", "--corruption", "gaussian_blur_2", "--out", "OUT"),
    "swap_weights": ("--base", "GOOD", "--tuned", "CHECKPOINT", "--corruptions", "gaussian_blur_2", "--out", "OUT"),
    "train_sae": ("--model", "CHECKPOINT", "--out", "OUT"),
    "train_sae, another": ("--model", "GOOD", "--also-model", "CHECKPOINT", "--out", "OUT"),
    "transfer": ("--model", "CHECKPOINT", "--limit", "19", "--out", "OUT"),
    "visualize_attention": ("--model", "CHECKPOINT", "--pictures", "PICTURE", "--out", "OUT"),
    "visualize_attention, tuned": ("--model", "GOOD", "--tuned", "CHECKPOINT", "--pictures", "PICTURE", "--out", "OUT"),
}
"""Every command that reads a checkpoint's weights and image processor, with the least that it takes."""
BY_CONFIG_ALONE = {"hook_points": ("--model", "CHECKPOINT")}
BY_CONFIG = ("code_by_config", "code_by_config_without_a_type", "code_of_another_repository")
READS_NONE = {"benchmark", "export_figures", "screenshots"}
QUICK, MORE = list(HOSTILE)[:2], list(HOSTILE)[2:]


def test_every_script_is_tried():
    tried = {name.partition(",")[0] for name in (COMMANDS | BY_CONFIG_ALONE)}
    assert tried | READS_NONE == {path.stem for path in SCRIPTS.glob("*.py")}


@pytest.fixture(scope="module")
def places(checkpoints, tmp_path_factory) -> dict[str, str]:
    """The values of the words in capitals, except CHECKPOINT and OUT."""
    folder = tmp_path_factory.mktemp("inputs")
    Image.new("RGB", (40, 40), "red").save(folder / "picture.png")
    (folder / "sae").mkdir()
    (folder / "sae" / "cfg.json").write_text("{}")
    return {"GOOD": checkpoints["gaussian_blur_2"], "SAE": str(folder / "sae"), "PICTURE": str(folder / "picture.png")}


def check_refused(lines: Mapping[str, list[str]], marks: Mapping[str, Path], folder: Path) -> None:
    """Run all with every question answered by yes: each ends with one line of error, and nothing asked or ran."""
    ends, printed = answer_yes(lines, marks, folder)
    assert ends == {name: [2, False] for name in lines}, printed
    assert "[y/N]" not in printed
    assert "trust_remote_code" not in printed  # no advice to switch it on either
    blocks = printed.replace("\r\n", "\n").split("== ")[1:]
    assert len(blocks) == len(lines)
    for block in blocks:
        errors = [line for line in block.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, block
        assert len(errors[0]) < 1000, block
        assert "Traceback" not in block


def command_lines(
    commands: Mapping[str, tuple[str, ...]], places: Mapping[str, str], folder: Path
) -> dict[str, list[str]]:
    """Put paths in the place of the words in capitals."""
    return {
        name: [places.get(word, word).replace("OUT", str(folder / f"out-{name}")) for word in words]
        for name, words in commands.items()
    }


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.parametrize("kind", [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE)])
def test_no_command_runs_or_asks_for_code(kind, checkpoints, places, tmp_path):
    mark = make_hostile(checkpoints["base"], tmp_path / "bad", kind)
    commands = COMMANDS | (BY_CONFIG_ALONE if kind in BY_CONFIG else {})
    lines = command_lines(commands, places | {"CHECKPOINT": str(tmp_path / "bad")}, tmp_path)
    check_refused(lines, dict.fromkeys(lines, mark), tmp_path)


@pytest.mark.processes
def test_every_kind_is_refused(checkpoints, places, tmp_path):
    lines, marks = {}, {}
    for kind in HOSTILE:
        mark = make_hostile(checkpoints["base"], tmp_path / kind, kind)
        chosen = {f"{name}, {kind}": COMMANDS[name] for name in ("finetune", "evaluate")}
        lines |= command_lines(chosen, places | {"CHECKPOINT": str(tmp_path / kind)}, tmp_path)
        marks |= dict.fromkeys(chosen, mark)
    check_refused(lines, marks, tmp_path)


@pytest.mark.processes
def test_code_that_is_not_needed_is_left_alone(checkpoints, places, tmp_path):
    lines, marks = {}, {}
    for kind in HARMLESS:
        marks[kind] = make_hostile(checkpoints["base"], tmp_path / kind, kind)
        words = ("--model", str(tmp_path / kind), "--corruptions", "clean", "--limit", "19")
        lines[f"evaluate, {kind}"] = list(words)
    ends, printed = answer_yes(lines, {f"evaluate, {kind}": mark for kind, mark in marks.items()}, tmp_path)
    assert ends == {name: [0, False] for name in lines}, printed
    rows = {line.split(maxsplit=1)[1] for line in printed.splitlines() if line.strip().startswith(tuple(HARMLESS))}
    assert len(rows) == 1, printed  # all are the same model


def answer_yes(
    lines: Mapping[str, list[str]], marks: Mapping[str, Path], folder: Path
) -> tuple[dict[str, list[int]], str]:
    """Run command lines in one forked process on a pseudo-terminal where y is typed again and again.

    Returns:
        The exit code of each and whether its mark was left, and all that was printed.
    """
    results = folder / "ends.json"
    process, end = pty.fork()
    if process == 0:
        try:
            _run_all(lines, marks, results)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.write(end, b"y\n" * 200)
    printed = b""
    while True:
        try:
            piece = os.read(end, 65536)
        except OSError:  # the process has ended
            break
        printed += piece
    os.close(end)
    os.waitpid(process, 0)
    text = printed.decode(errors="replace")
    assert results.exists(), text
    return json.loads(results.read_text()), text


def _run_all(lines: Mapping[str, list[str]], marks: Mapping[str, Path], results: Path) -> None:
    torch.set_num_threads(1)  # a pool of threads doesn't survive a fork
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    assert sys.stdin.isatty()
    ends: dict[str, list[int]] = {}
    for name, argv in lines.items():
        print(f"== {name}", file=sys.stderr)
        try:
            _run_line(name.partition(",")[0], argv)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 1
        ends[name] = [code, marks[name].exists()]
        marks[name].unlink(missing_ok=True)
    results.write_text(json.dumps(ends))


def _run_line(name: str, argv: list[str]) -> None:
    """Do what the script's last lines do."""
    module = script(name)
    options = read_options(module.__name__.rpartition(".")[2], argv)
    run(module.main, options)
