"""The figures of the report in order, each with its table, its source in the paper and its definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from mechvit.visualization.figures import attention, claims, lens, performance, saes

from . import captions as readings


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """One figure of the report."""

    id: str
    table: str
    """Name of the table from which both the figure and the paragraphs are made."""
    figure: Callable[[pd.DataFrame], go.Figure]
    reading: Callable[[pd.DataFrame], list[str]]
    """Function that writes paragraphs from the same table, or from the result of `summarise`."""
    source: str
    """Place in the paper."""
    definition: str
    columns: list[str] | None = None
    """Columns to read, for large tables; all when None."""
    summarise: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    """Function that reduces the table to what the figure and the CSV show; None if they show the table itself."""
    claims: tuple[str, ...] = ()
    """Prefixes of the ids of the claims that this figure concerns."""
    fold: str = ""
    """Heading of a group of consecutive figures that are folded away, and drawn when opened; empty for none."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, the question that the section answers, and its figures."""

    id: str
    title: str
    lead: str
    figures: tuple[FigureSpec, ...]


INTO_BASE = "tuned into base"
"""Direction of an exchange, in the tables of both runs: a part of the tuned model's in the base."""


def entitled(figure: go.Figure, name: str) -> go.Figure:
    """Return a figure whose title begins with a name."""
    return figure.update_layout(title_text=f"{name}: {figure.layout.title.text}")


CLAIMS = FigureSpec(
    id="claims-figure",
    table="claims",
    figure=claims.claims_forest,
    reading=readings.claims,
    source="its claims",
    definition="One row per claim. Large: the measurement that decides its verdict, with its 95% interval. Thin: its "
    "other measurements. Hover over a row to read the claim.",
)
"""Figure drawn from the run's `claims.json` rather than from a table, above all sections."""

PERFORMANCE = Section(
    id="performance",
    title="Performance",
    lead="Does tuning on a corruption help on new images with it? Does it help on other corruptions, and does it cost "
    "accuracy on clean images?",
    figures=(
        FigureSpec(
            id="table-one",
            table="performance_summary",
            figure=performance.table_one,
            reading=readings.table_one,
            source="Table 1",
            definition="Top-k: fraction of images whose label is among the k highest logits. ECE: expected calibration "
            "error, 15 equal-width bins, L1. Bars are bootstrap intervals over images.",
            claims=("better",),
        ),
        FigureSpec(
            id="gains",
            table="performance_summary",
            figure=performance.gains,
            reading=readings.gains,
            source="Figures 2 and 3",
            definition="Tuned minus base on the same images; bars are paired bootstrap intervals over images.",
            claims=("better", "monotone", "ordering"),
        ),
        FigureSpec(
            id="transfer",
            table="performance_summary",
            figure=performance.transfer,
            reading=readings.transfer,
            source="Section 4.1",
            definition="Numbers are top-1 accuracy; colour is the change over the base (blue higher, orange lower); "
            "bold where the paired interval of the change excludes zero.",
            claims=("no_transfer", "clean_unchanged"),
        ),
    ),
)

LENS = Section(
    id="lens",
    title="Class prediction across layers",
    lead="At which layer does the right class appear, and does it appear earlier after tuning?",
    figures=(
        FigureSpec(
            id="class-probability",
            table="lens_summary",
            figure=lens.class_probability,
            reading=readings.class_probability,
            source="Figure 4",
            definition="Logit lens: the classifier's softmax when its final norm and head read the residual stream "
            "after each block; layer 0 is the embedding. Solid: the base and the models tuned on the panel's family. "
            "Dotted: models tuned on the other family. Bands are bootstrap intervals over images.",
            claims=("certainty", "overtakes"),
        ),
        FigureSpec(
            id="first-correct",
            table="first_correct",
            figure=lens.first_correct_layers,
            reading=readings.first_correct_layers,
            source="Figures 5 and 6",
            definition="First correct layer: the first one at which the label has the highest logit. Images that are "
            "right at no layer are left out. Bars are bootstrap intervals over images.",
            columns=["model", "corruption", "image_id", "layer"],
            summarise=lens.first_correct_shares,
            claims=("earlier",),
        ),
        FigureSpec(
            id="first-correct-difference",
            table="first_correct_summary",
            figure=lens.first_correct_difference,
            reading=readings.first_correct_difference,
            source="Section 4.2",
            definition="First correct layer of the tuned model minus the base's: the mean over images that both get "
            "right at some layer, with a paired bootstrap interval.",
            claims=("earlier",),
        ),
    ),
)

ATTENTION = Section(
    id="attention",
    title="Attention",
    lead="Does a corruption spread attention out or concentrate it, and does tuning undo that?",
    figures=(
        FigureSpec(
            id="entropy",
            table="attention_summary",
            figure=attention.entropy_difference,
            reading=readings.entropy_difference,
            source="Figures 7 and 8",
            definition="H = −Σ p ln p of each attention row, averaged over heads and queries. The difference is "
            "corrupted minus clean for the same image: above zero, the corruption spread attention out. The paper does "
            "not state the sign.",
            claims=("entropy",),
        ),
        FigureSpec(
            id="pattern-change",
            table="attention_summary",
            figure=attention.pattern_change,
            reading=readings.pattern_change,
            source="Section 3.3",
            definition="Cosine and squared difference between each row of the clean and of the corrupted pattern of "
            "the same image, averaged over heads and queries.",
        ),
    ),
)

SAES = Section(
    id="saes",
    title="Sparse autoencoders",
    lead="Did tuning change the sparse features of the penultimate layer?",
    figures=(
        FigureSpec(
            id="sae-cosine",
            table="sae_cosine",
            figure=saes.cosine_distributions,
            reading=readings.cosine_distributions,
            source="Figures 9 and 10",
            definition="Cosine between the SAE codes of the same patch in the clean and in the corrupted image, each "
            "model with its own SAE on its penultimate residual stream. Bands are bootstrap intervals over images.",
            columns=["model", "architecture", "corruption", "image_id", "cosine"],
            summarise=saes.cosine_densities,
            claims=("sae_cosine",),
        ),
        FigureSpec(
            id="sae-distance",
            table="sae_distance",
            figure=saes.cosine_distances,
            reading=readings.cosine_distances,
            source="Section 4.4",
            definition="Distances between the base's and the tuned model's distributions of these cosines, under the "
            "corruption that the model was tuned on. Bars are bootstrap intervals over images.",
            claims=("sae_cosine",),
        ),
        FigureSpec(
            id="sae-training",
            table="sae_history",
            figure=saes.training_curves,
            reading=readings.training_curves,
            source="Section 4.4",
            definition="Solid: vanilla SAE. Dashed: BatchTopK SAE. Explained variance is measured on held-out tokens.",
        ),
    ),
)

SECTIONS = (PERFORMANCE, LENS, ATTENTION, SAES)
