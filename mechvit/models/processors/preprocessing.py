"""Settings of an image processor that affect a picture, and those in which two processors differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .pixel_values import PixelScale, pixel_scale, settings_of

_SCALING = (
    "do_rescale",
    "rescale_factor",
    "rescale_offset",
    "offset",
    "do_normalize",
    "image_mean",
    "image_std",
)
"""Settings of the second step, from bytes to pixel values."""
_IDLE = frozenset(
    {
        *("default_to_square", "data_format", "input_data_format", "device", "return_tensors", "disable_grouping"),
        *("image_seq_length", "do_convert_rgb", "do_reduce_labels"),
    }
)
"""Settings without effect on an RGB picture."""
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Settings in which two image processors differ: name -> both values; None for a missing setting."""

    place: dict[str, tuple[Any, Any]]
    """Resizing and cropping: which part of a picture a patch shows."""
    resample: dict[str, tuple[Any, Any]]
    """Resampling filter: other bytes, but the same part of the picture in every patch."""
    scale: dict[str, tuple[Any, Any]]
    """Rescaling and normalisation: other values of the same bytes."""

    @property
    def resizing(self) -> dict[str, tuple[Any, Any]]:
        """Differences that give two models other bytes of the same picture."""
        return self.place | self.resample


def all_settings(image_processor: Any) -> dict[str, Any] | None:
    """Return every setting of an image processor with its class, to be stored with a model's pixels; None for None."""
    if image_processor is None:
        return None
    return {"image_processor_type": type(image_processor).__name__, **settings_of(image_processor)}


def changed_since(kept: Mapping[str, Any] | None, image_processor: Any) -> dict[str, tuple[Any, Any]]:
    """Return the settings with an effect in which an image processor differs from stored settings.

    Args:
        kept: as `all_settings` returned them; None, where nothing was stored, differs in nothing.
    """
    import transformers

    if kept is None or image_processor is None:
        return {}
    settings = dict(kept)
    kind = getattr(transformers, settings.pop("image_processor_type"), None)
    if kind is None:
        return unequal(kept, all_settings(image_processor) or {})
    found = differences(kind(**settings), image_processor)
    return found.resizing | found.scale


def resizing_of(image_processor: Any) -> dict[str, Any]:
    """Return the settings that determine which bytes an image processor makes of a picture."""
    settings = settings_of(image_processor)
    others = {name: value for name, value in settings.items() if name not in (*_SCALING, *_IDLE)}
    found: dict[str, Any] = {}
    if not _is_plain(image_processor):
        found["image_processor_type"] = type(image_processor).__name__
    size, crop, pad = (others.pop(name, None) for name in ("size", "crop_size", "pad_size"))
    resample = others.pop("resample", None)
    if others.pop("do_resize", False):
        filters = dict(enumerate(_FILTERS))
        found |= {"size": size, "resample": "bilinear" if resample is None else filters.get(resample, resample)}
    if others.pop("do_center_crop", False) and crop != found.get("size"):
        found["crop_size"] = crop
    if others.pop("do_pad", False) and pad is not None:
        found["pad_size"] = pad
    return found | {name: value for name, value in others.items() if value is not False}


def _is_plain(image_processor: Any) -> bool:
    """Return whether the class resizes and crops as transformers' PIL backend does, and nothing else."""
    from transformers import BeitImageProcessorPil
    from transformers.image_processing_backends import PilBackend

    kind = type(image_processor)
    parts = ("process_image", "resize", "center_crop", "pad", "_preprocess")
    own = [name for name in parts if getattr(kind, name, None) is not getattr(PilBackend, name)]
    return not own or (kind is BeitImageProcessorPil and own == ["_preprocess"])


def resizing_key(image_processor: Any) -> str:
    """Return `resizing_of` as canonical JSON, equal for processors that make the same bytes of every picture."""
    return json.dumps(resizing_of(image_processor), sort_keys=True)


def differences(first: Any, second: Any) -> Differences:
    """Return the settings with an effect in which two image processors differ.

    A missing processor (None) leaves values in [0, 1] unchanged and does not count as resizing differently.
    """
    scale = {}
    if not scale_of(first).is_same(scale_of(second)):
        raw = [{} if each is None else settings_of(each) for each in (first, second)]
        scale = unequal(*({name: each[name] for name in _SCALING if name in each} for each in raw))
    if first is None or second is None:
        return Differences(place={}, resample={}, scale=scale)
    found = unequal(resizing_of(first), resizing_of(second))
    resample = {name: values for name, values in found.items() if name == "resample" and None not in values}
    place = {name: values for name, values in found.items() if name not in resample}
    return Differences(place=place, resample=resample, scale=scale)


def scale_of(image_processor: Any) -> PixelScale:
    """Return `pixel_scale`, or the identity scale without a processor."""
    return PixelScale() if image_processor is None else pixel_scale(image_processor)


def unequal(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that are not equal, with both values."""
    names = dict.fromkeys((*first, *second))
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def described(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Format settings that differ for an error: `size {'height': 32, 'width': 32} and {'shortest_edge': 40}`."""
    return "; ".join(f"{name} {first} and {second}" for name, (first, second) in differing.items())


def check_alike(
    processors: Mapping[str, Any], what: str, *, in_: Literal["place", "resizing", "everything"] = "resizing"
) -> None:
    """Refuse models that do not see the same pixels, for a comparison that needs it.

    Args:
        processors: model name -> image processor.
        what: the comparison, as the subject of the error's sentence.
        in_: what must agree: the part of the picture that a patch shows (`place`), the bytes (`resizing`), or the
            values, too (`everything`).

    Raises:
        ValueError: names the settings that differ, with both values.
    """
    (first, own), *others = processors.items()
    for name, other in others:
        found = differences(own, other)
        differing = found.place if in_ == "place" else found.resizing
        differing = differing | found.scale if in_ == "everything" else differing
        if differing:
            raise ValueError(
                f"{what} needs models whose image processors {_NEED[in_]}; those of {first} and {name} differ in "
                f"{described(differing)}: give one model the other's image processor, if it was trained with that"
            )


_NEED = {
    "place": "show the same part of a picture in each patch",
    "resizing": "resize and crop alike",
    "everything": "resize, crop, rescale and normalise alike",
}
