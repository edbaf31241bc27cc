"""Figures of a comparison on what the models answer and attend to, each from one table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from mechvit.visualization.figures import comparisons as draw
from mechvit.visualization.figures.table_checks import pick

from . import captions as readings
from . import rows
from .figure_spec import drawing, heads_of, spec, through
from .floors import beyond_rounding

if TYPE_CHECKING:
    from mechvit.visualization.report.run_results import RunResults
    from mechvit.visualization.report.sections import FigureSpec


def behaviour_figures(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    dots, _ = drawing(about)
    base = about["base"]
    for head in heads_of(about):
        says = through(about, head)
        of_head = partial(rows.of_all, head=head)
        if about["labelled"]:
            yield spec(
                f"answers-{head}",
                "behaviour_summary",
                "answers",
                "Answers",
                summarise=lambda table, of_head=of_head: rows.answer_rows(of_head(table), base),
                figure=lambda table, says=says: dots(
                    table,
                    f"Accuracy and calibration{says}",
                    {"accuracy": "accuracy", "ece": "ECE", "confidence": "mean confidence"},
                    base=base,
                ),
                reading=readings.answers,
            )
        yield spec(
            f"flips-{head}",
            "behaviour_summary",
            "flips",
            "Flips",
            summarise=lambda table, of_head=of_head: rows.flip_rows(of_head(table)),
            figure=lambda table, says=says: draw.flip_bars(table, f"Images with another prediction{says}"),
            reading=beyond_rounding(readings.flips, run, about),
        )
        yield spec(
            f"divergence-{head}",
            "behaviour_summary",
            "divergence",
            "Divergence",
            summarise=lambda table, of_head=of_head: rows.plain_rows(of_head(table), ("kl", "agreement")),
            figure=lambda table, says=says: dots(
                table,
                f"How far the outputs are apart{says}",
                {"kl": "KL(base ‖ tuned), nats", "agreement": "same prediction, fraction of images"},
            ),
            reading=readings.divergence,
        )
        for by in about["groups"]:
            yield _groups(about, by, head, says)
        if about["labelled"]:
            yield _groups(about, "label", head, says)


def _groups(about: dict[str, Any], by: str, head: str, says: str) -> FigureSpec:
    dots, _ = drawing(about)
    name = "class" if by == "label" else by
    return spec(
        f"by-{by}-{head}",
        "behaviour_summary",
        "groups",
        f"By {name}",
        summarise=lambda table: rows.most_changed(table, by, head),
        figure=lambda table: dots(
            table, f"Change of accuracy by {name}{says}", {"accuracy_change": "accuracy, tuned − base"}, zero=True
        ),
        reading=partial(readings.groups, name=name, most=rows.MOST_GROUPS),
    )


def depth_figures(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    dots, curves = drawing(about)
    yield spec(
        "streams",
        "residual_cosine" if run.has("residual_cosine") else "cka",
        "streams",
        "Residual streams",
        summarise=lambda table: rows.stream_rows(run),
        figure=lambda table: curves(
            table,
            "Residual streams of the same images in both models",
            {"cls": "cosine at CLS", "patches": "cosine at patches", "cka": "linear CKA"},
        ),
        reading=beyond_rounding(readings.streams, run, about),
    )
    for head in heads_of(about):
        says = through(about, head)
        yield spec(
            f"lens-{head}",
            "lens",
            "lens",
            "Logit lens",
            summarise=lambda table, head=head: rows.lens_rows(pick(table, head=head), about["base"]),
            figure=lambda table, says=says: curves(
                table,
                f"What the head reads at each layer{says}",
                {"probability": "probability of the label", "divergence": "KL(final ‖ lens), nats"},
                base=about["base"],
            ),
            reading=readings.lens,
        )
        yield spec(
            f"depth-change-{head}",
            "depth_change",
            "depth",
            "Prediction depth",
            summarise=lambda table, head=head: rows.depth_rows(pick(table, head=head)),
            figure=lambda table, says=says: dots(
                table, f"Change of prediction depth{says}", {"change": "layers, tuned − base"}, zero=True
            ),
            reading=beyond_rounding(readings.depth, run, about),
        )


def attention_figures(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    _, curves = drawing(about)
    yield spec(
        "attention-heads",
        "attention_heads",
        "heads",
        "Heads",
        summarise=lambda table: rows.attention_rows(pick(table, condition="clean")),
        figure=lambda table: draw.head_maps(table, "Attention of each head, tuned − base, clean", rows.HEAD_PANELS),
        reading=beyond_rounding(readings.heads, run, about),
    )
    yield spec(
        "attention-layers",
        "attention_layers",
        "attention",
        "Layers",
        summarise=rows.attention_rows,
        figure=lambda table: curves(table, "Attention by layer, tuned − base", rows.HEAD_PANELS, zero=True),
        reading=beyond_rounding(readings.attention_layers, run, about),
    )


def conditions_figures(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    _, curves = drawing(about)
    for head in heads_of(about):
        says = through(about, head)
        yield spec(
            f"condition-lens-{head}",
            "lens_summary",
            "conditions",
            "Logit lens",
            summarise=lambda table, head=head: rows.condition_rows(
                pick(table, head=head), about["base"], "probability"
            ),
            figure=lambda table, says=says: curves(
                table, f"Probability of the label by layer{says}", {"probability": "probability"}, base=about["base"]
            ),
            reading=readings.condition_lens,
        )
    yield spec(
        "condition-attention",
        "attention_summary",
        "conditions",
        "Attention entropy",
        summarise=lambda table: rows.condition_rows(table, about["base"], "entropy_difference"),
        figure=lambda table: curves(
            table,
            "Attention entropy, shifted − clean image, in each model",
            {"entropy_difference": "nats"},
            base=about["base"],
            zero=True,
        ),
        reading=readings.condition_attention,
    )
