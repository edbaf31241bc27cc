"""Latents that differ between two models, and the tables of words in a comparison's report."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from evaluation_saes import float64_codes, random_sae
from scipy.stats import t

from mechvit.analysis.inputs import image_batches, pixel_values
from mechvit.experiment.comparison.dictionaries import latent_differences
from mechvit.visualization.comparison.text_tables import text_tables
from mechvit.visualization.report.table_downloads import Offers


def test_latents_of_both_models_match_a_loop_in_float64(tiny_model, tiny_images):
    tuned, sae = copy.deepcopy(tiny_model), random_sae("standard")
    with torch.no_grad():
        tuned.blocks[0].mlp.fc2.bias.add_(0.3)
    models = {"base": tiny_model, "tuned": tuned}
    pair = SimpleNamespace(models=models, batch_size=3, seed=0, bootstrap={"level": 0.95})
    found = latent_differences(pair, sae, tiny_images)
    means, rates = {}, {}
    for name, model in models.items():
        (batch,) = image_batches(model, tiny_images, len(tiny_images))
        kept: dict[str, torch.Tensor] = {}
        hook = (sae.cfg.metadata.hook_name, lambda x, hook, kept=kept: kept.update(x=x.detach()))
        model.run_with_hooks(pixel_values(model, batch), fwd_hooks=[hook])
        codes = float64_codes(sae, kept["x"])
        means[name], rates[name] = codes.mean(1).numpy(), (codes > 0).double().mean((0, 1)).numpy()
    moved = means["tuned"] - means["base"]
    reach = t.ppf(0.975, len(moved) - 1) * moved.std(0, ddof=1) / np.sqrt(len(moved))
    assert np.allclose(found["base"], means["base"].mean(0), atol=1e-5)
    assert np.allclose(found["tuned_mean"], means["tuned"].mean(0), atol=1e-5)
    assert np.allclose(found["difference"], moved.mean(0), atol=1e-5)
    assert np.allclose(found["high"] - found["difference"], reach, atol=1e-5)
    assert np.allclose(found["base_rate"], rates["base"], atol=1e-3)
    assert found["difference"].abs().max() > 0.01
    pair.models = dict.fromkeys(models, tiny_model)
    same = latent_differences(pair, sae, tiny_images)
    assert (same["difference"] == 0).all()
    assert (same["q"] == 1).all()


class Run:
    """A run with one table."""

    def __init__(self, name: str, table: pd.DataFrame) -> None:
        self.name, self.kept = name, table

    def has(self, name: str) -> bool:
        return name == self.name

    def table(self, name: str) -> pd.DataFrame:
        return self.kept


ABOUT = {"base": "plain", "tuned": ["fine"]}


def test_classes_stand_in_order_with_their_signs():
    rows = [
        ("fine", "cls", head, layer, direction, place, name, sign * (4 - place) / 10)
        for head in ("base", "tuned")
        for layer in (0, 1)
        for direction, sign in (("rises", 1), ("falls", -1))
        for place, name in enumerate(("a", "b", "c", "d"), start=1)
        if (head, layer) != ("tuned", 0)
    ]
    columns = ["tuned", "tokens", "head", "layer", "direction", "place", "name", "change"]
    run = Run("difference_classes", pd.DataFrame(rows, columns=columns))
    (table,) = text_tables(run, ABOUT, "difference", Offers())
    assert table.columns == ["base’s head raises", "base’s head lowers", "tuned head raises", "tuned head lowers"]
    ((heading, shown),) = table.groups
    assert heading == "At CLS"
    assert shown[0] == ("layer 0", ["a +0.30, b +0.20, c +0.10", "a −0.30, b −0.20, c −0.10", "", ""])
    assert shown[1][1][2] == "a +0.30, b +0.20, c +0.10"
    assert text_tables(run, ABOUT, "saes", Offers()) == []


def test_the_latents_that_differ_most_come_first_and_equal_ones_are_left_out():
    features = pd.DataFrame({"feature": range(4), "difference": [0.0, -0.5, 0.2, 0.1]})
    table = features.assign(tuned="fine", dictionary="base", base=1.0, tuned_mean=1.5, low=-1.0, high=1.0)
    table = table.assign(q=[1.0, 0.01, 0.04, 0.5], base_rate=0.25, tuned_rate=0.5)
    (shown,) = text_tables(Run("sae_latents", table), ABOUT, "saes", Offers())
    ((heading, rows),) = shown.groups
    assert heading == "Dictionary of plain: 2 of 4 latents differ at q ≤ 0.05"
    assert [name for name, _ in rows] == ["latent 1", "latent 2", "latent 3"]
    assert rows[0][1] == ["1", "1.5", "−0.5 [−1, +1]", "25.0%", "50.0%"]
