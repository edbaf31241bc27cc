"""train_sae.py: a sweep given on the command line, several hook points, going on, and two processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import tyro
from safetensors.torch import load_file

from mechvit.data import load_images
from mechvit.saes import read_history

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_sae.py"
SMALL = [
    "--limit",
    "38",
    "--validation-limit",
    "19",
    "--corruptions",
    "gaussian_noise_2",
    "--config.epochs",
    "1",
    "--config.k",
    "3",
    "--config.expansion-factor",
    "4",
    "--config.train-batch-size-tokens",
    "64",
    "--config.images-per-batch",
    "8",
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scripts_train_sae", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(tiny_hf, tiny_processor, tmp_path_factory) -> str:
    """A random ViT of the photographs' 19 classes."""
    from transformers import ViTConfig, ViTForImageClassification

    classes = load_images("photos", "test", limit=19, image_size=32).features["label"].names
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": dict(enumerate(classes)), "label2id": None})
    folder = tmp_path_factory.mktemp("models") / "base"
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def train(script, checkpoint, tmp_path):
    """Run the script's main on arguments as they are written on the command line."""

    def run(*arguments: str, out: str = "saes") -> Path:
        given = ["--model", checkpoint, "--out", str(tmp_path / out), "--device", "cpu", *SMALL, *arguments]
        script.main(tyro.cli(script.Options, args=given))
        return tmp_path / out

    return run


def test_a_sweep_on_the_command_line(train, capsys):
    out = train(
        *["--config.architectures", "topk", "gated", "--config.sweep.k", "2", "4", "--config.sweep.lr", "1e-3", "3e-4"]
    )
    names = {f"{a}-k{k}-lr{lr}" for a in ("topk", "gated") for k in (2, 4) for lr in ("0.001", "0.0003")}
    assert {path.name for path in out.iterdir() if path.is_dir()} == names == set(read_history(out)["architecture"])
    shown = capsys.readouterr().out
    assert all(str(out / name) in shown for name in names)


def test_several_hook_points_on_the_command_line(train):
    hooks = ("blocks.0.hook_mlp_out", "blocks.1.mlp.hook_post")
    out = train("--config.architectures", "topk", "--config.hook-names", *hooks)
    assert {path.name for path in out.iterdir() if path.is_dir()} == {f"topk-{hook}" for hook in hooks}
    weights = load_file(out / f"topk-{hooks[1]}" / "sae_weights.safetensors")
    assert weights["W_enc"].shape == (64, 256)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--config.hook-names blocks.1.hook_resid_psot", "Did you mean 'blocks.1.hook_resid_post'"),
        ("--config.k 129", "k must be at most the 128 latents"),
        ("--log-every 0", "log_every must be at least 1"),
        ("--config.train-batch-size-tokens 6400", "takes 6400 tokens, and 38 images give 646"),
    ],
)
def test_settings_that_cannot_work_leave_nothing_behind(train, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        train(*arguments.split())
    assert not list(tmp_path.iterdir())


def test_other_settings_need_overwrite(train):
    out = train("--config.architectures", "topk")
    with pytest.raises(ValueError, match=r"config\.lr was 0\.001 and is 0\.002\. Give another out, or overwrite"):
        train("--config.architectures", "topk", "--config.lr", "2e-3")
    before = (out / "topk" / "sae_weights.safetensors").read_bytes()
    train("--config.architectures", "topk", "--config.lr", "2e-3", "--overwrite")
    assert (out / "topk" / "sae_weights.safetensors").read_bytes() != before


@pytest.mark.slow
def test_torchrun_matches_one_process(train, checkpoint, tmp_path):
    alone = train("--config.architectures", "batchtopk", out="alone")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(SCRIPT)]
    given = ["--model", checkpoint, "--out", str(tmp_path / "two"), "--device", "cpu", *SMALL]
    done = subprocess.run(
        [*command, *given, "--config.architectures", "batchtopk"],
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the last check of each SAE's training") == 1
    one, two = (load_file(out / "batchtopk" / "sae_weights.safetensors") for out in (alone, tmp_path / "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
