"""The model card (Markdown) of a published SAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mechvit.code_version import described

_TITLES = {
    "standard": "vanilla (ReLU, L1 penalty)",
    "batchtopk": "BatchTopK (arXiv:2412.06410), published as JumpReLU",
    "topk": "TopK (arXiv:2406.04093)",
    "jumprelu": "JumpReLU (arXiv:2407.14435)",
    "gated": "gated (arXiv:2404.16014)",
    "matryoshka_batchtopk": "Matryoshka BatchTopK (arXiv:2503.17547), published as JumpReLU",
}
_TOKENS = {"all": "all tokens", "patches": "the image patches", "cls": "the class token"}

CARD = """\
---
{{ card_data }}
---

# {{ name }}

A sparse autoencoder, {{ title }}, of the activations of a vision transformer.

| | |
|---|---|
{{ about }}

## How to load it

```python
from sae_lens import SAE

sae = SAE.load_from_disk("{{ name }}")  # this folder; from the hub: SAE.from_pretrained(REPO, "{{ name }}")
codes = sae.encode(activations)  # raw activations at {{ hook_name }}, [..., {{ shape }}] -> [..., {{ d_sae }}]
```

## How good it was in training

On held-out tokens, with the same mix of corruptions, after {{ epoch }}:

| metric | value |
|---|---:|
{{ metrics }}

## How it was trained

| setting | value |
|---|---|
{{ settings }}
"""


def model_card(name: str, metadata: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Return the text of the card, made by `huggingface_hub.ModelCard`.

    Args:
        name: name of the SAE's folder.
        metadata: the metadata in its `cfg.json`.
        details: `d_in`, `d_sae`, and further rows of its settings.
    """
    from huggingface_hub import ModelCard, ModelCardData

    tokens = str(metadata["hook_tokens"])
    clean = float(metadata["clean_fraction"])
    corrupted = ", ".join(metadata["corruptions"])
    mix = f"{clean:.0%} clean" + (f", the rest {corrupted}" if corrupted and clean < 1 else "")
    hashes = metadata.get("checkpoint_hashes", [metadata["checkpoint_hash"]])
    about = {
        "model": metadata["model_name"],
        "SHA-256 of its weights": ", ".join(f"{found[:16]}…" for found in hashes),
        "hook point": f"`{metadata['hook_name']}`",
        "tokens": _TOKENS.get(tokens, tokens),
        "images": f"{mix}; fingerprint {metadata['data_fingerprint']}",
        **_commits(metadata),
    }
    settings = {
        **details,
        "k": metadata["k"],
        "learning rate": metadata["lr"],
        "training tokens": metadata["training_tokens"],
        "made by": described(metadata["mechvit"]),
        "scale of the activations in training (folded into the weights)": metadata["activation_scale"],
    }
    card = ModelCard.from_template(
        ModelCardData(library_name="saelens", tags=["sparse-autoencoder", "vision-transformer"]),
        template_str=CARD,
        name=name,
        title=_TITLES[metadata["architecture_in_training"]],
        hook_name=metadata["hook_name"],
        shape="head, d_head" if metadata["hook_name"].endswith("hook_z") else details["d_in"],
        d_sae=details["d_sae"],
        epoch="its last epoch" if metadata["best_epoch"] is None else f"epoch {metadata['best_epoch']}, its best",
        about=_rows(about),
        metrics=_rows(metadata["metrics"]),
        settings=_rows(settings),
    )
    return f"{card}\n"


def _commits(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return a row for every commit on the Hub that the metadata records."""
    models = [metadata.get("model_revision"), *metadata.get("model_revisions", [])]
    images = metadata.get("image_revisions", {}) | metadata.get("validation_image_revisions", {})
    rows = {"commit of the model": ", ".join(str(commit) for commit in models if commit)}
    rows |= {"commit of the images": ", ".join(f"{source}: {commit}" for source, commit in images.items())}
    return {title: commits for title, commits in rows.items() if commits}


def _rows(values: Mapping[str, Any]) -> str:
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    return "\n".join(f"| {key} | {value} |" for key, value in shown.items())
