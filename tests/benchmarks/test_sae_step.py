"""The benchmark of one SAE step runs through on a small SAE, and times only steps that end at the same weights."""

from __future__ import annotations

import pytest
import sae_step
import torch
from contenders import check_agreement
from report import Result

from mechvit.saes.training import sparse_step as fast


@pytest.fixture(autouse=True)
def same_threads():
    """The benchmark sets the threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.long
@pytest.mark.slow
def test_quick_runs_through(tmp_path, capsys):
    module = sae_step
    module.main(module.Options(out=str(tmp_path / "out"), device="cpu", threads=1, quick=True))
    result = Result.from_json((tmp_path / "out/result.json").read_text())
    assert (tmp_path / "out/table.md").read_text() in capsys.readouterr().out
    titles = ["standard, d_in 16", "batchtopk, d_in 16", "batchtopk, d_in 16, a tenth dead"]
    assert list(result.timings) == list(result.agreement) == titles
    assert all(error < 1e-4 for part in result.agreement.values() for error in part.values())
    assert all(row.limit is None for row in result.measures)
    for title in titles:
        rows = {row.contender: row for row in result.measures if row.part == title}
        timing = result.timings[title]
        assert rows["sparse, step"].value == timing.ratio("sparse, step", "stock, step")
        step = torch.tensor(timing.seconds["stock, step"])
        assert rows["stock"].value.median == pytest.approx(float((256 / step).mean()), rel=1e-5)  # of two rounds
        for name in ("stock", "sparse"):
            parts = [row.value.median for key, row in rows.items() if key.startswith(f"{name}: ")]
            assert len(parts) == 5
            assert sum(parts) == pytest.approx(100)


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_steps_that_end_elsewhere_are_refused(architecture, monkeypatch):
    options = sae_step.Options(out="out", device="cpu", quick=True, k=4)
    rows, made = sae_step.learners(architecture, 16, options, dead=False)
    active = [float((made[1].sae.encode(rows[0]) > 0).sum()) / len(rows[0])]
    assert active[0] == pytest.approx(4, rel=0.3)
    steps = [way for way in sae_step.contenders(rows, made) if way.tensors is not None]
    assert max(check_agreement(steps, 1e-3).values()) < 1e-4
    made[1].sae.W_enc.data *= 1.5
    with pytest.raises(ValueError, match="must agree on"):
        check_agreement(steps, 1e-3)


def test_dead_latents_bring_the_auxiliary_loss():
    options = sae_step.Options(out="out", device="cpu", quick=True)
    for dead in (False, True):
        rows, made = sae_step.learners("batchtopk", 16, options, dead=dead)
        for learner in made:
            with torch.enable_grad():
                output = learner.step(rows[0])
            assert (float(output.losses["auxiliary_reconstruction_loss"].detach()) > 0) == dead


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_the_sparse_contender_takes_sparse_steps_also_where_they_are_no_default(architecture, monkeypatch):
    options = sae_step.Options(out="out", device="cpu", quick=True, k=4)
    monkeypatch.setattr(fast.FastStandardTrainingSAE, "devices", ())
    monkeypatch.setattr(fast.FastBatchTopKTrainingSAE, "devices", ())
    rows, (stock, sparse) = sae_step.learners(architecture, 16, options, dead=False)
    with torch.enable_grad():
        assert not stock.step(rows[0]).feature_acts.is_sparse
        assert sparse.step(rows[0]).feature_acts.is_sparse
        sparse.sae.devices = ("cuda",)
        with pytest.raises(ValueError, match="the sparse contender took a dense step on cpu"):
            sparse.step(rows[0])
