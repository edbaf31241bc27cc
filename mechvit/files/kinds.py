"""Kinds of results that this package writes as folders, with the content of each before folders had markers.

A folder without a marker that contains only names of a kind, including the obligatory ones, is an earlier result of
that kind; any other belongs to somebody else.
"""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """Content of an earlier folder, as patterns of the paths in it; without any, it cannot be recognised."""

    needed: tuple[str, ...] = ()
    """Those that each has. Where several folders fit one, as in `*/cfg.json`, each of them must hold every one."""
    others: tuple[str, ...] = ()
    """Those that it may have."""
    proof: tuple[str, str] | None = None
    """A JSON file in it and a key that the file holds, for names that might be anybody's."""


FOLDER_KINDS: dict[str, Known] = {
    # written by the Python API
    "fine-tuned checkpoint": Known(
        ("training_log.json", "config.json", "model*.safetensors", "preprocessor_config.json"),
        ("model.safetensors.index.json",),
        ("training_log.json", "epochs"),
    ),
    "hooked model": Known(
        ("hooked_vit.json", "hooked_vit.safetensors"),
        ("preprocessor_config.json", "processor_config.json"),
        ("hooked_vit.json", "hooked_vit"),
    ),
    "tuned lens": Known(("tuned_lens.json", "tuned_lens.safetensors"), (), ("tuned_lens.json", "checkpoint_hash")),
    "prepared images": Known(),  # indistinguishable from a data set of the user's
    "SAEs": Known(
        ("settings.json", "metrics.csv", "history.parquet", "*/cfg.json", "*/sae_weights.safetensors"),
        ("*/README.md", "wandb.json"),
        ("settings.json", "streams"),
    ),
    "cached activations": Known(
        ("plan.json", "shard-*/shard.json"),
        ("manifest.json", "shard-*/*.safetensors"),
        ("plan.json", "checkpoint_hash"),
    ),
    "activations for sae-lens": Known(),
    # written by the commands
    "analysis": Known(
        (
            "performance.parquet",
            "lens.parquet",
            "attention.parquet",
            "first_correct.parquet",
            "performance_summary.parquet",
            "lens_summary.parquet",
            "attention_summary.parquet",
        ),
        ("first_correct_summary.parquet", "figures/*.html"),
    ),
    "evaluation": Known(("performance.parquet", "performance_summary.parquet")),
    "robustness": Known(
        ("robustness.parquet", "performance.parquet", "spectra.parquet"), ("fourier.parquet", "figures/*.html")
    ),
    "evaluation of SAEs": Known(
        (
            "sae_quality.parquet",
            "sae_baselines.parquet",
            "sae_settings.parquet",
            "sae_density.parquet",
            "sae_cosine.parquet",
        ),
        ("sae_features.parquet", "sae_sensitivity.parquet", "sae_matches.parquet", "frontier.html", "density.html"),
    ),
    "representations": Known(
        (
            "cka.parquet",
            "lens_readings.parquet",
            "prediction_depth.parquet",
            "lens_comparison.parquet",
            "depth_change.parquet",
        ),
        ("lenses/*/tuned_lens.json", "lenses/*/tuned_lens.safetensors", "figures/*.html"),
    ),
    "patching": Known(
        ("summary.parquet", "patching.parquet", "references.parquet"),
        (
            "attribution.parquet",
            "neurons.parquet",
            "attribution_error.parquet",
            "attribution_agreement.parquet",
            "neuron_error.parquet",
            "neuron_agreement.parquet",
            "head_links.parquet",
            "head_correlations.parquet",
            "figures/*.html",
        ),
    ),
    "steering": Known(("steering.parquet", "chosen.parquet", "directions.parquet"), ("figures/*.html",)),
    "ablation of latents": Known(
        ("feature_change.parquet", "ablated_sets.parquet", "ablation.parquet", "ablation_summary.parquet"),
        ("figures/*.html",),
    ),
    "swapped weights": Known(
        (
            "swaps.parquet",
            "interpolation.parquet",
            "weight_change.parquet",
            "weight_change_parts.parquet",
            "weight_change_spectra.parquet",
        ),
        ("swaps_reverse.parquet", "smallest_set.parquet", "figures/*.html"),
    ),
    "benchmark": Known(("result.json", "table.md"), ("figure.html",), ("result.json", "measures")),
    # a run of the whole experiment, and its parts
    "reproduction of the paper": Known(),
    "transfer between corruptions": Known(),
    "comparison": Known(),
    "null models": Known(),
    "scores of planted changes": Known(),
    "tables": Known(),
    "views": Known(),
    "figures": Known(),
}


def _recorded(kind: str) -> Known:
    """Return the content of a kind of which the first alone is needed, where a stage's record proves the rest."""
    needed, others, _ = FOLDER_KINDS[kind]
    return Known(needed[:1], needed[1:] + others)


_TABLES = Known(("*.parquet",))
RUN_FILES = (
    "stages/*.json",
    "config.json",
    "provenance.json",
    "claims.json",
    "report.html",
    "features.html",
    "transfer.html",
    "figures/*_single.*",
    "figures/*_double.*",
)
"""Single files of a run from before there were markers."""
RUN_PARTS: dict[str, tuple[str, str, Known]] = {
    "base": ("models/base", "fine-tuned checkpoint", _recorded("fine-tuned checkpoint")),
    "finetune/": ("models/", "fine-tuned checkpoint", _recorded("fine-tuned checkpoint")),
    "images/": ("images/", "prepared images", Known(("state.json",), ("dataset_info.json", "data-*.arrow"))),
    "saes/": ("saes/", "SAEs", _recorded("SAEs")),
    "study/": ("parts/study/", "tables", _TABLES),
    "sae-evaluation/": ("parts/saes/", "tables", _TABLES),
    "gain/": ("parts/gain/", "tables", _TABLES),
    "test/": ("parts/test/", "tables", _TABLES),
    "related": ("parts/related", "tables", _TABLES),
    "tables": ("tables", "tables", _TABLES),
    "views": ("views", "views", Known(("*.json",), ("*.safetensors",))),
}
"""Output of each stage of such a run: the stage's name or prefix; the folder, its kind and its content."""
