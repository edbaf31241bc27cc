"""The benchmark of SAE training runs through on a tiny model, and times only what ends at the same weights."""

from __future__ import annotations

import pytest
import sae_training
import torch
from contenders import check_agreement
from report import Result


@pytest.fixture(autouse=True)
def same_threads():
    """The benchmark sets the threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.long
@pytest.mark.slow
def test_quick_runs_through(tmp_path, capsys):
    options = sae_training.Options(out=str(tmp_path / "out"), device="cpu", threads=1, rounds=2, quick=True)
    sae_training.main(options)
    result = Result.from_json((tmp_path / "out/result.json").read_text())
    assert (tmp_path / "out/table.md").read_text() in capsys.readouterr().out
    assert list(result.agreement) == ["training, standard", "training, batchtopk"]
    assert all(error < 1e-4 for part in result.agreement.values() for error in part.values())
    assert [(row.contender, row.over, row.limit) for row in result.measures[-2:]] == [
        (sae_training.STOCK, sae_training.FIT, None),
        (sae_training.SPARSE, sae_training.FIT, None),
    ]
    timing = result.timings["training, batchtopk"]
    assert result.measures[-1].value == timing.ratio(sae_training.SPARSE, sae_training.FIT)


def test_training_that_ends_elsewhere_is_refused(tmp_path, monkeypatch):
    options = sae_training.Options(
        out="out", device="cpu", shape="tiny", expansion_factor=4, batch_size_tokens=128, steps=3
    )
    contenders = sae_training.training("batchtopk", options, tmp_path)
    assert max(check_agreement(contenders, 1e-3).values()) < 1e-4
    monkeypatch.setattr("mechvit.saes.training.learner.Learner.step", lambda self, batch: self.trainer.step(batch[1:]))
    with pytest.raises(ValueError, match="must agree on"):
        check_agreement(contenders, 1e-3)
