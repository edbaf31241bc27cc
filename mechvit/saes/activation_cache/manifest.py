"""What a cache of activations holds: settled before the first shard is written, and checked against ever after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mechvit.data.corruption_spec import CLEAN, PAPER_CORRUPTIONS, Corruption, as_corruption
from mechvit.models.processors.preprocessing import unequal
from mechvit.settings_checks import COUNT, SEED, SHARE, SettingError, check, check_choice

DTYPES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
PLAN_FILE, MANIFEST_FILE = "plan.json", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What is cached of the images that a model sees."""

    hooks: Collection[str]
    """Names of hook points whose activations are [batch, token, ...], all of which are kept as [row, width]."""
    tokens: str = "all"
    """`all`, `patches` or `cls`."""
    corruptions: Collection[Corruption | str] = PAPER_CORRUPTIONS
    """What the images that do not stay clean get, each equally often."""
    clean_fraction: float = 0.5
    """Share of images that stay clean."""
    seed: int = 0
    """Of the corruptions."""
    dtype: str = "bfloat16"
    """Of the stored activations: bfloat16, float16 or float32."""
    batch_size: int = 64
    """Images a forward pass."""
    shard_bytes: int = 1 << 28
    """Of one hook point's activations in a shard, at most; a shard has one batch at least."""
    compiled: bool = False
    """Compile the forward pass (see `HookedViT.compile_cache`): it takes a minute or more before the first batch, and
    pays on a GPU."""

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
    def applied(self) -> tuple[Corruption, ...]:
        """The corruptions, each once, without clean."""
        return tuple(c for c in dict.fromkeys(map(as_corruption, self.corruptions)) if c != CLEAN)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that the bytes of a cache follow from, apart from the images themselves."""

    model_name: str
    """Where the model came from; the only field that a restart may change, since the hash tells the model."""
    checkpoint_hash: str
    """`checkpoint_hash` of the model."""
    hooks: dict[str, int]
    """Hook point -> width of its activations."""
    tokens: str
    """`all`, `patches` or `cls`."""
    tokens_per_image: int
    dtype: str
    """Of the stored activations: a key of `DTYPES`."""
    corruptions: tuple[str, ...]
    """Keys of what images that do not stay clean get. An image's `corruption` is an index into them; -1 is clean."""
    clean_fraction: float
    seed: int
    """Of the draw of corruptions and of their noise."""
    data_fingerprint: str
    """`images_fingerprint` of the data set: of all its pixels, as the model is shown them."""
    n_images: int
    batch_size: int
    """Images a forward pass; it may change an activation's last bits, so it belongs to the plan."""
    images_per_shard: int
    """A whole number of batches."""
    compiled: bool = False
    """Whether the forward pass was compiled, which may change an activation's last bits."""
    processor: dict[str, Any] | None = None
    """Every setting of the model's image processor; None in a cache from before they were kept."""
    model_dtype: str | None = None
    """In what precision the model computed; None in a cache from before it was kept."""

    @property
    def n_rows(self) -> int:
        """Rows of the whole cache: images x tokens."""
        return self.n_images * self.tokens_per_image

    @property
    def n_shards(self) -> int:
        return -(-self.n_images // self.images_per_shard)

    @property
    def rows_per_shard(self) -> int:
        """Rows of every shard but the last."""
        return self.images_per_shard * self.tokens_per_image

    @property
    def digest(self) -> str:
        """A short hash of the plan, which every shard carries, so that a shard of another cache is told apart."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def shard(self, index: int) -> str:
        """The name of a shard's folder."""
        return f"shard-{index:05d}"

    def images_of(self, index: int) -> range:
        """The images of a shard, by their place in the data set."""
        first = index * self.images_per_shard
        return range(first, min(first + self.images_per_shard, self.n_images))

    def rows_of(self, index: int) -> int:
        """The number of rows of a shard."""
        return len(self.images_of(index)) * self.tokens_per_image

    def bytes_of(self, index: int) -> int:
        """Bytes of a shard's activations at all hook points."""
        return self.rows_of(index) * sum(self.hooks.values()) * DTYPES[self.dtype].itemsize

    def to_json(self) -> dict[str, Any]:
        found = asdict(self) | {"corruptions": list(self.corruptions)}
        for name in ("processor", "model_dtype"):
            if found[name] is None:  # as it was written then, which its shards' digest is made of
                del found[name]
        return found

    @classmethod
    def read(cls, path: Path, key: str | None = None) -> Plan:
        """Read a plan, or the one under `key` of a manifest.

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
        """Refuse to go on with another plan than the one that was begun.

        Raises:
            ValueError: names every setting that differs, with both values.
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
