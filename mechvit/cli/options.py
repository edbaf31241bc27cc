"""Options shared by several commands, as bases of their option classes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mechvit.experiment.inputs import ModelDtype, load_classifier, prepared_images

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT

Options = TypeVar("Options")


def own_first(kind: type[Options]) -> type[Options]:
    """Order a command's options for `--help`: its own, then those of its bases, the first base first.

    It is a class decorator placed above `dataclass`, which orders them the other way round; all are keyword-only.
    """
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    names = [name for each in kind.__mro__ for name in vars(each).get("__annotations__", {}) if name in fields]
    kind.__dataclass_fields__ = {name: fields[name] for name in names}  # type: ignore[attr-defined]
    return kind


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Source of the images, and treatment of unsuitable ones."""

    images: str = "photos"
    """`photos` (embedded), `folder:PATH` (a sub-folder for each class) or a Hub data set's id; the test part."""
    limit: int | None = None
    """Largest number of images; None uses the whole part."""
    bad_files: Literal["error", "skip"] = "error"
    """Treatment of a file that cannot be read: stop and name it, or leave it out and warn."""
    pixel_range: tuple[float, float] | None = None
    """Values of black and white in pictures of more than eight bits that do not state them, for example 0 4095."""
    unlabelled: Literal["error", "skip"] = "error"
    """Treatment of images without a label: stop and count them, or leave them out and warn."""


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Seed, device and precision."""

    seed: int = 0
    """Seed of the images' parts, crops and noise. One seed in all commands keeps training and test images apart."""
    device: str | None = None
    """Device to compute on, as in cuda:0 or cpu; CUDA by default if there is a GPU."""
    model_dtype: ModelDtype = "float32"
    """Precision in which models compute, whatever their checkpoints' dtype, so that they can be compared."""


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Number of images per forward pass."""

    batch_size: int | None = None
    """Images per forward pass; None uses 32 on a CPU, else 128."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Whether an earlier result may be replaced."""

    overwrite: bool = False
    """Replace an earlier result at OUT."""


def models_of(
    options: Any, checkpoints: Iterable[str], load: Callable[..., HookedViT] = load_classifier
) -> list[HookedViT]:
    """Load models on the device and in the precision that a command line names."""
    return [load(checkpoint, options.device, options.model_dtype) for checkpoint in checkpoints]


def images_for(options: Any, part: str, models: Collection[HookedViT], *, limit: int | None) -> datasets.Dataset:
    """Load one part of the images in each model's form, with the classes of the first."""
    first, processors = next(iter(models)), [model.image_processor for model in models]
    return images_of(options, part, first.hf_config, processors, limit=limit)


def images_of(options: Any, part: str, hf_config: Any, image_processor: Any, *, limit: int | None) -> datasets.Dataset:
    """Load one part of the images that a command line names; see `mechvit.experiment.inputs.prepared_images`."""
    return prepared_images(
        options.images,
        part,
        hf_config,
        image_processor,
        limit=limit,
        seed=options.seed,
        bad_files=options.bad_files,
        pixel_range=options.pixel_range,
        unlabelled=options.unlabelled,
    )
