"""Sparse autoencoders: cosine distributions (Figures 9 and 10), their distances, and training curves (section 4.4)."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import DASHES, MUTED, colour, finish, in_order, title_of, tuned_title, zero_line

from .table_checks import band, dot, error_bars, panels, pick, require

ARCHITECTURE_TITLES = {
    "standard": "Vanilla SAE",
    "batchtopk": "BatchTopK SAE",
    "topk": "TopK SAE",
    "jumprelu": "JumpReLU SAE",
    "gated": "Gated SAE",
    "matryoshka_batchtopk": "Matryoshka BatchTopK SAE",
}
ARCHITECTURE_DASHES = dict(zip(ARCHITECTURE_TITLES, DASHES, strict=True))
STATISTICS = {
    "wasserstein": "Wasserstein distance",
    "kolmogorov_smirnov": "Kolmogorov–Smirnov",
    "mean_difference": "Mean, tuned − base",
}
CURVES = {
    "explained_variance": "explained variance (fraction)",
    "l0": "L0 (active latents per token)",
    "dead_fraction": "dead latents (fraction)",
    "loss": "loss (squared activation per token)",
    "normalised_mse": "normalised MSE (fraction)",
}


def architectures(frame: pd.DataFrame) -> list[str]:
    """Return the SAE architectures in a table, the vanilla one first."""
    there = set(frame["architecture"].unique())
    return [key for key in ARCHITECTURE_TITLES if key in there]


@checked
def cosine_distributions(cosine: pd.DataFrame, bins: int = 60) -> go.Figure:
    """Draw Figures 9 and 10: cosines between the SAE codes of each patch, clean and corrupted, in base and tuned.

    Args:
        cosine: `sae_cosine`, one row per model, architecture, corruption, image and token; or its
            `analysis.cosine_histogram`.
        bins: number of equal bins between 0 (-1 if a cosine is negative) and 1.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    summed = "density" in cosine
    value = "density" if summed else "cosine"
    require(cosine, ("model", "architecture", "corruption", value), "sae_cosine")
    kinds = architectures(cosine)
    tuned = [key for key in in_order(cosine["model"]) if key != "base" and key in set(cosine["corruption"])]
    titles = [f"{ARCHITECTURE_TITLES[kind]}, {title_of(key)}" for kind in kinds for key in tuned]
    figure = panels(titles, len(kinds), columns=max(len(tuned), 1), shared_xaxes=True, vertical_spacing=0.14)
    histogram = cosine if summed else cosine_densities(cosine, bins)
    for row, kind in enumerate(kinds, start=1):
        for col, corruption in enumerate(tuned, start=1):
            for model in ("base", corruption):
                part = pick(histogram, model=model, architecture=kind, corruption=corruption)
                if len(part):
                    legend = row == 1 and (model != "base" or col == 1)
                    figure.add_traces(_density(part, model, legend), rows=row, cols=col)
    figure.update_yaxes(title_text="density", col=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(title_text="cosine of the SAE codes, clean against corrupted patch (1 = same)", row=len(kinds))
    finish(figure, "Cosine between clean and corrupted SAE codes", height=130 + 240 * len(kinds))
    return figure.update_layout(legend_y=1.08)


def cosine_densities(cosine: pd.DataFrame, bins: int = 60) -> pd.DataFrame:
    """Compute the histograms that `cosine_distributions` draws, per model, architecture and corruption."""
    from mechvit.analysis.summaries.histograms import cosine_histogram

    require(cosine, ("model", "architecture", "corruption", "cosine"), "sae_cosine")
    return cosine_histogram(cosine, bins=bins)


def _density(part: pd.DataFrame, model: str, legend: bool) -> list[go.Scatter]:
    """Return the traces of a histogram's outline as a stepped line, and of its interval's band."""
    tint, x = colour(model), ((part["left"] + part["right"]) / 2).to_numpy()
    interval = band(x, part["low"], part["high"], tint, model, alpha=0.22, shape="hvh")
    line = go.Scatter(
        x=x,
        y=part["density"].to_numpy(),
        customdata=part[["low", "high", "patches"]].to_numpy(),
        mode="lines",
        line={"color": tint, "width": 2, "shape": "hvh"},
        name=tuned_title(model),
        legendgroup=model,
        showlegend=legend,
        hovertemplate=f"<b>{title_of(model)}</b> density %{{y:.2f}} [%{{customdata[0]:.2f}}, %{{customdata[1]:.2f}}] "
        "at %{x:.2f}, %{customdata[2]:,} patches<extra></extra>",
    )
    return [*interval, line] if part["low"].notna().any() else [line]


@checked
def cosine_distances(distance: pd.DataFrame) -> go.Figure:
    """Draw three distances between the base's and a tuned model's cosine distributions, with intervals.

    Args:
        distance: `sae_distance` (model, architecture, corruption, statistic, value, low, high).

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(distance, ("model", "architecture", "corruption", "statistic", "value", "low", "high"), "sae_distance")
    names = [name for name in STATISTICS if name in set(distance["statistic"])]
    figure = panels([STATISTICS[name] for name in names], spacing=0.04)
    for col, statistic in enumerate(names, start=1):
        for model in in_order(distance["model"])[::-1]:
            for kind in architectures(distance)[::-1]:
                own = pick(distance, statistic=statistic, model=model, architecture=kind, corruption=model)
                trace = go.Scatter(
                    x=own["value"].to_numpy(),
                    y=[f"{title_of(model, short=True)}, {ARCHITECTURE_TITLES[kind]}"] * len(own),
                    error_x=error_bars(own["value"], own["low"], own["high"]),
                    customdata=own[["low", "high"]].to_numpy(),
                    mode="markers",
                    marker=dot(model, size=10),
                    showlegend=False,
                    hovertemplate="%{y}: %{x:.4f} [%{customdata[0]:.4f}, %{customdata[1]:.4f}]<extra></extra>",
                )
                figure.add_trace(trace, row=1, col=col)
    zero_line(figure, axis="x")
    finish(figure, "Distance between base and tuned distributions", height=300, legend=False)
    figure.update_xaxes(showgrid=True, nticks=4, title_text="cosine units", title_font_color=MUTED)
    if "kolmogorov_smirnov" in names:
        figure.update_xaxes(title_text="largest gap of the CDFs", col=names.index("kolmogorov_smirnov") + 1)
    return figure.update_layout(margin={"l": 160, "t": 84})


@checked
def training_curves(history: pd.DataFrame) -> go.Figure:
    """Draw each SAE's training: explained variance, L0, dead latents and loss against the tokens seen.

    Args:
        history: `sae_history` (model, architecture, step, tokens, epoch, metric, value).

    Raises:
        ValueError: a column is missing, or none of the metrics is among those drawn.
    """
    require(history, ("model", "architecture", "tokens", "metric", "value"), "sae_history")
    metrics = [name for name in CURVES if name in set(history["metric"])][:4]
    if not metrics:
        raise ValueError(f"table sae_history must have one of the metrics {', '.join(CURVES)}; it has none of them")
    figure = panels([CURVES[name][0].upper() + CURVES[name][1:] for name in metrics], shared_yaxes=False, spacing=0.07)
    for col, metric in enumerate(metrics, start=1):
        for model in in_order(history["model"]):
            for kind in architectures(history):
                part = pick(history, metric=metric, model=model, architecture=kind).sort_values("tokens")
                name = f"{title_of(model, short=True)}, {ARCHITECTURE_TITLES[kind]}"
                trace = go.Scatter(
                    x=part["tokens"].to_numpy(),
                    y=part["value"].to_numpy(),
                    mode="lines",
                    line={"color": colour(model), "width": 2, "dash": ARCHITECTURE_DASHES[kind]},
                    name=name,
                    legendgroup=name,
                    showlegend=col == 1,
                    hovertemplate=f"<b>{name}</b> %{{y:.3f}} after %{{x:.3s}} tokens<extra></extra>",
                )
                figure.add_trace(trace, row=1, col=col)
    finish(figure, "Training of the sparse autoencoders", height=350)
    figure.update_xaxes(title_text="tokens seen", nticks=4, tickformat="~s")
    return figure.update_layout(margin={"l": 44, "t": 116})
