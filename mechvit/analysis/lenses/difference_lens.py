"""The difference lens: the mean difference of two models' residual streams, read through their heads.

Both models see images that have nothing to do with the question. What a tuning adds to every image whatever it shows
is left in the mean difference; it is read as the change of a head's output where that difference is added to the base
model's mean residual stream, since a final LayerNorm makes nothing of a difference alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, on_cpu
from mechvit.analysis.pair_checks import check_same_shape
from mechvit.analysis.pairs.kinship import require_kin
from mechvit.analysis.statistics.bootstrap import LEVEL
from mechvit.analysis.statistics.jackknife import jackknife_interval
from mechvit.analysis.statistics.results import OneLine, Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked
from mechvit.data.sources.load import load_images

from .difference_moments import DifferenceMoments, difference_moments, mean_residuals
from .patch_lens import classify_alone, unique_name

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

UNRELATED = 95
"""Number of embedded photographs' crops that are looked at where no unrelated images are given."""
GROUPS = 10
"""Number of groups of images, each left out once for the interval."""
ENERGY = 0.9
"""Share of the second moment for which directions are counted."""


@dataclass(frozen=True, repr=False)
class Reading(OneLine):
    """Change of one head's output where the mean difference is added to the base model's mean residual stream.

    All changes are minus their mean over classes, which no prediction depends on.
    """

    names: tuple[str, ...]
    """Names of the classes."""
    change: Float[Tensor, "layers classes"]
    """Change of each class's logit."""
    left_out: Float[Tensor, "groups layers classes"]
    """The same with the mean difference without each group of images."""
    before: Float[Tensor, "layers classes"]
    """Probability of each class at the base model's mean."""
    after: Float[Tensor, "layers classes"]
    """Probability with the difference added."""
    random: Float[Tensor, "directions layers"]
    """Root mean square over classes of the change that each random direction makes."""

    @property
    def size(self) -> Float[Tensor, " layers"]:
        """Root mean square over classes of the change."""
        return self.change.square().mean(-1).sqrt()


@dataclass(frozen=True, repr=False)
class DifferenceLens(Result):
    """Mean difference of two models on unrelated images, its readings and its spectrum, by layer and tokens."""

    images: int
    """Number of images over which the base model's mean residual stream is taken."""
    unrelated: int
    """Number of images over which the difference is taken."""
    layers: tuple[int, ...]
    """Layers: 0 is the embedding, l the output of block l - 1."""
    mean: Mapping[str, Float[Tensor, "layers d_model"]]
    """tokens (cls, patches) -> the base model's mean residual stream."""
    moments: Mapping[str, DifferenceMoments]
    """tokens -> the mean difference, its spectra, and random directions."""
    readings: Mapping[tuple[str, str], Reading]
    """(tokens, head: "base" or "tuned") -> how a head reads the difference; none where neither model has a head."""

    def __repr__(self) -> str:
        last = {tokens: float(own.delta[-1].norm()) for tokens, own in self.moments.items()}
        sizes = ", ".join(f"{tokens} {size:.3g}" for tokens, size in last.items())
        return (
            f"DifferenceLens({self.unrelated} unrelated images, {len(self.layers)} layers: length of the mean "
            f"difference at layer {self.layers[-1]}: {sizes})"
        )

    def to_frame(self, *, top: int = 10, level: float = LEVEL, **labels: str) -> pd.DataFrame:
        """Return the classes that rise and fall most, by layer, tokens and head.

        Args:
            top: number of classes in each direction.
            level: coverage of the jackknife intervals over the unrelated images.

        Returns:
            the labels, tokens, head, layer, direction ("rises" or "falls"), place (1 is the most), class_id, name,
            change (of the logit, minus the mean over classes), low, high, probability_before, probability_after.
        """
        import pandas as pd

        rows = []
        for (tokens, head), reading in self.readings.items():
            low, high = jackknife_interval(reading.change, reading.left_out, level)
            for i, layer in enumerate(self.layers):
                for direction, sign in (("rises", 1), ("falls", -1)):
                    order = (sign * reading.change[i]).argsort(descending=True, stable=True)[:top].tolist()
                    chosen = [index for index in order if sign * reading.change[i, index] > 0]
                    for place, index in enumerate(chosen, start=1):
                        numbers = (reading.change, low, high, reading.before, reading.after)
                        values = (float(part[i, index]) for part in numbers)
                        rows.append((tokens, head, layer, direction, place, index, reading.names[index], *values))
        names = ["tokens", "head", "layer", "direction", "place", "class_id", "name", "change", "low", "high"]
        names += ["probability_before", "probability_after"]
        return labelled(pd.DataFrame(rows, columns=names), labels)

    def reading_frame(self, *, level: float = LEVEL, **labels: str) -> pd.DataFrame:
        """Return how much each head reads in the difference, beside random directions of its length.

        Returns:
            the labels, tokens, head, layer, size (root mean square over classes of the logits' change), low, high
            (jackknife), random, random_low, random_high (mean and central interval over the random directions), p
            ((1 + how many of them are read at least as much) / (1 + their number)).
        """
        import pandas as pd

        rows = []
        tail = (1 - level) / 2
        for (tokens, head), reading in self.readings.items():
            sizes = reading.left_out.square().mean(-1).sqrt()
            low, high = jackknife_interval(reading.size, sizes, level, lowest=0.0)
            ends = reading.random.quantile(torch.tensor([tail, 1 - tail], dtype=reading.random.dtype), dim=0)
            beyond = (reading.random >= reading.size).sum(0)
            p = (1 + beyond) / (1 + len(reading.random))
            columns = (reading.size, low, high, reading.random.mean(0), *ends, p)
            for i, layer in enumerate(self.layers):
                rows.append((tokens, head, layer, *(float(column[i]) for column in columns)))
        names = "tokens head layer size low high random random_low random_high p"
        return labelled(pd.DataFrame(rows, columns=names.split()), labels)

    def summary(self, *, level: float = LEVEL, **labels: str) -> pd.DataFrame:
        """Return the size and the concentration of the difference.

        Returns:
            the labels, tokens, layer, norm (length of the mean difference), low, high (jackknife), relative (to the
            length of the base model's mean on the same images), mean_share (of the second moment that the mean alone
            makes: 1 where every token changes alike), top_share and directions (share of the first direction, and the
            number of directions that hold 90%), shuffled_top_share and shuffled_directions (of shuffled pairs). Shares
            are NaN where nothing differs.
        """
        import pandas as pd

        rows = []
        for tokens, own in self.moments.items():
            norm = own.delta.norm(dim=-1)
            low, high = jackknife_interval(norm, own.left_out.norm(dim=-1), level, lowest=0.0)
            total = own.eigenvalues.sum(-1)
            columns = [norm, low, high, norm / own.base.norm(dim=-1), norm.square() / total]
            for spectrum in (own.eigenvalues, own.shuffled):
                shares = spectrum.cumsum(-1) / spectrum.sum(-1, keepdim=True)
                count = 1 + (shares < ENERGY - 1e-12).sum(-1).double()
                columns += [shares[:, 0], count.where(spectrum.sum(-1) > 0, torch.nan)]
            for i, layer in enumerate(self.layers):
                rows.append((tokens, layer, *(float(column[i]) for column in columns)))
        names = "tokens layer norm low high relative mean_share top_share directions"
        names += " shuffled_top_share shuffled_directions"
        return labelled(pd.DataFrame(rows, columns=names.split()), labels)

    def spectrum_frame(self, **labels: str) -> pd.DataFrame:
        """Return the uncentred spectrum of the differences of single tokens.

        Returns:
            the labels, tokens, layer, k (from 1), cumulative (share of the second moment in the first k directions) and
            shuffled_cumulative (the same of shuffled pairs); NaN where nothing differs.
        """
        import pandas as pd

        frames = []
        for tokens, own in self.moments.items():
            for i, layer in enumerate(self.layers):
                shares = {name: _cumulative(getattr(own, name)[i]) for name in ("eigenvalues", "shuffled")}
                ranks = range(1, len(shares["shuffled"]) + 1)
                columns = {"cumulative": shares["eigenvalues"], "shuffled_cumulative": shares["shuffled"]}
                frame = pd.DataFrame({"k": ranks, **{name: values.numpy() for name, values in columns.items()}})
                frames.append(labelled(frame, {**labels, "tokens": tokens, "layer": layer}))
        return pd.concat(frames, ignore_index=True)


def _cumulative(spectrum: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    energy = spectrum.cumsum(0)
    return energy / energy[-1:]


@checked
@torch.inference_mode()
def difference_lens(
    base: HookedViT,
    tuned: HookedViT,
    images: Images,
    unrelated: Images | None = None,
    *,
    layers: Sequence[int] | None = None,
    directions: int = 100,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> DifferenceLens:
    """Read the mean difference of two models on unrelated images through both of their heads.

    With delta the mean over unrelated images of h_tuned - h_base, at a layer and at CLS or the patches, and h the mean
    of h_base over `images`, a reading is head(h + delta) - head(h), where h takes the place of every token that the
    head reads (`patch_lens`). It means something only for a model and one tuned from it.

    Args:
        base, tuned: two models of one width, depth and grid of patches; heads may be of any classes, or missing.
        images: those whose mean residual stream the difference is added to.
        unrelated: images that have nothing to do with what was tuned; None takes crops of the embedded photographs.
        layers: layers to measure, 0 to n_layers; None takes all. Each holds three d_model x d_model sums in float64 for
            each of CLS and the patches: 28 MB for a ViT-B/16.
        directions: number of random directions, which have the covariance of the base model's residual stream.
        batch_size: images per forward pass; None takes 32 on a CPU, else 128.
        seed: seed of the groups of images and of the random directions.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: models of two shapes or crops, or that are not kin, an unknown layer, fewer than two unrelated
            images, another input size, activations that are not finite.

    Source: reading mean differences on unrelated inputs, arXiv:2510.13900 (there of language models).
    """
    shape = ("d_model", "n_layers", "grid", "n_prefix_tokens")
    check_same_shape(base, tuned, "the difference of two models' residual streams", shape)
    if base is not tuned:
        require_kin(base, tuned, "the difference of two models' residual streams")
    chosen = _layers(layers, base.cfg.n_layers)
    models = {"base": base, "tuned": tuned}
    if unrelated is None:
        unrelated = load_images("photos", "validation", limit=UNRELATED, image_size=base.cfg.image_size)
    if len(unrelated) < 2:
        raise ValueError(f"an interval needs at least two unrelated images; got {len(unrelated)}")
    places = {"cls": slice(0, 1)} if base.cfg.cls_token and tuned.cfg.cls_token else {}
    places |= {"patches": slice(base.cfg.n_prefix_tokens, None)}
    groups = min(GROUPS, len(unrelated))
    moments = difference_moments(
        models,
        unrelated,
        places,
        chosen,
        groups=groups,
        directions=directions,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    mean = mean_residuals(base, images, places, chosen, batch_size=batch_size, progress=progress)
    readings = {
        (tokens, name): _read(model, mean[tokens], moments[tokens])
        for tokens in places
        for name, model in models.items()
        if model.head is not None
    }
    return DifferenceLens(len(images), len(unrelated), tuple(chosen), mean, moments, readings)


def _layers(wanted: Sequence[int] | None, n_layers: int) -> list[int]:
    chosen = list(range(n_layers + 1)) if wanted is None else [int(layer) for layer in wanted]
    if not chosen or chosen != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] <= n_layers:
        raise ValueError(f"layers must be one or more of 0 to {n_layers}, in order, none twice; got {chosen}")
    return chosen


def _read(model: HookedViT, mean: Float[Tensor, "layers d_model"], moments: DifferenceMoments) -> Reading:
    """Apply one head to the mean, and to the mean with each difference added."""

    def logits_at(points: Float[Tensor, "*points layers d_model"]) -> Float[Tensor, "*points layers classes"]:
        logits = on_cpu(classify_alone(model, points)).double()
        check_finite("logits of the difference lens", list(logits.reshape(-1, *logits.shape[-2:]).unbind(1)), model)
        return logits

    before, after = logits_at(mean), logits_at(mean + moments.delta)

    def change(logits: Float[Tensor, "*points layers classes"]) -> Float[Tensor, "*points layers classes"]:
        moved = logits - before
        return moved - moved.mean(-1, keepdim=True)

    random = change(logits_at(mean + moments.random))
    return Reading(
        names=tuple(unique_name(model.cfg.id2label, index) for index in range(model.cfg.n_classes)),
        change=change(after),
        left_out=change(logits_at(mean + moments.left_out)),
        before=before.softmax(-1),
        after=after.softmax(-1),
        random=random.square().mean(-1).sqrt(),
    )
