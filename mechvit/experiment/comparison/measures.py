"""The sections of a comparison: each measures one pair and returns tidy tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechvit.data.corruption_spec import CLEAN
from mechvit.experiment.sections.representations import FEWEST, lens_tables, similarity_table
from mechvit.experiment.sections.study import study_summaries

from .one_pass import PassRequest, SharedSection, Tables
from .pair import Pair

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.analysis.behaviour.behaviour_change import BehaviourChange


def behaviour(pair: Pair, count: int) -> SharedSection:
    """Compare predictions through each head, and encoders with every head that they can have.

    behaviour: head, and the columns of `BehaviourChange.images`; behaviour_summary: head, and those of
    `BehaviourChange.summary`; where probes can be fitted, and with other heads than each model's own, combinations and
    combination_gains, as `HeadCombinations.summary` and `gains`.
    """
    import pandas as pd

    from mechvit import analysis
    from mechvit.analysis.behaviour.behaviour_change import BehaviourMeasurement

    images, tables, summaries = pair.first(count), [], []
    measured = {
        reading.head: BehaviourMeasurement(reading.base, reading.tuned, images, pair.groups)
        for reading in pair.readings
        if reading.head != "probe"
    }
    yield [PassRequest(each, count) for each in measured.values()]
    for head in pair.choice.heads:
        found = _of_probes(pair, images) if head == "probe" else measured[head].result()
        tables.append(found.to_frame(head=head))
        summaries.append(found.summary(**pair.bootstrap).assign(head=head))
    made = {
        "behaviour": pd.concat(tables, ignore_index=True),
        "behaviour_summary": pd.concat(summaries, ignore_index=True),
    }
    if pair.no_probe is None and pair.choice.heads != ("own",):
        every = analysis.head_combinations(
            pair.base, pair.tuned, images, kin=pair.kin, progress="Encoders and heads", **pair.asked
        )
        made |= {"combinations": every.summary(**pair.bootstrap), "combination_gains": every.gains(**pair.bootstrap)}
    return made


def _of_probes(pair: Pair, images: datasets.Dataset) -> BehaviourChange:
    """Compare cross-fitted probes, one for each model, fitted on clean images."""
    from mechvit import analysis

    probes = {
        name: analysis.fit_probe(model, images, progress=f"Probe of the {name} model", **pair.asked)
        for name, model in pair.models.items()
    }
    groups = {name: images[name][:] for name in pair.groups}
    classes = [probes["base"].id2label[index] for index in range(len(probes["base"].id2label))]
    parts = []
    for condition in pair.one_image:
        shown = {
            name: probe
            if condition == CLEAN
            else analysis.cross_fitted(pair.models[name], probe, images, condition, **pair.asked)
            for name, probe in probes.items()
        }
        parts.append(
            analysis.behaviour_of_logits(
                shown["base"].logits,
                shown["tuned"].logits,
                shown["base"].label,
                shown["base"].image_id,
                condition=condition.key,
                groups=groups,
                classes=classes,
            )
        )
    return analysis.BehaviourChange.concatenate(parts)


def depth(pair: Pair, count: int) -> SharedSection:
    """Compare residual streams of the same images, layer by layer, and what each head reads there.

    residual_cosine: as `ResidualCosine.summary` (kin of one shape only); cka (unless `why_no_cka`): condition,
    layer_base, layer_tuned (the same, or at the same share of each model's depth), cka, low, high; lens: head, and the
    columns of `lens_comparison_summary`; depth_change: head, and those of `depth_summary`.
    """
    import pandas as pd

    from mechvit.analysis.lenses.comparison import LensMeasurement
    from mechvit.analysis.representations.residual_cosine import CosineMeasurement

    found = dict[str, pd.DataFrame]()
    alike = pair.unmet("residual_cosine") is None
    cosine = CosineMeasurement(pair.base, pair.tuned) if alike else None
    lenses = {
        reading.head: {
            name: LensMeasurement(name, model, {"logit": None}, pair.first(count, reading.head))
            for name, model in reading.models.items()
        }
        for reading in pair.readings
    }
    wanted = [PassRequest(lens, count, head) for head, own in lenses.items() for lens in own.values()]
    yield wanted if cosine is None else [PassRequest(cosine, count), *wanted]
    if cosine is not None:
        found["residual_cosine"] = cosine.result().summary(**pair.bootstrap)
    if why_no_cka(pair, count) is None:
        found["cka"] = _cka(pair, count)
    summaries: dict[str, list[pd.DataFrame]] = {}
    for head, own in lenses.items():
        read = [
            ({"model": name, "corruption": condition, "lens": "logit"}, readings["logit"])
            for name, lens in own.items()
            for condition, readings in lens.result().items()
        ]
        for name, table in zip(("lens", "depth_change"), lens_tables(read, pair.bootstrap), strict=True):
            summaries.setdefault(name, []).append(table.assign(head=head))
    return found | {name: pd.concat(tables, ignore_index=True) for name, tables in summaries.items()}


def why_no_cka(pair: Pair, count: int) -> str | None:
    """Return the reason why CKA is not measured; None where it is."""
    images = len(pair.first(count))
    if images < FEWEST:
        return f"it needs at least {FEWEST} images, and there are {images}"
    if pair.quick and pair.unmet("residual_cosine") is None:
        return "a quick comparison of kin takes the cosine of their residual streams alone"
    return None


def _cka(pair: Pair, count: int) -> pd.DataFrame:
    from mechvit import analysis
    from mechvit.analysis.representations.cka import View

    alike = pair.base.cfg.n_layers == pair.tuned.cfg.n_layers
    table = similarity_table(
        pair.models,
        pair.first(count),
        [(View("base", condition), View("tuned", condition)) for condition in pair.one_image],
        lambda own, _: {"condition": own.corruption.key},
        pair.bootstrap["level"],
        layers=None if alike else analysis.layers_by_depth(pair.models),
        **pair.asked,
    )
    return table.rename(columns={"layer_a": "layer_base", "layer_b": "layer_tuned"})


def attention(pair: Pair, count: int) -> SharedSection:
    """Compare attention patterns on the same images: attention_heads and attention_layers, as
    `AttentionChange.summary`.
    """
    from mechvit.analysis.attention.attention_change import AttentionMeasurement

    measured = AttentionMeasurement(pair.base, pair.tuned)
    yield [PassRequest(measured, count)]
    found = measured.result()
    return {
        "attention_heads": found.summary(**pair.bootstrap),
        "attention_layers": found.summary(by="layer", **pair.bootstrap),
    }


def weights(pair: Pair, count: int) -> Tables:
    """Measure the change of every weight: weight_change (per tensor) and weight_parts (per part)."""
    from mechvit import analysis

    found = analysis.weight_change(pair.base, pair.tuned, directions=not pair.quick)
    return {"weight_change": found.to_frame(), "weight_parts": found.part_frame()}


def difference(pair: Pair, count: int) -> Tables:
    """Read the mean difference on unrelated images: difference (size, spectrum), difference_readings,
    difference_classes, difference_spectrum.
    """
    from mechvit import analysis

    unrelated = pair.unrelated.select(range(min(count, len(pair.unrelated))))
    found = analysis.difference_lens(
        pair.base, pair.tuned, pair.first(count), unrelated, progress="Difference lens", **pair.asked
    )
    level = pair.bootstrap["level"]
    return {
        "difference": found.summary(level=level),
        "difference_readings": found.reading_frame(level=level),
        "difference_classes": found.to_frame(level=level),
        "difference_spectrum": found.spectrum_frame(),
    }


def conditions(pair: Pair, count: int) -> Tables:
    """Measure each model's performance, lens and attention under every condition, as the paper does.

    performance_summary, lens_summary, attention_summary and, if some image is right at some layer,
    first_correct_summary; each with a column head.
    """
    import pandas as pd

    from mechvit import analysis

    shifted = [condition for condition in pair.conditions if condition != CLEAN]
    found: dict[str, list[pd.DataFrame]] = {}
    for reading in pair.readings:
        tables = analysis.study(
            reading.models,
            pair.first(count, reading.head),
            shifted,
            progress=f"Conditions ({reading.head} head)",
            **pair.asked,
        )
        own = study_summaries(vars(tables), pair.bootstrap)
        del own["first_correct"]
        for name, table in own.items():
            found.setdefault(name, []).append(table.assign(head=reading.head))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}
