"""Evaluation of published SAEs: quality, statistics of latents, and the effect of corruptions on codes."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.analysis.inputs import Images
from mechvit.arguments import checked
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.devices import device_named
from mechvit.saes.latents.results import SAEFeatures
from mechvit.saes.sae_files import CONFIG, WEIGHTS, open_sae

from .results import SAECosine, SAEEvaluation, SAEQuality
from .single_pass import DENSE_ABOVE, SinglePass, Wanted

if TYPE_CHECKING:
    import torch
    from sae_lens import SAE

    from mechvit.models import HookedViT


@checked
def load_sae(path: str | os.PathLike[str], device: torch.device | str | None = None) -> SAE:
    """Open a published SAE with stock sae-lens.

    Args:
        path: the SAE's folder.
        device: the device to load to; None uses CUDA if there is a GPU, else the CPU, as in
            `HookedViT.from_pretrained`.

    Raises:
        ValueError: the folder was not written by `save_inference_model`, settings, tensors or shapes are missing or
            wrong, or weights are not finite; names the file.
    """
    folder = Path(path)
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} is not a published SAE: it lacks {' and '.join(missing)}. Give the folder of one architecture "
            "that train_saes wrote, as in saes/base/batchtopk"
        )
    return open_sae(folder, str(device_named(device)))


@checked
def evaluate_saes(
    model: HookedViT,
    saes: Mapping[str, SAE],
    images: Images,
    corruptions: Collection[Condition | str],
    *,
    cosine_corruptions: Collection[Condition | str] | None = None,
    top_images: int | None = None,
    dense_above: float = DENSE_ABOVE,
    batch_size: int | None = None,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> SAEEvaluation:
    """Measure SAEs on clean images and under each corruption, and compare their codes, in one pass over the images.

    For each condition, the network up to the SAEs' hook point runs once; the rest runs untouched, with the tokens that
    the SAEs read set to zero, set to their mean, and replaced by each SAE's reconstruction. The mean is that of the
    clean activations at each position over the first 256 images (or all, if fewer), for which they pass once more
    through the first part of the network. No activation outlives its batch.

    Args:
        model: any HookedViT; without a softmax classifier only the reconstruction is measured.
        saes: published SAEs, which read and write raw activations, by name, at any hook point with one vector per
            token; after `hook_resid_pre` and `hook_resid_post` the network continues without a hook, which is faster.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the model's own class ids.
            Of images without labels only the reconstruction is measured, and latents are described without classes.
        corruptions: conditions to measure besides clean.
        cosine_corruptions: those corruptions whose codes are compared with the clean ones; None compares all.
        top_images: number of images with which to describe each latent (see `sae_features`); None describes none.
        dense_above: firing rate, as a share of tokens, above which a latent counts as dense.
        batch_size: images per forward pass; None uses 32 on a CPU, else 128, and at most 256 MiB of one SAE's codes.
        seed: seed of the corruptions' noise.
        allow_other_model: whether to accept SAEs that were trained on another checkpoint.
        progress: label of the progress bar; None shows none.

    Raises:
        ValueError: the SAEs do not fit the model, were trained on another or read different tokens, a cosine corruption
            is not among `corruptions`, activations are not finite, and everything that `mechvit.analysis.evaluate`
            refuses.
    """
    measured = tuple(dict.fromkeys((CLEAN, *map(as_condition, corruptions))))
    compared = measured[1:] if cosine_corruptions is None else tuple(map(as_condition, cosine_corruptions))
    if unknown := [c.key for c in compared if c not in measured[1:]]:
        raise ValueError(f"cosine_corruptions must be among the corruptions that are measured; got {unknown} besides")
    wanted = Wanted(
        measured=measured,
        compared=compared,
        described=measured[1:],
        top_images=top_images,
        dense_above=dense_above,
        seed=seed,
        allow_other_model=allow_other_model,
    )
    return SinglePass(model, saes, wanted).over(images, batch_size, progress)


@checked
def evaluate_sae(
    model: HookedViT,
    sae: SAE,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    dense_above: float = DENSE_ABOVE,
    batch_size: int | None = None,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> SAEQuality:
    """Measure one SAE under one condition; arguments and errors as in `evaluate_saes`."""
    wanted = Wanted(
        measured=(as_condition(corruption),), dense_above=dense_above, seed=seed, allow_other_model=allow_other_model
    )
    found = SinglePass(model, {"sae": sae}, wanted).over(images, batch_size, progress)
    return found.quality["sae", as_condition(corruption).key]


@checked
def sae_cosine(
    model: HookedViT,
    sae: SAE,
    images: Images,
    corruption: Condition | str,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> SAECosine:
    """Compute the cosine between each patch's clean and corrupted codes; arguments and errors as in `evaluate_saes`.

    Source: the paper's section 4.4, which does not define the cosine of an empty code; `SAECosine` does.
    """
    wanted = Wanted(compared=(as_condition(corruption),), seed=seed, allow_other_model=allow_other_model)
    found = SinglePass(model, {"sae": sae}, wanted).over(images, batch_size, progress)
    return found.cosine["sae", as_condition(corruption).key]


@checked
def sae_features(
    model: HookedViT,
    sae: SAE,
    images: Images,
    corruptions: Collection[Condition | str] = (),
    *,
    top_images: int = 16,
    batch_size: int | None = None,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> SAEFeatures:
    """Describe every latent of an SAE on clean images, and the effect of each corruption on it, in one pass.

    For each latent, `top_images` images are kept as (score, image, patch), and its activation is summed by label:
    memory holds d_sae x (16 top_images + 4 labels) bytes and the codes of one batch.

    Args:
        top_images: number of images kept for each latent, each with the patch where the latent is strongest.
        model, sae, images, corruptions, batch_size, seed, allow_other_model, progress: as in `evaluate_saes`.

    Raises:
        ValueError: as in `evaluate_saes`; `top_images` is below 1, or codes may be negative (abstopk).
    """
    wanted = Wanted(
        described=tuple(dict.fromkeys(map(as_condition, corruptions))),
        top_images=top_images,
        seed=seed,
        allow_other_model=allow_other_model,
    )
    found = SinglePass(model, {"sae": sae}, wanted).over(images, batch_size, progress)
    return found.features["sae"]
