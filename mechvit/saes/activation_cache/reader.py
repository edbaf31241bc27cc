"""A cache of activations, opened: checked before anything is read, then read in order or shuffled."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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
    """What `cache_activations` wrote; opening it checks names, sizes, shapes and types of all shards.

    A row is one token of one image; rows lie in the order of the images, and of the tokens in each.

    Args:
        folder: the cache.
        verify: also read everything and compare checksums (see `verify`).

    Attributes:
        plan: model, hook points, tokens, corruptions, counts.

    Raises:
        ValueError: a cache that is being written or unfinished, or a shard that is missing, truncated, wrong, damaged
            or foreign: its name.
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
        """Let the cache be written again; it is held against writers, not against other readers, until then."""
        self._lock.release()

    @property
    def widths(self) -> dict[str, int]:
        """Hook point -> width."""
        return dict(self.plan.hooks)

    @property
    def n_rows(self) -> int:
        return self.plan.n_rows

    def verify(self, progress: str | None = None, *, changed_only: bool = False) -> None:
        """Read every file and compare its SHA-256 with the manifest's.

        Args:
            progress: the label of a progress bar; None shows none.
            changed_only: only the files whose size or time of change is another than when the cache was written (all
                of a copy that did not keep the times).

        Raises:
            ValueError: names the first file that differs.
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
        """Refuse a model that these are not the activations of.

        Raises:
            ValueError: the model's weights have another hash, or its image processor other settings (named; a cache
                from before they were kept has none).
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
        """`image_id`, `label` and `corruption` (an index into `plan.corruptions`; -1 is clean) of every image."""
        columns: dict[str, list[Tensor]] = {"image_id": [], "label": [], "corruption": []}
        for index in range(self.plan.n_shards):
            with open_tensors(self.path(index, IMAGES)) as file:
                for name, parts in columns.items():
                    parts.append(file.get_tensor(name))
        return {name: torch.cat(parts) for name, parts in columns.items()}

    def path(self, index: int, name: str) -> Path:
        """The file of a hook point (or of the images) in a shard."""
        return self.folder / self.plan.shard(index) / file_name(name)

    def chosen(self, hooks: Collection[str] | None) -> tuple[str, ...]:
        """The given hook points, or all.

        Raises:
            ValueError: one that the cache lacks.
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
        """The rows in their order, hook points side by side; the last batch may be smaller.

        Args:
            batch_size: rows a batch.
            n_rows: only so many, from the first on.
            hooks: which hook points; all when None.
            dtype, device: of the batches.
        """
        chosen, end = self.chosen(hooks), self.n_rows if n_rows is None else min(n_rows, self.n_rows)
        for first in range(0, end, batch_size):
            last = min(first + batch_size, end)
            columns = [self._rows(hook, first, last).to(device).to(dtype) for hook in chosen]
            yield torch.cat(columns, dim=1)

    def _rows(self, hook: str, first: int, last: int) -> Float[Tensor, "row width"]:
        """Rows first..last-1 of one hook point, as stored."""
        size, parts = self.plan.rows_per_shard, []
        for index in range(first // size, -(-last // size)):
            with open_tensors(self.path(index, hook)) as file:
                rows = file.get_slice(ACTIVATIONS)
                parts.append(rows[max(first - index * size, 0) : last - index * size])
        return torch.cat(parts)

    def epoch(self, number: int, options: ShuffleOptions) -> ShuffledEpoch:
        """All rows once, shuffled, in full batches."""
        return ShuffledEpoch(self, number, options)
