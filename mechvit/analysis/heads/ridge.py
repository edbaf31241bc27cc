"""Ridge regression onto classes in closed form, and one temperature that makes its scores logits.

With features x and one-hot targets y, both less their means over the n images that fit,

    W = argmin_W sum_i |y_i - W x_i|² + lambda |W|²  =  Y' X (X' X + lambda I)^-1,    b = mean y - W mean x,

so that the intercept bears no penalty; lambda = penalty * trace(X' X) / d. Features are centred and not scaled one by
one: the result is then the same in every rotation of the residual stream, and in every unit of it. All is computed in
float64 from the eigenvectors of the Gram matrix, X' X or X X' (whichever is smaller), once for all penalties.

Scores of a ridge lie between 0 and 1: over 1,000 classes their softmax peaks near e / (e + 999) = .003. Logits are
scores / T, and T minimises the negative log-likelihood of other images (arXiv:1706.04599, section 4.2). The label's
target is (m + 1) / (m + 2) for m such images and the rest is spread over the other classes (Platt 1999, section 2.2),
so that images that are all right do not ask for T = 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .folds import stratified_parts

PENALTIES = tuple(float(10.0**exponent) for exponent in np.arange(-5.0, 3.01, 0.5))
"""Penalties to choose from, in units of the Gram matrix's mean eigenvalue."""
CHOOSING = 4
"""One image in this many chooses penalty and temperature; the others fit the weights."""
_LOG_INVERSE_T = (-7.0, 14.0)


@dataclass(frozen=True, repr=False)
class RidgeHead:
    """Linear classifier x weightᵀ + bias, whose values are logits: its temperature is folded into both."""

    weight: Float[Tensor, "class d_head_input"]
    """Weights divided by the temperature, float64."""
    bias: Float[Tensor, " class"]
    """Intercept divided by the temperature, float64."""
    id2label: Mapping[int, str]
    """Class index -> name."""
    penalty: float
    """Penalty that was chosen, in units of the Gram matrix's mean eigenvalue."""
    temperature: float
    """Temperature that was chosen."""
    loss: float
    """Negative log-likelihood, nats, on the images that chose both."""
    n_fit: int
    """Number of images that fitted the weights."""
    n_chosen_on: int
    """Number of other images, which chose penalty and temperature."""

    def logits(self, features: Float[Tensor, "image d_head_input"]) -> Float[Tensor, "image class"]:
        """Compute logits in float64."""
        return features.double().cpu() @ self.weight.T + self.bias

    def __repr__(self) -> str:
        return (
            f"RidgeHead({len(self.bias)} classes of {self.weight.shape[1]} values, fitted on {self.n_fit} images; "
            f"penalty {self.penalty:.2g} and temperature {self.temperature:.3g} chosen on {self.n_chosen_on}, "
            f"{self.loss:.3g} nats)"
        )


def fit_ridge_head(
    features: Float[np.ndarray, "image d_head_input"],
    labels: Int[np.ndarray, " image"],
    id2label: Mapping[int, str],
    *,
    penalties: Sequence[float] = PENALTIES,
    chosen_on: Int[np.ndarray, " image"] | None = None,
    seed: int = 0,
) -> RidgeHead:
    """Train a ridge on three images of four, and choose its penalty and then its temperature on the fourth.

    Args:
        features: what the head reads.
        labels: class ids; a class without images has the score 0 throughout.
        id2label: every class, index -> name.
        penalties: those to choose from.
        chosen_on: 1 for the images that choose, 0 for those that fit; None draws them, every class its share.
        seed: seed of that draw.

    Raises:
        ValueError: fewer than two classes, or too few images for both parts.
    """
    choosing = stratified_parts(labels, CHOOSING, seed) == CHOOSING - 1 if chosen_on is None else chosen_on == 1
    if len(np.unique(labels[~choosing])) < 2 or not choosing.any():
        raise ValueError(
            "a probe needs images of at least two classes to be fitted and others to choose its penalty and "
            f"temperature; got {len(labels)} images of {len(np.unique(labels))} classes: give more labelled images"
        )
    targets = np.eye(len(id2label))[labels[~choosing]]
    held, known = features[choosing].astype(np.float64), labels[choosing]
    best: tuple[float, float, float, np.ndarray, np.ndarray] | None = None
    for penalty, weight, bias in ridges(features[~choosing], targets, penalties):
        temperature, loss = best_temperature(held @ weight.T + bias, known)
        if best is None or loss < best[0]:
            best = loss, penalty, temperature, weight, bias
    assert best is not None
    loss, penalty, temperature, weight, bias = best
    return RidgeHead(
        torch.from_numpy(weight / temperature),
        torch.from_numpy(bias / temperature),
        dict(id2label),
        penalty,
        temperature,
        loss,
        int((~choosing).sum()),
        int(choosing.sum()),
    )


def ridges(
    features: Float[np.ndarray, "fitted d"], targets: Float[np.ndarray, "fitted class"], penalties: Sequence[float]
) -> Iterator[tuple[float, Float[np.ndarray, "class d"], Float[np.ndarray, " class"]]]:
    """Yield each penalty with the weights and the intercept of its ridge."""
    mean, level = features.mean(0, dtype=np.float64), targets.mean(0)
    x, y = features.astype(np.float64) - mean, targets - level
    trace = float(np.square(x).sum())
    if not trace:
        raise ValueError("a probe needs features that differ between images; all are equal")
    tall = x.shape[0] > x.shape[1]
    values, vectors = np.linalg.eigh(x.T @ x if tall else x @ x.T)
    seen = vectors.T @ (x.T @ y if tall else y)
    for penalty in penalties:
        shrunk = vectors @ (seen / (values.clip(min=0) + penalty * trace / x.shape[1])[:, None])
        weight = (shrunk if tall else x.T @ shrunk).T
        yield penalty, weight, level - weight @ mean


def best_temperature(
    scores: Float[np.ndarray, "chosen class"], labels: Int[np.ndarray, " chosen"]
) -> tuple[float, float]:
    """Return the temperature of the least negative log-likelihood, and that log-likelihood (nats, labels as they are).

    The targets are Platt's (see the module). The log-likelihood is concave in 1 / T, so that there is one optimum.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    m, classes = scores.shape
    own = scores[np.arange(m), labels]
    others = (scores.sum(1) - own) / max(1, classes - 1)
    aim = (m + 1) / (m + 2)
    expected = aim * own + (1 - aim) * others

    def loss(inverse: float, towards: np.ndarray) -> float:
        return float((logsumexp(inverse * scores, axis=1) - inverse * towards).mean())

    found = minimize_scalar(
        lambda power: loss(np.exp(power), expected), bounds=_LOG_INVERSE_T, method="bounded", options={"xatol": 1e-6}
    )
    inverse = float(np.exp(found.x))
    return 1 / inverse, loss(inverse, own)
