"""The images of a comparison, resized once for every model, and their labels as each pair takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mechvit.data.sources.class_folders import fingerprint_folder
from mechvit.data.sources.folder_source import FolderSource
from mechvit.data.sources.photos import CROPS
from mechvit.experiment.runs.stages import write_json

from .config import CompareConfig

if TYPE_CHECKING:
    import datasets

ImagesName = Literal["images", "unrelated"]
"""The images that are compared, and those of another kind for the difference lens."""


def image_settings(config: CompareConfig, what: ImagesName, checkpoints: Mapping[str, str]) -> dict[str, Any]:
    """Return everything on which prepared images depend, for their stage's key."""
    from mechvit.experiment.inputs import read_checkpoint
    from mechvit.experiment.runs.provenance import revisions_of
    from mechvit.models.processors.preprocessing import all_settings

    source, folder = getattr(config, what), FolderSource.parse(getattr(config, what))
    pictures = config.pictures if what == "images" else ()
    return {
        "source": source,
        "content": None if folder is None else fingerprint_folder(folder.root),
        "revision": revisions_of([], source),
        "pictures": [_file(name) for name in pictures],
        "unlabelled": config.unlabelled,
        "groups": config.groups,
        "cluster": config.cluster,
        "limit": _limit(config, what),
        "seed": config.seed,
        "bad_files": config.bad_files,
        "pixel_range": config.pixel_range,
        "crops": CROPS if source == "photos" else None,
        "processors": [all_settings(read_checkpoint(checkpoint)[1]) for checkpoint in checkpoints.values()],
    }


def _file(name: str) -> list[Any]:
    """Return a picture's name, size and time; the name alone of a missing one, which reading it refuses."""
    path = Path(name).expanduser()
    return [name, path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else [name]


def prepare_images(
    config: CompareConfig,
    what: ImagesName,
    checkpoints: Mapping[str, str],
    out: Path,
    notes: Path,
    *,
    say: Callable[[str], None],
) -> None:
    """Write the images, with labels of their own, and the lines that say which these are.

    Images that one of the models was trained on are left out of those that are compared.

    Args:
        config: settings of the comparison.
        what: which images.
        checkpoints: name -> checkpoint of every model.
        out: folder of the images.
        notes: JSON file of the lines.
        say: called with each line.
    """
    from mechvit.experiment.image_inputs import prepared_images
    from mechvit.experiment.inputs import read_checkpoint

    shown, said = what == "images", list[str]()

    def note(line: str) -> None:
        said.append(line)
        say(line)

    own: dict[str, Any] = {
        "pixel_range": config.pixel_range,
        "unlabelled": config.unlabelled,
        "groups": config.groups,
        "cluster": config.cluster,
        "pictures": config.pictures,
        "apart_from": list(checkpoints.values()),
    }
    prepared_images(
        getattr(config, what),
        "validation" if not shown and config.unrelated == "photos" else "all",
        None,
        [read_checkpoint(checkpoint)[1] for checkpoint in checkpoints.values()],
        limit=_limit(config, what),
        seed=config.seed,
        bad_files=config.bad_files,
        say=note,
        path=out,
        **(own if shown else {"unlabelled": "keep"}),
    )
    write_json(notes, said)


def _limit(config: CompareConfig, what: ImagesName) -> int | None:
    return config.limit if what == "images" else config.count("difference")


def with_labels(
    images: datasets.Dataset, checkpoints: Sequence[str], config: CompareConfig, say: Callable[[str], None]
) -> datasets.Dataset:
    """Return images with the class ids of the first checkpoint that is a classifier; without one, with their own.

    Where their classes are not that checkpoint's, their labels are not used (-1), and a line says why.
    """
    from mechvit.experiment.image_inputs import aligned
    from mechvit.experiment.inputs import read_checkpoint
    from mechvit.models.config import no_softmax

    for checkpoint in checkpoints:
        found = read_checkpoint(checkpoint)[0]
        named = found.architectures and "Classification" in found.architectures[0]
        if named and no_softmax(found.num_labels, found.problem_type) is None:
            return aligned(images, found, config.unlabelled, False, say)
    return images
