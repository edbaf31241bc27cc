"""Descriptions of given arguments in words, and hints on how to convert them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .terminal import one_line

MADE_BY = {
    "Attribution": "attribution_patching gives one",
    "Browsing": "",
    "CacheConfig": "",
    "CachedActivations": "open a cache with mechvit.saes.CachedActivations(folder)",
    "CorruptionSpectrum": "corruption_spectrum gives one",
    "Direction": "steering_directions and sae_steering_direction give them",
    "ExperimentConfig": "take one of mechvit.experiment.PRESETS",
    "FeatureSets": "sensitive_features gives one",
    "FinetuneConfig": "",
    "LatentChange": "feature_change(...).models[name] is one",
    "LensTraining": "",
    "Mixture": "make one with Mixture.parse, as in 'gaussian_blur_4+fog_3'",
    "Patching": "patch_models gives one",
    "Rules": "",
    "SAEConfig": "",
    "SAEFeatures": "sae_features gives one",
    "ShuffleOptions": "",
    "SmallestSetConfig": "",
    "StreamConfig": "",
    "TrainConfig": "",
    "TransferConfig": "",
    "TunedLens": "open one with TunedLens.load(folder, model), or train it with train_tuned_lens",
    "ViTShape": "",
}
"""Classes of this package that functions take -> how to obtain them."""

_LONGEST = 60
_PIXELS = (
    "put pictures into a mechvit.data.ImageBatch (images [batch, 3, height, width] in [0, 1], labels, image_ids), or "
    "load them with mechvit.data.load_images"
)


def got(value: Any) -> str:
    """Describe a given value in words."""
    if value is None or isinstance(value, (str, bool, int, float)):
        shown = one_line(repr(value))
        return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
    if isinstance(value, os.PathLike):
        return f"the path {one_line(os.fspath(value))}"
    kind = type(value).__name__
    article = "an" if kind[:1] in "AEIOU" else "a"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{article} {kind} {list(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        members = {type(member).__name__ for member in (value.values() if isinstance(value, dict) else value)}
        return f"a {kind} of {len(value)}" + (f" ({', '.join(sorted(members))})" if members else "")
    return f"{article} {kind}"


def next_step(wanted: set[str], members: set[str], value: Any) -> str:
    """Return a hint on how to get from the given value to the wanted kind; "" without one.

    Args:
        wanted: names of the annotation's choices, such as `HookedViT` or `Mapping`.
        members: names of the members of lists and mappings among them.
        value: the given value.
    """
    kinds = {kind.__name__ for kind in type(value).__mro__}
    if "HookedViT" in wanted | members and (step := _model_step(value, kinds, "HookedViT" in wanted)):
        return step
    if "Mapping" in wanted and not isinstance(value, Mapping):
        return "give each a name, as {'base': ...}" if kinds & {"HookedViT", "SAE", "list", "tuple"} else ""
    if "datasets.Dataset" in wanted:
        return _images_step(value, kinds)
    if "SAE" in wanted:
        return _sae_step(value)
    if "pd.DataFrame" in wanted | members:
        return _table_step(value)
    if wanted & {"Condition", "Corruption"}:
        return _corruption_step(value, kinds)
    if isinstance(value, (str, int, float)) and wanted & {"Sequence", "Collection"}:
        return f"write [{one_line(repr(value))}]"
    if members & {"Condition", "Corruption"} and kinds & {"Condition", "Corruption"}:
        return "write it in brackets, as [corruption]"
    made = next((name for name in sorted(wanted | members) if name in MADE_BY), None)
    if made is None:
        return ""
    return f"write {made}(**settings)" if isinstance(value, dict) and made in wanted else MADE_BY[made]


def _model_step(value: Any, kinds: set[str], alone: bool) -> str:
    """Return how to get from anything that contains a model to a HookedViT."""
    from .wrapped_models import unwrapping

    if isinstance(value, (str, os.PathLike)):
        return f"load it first, with HookedViT.from_pretrained({one_line(repr(os.fspath(value)))})"
    if step := unwrapping(value):
        return step
    if "PreTrainedModel" in kinds:
        return "make it a HookedViT, with HookedViT.from_hf(model, image_processor)"
    if alone and isinstance(value, Mapping):
        return "give one of its models at a time"
    return ""


def _images_step(value: Any, kinds: set[str]) -> str:
    if isinstance(value, str):
        return f"load them first, with mechvit.data.load_images({one_line(repr(value))})"
    if isinstance(value, os.PathLike):
        return f"load them first, with mechvit.data.load_images({one_line(repr(f'folder:{os.fspath(value)}'))})"
    if "DatasetDict" in kinds:
        return "choose one of its parts, as images['test']"
    if "IterableDataset" in kinds:
        return "load it without streaming"
    pictures = value[:1] if isinstance(value, Sequence) else [value]
    if any(hasattr(picture, "shape") or hasattr(picture, "getbands") for picture in pictures):
        return _PIXELS
    return "mechvit.data.load_images makes one"


def _sae_step(value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return f"open it first, with mechvit.saes.load_sae({one_line(repr(os.fspath(value)))})"
    return "give one of its SAEs at a time" if isinstance(value, Mapping) else "open one with mechvit.saes.load_sae"


def _table_step(value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return f"read it first, with pandas.read_parquet({one_line(repr(os.fspath(value)))})"
    return "call its to_frame()" if hasattr(value, "to_frame") else ""


def _corruption_step(value: Any, kinds: set[str]) -> str:
    if "Mixture" in kinds:
        return "a mixture is for training alone; give its members one at a time"
    return "give one at a time" if isinstance(value, (list, tuple, set)) else ""
