"""Reading of an activation cache: checked when it is opened, then read in order or shuffled."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.arguments import checked
from mechvit.files import Lock, is_litter, read_marker
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.models.checkpoints.stored_files import open_tensors, read_object
from mechvit.models.processors.preprocessing import changed_since, described
from mechvit.terminal import progress_bar

from .manifest import MANIFEST_FILE, PLAN_FILE, Plan
from .shards import ACTIVATIONS, IMAGES, check_bytes, check_shard, file_name
from .shuffled_epoch import ShuffledEpoch, ShuffleOptions

if TYPE_CHECKING:
    from mechvit.models import HookedViT


class CachedActivations:
    """A finished activation cache; opening it checks the names, sizes, shapes and types of all shards.

    A row is one token of one image; rows are ordered by image, then by token.

    Args:
        folder: the folder of the cache.
        verify: whether to read all data and compare checksums (see the method `verify`).

    Attributes:
        plan: the model, hook points, tokens, corruptions and counts.

    Raises:
        ValueError: the cache is unfinished or being written, or a shard (named) is missing, truncated, damaged, of
            another shape or type, or of another cache.
    """

    @checked
    def __init__(self, folder: str | os.PathLike[str], *, verify: bool = False) -> None:
        self.folder = Path(folder)
        self._lock = Lock(self.folder.resolve(), shared=True)
        if not (self.folder / MANIFEST_FILE).is_file():
            raise ValueError(
                f"{folder} is an unfinished cache of activations: run the same command again, and it goes on"
                if (self.folder / PLAN_FILE).is_file()
                else f"{folder} is no cache of activations (it has no {MANIFEST_FILE}); make one with cache_activations"
            )
        self.plan = Plan.read(self.folder / MANIFEST_FILE, "plan")
        names = {self.plan.shard(index) for index in range(self.plan.n_shards)}
        found = {path.name for path in self.folder.iterdir() if not is_litter(path.name)}
        if foreign := found - names - {MANIFEST_FILE, PLAN_FILE}:
            raise ValueError(f"{folder} holds foreign files or shards: {', '.join(sorted(foreign))}. Remove them")
        for index in range(self.plan.n_shards):
            check_shard(self.folder, self.plan, index)
        if verify:
            self.verify()

    def close(self) -> None:
        """Release the cache, which cannot be written while it is open; any number may read it at once."""
        self._lock.release()

    @property
    def widths(self) -> dict[str, int]:
        """Width of the activations at each hook point."""
        return dict(self.plan.hooks)

    @property
    def n_rows(self) -> int:
        return self.plan.n_rows

    @property
    def revisions(self) -> dict[str, Any]:
        """Commits on the Hub: `model_revision`, and `image_revisions` (data set -> commit); absent for local ones."""
        about = read_object(self.folder / MANIFEST_FILE)
        return {name: about[name] for name in ("model_revision", "image_revisions") if about.get(name)}

    def verify(self, progress: str | None = None, *, changed_only: bool = False) -> None:
        """Compare the SHA-256 of every file with the one in the manifest.

        Args:
            progress: label of the progress bar; None shows none.
            changed_only: read only the files whose size or modification time differs from when the cache was written
                (every file of a copy that did not preserve times).

        Raises:
            ValueError: a file differs; names the first.
        """
        shards = read_object(self.folder / MANIFEST_FILE, ("shards",))["shards"]
        marker = read_marker(self.folder)
        was = {} if marker is None or not changed_only else marker.files
        for index, shard in enumerate(progress_bar(shards, progress, unit="shard")):
            name, sums = self.plan.shard(index), shard["sha256"]
            for file, expected in sums.items():
                about = (self.folder / name / file).stat()
                if was.get(f"{name}/{file}", [])[:2] != [about.st_size, about.st_mtime_ns]:
                    check_bytes(self.folder / name, {file: expected})

    def check_model(self, model: HookedViT, *, allow_other_model: bool = False) -> None:
        """Refuse a model that did not produce these activations.

        Raises:
            ValueError: the hash of the model's weights or a setting of its image processor (named) differs; a cache
                written before the settings were recorded is compared by hash alone.
        """
        found = checkpoint_hash(model)
        if found != self.plan.checkpoint_hash and not allow_other_model:
            raise ValueError(
                f"{self.folder} holds activations of another model ({self.plan.model_name}, checkpoint hash "
                f"{self.plan.checkpoint_hash[:12]}) than this one ({found[:12]}): give that model"
            )
        differ = changed_since(self.plan.processor, model.image_processor)
        if differ and not allow_other_model:
            raise ValueError(
                f"{self.folder} holds activations of other pixels than this model's image processor makes: "
                f"{described(differ)} (the cache's, and the model's): give that processor"
            )

    def images(self) -> dict[str, Int[Tensor, " image"]]:
        """Return every image's `image_id`, `label` and `corruption` (an index into `plan.corruptions`; -1 is clean)."""
        columns: dict[str, list[Tensor]] = {"image_id": [], "label": [], "corruption": []}
        for index in range(self.plan.n_shards):
            with open_tensors(self.path(index, IMAGES)) as file:
                for name, parts in columns.items():
                    parts.append(file.get_tensor(name))
        return {name: torch.cat(parts) for name, parts in columns.items()}

    def path(self, index: int, name: str) -> Path:
        """Return the path of a shard's file for a hook point (or for the images)."""
        return self.folder / self.plan.shard(index) / file_name(name)

    def chosen(self, hooks: Collection[str] | None) -> tuple[str, ...]:
        """Return the given hook points, or all when None or empty.

        Raises:
            ValueError: the cache lacks one of them, or a single string was given.
        """
        if isinstance(hooks, str) or (unknown := set(hooks or ()) - self.plan.hooks.keys()):
            given = hooks if isinstance(hooks, str) else sorted(unknown)
            raise ValueError(f"hooks must be a tuple of some of {', '.join(self.plan.hooks)}; got {given!r}")
        return tuple(hooks or self.plan.hooks)

    def in_order(
        self,
        batch_size: int,
        *,
        n_rows: int | None = None,
        hooks: Collection[str] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Iterator[Float[Tensor, "batch columns"]]:
        """Yield the rows in order, hook points concatenated along the columns; the last batch may be smaller.

        Args:
            batch_size: rows per batch.
            n_rows: number of rows to read from the start; all when None.
            hooks: the hook points to read; all when None.
            dtype, device: type and device of the batches.
        """
        chosen, end = self.chosen(hooks), self.n_rows if n_rows is None else min(n_rows, self.n_rows)
        for first in range(0, end, batch_size):
            last = min(first + batch_size, end)
            columns = [self._rows(hook, first, last).to(device).to(dtype) for hook in chosen]
            yield torch.cat(columns, dim=1)

    def _rows(self, hook: str, first: int, last: int) -> Float[Tensor, "row width"]:
        """Return rows first to last - 1 of one hook point, as stored."""
        size, parts = self.plan.rows_per_shard, []
        for index in range(first // size, -(-last // size)):
            with open_tensors(self.path(index, hook)) as file:
                rows = file.get_slice(ACTIVATIONS)
                parts.append(rows[max(first - index * size, 0) : last - index * size])
        return torch.cat(parts)

    def epoch(self, number: int, options: ShuffleOptions) -> ShuffledEpoch:
        """Return an iterable over all rows once, shuffled, in full batches."""
        return ShuffledEpoch(self, number, options)
