"""Write a model's activations to disk once, to train sparse autoencoders from them many times.

    mechvit cache-activations --model runs/photos/models/base --out caches/base
    mechvit cache-activations --model google/vit-base-patch16-224 \\
        --images ILSVRC/imagenet-1k --limit 10000 --out caches/vit \\
        --hooks blocks.5.hook_resid_post blocks.10.hook_resid_post
    torchrun --nproc-per-node 4 mechvit cache-activations --model DIR \\
        --images folder:DIR --out caches/mine

All hook points are read in one forward pass. OUT contains shards (safetensors) and, once all are written,
manifest.json. A run that was killed, or stopped by a full disk, resumes when the same command is given again, and ends
with the same bytes. Write a second cache with --part sae_validation for the held-out checks of training.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mechvit.cli.options import BatchOptions, DeviceOptions, OutputOptions, UnlabelledOptions, own_first
from mechvit.data.corruption_spec import PAPER_CORRUPTIONS
from mechvit.experiment.inputs import check_corruptions, check_device, corruptions_named, local_inputs
from mechvit.files import check_out, check_replaceable, end_with_parent, out_folder
from mechvit.saes.config import HookTokens
from mechvit.settings_checks import COUNT, SHARE, check, check_common, check_some
from mechvit.terminal import say, silent

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(UnlabelledOptions, DeviceOptions, BatchOptions, OutputOptions):
    """Options of the activation cache."""

    model: str
    """Folder or Hub id of a vision transformer with its image processor; a classification head is not needed."""
    out: str
    """Folder of the cache."""
    hooks: tuple[str, ...] = ()
    """Names of hook points, as in blocks.10.hook_resid_post; the penultimate residual when none is given."""
    tokens: HookTokens = "all"
    """Tokens to store: all of them, the image patches only, or the class token only."""
    images: str = "photos"
    """`photos` (embedded), `folder:DIR` (a sub-folder for each class; train, val and test folders are its parts) or a
    Hub data set (ID:CONFIG@SPLIT),
    with labels or without."""
    part: Literal["sae", "sae_validation", "finetune", "finetune_validation", "test", "all"] = "sae"
    """Part of the images, or all; no two parts share an image, except `sae_validation` and `finetune_validation` (and
    `sae` and `finetune`, where both are a folder's own train folder)."""
    corruptions: tuple[str, ...] = tuple(c.key for c in PAPER_CORRUPTIONS)
    """Corruptions of the images that do not stay clean, each applied equally often: FAMILY_LEVEL, as in gaussian_blur_4
    (deviation in pixels at the model's input size) or gaussian_noise_2 (severity); or any other condition
    (docs/conditions.md)."""
    clean_fraction: float = 0.5
    """Share of images that stay clean; 1 corrupts none."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the stored activations."""
    batch_size: int = 64
    """Images per forward pass."""
    shard_megabytes: int = 256
    """Largest size of a shard of one hook point, in millions of bytes; a shard contains at least one batch."""
    compiled: bool = False
    """Compile the forward pass (torch.compile, on a GPU as a CUDA graph), which takes a minute or more at first."""
    sae_lens: str | None = None
    """Also write a folder that sae-lens reads as cached_activations_path (float32); None writes none."""
    device: str | None = None
    """Device to compute on, as in cuda:0 or cpu; CUDA by default if there is a GPU (torchrun: one per process)."""
    overwrite: bool = False
    """Replace an earlier cache at OUT instead of resuming it."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "corruptions")
        check_some(self, "hooks", or_none=True)
        check(self, COUNT, "shard_megabytes")
        check(self, SHARE, "clean_fraction")


def main(options: Options) -> None:
    """Cache the activations and print a summary."""
    corruptions = corruptions_named(options.corruptions)
    inputs = local_inputs(options.images, options.model)
    check_replaceable(
        out_folder(options.out, inputs, flag="--overwrite"), "cached activations", whole=False, flag="--overwrite"
    )
    if options.sae_lens is not None:
        check_out(options.sae_lens, "activations for sae-lens", inputs=[*inputs, options.out], flag="--overwrite")
    parallel = int(os.environ.get("WORLD_SIZE", "1")) > 1
    import torch

    from mechvit.models import HookedViT
    from mechvit.models.devices import device_of_process
    from mechvit.saes.activation_cache import CacheConfig, cache_activations, export_for_sae_lens
    from mechvit.saes.distributed import PATIENCE

    check_device(options.device, processes=True)
    device = device_of_process(options.device, shared=True)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # otherwise every process would hold a context on the first GPU
    if parallel:  # the processes only wait for each other, at times for hours
        end_with_parent()
        torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        model = HookedViT.from_pretrained(options.model, device=device, dtype=getattr(torch, options.model_dtype))
        check_corruptions(corruptions, model.cfg.image_size)
        cache = cache_activations(
            model,
            raw_images(options, model),
            options.out,
            CacheConfig(
                hooks=options.hooks or (f"blocks.{max(model.cfg.n_layers - 2, 0)}.hook_resid_post",),
                tokens=options.tokens,
                corruptions=corruptions,
                clean_fraction=options.clean_fraction,
                seed=options.seed,
                dtype=options.dtype,
                batch_size=options.batch_size,
                shard_bytes=options.shard_megabytes * 1_000_000,
                compiled=options.compiled,
            ),
            overwrite=options.overwrite,
        )
        if int(os.environ.get("RANK", "0")) > 0:
            return
        plan = cache.plan
        say(
            f"{options.out}: {plan.n_images} images x {plan.tokens_per_image} tokens of "
            f"{', '.join(f'{hook} ({width})' for hook, width in plan.hooks.items())}; {plan.n_shards} shards, "
            f"{sum(map(plan.bytes_of, range(plan.n_shards))) / 1e6:,.1f} MB in {plan.dtype}"
        )
        if options.sae_lens is not None:
            say(f"{export_for_sae_lens(cache, options.sae_lens)}: for stock sae-lens")
    finally:
        if parallel:
            torch.distributed.destroy_process_group()


def raw_images(options: Options, model: HookedViT) -> datasets.Dataset:
    """Load the images without resizing, which each process does for its own; a classifier's with its own class ids.

    Raises:
        ValueError: the model has no image processor.
    """
    from mechvit.data import load_images
    from mechvit.experiment.image_inputs import aligned

    if model.image_processor is None:
        raise ValueError(
            f"{options.model} has no image processor (preprocessor_config.json); save one beside the model"
        )
    tell = say if os.environ.get("RANK", "0") == "0" else silent
    images = load_images(
        options.images,
        options.part,
        limit=options.limit,
        seed=options.seed,
        image_size=model.cfg.image_size,
        bad_files=options.bad_files,
        pixel_range=options.pixel_range,
        unlabelled=options.unlabelled,
        say=tell,
    )
    return images if model.cfg.no_softmax else aligned(images, model.hf_config, options.unlabelled, False, tell)
