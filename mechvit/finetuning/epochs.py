"""Data set rows that carry their epoch, for training that changes from epoch to epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset
from transformers import TrainerCallback

if TYPE_CHECKING:
    import datasets


class EpochRows(Dataset[dict[str, Any]]):
    """Rows of a data set, each with the number of the epoch in which it is read (`epoch`, from 0)."""

    def __init__(self, images: datasets.Dataset) -> None:
        self.images, self.epoch = images, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.images[index], "epoch": self.epoch}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows of a batch, as torch's loaders request them."""
        return [{**row, "epoch": self.epoch} for row in self.images.__getitems__(list(indices))]


class CountEpochs(TrainerCallback):
    """Callback that sets the rows' epoch before its first batch is read.

    `accelerate` calls a data set's `set_epoch` on one process only, and the rows are read in the trainer's own process.
    """

    def __init__(self, rows: EpochRows) -> None:
        self.rows = rows

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rows.epoch = round(state.epoch or 0)
