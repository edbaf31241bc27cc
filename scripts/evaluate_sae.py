"""How well sparse autoencoders rebuild a model's residuals, and how far a corruption moves their codes.

    scripts/evaluate_sae.py --model runs/photos/models/base \\
        --saes runs/photos/saes/base
    scripts/evaluate_sae.py --model DIR --saes saes/mine/batchtopk \\
        --images folder:DIR --limit 200 --corruptions gaussian_blur_4 \\
        --out sae_evaluation

Prints explained variance, L0, dead latents, and the accuracy and cross-entropy that are recovered when the
reconstruction takes the residual's place (0: zero ablation, 1: the untouched model). With --out the table is written to
OUT/sae_quality.parquet, and the cosines between clean and corrupted codes to OUT/sae_cosine.parquet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from mechvit.data.spec import CLEAN, PAPER_CORRUPTIONS
from mechvit.experiment.command_line import (
    check_out,
    corruptions_named,
    load_classifier,
    names_of,
    new_folder,
    prepared_images,
    run,
)

HOLDS = "sae_quality.parquet"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which SAEs are evaluated on what."""

    model: str
    """Folder or hub id of the model whose residuals the SAEs were trained on."""
    saes: tuple[str, ...]
    """Folders of SAEs (with cfg.json), or folders of such folders, as train_sae.py writes them."""
    images: str = "photos"
    """`photos` (embedded), `folder:PATH` (a sub-folder for each class) or a hub data set's id; the test part of it."""
    corruptions: tuple[str, ...] = tuple(c.key for c in PAPER_CORRUPTIONS)
    """FAMILY_LEVEL, as in gaussian_blur_4 (deviation in pixels at the model's input size) or gaussian_noise_2
    (ImageNet-C severity). Clean images are always evaluated too."""
    limit: int | None = None
    """At most this many images; None takes the whole part."""
    bad_files: Literal["error", "skip"] = "error"
    """What to do with a file that cannot be read: stop and name it, or leave it out and warn."""
    seed: int = 0
    """Of the images' parts, the crops and the noise. One seed in all scripts keeps training and test images apart."""
    device: str | None = None
    """Where to compute, as in cuda:0 or cpu; by default CUDA where there is one."""
    out: str | None = None
    """Folder for the tables; None writes none."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""


def main(options: Options) -> None:
    """Evaluate all SAEs on one stream of activations, print the quality, write the tables."""
    corruptions = tuple(c for c in corruptions_named(options.corruptions) if c != CLEAN)
    folders = sae_folders(options.saes)
    if options.out is not None:
        check_out(options.out, options.overwrite, HOLDS)
    from mechvit.saes import evaluate_saes, load_sae

    model = load_classifier(options.model, options.device)
    saes = {name: load_sae(folder, device=str(model.cfg.device)) for name, folder in folders.items()}
    images = prepared_images(
        options.images, "test", model.hf_config, model.image_processor,
        limit=options.limit, seed=options.seed, bad_files=options.bad_files,
    )  # fmt: skip
    found = evaluate_saes(model, saes, images, corruptions, seed=options.seed, progress="SAEs")
    (name,) = names_of([options.model])
    quality = found.quality_frame(model=name)
    wide = quality.pivot(index=["architecture", "corruption"], columns="metric", values="value").reset_index()
    print(wide.rename_axis(columns=None).to_string(index=False, float_format="%.4g"))
    if options.out is not None:
        with new_folder(options.out, options.overwrite, HOLDS) as folder:
            quality.to_parquet(folder / HOLDS, index=False)
            found.cosine_frame(model=name).to_parquet(folder / "sae_cosine.parquet", index=False)
        print(f"\n{options.out}: {HOLDS}, sae_cosine.parquet")


def sae_folders(given: tuple[str, ...]) -> dict[str, str]:
    """Name every SAE among the given folders and their sub-folders.

    Raises:
        ValueError: a folder that holds none.
    """
    found: list[str] = []
    for folder in map(Path, given):
        own = [path.parent for path in (folder / "cfg.json", *sorted(folder.glob("*/cfg.json"))) if path.is_file()]
        if not own:
            raise ValueError(f"{folder} holds no SAE: neither it nor a folder in it has a cfg.json")
        found += map(str, own)
    return names_of(found)


if __name__ == "__main__":
    run(main, tyro.cli(Options, description=__doc__))
