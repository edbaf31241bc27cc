"""Steering: how much of a tuned model's gain a direction gives the base, and its cost on clean images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.held_out_split import chosen_rows
from mechvit.analysis.inputs import Images
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.results import Result
from mechvit.analysis.summaries.bootstrap_draws import image_matrix
from mechvit.arguments import checked
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.runs.image_tokens import token_slice
from mechvit.settings_checks import COUNT_OR_ZERO, FINITE, check_number

from .model_pair import check_weights_fit, giver_pixels
from .recovery import GIVER, RECEIVER, quantities_in
from .runner import Found, effects, outcome_frame, run_interventions
from .steering_directions import Direction, check_point

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of a direction to try; 1 is the mean difference itself."""
RANDOM = 2**20
"""Offset that separates the seeds of random directions from all others."""


class Steer(NamedTuple):
    """One setting of steering: a direction and a scale."""

    source: str
    """Origin of the direction, such as `mean_difference`."""
    hook_name: str
    tokens: str
    control: int
    """0 for the direction itself; 1, 2, ... for random directions of its length."""
    scale: float


@dataclass(frozen=True, repr=False)
class Steering(Result):
    """Outcomes of each steering setting on every image, clean and under every corruption."""

    outcomes: Found[Steer]
    """(corruption, steering setting) -> outcomes of the steered receiver."""
    references: Found[str]
    """(corruption, "receiver" or "giver") -> outcomes of the unchanged model, scored with the foils of both."""
    selection: frozenset[int]
    """Ids of the images on which hook points and scales are chosen; the others are held out."""

    def to_frame(self) -> pd.DataFrame:
        """Return one row per image, corruption and steering setting.

        Columns: corruption, source, hook_name, tokens, control, scale, those of `Outcomes`, selection.
        """
        return self._marked(outcome_frame(self.outcomes, Steer._asdict))

    def reference_frame(self) -> pd.DataFrame:
        """Return the unchanged models: corruption, condition, the columns of `Outcomes`, selection."""
        return self._marked(outcome_frame(self.references, lambda condition: {"condition": condition}))

    def _marked(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(selection=frame["image_id"].isin(self.selection))

    def summary(
        self, *, selection: bool = False, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
    ) -> pd.DataFrame:
        """Compute means, changes and recovered shares by (corruption, source, hook_name, tokens, control, scale), as
        `effects`.

        The change of accuracy on clean images is the cost of steering.

        Args:
            selection: use the images on which choices are made instead of those held out.
        """
        own, references = (f[f["selection"] == selection] for f in (self.to_frame(), self.reference_frame()))
        return effects(own, references, by=Steer._fields, resamples=resamples, level=level, seed=seed)

    def chosen(
        self,
        *,
        by: Literal["accuracy", "divergence"] = "accuracy",
        most_cost: float = 1.0,
        resamples: int = RESAMPLES,
        level: float = LEVEL,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Choose the best hook point and scale for each source and corruption on the selection; report on held-out
        images.

        The same choice is made for each random direction of a source, of which there are equally many at each hook
        point. Clean images count as a corruption only where no other was steered.

        Args:
            by: what is best: the highest accuracy, then the highest logit difference; or the lowest divergence from the
                giver, which needs no labels.
            most_cost: choose only among settings that lose at most this much accuracy on the selection's clean images.

        Returns:
            one row per corruption, source, control (0, or a random direction's number) and quantity, with the columns
            of `summary` on the held-out images; clean_change, clean_change_low, clean_change_high: the same quantity's
            change on their clean images; and for control 0 beyond, beyond_low, beyond_high: its value under the
            corruption minus the mean over the source's random directions, on the same images. A direction without a
            setting that is cheap enough has no row.

        Raises:
            ValueError: images without labels, on which no accuracy can be had or lost.
        """
        import pandas as pd

        best_first = {"accuracy": (["accuracy", "logit_difference"], False), "divergence": (["divergence"], True)}
        if by not in best_first:
            raise ValueError(f"by must be accuracy or divergence; got {by!r}")
        settings: Any = {"resamples": resamples, "level": level, "seed": seed}
        selection = self.summary(selection=True, **settings).pivot(
            index=["corruption", *Steer._fields], columns="quantity", values=["value", "change"]
        )
        labelled = "accuracy" in selection["value"]
        if not labelled and (by == "accuracy" or most_cost < 1):
            raise ValueError("settings are chosen by accuracy and logit difference, and the images have no labels")
        held_out = self.summary(**settings)
        cheap = selection.index.droplevel("corruption").drop_duplicates()
        if labelled:
            cost = -selection["change", "accuracy"].xs(CLEAN.key)
            cheap = cost.index[cost <= most_cost + 1e-12]
        own, rows = ["source", "control"], []
        columns, ascending = best_first[by]
        every = list(dict.fromkeys(held_out["corruption"]))
        for corruption in [key for key in every if key != CLEAN.key] or every:
            here = selection["value"].xs(corruption).loc[cheap].reset_index()
            best = here.sort_values(columns, ascending=ascending, kind="stable").groupby(own, sort=False).head(1)
            rows.append(best[[*Steer._fields]].assign(corruption=corruption))
        names = ["change", "change_low", "change_high"]
        clean = held_out[held_out["corruption"] == CLEAN.key][[*Steer._fields, "quantity", *names]]
        clean = clean.rename(columns={name: f"clean_{name}" for name in names})
        found = pd.concat(rows, ignore_index=True).merge(held_out, on=["corruption", *Steer._fields])
        found = found.merge(clean, on=[*Steer._fields, "quantity"])
        found = found.merge(self._beyond_random(found, settings), on=["corruption", *own, "quantity"], how="left")
        return found[["corruption", *(c for c in found if c != "corruption")]].sort_values(
            ["corruption", *own], kind="stable", ignore_index=True
        )

    def _beyond_random(self, chosen: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
        """Compare each direction with its random controls over the held-out images, as in `chosen`.

        Returns:
            corruption, source, control (0), quantity, beyond, beyond_low, beyond_high.
        """
        import pandas as pd

        frame, rows = self.to_frame(), []
        ways = chosen[["corruption", *Steer._fields]].drop_duplicates()
        frame = frame[~frame["selection"]].merge(ways, on=list(ways))
        drawn = {name: value for name, value in settings.items() if name != "level"}
        for (corruption, source), part in frame.groupby(["corruption", "source"], sort=False):
            if (part["control"] == 0).all() or (part["control"] > 0).all():
                continue  # one of the two had no setting that was cheap enough
            for quantity in quantities_in(part):
                columns, values = image_matrix(part[part[quantity].notna()], quantity, ["control"])
                means = resampled_means(values, **drawn)
                random = np.array([control > 0 for (control,) in columns])
                beyond = means[:, ~random][:, 0] - means[:, random].mean(1)
                name = "accuracy" if quantity == "correct" else quantity
                rows.append((corruption, source, 0, name, *interval(beyond, settings["level"])))
        names = ["corruption", "source", "control", "quantity", "beyond", "beyond_low", "beyond_high"]
        return pd.DataFrame(rows, columns=names)


@checked
def steer(
    receiver: HookedViT,
    giver: HookedViT,
    images: Images,
    corruptions: Collection[Condition | str],
    directions: Sequence[Direction],
    *,
    scales: Sequence[float] = SCALES,
    controls: int = 5,
    selection_fraction: float = 0.5,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Steering:
    """Add each direction to the receiver's residual stream at several scales, and compare with the giver.

    The receiver runs once per batch and corruption; each setting continues from its residual stream before the block in
    question.

    Args:
        receiver: the steered model: the base.
        giver: the model whose gain is to be recovered: the tuned one.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`, disjoint from those that the directions were
            computed on.
        corruptions: those to apply; clean images, which measure the cost, are always steered, too.
        directions: results of `steering_directions` or `mechvit.saes.sae_steering_direction`.
        scales: factors of each direction.
        controls: number of random directions of the same length for each direction, the same at all scales.
        selection_fraction: fraction of the images on which hook points and scales are chosen; the others are reported.
        seed: seed of the draw of images, the corruptions and the random directions.
        batch_size, progress: as in `evaluate`.

    Raises:
        ValueError: a direction that does not fit the model or is repeated, no direction or scale, models of different
            configs, and as `evaluate`.

    Source: activation addition, arXiv:2308.10248, section 3; contrastive activation addition, arXiv:2312.06681.
    """
    check_weights_fit(receiver, giver, "steering one model along its difference from the other")
    if not directions or not scales:
        raise ValueError(f"give at least one direction and one scale; got {len(directions)} and {len(scales)}")
    check_number("controls", controls, COUNT_OR_ZERO)
    for scale in scales:
        check_number("scales", scale, FINITE)
    ways: dict[int, dict[Steer, Tensor]] = {}
    for direction in directions:
        _check(receiver, direction)
        for control in range(controls + 1):
            own = direction.random(RANDOM + 1000 * seed + control) if control else direction
            vector = own.vector.to(receiver.cfg.device, receiver.cfg.dtype)
            for scale in dict.fromkeys(map(float, scales)):
                way = Steer(direction.source, direction.hook_name, direction.tokens, control, scale)
                if way in ways.setdefault(direction.layer, {}):
                    raise ValueError(
                        f"directions must differ in source, hook point or tokens; {way[:3]} occurs more than once"
                    )
                ways[direction.layer][way] = scale * vector
    order = [way for layer in ways.values() for way in layer]

    def logits_of(pixels: Tensor) -> dict[Steer | str, Tensor]:
        logits, theirs = steered_logits(receiver, pixels, ways), giver(giver_pixels(receiver, giver, pixels))
        return {RECEIVER: logits[None], GIVER: theirs, **{way: logits[way] for way in order}}

    conditions = dict.fromkeys((CLEAN, *map(as_condition, corruptions)))
    found = run_interventions(
        receiver, images, conditions, logits_of, batch_size=batch_size, seed=seed, progress=progress
    )
    ids = found[CLEAN.key, RECEIVER].image_id[torch.from_numpy(chosen_rows(len(images), selection_fraction, seed=seed))]
    return Steering(
        {(c, way): found[c, way] for c, way in found if isinstance(way, Steer)},
        {(c, name): found[c, name] for c, name in found if not isinstance(name, Steer)},
        frozenset(ids.tolist()),
    )


def steered_logits(
    model: HookedViT, pixels: Float[Tensor, "batch 3 height width"], ways: Mapping[int, Mapping[Steer, Tensor]]
) -> dict[Steer | None, Float[Tensor, "batch class"]]:
    """Run a model once unchanged (key None), and from each block on with every vector to be added there."""
    found: dict[Steer | None, Tensor] = {}
    resid, place = model(pixels, stop_at_layer=0), model.place(model.cfg.grid)
    for layer, block in enumerate(model.blocks):
        for way, vector in ways.get(layer, {}).items():
            with model.hooks(fwd_hooks=[(way.hook_name, _adding(vector, token_slice(model.cfg, way.tokens)))]):
                found[way] = model(resid, start_at_layer=layer)
        resid = block(resid, place)
    found[None] = model(resid, start_at_layer=model.cfg.n_layers)
    return found


def _adding(vector: Float[Tensor, "#token d_model"], places: slice) -> Any:
    def add(activation: Tensor, hook: Any) -> Tensor:
        steered = activation.clone()
        steered[:, places] += vector
        return steered

    return add


def _check(model: HookedViT, direction: Direction) -> None:
    """Raise a ValueError unless a direction fits the model."""
    check_point(model, direction.hook_name)
    count = len(range(model.cfg.n_tokens)[token_slice(model.cfg, direction.tokens)])
    rows, width = direction.vector.shape
    if rows not in (1, count) or width != model.cfg.d_model:
        raise ValueError(
            f"a direction must be [1, {model.cfg.d_model}] or [{count}, {model.cfg.d_model}] for tokens "
            f"{direction.tokens!r} of this model; the one at {direction.hook_name} is {[rows, width]}"
        )
