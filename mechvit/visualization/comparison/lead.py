"""The first words of a comparison's report: what differs, what was compared, and what was not measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.style import in_sentence

from .captions import part_of, percent, place_sentence, places, points, span

if TYPE_CHECKING:
    from mechvit.visualization.report.run_results import RunResults

HEADS = {
    "own": "each model is read through its own head",
    "tuned": "both encoders are read through the tuned model’s head",
    "probe": "each encoder is read through a linear probe of its own, fitted on images that it is not judged on",
}
SECTION_TITLES = {
    "behaviour": "Behaviour",
    "depth": "Depth",
    "attention": "Attention",
    "weights": "Weights",
    "difference": "Difference lens",
    "causes": "Causes",
    "conditions": "Conditions",
    "saes": "Sparse autoencoders",
    "pictures": "Pictures",
}
MODEL_COLUMNS = ("class", "blocks", "width", "input", "classes", "stored as", "weights (hash)")


def title(about: Mapping[str, Any]) -> str:
    """Return the report's title: the models' names."""
    return f"How {', '.join(about['tuned'])} differ{'s' if len(about['tuned']) == 1 else ''} from {about['base']}"


def lead(run: RunResults, about: Mapping[str, Any]) -> list[str]:
    """Return a paragraph on each tuned model, computed from the tables."""
    return [" ".join(_of_one(run, about, tuned)) for tuned in about["tuned"]]


def _of_one(run: RunResults, about: Mapping[str, Any], tuned: str) -> list[str]:
    base = about["base"]
    pixels = about["pixels"][tuned]
    if about["identical"][tuned] and not pixels:
        return [f"{tuned} is identical to {base}: every weight is equal, and so are the image processors."]
    said = [f"{tuned} differs from {base}."]
    if about["identical"][tuned]:
        said = [
            f"Every weight of {tuned} equals that of {base}; only what the image processors make of a picture differs."
        ]
    if pixels:
        said.append(f"Their image processors differ: {pixels}.")
    if run.has("behaviour_summary"):
        heads = about["heads"][tuned]
        said += [sentence for head in heads for sentence in _behaviour(run, about, tuned, head, len(heads) > 1)]
    if run.has("place"):
        said += [place_sentence(row, run) for row in places(run, tuned)]
    if not about["kinship"][tuned]["is_kin"]:
        said.append(
            "The two were not trained from one another as far as their weights show, so that nothing that exchanges or "
            "subtracts weights or activations was measured."
        )
    return said


def _behaviour(run: RunResults, about: Mapping[str, Any], tuned: str, head: str, several: bool) -> list[str]:
    own = pick(run.table("behaviour_summary"), tuned=tuned, head=head, by="all")
    said = []
    for condition, part in own.groupby("condition", sort=False):
        rows = {row.quantity: row for row in part.itertuples()}
        through = f" (through {'the tuned head' if head == 'tuned' else 'probes'})" if several else ""
        n = int(rows["kl"].n)
        text = (
            f"{shown_images(str(condition), n)}{through} their predictions differ for "
            f"{part_of((1 - rows['agreement'].value) * n, n)}, and KL(base ‖ tuned) is {span(rows['kl'])} nats"
        )
        if "accuracy_change" in rows:
            change = rows["accuracy_change"]
            text += (
                f"; accuracy goes from {percent(rows['accuracy_base'].value)} to "
                f"{percent(rows['accuracy_tuned'].value)}, {points(change.value, change.low, change.high)}"
            )
        said.append(f"{text}.")
    return said


def shown_images(condition: str, count: int) -> str:
    """Return `On 114 clean images`, or `On 114 images under fog 3`."""
    images = "image" if count == 1 else "images"
    return (
        f"On {count:,} clean {images}"
        if condition == "clean"
        else f"On {count:,} {images} under {in_sentence(condition)}"
    )


def models(about: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return a row for each model, in the order of `MODEL_COLUMNS`."""
    return [
        (
            row["name"],
            [
                row["architecture"],
                str(row["n_layers"]),
                str(row["d_model"]),
                f"{row['image_size']} px, patches of {row['patch_size']}",
                str(row["n_classes"] or "none"),
                row["stored_dtype"],
                row["hash"][:12],
            ],
        )
        for row in about["models"]
    ]


def compared(about: Mapping[str, Any]) -> list[str]:
    """State which images were shown, under which conditions, and through which heads."""
    images = about["images"]
    said = [
        f"{row['name']}: {row['checkpoint']}{', commit ' + row['revision'][:12] if row['revision'] else ''}."
        for row in about["models"]
    ]
    said.append(f"Images ({_labels(about)}): {'; '.join(images['notes'])}.")
    if len(about["conditions"]) > 1:
        shown = ", ".join(map(in_sentence, about["conditions"]))
        said.append(f"Conditions: {shown}.")
        if about["sizes_differ"]:
            said.append(
                "The models take images of different sizes: a condition is applied once, at the larger size, and each "
                "model resizes the result; clean images reach each model through its own processor."
            )
    for tuned in about["tuned"]:
        how = "; ".join(HEADS[head] for head in about["heads"][tuned]) or "no head is used"
        said.append(f"{tuned}: {how}, because {about['head_reason'][tuned]}.")
        kin = about["kinship"][tuned]
        said.append(
            f"{tuned}: kinship {kin['value']:.3f} (unrelated models stay below {kin['bound']:.3f}): "
            f"{'kin' if kin['is_kin'] else 'no kin'}."
            if kin["value"] is not None
            else f"{tuned}: {kin['reason']}."
        )
    said.append(f"The models compute in {about['dtype']}, whatever they are stored in.")
    return said


def _labels(about: Mapping[str, Any]) -> str:
    """State which models' classes the images have."""
    named = [tuned for tuned, labelled in about["labels_of"].items() if labelled]
    if len(named) in (0, len(about["tuned"])):
        return "with labels" if named else "without labels"
    return f"with labels for {', '.join(named)} alone"


def unmeasured(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was not measured, with the reason."""
    several = len(about["tuned"]) > 1
    found = []
    for row in about["unmeasured"]:
        name = SECTION_TITLES.get(row["what"], row["what"])
        found.append((f"{name} ({row['tuned']})" if several and row["tuned"] else name, row["why"]))
    return found
