"""How good published SAEs are, what their latents stand for, and how far a corruption moves their codes."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.analysis.inputs import Images
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Corruption, as_corruption
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
        device: where to; when None, where `HookedViT.from_pretrained` puts a model: CUDA where there is one, else the
            CPU.

    Raises:
        ValueError: the folder is not one that `save_inference_model` wrote; settings, tensors or shapes that are
            missing or wrong; weights that are NaN or infinite. Names the file.
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
    corruptions: Collection[Corruption | str],
    *,
    cosine_corruptions: Collection[Corruption | str] | None = None,
    top_images: int | None = None,
    dense_above: float = DENSE_ABOVE,
    batch_size: int | None = None,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> SAEEvaluation:
    """Measure SAEs on clean images and under each corruption, and compare their codes, in one pass over the images.

    The network up to the SAEs' hook point runs once a condition; from there on it runs untouched, with the tokens that
    the SAEs read set to zero, with their mean there, and with each SAE's reconstruction in their place. The mean is
    that of the clean activations at each position over the first 256 images (fewer if there are fewer), which the front
    of the network reads once more for it. No activation outlives its batch.

    Args:
        model: any HookedViT; without a head only the reconstruction is measured.
        saes: by name; as published, they take and give raw activations. Any hook point with one vector a token will
            do; after `hook_resid_pre` and `hook_resid_post` the network goes on without a hook, which is faster.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the model's own class ids.
        corruptions: measured beside clean.
        cosine_corruptions: those of them whose codes are compared with the clean ones; None compares all.
        top_images: describe every latent too, with so many images each (see `sae_features`); None does not.
        dense_above: the share of tokens above which a latent counts as dense.
        batch_size: images a forward pass; None takes 32 on a CPU, else 128, and at most 256 MiB of one SAE's codes.
        seed: of the noise.
        allow_other_model: evaluate SAEs that say they were trained on another checkpoint, too.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: SAEs that do not fit the model, were trained on another or read different tokens, a
            `cosine_corruption` that is not among `corruptions`, activations that are not finite, and what
            `mechvit.analysis.evaluate` refuses.
    """
    measured = tuple(dict.fromkeys((CLEAN, *map(as_corruption, corruptions))))
    compared = measured[1:] if cosine_corruptions is None else tuple(map(as_corruption, cosine_corruptions))
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
    corruption: Corruption | str = CLEAN,
    *,
    dense_above: float = DENSE_ABOVE,
    batch_size: int | None = None,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> SAEQuality:
    """Measure one SAE under one condition; arguments and errors as in `evaluate_saes`."""
    wanted = Wanted(
        measured=(as_corruption(corruption),), dense_above=dense_above, seed=seed, allow_other_model=allow_other_model
    )
    found = SinglePass(model, {"sae": sae}, wanted).over(images, batch_size, progress)
    return found.quality["sae", as_corruption(corruption).key]


@checked
def sae_cosine(
    model: HookedViT,
    sae: SAE,
    images: Images,
    corruption: Corruption | str,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> SAECosine:
    """Compare the codes of each patch, clean and corrupted; arguments and errors as in `evaluate_saes`.

    Source: the paper's section 4.4. It does not say what the cosine of an empty code is; `SAECosine` does.
    """
    wanted = Wanted(compared=(as_corruption(corruption),), seed=seed, allow_other_model=allow_other_model)
    found = SinglePass(model, {"sae": sae}, wanted).over(images, batch_size, progress)
    return found.cosine["sae", as_corruption(corruption).key]


@checked
def sae_features(
    model: HookedViT,
    sae: SAE,
    images: Images,
    corruptions: Collection[Corruption | str] = (),
    *,
    top_images: int = 16,
    batch_size: int | None = None,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> SAEFeatures:
    """Describe every latent of an SAE on clean images, and what each corruption does to it, in one pass.

    Of each latent `top_images` images are kept as (score, image, patch), and its activation summed by label: memory is
    d_sae x (16 top_images + 4 labels) bytes and the codes of one batch.

    Args:
        top_images: images kept for each latent, each with the patch where the latent is strongest.
        model, sae, images, corruptions, batch_size, seed, allow_other_model, progress: as in `evaluate_saes`.

    Raises:
        ValueError: as `evaluate_saes`; negative labels, fewer than one top image.
    """
    wanted = Wanted(
        described=tuple(dict.fromkeys(map(as_corruption, corruptions))),
        top_images=top_images,
        seed=seed,
        allow_other_model=allow_other_model,
    )
    found = SinglePass(model, {"sae": sae}, wanted).over(images, batch_size, progress)
    return found.features["sae"]
