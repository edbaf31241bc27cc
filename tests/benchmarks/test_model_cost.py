"""The cost benchmark runs through on a tiny model, passes by hook points wholly, and refuses what disagrees."""

from __future__ import annotations

from pathlib import Path

import contenders
import model_cost
import pytest
import torch
from hook_points import bypassed, reached
from report import Result
from timing import Contender

BENCHMARKS = Path(model_cost.__file__).parent


@pytest.fixture(autouse=True)
def same_threads():
    """The benchmark sets the threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.long
@pytest.mark.slow
def test_quick_runs_through(tmp_path, capsys):
    model_cost.main(model_cost.Options(out=str(tmp_path / "out"), device="cpu", threads=1, rounds=2, quick=True))
    result = Result.from_json((tmp_path / "out/result.json").read_text())
    assert (tmp_path / "out/table.md").read_text() in capsys.readouterr().out
    assert result.settings["shape"] == "tiny"
    assert list(result.agreement) == ["no hooks", "penultimate residual", "attention patterns"]
    assert all(error < 1e-5 for part in result.agreement.values() for error in part.values())
    assert len(result.agreement["attention patterns"]) == 3
    assert [row.limit for row in result.measures] == [None] * 7 + [1.0, None]
    first = result.measures[0]
    assert first.value == result.timings["no hooks"].ratio("HookedViT", model_cost.SDPA)
    assert first.value.n == 2


def test_bypassed_calls_no_hook_point_and_keeps_the_logits(tiny_model):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected, called = tiny_model(pixels), [point.name for point in reached(tiny_model, pixels)]
    watched_only = ("hook_attn_scores", "hook_pattern", "hook_scale")
    assert sorted(called) == sorted(name for name in tiny_model.hook_dict if not name.endswith(watched_only))
    tiny_model.add_hook("blocks.1.hook_resid_post", lambda tensor, hook: tensor * 0)
    with bypassed(tiny_model):
        assert reached(tiny_model, pixels) == []
        torch.testing.assert_close(tiny_model(pixels), expected, rtol=0, atol=0)
    assert not torch.allclose(tiny_model(pixels), expected)  # the hook is back
    tiny_model.reset_hooks()
    assert [point.name for point in reached(tiny_model, pixels)] == called


def test_disagreement_is_refused():
    def gives(name, *values):
        return Contender(name=name, call=lambda: torch.tensor(values), tensors=lambda out: {"logits": out})

    first = gives("first", 1.0, -4.0)
    assert contenders.check_agreement([first, gives("near", 1.004, -4.0)], 1e-2) == {"near": pytest.approx(1e-3, 1e-3)}
    for other in (gives("far", 1.1, -4.0), gives("nan", 1.0, float("nan"))):
        with pytest.raises(ValueError, match=f"{other.name} and first must agree on logits"):
            contenders.check_agreement([first, other], 1e-2)
    with pytest.raises(ValueError, match="short gives logits"):
        contenders.check_agreement([first, gives("short", 1.0)], 1e-2)
