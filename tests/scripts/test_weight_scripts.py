"""swap_weights.py and steer.py give what the package's functions give."""

from __future__ import annotations

import pandas as pd
import pytest
from script_calls import call

from mechvit import HookedViT
from mechvit.analysis import (
    SmallestSetConfig,
    interpolate_weights,
    smallest_set,
    steer,
    steering_directions,
    swap_weights,
    weight_change,
)
from mechvit.data import load_images, prepare

BLUR, FOG = "gaussian_blur_2", "fog_3"


@pytest.fixture(scope="module")
def pair(checkpoints) -> list[HookedViT]:
    return [HookedViT.from_pretrained(folder, device="cpu") for folder in checkpoints.values()]


@pytest.fixture(scope="module")
def images(tiny_processor):
    """Part -> its first images."""
    return {
        part: prepare(load_images("photos", part, limit=limit, image_size=32), tiny_processor)
        for part, limit in (("test", 24), ("finetune", 19))
    }


def read(folder):
    return {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}


def figures_of(folder):
    pages = {path.stem: path.read_text() for path in (folder / "figures").iterdir()}
    assert all("<script src=" not in text for text in pages.values())
    return set(pages)


@pytest.mark.long
def test_swaps_match_functions(checkpoints, pair, images, tmp_path, capsys):
    out = tmp_path / "weights"
    base, tuned = pair
    call(
        "swap_weights",
        base=checkpoints["base"],
        tuned=checkpoints[BLUR],
        corruptions=(BLUR,),
        limit=24,
        unit="blocks",
        share=0.5,
        reverse=True,
        out=str(out),
    )
    printed = capsys.readouterr().out
    found, conditions = read(out), ("clean", BLUR)
    wanted = {
        "swaps": swap_weights(base, tuned, images["test"], conditions).summary(),
        "swaps_reverse": swap_weights(tuned, base, images["test"], conditions).summary(),
        "interpolation": interpolate_weights(base, tuned, images["test"], conditions).summary(),
        "weight_change": weight_change(base, tuned).to_frame(model=BLUR),
        "weight_change_parts": weight_change(base, tuned).part_frame(model=BLUR),
        "weight_change_spectra": weight_change(base, tuned).spectrum_frame(model=BLUR),
        "smallest_set": smallest_set(
            base, tuned, images["test"], BLUR, config=SmallestSetConfig(unit="blocks", share=0.5)
        ).to_frame(),
    }
    assert found.keys() == wanted.keys()
    for name, frame in wanted.items():
        pd.testing.assert_frame_equal(found[name], frame)
    drawn = {"interpolation_curves", "weight_changes", "swaps_recovery", "swaps_reverse_recovery"}
    for name in ("swaps", "swaps_reverse"):
        if wanted[name].query("quantity == 'logit_difference'")["recovered"].notna().any():
            drawn.add(f"{name}_curves")
        else:
            assert f"no figure {name}_curves: no gap in logit_difference" in printed
    assert figures_of(out) == drawn
    smallest = wanted["smallest_set"]
    rows = {
        (row[1], row[2]): row[4]
        for row in map(str.split, printed.splitlines())
        if row[2:3] in (["selection"], ["held_out"])
    }
    expected = dict(zip(zip(smallest["added"], smallest["images"], strict=True), smallest["recovered"], strict=True))
    assert rows.keys() == expected.keys()
    assert smallest["recovered"].notna().any()
    for row, recovered in expected.items():
        assert float(rows[row]) == pytest.approx(recovered, abs=5.1e-5, nan_ok=True)


@pytest.mark.long
def test_models_without_a_gap_give_no_smallest_set(checkpoints, tmp_path, capsys):
    out = tmp_path / "same"
    same = checkpoints["base"]
    call("swap_weights", base=same, tuned=same, corruptions=(FOG,), limit=19, out=str(out))
    printed = capsys.readouterr().out
    assert "no smallest set: receiver and giver must differ in logit_difference" in printed
    assert "no figure swaps_curves" in printed
    assert set(read(out)) == {"swaps", "interpolation", "weight_change", "weight_change_parts", "weight_change_spectra"}
    assert figures_of(out) == {"interpolation_curves", "weight_changes", "swaps_recovery"}


@pytest.mark.long
def test_steering_matches_functions(checkpoints, pair, images, saes, tmp_path, capsys):
    out = tmp_path / "steering"
    base, tuned = pair
    sae = next(path.parent for path in sorted(saes.glob("*/cfg.json")))
    call(
        "steer",
        base=checkpoints["base"],
        tuned=checkpoints[BLUR],
        corruption=BLUR,
        limit=24,
        training_limit=19,
        layers=(0, 2),
        scales=(0.5, 2.0),
        controls=2,
        out=str(out),
        sae=str(sae),
        latents=8,
    )
    printed = capsys.readouterr().out
    found = read(out)
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in (0, 2)]
    directions = steering_directions(base, images["finetune"], BLUR, hook_names=hooks)
    from mechvit.saes import load_sae, sae_steering_direction

    directions.append(sae_steering_direction(base, load_sae(sae), images["finetune"], BLUR, n_latents=8))
    wanted = steer(base, tuned, images["test"], [BLUR], directions, scales=(0.5, 2.0), controls=2)
    pd.testing.assert_frame_equal(found["steering"], wanted.summary())
    pd.testing.assert_frame_equal(found["chosen"], wanted.chosen())
    assert list(found["directions"]["source"]) == ["mean_difference", "mean_difference", "sae"]
    assert list(found["directions"]["norm"]) == pytest.approx([d.norm for d in directions])
    assert "steering_by_scale" in figures_of(out)
    rows = [row.split() for row in printed.splitlines() if row.split()[:1] in (["mean_difference"], ["sae"])]
    assert len(rows) == 6  # each source, and two random directions for each
    assert {row[1] for row in rows} >= {"0"}


WRONG = {
    "swap_weights": (
        ({"corruptions": ("frots_3",)}, "did you mean frost"),
        ({"corruptions": ("clean",)}, "besides clean"),
        ({"share": 1.5}, r"share must be in \(0, 1\]; got 1.5"),
    ),
    "steer": (
        ({"corruption": "frots_3"}, "did you mean frost"),
        ({"corruption": "clean"}, "must not be clean"),
        ({"scales": ()}, "scales must name at least one"),
        ({"scales": (-1.0,)}, "scales must be finite and above 0; got -1.0"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_options_are_refused_before_anything_is_loaded(name, tmp_path):
    own = {"corruptions": (FOG,)} if name == "swap_weights" else {"corruption": FOG}
    for wrong, message in WRONG[name]:
        with pytest.raises(ValueError, match=message):
            call(name, **{"base": "nowhere", "tuned": "nowhere", "out": str(tmp_path / "out"), **own, **wrong})
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no earlier result"):
        call(name, base="nowhere", tuned="nowhere", out=str(tmp_path / "taken"), overwrite=True, **own)
    assert not (tmp_path / "out").exists()


def test_a_block_that_is_not_there_is_refused(checkpoints, tmp_path):
    with pytest.raises(ValueError, match="layers must be below the model's 3 blocks; got 7"):
        call(
            "steer",
            base=checkpoints["base"],
            tuned=checkpoints[BLUR],
            corruption=FOG,
            layers=(7,),
            out=str(tmp_path / "out"),
        )
