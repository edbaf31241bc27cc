"""Two models' answers to the same images: agreement, divergence, flips, confidence and calibration, by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN

from .calibration import calibration_gaps
from .performance import check_logits

if TYPE_CHECKING:
    import pandas as pd

FLIPS: tuple[str, ...] = ("none", "negative", "positive", "wrong_to_wrong", "unlabelled")
"""Kinds of flips from base to tuned: the same prediction; right to wrong; wrong to right; from one wrong class to
another; to another class on an image without a label.
"""


@dataclass(frozen=True, repr=False)
class BehaviourChange(Result):
    """Answers of two models to the same images, under one condition or several."""

    images: pd.DataFrame
    """One row per condition and image: condition, image_id, label (negative without one), prediction_base,
    prediction_tuned, agreement, kl (KL(base | tuned), nats), confidence_base, confidence_tuned (probability of the own
    prediction), margin_base, margin_tuned (log probability of the own prediction minus that of the runner-up, nats),
    flip (one of `FLIPS`), and the columns of `by`.
    """
    by: tuple[str, ...] = ()
    """Columns that group the images, such as site or scanner."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty where they are not known."""

    def __repr__(self) -> str:
        table = self.images
        return (
            f"BehaviourChange({table['image_id'].nunique()} images, {table['condition'].nunique()} conditions: "
            f"agreement {table['agreement'].mean():.3f}, KL(base | tuned) {table['kl'].mean():.3g} nats)"
        )

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return the table of images, with constant columns put first."""
        return labelled(self.images, labels)

    def ranked(self, count: int | None = None, *, condition: str | None = None) -> pd.DataFrame:
        """Return the rows in order of KL(base | tuned), the largest first; ties by image id.

        Args:
            count: the number of rows; None returns all.
            condition: that of the rows, as in the table; None takes all.

        Raises:
            ValueError: a condition that the table lacks.
        """
        table = self.images
        if condition is not None:
            known = list(table["condition"].unique())
            if condition not in known:
                raise ValueError(f"condition must be one of the table's, {', '.join(known)}; got {condition!r}")
            table = table[table["condition"] == condition]
        order = table.sort_values(["kl", "image_id"], ascending=[False, True], kind="stable").reset_index(drop=True)
        return order if count is None else order.head(count)

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Compute means over all images, over those of each class, and over those of each group.

        Returns:
            condition, by ("all", "label", or a column of `by`), group (a class's name or index, or a column's value),
            quantity, n (images that count), value, low, high. Quantities: agreement, kl (nats), and confidence and
            margin of base, tuned and their change (tuned minus base); of images with labels also accuracy of both and
            its change, the shares of all of them that are negative_flips, positive_flips and wrong_to_wrong, and ece of
            both and its change. accuracy_change is positive_flips - negative_flips. The calibration error is biased
            upwards in small groups. Where no image has a label, the rows that need some are left out.

        Source: negative flips, arXiv:2011.09161, section 3.
        """
        import pandas as pd

        rows = []
        for condition, by, group, part in self._groups():
            for quantity, n, draws in _quantities(part, resamples, seed):
                rows.append((condition, by, group, quantity, n, *interval(draws, level)))
        return pd.DataFrame(rows, columns=["condition", "by", "group", "quantity", "n", "value", "low", "high"])

    def _groups(self) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
        for condition, table in self.images.groupby("condition", sort=False):
            yield str(condition), "all", "all", table
            for label, part in table[table["label"] >= 0].groupby("label"):
                index = int(str(label))
                yield str(condition), "label", self.classes[index] if self.classes else str(index), part
            for column in self.by:
                for group, part in table.groupby(column, dropna=False):
                    yield str(condition), column, str(group), part

    @classmethod
    def concatenate(cls, parts: Sequence[BehaviourChange]) -> BehaviourChange:
        """Join results of several conditions, which must have the same groups and classes."""
        import pandas as pd

        if len({(part.by, part.classes) for part in parts}) != 1:
            raise ValueError("results are joined that have the same groups and the same classes, at least one of them")
        return cls(pd.concat([part.images for part in parts], ignore_index=True), parts[0].by, parts[0].classes)


@checked
@torch.inference_mode()
def behaviour_of_logits(
    base: Float[Tensor, "images classes"],
    tuned: Float[Tensor, "images classes"],
    labels: Int[Tensor, " images"],
    image_ids: Int[Tensor, " images"],
    *,
    condition: str = CLEAN.key,
    groups: Mapping[str, Sequence[object]] | None = None,
    classes: Sequence[str] = (),
) -> BehaviourChange:
    """Compare two models' logits of the same images, as `behaviour_change`.

    Args:
        base, tuned: logits of the same classes.
        labels: class ids; negative where an image has none.
        image_ids: ids of the images.
        condition: what the images were shown under.
        groups: column -> a value for each image, such as its site.
        classes: names of the classes; none where they are not known.

    Raises:
        ValueError: logits of different shapes or that are not finite, labels that are not classes, a column of another
            length.
    """
    if base.shape != tuned.shape or not len(base) == len(labels) == len(image_ids):
        raise ValueError(
            "logits, labels and ids must be of the same images, and logits of the same classes; got logits "
            f"{list(base.shape)} and {list(tuned.shape)}, {len(labels)} labels and {len(image_ids)} ids"
        )
    if classes and len(classes) != base.shape[1]:
        raise ValueError(
            f"classes must name each of the {base.shape[1]} classes, or be empty; got {len(classes)} names"
        )
    for name, logits in (("base", base), ("tuned", tuned)):
        check_logits(logits, labels, image_ids, f"the model {name!r}", labelled=False)
    groups = {name: list(values) for name, values in (groups or {}).items()}
    for name, values in groups.items():
        if len(values) != len(image_ids):
            raise ValueError(f"groups must give a value to each of {len(image_ids)} images; {name!r} has {len(values)}")
    return assembled(condition, [table_of(base, tuned, labels, image_ids)], groups, tuple(classes))


def table_of(
    base: Float[Tensor, "images classes"],
    tuned: Float[Tensor, "images classes"],
    labels: Int[Tensor, " images"],
    image_ids: Int[Tensor, " images"],
) -> pd.DataFrame:
    """Compare logits, in float64: equal logits diverge by exactly 0."""
    import pandas as pd

    labels, image_ids, base, tuned = (tensor.detach().cpu() for tensor in (labels, image_ids, base, tuned))
    log_base, log_tuned = (logits.double().log_softmax(-1) for logits in (base, tuned))
    predictions = [logits.argmax(-1) for logits in (base, tuned)]
    top = [log.topk(2).values for log in (log_base, log_tuned)]
    columns = {
        "image_id": image_ids,
        "label": labels,
        "prediction_base": predictions[0],
        "prediction_tuned": predictions[1],
        "agreement": predictions[0] == predictions[1],
        "kl": divergence(log_base, log_tuned),
        "confidence_base": top[0][:, 0].exp(),
        "confidence_tuned": top[1][:, 0].exp(),
        "margin_base": top[0][:, 0] - top[0][:, 1],
        "margin_tuned": top[1][:, 0] - top[1][:, 1],
    }
    table = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
    return table.assign(flip=_flips(*(values.numpy() for values in (labels, *predictions))))


def divergence(
    log_base: Float[Tensor, "*batch classes"], log_tuned: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    """Compute KL(base | tuned) = sum p_base (log p_base - log p_tuned), nats; rounding below 0 is 0."""
    return (log_base.exp() * (log_base - log_tuned)).sum(-1).clamp_min(0)


def _flips(labels: np.ndarray, base: np.ndarray, tuned: np.ndarray) -> np.ndarray:
    """Return the kind of each image's flip, one of `FLIPS`."""
    cases = (base == tuned, labels < 0, base == labels, tuned == labels)
    return np.select(cases, ("none", "unlabelled", "negative", "positive"), default="wrong_to_wrong").astype(object)


def assembled(
    condition: str, tables: Sequence[pd.DataFrame], groups: Mapping[str, Sequence[object]], classes: tuple[str, ...]
) -> BehaviourChange:
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    if taken := {*groups} & {"condition", "all", *table}:
        raise ValueError(f"columns of groups need names of their own; rename {', '.join(sorted(taken))}")
    table = table.assign(**groups)
    return BehaviourChange(labelled(table, {"condition": condition}), tuple(groups), classes)


def _quantities(
    part: pd.DataFrame, resamples: int, seed: int
) -> Iterator[tuple[str, int, Float[np.ndarray, " draws"]]]:
    """Yield each quantity of some images, the number of images that it is a mean of, and its draws."""
    means = _means(part, ["agreement", "kl", *_of_both("confidence"), *_of_both("margin")], resamples, seed)
    for name in ("confidence", "margin"):
        means[f"{name}_change"] = means[f"{name}_tuned"] - means[f"{name}_base"]
    for name, draws in means.items():
        yield name, len(part), draws
    known = part[part["label"] >= 0]
    if len(known) == 0:
        return
    for name, draws in _labelled(known, resamples, seed).items():
        yield name, len(known), draws


def _of_both(name: str) -> list[str]:
    return [f"{name}_base", f"{name}_tuned"]


def _means(
    part: pd.DataFrame, columns: Sequence[str], resamples: int, seed: int
) -> dict[str, Float[np.ndarray, " draws"]]:
    drawn = resampled_means(part[list(columns)].to_numpy(dtype=np.float64), resamples=resamples, seed=seed)
    return dict(zip(columns, drawn.T, strict=True))


def _labelled(known: pd.DataFrame, resamples: int, seed: int) -> dict[str, Float[np.ndarray, " draws"]]:
    """Return draws of what needs labels."""
    names = {"negative_flips": "negative", "positive_flips": "positive", "wrong_to_wrong": "wrong_to_wrong"}
    right = {name: known[f"prediction_{name}"] == known["label"] for name in ("base", "tuned")}
    table = known.assign(
        **{f"accuracy_{name}": own for name, own in right.items()},
        **{name: known["flip"] == kind for name, kind in names.items()},
    )
    found = _means(table, [*_of_both("accuracy"), *names], resamples, seed)
    found["accuracy_change"] = found["positive_flips"] - found["negative_flips"]
    for name, own in right.items():
        confidence = torch.tensor(known[f"confidence_{name}"].to_numpy())
        gaps = calibration_gaps(torch.tensor(own.to_numpy()), confidence).numpy()
        found[f"ece_{name}"] = np.abs(resampled_means(gaps, resamples=resamples, seed=seed)).sum(-1)
    found["ece_change"] = found["ece_tuned"] - found["ece_base"]
    return found
