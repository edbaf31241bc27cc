"""Labels as commands meet them: columns that are named, images without a label, matchings that are said once."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import datasets
import pandas as pd
import pytest
from script_calls import call, script

from mechvit.cli.command_line import run
from mechvit.data import InferredLabels, load_images

BY_NUMBER = "19 classes matched by their numbers, which are class indices"


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory) -> str:
    """Photographs in the hub's layout, a fifth of them without a label; their classes by name and by number."""
    folder = tmp_path_factory.mktemp("hub")
    images = load_images("photos", "test", limit=190, image_size=32)
    names = images.features["label"].names
    labels = [-1 if i % 5 == 0 else label for i, label in enumerate(images["label"])]
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "name": datasets.ClassLabel(names=names[::-1]),
            "number": datasets.ClassLabel(num_classes=len(names)),
        }
    )
    rows = {
        "picture": images["image"][:],
        "name": [label if label < 0 else len(names) - 1 - label for label in labels],
        "number": labels,
    }
    (folder / "data").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "data" / "test-00000.parquet")
    return str(folder)


@pytest.mark.long
def test_a_column_must_be_named_and_unlabelled_images_left_out(checkpoints, hub_folder, tmp_path):
    asked = {"model": (checkpoints["base"],), "corruptions": ("clean",)}
    with pytest.raises(ValueError, match="name and number: name one"):
        call("evaluate", images=hub_folder, **asked)
    with pytest.raises(ValueError, match=r"38 of 190 images .* with unlabelled='skip'"):
        call("evaluate", images=f"{hub_folder}:label=name", **asked)
    tables, inferred = [], {"name": nullcontext(), "number": pytest.warns(InferredLabels, match=BY_NUMBER)}
    for column in inferred:
        out = tmp_path / column
        with inferred[column], pytest.warns(UserWarning, match="left out 38 of 190"):
            call("evaluate", images=f"{hub_folder}:label={column}", unlabelled="skip", out=str(out), **asked)
        tables.append(pd.read_parquet(out / "performance.parquet").set_index("image_id"))
    true = load_images("photos", "test", limit=190, image_size=32)["label"]
    for table in tables:
        assert all(row % 5 for row in table.index)
        assert table["label"].to_dict() == {row: true[row] for row in table.index}


@pytest.mark.filterwarnings("default")
def test_an_inferred_matching_is_said_once(checkpoints, hub_folder, capsys):
    evaluate = script("evaluate")
    options = evaluate.Options(
        model=tuple(checkpoints.values()),
        images=f"{hub_folder}:label=number",
        unlabelled="skip",
        corruptions=("clean",),
        device="cpu",
    )
    run(evaluate.main, options)
    lines = capsys.readouterr().err.splitlines()
    assert any("warning: left out 38 of 190" in line for line in lines)
    said = [line for line in lines if line.startswith("note: ")]
    assert said == [f"note: {BY_NUMBER}"]


@pytest.mark.long
def test_a_multi_label_model_is_refused_by_name_and_compared_all_the_same(checkpoints, tmp_path, capsys):
    """Commands that need answers refuse it; activations are cached and representations compared."""
    import transformers

    folder = tmp_path / "multi"
    model = transformers.ViTForImageClassification.from_pretrained(checkpoints["base"])
    model.config.problem_type = "multi_label_classification"
    model.save_pretrained(folder)
    transformers.ViTImageProcessorPil.from_pretrained(checkpoints["base"]).save_pretrained(folder)
    multi, base = str(folder), checkpoints["base"]
    asked = {
        "evaluate": {"model": (multi,)},
        "robustness": {"model": (multi,)},
        "analyze": {"base": base, "tuned": (multi,)},
        "patch_models": {"receiver": base, "giver": multi, "corruption": "gaussian_blur_2"},
        "finetune": {"model": multi, "corruption": ("clean",)},
    }
    for name, options in asked.items():
        with pytest.raises(ValueError, match=r"softmax classifier.*multi_label_classification"):
            call(name, out=str(tmp_path / name), **options)
    call("cache_activations", model=str(folder), out=str(tmp_path / "cache"), limit=19)
    call(
        "compare_representations",
        model=(checkpoints["base"], str(folder)),
        out=str(tmp_path / "compared"),
        limit=38,
        corruptions=("gaussian_blur_2",),
    )
    assert (
        "no lenses, which need softmax classifiers: multi (its problem_type is multi_label" in capsys.readouterr().out
    )
    tables = sorted(path.stem for path in Path(tmp_path / "compared").glob("*.parquet"))
    assert tables == ["cka"]
