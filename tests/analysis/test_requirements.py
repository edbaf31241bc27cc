"""The table of what each quantity needs of a pair: its reasons, and its copy in the documentation."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import transformers

from mechvit import HookedViT
from mechvit.analysis import unmet
from mechvit.analysis.requirements import REQUIREMENTS, WORDS, needs_table
from mechvit.models import graft_head, linear_head

METHODS = Path(__file__).parents[2] / "docs" / "methods.md"


def refused(base: HookedViT, tuned: HookedViT, **options: bool) -> set[str]:
    return {quantity for quantity in REQUIREMENTS if unmet(quantity, base, tuned, **options) is not None}


def needing(*needs: str) -> set[str]:
    return {quantity for quantity, needed in REQUIREMENTS.items() if set(needs) & set(needed.needs)}


def test_the_documentation_holds_the_table():
    assert needs_table() in METHODS.read_text(encoding="utf-8")
    assert {need for r in REQUIREMENTS.values() for need in r.needs} == set(WORDS) - {"width"}


def test_a_model_and_its_copy_lack_nothing(tiny_model):
    assert refused(tiny_model, copy.deepcopy(tiny_model)) == set()


def test_no_kin_lack_what_needs_a_basis(tiny_model):
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    assert refused(tiny_model, other) == needing("kin")
    reason = unmet("swaps", tiny_model, other)
    assert reason is not None
    assert reason.startswith("swapping weights needs kin, so that weights and activations share a basis, and the same")
    assert "the median cosine of their weight matrices is 0.0" in reason


def test_other_classes_lack_what_compares_outputs_unless_a_head_is_shared(tiny_model):
    tuned = linear_head(tiny_model, torch.zeros(3, 32), torch.zeros(3), dict(enumerate("abc")))
    assert refused(tiny_model, tuned) == needing("classes")
    assert "theirs are others (5 and 3)" in str(unmet("behaviour", tiny_model, tuned))
    assert refused(tiny_model, tuned, shared_head=True) == set()
    assert refused(graft_head(tiny_model, tuned), tuned) == set()
    bare = HookedViT.from_hf(copy.deepcopy(tiny_model.to_hf().vit), tiny_model.image_processor)
    assert refused(bare, tuned) == needing("classes")
    assert "the base model, a ViTModel, is a bare encoder" in str(unmet("patching", bare, tuned))


def test_unequal_blocks_or_heads_lack_what_compares_heads(tiny_model, tiny_hf, tiny_processor):
    for field, value, said in (
        ("num_hidden_layers", 2, "their numbers of blocks are 3 and 2"),
        ("num_attention_heads", 4, "their numbers of heads are 2 and 4"),
    ):
        config = transformers.ViTConfig.from_dict(tiny_hf.config.to_dict() | {field: value})
        other = HookedViT.from_hf(transformers.ViTForImageClassification(config).eval(), tiny_processor)
        assert refused(tiny_model, other) >= needing("heads")
        assert str(unmet("attention", tiny_model, other)).endswith(said)


def test_another_size_or_crop_lacks_what_compares_patches(tiny_model):
    larger = copy.deepcopy(tiny_model).set_image_size(64)
    assert refused(tiny_model, larger) == needing("grid", "pixels", "values")
    assert "their image_size is 32 and 64" in str(unmet("attention", tiny_model, larger))
    cropped = copy.deepcopy(tiny_model)
    cropped.image_processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    )
    assert refused(tiny_model, cropped) == needing("grid", "pixels", "values")
    smoother = copy.deepcopy(tiny_model)
    smoother.image_processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=3)
    assert refused(tiny_model, smoother) == needing("pixels", "values")
    darker = copy.deepcopy(tiny_model)
    darker.image_processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.4] * 3)
    assert refused(tiny_model, darker) == needing("values") == {"interpolation"}


def test_an_unknown_quantity_is_refused(tiny_model):
    with pytest.raises(ValueError, match=r"quantity must be one of accuracy, .*; got 'colour'"):
        unmet("colour", tiny_model, tiny_model)
