"""Options shared by several commands, as bases of their option classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mechvit.data.sources.load import ALL
from mechvit.experiment.inputs import ModelDtype, load_classifier, names_of, prepared_images
from mechvit.terminal import say

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
    """`photos` (embedded; crops of its test part); `folder:DIR` with a sub-folder for each class, `folder:DIR@val`
    where DIR has train, val or test folders; or a Hub data set, ID, ID@SPLIT, ID:CONFIG or ID:CONFIG@SPLIT."""
    limit: int | None = None
    """Largest number of images; None uses the whole part."""
    bad_files: Literal["error", "skip"] = "error"
    """Treatment of a file that cannot be read: stop and name it, or leave it out and warn."""
    pixel_range: tuple[float, float] | None = None
    """Values of black and white in pictures of more than eight bits that do not state them, for example 0 4095."""
    unlabelled: Literal["error", "skip"] = "error"
    """Treatment of images without a label: stop and count them, or leave them out and warn."""


@dataclass(frozen=True, kw_only=True)
class PartOptions(ImageOptions):
    """Source of the images of a command that needs parts of them that do not overlap."""

    images: str = "photos"
    """`photos` (embedded), `folder:DIR` (a sub-folder for each class) or a Hub data set, ID, ID@SPLIT, ID:CONFIG or
    ID:CONFIG@SPLIT. Its images are divided into parts that do not overlap; the train, val and test folders of a DIR
    that has them are its parts."""


@dataclass(frozen=True, kw_only=True)
class UnlabelledOptions(ImageOptions):
    """Source of the images of a command that needs no labels."""

    unlabelled: Literal["keep", "skip", "error"] = "keep"  # type: ignore[assignment]  # a wider choice
    """Treatment of images without a label: keep them (a folder's without sub-folders, say), leave them out and warn, or
    stop and count them."""


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """Single pictures in the place of a set of images."""

    pictures: tuple[Path, ...] | None = None
    """Picture files in any format that Pillow opens, instead of --images; they have no labels."""


@dataclass(frozen=True, kw_only=True)
class GroupOptions:
    """Groups of images."""

    groups: str | None = None
    """Groups of images by which results are also tabled: parent (the folder that each file is in); a regular expression
    with named groups, searched in each file's path, as in '(?P<site>[^/]+)/(?P<patient>[0-9]+)_'; or a .csv or .tsv
    file with a column path (or file) and one for each group."""
    cluster: str | None = None
    """Clusters of images that are not independent of each other (patient, scene, video): the name of one of the groups;
    parent; a regular expression with a group called cluster (and maybe one called stratum); or a .csv or .tsv file with
    such columns. The photos have their own."""


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


def images_for(
    options: Any, part: str, models: Collection[HookedViT], *, limit: int | None, **more: Any
) -> datasets.Dataset:
    """Load one part of the images in each model's form, with the classes of the first, or their own where it has none;
    `more` is for `images_of`."""
    first, processors = next(iter(models)), [model.image_processor for model in models]
    return images_of(options, part, first.hf_config if first.cfg.n_classes else None, processors, limit=limit, **more)


def images_of(
    options: Any,
    part: str,
    hf_config: Any,
    image_processor: Any,
    *,
    limit: int | None,
    needs_labels: bool = True,
    unlabelled: Literal["error", "skip", "keep"] | None = None,
    is_measured: bool = True,
    quiet: bool = False,
) -> datasets.Dataset:
    """Load the images that a command line names, or one part of them, and print which they are.

    Args:
        options: the command's options.
        part, hf_config, image_processor, limit: see `mechvit.experiment.inputs.prepared_images`.
        needs_labels: whether images whose classes are not the checkpoint's are refused.
        unlabelled: treatment of images without a label; None takes the options'.
        is_measured: whether models are judged by these images, so that those are left out that one was trained on; not
            for the parts that something is trained or chosen on.
        quiet: whether to print nothing.
    """
    return prepared_images(
        options.images,
        part,
        hf_config,
        image_processor,
        limit=limit,
        seed=options.seed,
        bad_files=options.bad_files,
        pixel_range=options.pixel_range,
        unlabelled=unlabelled or options.unlabelled,
        needs_classes=needs_labels,
        groups=getattr(options, "groups", None),
        cluster=getattr(options, "cluster", None),
        pictures=getattr(options, "pictures", None) or (),
        apart_from=checkpoints_of(options) if is_measured and part in (ALL, "test") else (),
        say=None if quiet or os.environ.get("RANK", "0") != "0" else say,
    )


def checkpoints_of(options: Any) -> list[str]:
    """Return the models that a command line names."""
    named = [getattr(options, name, None) for name in ("model", "base", "tuned", "receiver", "giver")]
    return [each for value in named if value for each in ((value,) if isinstance(value, str) else value)]


def opened_pictures(options: Any) -> dict[str, Any]:
    """Return the pictures that a command line names, by their captions: their names, or paths where names are equal."""
    from mechvit.data import open_pictures
    from mechvit.data.sources.picture import path_text

    files = [os.path.expanduser(path) for path in options.pictures]
    captions = {path: path_text(name) for name, path in names_of(files).items()}
    opened = open_pictures({path: path for path in captions}, pixel_range=options.pixel_range)
    return {captions[path]: picture for path, picture in opened.items()}
