"""Collection of a feature browser's data in a few passes over the images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from mechvit.analysis.condition_images import check_same_image
from mechvit.analysis.inputs import Images
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.models.processors.preprocessing import check_alike
from mechvit.saes.evaluation.single_pass import SinglePass, Wanted
from mechvit.saes.hook_site import Site, shared_site
from mechvit.saes.latents.directions import check_fixed_scale
from mechvit.saes.latents.results import SAEFeatures

from .examples import QUANTILES, SAEsAtSite
from .image_passes import ImageStream, ShownReadings, column
from .results import BrowsedFeatures, Browsing
from .selection import CHOICE, alike, choose, match_exactly, match_mutually, partners_of

if TYPE_CHECKING:
    from sae_lens import SAE

    from mechvit.models import HookedViT


@checked
@torch.inference_mode()
def browse_features(
    saes: Mapping[str, tuple[HookedViT, SAE]],
    images: Images,
    corruptions: Collection[Condition | str] = (),
    *,
    features: Mapping[str, Sequence[int]] | None = None,
    described: Mapping[str, SAEFeatures] | None = None,
    settings: Browsing | None = None,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> BrowsedFeatures:
    """Describe SAEs for a browser: all latents by statistics, `settings.n_features` per SAE with images and effects.

    The images are read twice: clean and under every corruption to describe all latents (`sae_features`), then clean for
    the chosen latents' histograms and strongest images, for which one number per image and chosen latent is kept. After
    that, only the examples and the displayed images are run again. No array of images x latents x tokens is ever made.

    Args:
        saes: the SAEs by name, each with the model that it reads; those of one model and hook point share each pass.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the models' own class ids,
            negative for images without one.
        corruptions: corruptions whose effect on every latent is measured; the most severe of each of the first families
            is displayed (`settings.drawn_corruptions`).
        features: latents to include, by the SAE's name; the rest are selected automatically (see `CHOICE`).
        described: results of `sae_features` (or `evaluate_saes`) for these images and corruptions, to save that pass.
        settings: the amount of data to keep; `Browsing()` when None.
        allow_other_model, progress: as in `evaluate_saes`.

    Raises:
        ValueError: there is no SAE, an SAE lacks a latent or normalises its input, and everything that `sae_features`
            refuses.
    """
    settings, asked, known = settings or Browsing(), features or {}, dict(described or {})
    parsed = dict.fromkeys(map(as_condition, corruptions))
    if len({id(model) for model, _ in saes.values()}) > 1:
        check_same_image(parsed, "a page of several models' latents on the same pictures")
    measured = tuple(c for c in parsed if c != CLEAN)
    groups = _groups(saes, asked, allow_other_model)
    stream = ImageStream(images, measured, settings)
    shown: dict[str, ShownReadings] = {}
    for group in groups:
        if missing := {name: sae for name, sae in group.saes.items() if name not in known}:
            wanted = Wanted(
                described=measured,
                top_images=max(16, settings.top_images),
                seed=settings.seed,
                allow_other_model=allow_other_model,
            )
            tally = SinglePass(group.model, missing, wanted)
            known |= tally.over(images, settings.batch_size, progress).features
        shown |= stream.look(group)
    every = {name: sae for name, (_, sae) in saes.items()}
    pairs = alike(every, {name: group.site for group in groups for name in group.saes})
    matches = match_exactly(every, pairs)
    first, chosen = next(iter(saes)), dict[str, Tensor]()
    for name in saes:
        if (first, name) in pairs and (first, name) not in matches:
            matches[first, name] = match_mutually(every[first], every[name], chosen[first])
        partners = partners_of(matches.get((first, name)), chosen[first]) if chosen else []
        asked_for = asked.get(name, ())
        chosen[name] = choose(asked_for, known[name], shown[name].written, partners, settings.n_features)
    for a, b in (pair for two in pairs for pair in (two, two[::-1])):
        if (a, b) not in matches:
            matches[a, b] = match_mutually(every[a], every[b], chosen[a])
    browsed = {
        name: sae for group in groups for name, sae in stream.pages(group, known, chosen, shown, progress).items()
    }
    return BrowsedFeatures(
        saes={name: browsed[name] for name in saes},
        matches=matches,
        corruptions=tuple(c.key for c in measured),
        conditions=tuple(c.key for c in stream.conditions),
        class_names=_class_names(groups[0].model, images, stream.labels),
        image_ids=column(images, "image_id"),
        labels=stream.labels,
        files=_file_names(images),
        shown=tuple(stream.shown.tolist()),
        pictures=stream.pictures,
        example_kinds=(
            *["top"] * settings.top_images,
            *(f"{quantile:.0%}" for quantile in QUANTILES),
            *["random"] * settings.random_images,
        ),
        choice=CHOICE,
    )


def _groups(
    saes: Mapping[str, tuple[HookedViT, SAE]], asked: Mapping[str, Sequence[int]], allow_other_model: bool
) -> list[SAEsAtSite]:
    if not saes:
        raise ValueError("a browser needs at least one SAE, by name, as (model, sae); got none")
    if unknown := sorted(set(asked) - set(saes)):
        raise ValueError(f"features are asked for by the SAEs' names, {', '.join(saes)}; got {', '.join(unknown)}")
    groups: dict[tuple[int, Site], SAEsAtSite] = {}
    for name, (model, sae) in saes.items():
        site = shared_site(model, {name: sae}, allow_other_model)
        if wrong := [j for j in asked.get(name, ()) if not 0 <= j < sae.cfg.d_sae]:
            raise ValueError(f"the SAE {name!r} has the latents 0 to {sae.cfg.d_sae - 1}; got {wrong[:8]}")
        check_fixed_scale(sae, f"the SAE {name!r}")
        groups.setdefault((id(model), site), SAEsAtSite(model, site, {})).saes[name] = sae
    processors = {name: model.image_processor for name, (model, _) in saes.items()}
    check_alike(processors, "a browser of several models, which shows their latents on one picture,")
    return list(groups.values())


def _file_names(images: Images) -> tuple[str, ...]:
    """Return the names of the images' files, without their folders."""
    if isinstance(images, ImageBatch):
        return tuple(PurePath(path).name for path in images.paths or [""] * len(images))
    column = next((name for name in ("path", "file") if name in images.column_names), None)
    return tuple(PurePath(path).name for path in images[column][:]) if column else ("",) * len(images)


def _class_names(model: HookedViT, images: Images, labels: Int[Tensor, " image"]) -> tuple[str, ...]:
    """Return the model's own class names, or the data set's if the model is no softmax classifier."""
    names = model.cfg.id2label
    if model.cfg.no_softmax is not None and not isinstance(images, ImageBatch):
        names = dict(enumerate(getattr(images.features["label"], "names", ())))
    n = max(model.cfg.n_classes, int(labels.max()) + 1)
    return tuple(str(names.get(i, f"class {i}")) for i in range(n))
