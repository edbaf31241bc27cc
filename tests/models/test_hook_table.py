"""The tables of hook points name every point that exists, with the shapes that pass it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_runs import BARE
from hf_zoo import CLASSES, ZOO
from zoo_options import daily

from mechvit import HookedViT
from mechvit.files import is_signed
from mechvit.models.hook_table import POINTS, checkpoint_table, every_point, family_table, points_of, sizes

DOCUMENT = Path(__file__).parents[2] / "docs" / "hook_points.md"


@pytest.mark.long
def test_the_document_is_what_the_models_have():
    """`mechvit hook-points --out docs/hook_points.md --overwrite` mends it, where nobody edited it."""
    assert DOCUMENT.read_text(encoding="utf-8").startswith(family_table() + "<!-- mechvit ")
    assert is_signed(DOCUMENT)


@pytest.mark.parametrize("name", daily())
def test_points_and_shapes_are_those_of_a_run(name):
    entry = ZOO[name]
    model = HookedViT.from_hf(entry(), **entry.zero_shot_head())
    known = points_of(model.cfg)
    assert every_point(model) == set(known)
    size = sizes(model.cfg) | {"batch": 2}
    _, cache = model.run_with_cache(torch.randn(2, 3, 32, 32))
    for point, tensor in cache.items():
        layer = point.split(".")[1] if point.startswith("blocks.") else ""
        shape = known[point.replace(f"blocks.{layer}.", "blocks.{l}.", 1)].shape
        if "ln1" in point:  # called for q, k and v in turn, with a dimension for heads
            shape = shape.replace("token", "token, head")
        assert tuple(tensor.shape) == tuple(size[dim] for dim in shape.split(", ")), point
    assert all(point.meaning for point in POINTS.values())


@pytest.mark.parametrize("name", ["vit classifier", "dinov2 classifier, swiglu", "siglip zero-shot", "clip bare"])
def test_a_checkpoints_table_lists_its_points_with_sizes(name, tmp_path):
    entry = ZOO[name]
    entry().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # the config is enough
    lines = checkpoint_table(str(tmp_path), entry.zero_shot).splitlines()
    assert lines[0] == f"{entry.architecture}: 3 blocks, {{l}} from 0 to 2"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    zero_shot = {"text_embeds": torch.ones(2, 32 if "siglip" in name else 20), "class_names": CLASSES[:2]}
    model = HookedViT.from_hf(entry(), **zero_shot if entry.zero_shot else {})
    assert {row[0].strip("`") for row in rows} == every_point(model)
    found = {row[0].strip("`"): row[2] for row in rows}
    assert found["blocks.{l}.hook_resid_post"] == str([1, model.cfg.n_tokens, 32])
    assert ("hook_logits" in found) == (name not in BARE)
    exists = {row[0].strip("`"): row[4] for row in rows}
    assert exists["blocks.{l}.attn.hook_result"] == "after `model.set_use_attn_result(True)`"
    assert exists["blocks.{l}.attn.hook_z"] == "always"
