"""sae-lens SAEs in place of hook points: the reconstruction is passed on, and the SAE's hook points become the model's.

The methods have the names and meanings of `sae_lens.HookedSAETransformer`, with three differences: an SAE that does not
fit raises instead of being skipped, leaving a context restores the original hook point (whose hooks go on firing
meanwhile, on the SAE's input), and an SAE may be applied to the patches or to CLS alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule

from mechvit.models.checkpoints.checks import check_name, check_reached
from mechvit.models.config import HookedViTConfig
from mechvit.models.interrupts import sigint_held, temporary
from mechvit.models.layers.hook_state import has_hooks, is_watched
from mechvit.models.sae_checks import check_reconstructs, is_sae

from .image_tokens import token_slice

if TYPE_CHECKING:
    from sae_lens import SAE

SplicedTokens = Literal["all", "patches", "cls"]


class Splice(nn.Module):
    """decode(encode(x)), plus the error x - decode(encode(x)) if asked for, in place of a hook point.

    The error is computed without the hooks inside the SAE and without gradient, as sae-lens does, so that it does not
    undo edits at them. The SAE is not a submodule: its weights are not the model's.
    """

    sae: SAE[Any]
    original: HookPoint
    name: str

    def __init__(self, sae: SAE[Any], original: HookPoint, use_error_term: bool | None, tokens: slice) -> None:
        super().__init__()
        self.__dict__.update(sae=sae, original=original)  # bypasses nn.Module, which would register them
        self.use_error_term = sae.use_error_term if use_error_term is None else use_error_term
        self.tokens, self.points = tokens, dict(sae.hook_dict)
        for name, point in self.points.items():
            setattr(self, name, point)

    def forward(self, x: Float[Tensor, "batch *dims d"]) -> Float[Tensor, "batch *dims d"]:
        """Replace the chosen tokens by their reconstruction; pass the others unchanged."""
        for name, point in self.points.items():
            point.name = f"{self.name}.{name}"  # another model may have renamed it
        x = self.original(x)
        if self.sae.b_dec.device != x.device:
            self.sae.to(x.device)  # the model was moved
        if self.tokens == slice(None):
            return self._reconstruct(x)
        start, stop, _ = self.tokens.indices(x.shape[1])
        return torch.cat([x[:, :start], self._reconstruct(x[:, start:stop]), x[:, stop:]], dim=1)

    def _reconstruct(self, x: Tensor) -> Tensor:
        out = self.sae.decode(self.sae.encode(x.clone()))  # a hook may change the SAE's input in place
        if self.use_error_term:
            out = out + self.points["hook_sae_error"](x.detach() - self._untouched(x, out))
        return self.points["hook_sae_output"](out)

    @torch.no_grad()
    def _untouched(self, x: Tensor, out: Tensor) -> Tensor:
        """Return the reconstruction without hooks: `out` itself where nothing is watched, else computed again."""
        if not any(map(is_watched, self.points.values())):
            return out.detach()
        with _without_points(self.sae, self.points):
            return self.sae.decode(self.sae.encode(x))


@temporary
def _without_points(sae: SAE[Any], points: dict[str, HookPoint]) -> Iterator[None]:
    """Remove an SAE's hook points from it in the context."""
    try:
        for name in points:
            setattr(sae, name, nn.Identity())
        yield
    finally:
        for name, point in points.items():
            setattr(sae, name, point)


class SplicedSAEs(HookedRootModule):
    """A HookedViT's methods for sae-lens SAEs: splicing them in at the hook points that they were trained on."""

    cfg: HookedViTConfig
    left_hooked: list[HookPoint]
    """Hook points of removed SAEs that still have hooks."""

    @property
    def acts_to_saes(self) -> dict[str, SAE[Any]]:
        """Spliced SAEs, by hook point."""
        return {name: splice.sae for name, splice in self._splices.items()}

    def add_sae(
        self, sae: SAE[Any], use_error_term: bool | None = None, *, tokens: SplicedTokens | None = None
    ) -> None:
        """Splice an SAE in at its `cfg.metadata.hook_name` until `reset_saes`, replacing any that is there.

        Meanwhile that name is not a hook point; NAME.hook_sae_input, _acts_pre, _acts_post, _recons, _error and _output
        are, on the chosen tokens only. The SAE is moved to the model's device, and follows the model.

        Args:
            sae: a sae-lens SAE whose output is decode(encode(x)).
            use_error_term: add the reconstruction error, so that the output stays the same until something inside the
                SAE is edited; the SAE's own setting when None.
            tokens: "all", "patches" or "cls"; other tokens pass unchanged. None takes those that the SAE was trained on
                (`cfg.metadata.hook_tokens`), else all.

        Raises:
            ValueError: the SAE does not fit the model's hook point, width, dtype or tokens.
        """
        name, chosen = self._check_sae(sae, tokens)
        here = self.get_submodule(name)
        original = here.original if isinstance(here, Splice) else cast(HookPoint, here)
        self._put({name: Splice(sae, original, use_error_term, chosen)})

    def reset_saes(self, act_names: str | Sequence[str] | None = None) -> None:
        """Remove the SAEs at these hook points (all when None) and restore the hook points.

        Raises:
            ValueError: no SAE is spliced in at one of the names.
        """
        splices = self._splices
        names = list(splices if act_names is None else [act_names] if isinstance(act_names, str) else act_names)
        if missing := [name for name in names if name not in splices]:
            raise ValueError(f"No SAE is spliced in at {missing[0]!r}; those that are: {list(splices)}.")
        self._put({name: splices[name].original for name in names})

    @temporary
    def saes(
        self,
        saes: SAE[Any] | Sequence[SAE[Any]] = (),
        reset_saes_end: bool = True,
        use_error_term: bool | None = None,
        *,
        tokens: SplicedTokens | None = None,
    ) -> Iterator[SplicedSAEs]:
        """Splice SAEs in for the context; afterwards every hook point is restored.

        Args:
            saes: one or several, each as in `add_sae`.
            reset_saes_end: restore the hook points; False leaves the SAEs in place.
            use_error_term, tokens: as in `add_sae`, for each.

        Raises:
            ValueError: as `add_sae`, or two SAEs of the same hook point; none is spliced in then.
        """
        chosen = _listed(saes)
        names = [self._check_sae(sae, tokens)[0] for sae in chosen]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"Only one SAE can stand at {twice[0]!r}; got {len(twice)}. Pass one of them.")
        before = {name: self.get_submodule(name) for name in names}
        try:
            for sae in chosen:
                self.add_sae(sae, use_error_term, tokens=tokens)
            yield self
        finally:
            if reset_saes_end:
                self._put(before)

    def run_with_saes(self, *model_args: Any, **kwargs: Any) -> Any:
        """Run the model with SAEs for this run only; takes the keywords of `saes` and `forward`."""
        with self._saes_of_run(kwargs):
            return self(*model_args, **kwargs)

    def run_with_cache_with_saes(self, *model_args: Any, **kwargs: Any) -> Any:
        """Run `run_with_cache` with SAEs for this run only; takes the keywords of `saes` and `run_with_cache`."""
        with self._saes_of_run(kwargs):
            return self.run_with_cache(*model_args, **kwargs)

    def run_with_hooks_with_saes(self, *model_args: Any, **kwargs: Any) -> Any:
        """Run `run_with_hooks` with SAEs for this run only; takes the keywords of `saes` and `run_with_hooks`."""
        with self._saes_of_run(kwargs):
            return self.run_with_hooks(*model_args, **kwargs)

    def _saes_of_run(self, kwargs: dict[str, Any]) -> Any:
        """Take the keywords of `saes` out of a run's, and return the context."""
        own = {key: kwargs.pop(key) for key in ("saes", "reset_saes_end", "use_error_term", "tokens") if key in kwargs}
        own["saes"] = _listed(own.get("saes", ()))
        names = [self._check_sae(sae, own.get("tokens"))[0] for sae in own["saes"]]
        start, stop = kwargs.get("start_at_layer"), kwargs.get("stop_at_layer")
        check_reached(names, self._model_points(), stop, self.cfg.n_layers, start)
        return self.saes(**own)

    def hook_points(self) -> list[HookPoint]:
        """Return all hook points, including those behind spliced SAEs and those of removed SAEs that still have hooks,
        so that `reset_hooks` reaches them.
        """
        self.left_hooked = [point for point in self.left_hooked if has_hooks(point)]
        originals = [splice.original for splice in self._splices.values()]
        return [*self.hook_dict.values(), *originals, *self.left_hooked]

    @property
    def _splices(self) -> dict[str, Splice]:
        return {name: module for name, module in self.mod_dict.items() if isinstance(module, Splice)}

    def _model_points(self) -> list[str]:
        """Return the names of the model's own hook points, including those behind spliced SAEs."""
        splices = self._splices
        return [*(name for name in self.hook_dict if name.rpartition(".")[0] not in splices), *splices]

    def _put(self, modules: dict[str, nn.Module]) -> None:
        """Set a splice or a hook point at each name."""
        with sigint_held():
            for name, module in modules.items():
                here = self.get_submodule(name)
                if isinstance(here, Splice):
                    here.sae.setup()  # restores the names of its hook points
                    self.left_hooked += [point for point in here.points.values() if has_hooks(point)]
                self.set_submodule(name, module)
            self.setup()

    def _check_sae(self, sae: Any, tokens: str | None) -> tuple[str, slice]:
        """Return the hook point and the tokens of an SAE, after checking that it fits."""
        if not is_sae(sae):
            raise ValueError(f"Only sae-lens SAEs can be spliced in; got {type(sae).__name__}. Load it with sae_lens.")
        check_reconstructs(sae)
        cfg: Any = sae.cfg
        name = cfg.metadata.hook_name
        if name is None:
            raise ValueError("The SAE names no hook point. Set sae.cfg.metadata.hook_name to one of model.hook_dict.")
        check_name(name, self._model_points())
        width = _width(self.cfg, name, cast(bool, sae.hook_z_reshaping_mode))
        if cfg.d_in != width:
            raise ValueError(f"d_in must be {width}, the width at {name!r}; got {cfg.d_in}. Use an SAE of this model.")
        if sae.b_dec.is_meta and self.cfg.device.type != "meta":
            raise ValueError(f"The SAE of {name!r} must hold weights; it is on the meta device. Load it from disk.")
        if sae.b_dec.dtype != self.cfg.dtype:
            raise ValueError(
                f"The SAE of {name!r} must have the model's dtype, {self.cfg.dtype}; got {sae.b_dec.dtype}. "
                f"Call sae.to(dtype={self.cfg.dtype}) first."
            )
        own = "all" if cfg.metadata.hook_tokens is None else cfg.metadata.hook_tokens
        return name, self._check_tokens(name, own if tokens is None else tokens)

    def _check_tokens(self, name: str, tokens: Any) -> slice:
        chosen = token_slice(self.cfg, tokens)
        if tokens != "all" and not name.startswith(("blocks.", "hook_embed")):
            raise ValueError(f'{name!r} lies outside the blocks and may hold other tokens. Use tokens="all" there.')
        return chosen


def _listed(saes: Any) -> list[Any]:
    """Return one SAE or several as a list; a single one is iterable in sae-lens, but not as an SAE."""
    return [saes] if isinstance(saes, nn.Module) else list(saes)


def _width(cfg: HookedViTConfig, name: str, joined_heads: bool) -> int:
    """Return the last dimension at a hook point, with all heads joined where the SAE joins them (`hook_z`)."""
    point = name.rpartition(".")[2]
    if point in ("hook_scale", "hook_attn_scores", "hook_pattern"):
        raise ValueError(f"{name!r} holds no vectors that an SAE could reconstruct. Use another hook point.")
    per_head = cfg.n_heads * cfg.d_head if joined_heads else cfg.d_head
    widths = dict.fromkeys(("hook_q", "hook_k", "hook_v", "hook_z", "hook_rot_q", "hook_rot_k"), per_head)
    widths |= dict.fromkeys(("hook_pre", "hook_pre_linear", "hook_post"), cfg.d_mlp)
    widths |= {"hook_head_input": cfg.d_head_input, "hook_logits": cfg.n_classes}
    return widths.get(point, cfg.d_model)
