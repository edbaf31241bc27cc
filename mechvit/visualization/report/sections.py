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
    """A heading, a sentence on the question it answers, and its figures."""

    id: str
    title: str
    lead: str
    figures: tuple[FigureSpec, ...]


CLAIMS = FigureSpec(
    id="claims-figure",
    table="claims",
    figure=claims.claims_forest,
    reading=readings.claims,
    source="its claims",
    definition="One row a claim. Large: the measurement that decides its verdict, with its 95% interval; thin: its "
    "other measurements. Hover to read the claim.",
)
"""Figure drawn from the run's `claims.json` rather than from a table, above all sections."""

PERFORMANCE = Section(
    id="performance",
    title="Performance",
    lead="Does tuning on corrupted images help on new ones, does it help elsewhere, and does it cost anything on clean "
    "images?",
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
    lead="At which depth does the right answer appear, and does tuning bring it forward?",
    figures=(
        FigureSpec(
            id="class-probability",
            table="lens_summary",
            figure=lens.class_probability,
            reading=readings.class_probability,
            source="Figure 4",
            definition="Logit lens: the classifier's softmax when its final norm and head read the residual stream "
            "after each block; layer 0 is the embedding. Solid: the base and models tuned on this family. Dotted: "
            "models tuned on the other. Bands are bootstrap intervals over images.",
            claims=("certainty", "overtakes"),
        ),
        FigureSpec(
            id="first-correct",
            table="first_correct",
            figure=lens.first_correct_layers,
            reading=readings.first_correct_layers,
            source="Figures 5 and 6",
            definition="The smallest layer whose highest logit is the label, over images correct at some layer. Bars "
            "are bootstrap intervals over images.",
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
            definition="Mean over images that both models get right at some layer, with a paired bootstrap interval.",
            claims=("earlier",),
        ),
    ),
)

ATTENTION = Section(
    id="attention",
    title="Attention",
    lead="Does corruption spread attention out or draw it together, and does tuning undo it?",
    figures=(
        FigureSpec(
            id="entropy",
            table="attention_summary",
            figure=attention.entropy_difference,
            reading=readings.entropy_difference,
            source="Figures 7 and 8",
            definition="H = −Σ p ln p of each attention row, averaged over heads and queries. The difference is "
            "corrupted minus clean for the same image: above zero, the corruption spread attention out. The paper does "
            "not fix its sign.",
            claims=("entropy",),
        ),
        FigureSpec(
            id="pattern-change",
            table="attention_summary",
            figure=attention.pattern_change,
            reading=readings.pattern_change,
            source="Section 3.3",
            definition="Between the clean and the corrupted pattern of the same image, row by row, averaged over heads "
            "and queries.",
        ),
    ),
)

SAES = Section(
    id="saes",
    title="Sparse autoencoders",
    lead="Did tuning change the sparse features that the penultimate layer is made of?",
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
            definition="Between the base's and the tuned model's distribution of cosines on the corruption that it was "
            "tuned on; bars are bootstrap intervals over images.",
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
