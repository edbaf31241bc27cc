"""Images as people have them, through the commands: ImageNet's relatives, groups, pictures, what was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from script_calls import call

from mechvit.data import InferredLabels
from mechvit.data.sources.synsets import synset_names

TEN = [list(synset_names())[i] for i in (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)]
"""WordNet ids of Imagenette."""


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def imagenet(tiny_hf, tiny_processor, tmp_path_factory) -> str:
    """A random tiny ViT with the names of ImageNet's classes."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    names = dict(enumerate(synset_names().values()))
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": names, "label2id": None})
    folder = tmp_path_factory.mktemp("models") / "imagenet"
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def own(tmp_path) -> Path:
    """Photographs' classes in folders, two sites each: coins/north/0.png, ..."""
    for place, name in enumerate(("coins", "moon")):
        for site in ("north", "south"):
            for i in range(10):
                picture(tmp_path / "own" / name / site / f"{i}.png", 100 * place + 10 * (site == "north") + i)
    return tmp_path / "own"


def evaluated(model: str, out: Path, **options) -> dict[str, pd.DataFrame]:
    call("evaluate", model=(model,), corruptions=("clean",), out=str(out), **options)
    return {path.stem: pd.read_parquet(path) for path in out.glob("*.parquet")}


def test_imagenette_is_classified_among_all_classes_and_among_its_own(imagenet, tmp_path, capsys):
    for place, name in enumerate(TEN):
        picture(tmp_path / "nette" / "train" / name / "0.JPEG", place)
        for i in range(2):
            picture(tmp_path / "nette" / "val" / name / f"{i}.JPEG", 100 + 10 * place + i)
    with pytest.raises(ValueError, match=r"name one of them, as in folder:.*nette@val"):
        evaluated(imagenet, tmp_path / "out", images=f"folder:{tmp_path / 'nette'}")
    capsys.readouterr()
    with pytest.warns(InferredLabels, match="^10 classes matched by WordNet id"):
        tables = evaluated(imagenet, tmp_path / "out", images=f"folder:{tmp_path / 'nette'}@val")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "20 images of the folder val"
    assert "accuracy is over all 1,000 classes of the model" in " ".join(said)
    summary = tables["performance_summary"].set_index("metric")["value"]
    table = tables["performance"]
    assert sorted(set(table["label"])) == sorted(list(synset_names()).index(name) for name in TEN)
    assert summary["accuracy"] == (table["rank"] == 0).mean()
    assert summary["accuracy_present_classes"] == (table["rank_present"] == 0).mean() > summary["accuracy"]
    assert (table["rank_present"] < 10).all()


def test_folders_of_numbers_are_imagenets_classes_if_there_are_all(imagenet, tmp_path):
    for k in range(1000):
        picture(tmp_path / "v2" / str(k) / "0.jpeg", k % 7)
    with pytest.warns(InferredLabels, match="^1,000 classes matched by their numbers"):
        table = evaluated(imagenet, tmp_path / "out", images=f"folder:{tmp_path / 'v2'}", limit=100)["performance"]
    assert len(set(table["label"])) == 100
    for k in range(10, 1000):
        (tmp_path / "v2" / str(k) / "0.jpeg").unlink()
        (tmp_path / "v2" / str(k)).rmdir()
    with pytest.raises(ValueError, match="is a number, which counts as an index only if"):
        evaluated(imagenet, tmp_path / "other", images=f"folder:{tmp_path / 'v2'}")


def test_performance_is_tabled_by_group(checkpoint, own, tmp_path, capsys):
    tables = evaluated(checkpoint, tmp_path / "out", images=f"folder:{own}", groups="parent")
    assert "accuracy by parent, with 95% intervals" in capsys.readouterr().out
    assert set(tables["performance"]["parent"]) == {"north", "south"}
    groups = tables["performance_by_group"].query("metric == 'accuracy'").set_index("group")
    right = tables["performance"].assign(right=tables["performance"]["rank"] == 0).groupby("parent")["right"].mean()
    assert groups["value"].to_dict() == right.to_dict()
    assert groups["n"].to_dict() == {"north": 20, "south": 20}


def test_pictures_without_labels_are_predicted(checkpoints, own, tmp_path, capsys):
    chosen = (own / "coins" / "north" / "0.png", own / "moon" / "south" / "3.png")
    call(
        "evaluate", model=tuple(checkpoints.values()), pictures=chosen, corruptions=("clean",), out=str(tmp_path / "a")
    )
    said = capsys.readouterr().out
    assert said.startswith("2 pictures, without labels\nno accuracy, since the images have no labels")
    table = pd.read_parquet(tmp_path / "a" / "predictions.parquet")
    assert table["path"].tolist() == [path.as_posix() for path in chosen] * 2
    for place, path in enumerate(chosen):
        picture_there = tmp_path / "flat" / f"{place}.png"
        picture_there.parent.mkdir(exist_ok=True)
        picture_there.write_bytes(path.read_bytes())
    again = evaluated(checkpoints["base"], tmp_path / "b", images=f"folder:{tmp_path / 'flat'}")["predictions"]
    first = table[table["model"] == "base"]
    assert again["predicted_class"].tolist() == first["predicted_class"].tolist()
    assert again["confidence"].to_numpy() == pytest.approx(first["confidence"].to_numpy())


@pytest.mark.long
def test_what_needs_no_labels_works_without(checkpoints, own, tmp_path, capsys):
    flat = tmp_path / "flat"
    for i in range(20):
        picture(flat / f"{i}.png", i)
    source, base = f"folder:{flat}", checkpoints["base"]
    call("explore_attention", model=(base,), images=source, out=tmp_path / "a.html", limit=2)
    assert '"title":"image ' in (tmp_path / "a.html").read_text()
    compared = {"model": tuple(checkpoints.values()), "corruptions": ("gaussian_blur_2",)}
    capsys.readouterr()
    call("compare_representations", images=source, out=str(tmp_path / "cka"), **compared)
    said = capsys.readouterr().out
    assert "20 images, without labels" in said
    assert "no lenses, which need labels of all images" in said
    assert [path.stem for path in (tmp_path / "cka").glob("*.parquet")] == ["cka"]
    call(
        "cache_activations", model=base, images=source, part="all", out=str(tmp_path / "cache"), corruptions=("clean",)
    )
    pair = {"base": base, "tuned": checkpoints["gaussian_blur_2"], "corruptions": ("gaussian_blur_2",)}
    with pytest.raises(ValueError, match="quantity must be divergence"):
        call("swap_weights", images=source, out=str(tmp_path / "no"), quantity="accuracy", **pair)
    call("swap_weights", images=source, out=str(tmp_path / "swaps"), **pair)
    swaps = pd.read_parquet(tmp_path / "swaps" / "swaps.parquet")
    assert swaps.loc[swaps["quantity"] == "divergence", "recovered"].notna().any()
    assert (tmp_path / "swaps" / "figures" / "interpolation_curves.html").exists()
    for name, options in {
        "analyze": {"base": base, "tuned": (checkpoints["gaussian_blur_2"],), "out": str(tmp_path / "no")},
        "finetune": {"model": base, "corruption": ("clean",), "out": str(tmp_path / "no")},
        "robustness": {"model": (base,), "out": str(tmp_path / "no")},
    }.items():
        with pytest.raises(ValueError, match=r"20 images of folder:.* have no labels, which are needed here"):
            call(name, images=source, **options)
    other = own.parent / "other"
    own.rename(other)
    for name in ("coins", "moon"):
        (other / name).rename(other / f"{name} of mine")
    capsys.readouterr()
    call("explore_attention", model=(base,), images=f"folder:{other}", out=tmp_path / "b.html", limit=2)
    assert "their classes are not used: 2 of the data set's 2 classes" in capsys.readouterr().out


@pytest.mark.long
def test_causes_are_measured_without_labels(checkpoints, tmp_path, capsys):
    """Patching and steering on pictures without labels: shares of KL(giver | receiver), tables and figures of these."""
    flat = tmp_path / "flat"
    for i in range(20):
        picture(flat / f"{i}.png", i)
    source, base, tuned = f"folder:{flat}", checkpoints["base"], checkpoints["gaussian_blur_2"]
    out = tmp_path / "patching"
    call("patch_models", receiver=base, giver=tuned, corruption="clean", images=source, neurons=(2, 2), out=str(out))
    said = capsys.readouterr().out
    assert "20 images, without labels" in said
    assert "recovered is 1 - KL(giver | patched) / KL(giver | receiver)" in said
    tables = {path.stem: pd.read_parquet(path) for path in out.glob("*.parquet")}
    assert len(tables) == 11
    assert set(tables["summary"]["quantity"]) == {"divergence"}
    whole = tables["summary"].query("kind == 'resid' and layer == 3")
    assert whole["recovered"].item() > 0.5  # all but the head and the final norm
    figures = sorted(path.stem for path in (out / "figures").iterdir())
    assert figures == ["attribution", "head_links", "patching_divergence"]
    out, asked = (
        tmp_path / "steering",
        {"base": base, "tuned": tuned, "images": source, "corruption": "gaussian_blur_2"},
    )
    with pytest.raises(ValueError, match="most_cost needs a label of every image"):
        call("steer", most_cost=0.01, out=str(out), **asked)
    call("steer", layers=(1,), scales=(1.0,), controls=1, out=str(out), **asked)
    assert "KL divergence from the tuned model under gaussian_blur_2" in capsys.readouterr().out
    chosen = pd.read_parquet(out / "chosen.parquet")
    assert set(chosen["quantity"]) == {"divergence"}
    assert (out / "figures" / "steering_by_scale.html").exists()


@pytest.mark.long
def test_images_that_a_model_was_tuned_on_are_left_out(checkpoint, own, tmp_path, capsys):
    from mechvit.finetuning import FinetuneConfig

    tuned = str(tmp_path / "tuned")
    config = FinetuneConfig(epochs=1)
    call("finetune", model=checkpoint, images=f"folder:{own}", corruption=("clean",), out=tuned, config=config)
    said = capsys.readouterr().out
    record = pd.read_parquet(Path(tuned) / "training_images.parquet")
    counts = record["use"].value_counts()
    assert f"{counts['training']} of 40 images: the part `train`" in said
    assert f"{counts['validation']} of 40 images: the part `validation`" in said
    for path in sorted(own.rglob("*.png")):
        path.rename(path.with_name(f"renamed {path.name}"))
    for models in ((tuned,), (checkpoint, tuned)):
        call("evaluate", model=models, images=f"folder:{own}", corruptions=("clean",))
        said = capsys.readouterr().out.splitlines()
        left = 40 - len(record)
        out = f"left out {len(record)} that a model was trained on, or its epoch chosen by"
        assert said[:2] == [out, f"{left} of 40 images"]
