"""The first words of a comparison's report: what differs, what was compared, and what was not measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.number_format import listing
from mechvit.visualization.style import in_sentence

from .captions import number, part_of, percent, points, shown_images, span
from .floors import STEPS, is_rounding, kl_floor, rounded_alike, rounding_sentences, stored_alike
from .null_words import compared_nulls, limits_words, verdict
from .part_captions import place_sentence, places

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
    return f"How {listing(about['tuned'])} differ{'s' if len(about['tuned']) == 1 else ''} from {about['base']}"


def lead(run: RunResults, about: Mapping[str, Any]) -> list[str]:
    """Return a paragraph on each tuned model, computed from the tables."""
    return [" ".join(_of_one(run, about, tuned)) for tuned in about["tuned"]]


def _of_one(run: RunResults, about: Mapping[str, Any], tuned: str) -> list[str]:
    pixels, heads = about["pixels"][tuned], about["heads"][tuned]
    said = [_first(run, about, tuned)]
    if about["identical"][tuned] and not pixels:
        return said
    if pixels:
        said.append(f"Their image processors differ: {pixels}.")
    if run.has("behaviour_summary"):
        said += [sentence for head in heads for sentence in _behaviour(run, tuned, head, len(heads) > 1)]
    if run.has("place"):
        said += [place_sentence(row, run) for row in places(run, tuned)]
    if not about["kinship"][tuned]["is_kin"]:
        said.append(
            "The two were not trained from one another as far as their weights show, so that nothing that exchanges or "
            "subtracts weights or activations was measured."
        )
    return said


def _first(run: RunResults, about: Mapping[str, Any], tuned: str) -> str:
    """State whether the models differ, and by more than rounding."""
    base, pixels = about["base"], about["pixels"][tuned]
    if about["identical"][tuned]:
        computed = f", rounded to {about['dtype']}," if about["dtype"] in STEPS else ""
        if pixels:
            return (
                f"Every weight of {tuned}{computed} equals that of {base}; only what the image processors make of a "
                "picture differs."
            )
        return f"{tuned} is identical to {base}: every weight{computed} is equal, and so are the image processors."
    if about["equal_when_rounded"][tuned]:
        return f"{tuned} is {base} but for rounding: in the coarser dtype of the two every weight is equal."
    if rounded_alike(run, tuned):
        return f"The answers of {tuned} differ from those of {base} by no more than rounding alone makes."
    return verdict(run, base, tuned)


def _behaviour(run: RunResults, tuned: str, head: str, several: bool) -> list[str]:
    own = pick(run.table("behaviour_summary"), tuned=tuned, head=head, by="all")
    through = {"tuned": "Through the tuned head their", "probe": "Through probes their"}.get(head, "Their")
    said = []
    for condition, part in own.groupby("condition", sort=False):
        rows = {row.quantity: row for row in part.itertuples()}
        n = int(rows["kl"].n)
        other = (1 - rows["agreement"].value) * n
        differ = f"differ for {part_of(other, n, str(condition))}"
        if not round(other):
            differ = f"are the same for {'all ' if n > 1 else ''}{n:,} {shown_images(n, str(condition))}"
        text = f"{through if several else 'Their'} predictions {differ}, and KL(base ‖ tuned) is "
        text += f"{span(rows['kl'])} nats{limits_words(rows['kl'])}"
        if is_rounding(run, tuned, str(condition), head):
            floor = kl_floor(run, tuned, str(condition), head) or 0.0
            text += f", no more than rounding alone makes (up to {number(floor)})"
        if "accuracy_change" in rows:
            text += f"; {accuracy(rows)}"
        said.append(f"{text}.")
    return said


def accuracy(rows: Mapping[str, Any]) -> str:
    """State how accuracy changes; where no image's answer turns right or wrong, that it stays."""
    before, after, change = (rows[f"accuracy_{name}"] for name in ("base", "tuned", "change"))
    if not rows["negative_flips"].value and not rows["positive_flips"].value:
        return f"accuracy stays at {percent(before.value)}"
    moved = points(change.value, change.low, change.high)
    return f"accuracy goes from {percent(before.value)} to {percent(after.value)}, {moved}"


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
                row["stored_dtype"]
                if row["precision"] in (row["stored_dtype"], "float32")
                else f"{row['stored_dtype']}, holding {row['precision']}",
                row["hash"][:12],
            ],
        )
        for row in _in_order(about)
    ]


def _in_order(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the facts of each model, the base first and the others as they were given."""
    names = [about["base"], *about["tuned"]]
    return sorted(about["models"], key=lambda row: names.index(row["name"]))


def compared(run: RunResults, about: Mapping[str, Any]) -> list[str]:
    """State which images were shown, under which conditions, through which heads, and what rounding changes."""
    images = about["images"]
    said = [
        f"{row['name']}: {row['checkpoint']}{', commit ' + row['revision'][:12] if row['revision'] else ''}."
        for row in _in_order(about)
    ]
    source = "pictures given by name" if run.config["pictures"] else images["source"]
    said.append(f"Images ({source}, {_labels(about)}): {'; '.join(images['notes'])}.")
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
    said += compared_nulls(about)
    said.append(f"The models compute in {about['dtype']}, whatever they are stored in.")
    for tuned in about["tuned"]:
        said += rounding_sentences(run, about, tuned)
        said += [sentence] if (sentence := stored_alike(about, tuned)) else []
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
