"""Two processes that train one SAE equal one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mechvit.saes import ARCHITECTURES, TrainConfig, read_history, train_on
from mechvit.saes.distributed import SharedBatchTopK, forward_shared, from_first, largest, rank, share, size, summed


@pytest.mark.parametrize("wanted", [0, 1, 7, 200, 400, 500])
@pytest.mark.parametrize("ties", [False, True])
def test_largest_matches_a_sort(wanted, ties):
    generator = torch.Generator().manual_seed(wanted)
    values = torch.rand(400, generator=generator)
    if ties:
        values = (values * 9).round()
    kept, threshold = largest(values, wanted, shared=True)
    order = sorted(range(400), key=lambda i: (-float(values[i]), i))[:wanted]
    assert kept.nonzero().squeeze(1).tolist() == sorted(order)
    if 0 < wanted < 400:
        assert threshold == float(values[order[-1]])


def test_one_process_is_the_whole(tokens):
    x = tokens(9)
    assert (size(), rank(), share(6), from_first("a"), summed(2.5, x.device)) == (1, 0, slice(0, 6), "a", 2.5)
    assert forward_shared(x, lambda rows: rows) is x
    from sae_lens.saes.batchtopk_sae import BatchTopK

    shared, stock = SharedBatchTopK(3), BatchTopK(3)
    for module in (shared.train(), shared.eval()):
        assert torch.equal(module(x - 1), stock(x - 1))


WORKER = """
import sys
sys.path.insert(0, {tests!r})
import torch
from mechvit.saes.distributed import forward_shared, largest, processes, rank, size
from test_parallel import CONFIG, draw_streams, image_training, values_of
from mechvit.saes import train_on

with processes("cpu") as device:
    assert (device, size()) == ("cpu", 2)
    for case in range(12):  # the largest of all, ties to the lower rank
        parts, wanted = values_of(case)
        kept, threshold = largest(parts[rank()], wanted, shared=True)
        every = [(-float(v), r, i) for r, part in enumerate(parts) for i, v in enumerate(part)]
        chosen = [i for _, r, i in sorted(every)[:wanted] if r == rank()]
        assert kept.nonzero().squeeze(1).tolist() == sorted(chosen), case
    for n in (1, 4, 7):
        calls = []
        found = forward_shared(torch.arange(n), lambda rows: (calls.append(len(rows)), rows * 2)[1])
        assert found.tolist() == list(range(0, 2 * n, 2)) and calls == [-(-n // 2)]
    train_on(draw_streams(), sys.argv[1] + "/drawn", config=CONFIG, checkpoint_every=7, progress=None)
    image_training(sys.argv[1] + "/images")
"""

CONFIG = TrainConfig(
    architectures=ARCHITECTURES,
    epochs=2,
    k=3,
    expansion_factor=16,
    lr=2e-3,
    train_batch_size_tokens=128,
    dead_after_epochs=0.1,
    matryoshka_levels=2,
)


def values_of(case):
    generator = torch.Generator().manual_seed(case)
    lengths = torch.randint(0, 30, (2,), generator=generator).tolist()
    parts = [torch.rand(n, generator=generator) for n in lengths]
    if case % 2:
        parts = [(part * 5).round() for part in parts]
    return parts, int(torch.randint(1, 40, (1,), generator=generator))


def draw_streams():
    from memory_streams import MemoryStreams

    def draw(n, d, seed, dtype):
        directions = torch.randn(24, d, generator=torch.Generator().manual_seed(9))
        generator = torch.Generator().manual_seed(seed)
        codes = torch.rand(n, 24, generator=generator)
        return 1 + (codes * (codes > 0.9)) @ directions + 0.1 * torch.randn(n, d, generator=generator)

    return MemoryStreams(draw, {"resid": 12}, 128, 15)


def image_training(out):
    """A short training on images through a small random model."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    from mechvit import HookedViT
    from mechvit.data import Corruption, load_images, prepare
    from mechvit.saes import SAEConfig, train_saes

    torch.manual_seed(0)
    shape = ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    model = HookedViT.from_hf(ViTForImageClassification(shape).eval(), image_processor=processor)
    images = prepare(load_images("photos", "sae", limit=19, image_size=32), processor)
    config = SAEConfig(
        epochs=2,
        k=3,
        expansion_factor=4,
        train_batch_size_tokens=64,
        images_per_batch=7,
        buffer_images=8,
        architectures=("standard", "batchtopk"),
        lr=2e-3,
    )
    return train_saes(
        model, images, images, out, corruptions=(Corruption("gaussian_noise", 1),), config=config, progress=None
    )


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the .* SAE's L0 never came down")
def test_two_processes_match_one(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = {
        "drawn": train_on(draw_streams(), tmp_path / "one" / "drawn", config=CONFIG, progress=None),
        "images": image_training(tmp_path / "one" / "images"),
    }
    for kind, saes in alone.items():
        for name, folder in saes.items():
            one, two = (load_file(f / "sae_weights.safetensors") for f in (folder, tmp_path / kind / name))
            assert one.keys() == two.keys()
            differences = {f"{name} {key}": float((two[key] - value).abs().max()) for key, value in one.items()}
            assert max(differences.values()) < 1e-5, differences
        first, second = (read_history(folder / kind) for folder in (tmp_path / "one", tmp_path))
        assert len(first) > 0
        assert first.drop(columns="value").equals(second.drop(columns="value"))
        assert second["value"].tolist() == pytest.approx(first["value"].tolist(), rel=1e-4, abs=1e-5)
        assert (first[first["metric"] == "dead_fraction"]["value"] > 0).any() or kind == "images"
    assert not list(tmp_path.glob("*.partial"))


def test_refuses_a_batch_that_cannot_be_shared(make_streams, tmp_path, monkeypatch):
    monkeypatch.setattr("mechvit.saes.distributed.size", lambda: 3)
    with pytest.raises(ValueError, match="must be a multiple of the 3 processes; got 128"):
        train_on(make_streams(), tmp_path / "saes", config=CONFIG)


@pytest.mark.processes
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process that its parent is gone")
def test_a_worker_ends_with_its_parent(tmp_path):
    """When torchrun's agent is killed, its workers do not write on alone."""
    worker = (
        "import os, sys, time; from mechvit.files import end_with_parent; end_with_parent(); "
        "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    )
    agent = (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]]); time.sleep(60)"
    )
    said = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", agent, worker, str(said)])
    for _ in range(600):
        if said.is_file() and said.read_text():
            break
        time.sleep(0.1)
    pid = int(said.read_text())
    process.kill()
    process.wait()
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    os.kill(pid, 9)
    pytest.fail("the worker lives on")
