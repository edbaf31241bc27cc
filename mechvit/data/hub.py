"""Image data sets from the Hugging Face hub (or a local folder of Parquet files in the hub's layout)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datasets

_PREFERRED_SPLITS = ("validation", "valid", "val", "test", "train")


def load_hub(source: str) -> datasets.Dataset:
    """Load one split of a hub data set, undecoded, with the columns image, label, image_id and file.

    Only the files of that split are downloaded: of ImageNet the 50,000 validation images, and not the training set.

    Args:
        source: `owner/name`, or `owner/name@split`; by default the first of validation, test and train it has.

    Raises:
        PermissionError: the set is gated or private.
        ConnectionError: the hub cannot be reached.
        ValueError: no such set or split, or no image or label column.
    """
    import datasets
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    name, _, split = source.partition("@")
    if Path(name).is_dir() and not any(Path(name).rglob("*.parquet")):
        raise ValueError(f"{name} is a folder: write folder:{name} to load a folder of images")
    try:
        builder = datasets.load_dataset_builder(name)
        files = builder.config.data_files or {}
        split = split or next((s for s in _PREFERRED_SPLITS if s in files), "")
        if split not in files:
            raise ValueError(
                f"{name} has the splits {', '.join(map(str, files)) or 'none'}; got {split!r}: write {name}@SPLIT"
            )
        rows = datasets.load_dataset(name, data_files={split: list(files[split])}, split=split)
    except DataFilesNotFoundError as error:
        raise ValueError(f"{name} holds no data files that datasets can read: {error}") from error
    except DatasetNotFoundError as error:
        raise _not_found(name, error) from error
    except (ConnectionError, OSError) as error:
        raise ConnectionError(
            f"the data set {name} could not be loaded from the hub ({type(error).__name__}: {error}). Check the "
            "network; offline, use photos (embedded) or folder:PATH"
        ) from error
    return _tidy(rows, name)


def _not_found(name: str, error: Exception) -> Exception:
    """The error for a set that is gated, private, misspelt or out of reach, which `datasets` reports as one kind."""
    if "gated" in str(error).lower():
        return PermissionError(
            f"{name} is gated: accept its terms at https://huggingface.co/datasets/{name}, then log in with "
            "`hf auth login` (or set HF_TOKEN) and run again; or use images of your own with folder:PATH"
        )
    return ConnectionError(
        f"{name} was not found on the hub, or the hub could not be reached ({error}). Check the name and the network; "
        "a private set needs `hf auth login`. Other sources: photos (embedded), folder:PATH"
    )


def _tidy(rows: datasets.Dataset, name: str) -> datasets.Dataset:
    """The image and class columns under their common names, an id for each row, and nothing else."""
    import datasets

    image = next((c for c, feature in rows.features.items() if isinstance(feature, datasets.Image)), None)
    label = next((c for c, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)), None)
    if image is None or label is None:
        raise ValueError(
            f"{name} must have an Image column and a ClassLabel column; its columns are "
            f"{', '.join(f'{c}: {type(f).__name__}' for c, f in rows.features.items())}"
        )
    rows = rows.select_columns([image, label]).rename_columns({image: "image", label: "label"})
    rows = rows.add_column("image_id", list(range(len(rows))))
    rows = rows.add_column("file", [f"{name} row {i}" for i in range(len(rows))])
    return rows.cast_column("image", datasets.Image(decode=False))
