"""SAEs of a comparison: trained on each model or given, and each measured on both models where these are kin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.data.corruption_spec import CLEAN

from .config import CompareConfig
from .pair import Pair

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    from sae_lens import SAE

    from mechvit.models import HookedViT

VALIDATION = 10
"""One of so many images chooses the epoch of a training."""


def train_sae(model: HookedViT, images: datasets.Dataset, config: CompareConfig, out: Path, name: str) -> None:
    """Train one SAE on a model, clean and under the comparison's conditions, into the folder `out`.

    Args:
        model: the model.
        images: images apart from those that it is measured on.
        config: the comparison's settings.
        out: folder of the SAEs.
        name: name of the model, for the progress bar.
    """
    from dataclasses import replace

    from mechvit.saes import train_saes

    training, validation = training_parts(images)
    train_saes(
        model,
        training,
        validation,
        out,
        corruptions=config.conditions,
        config=replace(config.sae_training, seed=config.sae_training.seed + config.seed),
        overwrite=True,
        progress=f"SAE of {name}",
    )


def training_parts(images: datasets.Dataset) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Return the images that train an SAE, and those that choose its epoch."""
    validation = max(1, len(images) // VALIDATION)
    return images.select(range(validation, len(images))), images.select(range(validation))


def opened(folder: Path, device: str) -> tuple[str, SAE]:
    """Open the SAE of a folder, or the first of the architectures in it; return its architecture too.

    Raises:
        ValueError: there is no SAE.
    """
    from mechvit.experiment.inputs import sae_folders
    from mechvit.saes import load_sae

    name, path = next(iter(sae_folders((str(folder),)).items()))
    return name, load_sae(path, device)


def saes(pair: Pair, count: int, folders: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """Measure each model's SAE on its own model and, where the models are kin, on the other.

    sae_quality: model, dictionary ("base" or "tuned"), architecture, corruption, metric, value; with conditions also
    sae_cosine: model, dictionary, architecture, corruption, value, low, high, the mean cosine between the codes of a
    token's clean and shifted activations; of kin also sae_latents, as `latent_differences`.
    """
    import pandas as pd

    from mechvit.saes import evaluate_saes

    shifted = [condition for condition in pair.conditions if condition != CLEAN]
    apart = pair.unmet("splice") is not None
    reading = {each.head: each for each in pair.readings}
    quality, cosine, latents = [], [], []
    shown = pair.apart.select(range(min(count, len(pair.apart))))
    for dictionary, folder in folders.items():
        name, sae = opened(folder, str(pair.base.cfg.device))
        for model, own in (next(iter(reading.values())).models if reading else pair.models).items():
            if model != dictionary and apart:
                continue
            found = evaluate_saes(
                own,
                {name: sae},
                shown,
                shifted,
                allow_other_model=True,
                progress=f"SAE of {dictionary} on {model}",
                **pair.asked,
            )
            labels = {"model": model, "dictionary": dictionary}
            quality.append(found.quality_frame(**labels))
            if shifted:
                cosine.append(_mean_cosine(found.cosine_frame(**labels), pair))
        if not apart and len(shown) > 1:
            latents.append(latent_differences(pair, sae, shown).assign(dictionary=dictionary))
    tables = {"sae_quality": pd.concat(quality, ignore_index=True)}
    more = {"sae_cosine": cosine, "sae_latents": latents}
    return tables | {name: pd.concat(parts, ignore_index=True) for name, parts in more.items() if parts}


def latent_differences(pair: Pair, sae: SAE, images: datasets.Dataset) -> pd.DataFrame:
    """Compare the mean activation of every latent in both models on the same clean images.

    Returns:
        feature, base, tuned_mean (means over images of the mean over tokens), difference (tuned - base), low, high
        (Student's t over images), q (of the difference, adjusted over all latents), base_rate, tuned_rate (share of
        tokens on which the latent fires).
    """
    from itertools import groupby

    import torch

    from mechvit.analysis.inputs import corrupted_batches
    from mechvit.saes.hook_site import shared_site
    from mechvit.saes.latents.corruption_change import ChangeTally, FeatureChange
    from mechvit.saes.splicing import read_site

    sites = {name: shared_site(model, {"sae": sae}, allow_other_model=True) for name, model in pair.models.items()}
    tally, progress = ChangeTally(), "Latents of both models"
    with torch.inference_mode():
        batches = corrupted_batches(pair.models, images, (CLEAN,), pair.batch_size, seed=pair.seed, progress=progress)
        for _, same_images in groupby(batches, key=lambda batch: batch.start):
            codes = {}
            for batch in same_images:
                ((condition, shown),) = batch.conditions
                for name in batch.models:
                    x = read_site(pair.models[name], sites[name], shown, condition).x
                    codes[name] = sae.encode(x.to(sae.W_enc.device))
            tally.add(codes["base"], codes["tuned"], None)
    found = FeatureChange({"": tally.result()}, len(images)).to_frame(level=pair.bootstrap["level"])
    named = {"clean": "base", "corrupted": "tuned_mean", "clean_rate": "base_rate", "corrupted_rate": "tuned_rate"}
    columns = ["feature", "base", "tuned_mean", "difference", "low", "high", "q", "base_rate", "tuned_rate"]
    return found.rename(columns=named)[columns]


def _mean_cosine(table: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """Return the mean over tokens and images, with an interval over images."""
    import pandas as pd

    from mechvit.analysis import interval, resampled_means

    rows, keys = [], ["model", "dictionary", "architecture", "corruption"]
    for key, part in table.groupby(keys, sort=False):
        means = part.groupby("image_id")["cosine"].mean().to_numpy(dtype=float)
        boot = pair.bootstrap
        drawn = resampled_means(means[:, None], resamples=boot["resamples"], seed=boot["seed"])[:, 0]
        rows.append((*key, *interval(drawn, boot["level"])))
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high"])
