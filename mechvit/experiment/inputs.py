"""Inputs of commands and runs: models, images and corruptions by name."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mechvit.data.conditions import PAIRED, bound, condition_record, parse_condition
from mechvit.data.corruption_spec import CLEAN, Condition, Corruption
from mechvit.data.sources.folder_source import FolderSource
from mechvit.files import Lock, new_folder, write_json
from mechvit.settings_checks import SettingError

from .device_checks import check_device as check_device
from .image_inputs import prepared_images as prepared_images

if TYPE_CHECKING:
    from mechvit.models import HookedViT

Config = TypeVar("Config")
ModelDtype = Literal["float32", "bfloat16", "float16", "float64"]
"""Precision in which models compute."""


def local_inputs(*names: str | os.PathLike[str] | None) -> list[Path]:
    """Return the files and folders that a command reads, which its output must not overlap; Hub ids are left out.

    Args:
        names: models, SAEs, caches, pictures, `--images` (`photos`, `folder:PATH` or a Hub id), and `paired:FOLDER`.
    """
    given = [os.fspath(name).removeprefix(PAIRED) for name in names if name is not None and name != "photos"]
    folders = [(FolderSource.parse(name), name) for name in given]
    paths = [Path(name).expanduser() if folder is None else folder.root for folder, name in folders]
    return [path for path in paths if path.exists()]


def read_files(options: Any) -> list[str]:
    """Return the pictures and the table of groups that a command's options name."""
    tables = [getattr(options, name, None) for name in ("groups", "cluster")]
    return [*map(str, getattr(options, "pictures", None) or ()), *(name for name in tables if name is not None)]


@contextmanager
def result_folder(options: Any, kind: str, *inputs: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Yield a folder to write into, which becomes `options.out` when the block ends; see `mechvit.files.new_folder`.

    The command's settings, the versions and the commits of Hub ids are recorded in its `provenance.json`.

    Args:
        options: the command's options, with out, overwrite and images.
        kind: kind of the result.
        inputs: models and SAEs that are read, besides the images.
    """
    from mechvit.experiment.runs.provenance import provenance_of_command

    named = [getattr(options, name, None) or () for name in ("corruption", "corruptions", "giver_corruption")]
    conditions = [key for keys in named for key in ([keys] if isinstance(keys, str) else keys)]
    paired = (key for key in conditions if key.startswith(PAIRED))
    read = local_inputs(options.images, *read_files(options), *inputs, *paired)
    with new_folder(options.out, kind, overwrite=options.overwrite, inputs=read, flag="--overwrite") as folder:
        yield folder
        about = provenance_of_command(options, kind, inputs)
        write_json(folder / "provenance.json", about | condition_record(conditions))


@contextmanager
def result_pages(options: Any, pages: Collection[Path], *inputs: str | os.PathLike[str] | None) -> Iterator[None]:
    """Lock the pages that a command writes, after checking that they may be written.

    Args:
        options: the command's options, with overwrite and images.
        pages: paths of the pages, as the user named them.
        inputs: files and folders that are read; no page may be one of them or lie in one.

    Raises:
        ValueError: a page's name is empty or a folder's, or there is an input, a file that is not a page of this
            package, or an earlier page without `--overwrite`.
    """
    from mechvit.visualization.html_page.page import check_page

    read = local_inputs(getattr(options, "images", None), *read_files(options), *inputs)
    read = [path.resolve() for path in read]
    with ExitStack() as held:
        for page in pages:
            place = check_page(page).resolve()
            if clash := next((path for path in read if path == place or path in place.parents), None):
                raise ValueError(f"the page {page} must lie apart from the input {clash}: give another --out")
            if place.exists() and not options.overwrite:
                raise ValueError(f"{page} exists: give another --out, or --overwrite to replace an earlier page")
            held.enter_context(Lock(place))
        yield


def corruptions_named(keys: Collection[str], models: Mapping[str, str] | None = None) -> tuple[Condition, ...]:
    """Parse conditions such as `gaussian_blur_4`, each once.

    Args:
        keys: conditions as command lines write them.
        models: name -> checkpoint of all models, the base first; an attack then knows its model, whichever of them is
            loaded (`bound`).

    Raises:
        ValueError: a condition is unknown, or there is none; an attack that does not say which of several models it
            attacks.
    """
    if not keys:
        raise ValueError("--corruptions must name at least one, as in gaussian_blur_4")
    found = tuple(dict.fromkeys(map(parse_condition, keys)))
    return found if models is None or len(models) < 2 else tuple(bound(condition, models) for condition in found)


def corrupted_named(keys: Collection[str], models: Mapping[str, str] | None = None) -> tuple[Condition, ...]:
    """Parse corruptions as `corruptions_named` does, without the clean images, which the command always measures.

    Raises:
        ValueError: as in `corruptions_named`, or there is no other.
    """
    found = tuple(corruption for corruption in corruptions_named(keys, models) if corruption != CLEAN)
    if not found:
        raise SettingError("corruptions", "must name one besides clean, which is always measured")
    return found


def names_of(paths: Collection[str]) -> dict[str, str]:
    """Name each folder (or Hub id) by its last part, or by all of it if several share their last part.

    Raises:
        ValueError: there is no path, or one is repeated.
    """
    if not paths or len(set(paths)) < len(paths):
        raise ValueError(f"give at least one folder or hub id, and each once; got {', '.join(paths) or 'none'}")
    last = [Path(path).resolve().name for path in paths]
    return {name if last.count(name) == 1 else path: path for name, path in zip(last, paths, strict=True)}


def sae_folders(given: tuple[str, ...]) -> dict[str, str]:
    """Name every SAE in the given folders, their sub-folders, and the sub-folders of these.

    The name is the folder's or, if several folders have equal names, the path below their common folder.

    Raises:
        ValueError: a folder holds no SAE.
    """
    found: list[str] = []
    for folder in map(Path, given):
        places = [folder / "cfg.json", *sorted([*folder.glob("*/cfg.json"), *folder.glob("*/*/cfg.json")])]
        own = [path.parent for path in places if path.is_file()]
        if not own:
            raise ValueError(f"{folder} holds no SAE: neither it nor a folder in it has a cfg.json")
        found += map(str, own)
    names = names_of(found)
    if all(Path(path).resolve().name == name for name, path in names.items()):
        return names
    places = [Path(path).resolve() for path in found]
    shared = os.path.commonpath(places)
    return {place.relative_to(shared).as_posix(): path for place, path in zip(places, found, strict=True)}


def load_classifier(checkpoint: str, device: str | None, dtype: ModelDtype = "float32") -> HookedViT:
    """Load a softmax classifier.

    Raises:
        ValueError: there is no such checkpoint or device, the checkpoint is of another kind, or it has no head, no
            softmax classifier or no image processor.
    """
    model = load_model(checkpoint, device, dtype)
    if model.head is None:
        raise ValueError(
            f"{checkpoint} has no classification head; give a classifier, such as a ViTForImageClassification, or "
            "compare it with `mechvit compare`, which takes bare encoders"
        )
    if model.cfg.no_softmax is not None:
        raise ValueError(
            f"{checkpoint} is no softmax classifier, which accuracy, calibration and lenses need: "
            f"{model.cfg.no_softmax}"
        )
    return model


def load_model(checkpoint: str, device: str | None, dtype: ModelDtype = "float32") -> HookedViT:
    """Load a model, with or without a head, and its image processor, in one dtype whatever its checkpoint's is.

    Raises:
        ValueError: there is no such checkpoint or device, or the checkpoint is of another kind or has no image
            processor.
    """
    import torch

    from mechvit.models import HookedViT

    check_device(device)
    model = HookedViT.from_pretrained(checkpoint, device=device, dtype=getattr(torch, dtype))
    if model.image_processor is None:
        raise ValueError(f"{checkpoint} has no image processor (preprocessor_config.json); save one beside the model")
    return model


def read_checkpoint(checkpoint: str) -> tuple[Any, Any]:
    """Read a checkpoint's Hugging Face config and image processor, and check that its files hold the config's weights.

    Raises:
        ValueError: either cannot be read; names the checkpoint.
    """
    from mechvit.models.checkpoints.loading import read_checked_config
    from mechvit.models.processors.image_processor import read_image_processor

    hf_config, processor = read_checked_config(checkpoint), read_image_processor(checkpoint)
    if processor is None:
        raise ValueError(f"{checkpoint} has no image processor (preprocessor_config.json); save one beside the model")
    return hf_config, processor


def check_corruptions(corruptions: Iterable[Condition], size: int) -> None:
    """Refuse a corruption that does not work on images of `size` pixels per side, by trying each on one image.

    Raises:
        ValueError: the images are too small; names the corruption.
    """
    import torch

    from mechvit.data import corrupt

    for corruption in dict.fromkeys(corruptions):
        if isinstance(corruption, Corruption):
            corrupt(torch.full((1, 3, size, size), 0.5), corruption, torch.tensor([0]))


def check_halves(images: Sized) -> None:
    """Raise a ValueError unless there are at least two images, to choose on and to report on."""
    if len(images) < 2:
        raise SettingError("limit", f"must leave at least 2 images, to choose on and to report on; got {len(images)}")
