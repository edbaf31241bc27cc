"""browse_features.py: one page of the SAEs of a base and a tuned model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from random_saes import make_sae
from script_calls import call, script

from mechvit import HookedViT
from mechvit.data import load_images
from mechvit.experiment.inputs import prepared_images
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.saes import load_sae
from mechvit.saes.dashboard.collect import browse_features


@pytest.fixture(scope="module")
def folder(tiny_hf, tiny_processor, tmp_path_factory) -> Path:
    """models/base and models/tuned of the photographs' 19 classes, each with saes/NAME/standard and batchtopk."""
    from transformers import ViTConfig, ViTForImageClassification

    folder = tmp_path_factory.mktemp("run")
    classes = load_images("photos", "test", limit=19, image_size=32).features["label"].names
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": dict(enumerate(classes)), "label2id": None})
    for seed, name in enumerate(["base", "tuned"]):
        model = ViTForImageClassification(config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.25 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder / "models" / name)
        tiny_processor.save_pretrained(folder / "models" / name)
        own = checkpoint_hash(HookedViT.from_pretrained(folder / "models" / name, device="cpu"))
        for kind, architecture in (("standard", "standard"), ("jumprelu", "batchtopk")):
            about = {"hook_tokens": "all", "checkpoint_hash": own, "architecture_in_training": architecture}
            make_sae(kind, seed=seed, **about).save_model(folder / "saes" / name / architecture)
    return folder


def browse(folder: Path, **options) -> Path:
    defaults = {
        "model": str(folder / "models" / "base"),
        "saes": (str(folder / "saes" / "base"),),
        "limit": 38,
        "corruptions": ("gaussian_noise_2", "gaussian_noise_4"),
        "n_features": 12,
        "n_images": 3,
    }
    call("browse_features", **{**defaults, **options})
    return options["out"]


def spec_of(page: Path) -> dict:
    return json.loads(page.read_text().split('id="spec">')[1].split("</script>")[0])


@pytest.mark.long
def test_the_page_shows_both_models(folder, tmp_path, capsys):
    tuned = {"tuned": str(folder / "models" / "tuned"), "tuned_saes": (str(folder / "saes" / "tuned" / "batchtopk"),)}
    out = browse(folder, out=tmp_path / "features.html", features=(40, 41), title="Ours", **tuned)
    assert capsys.readouterr().out.splitlines()[1:] == [str(out)]
    spec = spec_of(out)
    assert spec["title"] == "Ours"
    names = ["base batchtopk", "base standard", "tuned batchtopk"]
    assert [sae["name"] for sae in spec["saes"]] == names
    assert [sae["kind"] for sae in spec["saes"]] == ["batchtopk", "standard", "batchtopk"]
    assert [page["id"] for page in spec["saes"][0]["pages"]][:2] == [40, 41]
    assert all(len(sae["pages"]) == 12 for sae in spec["saes"])
    assert [condition["key"] for condition in spec["conditions"]] == ["clean", "gaussian_noise_4"]
    assert len(spec["shown"]) == 3

    module = script("browse_features")
    options = module.Options(model=str(folder / "models" / "base"), saes=(str(folder / "saes" / "base"),), out=out)
    images = prepared_images("photos", "test", *_checkpoint(folder), limit=38, seed=0)
    model = HookedViT.from_pretrained(folder / "models" / "base", device="cpu")
    sae = load_sae(folder / "saes" / "base" / "batchtopk")
    asked = [page["id"] for page in spec["saes"][0]["pages"]]
    found = browse_features({"one": (model, sae)}, images, options.corruptions[-2:], features={"one": asked})
    for i, page in enumerate(spec["saes"][0]["pages"]):
        assert page["histogram"] == found.saes["one"].histogram[i].tolist()
        logit = float(found.saes["one"].ablation.label_logit[i])
        assert page["ablation"]["logit"] == pytest.approx(logit, rel=1e-3, abs=1e-6)


def _checkpoint(folder: Path):
    model = HookedViT.from_pretrained(folder / "models" / "base", device="cpu")
    return model.hf_config, model.image_processor


def test_one_model_keeps_the_saes_own_names(folder, tmp_path):
    spec = spec_of(browse(folder, out=tmp_path / "features.html"))
    assert [sae["name"] for sae in spec["saes"]] == ["batchtopk", "standard"]
    assert spec["title"] == "SAE features"


def test_pictures_and_folders_without_labels_are_browsed(folder, tmp_path, capsys):
    """The latents of pictures are those of the same images in a folder, without classes and named by their files."""
    (tmp_path / "own").mkdir()
    for i, image in enumerate(load_images("photos", "test", limit=30, image_size=32)["image"]):
        image.save(tmp_path / "own" / f"{i:02}.png")
    pictures = tuple(sorted((tmp_path / "own").iterdir()))[:4]
    few = spec_of(browse(folder, pictures=pictures, limit=None, out=tmp_path / "few.html"))
    assert capsys.readouterr().out.splitlines()[0] == "4 pictures, without labels"
    assert {image["file"] for image in few["images"]} <= {path.name for path in pictures}
    assert {image["label"] for image in few["images"]} == {-1}
    assert few["nImages"] == 4
    whole = spec_of(browse(folder, images=f"folder:{tmp_path / 'own'}", limit=None, out=tmp_path / "whole.html"))
    assert capsys.readouterr().out.splitlines()[0] == "6 of 30 images: the part `test`, without labels"
    assert whole["saes"][0]["pages"][0]["ablation"]["logit"] is None
    assert whole["saes"][0]["pages"][0]["labels"] == []


def test_what_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="--tuned and --tuned-saes go together"):
        browse(folder, out=tmp_path / "features.html", tuned="tuned")
    out = tmp_path / "there.html"
    out.write_text("precious")
    with pytest.raises(ValueError, match="is no page that mechvit wrote"):
        browse(folder, out=out, overwrite=True)
    assert out.read_text() == "precious"
    with pytest.raises(ValueError, match="holds no SAE"):
        browse(folder, out=tmp_path / "features.html", saes=(str(folder / "models"),))
    with pytest.raises(ValueError, match="trained on another model"):
        browse(folder, out=tmp_path / "features.html", saes=(str(folder / "saes" / "tuned"),))
    with pytest.raises(ValueError, match=r"has the latents 0 to 47; got \[48\]"):
        browse(folder, out=tmp_path / "features.html", features=(48,))
    assert [path.name for path in tmp_path.iterdir()] == ["there.html"]


def test_an_earlier_page_is_replaced_on_request_only(folder, tmp_path):
    out = browse(folder, out=tmp_path / "features.html")
    with pytest.raises(ValueError, match="exists: give another --out, or --overwrite"):
        browse(folder, out=out)
    assert spec_of(browse(folder, out=out, overwrite=True))["saes"]
