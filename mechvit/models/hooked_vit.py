"""HookedViT: a Hugging Face vision transformer whose every intermediate can be read, edited and differentiated."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.hook_points import HookPoint

from mechvit.arguments import checked
from mechvit.models.checkpoints.checks import check_head_tokens, check_input
from mechvit.models.checkpoints.unused_weights import CarriedWeights
from mechvit.models.layers.block import Block, LayerNorm, PreNorm
from mechvit.models.layers.embedding import Embedding
from mechvit.models.layers.head import AttentionPooler, head_tokens, make_head, make_pooler, pool
from mechvit.models.layers.hook_state import is_watched, unwatched
from mechvit.models.layers.positions import Grid, RelativePositionBias, TokenLayout, rotary_angles
from mechvit.models.parameters.named_weights import NamedWeights
from mechvit.models.processors.pixel_values import check_channels, pixel_scale
from mechvit.models.runs.hooked_runs import HookedRuns
from mechvit.models.runs.image_tokens import ImageTokens, as_pixels
from mechvit.models.runs.splicing import SplicedSAEs

from .config import HookedViTConfig
from .interrupts import sigint_held

ReturnType = Literal["logits", "loss", "both"] | None


class HookedViT(HookedRuns, SplicedSAEs, NamedWeights):
    """A vision transformer with transformer-lens's hook points.

    Build it with `from_pretrained` or `from_hf`. Attention runs fused (SDPA) in every layer whose `hook_attn_scores`
    and `hook_pattern` have no hooks, and with an explicit softmax in the others; attaching or removing a hook switches
    the layer at its next call. There is no dropout: training mode is refused for checkpoints that ask for some.

    Attributes:
        cfg: the shape, device and dtype.
        hf_config: the Hugging Face config that `to_hf` returns.
        image_processor: the checkpoint's own, computed with PIL and numpy; None where it has none.
        head: the classifier; None for a bare encoder.
        pooler: module that computes a bare encoder's `pooler_output` from its last hidden state; None where it has no
            weights.
        encoder_of: function that returns the model whose encoder this one shares (`mechvit.models.graft_head`); None
            where all weights are its own.
    """

    def __init__(self, cfg: HookedViTConfig, hf_config: Any, image_processor: Any = None) -> None:
        super().__init__()
        if image_processor is not None:
            check_channels(cfg.n_channels, "num_channels of the config")
            pixel_scale(image_processor)  # refuses a processor that is not understood
        self.cfg, self.hf_config, self.image_processor = cfg, hf_config, image_processor
        self.embed = Embedding(cfg)
        self.hook_embed = HookPoint()  # [batch, token, d_model]: special tokens and patches
        if cfg.positions == "learned":
            self.hook_pos_embed = HookPoint()  # [batch, token, d_model]
        self.ln_pre = PreNorm(cfg) if cfg.ln_pre else None
        self.relative = RelativePositionBias(cfg) if cfg.shared_relative_position_bias else None
        self.blocks = cast(Sequence[Block], nn.ModuleList([Block(cfg) for _ in range(cfg.n_layers)]))
        self.ln_final = None if cfg.final_norm == "none" else LayerNorm(cfg)
        self.pooler = make_pooler(cfg)
        self.head = make_head(cfg)
        if self.head is not None:
            self.hook_head_input = HookPoint()  # [batch, d_head_input]
            self.hook_logits = HookPoint()  # [batch, class]
        self.carried, self.left_hooked = CarriedWeights(), []
        self.encoder_of: Callable[[], HookedViT] | None = None
        self.to(device=cfg.device, dtype=cfg.dtype)
        self.eval()
        self.setup()

    @classmethod
    @checked
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        fold_ln: bool = False,
        *,
        center_writing_weights: bool = False,
        center_unembed: bool = False,
        fold_value_biases: bool = False,
        text_embeds: Float[Tensor, "class projection"] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> HookedViT:
        """Load a checkpoint's folder, or a model of the Hugging Face hub, with its image processor.

        Args:
            path_or_hub_id: a folder that a Hugging Face model's or a HookedViT's `save_pretrained` wrote (safetensors),
                or a hub id.
            device: the target; None takes CUDA where available (under torchrun one GPU per process), else the CPU.
            dtype: the checkpoint's own when None.
            fold_ln, center_writing_weights, center_unembed, fold_value_biases: see `process_weights_`.
            text_embeds, class_names: see `from_hf`.

        Raises:
            ValueError: nothing is there, the model is of an unsupported kind (named before any weight is read), or its
                weights are missing, left over or mis-shaped (each named).
        """
        from mechvit.models.checkpoints.loading import load_pretrained

        model = load_pretrained(path_or_hub_id, device, dtype, text_embeds, class_names)
        return model.process_weights_(
            fold_ln=fold_ln,
            center_writing_weights=center_writing_weights,
            center_unembed=center_unembed,
            fold_value_biases=fold_value_biases,
        )

    @classmethod
    def from_hf(
        cls,
        hf_model: Any,
        image_processor: Any = None,
        *,
        text_embeds: Float[Tensor, "class projection"] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> HookedViT:
        """Convert a loaded Hugging Face model, which is left unchanged.

        Args:
            hf_model: a model of one of the supported classes.
            image_processor: kept as `image_processor`.
            text_embeds: make a zero-shot classifier of a CLIPModel, SiglipModel or Siglip2Model: one text embedding per
                class, as its `get_text_features` returns them (any norm: they are normalised). Without embeddings these
                are bare encoders.
            class_names: the name of each row of `text_embeds`.

        Raises:
            ValueError: the model is of an unsupported kind, or its weights do not fit its config.
        """
        from mechvit.models.checkpoints.loading import from_hf

        return from_hf(hf_model, image_processor, text_embeds, class_names)

    def to_hf(self) -> Any:
        """Return an ordinary Hugging Face model of the same class with exactly the same weights.

        Raises:
            ValueError: weight processing created a bias that the Hugging Face class does not have.
        """
        from mechvit.models.checkpoints.loading import to_hf

        return to_hf(self)

    @checked
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Save the model as it is, processed or with text embeddings, for `from_pretrained` (safetensors and JSON).

        `to_hf().save_pretrained(folder)` writes an ordinary Hugging Face checkpoint instead.
        """
        from mechvit.models.checkpoints.saving import save_hooked_vit

        save_hooked_vit(self, folder)

    @checked
    def set_image_size(self, image_size: int) -> HookedViT:
        """Change the model's input size, in pixels; each pass resizes the positions as Hugging Face does.

        `from_pretrained` does this with the size that the checkpoint's image processor makes. No weight changes.

        Raises:
            ValueError: the size is not a whole number, or smaller than a patch.
        """
        trained_for = self.cfg.position_image_size or self.cfg.image_size
        positions = None if image_size == trained_for else trained_for
        changed = dataclasses.replace(self.cfg, image_size=image_size, position_image_size=positions)
        with sigint_held():
            self.cfg = self.embed.cfg = changed
        return self

    def process_weights_(
        self,
        *,
        fold_ln: bool = False,
        center_writing_weights: bool = False,
        center_unembed: bool = False,
        fold_value_biases: bool = False,
    ) -> HookedViT:
        """Rewrite the weights in place without changing the function; see `processing.process_weights`."""
        from mechvit.models.parameters.processing import process_weights

        return process_weights(self, fold_ln, center_writing_weights, center_unembed, fold_value_biases)

    def forward(
        self,
        pixel_values: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"] | ImageTokens,
        return_type: ReturnType = "logits",
        *,
        labels: Int[Tensor, " batch"] | None = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        interpolate_pos_encoding: bool = False,
        check_finite: bool = False,
        prepend_bos: bool | None = None,
    ) -> Any:
        """Run the model on normalised pixels.

        Pixels, a residual stream and labels are moved to the model's device, the first two to its dtype.

        Args:
            pixel_values: as the image processor returns them; with `start_at_layer`, a residual stream.
            return_type: "logits" [batch, class] (a bare encoder returns its last hidden state [batch, token, d_model]),
                "loss" (mean cross-entropy, nats), "both" (logits, loss), or None to return nothing.
            labels: the true classes, for the loss.
            start_at_layer: take the residual stream that enters block L, [batch, token, d_model] of images of the
                model's own size, and run from there; n_layers runs the head alone, negative values count from the end.
            stop_at_layer: return the residual stream that enters block L, [batch, token, d_model], and run no further;
                n_layers gives the last one, negative values count from the end.
            interpolate_pos_encoding: take images of any size, positions resized as Hugging Face resizes them.
            check_finite: refuse images with NaN or infinite pixels (reads every pixel once).
            prepend_bos: ignored; language-model tools pass it.

        Raises:
            ValueError: the pixels or the residual stream do not fit, the run would stop before it starts, or a loss is
                asked for that cannot be computed.
        """
        given = as_pixels(pixel_values)
        check_input(
            *(self.cfg, given, return_type, labels, stop_at_layer, start_at_layer),
            interpolate_pos_encoding=interpolate_pos_encoding,
            check_finite=check_finite,
        )
        given = given.to(self.cfg.device, self.cfg.dtype)
        resid, grid = self._enter(given) if start_at_layer is None else (given, self.cfg.grid)
        place = self.place(grid)
        for block in self.blocks[start_at_layer:stop_at_layer]:
            resid = block(resid, place)
        if stop_at_layer is not None:
            return resid
        if self.cfg.final_norm == "tokens":
            assert self.ln_final is not None
            resid = self.ln_final(resid)
        if self.head is None:
            return resid if return_type == "logits" else None
        logits = self._classify(resid[:, self.head_tokens])
        if return_type in ("logits", None):
            return logits if return_type else None
        assert labels is not None
        loss = F.cross_entropy(logits, labels.to(logits.device))
        return (logits, loss) if return_type == "both" else loss

    def _enter(self, pixels: Tensor) -> tuple[Float[Tensor, "batch token d_model"], Grid]:
        """Embed the pixels; return the first block's input (`hook_embed` + `hook_pos_embed`) and the patch grid."""
        embed, positions, grid = self.embed(pixels)
        if positions is None:
            return self.hook_embed(embed), grid
        if self.ln_pre is not None:
            points = (self.hook_embed, self.hook_pos_embed, self.ln_pre.hook_scale)
            if not any(map(is_watched, points)):
                return self.ln_pre.fused(embed, positions), grid
            embed, positions = self.ln_pre(embed, positions)
        elif is_watched(self.hook_pos_embed):
            positions = positions.clone()  # a hook may change it in place, and it is the parameter itself
        return self.hook_embed(embed) + self.hook_pos_embed(positions), grid

    def place(self, grid: Grid) -> TokenLayout:
        """Return the positional information that every block takes (also when called by hand), for a patch grid."""
        rotary = (
            rotary_angles(self.cfg, grid, self.cfg.device, self.cfg.dtype) if self.cfg.positions == "rotary" else None
        )
        return TokenLayout(grid, rotary, None if self.relative is None else self.relative(grid))

    def _classify(self, tokens: Float[Tensor, "batch head_token d_model"]) -> Float[Tensor, "batch class"]:
        """Pool the head's tokens (after the final LayerNorm, where it comes first) and classify."""
        assert self.head is not None
        pooled = self.pooler(tokens) if isinstance(self.pooler, AttentionPooler) else pool(self.cfg, tokens)
        if self.cfg.final_norm == "pooled":
            assert self.ln_final is not None
            pooled = self.ln_final(pooled.unsqueeze(1))[:, 0]
        return self.hook_logits(self.head(self.hook_head_input(pooled)))

    @property
    def head_tokens(self) -> slice:
        """Slice of the tokens that the head reads: CLS, CLS and distillation, the patches, or all."""
        return head_tokens(self.cfg)

    def to_tokens(self, pixel_values: Float[Tensor, "batch channel height width"]) -> ImageTokens:
        """Wrap images so that their shape is [batch, token], for transformer-lens tools that count positions."""
        return ImageTokens(pixel_values, self.cfg.n_tokens)

    def unembed_residual(
        self, resid: Float[Tensor, "batch head_token d_model"], apply_ln: bool = True
    ) -> Float[Tensor, "batch class"]:
        """Apply the model's own head to a residual stream at `head_tokens` (the logit lens). No hook fires.

        Args:
            resid: any layer's residual stream at `head_tokens`; moved to the model's device and dtype, as in `forward`.
            apply_ln: apply `ln_final` (before or after pooling) as the model does; False applies the head alone.

        Raises:
            ValueError: the model has no classification head, or `resid` holds other tokens.
        """
        self._require_head()
        check_head_tokens(self.cfg, resid)
        resid = resid.to(self.cfg.device, self.cfg.dtype)
        readers = [self.hook_head_input, self.hook_logits, self.head, self.pooler, self.ln_final]
        with unwatched([module for module in readers if module is not None]):
            if self.ln_final is not None and self.cfg.final_norm == "tokens" and apply_ln:
                resid = self.ln_final(resid)
            if self.cfg.final_norm != "pooled" or apply_ln:
                return self._classify(resid)
            assert self.head is not None
            return self.head(pool(self.cfg, resid))

    def own_state_dict(self) -> dict[str, Tensor]:
        """Return the state dict without the unused weights that are kept for `to_hf`."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("carried.")}

    def train(self, mode: bool = True) -> HookedViT:
        """Set training mode, which changes nothing: dropout is refused where the checkpoint asks for it."""
        if mode and self.cfg.dropout:
            raise ValueError(
                f"HookedViT trains without dropout only; this checkpoint's config asks for {self.cfg.dropout}. "
                "Set its dropout rates to 0 first."
            )
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HookedViT:
        super()._apply(fn, recurse)
        weight = self.embed.patch.weight
        self.cfg = dataclasses.replace(self.cfg, device=weight.device, dtype=weight.dtype)
        return self
