"""The plan of an activation cache: fixed before the first shard is written, and checked whenever the cache is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, PAPER_CORRUPTIONS, Condition
from mechvit.models.processors.preprocessing import unequal
from mechvit.settings_checks import COUNT, SEED, SHARE, SettingError, check, check_choice

DTYPES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
PLAN_FILE, MANIFEST_FILE = "plan.json", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Settings of an activation cache: hook points, tokens, corruptions and storage."""

    hooks: Collection[str]
    """Names of hook points with activations [batch, token, ...], each of which is stored as [row, width]."""
    tokens: str = "all"
    """The tokens to store: `all`, `patches` or `cls`."""
    corruptions: Collection[Condition | str] = PAPER_CORRUPTIONS
    """Corruptions of the images that do not stay clean, each applied equally often."""
    clean_fraction: float = 0.5
    """Share of images that stay clean."""
    seed: int = 0
    """Seed of the choice of corruptions and of their noise."""
    dtype: str = "bfloat16"
    """Type of the stored activations: bfloat16, float16 or float32."""
    batch_size: int = 64
    """Images per forward pass."""
    shard_bytes: int = 1 << 28
    """Largest size, in bytes, of one hook point's activations in a shard; a shard holds at least one batch."""
    compiled: bool = False
    """Whether to compile the forward pass (see `HookedViT.compile_cache`), which takes a minute or more before the
    first batch and pays on a GPU."""

    def __post_init__(self) -> None:
        if isinstance(self.corruptions, str):
            raise SettingError("corruptions", f"must be a tuple of corruptions; got {self.corruptions!r}")
        if isinstance(self.hooks, str) or not self.hooks or len(set(self.hooks)) < len(self.hooks):
            raise SettingError("hooks", f"must name at least one hook point, each once, as a tuple; got {self.hooks!r}")
        check_choice(self, tokens=("all", "patches", "cls"), dtype=DTYPES)
        check(self, SHARE, "clean_fraction")
        check(self, COUNT, "batch_size", "shard_bytes")
        check(self, SEED, "seed")

    @property
    def applied(self) -> tuple[Condition, ...]:
        """The corruptions, each once, without clean."""
        return tuple(c for c in dict.fromkeys(map(as_condition, self.corruptions)) if c != CLEAN)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that determines the bytes of a cache, apart from the images themselves."""

    model_name: str
    """Source of the model; alone may change when a cache is resumed, since the hash identifies the model."""
    checkpoint_hash: str
    """`checkpoint_hash` of the model."""
    hooks: dict[str, int]
    """Width of the activations at each hook point."""
    tokens: str
    """The tokens that are stored: `all`, `patches` or `cls`."""
    tokens_per_image: int
    dtype: str
    """Type of the stored activations: a key of `DTYPES`."""
    corruptions: tuple[str, ...]
    """Keys of the corruptions; an image's `corruption` is an index into them, -1 for clean."""
    clean_fraction: float
    seed: int
    """Seed of the choice of corruptions and of their noise."""
    data_fingerprint: str
    """`images_fingerprint` of the data set: a hash of all pixels as the model receives them."""
    n_images: int
    batch_size: int
    """Images per forward pass; part of the plan, since it may change the last bits of an activation."""
    images_per_shard: int
    """Images per shard, a multiple of the batch size."""
    compiled: bool = False
    """Whether the forward pass was compiled, which may change an activation's last bits."""
    processor: dict[str, Any] | None = None
    """Every setting of the model's image processor; None in a cache written before they were recorded."""
    model_dtype: str | None = None
    """Precision in which the model computed; None in a cache written before it was recorded."""
    conditions: dict[str, str] | None = None
    """Key -> `fingerprint` of each condition that its key does not determine; None without any."""

    @property
    def n_rows(self) -> int:
        """Rows of the whole cache: images x tokens per image."""
        return self.n_images * self.tokens_per_image

    @property
    def n_shards(self) -> int:
        return -(-self.n_images // self.images_per_shard)

    @property
    def rows_per_shard(self) -> int:
        """Rows of every shard except the last."""
        return self.images_per_shard * self.tokens_per_image

    @property
    def digest(self) -> str:
        """A short hash of the plan, stored in every shard, which shows to which cache a shard belongs."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def shard(self, index: int) -> str:
        """Return the name of a shard's folder."""
        return f"shard-{index:05d}"

    def images_of(self, index: int) -> range:
        """Return the indices in the data set of a shard's images."""
        first = index * self.images_per_shard
        return range(first, min(first + self.images_per_shard, self.n_images))

    def rows_of(self, index: int) -> int:
        """Return the number of rows of a shard."""
        return len(self.images_of(index)) * self.tokens_per_image

    def bytes_of(self, index: int) -> int:
        """Return the bytes of a shard's activations at all hook points together."""
        return self.rows_of(index) * sum(self.hooks.values()) * DTYPES[self.dtype].itemsize

    def to_json(self) -> dict[str, Any]:
        found = asdict(self) | {"corruptions": list(self.corruptions)}
        for name in ("processor", "model_dtype", "conditions"):
            if found[name] is None:  # absent from older plans, whose digests were computed without it
                del found[name]
        return found

    @classmethod
    def read(cls, path: Path, key: str | None = None) -> Plan:
        """Read a plan from its own file, or from the entry `key` of a manifest.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            found = json.loads(path.read_text())
            found = found if key is None else found[key]
            return cls(**found | {"corruptions": tuple(found["corruptions"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} must be written by cache_activations: {error!r}. Cache anew.") from error

    def check_same(self, other: Plan, where: Path) -> None:
        """Refuse to continue a cache that was begun with another plan.

        Raises:
            ValueError: the plans differ; names every setting that differs, with both values.
        """
        if other.processor is None and self.processor is not None:
            raise ValueError(
                f"{where} was begun by a version that kept neither the image processor's settings nor the hash of all "
                "pixels, so that it is not known to go on with the same images. Use another folder, or overwrite to "
                "start anew"
            )
        now, was = self.to_json(), other.to_json()
        settings = unequal(was.pop("processor", None) or {}, now.pop("processor", None) or {})
        differ = [
            f"{name} was {was.get(name)!r} and is now {now[name]!r}"
            for name in now
            if name != "model_name" and json.dumps(now[name]) != json.dumps(was.get(name))  # the order of hooks counts
        ]
        differ += [f"the processor's {name} was {old!r} and is now {new!r}" for name, (old, new) in settings.items()]
        if differ:
            raise ValueError(
                f"{where} was begun with other settings: {'; '.join(differ)}. Use the same, another folder, or "
                "overwrite to start anew"
            )
