"""The scripts on checkpoints of other families, at the size that their image processors make."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from hf_zoo import CLASSES, ZOO
from script_calls import call

from mechvit import HookedViT
from mechvit.analysis import evaluate
from mechvit.data import align_labels, load_images, prepare, without_training_images

FAMILIES = {"dinov2 classifier": 48, "clip classifier": 48, "siglip classifier": 32, "beit classifier, shared bias": 32}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 20 pictures in the zoo's five classes."""
    folder = tmp_path_factory.mktemp("pictures")
    for row in load_images("photos", "test", limit=20, image_size=64):
        place = folder / CLASSES[row["image_id"] % 5]
        place.mkdir(exist_ok=True)
        row["image"].resize((70, 60)).save(place / f"{row['image_id']}.png")
    return f"folder:{folder}"


EVERY_DAY = ("dinov2 classifier", "siglip classifier")  # with CLS and without; resized and as it is


@pytest.fixture(
    params=[name if name in EVERY_DAY else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES], ids=str
)
def checkpoint(request, tmp_path):
    folder = tmp_path / "base"
    ZOO[request.param]().save_pretrained(folder)
    side = FAMILIES[request.param]
    transformers.ViTImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    return folder, side


@pytest.mark.long
def test_a_family_from_images_to_tables(checkpoint, pictures, tmp_path):
    """Fine-tune, evaluate, analyse, train and evaluate SAEs, draw attention."""
    from mechvit.finetuning import FinetuneConfig
    from mechvit.saes import SAEConfig

    base, side = checkpoint
    call(
        "finetune",
        model=str(base),
        corruption=("gaussian_noise_2",),
        out=str(tmp_path / "gaussian_noise_2"),
        images=pictures,
        config=FinetuneConfig(learning_rate=1e-3, epochs=1, batch_size=8),
    )
    tuned = str(tmp_path / "gaussian_noise_2")
    shared = {"images": pictures, "corruptions": ("gaussian_noise_2",)}
    call("analyze", base=str(base), tuned=(tuned,), out=str(tmp_path / "analysis"), **shared)
    model = HookedViT.from_pretrained(tuned, device="cpu")
    assert model.cfg.image_size == side
    new, n_left_out = without_training_images(load_images(pictures), [tuned])
    assert n_left_out == len(load_images(pictures)) - len(new) > 0
    images = prepare(align_labels(new, model.hf_config.id2label), model.image_processor)
    assert images.features["pixels"].shape == (3, side, side)
    table = pd.read_parquet(tmp_path / "analysis" / "performance.parquet")
    rows = table[(table["model"] == "gaussian_noise_2") & (table["corruption"] == "clean")]
    found = evaluate(model, images)
    assert rows["rank"].tolist() == found.rank.tolist()
    assert torch.allclose(torch.tensor(rows["loss"].tolist()), found.loss.cpu().float(), atol=1e-5)
    config = SAEConfig(
        epochs=1, k=4, expansion_factor=2, train_batch_size_tokens=64, images_per_batch=8, calibration_images=8
    )
    call("train_sae", model=tuned, out=str(tmp_path / "saes"), config=config, **shared)
    call("evaluate_sae", model=tuned, saes=(str(tmp_path / "saes"),), out=str(tmp_path / "quality"), **shared)
    quality = pd.read_parquet(tmp_path / "quality" / "sae_quality.parquet")
    assert set(quality["architecture"]) == {"standard", "batchtopk"}
    accuracy = quality[(quality["metric"] == "accuracy") & (quality["corruption"] == "clean")]["value"]
    assert accuracy.between(0, 1).all()
    picture = next(Path(pictures.removeprefix("folder:")).glob("ant/*.png"))
    call(
        "visualize_attention",
        model=str(base),
        tuned=tuned,
        pictures=(picture,),
        corruption="gaussian_noise_2",
        layers=(0,),
        heads=(0,),
        out=tmp_path / "attention.html",
    )
    assert "CircuitsVis" in (tmp_path / "attention.html").read_text()
