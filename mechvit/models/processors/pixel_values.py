"""An image processor's work in two steps: resized bytes, then values on the model's scale.

Corruptions come between the steps, so a processor is never run as a whole on a model's images. That the two steps equal
it is checked once per processor, on pictures of several shapes and modes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

TOLERANCE = 1e-5
"""Largest difference allowed between the two steps and the processor, as a share of the largest value."""


@dataclass(frozen=True, kw_only=True)
class PixelScale:
    """Map from RGB in [0, 1] to pixel values: (image * scale - offset - mean) / std."""

    scale: float = 1.0
    """255 times the processor's rescale factor; 255 where it does not rescale."""
    offset: float = 0.0
    """1 where the processor centres the rescaled values on 0 (`rescale_offset`)."""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    """One value per channel, or one for all."""

    def is_same(self, other: PixelScale) -> bool:
        """Return whether both map every image to the same values, up to rounding."""
        lines = []
        for each in (self, other):
            mean, std = np.broadcast_to(each.mean, 3), np.broadcast_to(each.std, 3)
            lines.append(np.array([each.scale / std, (each.offset + mean) / std]))
        return bool(np.allclose(lines[0], lines[1], rtol=1e-6, atol=1e-6))

    def values(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Map RGB in [0, 1] to pixel values."""
        if self.scale != 1:
            images = images * self.scale
        if self.offset:
            images = images - self.offset
        if (self.mean, self.std) == ((0.0,), (1.0,)):
            return images
        mean, std = (images.new_tensor(part).view(-1, 1, 1) for part in (self.mean, self.std))
        return (images - mean) / std

    def unit(self, values: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Map pixel values back to RGB in [0, 1]."""
        mean, std = (values.new_tensor(part).view(-1, 1, 1) for part in (self.mean, self.std))
        return (values * std + mean + self.offset) / self.scale


def settings_of(image_processor: Any) -> dict[str, Any]:
    """Return every setting of an image processor as JSON values, including its class's defaults.

    Settings that its class does not know are left out, since transformers ignores them.

    Raises:
        ValueError: not an image processor of transformers.
    """
    if not callable(getattr(image_processor, "to_dict", None)):
        raise ValueError(
            f"an image processor must be one of transformers, as AutoImageProcessor loads it; got "
            f"{type(image_processor).__name__}"
        )
    known = getattr(image_processor, "_valid_kwargs_names", None)
    names = known if known is not None else [name for name in vars(image_processor) if not name.startswith("_")]
    found = {name: getattr(image_processor, name, None) for name in sorted(names)}
    return {name: json.loads(json.dumps(value, default=_plain)) for name, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return a size as a mapping without empty entries, and anything else as text."""
    from transformers.image_utils import SizeDict

    return {key: side for key, side in value if side is not None} if isinstance(value, SizeDict) else str(value)


def pixel_scale(image_processor: Any) -> PixelScale:
    """Return the second step of an image processor, after checking that the two steps are all it does.

    Raises:
        ValueError: it does something else; names the settings at fault.
    """
    settings = settings_of(image_processor)
    key = f"{type(image_processor).__module__}.{type(image_processor).__qualname__} {json.dumps(settings)}"
    if key not in _SCALES:
        _SCALES[key] = _checked(image_processor, settings)
    return _SCALES[key]


_SCALES: dict[str, PixelScale] = {}
"""Class and settings of each processor that was checked -> its scale."""


def check_channels(channels: int, where: str) -> None:
    """Refuse a model that does not take RGB, which corruptions and pictures are.

    Raises:
        ValueError: a number of channels other than 3.
    """
    if channels != 3:
        raise ValueError(
            f"images of {channels} channel{'' if channels == 1 else 's'} ({where}) are not supported: pictures are "
            "RGB, since corruptions are defined on RGB. For a model of grey images, repeat the kernel of the patch "
            "embedding, divided by 3, for three channels, and the processor's mean and deviation three times: on grey "
            "pictures the model computes the same. Without an image processor, the model can be run on tensors"
        )


def resized_bytes(
    rgb: Sequence[Image.Image], image_processor: Any, **options: Any
) -> UInt8[np.ndarray, "batch 3 height width"]:
    """Run an image processor's resize and crop on RGB pictures, and stop before it rescales.

    Args:
        rgb: upright pictures in RGB.
        image_processor: the checkpoint's.
        options: settings to change.

    Raises:
        ValueError: the processor returns values outside 0..255 or images of several sizes.
    """
    options |= {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    pixels = image_processor(list(rgb), **options)["pixel_values"]
    if pixels.dtype == np.uint8:
        return pixels
    rounded = np.rint(pixels)
    if rounded.min() < 0 or rounded.max() > 255:
        raise ValueError(
            f"{type(image_processor).__name__} must give 0..255 when do_rescale and do_normalize are off; got "
            f"{pixels.min():.3g} to {pixels.max():.3g}"
        )
    return rounded.astype(np.uint8)


def _checked(image_processor: Any, settings: dict[str, Any]) -> PixelScale:
    """Return the scale of a processor after comparing it with the processor's output."""
    name, mean = type(image_processor).__name__, settings.get("image_mean")
    if settings.get("do_normalize") and isinstance(mean, list):
        check_channels(len(mean), f"an image_mean of {mean}")
    scale = _scale(settings)
    fault = _fault(image_processor, scale, {})
    if fault is None:
        return scale
    switches = sorted(name for name, value in settings.items() if value is True)
    others = [name for name in switches if name not in _REPRODUCED]
    off = {name: {name: False} for name in (*others, *switches)}
    guilty = [name for name, less in off.items() if _fault(image_processor, _scale(settings | less), less) is None]
    named = [name for name in guilty if name in others] or guilty or others
    raise ValueError(
        f"this {name} cannot be reproduced: {fault}"
        + (f", because of {', '.join(f'{option}={settings[option]}' for option in named)}" if named else "")
        + ". Give the checkpoint a processor that resizes, crops, rescales and normalises alone, as a ViTImageProcessor"
    )


_REPRODUCED = {
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_convert_rgb",
    "rescale_offset",
    "default_to_square",
}
"""Switches that the two steps reproduce; any other active switch is named first as the cause of a difference."""


def _scale(settings: dict[str, Any]) -> PixelScale:
    """Compute the scale from the settings."""
    scale, offset = 255.0, 0.0
    if settings.get("do_rescale"):
        scale = 255 * float(settings["rescale_factor"])
        scale = 1.0 if abs(scale - 1) < 1e-12 else scale
        offset = float(bool(settings.get("rescale_offset") or settings.get("offset")))
    if not settings.get("do_normalize"):
        return PixelScale(scale=scale, offset=offset)
    mean, std = (_tuple(settings.get(name)) for name in ("image_mean", "image_std"))
    if not all(np.isfinite(mean)) or not all(part > 0 and np.isfinite(part) for part in std):
        raise ValueError(
            f"an image processor that normalises must have a finite image_mean and an image_std above 0; they are "
            f"{settings.get('image_mean')} and {settings.get('image_std')}"
        )
    return PixelScale(scale=scale, offset=offset, mean=mean, std=std)


def _tuple(values: Any) -> tuple[float, ...]:
    if isinstance(values, list):
        return tuple(map(float, values))
    return (float("nan" if values is None else values),) * 3


def _fault(image_processor: Any, scale: PixelScale, options: dict[str, Any]) -> str | None:
    """Return where the two steps and the processor differ, with some settings changed; None where they agree."""
    import torch

    for kind, picture, rgb in _pictures(converts=bool(getattr(image_processor, "do_convert_rgb", False))):
        try:
            theirs = np.asarray(image_processor(picture, return_tensors="np", **options)["pixel_values"])
            ours = resized_bytes([rgb], image_processor, **options)
        except Exception as error:  # invalid settings raise exceptions of many kinds
            return f"on {kind} it raises {type(error).__name__} ({(str(error).splitlines() or [''])[0]})"
        if theirs.ndim != 4 or theirs.shape != ours.shape or ours.shape[1] != 3:
            return f"of {kind} it makes {list(theirs.shape)}, not one image of 3 channels"
        if not np.array_equal(*(np.sign(np.diff(part.mean((0, 1)))) for part in (np.array(rgb), ours[0].T))):
            return f"of {kind} it does not keep the colours"
        ours = scale.values(torch.from_numpy(ours).float().div(255)).numpy()
        if not _close(ours, theirs.astype(np.float32), scale):
            return f"of {kind} it makes other values than its resize, rescale and normalisation"
    return None


def _close(ours: np.ndarray, theirs: np.ndarray, scale: PixelScale) -> bool:
    """Return whether values are equal up to rounding; the subtrahend counts too, since its rounding error stays."""
    taken = np.abs(np.asarray(scale.mean) / np.asarray(scale.std)).max()
    largest = max(float(np.abs(theirs).max()), float(taken))
    return bool(np.isfinite(theirs).all() and np.abs(ours - theirs).max() <= TOLERANCE * largest)


def _pictures(*, converts: bool) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Yield random pictures with their kinds and as RGB; other modes only if the processor converts them."""
    rng = np.random.default_rng(0)
    # Red is brighter than green, and green than blue, so that a wrong channel order is detected.
    noise = (rng.integers(0, 256, (90, 90, 3)) * [0.5, 0.7, 0.8] + [127, 50, 0]).astype(np.uint8)
    for kind, part in (("a wide picture", noise[:60]), ("a tall picture", noise[:, :60])):
        yield kind, Image.fromarray(part), Image.fromarray(part)
    if converts:
        grey = Image.fromarray(noise[..., 0])
        yield "a grey picture", grey, Image.merge("RGB", [grey] * 3)
        clear = np.kron(rng.integers(0, 2, (9, 9)), np.ones((10, 10))).astype(bool)[..., None]
        alpha = np.where(clear, 0, 255).astype(np.uint8)
        shown = np.where(clear, 255, noise).astype(np.uint8)
        yield "a transparent picture", Image.fromarray(np.concatenate([noise, alpha], 2)), Image.fromarray(shown)
