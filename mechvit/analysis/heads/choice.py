"""The head through which two models are compared: each model's own, the tuned model's on both encoders, or probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from mechvit.analysis.pairs.kinship import Kinship, kinship
from mechvit.arguments import checked
from mechvit.models.grafting import check_graft

if TYPE_CHECKING:
    from mechvit.models import HookedViT

Head = Literal["own", "tuned", "probe"]
"""`own`: each model's. `tuned`: the tuned model's on both encoders (`graft_head`). `probe`: one per model
(`fit_probe`).
"""
Asked = Literal["auto", "own", "tuned", "probe", "none"]
"""A head that is asked for; `none` leaves out all that needs a head."""


@dataclass(frozen=True)
class HeadChoice:
    """Heads through which two models are compared, side by side, and why these."""

    heads: tuple[Head, ...]
    """Heads in the order of the report; empty for none."""
    reason: str
    """Grounds of the choice, as a clause that follows the heads' names."""

    @property
    def for_interventions(self) -> Head | None:
        """The head that receiver and giver have in interventions: the first one; None for none."""
        return self.heads[0] if self.heads else None

    @property
    def sentence(self) -> str:
        """The choice and its grounds as a sentence."""
        named = " beside ".join(_TITLES[head] for head in self.heads) or "no head"
        return f"Compared through {named}: {self.reason}."


_TITLES: dict[str, str] = {
    "own": "each model's own head",
    "tuned": "the tuned model's head on both encoders",
    "probe": "a probe on each encoder",
}


@checked
def choose_head(
    base: HookedViT,
    tuned: HookedViT,
    *,
    labels: bool,
    asked: Asked = "auto",
    kin: Kinship | None = None,
    no_probe: str | None = None,
) -> HeadChoice:
    """Choose the head through which two models are compared.

    `auto` takes each model's own where the classes are the same; else the tuned model's head and probes side by side,
    the tuned model's alone for images without labels, probes alone where the tuned model's head cannot be grafted (it
    has none, or the models are no kin); and none where nothing of this can be had.

    Args:
        base, tuned: any two HookedViTs.
        labels: whether the images have labels.
        asked: `auto`, or one head.
        kin: what `kinship` found; None asks it, where it matters.
        no_probe: reason why no probe can be fitted although there are labels, such as too few images.

    Raises:
        ValueError: a head that was asked for and cannot be had.
    """
    if asked not in get_args(Asked):
        raise ValueError(f"a head is one of {', '.join(get_args(Asked))}; got {asked!r}")
    if asked == "none":
        return HeadChoice((), "none was asked for")
    no_own = why_not_own(base, tuned)
    if asked == "auto" and no_own is None:
        return HeadChoice(("own",), "the classes are the same")
    no_probe = no_probe if labels else "the images have no labels to fit a probe on"
    no_tuned = None if asked in ("own", "probe") else why_no_graft(base, tuned, kin)
    missing: dict[str, str | None] = {"own": no_own, "tuned": no_tuned, "probe": no_probe}
    if asked != "auto":
        if (why := missing[asked]) is not None:
            raise ValueError(f"{_TITLES[asked]} cannot be had here: {why}; ask for another, or for auto")
        return HeadChoice((asked,), "it was asked for")
    heads: tuple[Head, ...] = tuple(head for head in ("tuned", "probe") if missing[head] is None)
    grounds = [why for head in ("own", "tuned", "probe") if (why := missing[head]) is not None]
    return HeadChoice(heads, "; ".join(grounds))


def why_not_own(base: HookedViT, tuned: HookedViT) -> str | None:
    """Return the reason why two models cannot be compared through their own heads; None where they can."""
    for name, model in (("base", base), ("tuned", tuned)):
        if (reason := no_classes(model)) is not None:
            return f"the {name} model has no classes to compare, since {reason}"
    if base.cfg.id2label != tuned.cfg.id2label:
        return f"the models have other classes ({base.cfg.n_classes} and {tuned.cfg.n_classes})"
    return None


def why_no_graft(encoder: HookedViT, head_of: HookedViT, kin: Kinship | None = None) -> str | None:
    """Return the reason why the head of one model cannot be grafted onto the encoder of another; None where it can."""
    if (reason := no_classes(head_of)) is not None:
        return f"there is no head to graft, since {reason}"
    found = kin or kinship(encoder, head_of)
    if not found.is_kin:
        return f"a grafted head needs kin, and {found.reason}"
    try:
        check_graft(encoder.cfg, head_of.cfg)
    except ValueError as error:
        return str(error)
    return None


def no_classes(model: HookedViT) -> str | None:
    """Return the reason why a model's outputs are no classes; None where they are."""
    if model.head is None:
        return f"a {model.cfg.architecture} is a bare encoder"
    return model.cfg.no_softmax
