import dataclasses

import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from mechvit.analysis import Performance, evaluate
from mechvit.analysis.behaviour.performance import label_rank, score, strongest
from mechvit.analysis.interventions.recovery import score_outcomes
from mechvit.analysis.lenses.comparison import _read


@pytest.fixture(scope="module")
def scored() -> tuple[torch.Tensor, torch.Tensor, Performance]:
    """Logits of 500 images and 19 classes that are right about half of the time."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 19, (500,), generator=generator)
    logits = 1.5 * torch.randn(500, 19, generator=generator)
    logits[torch.arange(500), labels] += 2
    return logits, labels, score(logits, labels, torch.arange(500))


@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_top_k_matches_torchmetrics(scored, k):
    logits, labels, performance = scored
    expected = multiclass_accuracy(logits, labels, num_classes=19, top_k=k, average="micro")
    assert performance.top(k) == pytest.approx(float(expected), abs=1e-7)
    assert 0.2 < performance.accuracy < performance.top(5) < performance.top(10) < 1


def test_ece_matches_torchmetrics(scored):
    logits, labels, performance = scored
    expected = multiclass_calibration_error(logits.softmax(-1), labels, num_classes=19, n_bins=15, norm="l1")
    assert float(expected) > 0.02
    assert performance.ece() == pytest.approx(float(expected), abs=1e-6)


def test_score_matches_float64(scored):
    logits, labels, performance = scored
    probability = logits.double().softmax(-1)
    assert torch.equal(performance.prediction, logits.argmax(-1))
    torch.testing.assert_close(performance.confidence.double(), probability.max(-1).values, atol=1e-6, rtol=0)
    torch.testing.assert_close(performance.probability.double(), probability[range(500), labels], atol=1e-6, rtol=0)
    expected = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    torch.testing.assert_close(performance.loss.double(), expected, atol=1e-5, rtol=1e-5)


def test_rank_of_equals_follows_argmax():
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [2.0, 5.0, 3.0]])
    assert label_rank(logits, torch.tensor([0, 1, 0])).tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_ties_have_one_answer(dtype):
    """Logits apart by less than a softmax, or float32, can tell: prediction, rank and outcome are all of the logits."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (200,), generator=generator)
    logits = torch.randn(200, 5, generator=generator, dtype=torch.float64) * (1e-8 if dtype == torch.float32 else 1e-12)
    logits = (logits if dtype == torch.float32 else logits + 3).to(dtype)
    performance = score(logits, labels, torch.arange(200))
    assert torch.equal(performance.prediction, torch.from_numpy(logits.numpy().argmax(1)))
    right = performance.prediction == performance.label
    assert 20 < right.sum() < 80
    assert torch.equal(performance.rank == 0, right)
    assert torch.equal(score_outcomes(logits, labels, (labels + 1) % 5, torch.arange(200)).correct, right)
    _, rank, _, prediction = _read(logits[None], labels)
    assert torch.equal(rank[:, 0] == 0, right)
    assert torch.equal(prediction[:, 0], performance.prediction)
    _, first = strongest(logits, 1)
    assert torch.equal(first[:, 0], performance.prediction)
    assert performance.confidence.dtype == performance.loss.dtype == torch.float32


def test_classes_that_a_softmax_rounds_to_nothing_keep_their_order():
    logits = torch.tensor([[-150.0, 40.0, -120.0, -130.0], [0.0, -150.0, -140.0, -1e-9]])
    probability, classes = strongest(logits, 3)
    assert classes.tolist() == [[1, 2, 3], [0, 3, 2]]
    torch.testing.assert_close(probability, torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]]))
    assert strongest(logits, 9)[1].shape == (2, 4)


def test_evaluate_matches_hugging_face(tiny_model, batch, hf_pass):
    for key in ("clean", "gaussian_blur_1", "gaussian_noise_4"):
        logits, _, _ = hf_pass(key)
        found, expected = evaluate(tiny_model, batch, key), score(logits, batch.labels, batch.image_ids)
        assert torch.equal(found.rank, expected.rank)
        assert len(found.rank.unique()) > 2
        torch.testing.assert_close(found.probability, expected.probability, atol=1e-5, rtol=0)
        assert torch.equal(found.image_id, batch.image_ids)


def test_evaluate_invariant_to_batch_size(tiny_model, tiny_images):
    whole = evaluate(tiny_model, tiny_images, "gaussian_noise_2", batch_size=24)
    parts = evaluate(tiny_model, tiny_images, "gaussian_noise_2", batch_size=7)
    for field in dataclasses.fields(whole):
        torch.testing.assert_close(getattr(parts, field.name), getattr(whole, field.name), atol=1e-5, rtol=1e-5)


def test_to_frame_holds_every_image(tiny_model, tiny_images):
    performance = evaluate(tiny_model, tiny_images)
    frame = performance.to_frame(model="base", corruption="clean")
    names = "model corruption image_id label prediction rank confidence probability loss classes rank_present"
    assert list(frame.columns) == names.split()
    assert (frame["rank"] == 0).mean() == pytest.approx(performance.accuracy)
    assert frame["image_id"].tolist() == tiny_images["image_id"][:]


def test_nan_logits_and_foreign_labels_are_refused():
    logits = torch.randn(3, 5)
    logits[1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"finite.*\[11\]"):
        score(logits, torch.tensor([0, 1, 2]), torch.tensor([10, 11, 12]))
    with pytest.raises(ValueError, match=r"0 to 4; got \[7\]"):
        score(torch.randn(3, 5), torch.tensor([0, 7, 2]), torch.arange(3))


def test_images_of_another_size_and_none_are_refused(tiny_model, batch):
    large = dataclasses.replace(batch, images=torch.rand(24, 3, 48, 48))
    with pytest.raises(ValueError, match="32x32; got 48x48"):
        evaluate(tiny_model, large)
    none = type(batch)(batch.images[:0], batch.labels[:0], batch.image_ids[:0])
    with pytest.raises(ValueError, match="at least one"):
        evaluate(tiny_model, none)
    with pytest.raises(ValueError, match="batch_size"):
        evaluate(tiny_model, batch, batch_size=0)
