"""The command lines: they give what the package's functions give, explain themselves fast, and refuse in one line."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mechvit import HookedViT
from mechvit.data import Corruption, corrupt, load_images, normalize, prepare, unit_pixels
from mechvit.experiment.command_line import check_out, names_of, new_folder, run

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = ("finetune", "evaluate", "analyze", "train_sae", "evaluate_sae", "visualize_attention")
CORRUPTIONS = ("gaussian_blur_2", "gaussian_noise_4")


def script(name: str) -> ModuleType:
    """Import a script as a module."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def call(name: str, **options: Any) -> None:
    """Run a script's main on the CPU."""
    module = script(name)
    module.main(module.Options(device="cpu", **options))


def prepared(part: str, limit: int, processor) -> Any:
    return prepare(load_images("photos", part, limit=limit, image_size=32), processor)


@pytest.fixture(scope="module")
def checkpoints(tiny_hf, tiny_processor, tmp_path_factory) -> dict[str, str]:
    """Two random ViTs of the photographs' 19 classes, saved as `base` and as if tuned on blur 2."""
    from transformers import ViTConfig, ViTForImageClassification

    classes = load_images("photos", "test", limit=19, image_size=32).features["label"].names
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": dict(enumerate(classes)), "label2id": None})
    folder, saved = tmp_path_factory.mktemp("models"), {}
    for seed, name in enumerate(["base", "gaussian_blur_2"]):
        model = ViTForImageClassification(config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.25 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder / name)
        tiny_processor.save_pretrained(folder / name)
        saved[name] = str(folder / name)
    return saved


@pytest.fixture(scope="module")
def saes(checkpoints, tmp_path_factory) -> Path:
    """What train_sae.py leaves after one short epoch."""
    from mechvit.saes import SAEConfig

    out = tmp_path_factory.mktemp("saes") / "base"
    config = SAEConfig(epochs=1, k=4, expansion_factor=4, train_batch_size_tokens=128, images_per_batch=16)
    call(
        "train_sae", model=checkpoints["base"], out=str(out), corruptions=CORRUPTIONS, limit=38, validation_limit=19,
        config=config,
    )  # fmt: skip
    return out


# help


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_help_imports_nothing_heavy(path):
    code = f"""
import runpy, sys
sys.argv = [{str(path)!r}, "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    heavy = {{"torch", "transformers", "transformer_lens", "datasets", "pandas", "plotly"}} & sys.modules.keys()
    print("heavy:", sorted(heavy), file=sys.stderr)
    sys.exit(end.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "heavy: []"


@pytest.mark.parametrize("name", NAMES)
def test_help_explains_every_option(name):
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), "--help"], capture_output=True, text=True, check=True
    )
    shown = "".join(done.stdout.replace("│", " ").split())
    assert 2 <= done.stdout.count(f"scripts/{name}.py --") <= 3  # examples
    tree = ast.parse((SCRIPTS / f"{name}.py").read_text())
    (options,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Options"]
    fields = [i for i, node in enumerate(options.body) if isinstance(node, ast.AnnAssign)]
    assert len(fields) >= 9
    for i in fields:
        field = options.body[i].target.id
        if field == "config":
            assert "--config.epochs" in done.stdout
            continue
        assert f"--{field.replace('_', '-')}" in done.stdout
        text = options.body[i + 1].value.value
        assert "".join(text.split()) in shown, field


# the scripts give what the functions give


def test_finetune_matches_function(checkpoints, tiny_processor, tmp_path, capsys):
    from mechvit.finetuning import FinetuneConfig, finetune

    config = FinetuneConfig(learning_rate=1e-3, epochs=2, batch_size=16)
    out = tmp_path / "tuned"
    call(
        "finetune", model=checkpoints["base"], corruption="gaussian_blur_2", out=str(out), limit=38,
        validation_limit=19, config=config,
    )  # fmt: skip
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


def test_evaluate_matches_function(checkpoints, tiny_processor, tmp_path, capsys):
    from mechvit.analysis import evaluate

    out = tmp_path / "evaluation"
    call(
        "evaluate", model=tuple(checkpoints.values()), corruptions=("clean", *CORRUPTIONS), limit=38, out=str(out)
    )  # fmt: skip
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
    assert len(table) == 38
    assert (table["label", "reordered"] == 18 - table["label", "base"]).all()
    assert table["loss", "reordered"].to_numpy() == pytest.approx(table["loss", "base"].to_numpy(), abs=1e-5)


def test_analyze_matches_study(checkpoints, tiny_processor, tmp_path):
    from mechvit.analysis import attention_summary, study

    out = tmp_path / "analysis"
    call(
        "analyze", base=checkpoints["base"], tuned=(checkpoints["gaussian_blur_2"],), corruptions=CORRUPTIONS, limit=38,
        attention_limit=19, out=str(out),
    )  # fmt: skip
    models = {name: HookedViT.from_pretrained(folder, device="cpu") for name, folder in checkpoints.items()}
    corruptions = [Corruption.parse(key) for key in CORRUPTIONS]
    wanted = study(models, prepared("test", 38, tiny_processor), corruptions, attention_limit=19)
    for name in ("performance", "lens", "attention"):
        pd.testing.assert_frame_equal(pd.read_parquet(out / f"{name}.parquet"), getattr(wanted, name))
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "attention_summary.parquet"), attention_summary(wanted.attention)
    )
    figures = {path.stem: path.read_text() for path in (out / "figures").iterdir()}
    assert set(figures) == set(script("analyze").FIGURES)
    for text in figures.values():
        assert len(re.findall(r'Plotly\.newPlot\(\s*"[0-9a-f-]{36}"', text)) == 1
        assert "<script src=" not in text
    assert "H(corrupted)" in figures["entropy_difference"]


def test_analyze_without_corruption_names_gives_tables_only(checkpoints, tiny_processor, tmp_path, capsys):
    renamed = tmp_path / "second"
    HookedViT.from_pretrained(checkpoints["gaussian_blur_2"], device="cpu").to_hf().save_pretrained(renamed)
    tiny_processor.save_pretrained(renamed)
    call(
        "analyze", base=checkpoints["base"], tuned=(str(renamed),), corruptions=("gaussian_blur_2",), limit=19,
        out=str(tmp_path / "analysis"),
    )  # fmt: skip
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


def test_evaluate_sae_matches_function(checkpoints, saes, tiny_processor, tmp_path, capsys):
    from mechvit.saes import evaluate_saes, load_sae

    out = tmp_path / "evaluation"
    call(
        "evaluate_sae", model=checkpoints["base"], saes=(str(saes),), corruptions=CORRUPTIONS, limit=38, out=str(out)
    )  # fmt: skip
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
        "evaluate_sae", model=checkpoints["base"], saes=(str(saes / "standard"),), corruptions=("gaussian_noise_4",),
        limit=19, out=str(tmp_path / "one"),
    )  # fmt: skip
    assert set(pd.read_parquet(tmp_path / "one" / "sae_quality.parquet")["architecture"]) == {"standard"}


def test_visualize_attention_shows_base_beside_tuned(checkpoints, tmp_path):
    from mechvit.visualization import attention_view
    from mechvit.visualization.page import json_text

    picture = load_images("photos", "test", limit=1, image_size=32)[0]["image"].resize((50, 41))
    picture.save(tmp_path / "photo.png")
    out = tmp_path / "pages" / "attention.html"
    call(
        "visualize_attention", model=checkpoints["base"], tuned=checkpoints["gaussian_blur_2"], layers=(0, 2),
        heads=(1,), image=tmp_path / "photo.png", corruption="gaussian_noise_4", out=out,
    )  # fmt: skip
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


# bad input


BAD = {
    "unknown corruption": ("finetune", {"corruption": "gaussian_fog_3", "out": "OUT"}, "gaussian_fog"),
    "no such model": ("finetune", {"model": "./nowhere", "corruption": "clean", "out": "OUT"}, "./nowhere"),
    "out of reach": ("finetune", {"model": "no/such-model", "corruption": "clean", "out": "OUT"}, "no/such-model"),
    "no such folder": ("evaluate", {"images": "folder:./none"}, "folder:none is not a folder"),
    "no such device": ("evaluate", {"device": "abacus"}, "'abacus'"),
    "no corruption": ("evaluate", {"corruptions": ()}, "--corruptions"),
    "limit 0": ("evaluate", {"limit": 0}, "limit must be at least 1"),
    "model twice": ("evaluate", {"model": ("a", "b", "a")}, "each once; got a, b, a"),
    "tuned called base": ("analyze", {"tuned": ("x/base",), "out": "OUT"}, "rename x/base"),
    "clean alone": ("analyze", {"tuned": ("x",), "out": "OUT", "corruptions": ("clean",)}, "besides clean"),
    "no checkpoint": ("train_sae", {"model": "./nowhere", "out": "OUT"}, "./nowhere"),
    "no sae": ("evaluate_sae", {"saes": ("MODEL",)}, "holds no SAE"),
    "no picture": ("visualize_attention", {"image": Path("none.png"), "out": Path("OUT")}, "none.png"),
    "not a picture": ("visualize_attention", {"image": Path(__file__), "out": Path("OUT")}, "test_command_lines.py"),
    "no such layer": ("visualize_attention", {"image": "PICTURE", "layers": (7,), "out": Path("OUT")}, "got [7]"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_line(case, checkpoints, tmp_path, monkeypatch, capsys):
    name, options, expected = BAD[case]
    monkeypatch.chdir(tmp_path)
    load_images("photos", "test", limit=1, image_size=32)[0]["image"].save("picture.png")
    options = {"device": "cpu"} | options
    base = checkpoints["base"]
    options.setdefault("base" if name == "analyze" else "model", (base,) if name == "evaluate" else base)
    stand_ins = {("MODEL",): (base,), "PICTURE": Path("picture.png")}
    options = {key: stand_ins.get(value, value) for key, value in options.items()}
    module = script(name)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run(module.main, module.Options(**options))
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert end.value.code == 2
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert expected in errors[0]
    assert not list(tmp_path.glob("OUT*"))


def test_bad_input_of_a_process():
    command = [sys.executable, str(SCRIPTS / "finetune.py"), "--model", "m", "--corruption", "rain_2", "--out", "o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: corruption family must be one of clean, gaussian_blur, gaussian_noise; got 'rain'\n"


def test_bad_setting_of_a_nested_config():
    command = [sys.executable, str(SCRIPTS / "train_sae.py"), "--model", "m", "--out", "o", "--config.k", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "k must be at least 1; got 0" in done.stderr


def test_a_fault_of_the_code_is_not_hidden():
    def faulty() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        run(faulty)


# what lies at OUT


def test_existing_results_are_kept_unless_told(tmp_path):
    out = tmp_path / "out"
    for text in ("first", "second"):
        with new_folder(out, text == "second", "table") as folder:
            assert (out / "table").exists() == (text == "second")  # the old one stays until the new one is whole
            (folder / "table").write_text(text)
        assert (out / "table").read_text() == text
    with pytest.raises(ValueError, match=r"out exists: .*--overwrite"), new_folder(out, False, "table"):
        pass

    def fail() -> None:
        with new_folder(out, True, "table") as folder:
            (folder / "table").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (out / "table").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_foreign_folder_is_never_replaced(tmp_path):
    (tmp_path / "letters").mkdir()
    check_out(tmp_path / "letters", False, "table")  # empty: free to be used
    (tmp_path / "letters" / "mother.txt").write_text("Dear")
    with pytest.raises(ValueError, match="is no earlier result"):
        check_out(tmp_path / "letters", True, "table")


@pytest.mark.parametrize("name", ["finetune", "train_sae"])
def test_long_trainings_refuse_before_they_start(name, checkpoints, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    more = {"corruption": "clean"} if name == "finetune" else {}
    with pytest.raises(ValueError, match="is no earlier result"):
        call(name, model=checkpoints["base"], out=str(tmp_path), overwrite=True, **more)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_names_are_whole_paths_where_last_parts_clash():
    assert names_of(["a/base", "b/base", "b/blur"]) == {"a/base": "a/base", "b/base": "b/base", "blur": "b/blur"}
