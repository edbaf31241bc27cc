"""Needs of each quantity of a comparison, and the reason where two models do not have them.

`needs_table` is the table of docs/methods.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from mechvit.arguments import checked
from mechvit.models.processors.preprocessing import described, differences

from .pair_checks import SHAPES
from .pairs.kinship import Kinship, kinship

if TYPE_CHECKING:
    from mechvit.models import HookedViT

Need = Literal["any", "classes", "heads", "grid", "width", "kin", "pixels", "values"]
"""`any`: the same images, and nothing of the models. `classes`: heads with the same classes, each model's own, a
grafted one or probes. `heads`: as many blocks, and as many attention heads in each. `grid`: the same patches of a
picture: grid and resizing, crop included. `width`: the same d_model, which nothing asks for alone. `kin`: one model was
trained from the other, which implies the same width. `pixels`: the same input size and resizing. `values`: the same
normalisation, too.
"""
WORDS: dict[Need, str] = {
    "any": "any two models",
    "classes": "heads of the same classes (their own, one grafted, or probes)",
    "heads": "as many blocks and heads",
    "grid": "the same grid of patches, crop included",
    "width": "the same width",
    "kin": "kin, so that weights and activations share a basis, and the same width",
    "pixels": "the same input size, resized and cropped alike",
    "values": "the same input size, resized, cropped and normalised alike",
}
"""Need -> the words of the table."""


@dataclass(frozen=True)
class Requirement:
    """Needs of one quantity."""

    title: str
    """The quantity as the subject of a sentence."""
    needs: tuple[Need, ...]
    plural: bool = False
    """Whether the subject is a plural."""


REQUIREMENTS: dict[str, Requirement] = {
    "accuracy": Requirement("accuracy and calibration", ("any",), plural=True),
    "cka": Requirement("CKA of the CLS tokens and of the mean patches", ("any",)),
    "lens": Requirement("lenses and prediction depth", ("any",), plural=True),
    "attention_summary": Requirement("each model's own entropy of attention, clean against shifted", ("any",)),
    "robustness": Requirement("corruption errors and Fourier sensitivity", ("any",), plural=True),
    "behaviour": Requirement("agreement, KL and flips", ("classes",), plural=True),
    "attention": Requirement("differences of attention on one image", ("heads", "grid"), plural=True),
    "patches": Requirement("patch-level comparisons (CKA of patches, patch lens side by side)", ("grid",), plural=True),
    "weight_change": Requirement("differences of weights", ("kin",), plural=True),
    "residual_cosine": Requirement("the cosine of residual streams between models", ("kin", "grid")),
    "difference_lens": Requirement("the difference lens", ("kin",)),
    "graft": Requirement("grafting a head", ("kin",)),
    "splice": Requirement("splicing one model's SAE into the other", ("kin",)),
    "patching": Requirement("patching activations across models", ("kin", "classes", "grid")),
    "swaps": Requirement("swapping weights", ("kin", "classes", "pixels")),
    "smallest_set": Requirement("the smallest set of weights", ("kin", "classes", "pixels")),
    "shortest_run": Requirement("the shortest run of blocks", ("kin", "classes", "pixels")),
    "interpolation": Requirement("interpolating weights", ("kin", "classes", "values")),
    "steering": Requirement("steering one model along its difference from the other", ("kin", "classes", "pixels")),
}
"""Quantity -> what it needs."""
_ORDER = get_args(Need)


@checked
def unmet(
    quantity: str, base: HookedViT, tuned: HookedViT, *, kin: Kinship | None = None, shared_head: bool = False
) -> str | None:
    """Return the reason why a quantity cannot be measured between two models; None where it can.

    Args:
        quantity: a key of `REQUIREMENTS`.
        base, tuned: any two HookedViTs.
        kin: what `kinship` found; None asks it, where it matters.
        shared_head: whether both are compared through one grafted head or through probes, whatever their own heads.

    Raises:
        ValueError: an unknown quantity.
    """
    if quantity not in REQUIREMENTS:
        raise ValueError(f"quantity must be one of {', '.join(REQUIREMENTS)}; got {quantity!r}")
    needed = REQUIREMENTS[quantity]
    for need in sorted(needed.needs, key=_ORDER.index):
        if need == "classes" and shared_head:
            continue
        if (why := _lacking(need, base, tuned, kin)) is not None:
            return f"{needed.title} {'need' if needed.plural else 'needs'} {WORDS[need]}; {why}"
    return None


def needs_table() -> str:
    """Return the table of all quantities and what they need, in Markdown."""
    lines = ["| quantity | needs |", "|---|---|"]
    lines += [f"| {r.title} | {'; '.join(WORDS[need] for need in r.needs)} |" for r in REQUIREMENTS.values()]
    return "\n".join(lines) + "\n"


def _lacking(need: Need, base: HookedViT, tuned: HookedViT, kin: Kinship | None) -> str | None:
    """Return what two models lack of one need; None where they have it."""
    if need == "classes":
        return _lacking_classes(base, tuned)
    if need == "width":
        widths = base.cfg.d_model, tuned.cfg.d_model
        return None if len(set(widths)) == 1 else f"theirs are {widths[0]} and {widths[1]}"
    if need == "kin":
        found = kin or kinship(base, tuned)
        return None if found.is_kin else found.reason
    if need == "heads":
        return _lacking_heads(base, tuned)
    if need in ("grid", "pixels", "values"):
        return _lacking_grid(base, tuned, need)
    return None


def _lacking_classes(base: HookedViT, tuned: HookedViT) -> str | None:
    for name, model in (("base", base), ("tuned", tuned)):
        if model.head is None:
            return f"the {name} model, a {model.cfg.architecture}, is a bare encoder"
        if model.cfg.no_softmax is not None:
            return f"the {name} model has no classes to choose from: {model.cfg.no_softmax}"
    if base.cfg.id2label != tuned.cfg.id2label:
        return f"theirs are others ({base.cfg.n_classes} and {tuned.cfg.n_classes})"
    return None


def _lacking_heads(base: HookedViT, tuned: HookedViT) -> str | None:
    for name in ("n_layers", "n_heads"):
        own, other = getattr(base.cfg, name), getattr(tuned.cfg, name)
        if own != other:
            return f"their {SHAPES[name]} are {own} and {other}"
    return None


def _lacking_grid(base: HookedViT, tuned: HookedViT, need: Need) -> str | None:
    for name in ("image_size", "patch_size", "n_prefix_tokens"):
        own, other = getattr(base.cfg, name), getattr(tuned.cfg, name)
        if own != other:
            return f"their {name} is {own} and {other}"
    found = differences(base.image_processor, tuned.image_processor)
    differing = found.place if need == "grid" else found.resizing
    differing = differing | found.scale if need == "values" else differing
    return f"their image processors differ in {described(differing)}" if differing else None
