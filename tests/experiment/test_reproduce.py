"""The whole experiment on a tiny scale: what it leaves, what a second call does, and that SIGKILL loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from tiny_runs import tables, tiny

from mechvit.experiment import Rules, reproduce

TABLES = {
    "performance",
    "lens",
    "attention",
    "first_correct",
    "performance_summary",
    "lens_summary",
    "first_correct_summary",
    "attention_summary",
    "sae_quality",
    "sae_cosine",
    "sae_history",
    "sae_distance",
    "related",
    "related_means",
    "gain_patching",
    "gain_attribution",
    "gain_attribution_components",
    "gain_heads",
    "gain_head_correlations",
    "gain_swaps",
    "gain_interpolation",
    "gain_weight_change",
    "gain_smallest_set",
    "gain_steering",
    "gain_steering_chosen",
    "gain_cka",
    "gain_lens",
    "gain_depth",
    "gain_latents",
    "gain_latents_shared",
    "gain_ablation",
    "gain_neurons",
    "gain_neuron_agreement",
}


def assert_same_tables(first: Path, second: Path) -> None:
    one, two = tables(first), tables(second)
    assert one.keys() == two.keys()
    for name, frame in one.items():
        pd.testing.assert_frame_equal(frame, two[name], check_exact=True)


def feature_spec(run: Path) -> dict:
    page = (run / "features.html").read_text(encoding="utf-8")
    return json.loads(page.split('id="spec">')[1].split("</script>")[0])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    reproduce(tiny(folder), say=lambda line: None)
    return folder


@pytest.mark.long
def test_run_leaves_everything(run):
    found = tables(run)
    assert found.keys() == TABLES
    models = ["base", "gaussian_blur_2", "gaussian_noise_4"]
    assert list(found["performance"]["model"].unique()) == models
    assert len(found["performance"]) == 3 * 3 * 38
    assert len(found["lens"]) == 3 * 3 * 38 * 3
    assert len(found["attention"]) == 3 * 2 * 19 * 2
    assert set(found["sae_cosine"].groupby(["model", "corruption"]).size().index) == {
        ("base", "gaussian_blur_2"),
        ("base", "gaussian_noise_4"),
        ("gaussian_blur_2", "gaussian_blur_2"),
        ("gaussian_noise_4", "gaussian_noise_4"),
    }
    claims = json.loads((run / "claims.json").read_text())
    asked = [claim for claim in claims if claim["id"].startswith("open_")]
    assert asked
    assert {c["verdict"] for c in asked} <= {"yes", "partly", "no", "unclear"}
    assert {c["verdict"] for c in claims if c not in asked} <= {"replicates", "does not replicate", "inconclusive"}
    about = json.loads((run / "provenance.json").read_text())
    assert [s["name"] for s in about["stages"]][:2] == ["base", "images/finetune"]
    assert (run / "report.html").stat().st_size > 1_000_000
    names = [sae["name"] for sae in feature_spec(run)["saes"]]
    assert names == [f"{model} {kind}" for model in ("Base", "Blur 2", "Noise 4") for kind in ("batchtopk", "standard")]
    assert not list(run.rglob("*.partial"))


def test_claims_hold_their_numbers_in_full(run):
    summary = tables(run)["performance_summary"].set_index(["model", "corruption", "metric"])
    claims = {claim["id"]: claim for claim in json.loads((run / "claims.json").read_text())}
    for key in ("gaussian_blur_2", "gaussian_noise_4"):
        claim = claims[f"better_{key[:-2]}"]
        (part,) = claim["parts"]
        row = summary.loc[(key, key, "accuracy")]
        wanted = [100 * row[name] for name in ("gain", "gain_low", "gain_high")]
        assert [part[name] for name in ("value", "low", "high")] == pytest.approx(wanted, rel=1e-13, abs=1e-13)
        assert (claim["decides"], claim["kind"], claim["threshold"]) == (0, "effect", 1.0)


def test_isolation_starts_at_the_base_and_ends_at_the_tuned_model(run):
    """All weights swapped give the tuned model's own accuracy on the same images, none the base's; the last residual of
    clean images patched into corrupted ones gives the base's clean accuracy."""
    found = tables(run)
    rows = found["performance"].assign(correct=found["performance"]["rank"] == 0)
    first = sorted(rows["image_id"].unique())[:24]
    assert found["performance"]["image_id"].unique()[:24].tolist() == first
    for key in ("gaussian_blur_2", "gaussian_noise_4"):
        own = rows[(rows["corruption"] == key) & rows["image_id"].isin(first)].groupby("model")["correct"].mean()
        patched = (
            found["gain_patching"]
            .query("tuned_on == @key and kind == 'resid' and layer == 2 and tokens == 'all' and quantity == 'accuracy'")
            .set_index("direction")["value"]
        )
        clean = rows[(rows["corruption"] == "clean") & (rows["model"] == "base") & rows["image_id"].isin(first)]
        assert patched["clean into corrupted"] == pytest.approx(clean["correct"].mean())  # one head reads both
        swapped = (
            found["gain_swaps"]
            .query(
                "tuned_on == @key and corruption == @key and kind == 'first' and quantity == 'accuracy'"
                " and direction == 'tuned into base'"
            )
            .set_index("k")["value"]
        )
        assert swapped.loc[0] == pytest.approx(own["base"])
        assert swapped.loc[swapped.index.max()] == pytest.approx(own[key])
        line = found["gain_interpolation"].query("tuned_on == @key and corruption == @key and quantity == 'accuracy'")
        ends = line.set_index("alpha")["value"]
        assert (ends[0], ends[1]) == (pytest.approx(own["base"]), pytest.approx(own[key]))


def test_related_filters_stand_beside_those_tuned_on(run):
    table = tables(run)["related"].set_index(["trained_on", "tested_on"])
    assert set(table.index.get_level_values(0)) == {"base", "gaussian_blur_2", "gaussian_noise_4"}
    assert set(table.index.get_level_values(1)) >= {"clean", "box_blur_2", "shot_noise_3", "gaussian_blur_2"}
    assert table.loc[("gaussian_blur_2", "box_blur_2"), "relation"] == "group"
    assert table.loc[("gaussian_blur_2", "shot_noise_3"), "relation"] == "across"


def test_images_of_the_run_never_overlap(run):
    import datasets

    parts = ("finetune", "finetune_validation", "sae", "sae_validation", "test")
    ids = {part: set(datasets.load_from_disk(str(run / "images" / part))["image_id"]) for part in parts}
    for one in parts:
        for other in parts:
            assert one == other or not ids[one] & ids[other]


def test_models_and_saes_open_with_stock_libraries(run):
    from sae_lens import SAE
    from transformers import AutoImageProcessor, ViTForImageClassification

    for key in ("base", "gaussian_blur_2", "gaussian_noise_4"):
        assert ViTForImageClassification.from_pretrained(run / "models" / key).config.num_labels == 19
        assert (
            AutoImageProcessor.from_pretrained(run / "models" / key, backend="pil", trust_remote_code=False).size[
                "height"
            ]
            == 32
        )
        for name in ("standard", "batchtopk"):
            sae = SAE.load_from_disk(run / "saes" / key / name)
            assert sae.cfg.metadata.hook_name == "blocks.0.hook_resid_post"


@pytest.mark.long
def test_second_call_runs_nothing(run):
    before = {path: path.stat().st_mtime_ns for path in (run / "stages").iterdir()}
    said: list[str] = []
    reproduce(tiny(run), say=said.append)
    assert {path: path.stat().st_mtime_ns for path in (run / "stages").iterdir()} == before
    assert all("done before" in line for line in said if not line.startswith("report"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("rules", "again"),
    [
        (Rules(resamples=50, smallest_gain=2.0), []),
        pytest.param(Rules(resamples=60), ["gaussian_blur_2", "gaussian_noise_4"], marks=pytest.mark.slow),
    ],
    ids=["a threshold of verdicts", "what every interval takes"],
)
def test_changed_setting_reruns_only_what_depends_on_it(run, rules, again):
    said: list[str] = []
    reproduce(tiny(run, rules=rules), say=said.append)
    begun = [*(f"gain/{key} ..." for key in again), "tables ...", "report ..."]
    assert [line for line in said if line.endswith("...")] == begun


@pytest.mark.processes
@pytest.mark.slow
def test_killed_run_ends_with_the_same_tables(run, tmp_path):
    """SIGKILL again and again, each time a little later, until the run gets through."""
    reproduce(tiny(run), say=lambda line: None)
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from tiny_runs import tiny; "
        "from mechvit.experiment import reproduce; reproduce(tiny(Path(sys.argv[1])))"
    )
    kills = 0
    for patience in range(1, 40):
        command = [sys.executable, "-c", code, str(tmp_path / "killed"), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            started = _until(process.stdout, patience)
            if process.poll() is None and started:
                time.sleep(0.05 * (patience % 5))
                os.kill(process.pid, signal.SIGKILL)
        if process.returncode == 0:
            break
        kills += 1
    assert kills >= 3
    assert_same_tables(run, tmp_path / "killed")


def _until(lines, count: int) -> list[str]:
    """Read until `count` stages have begun."""
    begun = []
    for line in lines:
        if line.rstrip().endswith("..."):
            begun.append(line)
            if len(begun) == count:
                break
    return begun


@pytest.mark.slow
def test_a_half_precision_base_is_reproduced(run, tmp_path):
    """Tuned models are saved as their base is; all analyses run in float32, so that the base and they compare."""
    import torch
    from transformers import ViTForImageClassification, ViTImageProcessorPil

    base = ViTForImageClassification.from_pretrained(run / "models" / "base").to(torch.bfloat16)
    base.save_pretrained(tmp_path / "base")
    ViTImageProcessorPil.from_pretrained(run / "models" / "base").save_pretrained(tmp_path / "base")
    reproduce(tiny(tmp_path / "run", model=str(tmp_path / "base")), say=lambda line: None)
    assert tables(tmp_path / "run").keys() == TABLES
    tuned = ViTForImageClassification.from_pretrained(tmp_path / "run" / "models" / "gaussian_blur_2", dtype="auto")
    assert tuned.dtype == torch.bfloat16
    moved = tuned.state_dict()["classifier.weight"] != base.state_dict()["classifier.weight"]
    assert moved.float().mean() > 0.5
