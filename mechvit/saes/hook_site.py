"""The site at which SAEs read a model, with checks that they fit it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.models.grafting import encoder_source
from mechvit.models.hook_table import points_of, sizes
from mechvit.models.processors.preprocessing import changed_since, described
from mechvit.models.sae_checks import check_reconstructs, check_unhooked

if TYPE_CHECKING:
    from sae_lens import SAE

    from mechvit.models import HookedViT


IN_ENCODER = ("blocks.", "hook_embed", "hook_pos_embed", "ln_pre.")
"""Beginnings of the names of hook points that no head changes."""


class Site(NamedTuple):
    """The input of an SAE: a hook point, at some tokens."""

    hook: str
    """Name of the hook point, such as `blocks.10.hook_resid_post`."""
    tokens: str
    """`all`, `patches` or `cls`."""

    def __str__(self) -> str:
        return f"{self.hook}, tokens {self.tokens!r}"

    @property
    def start(self) -> int | None:
        """First block to run when the network continues from this point; None if it must run from the pixels."""
        found = re.match(r"blocks\.(\d+)\.", self.hook)
        return None if found is None else int(found[1]) + self.hook.endswith(".hook_resid_post")

    @property
    def whole_stream(self) -> bool:
        """Whether the point holds everything that the later blocks read, so that no hook is needed."""
        return self.hook.endswith((".hook_resid_pre", ".hook_resid_post"))

    @property
    def writes_residual(self) -> bool:
        """Whether the activation here is a part of the residual stream, so that the head may read it."""
        point = self.hook.rpartition(".")[2]
        return point.startswith("hook_resid") or point in ("hook_attn_out", "hook_mlp_out", "hook_embed")


def sae_site(model: HookedViT, sae: SAE, name: str = "the SAE") -> Site:
    """Return the site that an SAE reads according to its metadata, after checking that it fits the model.

    Raises:
        ValueError: it is no SAE or a transcoder, its weights lack a normalisation of its training, hooks are left in
            it, the model lacks its hook point, the point does not hold one vector per token, or width or tokens do not
            fit.
    """
    check_reconstructs(sae, name)
    check_unhooked(sae, name)
    cfg, about = model.cfg, sae.cfg.metadata
    if about.hook_name in model.acts_to_saes:
        raise ValueError(
            f"{name} reads {about.hook_name}, where an SAE is spliced in: take it out with model.reset_saes() first"
        )
    hook = str(about.hook_name)
    point = points_of(cfg).get(re.sub(r"^blocks\.\d+\.", "blocks.{l}.", hook)) if hook in model.hook_dict else None
    batch, token, *dims = point.shape.split(", ") if point else ("", "")
    if (batch, token, len(dims)) != ("batch", "token", 1):
        raise ValueError(
            f"{name} must read a hook point with one vector per token, in sae.cfg.metadata.hook_name (its cfg.json), "
            f"as blocks.{cfg.n_layers - 1}.hook_resid_post, the model's last; got {about.hook_name!r}"
        )
    width = sizes(cfg)[dims[0]]
    if sae.cfg.d_in != width:
        raise ValueError(
            f"{name} reads activations of width {sae.cfg.d_in}; the model's at {hook} have width {width}: give the "
            "model that it was trained on"
        )
    if about.hook_tokens not in ("all", "patches", *(("cls",) if cfg.cls_token else ())):
        raise ValueError(
            f"{name} must say which tokens it reads, all, patches or cls (where the model has one), in "
            f"sae.cfg.metadata.hook_tokens (its cfg.json); got {about.hook_tokens!r}"
        )
    return Site(hook, cast(str, about.hook_tokens))


def shared_site(model: HookedViT, saes: Mapping[str, SAE], allow_other_model: bool = False) -> Site:
    """Return the one site that all of these SAEs read.

    Raises:
        ValueError: there is no SAE, the sites differ, an SAE does not fit (`sae_site`), or it was trained on another
            model.
    """
    sites = {name: sae_site(model, sae, f"the SAE {name!r}") for name, sae in saes.items()}
    if len(set(sites.values())) != 1:
        listed = "; ".join(f"{name}: {site}" for name, site in sites.items())
        raise ValueError(f"at least one SAE is needed, and all must read the same hook and tokens; got {listed}")
    if not allow_other_model:
        check_checkpoint(model, saes)
    return next(iter(sites.values()))


def check_checkpoint(model: HookedViT, saes: Mapping[str, SAE]) -> None:
    """Refuse SAEs that were trained on other weights or pixels; SAEs that record neither are accepted.

    Raises:
        ValueError: names the first such SAE and both hashes (`checkpoint_hash`), or the settings in which the image
            processors differ.
    """
    said = {name: sae.cfg.metadata for name, sae in saes.items() if sae.cfg.metadata.checkpoint_hash is not None}
    whole = checkpoint_hash(model) if said else ""
    source = encoder_source(model) if said else None  # of a model with a grafted head or a probe
    encoder = whole if source is None else checkpoint_hash(source)
    for name, about in said.items():
        named = about.checkpoint_hashes or [about.checkpoint_hash]  # an SAE of several models names all
        own = encoder if encoder in named and str(about.hook_name).startswith(IN_ENCODER) else whole
        if own not in named:
            raise ValueError(
                f"the SAE {name!r} was trained on another model ({about.model_name}, checkpoint hash "
                f"{str(about.checkpoint_hash)[:12]}) than this one ({own[:12]}): give that model, or allow_other_model "
                "to use it here all the same"
            )
        hashes, kept = about.checkpoint_hashes or [own], about.processors or [about.processor]
        own_pixels = [each for found, each in zip(hashes, kept, strict=True) if found == own]
        differ = [changed_since(each, model.image_processor) for each in own_pixels]
        if all(differ):
            raise ValueError(
                f"the SAE {name!r} was trained on other pixels than this model's image processor makes: "
                f"{described(differ[0])} (the SAE's, and the model's): give the model that processor, or "
                "allow_other_model to evaluate it here all the same"
            )
