"""Models of one command run in one dtype, whatever their checkpoints' is: float32 unless asked."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from script_calls import call

from mechvit import HookedViT
from mechvit.analysis import evaluate
from mechvit.data import load_images, prepare
from mechvit.experiment.inputs import load_classifier, load_model

BLUR = "gaussian_blur_2"


@pytest.fixture(scope="module")
def half(checkpoints, tiny_processor, tmp_path_factory) -> dict[str, str]:
    """The base in bfloat16 and in float16, and for each the very same weights in float32."""
    from transformers import ViTForImageClassification

    folder, saved = tmp_path_factory.mktemp("half"), {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        for kept, where in ((dtype, folder / "half" / name), (torch.float32, folder / "wide" / name)):
            ViTForImageClassification.from_pretrained(checkpoints["base"]).to(dtype).to(kept).save_pretrained(where)
            tiny_processor.save_pretrained(where)
            saved[f"{where.parent.name} {name}"] = str(where)
    return saved


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_parquet(path) for path in sorted(out.glob("*.parquet"))}


@pytest.mark.long
@pytest.mark.parametrize("name", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_half_precision_base_compares_with_its_float32_offspring(half, checkpoints, tmp_path, name):
    """The base's very weights saved in float32 are the reference."""
    found = {}
    for kind in ("half", "wide"):
        base, out = half[f"{kind} {name}"], tmp_path / kind
        call(
            "patch_models",
            receiver=base,
            giver=checkpoints[BLUR],
            corruption=BLUR,
            limit=8,
            neurons=(2, 2),
            out=str(out / "patch"),
        )
        call("swap_weights", base=base, tuned=checkpoints[BLUR], corruptions=(BLUR,), limit=8, out=str(out / "swap"))
        found[kind] = tables(out / "patch") | tables(out / "swap")
    assert len(found["wide"]) > 8
    assert found["half"].keys() == found["wide"].keys()
    for table, frame in found["wide"].items():
        pd.testing.assert_frame_equal(found["half"][table], frame, obj=table, check_exact=True)


def test_another_dtype_is_given_when_asked_for(half, checkpoints, tiny_processor, tmp_path):
    call(
        "evaluate",
        model=(checkpoints["base"],),
        corruptions=(BLUR,),
        limit=19,
        out=str(tmp_path / "found"),
        model_dtype="bfloat16",
    )
    images = prepare(load_images("photos", "test", limit=19, image_size=32), tiny_processor)
    model = HookedViT.from_pretrained(checkpoints["base"], device="cpu", dtype=torch.bfloat16)
    rows = tables(tmp_path / "found")["performance"]
    expected = evaluate(model, images, BLUR)
    assert rows["confidence"].tolist() == pytest.approx(expected.confidence.tolist(), abs=0)
    for load in (load_model, load_classifier):
        assert load(half["half float16"], "cpu").cfg.dtype == torch.float32
        assert load(half["half float16"], "cpu", "float64").cfg.dtype == torch.float64
