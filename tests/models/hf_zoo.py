"""Every supported Hugging Face class with random weights far from their init: `ZOO[name]()` builds one, small."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn

CLASSES = ["ant", "bee", "cat", "dog", "elk"]
NAMED = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
BASE: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
BASE |= {"intermediate_size": 3072}
TEXT: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
TEXT |= {"vocab_size": 50, "max_position_embeddings": 8, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
PROJECTION = 20
EPS = 1e-3  # large enough that an eps read off the wrong place shows

CONFIGS = {
    "vit": "ViTConfig",
    "vit_msn": "ViTMSNConfig",
    "vit_mae": "ViTMAEConfig",
    "deit": "DeiTConfig",
    "beit": "BeitConfig",
    "data2vec-vision": "Data2VecVisionConfig",
    "dinov2": "Dinov2Config",
    "dinov2_with_registers": "Dinov2WithRegistersConfig",
    "dinov3_vit": "DINOv3ViTConfig",
    "ijepa": "IJepaConfig",
    "clip": "CLIPConfig",
    "clip_vision_model": "CLIPVisionConfig",
    "siglip": "SiglipConfig",
    "siglip_vision_model": "SiglipVisionConfig",
    "siglip2": "Siglip2Config",
    "siglip2_vision_model": "Siglip2VisionConfig",
}


@dataclass(frozen=True)
class Entry:
    """One class of one family in one configuration; calling it builds the model."""

    family: str
    """`config.model_type`."""
    architecture: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that its (vision) config has beside the shape."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class beside the config."""
    zero_shot: bool = False
    """Logits are the images' similarities with given text embeddings."""
    shape: str = "small"
    """"small" (32 px, patch 8, width 32, 3 layers) or "base" (224 px, patch 16, width 768, 12 layers)."""

    def __call__(self, dtype: torch.dtype = torch.float32) -> Any:
        """Return a new copy of the model; equal entries have equal weights."""
        model = copy.deepcopy(_build(self)) if self.shape == "small" else _build.__wrapped__(self)
        return cast(model, dtype)

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def image_size(self) -> int:
        return 32 if self.shape == "small" else 224

    def text_embeds(self, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """Five text embeddings of the zero-shot head [class, projection], of no particular length."""
        if not self.zero_shot:
            return None
        shape = SMALL if self.shape == "small" else BASE
        width = PROJECTION if self.family == "clip" else shape["hidden_size"]
        return (3 * torch.randn(5, width, generator=torch.Generator().manual_seed(5))).to(dtype)

    def zero_shot_head(self, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        """Keyword arguments of `HookedViT.from_hf` and `from_pretrained` that build the zero-shot head, if any."""
        return {"text_embeds": self.text_embeds(dtype), "class_names": CLASSES} if self.zero_shot else {}


def cast(model: Any, dtype: torch.dtype) -> Any:
    """Convert a model. DINOv3's frequencies, no weights, stay in float32 for half types, as in `from_pretrained`."""
    model = model.to(dtype)
    if dtype == torch.float64:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 2**-40)  # float32 cannot hold it
    for module in model.modules():
        if type(module).__name__ == "DINOv3ViTRopePositionEmbedding" and dtype.itemsize < 4:
            module.inv_freq = type(module)(module.config).inv_freq
    return model


@functools.cache
def _build(entry: Entry) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = getattr(transformers, entry.architecture)(_config(entry), **entry.options).eval()
        for module in model.modules():
            linear = isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention)
            for name, parameter in module.named_parameters(recurse=False):
                if name == "logit_scale":
                    parameter.fill_(1.9)  # logits of order 1
                scale = parameter[0].numel() ** -0.5 if linear and parameter.ndim > 1 else 0.4
                parameter.add_(scale * torch.randn(parameter.shape))
    return model


def _config(entry: Entry) -> Any:
    small, family = entry.shape == "small", entry.family
    shape = dict(SMALL if small else BASE, layer_norm_eps=EPS, patch_size=8 if small else 16)
    if family.startswith("siglip2"):
        shape["num_patches"] = 16 if small else 196
    else:
        shape["image_size"] = entry.image_size
    if family.startswith("dinov2"):
        shape["mlp_ratio"] = 2 if small else 4
        del shape["intermediate_size"]
    make = getattr(transformers, CONFIGS[family])
    if family not in ("clip", "siglip", "siglip2"):
        return make(**shape, **NAMED, **entry.changes)
    if family == "clip":
        shape |= {"projection_dim": PROJECTION}
        text = TEXT | {"projection_dim": PROJECTION}
        return make(text_config=text, vision_config=shape | entry.changes, projection_dim=PROJECTION, **NAMED)
    text = TEXT | {"projection_size": shape["hidden_size"]}
    return make(text_config=text, vision_config=shape | entry.changes, **NAMED)


def _beit(architecture: str = "BeitForImageClassification", pooler: bool | None = None, **changes: Any) -> Entry:
    family = "data2vec-vision" if architecture.startswith("Data2Vec") else "beit"
    return Entry(family, architecture, changes, {} if pooler is None else {"add_pooling_layer": pooler})


ABSOLUTE = {"use_absolute_position_embeddings": True}
RELATIVE = {"use_relative_position_bias": True}
SHARED = {"use_shared_relative_position_bias": True}
CLS = {"use_mean_pooling": False}
NO_POOLER = {"add_pooling_layer": False}
POOLER = {"pooler_output_size": 20, "pooler_act": "gelu"}

ZOO: dict[str, Entry] = {
    "vit classifier": Entry("vit", "ViTForImageClassification"),
    "vit classifier, no qkv bias": Entry("vit", "ViTForImageClassification", {"qkv_bias": False}),
    "vit encoder": Entry("vit", "ViTModel", POOLER),
    "vit encoder, no pooler": Entry("vit", "ViTModel", {}, NO_POOLER),
    "vit encoder, mask token": Entry("vit", "ViTModel", POOLER, {"use_mask_token": True}),
    "vit with decoder": Entry("vit", "ViTForMaskedImageModeling", {"encoder_stride": 8}),
    "msn classifier": Entry("vit_msn", "ViTMSNForImageClassification"),
    "msn encoder": Entry("vit_msn", "ViTMSNModel", {"qkv_bias": False}, {"use_mask_token": True}),
    "mae encoder": Entry("vit_mae", "ViTMAEModel"),
    "mae with decoder": Entry(
        "vit_mae",
        "ViTMAEForPreTraining",
        {
            "decoder_hidden_size": 16,
            "decoder_num_attention_heads": 2,
            "decoder_num_hidden_layers": 1,
            "decoder_intermediate_size": 24,
        },
    ),
    "deit classifier": Entry("deit", "DeiTForImageClassification"),
    "deit with teacher": Entry("deit", "DeiTForImageClassificationWithTeacher"),
    "deit encoder": Entry("deit", "DeiTModel", POOLER),
    "deit encoder, no pooler": Entry("deit", "DeiTModel", {"qkv_bias": False}, NO_POOLER | {"use_mask_token": True}),
    "deit with decoder": Entry("deit", "DeiTForMaskedImageModeling", {"encoder_stride": 8}),
    "beit classifier, relative bias": _beit(**RELATIVE),
    "beit classifier, shared bias": _beit(**SHARED),
    "beit classifier, absolute positions": _beit(**ABSOLUTE),
    "beit classifier, all positions": _beit(**ABSOLUTE, **RELATIVE, **SHARED),
    "beit classifier, no positions": _beit(),
    "beit classifier, cls": _beit(**RELATIVE, **CLS),
    "beit classifier, no layer scale": _beit(**RELATIVE, layer_scale_init_value=0.0),
    "beit classifier, mask token": _beit(**SHARED, use_mask_token=True),
    "beit encoder, mean": _beit("BeitModel", **RELATIVE),
    "beit encoder, cls": _beit("BeitModel", **SHARED, **CLS),
    "beit encoder, mean, no pooler": _beit("BeitModel", pooler=False, **RELATIVE, use_mask_token=True),
    "beit encoder, cls, no pooler": _beit("BeitModel", pooler=False, **ABSOLUTE, **CLS),
    "data2vec classifier, relative bias": _beit("Data2VecVisionForImageClassification", **RELATIVE),
    "data2vec classifier, all positions": _beit(
        "Data2VecVisionForImageClassification", **ABSOLUTE, **RELATIVE, **SHARED, **CLS, use_mask_token=True
    ),
    "data2vec classifier, no layer scale": _beit(
        "Data2VecVisionForImageClassification", **SHARED, layer_scale_init_value=0.0
    ),
    "data2vec encoder, mean": _beit("Data2VecVisionModel", pooler=True, **RELATIVE),
    "data2vec encoder, cls": _beit("Data2VecVisionModel", pooler=True, **SHARED, **CLS),
    "data2vec encoder, mean, no pooler": _beit("Data2VecVisionModel", **RELATIVE),
    "data2vec encoder, cls, no pooler": _beit("Data2VecVisionModel", **ABSOLUTE, **CLS),
    "dinov2 classifier": Entry("dinov2", "Dinov2ForImageClassification"),
    "dinov2 classifier, swiglu": Entry("dinov2", "Dinov2ForImageClassification", {"use_swiglu_ffn": True}),
    "dinov2 encoder": Entry("dinov2", "Dinov2Model", {"use_mask_token": False, "qkv_bias": False}),
    "dinov2 encoder, swiglu": Entry("dinov2", "Dinov2Model", {"use_swiglu_ffn": True}),
    "registers classifier": Entry(
        "dinov2_with_registers", "Dinov2WithRegistersForImageClassification", {"num_register_tokens": 3}
    ),
    "registers classifier, swiglu": Entry(
        "dinov2_with_registers",
        "Dinov2WithRegistersForImageClassification",
        {"num_register_tokens": 3, "use_swiglu_ffn": True},
    ),
    "registers encoder": Entry("dinov2_with_registers", "Dinov2WithRegistersModel", {"num_register_tokens": 3}),
    "registers encoder, swiglu": Entry(
        "dinov2_with_registers", "Dinov2WithRegistersModel", {"num_register_tokens": 3, "use_swiglu_ffn": True}
    ),
    "dinov3 encoder": Entry("dinov3_vit", "DINOv3ViTModel", {"num_register_tokens": 2}),
    "dinov3 encoder, no registers": Entry("dinov3_vit", "DINOv3ViTModel", {"rope_theta": 10.0}),
    "dinov3 encoder, key bias, gated": Entry(
        "dinov3_vit", "DINOv3ViTModel", {"num_register_tokens": 2, "key_bias": True, "use_gated_mlp": True}
    ),
    "dinov3 encoder, few biases": Entry(
        "dinov3_vit",
        "DINOv3ViTModel",
        {"num_register_tokens": 2, "proj_bias": False, "mlp_bias": False, "query_bias": False, "value_bias": False},
    ),
    "dinov3 encoder, few biases, gated": Entry(
        "dinov3_vit",
        "DINOv3ViTModel",
        {"num_register_tokens": 2, "mlp_bias": False, "use_gated_mlp": True, "hidden_act": "silu"},
    ),
    "ijepa classifier": Entry("ijepa", "IJepaForImageClassification"),
    "ijepa encoder": Entry("ijepa", "IJepaModel", {"qkv_bias": False}, {"use_mask_token": True}),
    "ijepa encoder, pooler": Entry("ijepa", "IJepaModel", POOLER, {"add_pooling_layer": True}),
    "clip classifier": Entry("clip", "CLIPForImageClassification"),
    "clip zero-shot": Entry("clip", "CLIPModel", zero_shot=True),
    "clip bare": Entry("clip", "CLIPModel", {"hidden_act": "gelu"}),
    "clip vision": Entry("clip_vision_model", "CLIPVisionModel"),
    "clip vision with projection": Entry(
        "clip_vision_model", "CLIPVisionModelWithProjection", {"projection_dim": PROJECTION}
    ),
    "siglip classifier": Entry("siglip", "SiglipForImageClassification"),
    "siglip classifier, no vision head": Entry("siglip", "SiglipForImageClassification", {"vision_use_head": False}),
    "siglip zero-shot": Entry("siglip", "SiglipModel", zero_shot=True),
    "siglip bare": Entry("siglip", "SiglipModel"),
    "siglip vision": Entry("siglip_vision_model", "SiglipVisionModel"),
    "siglip vision, no head": Entry("siglip_vision_model", "SiglipVisionModel", {"vision_use_head": False}),
    "siglip2 classifier": Entry("siglip2", "Siglip2ForImageClassification"),
    "siglip2 zero-shot": Entry("siglip2", "Siglip2Model", zero_shot=True),
    "siglip2 bare": Entry("siglip2", "Siglip2Model"),
    "siglip2 vision": Entry("siglip2_vision_model", "Siglip2VisionModel"),
    "siglip2 vision, no head": Entry("siglip2_vision_model", "Siglip2VisionModel", {"vision_use_head": False}),
}

FULL_SIZE: dict[str, Entry] = {
    name: replace(ZOO[name], shape="base")
    for name in (
        "vit classifier",
        "msn classifier",
        "mae encoder",
        "deit with teacher",
        "beit classifier, relative bias",
        "data2vec classifier, relative bias",
        "dinov2 classifier",
        "registers classifier, swiglu",
        "dinov3 encoder, key bias, gated",
        "ijepa classifier",
        "clip zero-shot",
        "siglip zero-shot",
        "siglip2 classifier",
    )
}
