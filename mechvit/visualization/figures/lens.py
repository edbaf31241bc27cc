"""The logit lens: probability of the correct class by layer (Figure 4) and first correct layers (Figures 5 and 6)."""

from __future__ import annotations

from itertools import product

import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import (
    DASHES,
    INK,
    colour,
    escaped,
    fade,
    family_of,
    finish,
    in_order,
    strongest_of_each,
    tint_of,
    title_of,
    tuned_title,
    zero_line,
)

from .table_checks import dot, error_bars, layer_lines, layer_step, ordered, panels, pick, require


@checked
def class_probability(summary: pd.DataFrame) -> go.Figure:
    """Draw Figure 4: mean probability of the correct class by layer, on each family's strongest corruption.

    Layer 0 is the embedding and layer l the output of block l - 1, each passed to the final norm and the head.

    Args:
        summary: `lens_summary` (model, corruption, layer, probability, low, high).

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(summary, ("model", "corruption", "layer", "probability", "low", "high"), "lens_summary")
    worst = strongest_of_each(summary["corruption"])
    figure = panels([f"Images with {title_of(key)}" for key in worst])
    for col, corruption in enumerate(worst, start=1):
        part = ordered(pick(summary, corruption=corruption))
        lines = layer_lines(part, "probability", own=family_of(corruption), legend=col == 1, unit="")
        figure.add_traces(lines, rows=1, cols=col)
    figure.update_xaxes(title_text="layer (0 = embedding)", dtick=layer_step(summary["layer"]))
    figure.update_yaxes(title_text="mean probability of the correct class", rangemode="tozero", row=1, col=1)
    return finish(figure, "Probability of the correct class, layer by layer", height=430)


@checked
def first_correct_layers(first: pd.DataFrame) -> go.Figure:
    """Draw Figures 5 and 6: the first layer at which the correct class ranks first, base against the tuned model.

    Args:
        first: `first_correct` (model, corruption, image_id, layer), with the images that are correct at some layer; or
            its `analysis.first_correct_histogram`.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    shares = first if "share" in first else first_correct_shares(first)
    require(shares, ("model", "corruption", "layer", "share", "low", "high", "images"), "first_correct")
    tuned = strongest_of_each(first["model"])
    figure = panels([f"Images with {title_of(key)}" for key in tuned])
    for col, corruption in enumerate(tuned, start=1):
        for model in ("base", corruption):
            part = pick(shares, model=model, corruption=corruption).sort_values("layer")
            points = part[["share", "low", "high"]] * 100
            bar = go.Bar(
                x=part["layer"].to_numpy(),
                y=points["share"].to_numpy(),
                customdata=part[["images"]].join(points[["low", "high"]]).to_numpy(),
                error_y=error_bars(points["share"], points["low"], points["high"], tint=INK) | {"thickness": 1.2},
                name=tuned_title(model),
                marker={"color": fade(colour(model), 0.55) if model == "base" else colour(model)},
                showlegend=model != "base" or col == 1,
                hovertemplate=f"<b>{title_of(model)}</b> layer %{{x}}: %{{y:.1f}}% [%{{customdata[1]:.1f}}, "
                "%{customdata[2]:.1f}] of %{customdata[0]} images<extra></extra>",
            )
            figure.add_trace(bar, row=1, col=col)
    figure.update_layout(barmode="group", bargap=0.28, bargroupgap=0.06)
    figure.update_xaxes(
        title_text="first layer whose top class is correct (0 = embedding)", dtick=layer_step(shares["layer"])
    )
    figure.update_yaxes(title_text="share of images (%)", row=1, col=1)
    return finish(figure, "First layer that ranks the correct class first", height=400)


def first_correct_shares(first: pd.DataFrame) -> pd.DataFrame:
    """Compute the histograms that `first_correct_layers` draws, of base and tuned models."""
    from mechvit.analysis.summaries.histograms import first_correct_histogram

    require(first, ("model", "corruption", "image_id", "layer"), "first_correct")
    tuned = strongest_of_each(first["model"])
    pairs = first["corruption"].isin(tuned) & ((first["model"] == "base") | (first["model"] == first["corruption"]))
    return first_correct_histogram(first[pairs].reset_index(drop=True)) if pairs.any() else first[pairs]


@checked
def first_correct_difference(summary: pd.DataFrame) -> go.Figure:
    """Draw the mean change of the first correct layer, tuned minus base on the same images; negative is earlier.

    Args:
        summary: `first_correct_summary`; only each model on the corruption that it was tuned on is drawn.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    columns = ("model", "corruption", "difference", "difference_low", "difference_high", "n_paired")
    require(summary, columns, "first_correct_summary")
    own = summary[(summary["model"] == summary["corruption"]) & (summary["model"] != "base")]
    require(own, columns, "first_correct_summary (a tuned model on its own corruption)")
    figure = go.Figure()
    for model in in_order(own["model"])[::-1]:
        part = pick(own, model=model)
        trace = go.Scatter(
            x=part["difference"].to_numpy(),
            y=[f"{tuned_title(model)}, on {title_of(model, short=True).lower()}"],
            error_x=error_bars(part["difference"], part["difference_low"], part["difference_high"]),
            customdata=part[["difference_low", "difference_high", "n_paired"]].to_numpy(),
            mode="markers",
            marker=dot(model, size=10),
            showlegend=False,
            hovertemplate=f"<b>{title_of(model)}</b> %{{x:+.2f}} layers [%{{customdata[0]:+.2f}}, "
            "%{customdata[1]:+.2f}], %{customdata[2]} images<extra></extra>",
        )
        figure.add_trace(trace)
    zero_line(figure, axis="x")
    figure.update_xaxes(title_text="change of the mean first correct layer, tuned − base (layers; negative = earlier)")
    finish(figure, "Change of the first correct layer, on the same images", height=300, legend=False)
    figure.update_xaxes(showgrid=True)
    return figure.update_layout(margin={"l": 170, "t": 56})


@checked
def image_trajectories(trajectories: pd.DataFrame) -> go.Figure:
    """Draw class probabilities of one image by layer: a panel per condition, a colour per model, a dash per class.

    Args:
        trajectories: model, condition, layer, class, probability, in drawing order.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(trajectories, ("model", "condition", "layer", "class", "probability"), "trajectories")
    conditions, models, classes = (list(trajectories[name].unique()) for name in ("condition", "model", "class"))
    figure = panels([escaped(condition) for condition in conditions])
    for (col, condition), model, (place, name) in product(enumerate(conditions, 1), models, enumerate(classes)):
        part = pick(trajectories, condition=condition, model=model)
        part = part[part["class"] == name].sort_values("layer")
        tint = tint_of(model, models)
        trace = go.Scatter(
            x=part["layer"].to_numpy(),
            y=part["probability"].to_numpy(),
            mode="lines+markers",
            line={"color": tint, "width": 2.4 if place == 0 else 1.6, "dash": DASHES[place % len(DASHES)]},
            marker={"color": tint, "size": 6 if place == 0 else 4},
            name=f"{escaped(model)}: {escaped(name)}",
            legendgroup=f"{models.index(model)}:{place}",
            showlegend=col == 1,
            hovertemplate=f"<b>{escaped(model)}</b>, {escaped(name)}, layer %{{x}}: %{{y:.3f}}<extra></extra>",
        )
        figure.add_trace(trace, row=1, col=col)
    figure.update_xaxes(title_text="layer (0 = embedding)", dtick=layer_step(trajectories["layer"]))
    figure.update_yaxes(title_text="probability of the class", range=[0, 1.02], row=1, col=1)
    finish(figure, "Class probabilities by layer", height=420)
    return figure.update_layout(margin={"t": 72, "b": 130}, legend={"y": -0.3, "yanchor": "top"})
