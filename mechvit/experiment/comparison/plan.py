"""The sections of a comparison that a pair allows, their images, and an estimate of the time they take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mechvit.experiment.sections.exchanges import CONTROLS, SCALES
from mechvit.visualization.report.provenance_rows import duration

from .causes import FEWEST_STEERED, KINDS, causes, single_swaps
from .config import CompareConfig
from .measures import Tables, attention, behaviour, conditions, depth, difference, weights
from .pair import Pair

TIMED = 4
"""Images of the batch by which the time is estimated."""


@dataclass(frozen=True, kw_only=True)
class PlannedSection:
    """One section of a comparison."""

    name: str
    measure: Callable[[Pair, int], Tables]
    images: int
    """Number of images it takes."""
    passes: float
    """Forward passes of one model per image, all conditions and heads together."""
    needs: tuple[str, ...] = ()
    """Quantities of `mechvit.analysis.requirements` without which it cannot run."""
    needs_head: bool = False
    output_format: int = 1
    """Number to raise whenever it writes other tables from the same inputs."""


def planned_sections(config: CompareConfig, pair: Pair) -> list[PlannedSection]:
    """Return the sections that were asked for, in order, with their costs."""
    shown, heads, layers = len(pair.asked_for), max(1, len(pair.choice.heads)), pair.base.cfg.n_layers
    each = 2 * shown
    swapped = single_swaps if config.quick else causes
    known = {
        "behaviour": (behaviour, each * heads, (), True),
        "depth": (depth, each * (2 + heads), (), False),
        "attention": (attention, 1.3 * each, ("attention",), False),
        "weights": (weights, 0.0, ("weight_change",), False),
        "difference": (difference, 3.0, ("difference_lens",), False),
        "causes": (swapped, _passes_of_causes(pair, layers, shown, quick=config.quick), ("swaps", "patching"), True),
        "conditions": (conditions, 2.6 * shown * heads, (), True),
    }
    return [
        PlannedSection(
            name=name,
            measure=known[name][0],
            images=min(config.count(name), len(pair.unrelated if name == "difference" else pair.images)),
            passes=known[name][1],
            needs=known[name][2],
            needs_head=known[name][3],
            output_format=2 if known[name][0] in (causes, conditions) else 1,  # 2: steering; first correct layers
        )
        for name in config.chosen
        if name in known
    ]


def _passes_of_causes(pair: Pair, layers: int, shown: int, *, quick: bool) -> float:
    """Return passes per image, under all conditions: swaps from a block on take half a pass on average."""
    from mechvit.analysis.interventions.components import components_of, passes_needed

    singles = 2 * (2 + layers / 2)
    if quick:
        return shown * singles
    cfg = pair.base.cfg
    branches, ends, line = 3 * layers / 2, layers, 8
    patched = passes_needed(cfg, components_of(cfg, KINDS, ("all",)))
    smallest = 2 * layers * layers / 4
    runs = 2 * (layers + 2) * (layers + 1) / 6
    steered = layers / 2 * len(SCALES) * (1 + CONTROLS) / 2  # a direction; on half of the images
    steering = (4 + steered + (shown - 1) * (8 + 4 * steered)) / 2  # two directions under a condition, and clean, too
    return shown * (2 * (2 + branches + ends) + line + 2 * patched + smallest + runs) + steering


def seconds_per_pass(pair: Pair) -> float:
    """Measure the time of one forward pass of an image, the mean of both models, on a small batch."""
    import torch

    from mechvit.analysis.inputs import model_batches, pixel_values

    images = pair.first(TIMED)
    taken = 0.0
    with torch.inference_mode():
        for batches in model_batches(pair.models, images, TIMED):
            for name, batch in batches.items():
                model = pair.models[name]
                pixels = pixel_values(model, batch)
                model(pixels)
                start = time.perf_counter()
                model(pixels)
                taken += time.perf_counter() - start
    return taken / 2 / len(images)


def plan_lines(sections: list[PlannedSection], seconds: float, config: CompareConfig, pair: Pair) -> list[str]:
    """Return one line per section: images and an estimate of the time, and last the sum of these."""
    lines = []
    for section in sections:
        cost = section.images * section.passes * seconds
        images = f"{section.images:,} image{'' if section.images == 1 else 's'}" if section.passes else "weights alone"
        about = f"about {duration(cost)}" if section.passes else "seconds"
        lines.append(f"  {section.name:12} {images}, {about}")
    if "saes" in config.chosen:
        trained = len(pair.fitted_on) if config.saes == ("train",) else 0
        training = (
            f"up to {config.sae_training.epochs} epochs of training on {trained:,} images, then " if trained else ""
        )
        measured = min(config.count("saes"), len(pair.apart))
        lines.append(f"  {'saes':12} {training}{measured:,} image{'' if measured == 1 else 's'}, no estimate")
    total = sum(section.images * section.passes * seconds for section in sections)
    rest = ", without SAEs" if "saes" in config.chosen else ""
    return [*lines, f"  altogether about {duration(total)}{rest}"]


def why_not(section: PlannedSection, pair: Pair) -> str | None:
    """Return the reason why a section cannot be measured on a pair; None where it can."""
    if section.needs_head and not pair.choice.heads:
        return f"it needs a head on both models: {pair.choice.reason}"
    if section.name == "conditions" and not pair.labelled:
        return "it needs images with labels"
    if section.name == "difference" and section.images < 2:
        return "an interval needs at least 2 unrelated images"
    if section.measure is causes and len(pair.first(section.images, pair.choice.heads[0])) < 2:
        return "it needs 2 images, one to choose a place and one to confirm it"
    return next((why for need in section.needs if (why := pair.unmet(need)) is not None), None)


def why_no_steering(section: PlannedSection, pair: Pair) -> str | None:
    """Return the reason why a section of causes leaves out steering; None where it does not."""
    if section.measure is not causes or len(pair.first(section.images, pair.choice.heads[0])) >= FEWEST_STEERED:
        return None
    return f"it needs {FEWEST_STEERED} images: two give directions, one chooses among them, and one confirms the choice"
