"""The other benchmarks run through on tiny models, and hold no tiny model against a limit."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import attention_statistics
import cache_activations
import cache_contenders as ways
import contenders
import kinship
import model_patching
import pytest
import startup
import torch
from report import Result
from timing import Timing

BENCHMARKS = Path(startup.__file__).parent


@pytest.fixture(autouse=True)
def same_threads():
    """The benchmarks set the threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def read_with_text(out, capsys):
    said = capsys.readouterr().out
    assert (out / "table.md").read_text() in said
    return Result.from_json((out / "result.json").read_text()), said


def read(out, capsys):
    return read_with_text(out, capsys)[0]


@pytest.mark.long
@pytest.mark.slow
def test_attention_statistics(tmp_path, capsys):
    module = attention_statistics
    module.main(module.Options(out=str(tmp_path / "out"), device="cpu", threads=1, quick=True))
    result = read(tmp_path / "out", capsys)
    (part,) = result.timings
    assert part == "17 tokens, batch 2"
    assert set(result.timings[part].seconds) == {
        module.PLAIN,
        module.CHOSEN,
        module.HEADS,
        module.PATTERNS,
        module.CACHED,
        module.EAGER,
    }
    assert all(error < 1e-4 for error in result.agreement[part].values())
    assert all(row.limit is None for row in result.measures)
    ratios = {(row.contender, row.over): row.value for row in result.measures if row.unit == "x"}
    assert ratios[module.CHOSEN, module.PLAIN] == result.timings[part].ratio(module.CHOSEN, module.PLAIN)
    assert sum(row.part.endswith("peak memory") for row in result.measures) == 5


@pytest.mark.parametrize("tokens", attention_statistics.SHAPES)
def test_shapes_have_their_tokens(tokens):
    shape, batches = attention_statistics.SHAPES[tokens]
    size, patch = (contenders.SHAPES[shape][name] for name in ("image_size", "patch_size"))
    assert (size // patch) ** 2 + 1 == tokens
    assert 1 <= batches["cpu"] <= batches["cuda"]


@pytest.mark.long
@pytest.mark.slow
def test_attention_statistics_of_a_chosen_batch(tmp_path, capsys):
    module = attention_statistics
    options = module.Options(out=str(tmp_path / "out"), device="cpu", threads=1, quick=True, batch_size=3, peers=False)
    module.main(options)
    assert list(read(tmp_path / "out", capsys).timings) == ["17 tokens, batch 3"]


@pytest.mark.long
@pytest.mark.slow
def test_cache_activations(tmp_path, capsys):
    module = cache_activations
    module.main(module.Options(out=str(tmp_path / "out"), device="cpu", threads=1, quick=True, captured=False))
    absent = importlib.util.find_spec("nnsight") is None
    result, said = read_with_text(tmp_path / "out", capsys)
    assert ("left out: nnsight is not installed" in said) == absent
    (timing,) = result.timings.values()
    assert set(timing.seconds) - {ways.NNSIGHT} == {
        ways.FLOOR,
        ways.STATES,
        ways.HOOK,
        ways.EAGER,
        ways.BRIDGE,
        ways.FLOOR_HOST,
        ways.HOST,
        ways.FLOOR_DISK,
        ways.DISK,
        ways.PRODUCT,
        ways.COPY,
        ways.WRITE,
    }
    assert all(error < 1e-5 for part in result.agreement.values() for error in part.values())
    assert all(row.limit is None for row in result.measures)
    rates = {row.contender: row.value.median for row in result.measures if row.unit == "images/s"}
    assert rates[module.EAGER] == pytest.approx(
        torch.tensor([8 / seconds for seconds in timing.seconds[module.EAGER]]).double().quantile(0.5).item(), rel=1e-6
    )
    assert {row.unit for row in result.measures} >= {"% of the matrix peak", "% of the copy peak", "MB/s kept"}
    pairs = {(row.contender, row.over) for row in result.measures if row.unit == "x"}
    assert {(ways.HOST, ways.FLOOR_HOST), (ways.DISK, ways.FLOOR_DISK)} < pairs


def test_batches_go_to_the_host_one_after_another():
    kept: list[torch.Tensor] = []
    made = iter(torch.arange(3.0))
    last = ways.streamed(lambda: next(made), lambda batch: kept.append(batch) or batch, 3)()
    assert [*map(float, kept), float(last)] == [0, 1, 2, 2]


def test_peaks_have_a_verdict(monkeypatch):
    """A forward pass at two fifths of the product's rate, and a write at four fifths of the copy's."""
    module = cache_activations
    monkeypatch.setitem(module.PEAKS, "cpu", module.PEAKS["cuda"])
    models = contenders.make_models("tiny", 2, "cpu", "float32", 0)
    product = 2 * ways.SIDE["cpu"] ** 3 / module.floating_point_operations(models)
    others = dict.fromkeys((ways.FLOOR_HOST, ways.HOST, ways.FLOOR_DISK, ways.DISK, ways.FLOOR), 1.0)
    seconds = others | {ways.EAGER: 1 / 0.4, ways.PRODUCT: product, ways.COPY: 0.8, ways.WRITE: 1.0}
    timing = Timing(seconds={name: (value,) * 9 for name, value in seconds.items()})
    verdicts = {
        row.contender: row.verdict for row in module.rows(timing, models, "planted", judged=True) if row.at_least
    }
    assert verdicts == {ways.EAGER: "missed", ways.WRITE: "met"}
    assert not any(row.bound for row in module.rows(timing, models, "planted", judged=False))


@pytest.mark.long
@pytest.mark.slow
def test_model_patching(tmp_path, capsys):
    module = model_patching
    module.main(module.Options(out=str(tmp_path / "out"), device="cpu", threads=1, quick=True))
    result = read(tmp_path / "out", capsys)
    (part,) = result.timings
    assert part == "16 components, 5 images, 9.3 passes an image"
    assert set(result.timings[part].seconds) == {module.PATCHING, module.BARE, module.HOOKS, module.ATTRIBUTION}
    assert result.agreement[part][module.PATCHING] < 1e-5
    assert all(row.limit is None for row in result.measures)
    ratios = {(row.contender, row.over): row.value for row in result.measures}
    assert ratios[module.PATCHING, module.BARE] == result.timings[part].ratio(module.PATCHING, module.BARE)


def test_bare_blocks_are_those_that_patching_runs():
    """Images through each block's attention and MLP, in patching (which adds nothing) and in its bare counterpart."""
    from mechvit.analysis import patch_models

    options = model_patching.Options(out="-", device="cpu", quick=True)
    receiver, giver, images = model_patching.make_pair("tiny", 37, options)  # two batches, one of them small
    ran: dict[tuple[str, int], int] = {}
    bare = model_patching.Bare(receiver, giver, images, patch_models(receiver, giver, images, "clean").components)
    for model in (receiver, giver):
        for layer, block in enumerate(model.blocks):
            for module in (block.attn, block.mlp):
                place = type(module).__name__, layer
                module.register_forward_pre_hook(
                    lambda _, args, place=place: ran.__setitem__(place, ran.get(place, 0) + len(args[0]))
                )
    patch_models(receiver, giver, images, "clean")
    patched = dict(ran)
    ran.clear()
    bare()
    assert ran == patched
    assert ran["MLP", 0] == 37 * (2 + 1 + 1 + 2), "two passes, the embedding's copy, attention's and two heads'"


def test_flops_match_a_count_by_torch():
    """torch counts every product of the truncated forward, attention explicit: it does not see into a fused one."""
    from torch.utils.flop_counter import FlopCounterMode

    models = contenders.make_models("tiny", 3, "cpu", "float32", 0)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(2)]
    with FlopCounterMode(display=False) as counter:
        models.hooked.run_with_cache(models.pixels, names_filter=names, stop_at_layer=2)
    assert cache_activations.floating_point_operations(models) == counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.processes
def test_startup_counts_every_script(tmp_path, capsys):
    startup.main(startup.Options(out=str(tmp_path / "out"), rounds=1, first_image=False))
    result = read(tmp_path / "out", capsys)
    names = {row.contender for row in result.measures}
    assert {f"scripts/{path.name} --help" for path in startup.SCRIPTS.glob("*.py")} < names
    assert {row.unit for row in result.measures} == {"s", "x"}
    ratios = {row.contender: row.value for row in result.measures if row.unit == "x"}
    assert names - set(ratios) == {startup.PYTHON}
    assert ratios[startup.IMPORT] == result.timings["start-up"].ratio(startup.IMPORT, startup.PYTHON)
    assert (tmp_path / "out/figure.html").is_file()


HOLDING = """
import memory, torch

def hold():
    whole = torch.ones(8, 2**20)  # 32 MiB
    return (whole[:, ::2] * 2).sum()  # 16 MiB more

print(memory.peak_extra(hold))
freed = [torch.ones(2**20) for _ in range(8)]  # blocks that malloc keeps for later
del freed
print(memory.peak_extra(hold))
"""


@pytest.mark.processes
def test_peak_memory_is_what_a_call_holds():
    """In a process of its own, as in a benchmark: the free blocks of a long run of tests hide what a call takes."""
    command = [sys.executable, "-c", HOLDING]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert [int(line) for line in done.stdout.split()] == [pytest.approx(48 * 2**20, rel=0.1)] * 2


@pytest.mark.slow
def test_kinship(tmp_path, capsys):
    kinship.main(kinship.Options(out=str(tmp_path / "out"), quick=True, seeds=2, rounds=2))
    result = read(tmp_path / "out", capsys)
    rows = {row.contender: row for row in result.measures}
    assert list(rows) == [
        kinship.APART,
        *(kinship.TUNED.format(rate=r) for r in kinship.TUNING_RATES),
        kinship.UNRELATED,
    ]
    assert all(row.bound is None for row in result.measures)
    assert rows[kinship.APART].value.median < 0 < rows[kinship.TUNED.format(rate=1e-4)].value.median
