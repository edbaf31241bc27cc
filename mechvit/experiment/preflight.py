"""Checks before a run's first stage that the machine, the model and the images suffice for all stages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mechvit.data.corruption_spec import Condition
from mechvit.settings_checks import SettingError

from .config import ExperimentConfig
from .device_checks import check_device
from .inputs import check_corruptions, load_classifier, read_checkpoint

if TYPE_CHECKING:
    from mechvit.saes.config import SAEConfig

STEERED = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
"""Hook points of a block at which the residual stream can be steered, and so at which a run's SAEs may read."""


class Shape(NamedTuple):
    """Properties of the base model against which a run's settings are checked."""

    image_size: int
    n_layers: int
    d_model: int
    tokens: int
    """Tokens per image that the SAEs read."""


def preflight(config: ExperimentConfig, corruptions: Iterable[Condition], parts: Iterable[str]) -> Shape:
    """Refuse, before the first stage, a run of which some stage would fail.

    A given model is loaded for this; for a new one the settings suffice. Images of a Hub data set are counted once they
    have been downloaded (`check_images`).

    Args:
        config: settings of the run.
        corruptions: all corruptions that will be applied.
        parts: names of the parts of the images.

    Raises:
        ValueError: the device cannot be used, the model cannot be fine-tuned or analysed, its images are too small for
            a corruption, the SAEs do not fit it, or there are too few images; says which setting to change.
    """
    from mechvit.data.sources.load import count_images

    check_device(config.device)
    shape = _new_shape(config) if config.model is None else _given_shape(config)
    check_corruptions(corruptions, shape.image_size)
    there = {}
    for part in parts:
        listed, asked = (
            count_images(config.images, part, seed=config.seed, bad_files=config.bad_files),
            config.count(part),
        )
        there[part] = asked if listed is None else min(listed, asked)
    check_images(config, shape, there)
    return shape


def check_images(config: ExperimentConfig, shape: Shape, there: Mapping[str, int]) -> None:
    """Refuse parts of the images that are too small.

    Args:
        config: settings of the run.
        shape: shape of the base model.
        there: number of images in each part.

    Raises:
        SettingError: a part is too small; names it, or the setting of the SAEs to change.
    """
    for part in ("finetune", "test"):
        if there[part] < 2:
            raise SettingError("images", f"must have at least 2 for the part {part}; {config.images} has {there[part]}")
    if "sae" in there:
        check_saes(config.saes, shape, there["sae"])


def _new_shape(config: ExperimentConfig) -> Shape:
    shape = config.shape
    patches = (shape.image_size // shape.patch_size) ** 2
    return Shape(shape.image_size, shape.n_layers, shape.d_model, tokens_of(config.saes.tokens, patches, 1))


def _given_shape(config: ExperimentConfig) -> Shape:
    """Return the shape of a given model, after checking that it can be fine-tuned and analysed."""
    from mechvit.finetuning import check_trainable

    local = Path(str(config.model)).expanduser()
    checkpoint = str(local) if local.is_dir() else str(config.model)
    check_trainable(read_checkpoint(checkpoint)[0], checkpoint)
    cfg = load_classifier(checkpoint, config.device).cfg
    tokens = tokens_of(config.saes.tokens, cfg.grid[0] * cfg.grid[1], cfg.n_prefix_tokens, cfg.cls_token)
    return Shape(cfg.image_size, cfg.n_layers, cfg.d_model, tokens)


def tokens_of(which: str, patches: int, prefix: int, cls: bool = True) -> int:
    """Return the number of tokens per image that the SAEs read.

    Raises:
        SettingError: the class token is asked for, and the model has none.
    """
    if which == "cls" and not cls:
        raise SettingError("tokens", "must be all or patches: the model has no class token")
    return {"all": prefix + patches, "patches": patches, "cls": 1}[which]


def check_saes(saes: SAEConfig, shape: Shape, images: int) -> None:
    """Refuse SAEs that do not fit the model or the images that they are trained on.

    Raises:
        SettingError: the model lacks the block or hook point or cannot be steered there, an SAE has fewer latents than
            k, or a batch needs more tokens than the images give.
    """
    saes.saes({_hook(saes, shape.n_layers): shape.d_model})
    size, given = saes.train_batch_size_tokens, shape.tokens * saes.shortest_segment(images)
    if size + size % 2 > given:  # for the shared SAE, base and tuned model give half each
        raise SettingError(
            "train_batch_size_tokens",
            f"must be at most {given - given % 2}, since {images} images give {shape.tokens} tokens each and are mixed "
            f"{saes.shortest_segment(images)} at a time; got {size}",
        )


def _hook(saes: SAEConfig, n_layers: int) -> str:
    """Return the hook point that the SAEs read."""
    if not saes.hook_names:
        layer = n_layers - 2 if saes.hook_layer is None else saes.hook_layer
        if not 0 <= layer < n_layers:
            raise SettingError("hook_layer", f"must be one of the model's blocks, 0 to {n_layers - 1}; got {layer}")
        return f"blocks.{layer}.hook_resid_post"
    (hook,) = saes.hook_names
    found = re.fullmatch(rf"blocks\.(\d+)\.({'|'.join(STEERED)})", hook)
    if found is None or int(found[1]) >= n_layers:
        last = f"blocks.{n_layers - 1}.hook_resid_post"
        raise SettingError(
            "hook_names", f"must be a block's {', '.join(STEERED)}, as in {last}, the last; got {hook!r}"
        )
    return hook
