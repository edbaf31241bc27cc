"""The difference of two models in what they answer to the same images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.finite import first_not_finite, model_name
from mechvit.analysis.inputs import Images, on_cpu
from mechvit.analysis.shared_pass import PassBatch, PassMeasurement, run_together
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.data.sources.class_names import unique_names

from .answers import BehaviourChange, assembled, table_of
from .performance import check_logits, require_classifier

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@checked
@torch.inference_mode()
def behaviour_change(
    base: HookedViT,
    tuned: HookedViT,
    images: Images,
    conditions: Collection[Condition | str] = (CLEAN,),
    *,
    by: Sequence[str] = (),
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> BehaviourChange:
    """Compare what two models answer to the same images, image by image.

    Each model sees the images as its own processor resizes them. Images without a label (negative) are compared, too.

    Args:
        base, tuned: two classifiers of the same classes.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the models' own class ids.
        conditions: what is done to the images before they are shown.
        by: columns of the data set that group the images, such as site or scanner.
        batch_size: images per forward pass; None takes 32 on a CPU, else 128.
        seed: seed of all random draws of the conditions.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: a model that is no softmax classifier, other classes, a column that the data set lacks, no images,
            no conditions, another input size, labels that are not classes, logits that are not finite.
    """
    found = BehaviourMeasurement(base, tuned, images, by)
    run_together(found.models, images, conditions, [found], batch_size, seed=seed, progress=progress)
    return found.result()


class BehaviourMeasurement(PassMeasurement):
    """Answers of two models, or of their encoders under other heads, as one pass gives them.

    Args:
        base, tuned: two classifiers of the same classes: the models that run, or models that share their encoders.
        images: the images that are read, in order.
        by: columns of the data set that group the images.

    Raises:
        ValueError: as `behaviour_change`.
    """

    def __init__(self, base: HookedViT, tuned: HookedViT, images: Images, by: Sequence[str] = ()) -> None:
        self.models = {"base": base, "tuned": tuned}
        for model in self.models.values():
            require_classifier(model, images)
        check_same_classes(base, tuned)
        self._groups = _columns(images, by)
        self._found: dict[str, list[pd.DataFrame]] = {}

    def read(self, batch: PassBatch) -> None:
        """Compare the logits of a batch."""
        base, tuned = (_logits(batch, name, model) for name, model in self.models.items())
        self._found.setdefault(batch.condition.key, []).append(table_of(base, tuned, batch.labels, batch.image_ids))

    def result(self) -> BehaviourChange:
        """Return all that was read."""
        base = self.models["base"].cfg
        classes = tuple(unique_names([base.id2label[index] for index in range(base.n_classes)]))
        parts = [assembled(key, tables, self._groups, classes) for key, tables in self._found.items()]
        return BehaviourChange.concatenate(parts)


def check_same_classes(base: HookedViT, tuned: HookedViT) -> None:
    """Refuse two classifiers whose logits do not stand for the same classes.

    Raises:
        ValueError: another number of classes, or another name or order.
    """
    own, other = base.cfg.id2label, tuned.cfg.id2label
    if own == other:
        return
    if len(own) != len(other):
        difference = f"{len(own)} and {len(other)}"
    else:
        first = next(index for index in range(len(own)) if own[index] != other[index])
        difference = f"class {first} is {own[first]!r} and {other[first]!r}"
    raise ValueError(
        f"two models whose answers are compared must have the same classes in the same order (id2label); {difference}: "
        "give both one head, or compare them by probes"
    )


def _logits(batch: PassBatch, name: str, model: HookedViT) -> Float[Tensor, "batch classes"]:
    logits = batch.logits(name, model)
    who, begins = f"the {name} model {model_name(model)!r}", partial(first_not_finite, model, batch.pixels[name])
    check_logits(logits, batch.labels, batch.image_ids, who, begins, labelled=False)
    return on_cpu(logits)


def _columns(images: Images, names: Sequence[str]) -> dict[str, list[object]]:
    """Read columns of a data set, in its order.

    Raises:
        ValueError: a column that it lacks.
    """
    has = [] if isinstance(images, ImageBatch) else list(images.column_names)
    if missing := [name for name in names if name not in has]:
        raise ValueError(
            f"by must name columns of the data set; it lacks {', '.join(missing)}, and has {', '.join(has) or 'none'} "
            "(prepared images keep pixels, label and image_id alone: give the images as loaded)"
        )
    if isinstance(images, ImageBatch):
        return {}
    return {name: list(images.select_columns([name])[:][name]) for name in names}
