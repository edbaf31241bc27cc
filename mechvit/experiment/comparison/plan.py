"""The sections of a comparison that a pair allows, their images, and an estimate of the time they take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechvit.experiment.sections.exchanges import CONTROLS, SCALES
from mechvit.visualization.report.provenance_rows import duration

from .causes import FEWEST_STEERED, KINDS, causes, single_swaps
from .config import CompareConfig
from .measures import attention, behaviour, conditions, depth, difference, weights, why_no_cka
from .pair import Pair
from .pictures import VIEWED_CONDITIONS

if TYPE_CHECKING:
    from mechvit.models.config import HookedViTConfig

TIMED = 4
"""Images of the batch by which the time is estimated."""
LEAST = 0.3
"""Seconds for which each model at least runs on that batch: one pass of a small model says little on a busy machine."""
STATISTICS = 50.0
"""Time of the statistics of one weight of attention, in multiplications of a forward pass."""
DIRECTIONS = 2.5
"""Time of both spectra of a changed matrix with their directions, in that of one spectrum alone."""
PICTURED = 9.0
"""Passes of one model that the views of a picture take: three of each model, and what is made of their activations."""
TABLES = 0.5
"""Seconds for the intervals and tables of a section."""
MEASURES: dict[str, Callable[[Pair, int], Any]] = {
    "behaviour": behaviour,
    "depth": depth,
    "attention": attention,
    "weights": weights,
    "difference": difference,
    "causes": causes,
    "conditions": conditions,
}
"""Section -> function of the pair and the number of images that returns its tables; of `IN_PASS`, a `SharedSection`."""
IN_PASS = ("behaviour", "depth", "attention")
"""Sections that are measured in one pass of both models."""
NEED_HEAD = ("behaviour", "causes", "conditions")
NEEDS = {
    "attention": ("attention",),
    "weights": ("weight_change",),
    "difference": ("difference_lens",),
    "causes": ("swaps", "patching"),
}
"""Section -> quantities of `mechvit.analysis.requirements` without which it cannot run."""


@dataclass(frozen=True, kw_only=True)
class PlannedSection:
    """One section of a comparison."""

    name: str
    images: int
    """Number of images it takes; 0 for the weights alone."""
    passes: float
    """Forward passes of one model per image, all conditions and heads together, besides those of the shared pass; for
    the weights alone, as many passes of one image as take the same time."""
    quick: bool

    @property
    def function(self) -> Callable[[Pair, int], Any]:
        """Function of the pair and the number of images that measures it."""
        return single_swaps if self.name == "causes" and self.quick else MEASURES[self.name]

    def measure(self, pair: Pair) -> Any:
        """Return its tables or, in the shared pass, begin it."""
        return self.function(pair, self.images)

    @property
    def in_pass(self) -> bool:
        """Whether it is measured in the pass that sections share."""
        return self.name in IN_PASS

    @property
    def output_format(self) -> int:
        """Number to raise whenever it writes other tables from the same inputs."""
        return 2 if self.function in (causes, conditions) else 1  # 2: steering; first correct layers


def planned_sections(config: CompareConfig, pair: Pair) -> list[PlannedSection]:
    """Return the sections that were asked for, in order, with their costs."""
    return [
        PlannedSection(
            name=name,
            images=min(config.count(name), len(pair.unrelated if name == "difference" else pair.images)),
            passes=_passes(name, pair, config.count(name)),
            quick=config.quick,
        )
        for name in config.chosen
        if name in MEASURES
    ]


def allowed_sections(config: CompareConfig, pair: Pair) -> tuple[list[PlannedSection], list[tuple[str, str]]]:
    """Return the sections that a pair allows and, of all else that was asked for, what is left out and why."""
    allowed, left_out = [], []
    for section in planned_sections(config, pair):
        if (reason := why_not(section, pair)) is not None:
            left_out.append((section.name, reason))
            continue
        allowed.append(section)
        if (reason := why_no_steering(section, pair)) is not None:
            left_out.append(("steering", reason))
        if section.name == "depth" and (reason := why_no_cka(pair, section.images)) is not None:
            left_out.append(("CKA", reason))
    for condition in (each for each in pair.conditions if each not in pair.one_image):
        why = "it shows each model an image of its own, so that nothing was exchanged or compared image by image"
        left_out.append((condition.key, why))
    return allowed, left_out


def _passes(section: str, pair: Pair, images: int) -> float:
    """Return a section's forward passes per image besides those of the shared pass."""
    shown, heads, cfg = len(pair.asked_for), pair.choice.heads, pair.base.cfg
    both = 2 * shown
    if section == "behaviour":
        combined = 6 if pair.no_probe is None and heads not in ((), ("own",)) else 0
        return both * heads.count("probe") + combined
    if section == "depth":
        return both * (heads.count("probe") / 2 + (why_no_cka(pair, images) is None))
    if section == "attention":
        return both * STATISTICS * cfg.n_heads * cfg.n_tokens / cfg.d_model**2
    if section == "causes":
        return _passes_of_causes(pair, cfg.n_layers, shown, quick=pair.quick)
    if section == "weights":
        return _passes_of_weights(cfg, quick=pair.quick)
    return {"difference": 3.0, "conditions": 2.6 * shown * max(1, len(heads))}[section]


def _passes_of_weights(cfg: HookedViTConfig, *, quick: bool) -> float:
    """Return the passes of one image that take as long as the float64 spectra of every block's matrices."""
    sides = [(cfg.d_model, cfg.d_model)] * 4 + [(cfg.d_model, cfg.d_mlp)] * (3 if cfg.gated_mlp else 2)
    ordered = [(min(pair), max(pair)) for pair in sides]
    spectra = sum(2 * few**2 * many + 12 * few**3 for few, many in ordered)  # the Gram matrix and its eigenvalues
    multiplied = sum(2 * cfg.n_tokens * few * many for few, many in ordered)
    return (1 if quick else DIRECTIONS) * 2 * spectra / multiplied


def _passes_of_causes(pair: Pair, layers: int, shown: int, *, quick: bool) -> float:
    """Return passes per image, under all conditions: swaps from a block on take half a pass on average."""
    from mechvit.analysis.interventions.components import components_of, passes_needed

    half = (layers + 1) / 2
    if quick:
        return shown * (2 + 2 * (1 + half))
    cfg, line = pair.base.cfg, 8
    swapped = 2 + 2 * (1 + 3 * half) + 2 * half  # single blocks and branches both ways, and the first and the last k
    patched = passes_needed(cfg, components_of(cfg, KINDS, ("all",)))
    smallest = 2 * layers * layers / 4
    runs = 2 * (layers + 2) * (layers + 1) / 6
    steered = layers / 2 * len(SCALES) * (1 + CONTROLS) / 2  # a direction; on half of the images
    steering = (4 + steered + (shown - 1) * (8 + 4 * steered)) / 2  # two directions under a condition, and clean, too
    return shown * (swapped + line + 2 * patched + smallest + runs) + steering


def seconds_per_pass(pair: Pair) -> float:
    """Measure the time of one forward pass of an image, the mean over both models, on a small batch."""
    import torch

    from mechvit.analysis.inputs import model_batches, pixel_values

    images = pair.first(TIMED)
    taken = 0.0
    with torch.inference_mode():
        for batches in model_batches(pair.models, images, TIMED):
            for name, batch in batches.items():
                model = pair.models[name]
                pixels = pixel_values(model, batch)
                model(pixels[:1])
                start, runs, elapsed = time.perf_counter(), 0, 0.0
                while runs == 0 or elapsed < LEAST:
                    model(pixels)
                    runs, elapsed = runs + 1, time.perf_counter() - start
                taken += elapsed / runs
    return taken / 2 / len(images)


def plan_lines(
    sections: list[PlannedSection], seconds: float, config: CompareConfig, pair: Pair, *, saes: bool
) -> list[str]:
    """Return one line per section: images and an estimate of the time, and last the sum of these.

    Args:
        sections: those that are left to be measured.
        seconds: the time of a forward pass of one image.
        config: settings of the comparison.
        pair: both models.
        saes: whether SAEs are left to be measured.
    """
    shared = [section for section in sections if section.in_pass]
    longest = max(shared, key=lambda section: section.images, default=None)
    others = ", ".join(section.name for section in shared if section is not longest)
    lines, total = [], 0.0
    for section in sections:
        own = section.passes + (2 * len(pair.asked_for) if section is longest else 0)
        cost = max(1, section.images) * own * seconds + TABLES
        total += cost
        said = [_counted(section.images) if section.images else "weights alone", f"about {duration(cost)}"]
        if others and section.in_pass:
            said.append(f"in one pass with {others}" if section is longest else "in the same pass")
        lines.append(f"  {section.name:12} {', '.join(said)}")
    if "pictures" in config.chosen and any(section.name == "behaviour" for section in sections):
        shown = 1 + min(VIEWED_CONDITIONS, len(pair.asked_for) - 1)
        total += (cost := config.count("pictures") * PICTURED * shown * seconds)
        lines.append(f"  {'pictures':12} {_counted(config.count('pictures'))}, about {duration(cost)}")
    if saes:
        trained = len(pair.fitted_on) if config.saes == ("train",) else 0
        training = f"up to {config.sae_training.epochs} epochs of training on {_counted(trained)}, then "
        measured = _counted(min(config.count("saes"), len(pair.apart)))
        lines.append(f"  {'saes':12} {training if trained else ''}{measured}, no estimate")
    return [*lines, f"  altogether about {duration(total)}{', without SAEs' if saes else ''}"]


def _counted(images: int) -> str:
    return f"{images:,} image{'' if images == 1 else 's'}"


def why_not(section: PlannedSection, pair: Pair) -> str | None:
    """Return the reason why a section cannot be measured on a pair; None where it can."""
    if section.name in NEED_HEAD and not pair.choice.heads:
        return f"it needs a head on both models: {pair.choice.reason}"
    if section.name == "conditions" and not pair.labelled:
        return "it needs images with labels"
    if section.name == "difference" and section.images < 2:
        return "an interval needs at least 2 unrelated images"
    if section.function is causes and len(pair.first(section.images, pair.choice.heads[0])) < 2:
        return "it needs 2 images, one to choose a place and one to confirm it"
    return next((why for need in NEEDS.get(section.name, ()) if (why := pair.unmet(need)) is not None), None)


def why_no_steering(section: PlannedSection, pair: Pair) -> str | None:
    """Return the reason why a section of causes leaves out steering; None where it does not."""
    if section.function is not causes or len(pair.first(section.images, pair.choice.heads[0])) >= FEWEST_STEERED:
        return None
    return f"it needs {FEWEST_STEERED} images: two give directions, one chooses among them, and one confirms the choice"
