"""One picture in one or more models, by one call: answers, attention, patch lens and top latents."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.settings_checks import SettingError
from mechvit.visualization.pages.picture_page import PicturePage, ShownLatent, lit

from .example_images import captioned_images
from .linked_views import TITLES, linked_views
from .page_provenance import page_provenance

if TYPE_CHECKING:
    from sae_lens import SAE

    from mechvit.data.conditions import Condition
    from mechvit.models import HookedViT

NAMED = 5
"""Number of classes that are named for each model."""


@checked
def look(
    picture: Any,
    models: Mapping[str, HookedViT | str | os.PathLike[str]],
    saes: Mapping[str, SAE | str | os.PathLike[str]] | None = None,
    *,
    conditions: Sequence[Condition | str] = (),
    latents: int = 8,
    seed: int = 0,
    title: str = "",
) -> PicturePage:
    """Show what models make of one picture.

        look("cat.jpg", {"base": base, "tuned": tuned})
        mechvit.look("cat.jpg", {"base": "google/vit-base-patch16-224", "mine": "my-vit"})  # the same, in a notebook

    What some of the models do not allow (attention side by side needs one shape, the patch lens the same classes) is
    left out, and the page says why.

    Args:
        picture: a picture as `mechvit.data.open_picture` takes it: a path, a PIL image, an array.
        models: title -> model, or its folder or Hub id, which is loaded.
        saes: model's title -> an SAE of that model, or its folder; its latents are shown.
        conditions: conditions beside the clean picture, such as "gaussian_blur_4".
        latents: number of latents of each SAE.
        seed: seed of the conditions.
        title: title of the page; the file's name when empty.

    Raises:
        ValueError: no model, a picture that cannot be read, an unknown condition, partner pictures (one picture has no
            partner), an attack on a model that is no softmax classifier, an SAE whose model is not given or
            that does not fit it.
    """
    from mechvit.saes import top_latents

    saes = saes or {}
    if not models:
        raise ValueError("there is no model to look with; give a mapping of at least one name to a HookedViT")
    if unknown := [name for name in saes if name not in models]:
        raise ValueError(f"each SAE is named after its model, one of {', '.join(models)}; got {', '.join(unknown)}")
    opened = {title: _model(model) for title, model in models.items()}
    dictionaries = {title: _sae(sae, opened[title]) for title, sae in saes.items()}
    _check_conditions(conditions, opened)
    name = title or (str(picture) if isinstance(picture, str) or hasattr(picture, "__fspath__") else "picture")
    one = {name: picture}
    made, missing = linked_views(opened, opened, one, conditions, seed=seed)
    shown = {title: _latents(opened[title], sae, picture, latents, top_latents) for title, sae in dictionaries.items()}
    return PicturePage(
        title=name,
        models=tuple(opened),
        answers={title: _answers(model, one) for title, model in opened.items() if model.head is not None},
        latents=shown,
        missing=tuple(f"{TITLES[view]} left out: {why}" for view, why in missing.items()),
        provenance=page_provenance(opened),
        **made,
    )


def _model(model: HookedViT | str | os.PathLike[str]) -> HookedViT:
    """Return a model, loaded where its folder or Hub id was given."""
    from mechvit.models import HookedViT

    return HookedViT.from_pretrained(model) if isinstance(model, (str, os.PathLike)) else model


def _sae(sae: SAE | str | os.PathLike[str], model: HookedViT) -> SAE:
    """Return an SAE, loaded to the model's device where its folder was given."""
    from mechvit.saes import load_sae

    return load_sae(sae, model.cfg.device) if isinstance(sae, (str, os.PathLike)) else sae


def _check_conditions(conditions: Sequence[Condition | str], models: Mapping[str, HookedViT]) -> None:
    """Refuse conditions that no view of one picture can show, which would leave out every view.

    Raises:
        ValueError: names the condition; an attack on each of several models, or that does not say which it attacks.
    """
    from mechvit.analysis.condition_images import check_same_image, check_victim
    from mechvit.data.conditions import Attack, PairedImages, as_condition, bound

    for condition in map(as_condition, conditions):
        if isinstance(condition, PairedImages):
            raise SettingError(
                "conditions", f"must name no partner pictures, which one picture lacks; got {condition.key}"
            )
        known = bound(condition, models)
        if isinstance(known, Attack) and not isinstance(known.model, str):
            for victim in models.values() if known.model is None else [known.model]:
                check_victim(known, victim)
        if len(models) > 1:
            check_same_image([condition], "a look at one picture in several models", models)


def _answers(model: HookedViT, one: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Return the strongest classes of a clean picture with their probabilities; nothing for another kind of head."""
    import torch

    from mechvit.analysis.inputs import pixel_values

    if model.cfg.no_softmax is not None:
        return ()
    batch, _ = captioned_images(model, one, 1)
    with torch.inference_mode():
        found = model(pixel_values(model, batch)).float().softmax(-1)[0].topk(min(NAMED, model.cfg.n_classes))
    return tuple((model.cfg.id2label[int(i)], float(p)) for p, i in zip(found.values, found.indices, strict=True))


def _latents(model: HookedViT, sae: SAE, picture: Any, count: int, top_latents: Any) -> tuple[ShownLatent, ...]:
    batch, _ = captioned_images(model, {"picture": picture}, 1)
    found = top_latents(model, sae, batch, count=count)
    height, width = (side * model.cfg.patch_size for side in model.cfg.grid)
    pixels = (batch.images[0, :, :height, :width] * 255).round().byte().cpu().numpy()
    maps, rows = found.patch_maps().numpy(), found.to_frame().to_dict("records")
    return tuple(
        ShownLatent(
            index=int(row["latent"]),
            activation=float(row["activation"]),
            share=float(row["share"]),
            where=f"row {row['row']}, column {row['column']}" if row["row"] >= 0 else "a token before the patches",
            picture=lit(pixels, heat),
        )
        for row, heat in zip(rows, maps, strict=True)
    )
