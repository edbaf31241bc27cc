"""The figures of a comparison's report, each from one table; models are named as the user's folders are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from mechvit.visualization.figures import comparisons as draw
from mechvit.visualization.figures import patching, weights
from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.report.sections import FigureSpec, Section

from . import captions as readings
from . import rows
from .definitions import DEFINITIONS, HEAD_TITLES

if TYPE_CHECKING:
    from mechvit.visualization.report.run_results import RunResults


INTO_BASE = "tuned into base"
"""Direction of an exchange, as in the tables."""


def comparison_sections(run: RunResults, about: dict[str, Any]) -> list[Section]:
    """Return the sections for which a run has tables, in order."""
    made = {
        "behaviour": (
            "Behaviour",
            "What do the models answer differently, and which images are concerned?",
            _behaviour,
        ),
        "depth": ("Depth", "From which layer on do the two models go different ways?", _depth),
        "attention": ("Attention", "Which heads look elsewhere?", _attention),
        "weights": ("Weights", "Which weights are different, and by how much?", _weights),
        "difference": (
            "Difference lens",
            "What has tuning added to every image, whatever it shows? Read on unrelated images.",
            _difference,
        ),
        "causes": ("Causes", "Which part carries the difference, if it is exchanged?", _causes),
        "saes": ("Sparse autoencoders", "How well does one model’s dictionary serve the other?", _saes),
        "conditions": ("Conditions", "What does each condition do inside each model?", _conditions),
    }
    found = []
    for id, (title, lead, figures) in made.items():
        specs = tuple(spec for spec in figures(run, about) if run.has(spec.table))
        if specs:
            found.append(Section(id=id, title=title, lead=lead, figures=specs))
    return found


def _spec(id: str, table: str, definition: str, source: str, **more: Any) -> FigureSpec:
    return FigureSpec(id=id, table=table, definition=DEFINITIONS[definition], source=source, **more)


def _through(about: dict[str, Any], head: str) -> str:
    """Return what a figure's title says of its head, where there are several."""
    return f", through {HEAD_TITLES[head]}" if len(_heads(about)) > 1 else ""


def _heads(about: dict[str, Any]) -> list[str]:
    """Return the heads through which some pair was read, in order."""
    return list(dict.fromkeys(head for heads in about["heads"].values() for head in heads))


def _behaviour(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    base = about["base"]
    for head in _heads(about):
        says = _through(about, head)
        of_head = partial(rows.of_all, head=head)
        if about["labelled"]:
            yield _spec(
                f"answers-{head}",
                "behaviour_summary",
                "answers",
                "Answers",
                summarise=lambda table, of_head=of_head: rows.answer_rows(of_head(table), base),
                figure=lambda table, says=says: draw.grouped_dots(
                    table,
                    f"Accuracy and calibration{says}",
                    {"accuracy": "accuracy", "ece": "ECE", "confidence": "mean confidence"},
                    base=base,
                ),
                reading=readings.answers,
            )
        yield _spec(
            f"flips-{head}",
            "behaviour_summary",
            "flips",
            "Flips",
            summarise=lambda table, of_head=of_head: rows.flip_rows(of_head(table)),
            figure=lambda table, says=says: draw.flip_bars(table, f"Images with another prediction{says}"),
            reading=readings.flips,
        )
        yield _spec(
            f"divergence-{head}",
            "behaviour_summary",
            "divergence",
            "Divergence",
            summarise=lambda table, of_head=of_head: rows.plain_rows(of_head(table), ("kl", "agreement")),
            figure=lambda table, says=says: draw.grouped_dots(
                table,
                f"How far the outputs are apart{says}",
                {"kl": "KL(base ‖ tuned), nats", "agreement": "same prediction, fraction of images"},
            ),
            reading=readings.divergence,
        )
        for by in about["groups"]:
            yield _groups(by, head, says)
        if about["labelled"]:
            yield _groups("label", head, says)


def _groups(by: str, head: str, says: str) -> FigureSpec:
    name = "class" if by == "label" else by
    return _spec(
        f"by-{by}-{head}",
        "behaviour_summary",
        "groups",
        f"By {name}",
        summarise=lambda table: rows.most_changed(table, by, head),
        figure=lambda table: draw.grouped_dots(
            table, f"Change of accuracy by {name}{says}", {"accuracy_change": "accuracy, tuned − base"}, zero=True
        ),
        reading=partial(readings.groups, name=name, most=rows.MOST_GROUPS),
    )


def _depth(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    yield _spec(
        "streams",
        "residual_cosine" if run.has("residual_cosine") else "cka",
        "streams",
        "Residual streams",
        summarise=lambda table: rows.stream_rows(run),
        figure=lambda table: draw.layer_curves(
            table,
            "Residual streams of the same images in both models",
            {"cls": "cosine at CLS", "patches": "cosine at patches", "cka": "linear CKA"},
        ),
        reading=readings.streams,
    )
    for head in _heads(about):
        says = _through(about, head)
        yield _spec(
            f"lens-{head}",
            "lens",
            "lens",
            "Logit lens",
            summarise=lambda table, head=head: rows.lens_rows(pick(table, head=head), about["base"]),
            figure=lambda table, says=says: draw.layer_curves(
                table,
                f"What the head reads at each layer{says}",
                {"probability": "probability of the label", "divergence": "KL(final ‖ lens), nats"},
                base=about["base"],
            ),
            reading=readings.lens,
        )
        yield _spec(
            f"depth-change-{head}",
            "depth_change",
            "depth",
            "Prediction depth",
            summarise=lambda table, head=head: rows.depth_rows(pick(table, head=head)),
            figure=lambda table, says=says: draw.grouped_dots(
                table, f"Change of prediction depth{says}", {"change": "layers, tuned − base"}, zero=True
            ),
            reading=readings.depth,
        )


def _attention(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    yield _spec(
        "attention-heads",
        "attention_heads",
        "heads",
        "Heads",
        summarise=lambda table: rows.attention_rows(pick(table, condition="clean")),
        figure=lambda table: draw.head_maps(table, "Attention of each head, tuned − base, clean", rows.HEAD_PANELS),
        reading=readings.heads,
    )
    yield _spec(
        "attention-layers",
        "attention_layers",
        "attention",
        "Layers",
        summarise=rows.attention_rows,
        figure=lambda table: draw.layer_curves(table, "Attention by layer, tuned − base", rows.HEAD_PANELS, zero=True),
        reading=readings.attention_layers,
    )


def _weights(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    yield _spec(
        "weight-parts",
        "weight_parts",
        "weights",
        "Size of the change",
        summarise=rows.weight_rows,
        figure=lambda table: draw.grouped_dots(
            table, "Change of the weights", {"relative": "|change| / |base|"}, zero=True
        ),
        reading=readings.weight_parts,
    )


def _difference(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    yield _spec(
        "difference-size",
        "difference",
        "unrelated",
        "Size",
        summarise=rows.difference_rows,
        figure=lambda table: draw.layer_curves(
            table,
            "Mean difference on unrelated images",
            {"relative": "length / base’s mean", "mean_share": "share of the mean"},
        ),
        reading=readings.difference_size,
    )
    yield _spec(
        "difference-read",
        "difference_readings",
        "read",
        "Readings",
        summarise=rows.reading_rows,
        figure=lambda table: draw.layer_curves(
            table, "What the heads read in it", {"base": "base’s head, logits", "tuned": "tuned head, logits"}
        ),
        reading=partial(readings.difference_read, run=run),
    )


def _causes(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    for place, tuned in enumerate(about["tuned"]):
        for direction in (INTO_BASE, "base into tuned"):
            chosen = partial(rows.of_pair, tuned=tuned, direction=direction)
            says = f"{tuned}: {direction}" if len(about["tuned"]) > 1 else direction.capitalize()
            id = f"{place}-{'base' if direction == INTO_BASE else 'tuned'}"
            yield _spec(
                f"swaps-{id}",
                "swaps",
                "swaps",
                "Weights",
                summarise=lambda table, chosen=chosen: pick(chosen(table), kind="single", quantity="divergence"),
                figure=lambda table, says=says: _entitled(weights.swap_recovery(table, quantity="divergence"), says),
                reading=partial(readings.swaps, direction=direction, run=run, tuned=tuned),
            )
            yield _spec(
                f"patching-{id}",
                "patching",
                "patching",
                "Activations",
                summarise=lambda table, chosen=chosen: rows.clean_patching(chosen(table)),
                figure=lambda table, says=says: _entitled(patching.patching_map(table, quantity="divergence"), says),
                reading=readings.patching,
            )
        yield _spec(
            f"line-{place}",
            "interpolation",
            "line",
            "Between the weights",
            summarise=lambda table, tuned=tuned: pick(table, tuned=tuned).drop(columns="tuned"),
            figure=partial(weights.interpolation_curves, quantities=("divergence", "accuracy", "loss")),
            reading=readings.interpolation,
        )


def _entitled(figure: go.Figure, says: str) -> go.Figure:
    return figure.update_layout(title_text=f"{says}: {figure.layout.title.text}")


def _saes(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    yield _spec(
        "sae-quality",
        "sae_quality",
        "saes",
        "Dictionaries",
        summarise=lambda table: rows.dictionary_rows(table, about["base"]),
        figure=lambda table: draw.grouped_dots(
            table,
            "Quality of each dictionary on each model, clean images",
            {"explained_variance": "explained variance", "l0": "latents per token (L0)", "mse": "squared error"},
            base=f"dictionary of {about['base']}",
        ),
        reading=readings.dictionaries,
    )
    yield _spec(
        "sae-cosine",
        "sae_cosine",
        "sae_cosine",
        "Codes",
        summarise=lambda table: rows.dictionary_rows(table, about["base"]),
        figure=lambda table: draw.grouped_dots(
            table,
            "Cosine between the codes of clean and shifted images",
            {"cosine": "mean cosine"},
            base=f"dictionary of {about['base']}",
        ),
        reading=readings.dictionaries,
    )


def _conditions(run: RunResults, about: dict[str, Any]) -> Iterator[FigureSpec]:
    for head in _heads(about):
        says = _through(about, head)
        yield _spec(
            f"condition-lens-{head}",
            "lens_summary",
            "conditions",
            "Logit lens",
            summarise=lambda table, head=head: rows.condition_rows(
                pick(table, head=head), about["base"], "probability"
            ),
            figure=lambda table, says=says: draw.layer_curves(
                table, f"Probability of the label by layer{says}", {"probability": "probability"}, base=about["base"]
            ),
            reading=readings.condition_lens,
        )
    yield _spec(
        "condition-attention",
        "attention_summary",
        "conditions",
        "Attention entropy",
        summarise=lambda table: rows.condition_rows(table, about["base"], "entropy_difference"),
        figure=lambda table: draw.layer_curves(
            table,
            "Attention entropy, shifted − clean image, in each model",
            {"entropy_difference": "nats"},
            base=about["base"],
            zero=True,
        ),
        reading=readings.condition_attention,
    )
