"""scripts/cache_activations.py writes what the function writes, alone and under torchrun, and refuses in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from script_calls import SCRIPTS, script

from mechvit import HookedViT
from mechvit.cli.command_line import run
from mechvit.data import PAPER_CORRUPTIONS, align_labels, load_images, prepare
from mechvit.saes.activation_cache import CacheConfig, CachedActivations, cache_activations

SCRIPT = SCRIPTS / "cache_activations.py"


@pytest.fixture(name="script")
def module():
    """The script as a module."""
    return script("cache_activations")


@pytest.fixture
def options(script, checkpoint, tmp_path):
    """Options of a small cache on the CPU."""

    def make(**changes):
        settings = {"model": checkpoint, "out": str(tmp_path / "cache"), "limit": 38, "batch_size": 8, "device": "cpu"}
        return script.Options(**settings | changes)

    return make


@pytest.mark.long
def test_writes_what_the_function_writes(script, options, checkpoint, tmp_path, capsys):
    script.main(options(dtype="float32", tokens="patches", sae_lens=str(tmp_path / "stock")))
    said = capsys.readouterr().out
    assert "38 images x 16 tokens of blocks.1.hook_resid_post (32); 1 shards" in said
    model = HookedViT.from_pretrained(checkpoint, device="cpu")
    images = load_images("photos", "sae", limit=38, image_size=32)
    images = prepare(align_labels(images, model.cfg.id2label), model.image_processor)
    config = CacheConfig(
        hooks=("blocks.1.hook_resid_post",),
        tokens="patches",
        corruptions=PAPER_CORRUPTIONS,
        dtype="float32",
        batch_size=8,
    )
    own = cache_activations(model, images, tmp_path / "own", config, progress=None)
    found = CachedActivations(tmp_path / "cache", verify=True)
    assert torch.equal(next(found.in_order(10**6)), next(own.in_order(10**6)))
    assert found.images()["image_id"].tolist() == images["image_id"]
    assert found.images()["label"].tolist() == images["label"]
    assert (tmp_path / "stock/dataset_info.json").is_file()


def test_several_hook_points_and_another_part(script, options, tmp_path):
    hooks = ("blocks.0.hook_resid_post", "blocks.2.hook_mlp_out")
    script.main(options(hooks=hooks, part="sae_validation", corruptions=("clean",), tokens="cls"))
    plan = CachedActivations(tmp_path / "cache").plan
    assert (list(plan.hooks), plan.n_rows, plan.dtype, plan.corruptions) == (list(hooks), 38, "bfloat16", ())
    assert set(load_images("photos", "sae_validation", limit=38, image_size=32)["image_id"]) == set(
        CachedActivations(tmp_path / "cache").images()["image_id"].tolist()
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hooks": ("blocks.9.hook_resid_post",)}, "There is no hook point 'blocks.9.hook_resid_post'"),
        ({"corruptions": ("rain_2",)}, "rain"),
        ({"model": "nowhere/at/all"}, "nowhere/at/all"),
        ({"device": "abacus"}, "--device 'abacus' cannot be used here"),
        ({"images": "folder:nowhere"}, "is not a folder"),
    ],
)
def test_refuses_in_one_line(script, options, tmp_path, capsys, changes, said):
    with pytest.raises(SystemExit) as end:
        run(script.main, options(**changes))
    assert end.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "cache").exists()


@pytest.mark.processes
@pytest.mark.slow
def test_runs_under_torchrun(script, options, checkpoint, tmp_path):
    script.main(options(out=str(tmp_path / "one"), shard_megabytes=1))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(SCRIPT),
        "--model",
        checkpoint,
        "--out",
        str(tmp_path / "two"),
        "--limit",
        "38",
        "--batch-size",
        "8",
        "--device",
        "cpu",
        "--shard-megabytes",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("38 images x 17 tokens") == 1  # one process speaks
    one, two = CachedActivations(tmp_path / "one"), CachedActivations(tmp_path / "two")
    # how many threads compute may change an activation's last bits, and these processes may have other numbers of them
    torch.testing.assert_close(next(one.in_order(10**6)), next(two.in_order(10**6)), rtol=2**-7, atol=1e-3)


def test_each_process_has_a_gpu_of_its_own(script, options, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(str(device)))
    monkeypatch.setattr(script, "check_device", lambda device, processes: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *args, **options: 1 / 0)
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    for device in (None, "cuda"):
        with pytest.raises(ZeroDivisionError):
            script.main(options(device=device))
    assert chosen == ["cuda:1", "cuda:1"]
    with pytest.raises(ValueError, match="cuda:0 would put all 4 processes on one GPU"):
        script.main(options(device="cuda:0"))
