"""Classification performance, image by image: rank of the true class, confidence and calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.condition_images import shown_to
from mechvit.analysis.finite import first_not_finite, model_name, origin
from mechvit.analysis.inputs import Images, image_batches, on_cpu, pixel_values
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.results import means
from mechvit.analysis.statistics.tidy_tables import PerImage, tidy
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.data.sources.labels import check_aligned

from .calibration import calibration_gaps

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@dataclass(frozen=True, repr=False)
class Performance(PerImage):
    """One entry per image, all on the CPU."""

    image_id: Int[Tensor, " images"]
    label: Int[Tensor, " images"]
    prediction: Int[Tensor, " images"]
    rank: Int[Tensor, " images"]
    """Number of classes that score above the label; 0 for a correct prediction."""
    confidence: Float[Tensor, " images"]
    """Probability of the predicted class, 0 to 1."""
    probability: Float[Tensor, " images"]
    """Probability of the label, 0 to 1."""
    loss: Float[Tensor, " images"]
    """Cross-entropy of the label, nats."""
    classes: Int[Tensor, " images"]
    """Number of classes that the model chooses between, the same for every image."""
    rank_present: Int[Tensor, " images"]
    """Number of classes that score above the label, of those that some image of the data set has."""

    @property
    def accuracy(self) -> float:
        """Fraction of images whose label is the prediction."""
        return self.top(1)

    @property
    def accuracy_present_classes(self) -> float:
        """The same where the prediction is the best of the classes that some image of the data set has.

        On ten of ImageNet's classes, say, a model of all 1,000 may call a church a castle, which is none of the ten.
        """
        return float((self.rank_present == 0).double().mean())

    def top(self, k: int) -> float:
        """Return the fraction of images whose label is among the k classes that score highest; k below the number of
        classes.

        Raises:
            ValueError: k below 1, or not below the number of classes.
        """
        least = int(self.classes.min())
        if not 1 <= k < least:
            raise ValueError(
                f"k must be at least 1 and below the number of classes, {least}, among which every label is found; "
                f"got {k}"
            )
        return float((self.rank < k).double().mean())

    def ece(self) -> float:
        """Compute the expected calibration error: 15 equal-width bins of confidence, L1 (see `calibration`)."""
        return float(calibration_gaps(self.rank == 0, self.confidence).mean(0).abs().sum())

    def __repr__(self) -> str:
        return f"Performance({len(self.label):,} images: accuracy {self.accuracy:.3g}, ECE {self.ece():.3g})"

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Return quantity (accuracy, accuracy_present_classes, confidence, loss in nats, ece), n, value, low, high; the
        intervals are bootstraps over images.
        """
        right = {"accuracy": self.rank == 0, "accuracy_present_classes": self.rank_present == 0}
        table = self.to_frame().assign(**{name: values.numpy() for name, values in right.items()})
        found = means(table, (), (*right, "confidence", "loss"), resamples=resamples, level=level, seed=seed)
        gaps = calibration_gaps(self.rank == 0, self.confidence).numpy()
        draws = np.abs(resampled_means(gaps, resamples=resamples, seed=seed)).sum(-1)
        found.loc[len(found)] = ["ece", len(table), *interval(draws, level)]
        return found

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per image; `labels` are constant columns put first, as in `model="base"`."""
        names = ("label", "prediction", "rank", "confidence", "probability", "loss", "classes", "rank_present")
        return tidy(self.image_id, {name: getattr(self, name) for name in names}, labels)


def unrounded(logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
    """Return half-precision logits in float32 and all others unchanged, so that no two become equal."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def strongest(
    logits: Float[Tensor, "*batch classes"], count: int
) -> tuple[Float[Tensor, "*batch top"], Int[Tensor, "*batch top"]]:
    """Return the probabilities and the indices of the `count` classes that score highest (all, if there are fewer).

    They are chosen by their logits, so that order is kept where a softmax rounds to 0 or to equal values.
    """
    logits = unrounded(logits)
    classes = logits.topk(min(count, logits.shape[-1])).indices
    return logits.softmax(-1).gather(-1, classes).float(), classes


def label_rank(
    logits: Float[Tensor, "*batch classes"],
    labels: Int[Tensor, "*batch"],
    among: Int[Tensor, " some"] | None = None,
) -> Int[Tensor, "*batch"]:
    """Count the classes that score above the label; among equals the lower index is first, as in `argmax`.

    Only classes in `among` are counted, or all.
    """
    labels = labels.to(logits.device)
    own = logits.gather(-1, labels[..., None])
    index = torch.arange(logits.shape[-1], device=logits.device)
    above = (logits > own) | ((logits == own) & (index < labels[..., None]))
    return above.sum(-1) if among is None else above[..., among.to(logits.device)].sum(-1)


def present_classes(images: Images) -> Int[Tensor, " present"]:
    """Return the classes that some image has, in order."""
    labels = images.labels if isinstance(images, ImageBatch) else torch.as_tensor(images.with_format(None)["label"][:])
    return labels[labels >= 0].unique().cpu()


def require_classifier(model: HookedViT, images: Images | None = None) -> None:
    """Refuse a model that is not a single-label classifier, or named labels that contradict its classes.

    Raises:
        ValueError: the outputs are not classes of which a softmax chooses one, or the images' class names contradict
            the model's.
    """
    if model.head is None:
        raise ValueError(
            f"a classification head is needed, and this {model.cfg.architecture} has none: load a classifier or, for "
            "CLIP and SigLIP, give HookedViT.from_hf text embeddings"
        )
    if model.cfg.no_softmax is not None:
        raise ValueError(
            f"accuracy, calibration and lenses need a softmax classifier; this {model.cfg.architecture} is not one: "
            f"{model.cfg.no_softmax}"
        )
    check_aligned(images, model.cfg.id2label)


def check_logits(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    image_ids: Tensor,
    model: str = "the model",
    begins: Callable[[], str | None] | None = None,
    *,
    labelled: bool = True,
) -> None:
    """Refuse values that would silently give wrong scores: logits that are not finite, labels that are not classes.

    Args:
        logits, labels, image_ids: of one batch.
        model: name of the model in the error.
        begins: function that finds the hook point where values that are not finite begin.
        labelled: whether every image must have a label; False lets negative labels pass, which stand for none.

    Raises:
        ValueError: names the images, the model, and the hook point where such values begin (found by `begins`).
    """
    classes = logits.shape[-1]
    if classes < 2:
        raise ValueError(
            f"right and wrong answers need at least two classes to choose between; got logits of {classes}"
        )
    bad = ~logits.isfinite().all(-1)
    if bool(bad.any()):
        raise ValueError(
            f"logits must be finite; {model} gave NaN or infinity on the image ids {image_ids[bad].tolist()[:8]}"
            f"{origin(begins)}: check the checkpoint and these images"
        )
    bad = (labels < 0) & labelled | (labels >= classes)
    if bool(bad.any()):
        raise ValueError(
            f"labels must be classes of the model, 0 to {classes - 1}; got {labels[bad].unique().tolist()[:8]} for "
            f"{int(bad.sum())} of {len(labels)} images of a batch: leave out those without a label (-1, -100), and map "
            "the others with mechvit.data.align_labels"
        )


def score(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    image_ids: Int[Tensor, " batch"],
    model: str = "the model",
    begins: Callable[[], str | None] | None = None,
    *,
    present: Int[Tensor, " present"] | None = None,
) -> Performance:
    """Score one batch of logits; the prediction is the argmax.

    `present` are the classes that images of the data set have (`present_classes`); None counts all as present.

    Raises:
        ValueError: logits that are not finite, or labels that are not classes of the model; `model` names it in the
            error, and `begins` finds where such logits begin.
    """
    labels = labels.to(logits.device)
    check_logits(logits, labels, image_ids, model, begins)
    logits = unrounded(logits)
    prediction, log_probability = logits.argmax(-1), logits.log_softmax(-1)
    confidence, own = (log_probability.gather(-1, of[:, None])[:, 0].float() for of in (prediction, labels))
    classes = torch.full_like(labels, logits.shape[-1])
    rank, among = label_rank(logits, labels), label_rank(logits, labels, present)
    found = (image_ids, labels, prediction, rank, confidence.exp(), own.exp(), -own, classes, among)
    return Performance(*(on_cpu(tensor) for tensor in found))


@checked
@torch.inference_mode()
def evaluate(
    model: HookedViT,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Performance:
    """Classify every image under one corruption.

    Args:
        model: any HookedViT with a head.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the model's own class ids.
        corruption: applied in [0, 1] at the model's input size; a string such as "gaussian_blur_4" is read.
        batch_size: images per forward pass; None takes 32 on a CPU, else 128.
        seed: seed of the noise.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: no softmax classifier, no images, another input size, labels that are not classes, logits that are
            not finite.

    Source: the paper's section 4.1; ECE, arXiv:1706.04599 (section 2).
    """
    require_classifier(model, images)
    parts, present = [], present_classes(images)
    for batch in image_batches(model, images, batch_size, conditions=[corruption], progress=progress):
        pixels = pixel_values(model, shown_to(model, batch, corruption, seed=seed))
        name, begins = f"the model {model_name(model)!r}", partial(first_not_finite, model, pixels)
        parts.append(score(model(pixels), batch.labels, batch.image_ids, name, begins, present=present))
    return Performance.concatenate(parts)
