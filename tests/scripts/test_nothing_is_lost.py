"""Every command that writes: a user's files around, beside and inside its output survive it, killed anywhere, twice.

The product of commands and points is slow; daily each command is refused where it must be, and one path is killed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kill_points import lay, runs, unharmed
from script_calls import call

from mechvit import files
from mechvit.finetuning import FinetuneConfig
from mechvit.saes import SAEConfig

BLUR = "gaussian_blur_2"
AROUND = (
    "thesis.txt",
    "data/cats/a.png",
    "out.backup/x",
    "out2/results.csv",
    "outside",
    "out.html.bak",
    "figures/mine.svg",
)
TRAINING = FinetuneConfig(learning_rate=1e-3, epochs=1, batch_size=19)
SAES = SAEConfig(
    architectures=("batchtopk",), epochs=1, k=4, expansion_factor=2, train_batch_size_tokens=128, images_per_batch=16
)

Command = Callable[[Path], None]


@pytest.fixture(scope="module")
def commands(checkpoints, saes) -> dict[str, Command]:
    """Each command on tiny models and few images, into a place; an earlier result there is replaced."""
    base, tuned, sae = checkpoints["base"], checkpoints[BLUR], str(saes / "batchtopk")

    def command(name: str, **options: Any) -> Command:
        return lambda out: call(name, out=str(out), overwrite=True, **options)

    def page(name: str, **options: Any) -> Command:
        return lambda out: call(name, out=out.with_suffix(".html"), overwrite=True, **options)

    picture = Path(base).parent / "picture.png"
    if not picture.exists():
        from PIL import Image

        Image.new("RGB", (40, 40), "red").save(picture)
    both, some = (base, tuned), {"corruptions": (BLUR,), "limit": 19}
    return {
        "evaluate": command("evaluate", model=(base,), **some),
        "analyze": command("analyze", base=base, tuned=(tuned,), attention_limit=4, **some),
        "robustness": command("robustness", model=both, families=("fog",), levels=(3,), limit=19),
        "compare_representations": command(
            "compare_representations",
            model=both,
            lens_epochs=1,
            lens_limit=19,
            lens_validation_limit=19,
            corruptions=(BLUR,),
            limit=40,
        ),
        "patch_models": command("patch_models", receiver=base, giver=tuned, corruption=BLUR, limit=8),
        "steer": command(
            "steer",
            base=base,
            tuned=tuned,
            corruption=BLUR,
            layers=(1,),
            scales=(1.0,),
            controls=1,
            training_limit=19,
            limit=19,
        ),
        "swap_weights": command("swap_weights", base=base, tuned=tuned, unit="blocks", **some),
        "ablate_features": command("ablate_features", model=(base,), sae=sae, counts=(1,), draws=1, **some),
        "evaluate_sae": command("evaluate_sae", model=base, saes=(sae,), **some),
        "finetune": command("finetune", model=base, corruption=(BLUR,), limit=38, validation_limit=19, config=TRAINING),
        "train_sae": command("train_sae", model=base, corruptions=(BLUR,), limit=38, validation_limit=19, config=SAES),
        "cache_activations": command("cache_activations", model=base, **some),
        "visualize_attention": page("visualize_attention", model=base, pictures=(picture,), corruption=BLUR),
        "explore_attention": page("explore_attention", model=(base,), corruptions=(BLUR,), limit=2),
        "browse_features": page("browse_features", model=base, saes=(sae,), n_features=4, n_images=2, **some),
        "look": page("look", picture=picture, model=(base,)),
        "hook_points": lambda out: call_hook_points(out.with_suffix(".md"), base),
    }


def call_hook_points(out: Path, model: str) -> None:
    from script_calls import script

    module = script("hook_points")
    module.main(module.Options(model=model, out=str(out), overwrite=True))


NAMES = (
    "evaluate",
    "analyze",
    "robustness",
    "compare_representations",
    "patch_models",
    "steer",
    "swap_weights",
    "ablate_features",
    "evaluate_sae",
    "finetune",
    "train_sae",
    "cache_activations",
    "visualize_attention",
    "explore_attention",
    "browse_features",
    "look",
    "hook_points",
)
PAGES = {
    "visualize_attention": "out.html",
    "explore_attention": "out.html",
    "browse_features": "out.html",
    "look": "out.html",
    "hook_points": "out.md",
}


def test_every_command_is_here(commands):
    assert set(commands) == set(NAMES)
    there = {path.stem for path in (Path(__file__).parents[2] / "scripts").glob("*.py")}
    # runs: tests/experiment; figures; pictures
    elsewhere = {"reproduce", "transfer", "compare", "nulls", "benchmark", "export_figures", "screenshots"}
    assert there == set(NAMES) | elsewhere


def result(root: Path, name: str) -> Path:
    return root / PAGES.get(name, "out")


@pytest.mark.parametrize("name", NAMES)
def test_a_second_process_is_told_who_works_there(commands, tmp_path, name):
    with files.Lock(result(tmp_path, name)), pytest.raises(ValueError, match="is in use by this process itself"):
        commands[name](tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_users_things_at_the_output_are_refused_before_anything_else(commands, tmp_path, name, monkeypatch):
    import torch

    place = result(tmp_path, name)
    mine = lay(
        tmp_path, (place.name,) if name in PAGES else (f"{place.name}/thesis.txt", f"{place.name}/models/base/w")
    )
    monkeypatch.setattr(torch.nn.Module, "__call__", lambda *a, **k: pytest.fail("a model was run"))
    with pytest.raises(ValueError, match=r"give another|move it away"):
        commands[name](tmp_path / "out")
    assert unharmed(mine)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(mine)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hook_points"])
def test_inputs_are_no_outputs(checkpoints, tmp_path, name, commands, monkeypatch):
    """The output may not be the images, lie in them, or hold them."""
    (tmp_path / "images" / "cats").mkdir(parents=True)
    mine = lay(tmp_path, ("images/cats/a.png",))
    from script_calls import script

    fields = script(name).Options.__dataclass_fields__
    if "images" not in fields:
        return
    monkeypatch.setattr("script_calls.call", None)
    given: dict[str, Any] = {}

    def options(out: Path) -> dict[str, Any]:
        given.clear()
        monkeypatch.setitem(globals(), "call", lambda _, **chosen: given.update(chosen))
        commands[name](out)
        return dict(given)

    module = script(name)
    outs = (
        [tmp_path / "images" / "out"] if name in PAGES else [tmp_path / "images", tmp_path / "images" / "out", tmp_path]
    )
    for out in outs:
        chosen = options(out) | {"images": f"folder:{tmp_path / 'images'}", "device": "cpu"}
        with pytest.raises(ValueError, match="must lie apart"):
            module.main(module.Options(**chosen))
    assert unharmed(mine)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(mine)


def survive(command: Command, name: str, root: Path, before: Path, most: int) -> int:
    """Kill a command at up to `most` points, the last ones and some of all others, twice in a row, and let it end.

    Returns:
        how many points were tried.
    """

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(before, root, symlinks=True)

    fresh()
    total = runs(lambda: command(root / "out"), root, None)
    assert total is not None
    last = most * 2 // 3  # where one result takes the place of another
    tried = sorted(
        {*range(1, total + 1, max(total // max(most - last, 1), 1)), *range(max(total - last, 1), total + 1)}
    )
    for point in tried:
        fresh()
        mine = lay(root, AROUND)
        for _ in range(2):
            runs(lambda: command(root / "out"), root, point)
            assert unharmed(mine)
        assert runs(lambda: command(root / "out"), root, None) is not None
        assert unharmed(mine)
        left = {path.name for path in root.iterdir()} - {Path(path).parts[0] for path in AROUND}
        assert left == {result(root, name).name}, "nothing is left beside the result"
    return len(tried)


def earlier(command: Command, tmp_path: Path) -> Path:
    """A folder with an earlier result of the command."""
    (tmp_path / "before").mkdir()
    assert runs(lambda: command(tmp_path / "before" / "out"), tmp_path, None) is not None
    return tmp_path / "before"


@pytest.mark.processes
def test_one_command_killed_anywhere(commands, tmp_path):
    before = earlier(commands["hook_points"], tmp_path)
    assert survive(commands["hook_points"], "hook_points", tmp_path / "root", before, 12) >= 3


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_command_killed_anywhere(commands, tmp_path, name):
    before = earlier(commands[name], tmp_path)
    assert survive(commands[name], name, tmp_path / "root", before, 30) >= 3
