"""Images of commands and runs, in the form that the models they are shown to take."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mechvit.terminal import silent

if TYPE_CHECKING:
    import datasets


def prepared_images(
    source: str,
    split: str,
    hf_config: Any,
    image_processor: Any,
    *,
    limit: int | None,
    seed: int,
    bad_files: Literal["error", "skip"] = "error",
    pixel_range: tuple[float, float] | None = None,
    unlabelled: Literal["error", "skip", "keep"] = "error",
    needs_classes: bool = True,
    groups: str | None = None,
    cluster: str | None = None,
    pictures: Sequence[str | os.PathLike[str]] = (),
    apart_from: Collection[str | os.PathLike[str]] = (),
    say: Callable[[str], None] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> datasets.Dataset:
    """Load images, or one part of them, in the form that a checkpoint takes: resized, with its own class ids.

    Args:
        source, split, limit, seed, bad_files, pixel_range, unlabelled, groups, cluster: see `mechvit.data.load_images`.
        hf_config: config of the checkpoint, for its class ids; with None (a model without classes) or a head that is no
            softmax classifier, the images keep their own.
        image_processor: image processor of the checkpoint, whose output size is that of the crops of `photos`; or a
            list of the processors of all compared models, each of which then receives the images as its own processor
            resizes them.
        needs_classes: whether images whose classes are not the checkpoint's are refused; else they are taken without
            labels, and a line says so.
        pictures: files to take instead of the source, without labels.
        apart_from: checkpoints; images that one of them was trained on are left out before the limit counts.
        say: receives one line on which images these are, and one on what is left out.
        path: folder of the result (see `mechvit.data.prepare`); in memory when None.

    Raises:
        ValueError: as in `load_images`, `load_pictures` and `align_labels`, or a processor
            does not produce squares of one size.
    """
    from mechvit.data import load_images, load_pictures, prepare
    from mechvit.models.processors.image_processor import output_size

    processors = image_processor if isinstance(image_processor, Sequence) else [image_processor]
    sizes = [output_size(each) for each in processors]
    if None in sizes:
        raise ValueError(
            f"the image processor must turn every image into a square of one size; this "
            f"{type(processors[sizes.index(None)]).__name__} keeps other shapes: give it do_resize and a size, or "
            "do_center_crop and a crop_size"
        )
    say = say or silent
    shared: dict[str, Any] = {"bad_files": bad_files, "pixel_range": pixel_range, "groups": groups, "say": say}
    shared |= {"cluster": cluster, "limit": limit, "apart_from": apart_from}
    if pictures:
        images = load_pictures(pictures, **shared)
    else:
        own: dict[str, Any] = {"image_size": sizes[0] or 0, "unlabelled": unlabelled}
        images = load_images(source, split, seed=seed, **own, **shared)
    return prepare(aligned(images, hf_config, unlabelled, needs_classes, say), processors, path=path)


def aligned(
    images: datasets.Dataset,
    hf_config: Any,
    unlabelled: Literal["error", "skip", "keep"],
    needs_classes: bool,
    say: Callable[[str], None],
) -> datasets.Dataset:
    """Return images with a checkpoint's class ids; see `prepared_images`."""
    from mechvit.data import align_labels, config_classes
    from mechvit.data.sources.class_names import unique_names
    from mechvit.data.sources.label_columns import with_classes
    from mechvit.data.sources.labels import UnmatchedLabels
    from mechvit.models.config import no_softmax

    if hf_config is None or no_softmax(hf_config.num_labels, hf_config.problem_type) is not None:
        return images
    classes = config_classes(hf_config)
    try:
        return align_labels(images, classes, unlabelled=unlabelled)
    except UnmatchedLabels as error:
        if needs_classes:
            raise
        say(f"their classes are not used: {error}")
        return with_classes(images, "label", [-1] * len(images), unique_names([*classes.values()]))
