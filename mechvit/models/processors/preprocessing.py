"""The settings of an image processor that matter for a picture, and those in which two processors differ."""

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
"""Settings that change nothing of a picture in RGB."""
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Settings in which two image processors differ: name -> the value of each; None is a setting left out."""

    place: dict[str, tuple[Any, Any]]
    """Resizing and cropping: what a patch shows of a picture."""
    resample: dict[str, tuple[Any, Any]]
    """The filter: other bytes, but every patch shows the same part of the picture."""
    scale: dict[str, tuple[Any, Any]]
    """Rescaling and normalisation: other values of the same bytes."""

    @property
    def resizing(self) -> dict[str, tuple[Any, Any]]:
        """Those by which two models see other bytes of one picture."""
        return self.place | self.resample


def all_settings(image_processor: Any) -> dict[str, Any] | None:
    """Give every setting of an image processor with its class, for what is kept of a model's pixels; None of none."""
    if image_processor is None:
        return None
    return {"image_processor_type": type(image_processor).__name__, **settings_of(image_processor)}


def changed_since(kept: Mapping[str, Any] | None, image_processor: Any) -> dict[str, tuple[Any, Any]]:
    """Find the settings with an effect in which an image processor differs from those that were kept of one.

    Args:
        kept: of `all_settings`; None where nothing was kept, which differs from nothing.
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
    """Give the settings that decide which bytes an image processor makes of a picture; those without effect are out."""
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
    """Whether the class resizes and crops as transformers' PIL backend does, and nothing else."""
    from transformers import BeitImageProcessorPil
    from transformers.image_processing_backends import PilBackend

    kind = type(image_processor)
    parts = ("process_image", "resize", "center_crop", "pad", "_preprocess")
    own = [name for name in parts if getattr(kind, name, None) is not getattr(PilBackend, name)]
    return not own or (kind is BeitImageProcessorPil and own == ["_preprocess"])


def resizing_key(image_processor: Any) -> str:
    """Write `resizing_of` as canonical JSON: equal where two processors make the same bytes of every picture."""
    return json.dumps(resizing_of(image_processor), sort_keys=True)


def differences(first: Any, second: Any) -> Differences:
    """Find the settings in which two image processors differ, as far as they have an effect.

    A missing processor (None) leaves values in [0, 1] as they are, and resizes nothing: of bytes it differs from none.
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
    """Give `pixel_scale`, or for no processor the scale that changes nothing."""
    return PixelScale() if image_processor is None else pixel_scale(image_processor)


def unequal(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Give the settings that are not equal, with both values."""
    names = dict.fromkeys((*first, *second))
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def described(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Write settings that differ for an error: `size {'height': 32, 'width': 32} and {'shortest_edge': 40}`."""
    return "; ".join(f"{name} {first} and {second}" for name, (first, second) in differing.items())


def check_alike(
    processors: Mapping[str, Any], what: str, *, in_: Literal["place", "resizing", "everything"] = "resizing"
) -> None:
    """Refuse models that do not see the same pixels where a comparison needs it.

    Args:
        processors: a model's name -> its image processor.
        what: the comparison, for the error: it "needs" alike processors.
        in_: what must be alike: what a patch shows (`place`), the bytes (`resizing`) or the values, too (`everything`).

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
