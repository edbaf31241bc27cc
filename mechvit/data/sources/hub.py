"""Image data sets from the Hugging Face hub (or a local folder of Parquet files in the hub's layout)."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mechvit.data.image_origin import with_origin
from mechvit.models.checkpoints.revisions import hub_revision
from mechvit.terminal import printable

from .folder_source import check_place
from .label_columns import NoLabels, as_classes, is_class_column

if TYPE_CHECKING:
    import datasets

_MOST_ENTRIES = 20_000
"""Most entries that are examined before a folder counts as one of images."""
_PREFERRED_SPLITS = ("validation", "valid", "val", "test", "train")


def load_hub(source: str, *, needs_labels: bool = True) -> tuple[datasets.Dataset, str]:
    """Load one split of a hub data set, undecoded, with the columns image, label, image_id and file; and its name.

    Everything that a process loads of it is from one commit (`hub_revision`).

    Only the files of that split are downloaded: for ImageNet the 50,000 validation images, not the training set.

    Args:
        source: `owner/name`, `owner/name@split`, `owner/name:config` or `owner/name:config@split`; by default the first
            of validation, test and train that it has. Where there are several columns of images or classes, name one,
            as in `owner/name:image=COLUMN:label=COLUMN`; a column of text or whole numbers is taken as classes only
            where it is named.
        needs_labels: whether a set without a column of classes is refused; else its images have the label -1.

    Raises:
        PermissionError: the set is gated or private.
        ConnectionError: the hub cannot be reached.
        ValueError: no such set, config, split or column, several configs and none of them named, no column of images
            or classes, or several and none of them named.
    """
    import datasets
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    hub = HubSet.parse(source)
    name, split = hub.name, hub.split
    if Path(name).exists() and not Path(name).is_dir() and not name.endswith(".py"):
        raise ValueError(
            f"{printable(name)} is a file: images are photos, a folder with a sub-folder for each class (folder:DIR), "
            "or a hub data set's id"
        )
    if Path(name).is_dir() and not _has_parquet(Path(name)):
        raise ValueError(f"{printable(name)} is a folder: write folder:{printable(name)} to load a folder of images")
    revision = hub_revision(name, "dataset")
    pinned: dict[str, Any] = {} if revision is None else {"revision": revision}
    try:
        builder = _builder(hub, pinned)
        files = builder.config.data_files or {}
        split = split or next((s for s in _PREFERRED_SPLITS if s in files), "")
        if split not in files:
            raise ValueError(
                f"{hub.with_config} has the splits {printable(', '.join(map(str, files)) or 'none')}; got {split!r}: "
                f"write {hub.with_config}@SPLIT"
            )
        named = {"name": hub.config} if hub.config else {}
        rows = datasets.load_dataset(name, data_files={split: list(files[split])}, split=split, **named, **pinned)
    except DataFilesNotFoundError as error:
        raise ValueError(f"{name} holds no data files that datasets can read: {error}") from error
    except DatasetNotFoundError as error:
        raise _not_found(name, error) from error
    except RuntimeError as error:
        if "scripts" not in str(error):
            raise
        raise ValueError(f"{name} brings a script, which is never run ({error}): give Parquet files") from error
    except (ConnectionError, OSError) as error:
        raise ConnectionError(
            f"the data set {name} could not be loaded from the hub ({type(error).__name__}: {error}). Check the "
            "network; offline, use photos (embedded) or folder:PATH"
        ) from error
    return with_origin(_tidy(rows, hub, needs_labels), f"{hub.with_config}@{split}", revision), split


def _builder(hub: HubSet, pinned: Mapping[str, Any]) -> datasets.DatasetBuilder:
    """Return the builder of a set's config.

    Raises:
        ValueError: several configs and none of them named, or no such config; names those that exist.
    """
    import datasets

    named = {"name": hub.config} if hub.config else {}
    try:
        return datasets.load_dataset_builder(hub.name, **named, **pinned)
    except ValueError as error:
        configs = datasets.get_dataset_config_names(hub.name, **pinned)
        if hub.config in configs or (not hub.config and len(configs) < 2):
            raise
        got = f"got {hub.config!r}" if hub.config else "none is named"
        raise ValueError(
            f"{hub.name} has the configs {printable(', '.join(configs))}; {got}: write {hub.name}:CONFIG"
            f"{f'@{hub.split}' if hub.split else ''}"
        ) from error


def _has_parquet(folder: Path) -> bool:
    """Return whether a folder is a data set in the hub's layout, by its first entries, from the top down."""
    check_place(folder)
    places, seen = deque([folder]), 0
    while places and seen < _MOST_ENTRIES:
        try:
            entries = list(os.scandir(places.popleft()))
        except OSError:
            continue
        seen += len(entries)
        if any(entry.name.endswith(".parquet") for entry in entries):
            return True
        places += (Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    return False


def _not_found(name: str, error: Exception) -> Exception:
    """Return the error for a gated, private, misspelt or unreachable set, which `datasets` does not distinguish."""
    if "gated" in str(error).lower():
        return PermissionError(
            f"{name} is gated: accept its terms at https://huggingface.co/datasets/{name}, then log in with "
            "`hf auth login` (or set HF_TOKEN) and run again; or use images of your own with folder:PATH"
        )
    return ConnectionError(
        f"{name} was not found on the hub, or the hub could not be reached ({error}). Check the name and the network; "
        "a private set needs `hf auth login`. Other sources: photos (embedded), folder:PATH"
    )


@dataclass(frozen=True)
class HubSet:
    """Hub data set as written on a command line: NAME[:CONFIG][@SPLIT][:image=COLUMN][:label=COLUMN]."""

    name: str
    split: str = ""
    image: str | None = None
    label: str | None = None
    written: str = ""
    """The source as it was given."""
    config: str = ""

    @property
    def with_config(self) -> str:
        """The set's name with its config."""
        return f"{self.name}:{self.config}" if self.config else self.name

    @classmethod
    def parse(cls, source: str) -> HubSet:
        """Parse a source.

        Raises:
            ValueError: an option other than image and label, a repeated one, or an empty one.
        """
        where, *options = re.split(r":(?=\w+=)", source)
        name, _, split = (where, "", "") if Path(where).exists() else where.partition("@")
        name, _, config = (name, "", "") if Path(name).exists() else name.partition(":")
        columns = dict(option.split("=", 1) for option in options)
        if len(columns) < len(options) or set(columns) - {"image", "label"} or not all(columns.values()):
            raise ValueError(
                f"a hub set's columns are named once each, as in {where}:image=COLUMN:label=COLUMN; got {source!r}"
            )
        return cls(name, split, columns.get("image"), columns.get("label"), source, config)


def _tidy(rows: datasets.Dataset, hub: HubSet, needs_labels: bool) -> datasets.Dataset:
    """Return the image and class columns under their common names, an id for each row, and nothing else."""
    import datasets

    kinds = {column: isinstance(feature, datasets.Image) for column, feature in rows.features.items()}
    image = _column(rows, hub, "image", [column for column, is_image in kinds.items() if is_image])
    if not kinds[image]:
        raise ValueError(f"the column {image!r} of {hub.name} holds no images; {_columns(rows)}")
    classes = [c for c, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    if not classes and hub.label is None and not needs_labels:
        rows = rows.select_columns([image])
        rows = rows.add_column("no label", [-1] * len(rows), feature=datasets.ClassLabel(names=[]))
        classes = ["no label"]
    label = _column(rows, hub, "label", classes)
    rows = rows.select_columns([image, label]).rename_columns({image: "image", label: "label"})
    rows = as_classes(rows, "label")
    rows = rows.add_column("image_id", list(range(len(rows))))
    rows = rows.add_column("file", [f"{hub.name} row {i}" for i in range(len(rows))])
    return rows.cast_column("image", datasets.Image(decode=False))


def _column(rows: datasets.Dataset, hub: HubSet, role: Literal["image", "label"], fitting: list[str]) -> str:
    """Return the named column, or the only one that fits.

    Raises:
        ValueError: no such column, none that fits, or several.
    """
    kind = {"image": "an Image column", "label": "a ClassLabel column"}[role]
    named = {"image": hub.image, "label": hub.label}[role]
    if named is not None:
        if named not in rows.features:
            raise ValueError(f"{hub.name} has no column {named!r}; {_columns(rows)}")
        return named
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(
            f"{hub.name} has {len(fitting)} columns that can be the {role}, {printable(' and '.join(fitting))}: name "
            f"one, as in {hub.written}:{role}={printable(fitting[0])}"
        )
    can_be = [c for c, feature in rows.features.items() if role == "label" and is_class_column(feature)]
    advice = (
        f": name the column that holds the classes, as in {hub.written}:label={printable(can_be[0])}" if can_be else ""
    )
    error = NoLabels if role == "label" else ValueError
    raise error(f"{hub.name} must have {kind}; {_columns(rows)}{advice}")


def _columns(rows: datasets.Dataset) -> str:
    columns = (f"{column}: {type(feature).__name__}" for column, feature in rows.features.items())
    return f"its columns are {printable(', '.join(columns))}"
