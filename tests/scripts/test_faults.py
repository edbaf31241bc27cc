"""An error that a user can resolve is one line; a bug keeps its traceback."""

from __future__ import annotations

import errno
import os
import pty
import resource
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from mechvit.cli.command_line import read, run
from mechvit.cli.faults import explain, flag_of
from mechvit.experiment import PRESETS
from mechvit.experiment.inputs import check_device
from mechvit.files.disk import disk_full
from mechvit.finetuning import FinetuneConfig
from mechvit.finetuning.config import TrainingFailed
from mechvit.saes import SAEConfig
from mechvit.settings_checks import COUNT, SettingError, check


@dataclass(frozen=True, kw_only=True)
class Inner:
    epochs: int = 1
    batch_size: int = 2

    def __post_init__(self) -> None:
        check(self, COUNT, "epochs", "batch_size")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings."""

    out: str
    limit: int | None = None
    batch_size: int = 8
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        check(self, COUNT, "limit", or_none=True)
        if self.inner.epochs == 9:
            raise SettingError("epochs", "must not be 9")


def ended(error: BaseException, capsys, options: object = None) -> str:
    """The line that `run` prints when this is raised."""

    def main(options: object) -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run(main, options)
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line[len("error: ") : -1]


def raised(work) -> BaseException:
    with pytest.raises(BaseException) as error:  # noqa: PT011
        work()
    return error.value


# memory


OUT_OF_MEMORY = {
    "python": MemoryError(),
    "numpy": raised(lambda: np.empty(10**15)),
    "torch on the CPU": raised(lambda: torch.empty(10**15)),
    "cuda": torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of ..."
    ),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB, other allocations: 1.00 KB)"),
}


@pytest.mark.parametrize("case", OUT_OF_MEMORY)
def test_memory_that_ran_out_names_the_flags_of_the_batch(case, capsys):
    line = ended(OUT_OF_MEMORY[case], capsys, Options(out="x"))
    assert line.startswith("out of memory")
    assert "lower --batch-size or --inner.batch-size" in line
    assert "Error" not in line


def test_what_was_asked_for_is_said(capsys):
    assert "(it tried to take 7.11 PiB more)" in ended(OUT_OF_MEMORY["numpy"], capsys)
    assert "(it tried to take 4000000000000000 bytes more)" in ended(OUT_OF_MEMORY["torch on the CPU"], capsys)
    assert "lower the batch size" in ended(OUT_OF_MEMORY["python"], capsys)


def test_flags_of_nested_settings():
    line = explain(MemoryError(), PRESETS["photos"])
    assert "--base.batch-size or --finetuning.batch-size or --saes.train-batch-size-tokens or" in line


# disks, files, training


LINES = {
    "give that model, or allow_other_model to use it": "give that model, or --allow-other-model to use it",
    "hook_layer must be one of the 3 blocks; got 7": "--inner.hook-layer must be one of the 3 blocks; got 7",
    "limit must be at least 2; got 1": "--limit must be at least 2; got 1",
    "one batch: use a smaller batch_size.": "one batch: use a smaller --batch-size.",
    "the limit of it is the limit": "the limit of it is the limit",  # a common word stays one
    "/elsewhere/batch_size/hook_layer.json is missing": "/elsewhere/batch_size/hook_layer.json is missing",
    "got 'batch_size', with_hooks and x.batch_size": "got 'batch_size', with_hooks and x.batch_size",
    "pass bad_files='skip' to leave such files out": "pass --bad-files skip to leave such files out",
    "say so with pixel_range=(LOW, HIGH), as in 0": "say so with --pixel-range LOW HIGH, as in 0",
    "a model comes with control=True": "a model comes with --control",
    "load it with unlabelled='skip'": "load it with unlabelled='skip'",  # no setting of this command
    "pass batch_size=3 or (hook_layer)": "pass batch_size=3 or (--inner.hook-layer)",
}


@dataclass(frozen=True, kw_only=True)
class Streamed(Inner):
    hook_layer: int = 1


@dataclass(frozen=True, kw_only=True)
class Measuring(Options):
    allow_other_model: bool = False
    bad_files: str = "error"
    pixel_range: tuple[float, float] | None = None
    control: bool = False
    inner: Streamed = field(default_factory=Streamed)


@pytest.mark.parametrize("line", LINES)
def test_python_s_names_of_settings_become_their_flags(line):
    assert explain(ValueError(line), Measuring(out="x")) == LINES[line]
    assert explain(ValueError(line)) == line  # without a command line


def test_a_full_disk_names_the_place(capsys):
    full = OSError(errno.ENOSPC, "No space left on device", "runs/x/table.parquet")
    assert "no space is left for runs/x/table.parquet" in ended(full, capsys)
    nameless = OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device")
    assert "no space is left for results" in ended(nameless, capsys, Options(out="results"))
    assert "no space is left (" in ended(OSError(errno.EDQUOT, "Disk quota exceeded"), capsys)
    ours = disk_full(Path("runs/x/table.parquet"))
    assert ended(ours, capsys, Options(out="results")).startswith("the disk of runs/x is full while runs/x/table.parq")


WRITES = {
    "plain": "open(place, 'w').write('x' * 4_000_000)",
    "safetensors": "import torch; from safetensors.torch import save_file; save_file({'a': torch.zeros(10**6)}, place)",
    "parquet": "import numpy, pandas; pandas.DataFrame({'a': numpy.random.rand(10**6)}).to_parquet(place)",
    "datasets": "import datasets; datasets.Dataset.from_dict({'a': list(range(10**6))}).save_to_disk(place)",
}


@pytest.mark.processes
@pytest.mark.parametrize("case", WRITES)
def test_a_write_that_really_fails_is_one_line(case, tmp_path):
    """A limit on the size of files stands for a full disk: the same calls fail, in the same places."""
    code = textwrap.dedent(f"""
        import dataclasses
        from mechvit.cli.command_line import run
        @dataclasses.dataclass
        class Options:
            out: str
        def main(options):
            place = options.out
            {WRITES[case]}
        run(main, Options({str(tmp_path / "out")!r}))
    """)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-B", "-c", code],  # bytecode would be cut off too, without an error
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: no space is left for {tmp_path / 'out'} (")
    assert "Traceback" not in done.stderr


def test_a_damaged_file_and_a_training_that_diverged(tmp_path, capsys):
    from safetensors.torch import load_file

    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 20)
    assert "deserializing header" in ended(raised(lambda: load_file(tmp_path / "w.safetensors")), capsys)
    assert ended(TrainingFailed("no epoch was finite"), capsys) == "no epoch was finite"


@pytest.mark.parametrize(
    "bug",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        TypeError("unsupported operand"),
        AssertionError(),
        KeyError("key"),
        IndexError("list index out of range"),
        AttributeError("no attribute"),
        ZeroDivisionError("division by zero"),
        NotImplementedError(),
    ],
)
def test_a_bug_is_not_hidden(bug):
    def main() -> None:
        raise bug

    with pytest.raises(type(bug)):
        run(main)


def test_the_traceback_is_there_for_those_who_ask(monkeypatch):
    monkeypatch.setenv("MECHVIT_TRACEBACK", "1")
    with pytest.raises(MemoryError):
        run(lambda: (_ for _ in ()).throw(MemoryError()))


# names


@pytest.mark.parametrize("name", ["\x1b[31mred", "\x9b2J", "a\u202egnp", "\udcff", "a\nb"])
def test_an_error_cannot_speak_to_the_terminal(name, capsys, tmp_path):
    line = ended(raised(lambda: (tmp_path / name / "none").read_bytes()), capsys)
    assert "none" in line
    assert line.isprintable()


# flags


def test_a_setting_s_error_names_its_flag(capsys):
    options = Options(out="x")
    assert flag_of("limit", options) == flag_of("limit", Options) == "--limit"
    assert flag_of("batch_size", Options) == "--batch-size", "the outermost"
    assert flag_of("epochs", Options) == "--inner.epochs"
    assert flag_of("inner.epochs", Options) == "--inner.epochs"
    assert flag_of("nowhere", Options) == flag_of("nowhere", None) == "nowhere"
    assert ended(SettingError("limit", "must be 3"), capsys, options) == "--limit must be 3"
    assert flag_of("k", SAEConfig) == "--k"


REFUSED = {
    ("--out", "x", "--limit", "0"): "--limit must be at least 1; got 0",
    ("--out", "x", "--inner.epochs", "0"): "--inner.epochs must be at least 1; got 0",
    ("--out", "x", "--inner.epochs", "9"): "--inner.epochs must not be 9",
    ("--out", "x", "--inner.epochs", "many"): "--inner.epochs: invalid literal for int() with base 10: 'many'",
    ("--out", "x", "--limit", "\x1b[31m"): "could be instantiated from ['\\x1b[31m'].",
    ("--out", "x", "--limits", "3"): "Unrecognized options: --limits",
    ("--out",): "Missing value for argument '--out'",
    (): "--out STR",
    ("--out", "x", "stray\x1b[2J"): r"stray\x1b[2J",
    ("--out", "x", "--inner", "3"): "--inner",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_a_command_line_that_cannot_be_is_one_line(words, capsys):
    with pytest.raises(SystemExit) as end:
        read(Options, "What it does.", args=words)
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert REFUSED[words] in shown.err
    assert shown.err[:-1].isprintable()


def test_help_is_shown_as_ever(capsys):
    with pytest.raises(SystemExit) as end:
        read(Options, "What it does.", args=["--help"])
    assert not end.value.code
    assert "What it does." in capsys.readouterr().out
    assert read(Options, None, args=["--out", "x", "--inner.epochs", "3"]) == Options(out="x", inner=Inner(epochs=3))
    assert read(FinetuneConfig, None, args=[], default=FinetuneConfig(epochs=3)).epochs == 3


@pytest.mark.parametrize("device", ["mars", "", "meta", "cuda:99", "cpu:x", "CPU", "hpu", "ipu"])
def test_a_device_that_cannot_compute_is_refused(device):
    if device.startswith("cuda") and torch.cuda.is_available() and torch.cuda.device_count() > 99:
        pytest.skip("there is one")
    with pytest.raises(SettingError, match="cannot be used here"):
        check_device(device)
    check_device("cpu")
    check_device(None)


# what is printed


PRINTS = "from mechvit.cli.command_line import run\nfrom mechvit.terminal import say\nrun(lambda: say('x'))"


@pytest.mark.processes
def test_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTS], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == ("error: the output cannot be printed (No space left on device)\n")


@pytest.mark.processes
def test_a_reader_that_ended_is_one_line():
    with subprocess.Popen(
        [sys.executable, "-c", f"input()\n{PRINTS}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == "error: the output cannot be printed (Broken pipe)\n"
        assert process.wait() == 2


@pytest.mark.processes
def test_on_a_terminal_too_the_answer_is_one_line_without_colours():
    """tyro draws its box by what stdout is."""
    ours, theirs = pty.openpty()
    code = (
        "from mechvit.cli.command_line import read\nfrom mechvit.finetuning import FinetuneConfig\n"
        "read(FinetuneConfig, None, args=['--epochs', '0'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm-256color"}
    ) as process:
        assert process.wait() == 2
    os.close(theirs)
    assert os.read(ours, 10_000).decode() == "error: --epochs must be at least 1; got 0\r\n"
    os.close(ours)


def test_the_reason_of_a_library_s_general_error_is_what_is_said(capsys):
    from datasets.exceptions import DatasetGenerationError

    error = DatasetGenerationError("An error occurred while generating the dataset")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/cache/set.arrow")
    assert "no space is left for /cache/set.arrow" in ended(error, capsys)
