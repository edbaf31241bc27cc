"""The ridge against least squares and loops, its temperature against a grid, its parts against counts."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from mechvit.analysis.heads.folds import stratified_parts
from mechvit.analysis.heads.ridge import PENALTIES, best_temperature, fit_ridge_head, ridges

CLASSES = 4


def problem(images: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features with a mean and unequal scales, and labels that they tell in part."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=images)
    centres = rng.standard_normal((CLASSES, width))
    return 3 + rng.uniform(0.5, 2, width) * (centres[labels] + rng.standard_normal((images, width))), labels


@pytest.mark.parametrize(("images", "width"), [(60, 7), (20, 40)])
def test_without_a_penalty_it_is_least_squares(images, width):
    """`numpy.linalg.lstsq` of centred data; with fewer images than values, its solution of the least norm."""
    features, labels = problem(images, width)
    targets = np.eye(CLASSES)[labels]
    centred = features - features.mean(0)
    expected = np.linalg.lstsq(centred, targets - targets.mean(0), rcond=None)[0]
    ((_, weight, bias),) = ridges(features, targets, [1e-11])
    np.testing.assert_allclose(weight.T, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(bias, targets.mean(0) - features.mean(0) @ expected, atol=1e-5)
    if images > width:
        with_one = np.linalg.lstsq(np.c_[features, np.ones(images)], targets, rcond=None)[0]
        np.testing.assert_allclose(np.c_[weight, bias].T, with_one, atol=1e-7)


@pytest.mark.parametrize(("images", "width"), [(60, 7), (20, 40)])
def test_with_a_penalty_it_is_the_normal_equations_by_loops(images, width):
    features, labels = problem(images, width)
    targets = np.eye(CLASSES)[labels]
    for penalty, weight, bias in ridges(features, targets, [0.01, 1.0, 30.0]):
        means = [sum(features[i, a] for i in range(images)) / images for a in range(width)]
        gram, cross = np.zeros((width, width)), np.zeros((width, CLASSES))
        for i in range(images):
            for a in range(width):
                for b in range(width):
                    gram[a, b] += (features[i, a] - means[a]) * (features[i, b] - means[b])
                for c in range(CLASSES):
                    cross[a, c] += (features[i, a] - means[a]) * targets[i, c]
        amount = penalty * sum(gram[a, a] for a in range(width)) / width
        expected = np.linalg.solve(gram + amount * np.eye(width), cross).T
        np.testing.assert_allclose(weight, expected, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(bias, targets.mean(0) - expected @ np.asarray(means), rtol=1e-8)


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_it_is_scikit_learn_s():
    from sklearn.linear_model import Ridge

    features, labels = problem(60, 7)
    targets = np.eye(CLASSES)[labels]
    amount = np.square(features - features.mean(0)).sum() / 7
    for penalty, weight, bias in ridges(features, targets, [0.1, 10.0]):
        theirs = Ridge(alpha=penalty * amount, fit_intercept=True).fit(features, targets)
        np.testing.assert_allclose(weight, theirs.coef_, rtol=1e-8)
        np.testing.assert_allclose(bias, theirs.intercept_, rtol=1e-8)


def test_the_intercept_bears_no_penalty_and_units_and_rotations_change_nothing():
    features, labels = problem(60, 7)
    targets = np.eye(CLASSES)[labels]
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((7, 7)))[0]
    (first,) = ridges(features, targets, [1.0])
    (moved,) = ridges(1000 * features @ rotation + 50, targets, [1.0])
    scores = features @ first[1].T + first[2]
    np.testing.assert_allclose((1000 * features @ rotation + 50) @ moved[1].T + moved[2], scores, atol=1e-9)
    np.testing.assert_allclose(scores.sum(1), 1)
    np.testing.assert_allclose(scores.mean(0), targets.mean(0))


def test_the_temperature_is_the_best_of_a_fine_grid():
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=200)
    scores = 0.1 * np.eye(CLASSES)[labels] + 0.1 * rng.standard_normal((200, CLASSES))
    temperature, loss = best_temperature(scores, labels)
    aim = 201 / 202
    target = np.full((200, CLASSES), (1 - aim) / (CLASSES - 1))
    target[np.arange(200), labels] = aim
    grid = np.exp(np.linspace(np.log(0.01), np.log(1), 4001))
    losses = []
    for t in grid:
        logits = torch.from_numpy(scores / t)
        losses.append(float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(target))))
    assert temperature == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)
    own = torch.nn.functional.cross_entropy(torch.from_numpy(scores / temperature), torch.from_numpy(labels))
    assert loss == pytest.approx(float(own))
    assert loss < float(torch.nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels)))


def test_images_that_are_all_right_ask_for_no_certainty():
    scores = np.eye(CLASSES)[np.arange(40) % CLASSES]
    temperature, _ = best_temperature(scores, np.arange(40) % CLASSES)
    confidence = torch.from_numpy(scores / temperature).softmax(-1).max(-1).values
    np.testing.assert_allclose(confidence, 41 / 42, rtol=1e-4)


def test_scores_of_a_thousand_classes_are_no_logits_without_a_temperature():
    classes, rng = 1000, np.random.default_rng(0)
    centres = rng.standard_normal((classes, 64))
    labels = np.tile(np.arange(classes), 4)
    features = centres[labels] + 0.3 * rng.standard_normal((len(labels), 64))
    names = {index: str(index) for index in range(classes)}
    head = fit_ridge_head(features, labels, names, penalties=(0.01, 1.0))
    logits = head.logits(torch.from_numpy(features))
    right = logits.argmax(-1).numpy() == labels
    assert right.mean() > 0.9
    unscaled = (logits * head.temperature).softmax(-1).max(-1).values
    assert unscaled.max() < np.e / (np.e + 999) * 1.2
    assert float(logits.softmax(-1).max(-1).values.mean()) == pytest.approx(right.mean(), abs=0.1)
    assert head.n_fit + head.n_chosen_on == len(labels)


def test_the_penalty_is_the_one_of_the_least_loss_on_images_that_did_not_fit():
    features, labels = problem(200, 30)
    head = fit_ridge_head(features, labels, dict(enumerate("abcd")), seed=3)
    choosing = stratified_parts(labels, 4, 3) == 3
    losses = {}
    for penalty, weight, bias in ridges(features[~choosing], np.eye(CLASSES)[labels[~choosing]], PENALTIES):
        losses[penalty] = best_temperature(features[choosing] @ weight.T + bias, labels[choosing])[1]
    assert head.penalty == min(losses, key=losses.get)
    assert head.loss == min(losses.values())


def test_every_class_has_its_share_of_every_part():
    labels = np.repeat([0, 1, 2, 3], [10, 7, 3, 1])
    found = stratified_parts(labels, 4, 0)
    for label, count in ((0, 10), (1, 7), (2, 3), (3, 1)):
        each = np.bincount(found[labels == label], minlength=4)
        assert each.sum() == count
        assert each.max() - each.min() <= 1
    assert np.ptp(np.bincount(found)) <= 1
    assert not np.array_equal(found, stratified_parts(labels, 4, 1))


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="at least two classes"):
        fit_ridge_head(np.ones((8, 3)), np.zeros(8, dtype=np.int64), {0: "a", 1: "b"})
    with pytest.raises(ValueError, match="all are equal"):
        fit_ridge_head(np.ones((8, 3)), np.arange(8) % 2, {0: "a", 1: "b"})
