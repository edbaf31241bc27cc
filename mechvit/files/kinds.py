"""Kinds of results that this package writes as folders, with the content of each before folders had markers.

A folder without a marker that contains only names of a kind, including the obligatory ones, is an earlier result of
that kind; any other belongs to somebody else.
"""

from __future__ import annotations

_CHECKPOINT = ("config.json", "model*.safetensors", "preprocessor_config.json", "model.safetensors.index.json")

FOLDER_KINDS: dict[str, tuple[str, ...]] = {
    # written by the Python API
    "fine-tuned checkpoint": ("training_log.json", *_CHECKPOINT),
    "hooked model": ("hooked_vit.json", "hooked_vit.safetensors", "preprocessor_config.json", "processor_config.json"),
    "tuned lens": ("tuned_lens.json", "tuned_lens.safetensors"),
    "prepared images": (),  # indistinguishable from a data set of the user's
    "SAEs": (
        "settings.json",
        "metrics.csv",
        "history.parquet",
        "*/cfg.json",
        "*/sae_weights.safetensors",
        "*/README.md",
        "wandb.json",
    ),
    "cached activations": (
        "plan.json",
        "shard-*/shard.json",
        "manifest.json",
        "shard-*/*.safetensors",
    ),
    "activations for sae-lens": (),
    # written by the commands
    "analysis": (
        "performance.parquet",
        "lens.parquet",
        "attention.parquet",
        "first_correct.parquet",
        "performance_summary.parquet",
        "lens_summary.parquet",
        "attention_summary.parquet",
        "first_correct_summary.parquet",
        "figures/*.html",
    ),
    "evaluation": ("performance.parquet", "performance_summary.parquet"),
    "robustness": (
        "robustness.parquet",
        "performance.parquet",
        "spectra.parquet",
        "fourier.parquet",
        "figures/*.html",
    ),
    "evaluation of SAEs": (
        "sae_quality.parquet",
        "sae_baselines.parquet",
        "sae_settings.parquet",
        "sae_density.parquet",
        "sae_cosine.parquet",
        "sae_features.parquet",
        "sae_sensitivity.parquet",
        "sae_matches.parquet",
        "frontier.html",
        "density.html",
    ),
    "representations": (
        "cka.parquet",
        "lens_readings.parquet",
        "prediction_depth.parquet",
        "lens_comparison.parquet",
        "depth_change.parquet",
        "lenses/*/tuned_lens.json",
        "lenses/*/tuned_lens.safetensors",
        "figures/*.html",
    ),
    "patching": (
        "summary.parquet",
        "patching.parquet",
        "references.parquet",
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
    "steering": ("steering.parquet", "chosen.parquet", "directions.parquet", "figures/*.html"),
    "ablation of latents": (
        "feature_change.parquet",
        "ablated_sets.parquet",
        "ablation.parquet",
        "ablation_summary.parquet",
        "figures/*.html",
    ),
    "swapped weights": (
        "swaps.parquet",
        "interpolation.parquet",
        "weight_change.parquet",
        "weight_change_parts.parquet",
        "weight_change_spectra.parquet",
        "swaps_reverse.parquet",
        "smallest_set.parquet",
        "figures/*.html",
    ),
    "benchmark": ("result.json", "table.md", "figure.html"),
    # a run of the whole experiment, and its parts
    "reproduction of the paper": (),
    "transfer between corruptions": (),
    "tables": (),
    "views": (),
    "figures": (),
}

OBLIGATORY = {
    "fine-tuned checkpoint": 4,
    "hooked model": 2,
    "tuned lens": 2,
    "SAEs": 5,
    "cached activations": 2,
    "analysis": 7,
    "evaluation": 2,
    "robustness": 3,
    "evaluation of SAEs": 5,
    "representations": 5,
    "patching": 3,
    "steering": 3,
    "ablation of latents": 4,
    "swapped weights": 5,
    "benchmark": 2,
}
"""Number of a kind's names, from the first, that every earlier result has."""
PROOFS = {
    "fine-tuned checkpoint": ("training_log.json", "epochs"),
    "hooked model": ("hooked_vit.json", "hooked_vit"),
    "tuned lens": ("tuned_lens.json", "checkpoint_hash"),
    "SAEs": ("settings.json", "streams"),
    "cached activations": ("plan.json", "checkpoint_hash"),
    "benchmark": ("result.json", "measures"),
}
"""A JSON file of each earlier result whose names might be anybody's, and a key that it holds."""
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
RUN_PARTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "base": ("models/base", "fine-tuned checkpoint", FOLDER_KINDS["fine-tuned checkpoint"]),
    "finetune/": ("models/", "fine-tuned checkpoint", FOLDER_KINDS["fine-tuned checkpoint"]),
    "images/": ("images/", "prepared images", ("state.json", "dataset_info.json", "data-*.arrow")),
    "saes/": ("saes/", "SAEs", FOLDER_KINDS["SAEs"]),
    "study/": ("parts/study/", "tables", ("*.parquet",)),
    "sae-evaluation/": ("parts/saes/", "tables", ("*.parquet",)),
    "gain/": ("parts/gain/", "tables", ("*.parquet",)),
    "test/": ("parts/test/", "tables", ("*.parquet",)),
    "related": ("parts/related", "tables", ("*.parquet",)),
    "tables": ("tables", "tables", ("*.parquet",)),
    "views": ("views", "views", ("*.json", "*.safetensors")),
}
"""Output of each stage of such a run: the stage's name or prefix; the folder, its kind and its content."""
