"""Figures of a comparison on the models' parts: weights, the mean difference, exchanges, SAEs; each from one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from mechvit.visualization.figures import patching, steering, weights
from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.report.sections import INTO_BASE, entitled

from . import part_captions as readings
from . import rows
from .figure_spec import drawing, spec
from .floors import beyond_rounding

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechvit.visualization.report.run_results import RunResults
    from mechvit.visualization.report.sections import FigureSpec


def weights_figures(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    dots, curves = drawing(about)
    yield spec(
        "weight-parts",
        "weight_parts",
        "weights",
        "Size of the change",
        summarise=rows.weight_rows,
        figure=lambda table: dots(table, "Change of the weights", {"relative": "|change| / |base|"}, zero=True),
        reading=partial(readings.weight_parts, run=run),
    )
    yield spec(
        "weight-ranks",
        "weight_change",
        "ranks",
        "Rank of the change",
        summarise=rows.rank_rows,
        figure=lambda table: curves(
            table, "Effective rank of each matrix’s change", {"effective_rank": "effective rank"}, across="block"
        ),
        reading=beyond_rounding(readings.ranks, run, about),
    )


def difference_figures(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    _, curves = drawing(about)
    yield spec(
        "difference-size",
        "difference",
        "unrelated",
        "Size",
        summarise=rows.difference_rows,
        figure=lambda table: curves(
            table,
            "Mean difference on unrelated images",
            {"relative": "length / base’s mean", "mean_share": "share of the mean"},
        ),
        reading=beyond_rounding(readings.difference_size, run, about),
    )
    yield spec(
        "difference-read",
        "difference_readings",
        "read",
        "Readings",
        summarise=rows.reading_rows,
        figure=lambda table: curves(
            table, "What the heads read in it", {"base": "base’s head, logits", "tuned": "tuned head, logits"}
        ),
        reading=beyond_rounding(partial(readings.difference_read, run=run), run, about),
    )


def causes_figures(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    for place, tuned in enumerate(about["tuned"]):
        for direction in (INTO_BASE, "base into tuned"):
            chosen = partial(rows.of_pair, tuned=tuned, direction=direction)
            says = f"{tuned}: {direction}" if len(about["tuned"]) > 1 else direction.capitalize()
            id = f"{place}-{'base' if direction == INTO_BASE else 'tuned'}"
            yield spec(
                f"swaps-{id}",
                "swaps",
                "swaps",
                "Weights",
                summarise=lambda table, chosen=chosen: pick(chosen(table), kind="single", quantity="divergence"),
                figure=lambda table, says=says: entitled(weights.swap_recovery(table, quantity="divergence"), says),
                reading=beyond_rounding(
                    partial(readings.swaps, direction=direction, run=run, tuned=tuned), run, about, tuned
                ),
            )
            yield spec(
                f"patching-{id}",
                "patching",
                "patching",
                "Activations",
                summarise=lambda table, chosen=chosen: rows.clean_patching(chosen(table)),
                figure=lambda table, says=says: entitled(patching.patching_map(table, quantity="divergence"), says),
                reading=beyond_rounding(readings.patching, run, about, tuned),
            )
        yield spec(
            f"line-{place}",
            "interpolation",
            "line",
            "Between the weights",
            summarise=lambda table, tuned=tuned: pick(table, tuned=tuned).drop(columns="tuned"),
            figure=partial(
                _of_model,
                draw=partial(weights.interpolation_curves, quantities=("divergence", "accuracy", "loss")),
                name=tuned if len(about["tuned"]) > 1 else "",
            ),
            reading=beyond_rounding(readings.interpolation, run, about, tuned),
        )
        yield spec(
            f"steering-{place}",
            "steering",
            "steering",
            "Steering",
            summarise=lambda table, tuned=tuned: rows.steering_rows(pick(table, tuned=tuned)),
            figure=partial(
                _of_model,
                draw=partial(steering.steering_cost, quantity="divergence"),
                name=tuned if len(about["tuned"]) > 1 else "",
            ),
            reading=beyond_rounding(readings.steering, run, about, tuned),
        )


def _of_model(table: pd.DataFrame, draw: Callable[[pd.DataFrame], go.Figure], name: str) -> go.Figure:
    """Draw a figure of one tuned model, named in its title unless the name is empty."""
    return entitled(draw(table), name) if name else draw(table)


def saes_figures(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    dots, _ = drawing(about, "dictionary of ")
    yield spec(
        "sae-quality",
        "sae_quality",
        "saes",
        "Dictionaries",
        summarise=lambda table: rows.dictionary_rows(table, about["base"]),
        figure=lambda table: dots(
            table,
            "Quality of each dictionary on each model, clean images",
            {"explained_variance": "explained variance", "l0": "latents per token (L0)", "mse": "squared error"},
            base=f"dictionary of {about['base']}",
        ),
        reading=readings.dictionaries,
    )
    yield spec(
        "sae-cosine",
        "sae_cosine",
        "sae_cosine",
        "Codes",
        summarise=lambda table: rows.dictionary_rows(table, about["base"]),
        figure=lambda table: dots(
            table,
            "Cosine between the codes of clean and shifted images",
            {"cosine": "mean cosine"},
            base=f"dictionary of {about['base']}",
        ),
        reading=readings.dictionaries,
    )
