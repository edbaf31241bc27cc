"""Train sparse autoencoders on a model's activations, clean and corrupted, and publish them for sae-lens.

    mechvit train-sae --model runs/photos/models/base --out saes/base
    mechvit train-sae --model DIR --images folder:DIR --out saes/sweep \\
        --config.architectures batchtopk topk --config.sweep.k 16 32 64 --config.tokens patches
    mechvit train-sae --cache caches/base --validation-cache caches/base_validation --out saes/cached
    torchrun --nproc-per-node 8 -m mechvit train-sae --model google/vit-base-patch16-224 \\
        --images ILSVRC/imagenet-1k --limit 10000 --out saes/base

Each SAE is written to OUT/NAME, in the format that `sae_lens.SAE.load_from_disk` opens, with a model card;
OUT/history.parquet and OUT/metrics.csv record the training. An interrupted training resumes when started again with the
same settings, with identical results for as many threads and processes. With --also-model TUNED, one SAE is trained on
the activations of several models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

from mechvit.cli.options import DeviceOptions, OutputOptions, UnlabelledOptions, images_of, own_first
from mechvit.data.corruption_spec import PAPER_CORRUPTIONS
from mechvit.experiment.inputs import (
    check_corruptions,
    check_device,
    corruptions_named,
    load_model,
    local_inputs,
    names_of,
)
from mechvit.files import check_replaceable, out_folder, partial
from mechvit.saes.config import SAEConfig, TrainConfig
from mechvit.settings_checks import COUNT, SettingError, check, check_common, check_some
from mechvit.terminal import say

if TYPE_CHECKING:
    from mechvit import HookedViT
    from mechvit.saes import ActivationStreams


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(UnlabelledOptions, DeviceOptions, OutputOptions):
    """Options of an SAE training."""

    model: str | None = None
    """Folder or Hub id of a vision transformer with its image processor; not needed with a cache."""
    also_model: tuple[str, ...] = ()
    """Other models, such as those tuned from it, whose activations make up equal parts of every batch."""
    out: str
    """Folder of the SAEs."""
    cache: str | None = None
    """Folder written by mechvit cache-activations, whose activations to train on instead of running a model."""
    validation_cache: str | None = None
    """Cache of held-out images (--part sae_validation), by which the best epoch is selected."""
    images: str = "photos"
    """`photos` (embedded), `folder:DIR` (a sub-folder for each class; train, val and test folders are its parts) or a
    Hub data set (ID:CONFIG@SPLIT),
    with labels or without."""
    corruptions: tuple[str, ...] = tuple(c.key for c in PAPER_CORRUPTIONS)
    """Corruptions of the images that do not stay clean, each applied equally often: FAMILY_LEVEL, as in gaussian_blur_4
    (deviation in pixels at the model's input size) or gaussian_noise_2 (severity); or any other condition
    (docs/conditions.md)."""
    limit: int | None = None
    """Largest number of training images; None uses the whole part."""
    validation_limit: int | None = None
    """Largest number of images by which the best epoch is selected; None uses the whole part."""
    device: str | None = None
    """Device to compute on, as in cuda:0 or cpu; CUDA by default if there is a GPU (torchrun: one per process)."""
    verify: bool = False
    """Read a whole cache first and compare hashes; otherwise only those files whose size or time changed."""
    overwrite: bool = False
    """Replace an earlier training at OUT that has other settings."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; there is another at the end of every epoch."""
    log_every: int = 20
    """Steps between two rows of metrics in OUT.partial/metrics.csv, and between updates of the progress bar."""
    loggers: tuple[Literal["wandb", "tensorboard"], ...] = ()
    """Loggers that receive the metrics in addition to metrics.csv."""
    push_to_hub: str | None = None
    """Repository OWNER/NAME of the Hugging Face Hub to which the finished SAEs are uploaded."""
    config: SAEConfig = field(default_factory=SAEConfig)

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "corruptions")
        check(self, COUNT, "checkpoint_every", "log_every")
        check_some(self, "also_model", "loggers", or_none=True)
        if self.push_to_hub is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.push_to_hub):
            raise SettingError("push_to_hub", f"must be OWNER/NAME; got {self.push_to_hub!r}")


def main(options: Options) -> None:
    """Train all SAEs on one stream of activations and print each one's last check."""
    check_source(options)
    read = options.images, options.model, options.cache, options.validation_cache, *options.also_model
    inputs = local_inputs(*read)
    place = out_folder(options.out, inputs, flag="--overwrite")
    for path in (place, partial(place)):  # a resumed training is not replaced, so foreign files do not matter
        check_replaceable(path, "SAEs", whole=False, flag="--overwrite")
    from mechvit.saes import push_to_hub, read_history, train_on
    from mechvit.saes.distributed import processes, rank

    check_device(options.device, processes=True)
    with processes(options.device) as device:
        streams, config = cached_streams(options, device) if options.cache else image_streams(options, device)
        published = train_on(
            streams,
            options.out,
            config=config,
            inputs=inputs,
            overwrite=options.overwrite,
            checkpoint_every=options.checkpoint_every,
            log_every=options.log_every,
            loggers=options.loggers,
        )
        if rank() > 0:
            return
    history = read_history(options.out)
    say("the last check of each SAE's training, on held-out images:\n")
    last = history[history["step"] == history.groupby("architecture")["step"].transform("max")]
    wide = last.pivot(index=["architecture", "epoch"], columns="metric", values="value").reset_index()
    say(wide.rename_axis(columns=None).to_string(index=False, float_format="%.4g"))
    say("\n" + "\n".join(map(str, published.values())))
    if options.push_to_hub is not None:
        push_to_hub(options.out, options.push_to_hub)


def check_source(options: Options) -> None:
    """Refuse settings that contradict each other.

    Raises:
        ValueError: neither a model nor caches are given, only one cache is, or a setting contradicts the cache.
    """
    if (options.cache is None) != (options.validation_cache is None):
        raise ValueError("give --cache and --validation-cache together: one to train on, one to check on")
    if options.cache is None:
        if options.model is None:
            raise ValueError("give the --model whose activations to train on, or --cache and --validation-cache")
        return
    own = SAEConfig()
    fixed = ("hook_layer", "hook_names", "tokens", "clean_fraction")
    changed = [
        f"--config.{name.replace('_', '-')}" for name in fixed if getattr(options.config, name) != getattr(own, name)
    ]
    given = ("corruptions", "also_model", "images", "limit", "validation_limit")
    changed += [f"--{name.replace('_', '-')}" for name in given if getattr(options, name) != getattr(Options, name)]
    if changed:
        raise ValueError(f"{', '.join(changed)}: the cache fixes this; make another cache, or leave it out")


def image_streams(options: Options, device: str | None) -> tuple[ActivationStreams, TrainConfig]:
    """Return the stream of activations computed from images, and the settings."""
    from mechvit.saes import ImageStreams, MixedStreams
    from mechvit.saes.activations.image_store import sae_input_widths

    assert options.model is not None
    corruptions = corruptions_named(options.corruptions, names_of([options.model, *options.also_model]))
    model, *others = (load_model(name, device, options.model_dtype) for name in (options.model, *options.also_model))
    check_sizes(model, others, options.also_model)
    check_corruptions(corruptions, model.cfg.image_size)
    options.config.saes(sae_input_widths(model, options.config))
    classes = model.hf_config if model.cfg.n_classes else None
    processors = [each.image_processor for each in (model, *others)]
    images, validation = (
        images_of(options, part, classes, processors, limit=limit, needs_labels=False)
        for part, limit in (("sae", options.limit), ("sae_validation", options.validation_limit))
    )
    streams = [
        ImageStreams(each, images, validation, corruptions=corruptions, config=options.config)
        for each in (model, *others)
    ]
    size = options.config.train_batch_size_tokens
    return (MixedStreams(streams, batch_size=size) if others else streams[0]), options.config


def check_sizes(model: HookedViT, others: list[HookedViT], names: tuple[str, ...]) -> None:
    """Raise a ValueError unless all models take the first one's images."""
    for name, other in zip(names, others, strict=True):
        if other.cfg.image_size != model.cfg.image_size:
            raise ValueError(
                f"--also-model must take images of {model.cfg.image_size} pixels, as --model does; {name} takes "
                f"{other.cfg.image_size}"
            )


def cached_streams(options: Options, device: str | None) -> tuple[ActivationStreams, TrainConfig]:
    """Return the stream of activations on disk, checked as a whole before training starts, and the settings."""
    from mechvit.models.devices import device_named
    from mechvit.saes import CachedActivations, CachedStreams, ShuffleOptions
    from mechvit.saes.distributed import rank

    check_device(device)
    assert options.cache is not None
    assert options.validation_cache is not None
    training_cache, validation_cache = map(CachedActivations, (options.cache, options.validation_cache))
    model = None if options.model is None else load_model(options.model, device, options.model_dtype)
    for cache in (training_cache, validation_cache):
        if model is not None:
            cache.check_model(model)
        if rank() == 0:
            cache.verify(f"Checking {cache.folder}", changed_only=not options.verify)
    config = options.config
    training = TrainConfig(**{field.name: getattr(config, field.name) for field in fields(TrainConfig)})
    shuffle = ShuffleOptions(batch_size=config.train_batch_size_tokens, seed=config.seed, device=device_named(device))
    streams = CachedStreams(training_cache, validation_cache, shuffle, calibration_images=config.calibration_images)
    return streams, training
