"""The sections of a comparison's report, in order; models are named as the user's folders are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mechvit.visualization.report.sections import Section

from . import answer_figures as answers
from . import part_figures as parts

if TYPE_CHECKING:
    from mechvit.visualization.report.run_results import RunResults


def comparison_sections(run: RunResults, about: dict[str, Any]) -> list[Section]:
    """Return the sections for which a run has tables, in order."""
    made = {
        "behaviour": (
            "Behaviour",
            "What do the models answer differently, and which images are concerned?",
            answers.behaviour_figures,
        ),
        "depth": ("Depth", "From which layer on do the two models go different ways?", answers.depth_figures),
        "attention": ("Attention", "Which heads look elsewhere?", answers.attention_figures),
        "weights": ("Weights", "Which weights are different, and by how much?", parts.weights_figures),
        "difference": (
            "Difference lens",
            "What has tuning added to every image, whatever it shows? Read on unrelated images.",
            parts.difference_figures,
        ),
        "causes": ("Causes", "Which part carries the difference, if it is exchanged?", parts.causes_figures),
        "saes": ("Sparse autoencoders", "How well does one model’s dictionary serve the other?", parts.saes_figures),
        "conditions": ("Conditions", "What does each condition do inside each model?", answers.conditions_figures),
    }
    found = []
    for id, (title, lead, figures) in made.items():
        specs = tuple(spec for spec in figures(run, about) if run.has(spec.table))
        if specs:
            found.append(Section(id=id, title=title, lead=lead, figures=specs))
    return found
