"""Two processes write the bytes of one; a killed process leaves what the next run goes on with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cache_contents import files_of

from mechvit.saes.activation_cache import CachedActivations

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("cache_process.py")


def run(*arguments, processes=1):
    """Run the worker; the exit status and what it said."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), str(WORKER), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkpoint(tiny_hf, tiny_processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_hf.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory):
    """The cache that one process writes."""
    out = tmp_path_factory.mktemp("whole") / "cache"
    status, said = run(checkpoint, out)
    assert status == 0, said
    assert "rank 0 made [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] of 10" in said
    return files_of(out)


@pytest.mark.processes
def test_two_processes_write_the_same_bytes(checkpoint, whole, tmp_path):
    status, said = run(checkpoint, tmp_path / "cache", processes=2)
    assert status == 0, said
    assert "rank 0 made [0, 2, 4, 6, 8] of 10" in said
    assert "rank 1 made [1, 3, 5, 7, 9] of 10" in said
    assert files_of(tmp_path / "cache") == whole


@pytest.mark.processes
def test_a_killed_process_goes_on_to_the_same_bytes(checkpoint, whole, tmp_path):
    status, _ = run(checkpoint, tmp_path / "cache", 0, 5)
    assert status == -9
    with pytest.raises(ValueError, match="is an unfinished cache"):
        CachedActivations(tmp_path / "cache")
    status, said = run(checkpoint, tmp_path / "cache")
    assert status == 0, said
    assert "rank 0 made [4, 5, 6, 7, 8, 9] of 10" in said
    assert files_of(tmp_path / "cache") == whole


@pytest.mark.processes
def test_a_killed_rank_leaves_what_the_next_run_goes_on_with(checkpoint, whole, tmp_path):
    status, said = run(checkpoint, tmp_path / "cache", 1, 3, processes=2)
    assert status != 0
    assert "SIGKILL" in said
    found = {path.name for path in tmp_path.glob("cache/shard-*") if not path.name.endswith(".partial")}
    assert {"shard-00001", "shard-00003"} <= found
    assert not (tmp_path / "cache/manifest.json").exists()
    status, said = run(checkpoint, tmp_path / "cache", processes=2)
    assert status == 0, said
    assert "rank 1 made [5, 7, 9] of 10" in said
    assert files_of(tmp_path / "cache") == whole
