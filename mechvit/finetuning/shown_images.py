"""Images as a training shows them to its model: checks of prepared sets, and the collator of its batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mechvit.data import check_aligned, config_classes
from mechvit.data.corruption_spec import Condition
from mechvit.data.mixture_spec import Mixture
from mechvit.data.prepared import pixel_column, resized_by
from mechvit.models.families import find_family, input_size
from mechvit.models.processors.image_processor import output_size

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel


def collator_of(
    model: PreTrainedModel,
    processor: Any,
    images: datasets.Dataset,
    corruption: Condition | Mixture,
    device: torch.device,
    seed: int,
) -> Callable[[Sequence[dict[str, Any]]], dict[str, Any]]:
    """Return the collator of a model's batches of prepared images under a condition; see `condition_collator`."""
    from .adversarial import condition_collator

    return condition_collator(
        corruption,
        processor,
        device,
        seed,
        resized=_must_resize(model, _size(images, processor)),
        column=pixel_column(images, processor),
    )


def check_images(model: PreTrainedModel, processor: Any, images: datasets.Dataset, role: str) -> None:
    """Refuse images that the model cannot take, before any step.

    Raises:
        ValueError: images that are not prepared, have another size than the model takes, or labels that it lacks.
    """
    if missing := {"pixels", "label", "image_id"} - set(images.column_names):
        raise ValueError(f"the {role} images lack {', '.join(sorted(missing))}; make them with mechvit.data.prepare")
    if len(images) == 0:
        raise ValueError(f"there are no {role} images")
    side, sizes = output_size(processor), [images.features[column].shape[1:] for column in resized_by(images)]
    if side is not None and (side, side) not in sizes:
        raise ValueError(
            f"the model's image processor makes images of {(side, side)} pixels; the {role} images have {sizes[0]}"
        )
    pixel_column(images, processor)  # refuses images that were resized differently
    labels = np.asarray([-1 if label is None else label for label in images["label"]], dtype=np.int64)
    if without := int((labels < 0).sum()):
        raise ValueError(
            f"{without} of the {len(labels)} {role} images have no label (None or a negative number); leave them out, "
            "as mechvit.data.load_images does with unlabelled='skip'"
        )
    highest = int(labels.max())
    if highest >= (model.config.num_labels or 0):
        raise ValueError(
            f"the {role} images have the label {highest}, and the model has {model.config.num_labels} classes; "
            "see mechvit.data.align_labels"
        )
    check_aligned(images, config_classes(model.config))


def _size(images: datasets.Dataset, processor: Any) -> tuple[int, int]:
    height, width = images.features[pixel_column(images, processor)].shape[1:]
    return height, width


def _must_resize(model: PreTrainedModel, images: tuple[int, int]) -> bool:
    """Return whether the model's forward must be asked to resize its positions to images of this size."""
    family, _ = find_family(model.config.model_type, [type(model).__name__], "the model")
    size = input_size(model.config)
    own = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    return images != own and not family.any_size
