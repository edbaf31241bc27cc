"""The scripts give what the package's functions give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from script_calls import call

from mechvit import HookedViT
from mechvit.data import Corruption, corrupt, load_images, normalize, prepare, unit_pixels

CORRUPTIONS = ("gaussian_blur_2", "gaussian_noise_4")


def prepared(part: str, limit: int, processor) -> Any:
    return prepare(load_images("photos", part, limit=limit, image_size=32), processor)


@pytest.mark.long
def test_finetune_matches_function(checkpoints, tiny_processor, tmp_path, capsys):
    from mechvit.finetuning import FinetuneConfig, finetune

    config = FinetuneConfig(learning_rate=1e-3, epochs=2, batch_size=16)
    out = tmp_path / "tuned"
    call(
        "finetune",
        model=checkpoints["base"],
        corruption=("gaussian_blur_2",),
        out=str(out),
        limit=38,
        validation_limit=19,
        config=config,
    )
    expected = finetune(
        checkpoints["base"],
        prepared("finetune", 38, tiny_processor),
        prepared("finetune_validation", 19, tiny_processor),
        tmp_path / "expected",
        corruption=Corruption("gaussian_blur", 2),
        config=config,
        device="cpu",
        progress=False,
    )
    found, wanted = (load_file(folder / "model.safetensors") for folder in (out, expected))
    before = load_file(Path(checkpoints["base"]) / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert not torch.equal(found["classifier.weight"], before["classifier.weight"])
    log = json.loads((out / "training_log.json").read_text())
    assert log == json.loads((expected / "training_log.json").read_text())
    kept = min(epoch["eval_loss"] for epoch in log["epochs"])
    assert f"of 2 kept, validation loss {kept:.3f}" in capsys.readouterr().out


@pytest.mark.long
def test_evaluate_matches_function(checkpoints, tiny_processor, tmp_path, capsys):
    from mechvit.analysis import evaluate

    out = tmp_path / "evaluation"
    call("evaluate", model=tuple(checkpoints.values()), corruptions=("clean", *CORRUPTIONS), limit=38, out=str(out))
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = pd.read_parquet(out / "performance.parquet")
    summary = pd.read_parquet(out / "performance_summary.parquet").set_index(["model", "corruption", "metric"])
    images = prepared("test", 38, tiny_processor)
    for name, folder in checkpoints.items():
        model = HookedViT.from_pretrained(folder, device="cpu")
        for corruption in ("clean", *CORRUPTIONS):
            found = evaluate(model, images, corruption)
            rows = table[(table["model"] == name) & (table["corruption"] == corruption)]
            assert rows["rank"].tolist() == found.rank.tolist()
            assert rows["image_id"].tolist() == images["image_id"]
            wanted = {"accuracy": found.accuracy, "top5": found.top(5), "top10": found.top(10), "ece": found.ece()}
            for metric, value in wanted.items():
                assert summary.loc[(name, corruption, metric), "value"] == pytest.approx(value, abs=1e-7)
            (line,) = [line for line in printed if line[:2] == [name, corruption]]
            assert [float(value) for value in line[2:]] == pytest.approx(list(wanted.values()), abs=5.1e-5)


def test_evaluate_takes_class_ids_from_the_checkpoint(checkpoints, tiny_processor, tmp_path):
    """The same model with its classes in another order has the same accuracy on a folder of the same photographs."""
    images = load_images("photos", "test", limit=190, image_size=32)
    for row in images:
        name = images.features["label"].names[row["label"]]
        (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
        row["image"].save(tmp_path / "images" / name / f"{row['image_id']}.png")
    hf_model = HookedViT.from_pretrained(checkpoints["base"], device="cpu").to_hf()
    order = list(range(19))[::-1]
    hf_model.config.id2label = {new: hf_model.config.id2label[old] for new, old in enumerate(order)}
    with torch.no_grad():
        hf_model.classifier.weight.copy_(hf_model.classifier.weight[order])
        hf_model.classifier.bias.copy_(hf_model.classifier.bias[order])
    hf_model.save_pretrained(tmp_path / "reordered")
    tiny_processor.save_pretrained(tmp_path / "reordered")
    call(
        "evaluate",
        model=(checkpoints["base"], str(tmp_path / "reordered")),
        images=f"folder:{tmp_path / 'images'}",
        corruptions=("clean",),
        out=str(tmp_path / "out"),
    )
    table = pd.read_parquet(tmp_path / "out" / "performance.parquet").pivot(index="image_id", columns="model")
    assert len(table) == 190
    assert (table["label", "reordered"] == 18 - table["label", "base"]).all()
    assert table["loss", "reordered"].to_numpy() == pytest.approx(table["loss", "base"].to_numpy(), abs=1e-5)


@pytest.mark.long
def test_analyze_matches_study(checkpoints, tiny_processor, tmp_path):
    from mechvit.analysis import attention_summary, study
    from mechvit.analysis.summaries import with_image_units

    out = tmp_path / "analysis"
    call(
        "analyze",
        base=checkpoints["base"],
        tuned=(checkpoints["gaussian_blur_2"],),
        corruptions=CORRUPTIONS,
        limit=38,
        attention_limit=19,
        out=str(out),
    )
    models = {name: HookedViT.from_pretrained(folder, device="cpu") for name, folder in checkpoints.items()}
    corruptions = [Corruption.parse(key) for key in CORRUPTIONS]
    images = prepared("test", 38, tiny_processor)
    wanted = study(models, images, corruptions, attention_limit=19)
    tables = {"performance": with_image_units(wanted.performance, images)}
    assert {"cluster", "stratum"} < set(tables["performance"])
    for name in ("performance", "lens", "attention"):
        pd.testing.assert_frame_equal(pd.read_parquet(out / f"{name}.parquet"), tables.get(name, getattr(wanted, name)))
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "attention_summary.parquet"), attention_summary(wanted.attention)
    )
    figures = {path.stem: path.read_text() for path in (out / "figures").iterdir()}
    assert set(figures) == {
        "table_one",
        "gains",
        "transfer",
        "class_probability",
        "first_correct_layers",
        "first_correct_difference",
        "entropy_difference",
        "pattern_change",
    }
    for text in figures.values():
        assert text.count('<div class="plot" data-spec="figure"') == 1
        assert "Content-Security-Policy" in text
        assert "<script src=" not in text
    assert "H(corrupted)" in figures["entropy_difference"]


def test_analyze_without_corruption_names_gives_tables_only(checkpoints, tiny_processor, tmp_path, capsys):
    renamed = tmp_path / "second"
    HookedViT.from_pretrained(checkpoints["gaussian_blur_2"], device="cpu").to_hf().save_pretrained(renamed)
    tiny_processor.save_pretrained(renamed)
    call(
        "analyze",
        base=checkpoints["base"],
        tuned=(str(renamed),),
        corruptions=("gaussian_blur_2",),
        limit=19,
        out=str(tmp_path / "analysis"),
    )
    assert not (tmp_path / "analysis" / "figures").exists()
    performance = pd.read_parquet(tmp_path / "analysis" / "performance_summary.parquet")
    assert set(performance["model"]) == {"base", "second"}
    assert "no figures: second" in capsys.readouterr().out


def test_train_sae_publishes_stock_saes(saes):
    from sae_lens import SAE

    from mechvit.saes import read_history

    for architecture in ("standard", "batchtopk"):
        sae = SAE.load_from_disk(saes / architecture)
        assert (sae.cfg.d_in, sae.cfg.d_sae) == (32, 128)
        assert sae.cfg.metadata.hook_name == "blocks.1.hook_resid_post"
        assert sae.cfg.metadata.corruptions == list(CORRUPTIONS)
    assert read_history(saes)["tokens"].max() <= 38 * 17


@pytest.mark.long
def test_evaluate_sae_matches_function(checkpoints, saes, tiny_processor, tmp_path, capsys):
    from mechvit.saes import evaluate_saes, load_sae

    out = tmp_path / "evaluation"
    call("evaluate_sae", model=checkpoints["base"], saes=(str(saes),), corruptions=CORRUPTIONS, limit=38, out=str(out))
    model = HookedViT.from_pretrained(checkpoints["base"], device="cpu")
    names = ("batchtopk", "standard")
    loaded = {name: load_sae(saes / name) for name in names}
    wanted = evaluate_saes(model, loaded, prepared("test", 38, tiny_processor), CORRUPTIONS)
    quality = pd.read_parquet(out / "sae_quality.parquet")
    pd.testing.assert_frame_equal(quality, wanted.quality_frame(model="base"))
    pd.testing.assert_frame_equal(pd.read_parquet(out / "sae_cosine.parquet"), wanted.cosine_frame(model="base"))
    assert set(quality["corruption"]) == {"clean", *CORRUPTIONS}
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    columns = next(line for line in printed if line[:1] == ["architecture"])
    for line in printed:
        if line[:1] in [[name] for name in names]:
            shown = float(line[columns.index("explained_variance")])
            assert shown == pytest.approx(wanted.quality[line[0], line[1]].explained_variance, rel=1e-3)
    assert sum(line[:1] in [[name] for name in names] for line in printed) == 6


def test_evaluate_sae_takes_one_sae(checkpoints, saes, tmp_path):
    call(
        "evaluate_sae",
        model=checkpoints["base"],
        saes=(str(saes / "standard"),),
        corruptions=("gaussian_noise_4",),
        limit=19,
        out=str(tmp_path / "one"),
    )
    assert set(pd.read_parquet(tmp_path / "one" / "sae_quality.parquet")["architecture"]) == {"standard"}


def test_visualize_attention_shows_base_beside_tuned(checkpoints, tmp_path):
    from mechvit.views import attention_view
    from mechvit.visualization.html_page.page import json_text

    picture = load_images("photos", "test", limit=1, image_size=32)[0]["image"].resize((50, 41))
    picture.save(tmp_path / "photo.png")
    out = tmp_path / "pages" / "attention.html"
    call(
        "visualize_attention",
        model=checkpoints["base"],
        tuned=checkpoints["gaussian_blur_2"],
        layers=(0, 2),
        heads=(1,),
        pictures=(tmp_path / "photo.png",),
        corruption="gaussian_noise_4",
        out=out,
    )
    views = []
    for title, folder in zip(("Base", "Tuned"), checkpoints.values(), strict=True):
        model = HookedViT.from_pretrained(folder, device="cpu")
        unit = torch.from_numpy(unit_pixels([picture], model.image_processor)) / 255
        noisy = corrupt(unit, Corruption("gaussian_noise", 4), torch.tensor([0]))
        images = {
            f"{title}, clean": model.image_processor(images=picture, return_tensors="pt")["pixel_values"],
            f"{title}, gaussian noise 4": normalize(noisy, model.image_processor),
        }
        views.append(attention_view(model, images, (0, 2), (1,), title="Attention on photo.png"))
    page = out.read_text()
    assert json_text(views[0].beside(views[1]).spec()) in page
    assert "<title>Attention on photo.png</title>" in page


@pytest.mark.long
def test_explore_attention_writes_both_pages(checkpoints, tmp_path):
    from mechvit.views import attention_explorer, patch_lens_view
    from mechvit.visualization.html_page.page import json_text

    picture = load_images("photos", "test", limit=1, image_size=32)[0]["image"].resize((50, 41))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        picture.save(tmp_path / folder / "photo.png")
    picture.save(tmp_path / "other.png")
    paths = tuple(tmp_path / name for name in ("a/photo.png", "b/photo.png", "other.png"))
    explorer, lens = tmp_path / "pages" / "explorer.html", tmp_path / "lens.html"
    call(
        "explore_attention",
        model=tuple(checkpoints.values()),
        pictures=paths,
        corruptions=("gaussian_noise_4",),
        layers=(2, 0),
        out=explorer,
        lens=lens,
        seed=5,
    )
    models = {name: HookedViT.from_pretrained(folder, device="cpu") for name, folder in checkpoints.items()}
    named = {str(paths[0]): picture, str(paths[1]): picture, "other.png": picture}
    views = (
        (explorer, attention_explorer(models, named, ["gaussian_noise_4"], layers=[2, 0], seed=5)),
        (lens, patch_lens_view(models, named, ["gaussian_noise_4"], seed=5)),
    )
    for page, view in views:
        assert json_text(view.spec()) in page.read_text()


def test_explore_attention_takes_test_images(checkpoints, tmp_path, capsys):
    call("explore_attention", model=(checkpoints["base"],), limit=2, out=tmp_path / "explorer.html")
    assert capsys.readouterr().out.splitlines()[1:] == [str(tmp_path / "explorer.html")]
    labels = load_images("photos", "test", limit=2, image_size=32)
    names = [labels.features["label"].names[label] for label in labels["label"]]
    assert all(f'"title":"{name}"' in (tmp_path / "explorer.html").read_text() for name in names)
