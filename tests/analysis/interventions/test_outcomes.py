"""Outcomes and recovered shares against sums written out and explicit resampling."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch

from mechvit.analysis.behaviour.performance import label_rank
from mechvit.analysis.interventions.recovery import Outcomes, foils, recovery, score_outcomes


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    return torch.tensor([[3.0, 1.0, 2.5, -1.0], [0.5, 2.0, 1.0, 4.0], [1.0, 1.0, 0.0, 0.0]])


def table(conditions: dict[str, np.ndarray], correct: dict[str, np.ndarray], column: str) -> pd.DataFrame:
    ids = 40 + np.arange(len(next(iter(conditions.values()))))
    frames = [
        pd.DataFrame({column: name, "image_id": ids, "correct": correct[name], "logit_difference": values})
        for name, values in conditions.items()
    ]
    return pd.concat(frames, ignore_index=True)


def test_labels_follow_the_logits_to_their_device(logits):
    labels = torch.tensor([0, 3, 1])
    assert foils(labels, logits.to("meta")).is_meta
    assert label_rank(logits.to("meta"), labels).is_meta


def test_foils_are_the_strongest_wrong_class_of_all_models_together(logits):
    labels = torch.tensor([0, 3, 1])
    assert foils(labels, logits).tolist() == [2, 1, 0]
    other = torch.tensor([[0.0, 9.0, 1.0, 2.0], [5.0, 0.0, 1.0, 0.0], [0.0, 3.0, 0.0, 2.5]])
    together = (logits.double().softmax(-1).log() + other.double().softmax(-1).log()) / 2
    wanted = [
        max((c for c in range(4) if c != label), key=lambda c: row[c])
        for label, row in zip(labels, together, strict=True)
    ]
    assert foils(labels, logits, other).tolist() == wanted == [1, 0, 3]
    assert torch.equal(foils(labels, other + 100, logits), foils(labels, logits, other))
    with pytest.raises(ValueError, match="at least 2 classes; got 1"):
        foils(torch.zeros(3, dtype=torch.int64), logits[:, :1])


def test_of_two_equally_good_models_neither_gains():
    """Exchangeable models: there is nothing to recover whichever gives, and the gap turns with the roles."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(19, (300,), generator=generator)
    models = [torch.randn(300, 19, generator=generator) + 1.5 * torch.eye(19)[labels] for _ in range(2)]
    means = []
    for receiver, giver in (models, models[::-1]):
        foil = foils(labels, receiver, giver)
        scored = [score_outcomes(logits, labels, foil, torch.arange(300)) for logits in (receiver, giver)]
        references = pd.concat(
            [own.to_frame(condition=name) for own, name in zip(scored, ("receiver", "giver"), strict=True)]
        )
        found = recovery(scored[1].to_frame(kind="whole"), references, by=["kind"]).set_index("quantity")
        assert np.isnan(found.loc["logit_difference", "recovered"])
        means.append(float((scored[1].logit_difference - scored[0].logit_difference).mean()))
    assert means[0] == pytest.approx(-means[1], abs=1e-6)


def test_scores_match_the_logits(logits):
    labels, ids = torch.tensor([0, 1, 1]), torch.tensor([7, 8, 9])
    found = score_outcomes(logits, labels, foils(labels, logits), ids)
    assert found.correct.tolist() == [True, False, False]  # among equals the lower class is the prediction
    assert found.logit_difference.tolist() == [0.5, -2.0, 0.0]
    frame = Outcomes.concatenate([found, found]).to_frame(kind="mlp")
    assert list(frame) == ["kind", "image_id", "correct", "logit_difference", "divergence"]
    assert len(frame) == 6


def test_recovery_matches_explicit_resampling():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, 60)
    values = {"receiver": base, "giver": base + 2 + rng.normal(0, 0.5, 60), "half": base + 1 + rng.normal(0, 0.5, 60)}
    correct = {name: value > 0 for name, value in values.items()}
    references = table({name: values[name] for name in ("receiver", "giver")}, correct, "condition")
    interventions = table({"half": values["half"]}, correct, "kind").sample(frac=1, random_state=0)
    found = recovery(interventions, references, by=["kind"], resamples=4000).set_index("quantity")
    for quantity, source in (("accuracy", correct), ("logit_difference", values)):
        of = {name: np.asarray(value, float) for name, value in source.items()}

        def share(rows, of=of):
            receiver, giver, half = (of[name][rows].mean() for name in ("receiver", "giver", "half"))
            return (half - receiver) / (giver - receiver)

        row = found.loc[quantity]
        assert row["value"] == pytest.approx(of["half"].mean())
        assert row["recovered"] == pytest.approx(share(np.arange(60)))
        draws = [share(rng.choice(60, 60)) for _ in range(4000)]
        np.testing.assert_allclose(
            row[["recovered_low", "recovered_high"]].to_numpy(float), np.quantile(draws, [0.025, 0.975]), atol=0.03
        )


def test_references_recover_nothing_and_all():
    rng = np.random.default_rng(1)
    values = {"receiver": rng.normal(0, 1, 50), "giver": rng.normal(1.5, 1, 50)}
    correct = {name: value > 0 for name, value in values.items()}
    found = recovery(table(values, correct, "kind"), table(values, correct, "condition"), by=["kind"], resamples=200)
    for kind, share in (("receiver", 0), ("giver", 1)):
        rows = found[found["kind"] == kind]
        assert np.allclose(rows[["recovered", "recovered_low", "recovered_high"]], share, atol=1e-12)


def test_no_gap_gives_no_share():
    rng = np.random.default_rng(2)
    values = {"receiver": rng.normal(0, 1, 50), "giver": rng.normal(0, 1, 50)}
    correct = {name: value > 0 for name, value in values.items()}
    found = recovery(table(values, correct, "kind"), table(values, correct, "condition"), by=["kind"], resamples=200)
    assert found["recovered"].isna().all()
    assert found["value"].notna().all()


def test_divergence_is_recovered_without_labels():
    """1 - KL(giver | mixed) / KL(giver | receiver), of means over images; labels that are missing change nothing of
    it."""
    generator = torch.Generator().manual_seed(2)
    logits = {name: torch.randn(40, 6, generator=generator) for name in ("receiver", "giver")}
    logits["half"] = (logits["receiver"] + logits["giver"]) / 2
    p = {name: scipy.special.softmax(own.double().numpy(), 1) for name, own in logits.items()}
    ids, found = torch.arange(40), {}
    for labels in (torch.full((40,), -1), torch.where(ids < 20, 3, -100)):
        foil = foils(labels, logits["receiver"], logits["giver"])
        scored = {name: score_outcomes(own, labels, foil, ids, logits["giver"]) for name, own in logits.items()}
        references = pd.concat([scored[name].to_frame(condition=name) for name in ("receiver", "giver")])
        table = recovery(scored["half"].to_frame(kind="half"), references, by=["kind"], resamples=100)
        found[int(labels.max())] = table.set_index("quantity")
        apart = {name: scipy.special.rel_entr(p["giver"], own).sum(1) for name, own in p.items()}
        np.testing.assert_allclose(scored["half"].divergence, apart["half"], rtol=1e-12)
        row = table.set_index("quantity").loc["divergence"]
        assert row["value"] == pytest.approx(apart["half"].mean())
        assert row["recovered"] == pytest.approx(1 - apart["half"].mean() / apart["receiver"].mean())
    assert list(found[-1].index) == ["divergence"]
    assert list(found[3].index) == ["accuracy", "logit_difference", "divergence"]
    pd.testing.assert_series_equal(found[-1].loc["divergence"], found[3].loc["divergence"])
    right = (logits["half"][:20].argmax(1) == 3).double().mean()
    assert found[3].loc["accuracy", "value"] == pytest.approx(float(right))


def test_the_reason_for_no_share_is_given():
    rng = np.random.default_rng(2)
    values = {"receiver": rng.normal(0, 1, 50), "giver": rng.normal(0, 1, 50)}
    correct = {name: np.ones(50, bool) for name in values}
    found = recovery(table(values, correct, "kind"), table(values, correct, "condition"), by=["kind"], resamples=200)
    reasons = found.set_index("quantity")["recovered_reason"]
    assert set(reasons["logit_difference"]) == {"no_gap"}
    assert set(reasons["accuracy"]) == {"same_answers"}


def test_refuses_what_cannot_be_paired():
    values = {"receiver": np.arange(5.0), "giver": np.arange(5.0) + 1}
    correct = {name: value > 0 for name, value in values.items()}
    frame, references = table(values, correct, "kind"), table(values, correct, "condition")
    with pytest.raises(ValueError, match="giver missing"):
        recovery(frame, references[references["condition"] == "receiver"], by=["kind"])
    with pytest.raises(ValueError, match="same images; got 5 and 5 images with 4 in common"):
        recovery(frame.assign(image_id=frame["image_id"] + 1), references, by=["kind"])
