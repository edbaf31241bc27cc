"""train_sae.py: a sweep given on the command line, several hook points, going on, and two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from safetensors.torch import load_file
from script_calls import SCRIPTS, call, script

from mechvit.saes import read_history

SCRIPT = SCRIPTS / "train_sae.py"
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


@pytest.fixture
def train(checkpoint, tmp_path):
    """Run the script's main on arguments as they are written on the command line."""

    def run(*arguments: str, out: str = "saes") -> Path:
        given = ["--model", checkpoint, "--out", str(tmp_path / out), "--device", "cpu", *SMALL, *arguments]
        module = script("train_sae")
        module.main(tyro.cli(module.Options, args=given))
        return tmp_path / out

    return run


def test_a_sweep_on_the_command_line(train, capsys):
    swept = ["--config.sweep.k", "2", "4", "--config.sweep.lr", "1e-3", "3e-4"]
    with pytest.warns(UserWarning, match="the gated-k.* SAE's L0 never came down"):
        out = train("--config.architectures", "topk", "gated", *swept)
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
        ("--config.train-batch-size-tokens 6400", "takes 6400 tokens, and 38 images give 646"),
    ],
)
def test_settings_that_cannot_work_leave_nothing_behind(train, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        train(*arguments.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_other_settings_need_overwrite(train):
    out = train("--config.architectures", "topk")
    with pytest.raises(ValueError, match=r"config\.lr was 0\.001 and is 0\.002\. Give another out, or overwrite"):
        train("--config.architectures", "topk", "--config.lr", "2e-3")
    before = (out / "topk" / "sae_weights.safetensors").read_bytes()
    train("--config.architectures", "topk", "--config.lr", "2e-3", "--overwrite")
    assert (out / "topk" / "sae_weights.safetensors").read_bytes() != before


@pytest.fixture
def caches(checkpoint, tmp_path) -> list[str]:
    """Caches of training and of held-out images, as arguments."""
    for part, limit in (("sae", 38), ("sae_validation", 19)):
        call("cache_activations", model=checkpoint, out=str(tmp_path / part), part=part, limit=limit, batch_size=8)
    return ["--cache", str(tmp_path / "sae"), "--validation-cache", str(tmp_path / "sae_validation")]


@pytest.mark.long
def test_trains_from_caches(caches, checkpoint, tmp_path):
    """Without the model, to the SAE that `train_on` gives; the caches' mix is written with it."""
    from mechvit.saes import CachedActivations, CachedStreams, SAEConfig, ShuffleOptions, train_on

    module, settings = script("train_sae"), SMALL[SMALL.index("--config.epochs") :]
    given = [*caches, "--out", str(tmp_path / "saes"), "--device", "cpu", *settings]
    module.main(tyro.cli(module.Options, args=[*given, "--config.architectures", "topk"]))
    config = SAEConfig(
        architectures=("topk",), epochs=1, k=3, expansion_factor=4, train_batch_size_tokens=64, images_per_batch=8
    )
    streams = CachedStreams(
        *(CachedActivations(folder) for folder in caches[1::2]),
        ShuffleOptions(batch_size=64, seed=0),
        calibration_images=config.calibration_images,
    )
    train_on(streams, tmp_path / "expected", config=config, progress=None)
    found, expected = (load_file(tmp_path / out / "topk" / "sae_weights.safetensors") for out in ("saes", "expected"))
    assert all((found[name] == tensor).all() for name, tensor in expected.items())
    metadata = json.loads((tmp_path / "saes" / "topk" / "cfg.json").read_text())["metadata"]
    assert metadata["cached_dtype"] == "bfloat16"
    assert metadata["clean_fraction"] == 0.5
    module.main(tyro.cli(module.Options, args=[*given, "--config.architectures", "topk", "--model", checkpoint]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, _: a[:2], "--cache and --validation-cache together"),
        (lambda a, _: [*a, "--config.tokens", "cls"], "--config.tokens: the cache fixes this"),
        (lambda a, _: [*a, "--corruptions", "gaussian_blur_1"], "--corruptions: the cache fixes this"),
        (lambda a, other: [*a, "--model", other], "activations of another model"),
        (lambda a, _: [a[0], a[1] + "x", *a[2:]], "saex"),
        (lambda a, _: [], "give the --model"),
    ],
    ids=["one cache", "tokens", "corruptions", "another model", "no cache", "nothing"],
)
def test_caches_that_do_not_fit_are_refused(caches, checkpoints, tmp_path, change, message):
    module = script("train_sae")
    given = [*change(caches, checkpoints["gaussian_blur_2"]), "--out", str(tmp_path / "saes"), "--device", "cpu"]
    with pytest.raises(ValueError, match=message):
        module.main(tyro.cli(module.Options, args=given))
    assert not list(tmp_path.glob("saes*"))


def test_a_damaged_cache_is_named_before_training(caches, tmp_path):
    shard = next((tmp_path / "sae").rglob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    module = script("train_sae")
    with pytest.raises(ValueError, match=shard.name):
        module.main(tyro.cli(module.Options, args=[*caches, "--out", str(tmp_path / "saes"), "--device", "cpu"]))
    assert not list(tmp_path.glob("saes*"))


@pytest.mark.processes
@pytest.mark.slow
def test_torchrun_matches_one_process(train, checkpoint, tmp_path):
    alone = train("--config.architectures", "batchtopk", out="alone")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(SCRIPT)]
    given = ["--model", checkpoint, "--out", str(tmp_path / "two"), "--device", "cpu", *SMALL]
    done = subprocess.run(
        [*command, *given, "--config.architectures", "batchtopk"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the last check of each SAE's training") == 1
    one, two = (load_file(out / "batchtopk" / "sae_weights.safetensors") for out in (alone, tmp_path / "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
