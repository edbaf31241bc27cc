"""Writing of an activation cache: images -> corruption -> truncated forward pass -> shards of every hook point."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from mechvit import files
from mechvit.analysis.condition_images import check_conditions, shown_to
from mechvit.analysis.finite import model_name
from mechvit.arguments import checked
from mechvit.data import Condition, iter_batches, normalize
from mechvit.data.conditions import fingerprints
from mechvit.data.content import images_fingerprint
from mechvit.data.image_origin import image_revisions
from mechvit.models.checkpoints.checks import check_name
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.models.processors.preprocessing import all_settings
from mechvit.models.runs.image_tokens import token_slice
from mechvit.saes import distributed as parallel
from mechvit.terminal import printable, progress_bar

from .manifest import DTYPES, MANIFEST_FILE, PLAN_FILE, CacheConfig, Plan
from .reader import CachedActivations
from .shard_compute import compute_shard, forward_of, run_to
from .shards import check_bytes, check_shard, checksums_of, write_shard

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT

KIND = "cached activations"


@checked
def cache_activations(
    model: HookedViT,
    images: datasets.Dataset,
    out: str | os.PathLike[str],
    config: CacheConfig,
    *,
    overwrite: bool = False,
    progress: str | None = "activations",
) -> CachedActivations:
    """Write the activations of images at several hook points, from one forward pass that stops after the last of them.

    An image's corruption follows from the seed and its id, as in epoch 0 of an `ImageActivationsStore`. The division
    into shards is fixed beforehand, and each shard is a whole number of batches: a run that was killed continues with
    the shards that are missing or damaged, and ends with the same bytes (on the same kind of device with as many
    threads). Under torch.distributed the processes write shards in turn, and the first process writes the manifest once
    all are there.

    Args:
        model: any HookedViT with an image processor.
        images: prepared or raw data set, with `label` and `image_id`.
        out: the folder of the cache.
        config: see `CacheConfig`.
        overwrite: whether to replace an earlier cache at `out`.
        progress: the label of the progress bar; None shows none.

    Raises:
        ValueError: the model lacks a hook point or the tokens (found before anything is computed), the cache at `out`
            was begun with other settings, or activations are not finite (names the batch and the image).
        OSError: the disk has too little space (found before the start) or is full (the partial shard is removed, the
            others stay, and the same call resumes).
    """
    plan = _plan(model, images, config)
    cache = files.out_folder(out)
    rank, world = parallel.rank(), parallel.size()
    if world == 1 and not overwrite and _is_finished(cache, plan):
        return CachedActivations(out)
    with ExitStack() as held:
        if rank == 0:
            held.enter_context(files.Lock(cache))
            _begin(cache, plan, overwrite)
        parallel.wait()
        begun = Plan.read(cache / PLAN_FILE)
        plan.check_same(begun, cache)
        _write_missing(model, images, cache, begun, range(rank, plan.n_shards, world), progress if rank == 0 else None)
        parallel.wait()
        if rank == 0:
            commit = getattr(model.hf_config, "_commit_hash", None)
            _finish(cache, begun, {"model_revision": commit, "image_revisions": image_revisions(images)})
    parallel.wait()
    return CachedActivations(out)


def _plan(model: HookedViT, images: datasets.Dataset, config: CacheConfig) -> Plan:
    """Return the plan of the cache; the widths are found by running one image."""
    per_image = len(range(model.cfg.n_tokens)[token_slice(model.cfg, config.tokens)])
    widths = cached_row_widths(model, config.hooks, _sample(model, images, config.applied))
    batch_bytes = config.batch_size * per_image * max(widths.values()) * DTYPES[config.dtype].itemsize
    return Plan(
        model_name=model_name(model),
        checkpoint_hash=checkpoint_hash(model),
        hooks=widths,
        tokens=config.tokens,
        tokens_per_image=per_image,
        dtype=config.dtype,
        corruptions=tuple(c.key for c in config.applied),
        clean_fraction=config.clean_fraction if config.applied else 1.0,
        seed=config.seed,
        data_fingerprint=images_fingerprint(images, model.image_processor),
        n_images=len(images),
        batch_size=config.batch_size,
        images_per_shard=max(config.shard_bytes // batch_bytes, 1) * config.batch_size,
        compiled=config.compiled,
        processor=all_settings(model.image_processor),
        conditions=fingerprints(config.applied) or None,
        model_dtype=str(model.cfg.dtype).removeprefix("torch."),
    )


def _sample(
    model: HookedViT, images: datasets.Dataset, corruptions: tuple[Condition, ...]
) -> Float[Tensor, "1 3 height width"]:
    """Return the first image, normalised, after checking that images can be read and corrupted."""
    if len(images) == 0:
        raise ValueError("a cache needs at least one image; the data set is empty")
    first = next(iter_batches(images.select([0]), model.image_processor, 1, device=model.cfg.device))
    for corruption in check_conditions(corruptions, images):
        shown_to(model, first, corruption)
    return normalize(first.images, model.image_processor)


def cached_row_widths(
    model: HookedViT, hooks: Collection[str], sample: Float[Tensor, "1 3 height width"]
) -> dict[str, int]:
    """Return the width of each hook point's rows, found by running one image.

    Raises:
        ValueError: the model lacks a hook point (the nearest name is suggested), or it has no vector per token.
    """
    for name in hooks:
        check_name(name, model.hook_dict)
    widths, n_tokens = {}, model.cfg.n_tokens
    for name, found in run_to(model, sample.expand(2, -1, -1, -1), hooks).items():
        by_token = found.ndim > 2 and found.shape[:2] == (2, n_tokens)
        if not by_token or name.endswith(("hook_pattern", "hook_attn_scores")):
            raise ValueError(
                f"hooks must have activations [image, {n_tokens} tokens, ...]; for 2 images {name} gives "
                f"{list(found.shape)}. Choose another, as a residual stream"
            )
        widths[name] = math.prod(found.shape[2:])
    return {name: widths[name] for name in hooks}


def _begin(cache: Path, plan: Plan, overwrite: bool) -> None:
    """Write the plan, or check that the same one is there, and check that the disk can hold the missing shards."""
    files.recover(cache)
    files.adopt(cache, KIND)
    begun = (cache / PLAN_FILE).is_file()
    marker = files.read_marker(cache)
    if marker is None and cache.is_dir() and not files.is_empty(cache):
        what = "it holds foreign files" if begun else f"it has no {PLAN_FILE}"
        raise ValueError(f"{cache} exists and is no cache of activations ({what}): give another folder")
    if begun and overwrite:
        files.check_replaceable(cache, KIND)
        files.move_aside(cache)
        marker, begun = None, False
    if marker is None:
        files.begin(cache, KIND)
    elif marker.kind != KIND:
        raise ValueError(f"{cache} is another kind of result ({marker.kind}): give another folder")
    if begun:
        plan.check_same(Plan.read(cache / PLAN_FILE), cache)
    missing = [index for index in range(plan.n_shards) if not (cache / plan.shard(index)).is_dir()]
    needed, free = sum(map(plan.bytes_of, missing)), shutil.disk_usage(cache).free
    if needed > free:
        when = f"before the start: {needed / 1e9:.2f} GB are needed, and {free / 1e9:.2f} GB are free"
        raise files.disk_full(cache / PLAN_FILE, when)
    if not begun:
        files.write_json(cache / PLAN_FILE, plan.to_json())


def _is_finished(cache: Path, plan: Plan) -> bool:
    """Return whether a complete cache of this plan exists, so that nothing has to be written.

    Raises:
        ValueError: the cache has another plan.
    """
    if not (cache / PLAN_FILE).is_file():
        return False
    plan.check_same(Plan.read(cache / PLAN_FILE), cache)
    return (cache / MANIFEST_FILE).is_file() and all(_intact(cache, plan, index) for index in range(plan.n_shards))


def _finish(cache: Path, plan: Plan, revisions: dict[str, Any]) -> None:
    """Write the manifest, which marks the cache as complete and records the commits of what is from the Hub."""
    names = [plan.shard(index) for index in range(plan.n_shards)]
    sums = {name: checksums_of(cache / name) for name in names}
    shards = [
        {"n_images": len(plan.images_of(index)), "n_rows": plan.rows_of(index), "sha256": sums[name]}
        for index, name in enumerate(names)
    ]
    about = {"plan": plan.to_json(), "n_rows": plan.n_rows, "shards": shards}
    files.write_json(cache / MANIFEST_FILE, about | {name: value for name, value in revisions.items() if value})
    files.seal(cache, {f"{name}/{file}": sha for name, own in sums.items() for file, sha in own.items()})


def _write_missing(
    model: HookedViT, images: datasets.Dataset, cache: Path, plan: Plan, own: range, progress: str | None
) -> None:
    """Compute those of a process's shards that are missing; each is written while the next is computed."""
    missing = [index for index in own if not _intact(cache, plan, index)]
    total = sum(len(plan.images_of(index)) for index in own)
    done = total - sum(len(plan.images_of(index)) for index in missing)
    if not missing:
        return
    forward = forward_of(model, plan)
    with (
        ThreadPoolExecutor(1) as disk,
        progress_bar(label=progress, total=total, initial=done, unit="image") as bar,
    ):
        written: Future[None] | None = None
        for index in missing:
            made = compute_shard(model, images, plan, index, bar.update, forward)
            if written is not None:
                written.result()
            written = disk.submit(write_shard, cache, plan, index, *made)
        if written is not None:
            written.result()


def _intact(cache: Path, plan: Plan, index: int) -> bool:
    """Return whether a shard is there with the bytes that were written; warn if it has been damaged since."""
    folder = cache / plan.shard(index)
    if not folder.is_dir():
        return False
    try:
        check_shard(cache, plan, index)
        check_bytes(folder, checksums_of(folder))
    except ValueError as error:
        warnings.warn(f"{printable(error)}; this shard is made again", stacklevel=2)
        return False
    return True
