"""Linear probes on what a head reads: for models that have no head, or none with the classes asked for.

A probe is cross-fitted: the images are divided into folds, and each is scored by the probe that was fitted on the
others, so that no image is scored by a probe that saw it. `with_probe` makes a model that carries one as its head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.behaviour.performance import Performance, score
from mechvit.analysis.condition_images import shown_to
from mechvit.analysis.finite import check_finite, model_name
from mechvit.analysis.inputs import Images, image_batches, on_cpu, pixel_values
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES
from mechvit.analysis.statistics.results import OneLine, Result
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.data.sources.labels import check_aligned
from mechvit.models.grafting import headed_config, linear_head
from mechvit.settings_checks import Range, check_number

from .folds import stratified_parts
from .ridge import CHOOSING, RidgeHead, fit_ridge_head

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

FOLDS = 5
"""Default number of folds."""
FOLD_RANGE = Range(2)
POINT = "hook_head_input"


@dataclass(frozen=True, repr=False)
class HeadInputs(OneLine):
    """Pooled representation of every image, which the head reads."""

    features: Float[Tensor, "images d_head_input"]
    labels: Int[Tensor, " images"]
    image_id: Int[Tensor, " images"]


@dataclass(frozen=True, repr=False)
class Probe(Result):
    """A model's cross-fitted probe: logits of every image by the probe of the folds that the image is not in."""

    image_id: Int[Tensor, " images"]
    label: Int[Tensor, " images"]
    fold: Int[Tensor, " images"]
    """Fold of each image, 0 to folds - 1."""
    logits: Float[Tensor, "images class"]
    """Logits by `heads[fold]`, float64."""
    heads: tuple[RidgeHead, ...]
    """Entry k: the probe that saw no image of fold k."""
    pooling: str
    """Tokens that the probe reads, as `HookedViTConfig.pooling`."""

    @property
    def id2label(self) -> Mapping[int, str]:
        """Class index -> name."""
        return self.heads[0].id2label

    def performance(self) -> Performance:
        """Score the cross-fitted logits."""
        return score(self.logits, self.label, self.image_id, "the probe")

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per image: the labels, the columns of `Performance.to_frame`, and fold."""
        return self.performance().to_frame(**labels).assign(fold=self.fold.numpy())

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Return the summary of the cross-fitted performance."""
        return self.performance().summary(resamples=resamples, level=level, seed=seed)

    def head_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per fold: the labels, fold, penalty, temperature, loss (nats), n_fit, n_chosen_on."""
        import pandas as pd

        names = ("penalty", "temperature", "loss", "n_fit", "n_chosen_on")
        rows = [{**labels, "fold": k} | {n: getattr(head, n) for n in names} for k, head in enumerate(self.heads)]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        found = self.performance()
        return (
            f"Probe({len(self.label)} images, {len(self.id2label)} classes, {len(self.heads)} folds, reads "
            f"{self.pooling}: accuracy {found.accuracy:.3g}, ECE {found.ece():.3g})"
        )


@checked
def fit_probe(
    model: HookedViT,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    id2label: Mapping[int, str] | None = None,
    folds: int = FOLDS,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Probe:
    """Train a cross-fitted linear probe on what the model's head reads (see `ridge` for the method).

    A bare encoder is read as its family's classifiers read theirs (`mechvit.models.linear_head`), at CLS where the
    family has none. Of the images outside a fold three in four fit the weights and the fourth chooses penalty and
    temperature. What the head reads, a vector per image, is held in memory; nothing else is.

    Args:
        model: any HookedViT, with or without a head.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`, with labels.
        corruption: applied in [0, 1] at the model's input size.
        id2label: the classes, index -> name; None takes the images' own, else the model's.
        folds: number of folds; every class has its share of each.
        batch_size: images per forward pass; None picks 32 on a CPU, else 128.
        seed: seed of the folds and of the corruption.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: images without labels, too few of them, another input size, values that are not finite.
    """
    check_number("folds", folds, FOLD_RANGE)
    found = head_inputs(model, images, corruption, batch_size=batch_size, seed=seed, progress=progress)
    classes = probe_classes(images, [model], found.labels, id2label)
    labels, features = found.labels.numpy(), found.features.numpy()
    _check_count(len(labels), folds)
    fold = stratified_parts(labels, folds, seed)
    heads = tuple(fit_ridge_head(features[fold != k], labels[fold != k], classes, seed=seed + 1) for k in range(folds))
    logits = _by_fold(found.features, fold, heads)
    pooling = headed_config(model, classes).pooling
    return Probe(found.image_id, found.labels, torch.from_numpy(fold), logits, heads, pooling)


@checked
def cross_fitted(
    model: HookedViT,
    probe: Probe,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Probe:
    """Score the images of a probe under another corruption, each by the probe that did not see it.

    Args:
        model: the model that the probe was fitted on.
        probe: as `fit_probe` returned it.
        images: images of the probe, all or some, by their ids; others are scored by the probe of fold 0.
        corruption, batch_size, seed, progress: as in `fit_probe`.

    Raises:
        ValueError: as `fit_probe`.
    """
    found = head_inputs(model, images, corruption, batch_size=batch_size, seed=seed, progress=progress)
    known = dict(zip(probe.image_id.tolist(), probe.fold.tolist(), strict=True))
    fold = np.asarray([known.get(image, 0) for image in found.image_id.tolist()], dtype=np.int64)
    logits = _by_fold(found.features, fold, probe.heads)
    return Probe(found.image_id, found.labels, torch.from_numpy(fold), logits, probe.heads, probe.pooling)


@checked
def fit_shared_probe(
    models: Mapping[str, HookedViT],
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    id2label: Mapping[int, str] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> RidgeHead:
    """Train one probe on what the heads of several models read of the same images, for interventions between them.

    Every image counts once for each model. Measure with it on other images than these.

    Args:
        models: name -> model; their heads read the same tokens of one width.
        images, corruption, id2label, batch_size, seed, progress: as in `fit_probe`.

    Raises:
        ValueError: no models, heads that read different tokens or widths, and as `fit_probe`.
    """
    if not models:
        raise ValueError("a shared probe needs at least one model; got none")
    if not read_alike(models):
        read = {name: headed_config(model, {0: "a", 1: "b"}) for name, model in models.items()}
        said = "; ".join(f"{name}: {cfg.pooling}, {cfg.d_head_input} values" for name, cfg in read.items())
        raise ValueError(f"models that share a probe must have heads that read the same tokens; they read {said}")
    found = [
        head_inputs(model, images, corruption, batch_size=batch_size, seed=seed, progress=progress)
        for model in models.values()
    ]
    labels = found[0].labels
    classes = probe_classes(images, list(models.values()), labels, id2label)
    _check_count(len(labels), 2)
    chosen_on = (stratified_parts(labels.numpy(), CHOOSING, seed) == CHOOSING - 1).astype(np.int64)
    return fit_ridge_head(
        torch.cat([part.features for part in found]).numpy(),
        np.tile(labels.numpy(), len(found)),
        classes,
        chosen_on=np.tile(chosen_on, len(found)),
    )


def read_alike(models: Mapping[str, HookedViT]) -> bool:
    """Return whether the heads of these models read the same tokens of one width, so that one probe fits all."""
    read = [headed_config(model, {0: "a", 1: "b"}) for model in models.values()]
    return len({(cfg.pooling, cfg.final_norm, cfg.d_head_input) for cfg in read}) <= 1


@checked
def with_probe(model: HookedViT, probe: RidgeHead) -> HookedViT:
    """Return the model with a probe as its head; weights are shared, and `to_hf` refuses it for a bare encoder.

    Args:
        model: a model whose head reads what the probe was fitted on.
        probe: one of `Probe.heads`, or what `fit_shared_probe` returns.

    Raises:
        ValueError: the probe is of another width.
    """
    return linear_head(model, probe.weight, probe.bias, probe.id2label)


@torch.inference_mode()
def head_inputs(
    model: HookedViT,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> HeadInputs:
    """Read what the head reads of every image, on the CPU; half precision in float32.

    Raises:
        ValueError: no images, another input size, values that are not finite.
    """
    reader = model
    if model.head is None:
        two = {0: "first", 1: "second"}
        width = headed_config(model, two).d_head_input
        reader = linear_head(model, torch.zeros(2, width), torch.zeros(2), two)
    features, labels, ids = [], [], []
    for batch in image_batches(model, images, batch_size, conditions=[corruption], progress=progress):
        pixels = pixel_values(model, shown_to(model, batch, corruption, seed=seed))
        _, cache = reader.run_with_cache(pixels, None, names_filter=POINT, return_cache_object=False)
        found = cache[POINT]
        check_finite("what the head reads", [found], model_name(model), batch.image_ids)
        features.append(on_cpu(found.to(torch.promote_types(found.dtype, torch.float32))))
        labels.append(on_cpu(batch.labels))
        ids.append(on_cpu(batch.image_ids))
    return HeadInputs(torch.cat(features), torch.cat(labels), torch.cat(ids))


def probe_classes(
    images: Images, models: list[HookedViT], labels: Int[Tensor, " images"], id2label: Mapping[int, str] | None
) -> dict[int, str]:
    """Return the classes of a probe, index -> name: those given, the images' own, the models', or numbers.

    Raises:
        ValueError: labels outside them, or class names that contradict those given.
    """
    names = getattr(getattr(images, "features", {}).get("label"), "names", None)
    most = int(labels.max())
    if id2label is not None:
        check_aligned(images, id2label)
        classes = dict(id2label)
    elif names:
        classes = dict(enumerate(names))
    else:
        own = [model.cfg.id2label for model in models if model.cfg.n_classes > most]
        classes = dict(own[0]) if own else {index: str(index) for index in range(most + 1)}
    if int(labels.min()) < 0 or most >= len(classes):
        bad = labels[(labels < 0) | (labels >= len(classes))].unique().tolist()
        raise ValueError(
            f"labels must be classes of the probe, 0 to {len(classes) - 1}; got {bad[:8]}: leave out images without a "
            "label (-1, -100), and map the others with mechvit.data.align_labels"
        )
    return classes


def _by_fold(
    features: Float[Tensor, "images d"], fold: Int[np.ndarray, " images"], heads: tuple[RidgeHead, ...]
) -> Float[Tensor, "images class"]:
    logits = torch.empty(len(features), len(heads[0].bias), dtype=torch.float64)
    for k, head in enumerate(heads):
        logits[fold == k] = head.logits(features[fold == k])
    return logits


def _check_count(images: int, folds: int) -> None:
    if images < 2 * folds:
        raise ValueError(f"a probe of {folds} folds needs at least {2 * folds} images; got {images}")
