"""The calibration error is the cited equation, on every bin's edge too, and one function computes it everywhere."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from mechvit.analysis import Performance
from mechvit.analysis.behaviour.calibration import ECE_BINS, calibration_bin, calibration_gaps
from mechvit.analysis.behaviour.performance import score
from mechvit.analysis.summaries.bootstrap_draws import performance_draws
from mechvit.data.batches import ImageBatch
from mechvit.saes.evaluation.reconstruction import Classified

EDGES = [m / 15 for m in range(1, 16)]


def loop(correct, confidence) -> float:
    """Equation 3 as it is written: bin m holds confidences in ((m - 1)/15, m/15]."""
    error, n = 0.0, len(correct)
    for m in range(1, 16):
        held = [
            (float(a), float(c)) for a, c in zip(correct, confidence, strict=True) if (m - 1) / 15 < float(c) <= m / 15
        ]
        if held:
            accuracy, mean = (sum(part) / len(held) for part in zip(*held, strict=True))
            error += len(held) / n * abs(accuracy - mean)
    return error


def performance(correct, confidence) -> Performance:
    n, confidence = len(correct), torch.as_tensor(confidence)
    rank = 1 - torch.as_tensor(correct).long()
    zeros = torch.zeros(n, dtype=torch.int64)
    return Performance(torch.arange(n), zeros, rank, rank, confidence, confidence, -confidence.log(), zeros + 19, rank)


def torchmetrics_ece(logits, labels) -> float:
    return float(multiclass_calibration_error(logits.softmax(-1), labels, logits.shape[1], n_bins=15, norm="l1"))


def test_an_edge_belongs_to_the_bin_below_it():
    assert calibration_bin(torch.tensor(EDGES, dtype=torch.float64)).tolist() == list(range(15))
    above = [math.nextafter(edge, 2) for edge in EDGES[:-1]]
    assert calibration_bin(torch.tensor(above, dtype=torch.float64)).tolist() == list(range(1, 15))
    assert calibration_bin(torch.tensor([1.0, 1e-30])).tolist() == [14, 0]
    assert calibration_bin(torch.tensor([[1.0], [0.5]])).shape == (2, 1)


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(EDGES) | st.floats(0.01, 1.0) | st.just(1.0)), min_size=1, max_size=40
    ),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_ece_is_the_equation_in_a_float64_loop(images, dtype):
    correct = torch.tensor([right for right, _ in images])
    confidence = torch.tensor([c for _, c in images], dtype=dtype)
    found = performance(correct, confidence)
    expected = loop(correct, confidence.double())
    assert found.ece() == pytest.approx(expected, abs=1e-12)
    frame = found.to_frame(model="base", corruption="clean")
    assert performance_draws(frame, resamples=1)["base", "clean", "ece"][0] == pytest.approx(expected, abs=1e-12)


def saturated(seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of 200 images and 6 classes: many saturate to a confidence of exactly 1, some of them wrong; others come
    close to it, and are right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 6, (200,), generator=generator)
    logits = torch.randn(200, 6, generator=generator)
    logits[:100] = 1000 * torch.eye(6)[torch.randint(0, 6, (100,), generator=generator)]
    logits[torch.arange(100, 200, 2), labels[100::2]] += 3
    logits[torch.arange(150, 200), labels[150:]] += 9
    return logits, labels


def test_saturated_logits_share_the_last_bin():
    logits, labels = saturated()
    found = score(logits, labels, torch.arange(200))
    full = found.confidence == 1
    assert 100 <= int(full.sum()) < 120
    assert int((calibration_bin(found.confidence[~full]) == 14).sum()) > 5
    expected = loop(found.rank == 0, found.confidence)
    assert found.ece() == pytest.approx(expected, abs=1e-12)
    assert abs(torchmetrics_ece(logits, labels) - expected) > 5e-4  # it gives a confidence of 1 a bin of its own
    most = torch.tensor([True, *[False] * 3]), torch.tensor([1.0, 0.95, 0.95, 0.95])
    assert performance(*most).ece() == pytest.approx(abs(1 - 3.85) / 4)


def test_torchmetrics_agrees_where_no_confidence_is_an_edge():
    logits, labels = saturated()
    logits, labels = logits[100:], labels[100:]
    assert torchmetrics_ece(logits, labels) > 0.02
    assert score(logits, labels, torch.arange(100)).ece() == pytest.approx(torchmetrics_ece(logits, labels), abs=1e-6)


def test_models_tables_and_saes_have_one_error():
    logits, labels = saturated()
    found = score(logits, labels, torch.arange(200))
    summed = Classified()
    for rows in torch.arange(200).split(33):
        summed.add(logits[rows], ImageBatch(torch.zeros(len(rows), 3, 1, 1), labels[rows], rows))
    draws = performance_draws(found.to_frame(model="m", corruption="clean"), resamples=3)
    assert summed.means().ece == pytest.approx(found.ece(), abs=1e-12)
    assert draws["m", "clean", "ece"][0] == pytest.approx(found.ece(), abs=1e-12)


def test_gaps_lie_in_their_bins():
    gaps = calibration_gaps(torch.tensor([True, False]), torch.tensor([1.0, 0.5]))
    assert gaps.dtype == torch.float64
    assert gaps.shape == (2, ECE_BINS)
    assert gaps[0].tolist() == [0.0] * 15
    assert gaps[1].tolist() == [*[0.0] * 7, -0.5, *[0.0] * 7]
