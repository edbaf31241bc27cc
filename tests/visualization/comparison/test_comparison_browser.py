"""A comparison's report in a real browser, offline: no console message, every figure, table and picture there."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from browsing import needs_chromium, scroll_through, until
from evaluation_saes import random_sae

from mechvit.data import load_images
from mechvit.experiment.comparison import CompareConfig, SectionLimits, run_comparison

LIMITS = SectionLimits(behaviour=19, depth=19, attention=8, difference=10, causes=6, saes=8, pictures=2)
SECTIONS = ("behaviour", "depth", "attention", "weights", "difference", "causes", "saes", "pictures")
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def report(tiny_hf, tiny_processor, tmp_path_factory) -> Path:
    """Two tuned models against one base, with SAEs, a condition and groups."""
    from transformers import ViTConfig, ViTForImageClassification

    folder, generator = tmp_path_factory.mktemp("compared"), torch.Generator().manual_seed(1)
    images = load_images("photos", "test", limit=19, image_size=40)
    names = images.features["label"].names
    for place, row in enumerate(images):
        (site := folder / "scans" / names[row["label"]] / f"site{place % 2}").mkdir(parents=True)
        row["image"].save(site / f"{place}.png")
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": dict(enumerate(names)), "label2id": None})
    base = ViTForImageClassification(config)
    models = {"base": base, "first": copy.deepcopy(base), "second": copy.deepcopy(base)}
    for name, model in list(models.items())[1:]:
        with torch.no_grad():
            for parameter in model.vit.layers[1].parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        random_sae("standard", seed=len(name)).save_model(folder / f"sae-{name}")
    random_sae("standard").save_model(folder / "sae-base")
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tiny_processor.save_pretrained(folder / name)
    config = CompareConfig(
        models=tuple(str(folder / name) for name in models),
        saes=tuple(str(folder / f"sae-{name}") for name in models),
        images=f"folder:{folder / 'scans'}",
        groups="(?P<site>site.)",
        conditions=("gaussian_blur_1",),
        sections=SECTIONS,
        limits=LIMITS,
        device="cpu",
        out=str(folder / "run"),
    )
    return run_comparison(config, lambda line: None)


def test_everything_is_drawn_offline(visit_once, report):
    page = visit_once(report)
    scroll_through(page)
    figures = page.locator(".plot").count()
    until(page, "n => document.querySelectorAll('.plot.js-plotly-plot').length === n", figures)
    assert page.evaluate("[...document.querySelectorAll('.plot')].every((p) => p.querySelector('path, rect.bg'))")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    titles = page.locator("nav.contents a").all_inner_texts()
    assert {"Behaviour", "Weights", "Difference lens", "Sparse autoencoders", "Pictures"} <= set(titles)
    assert page.locator("#weight-ranks").is_visible()


def test_pictures_stand_in_rows_of_conditions_and_groups(visit_once, report):
    page = visit_once(report)
    assert page.locator("#pictures .row-title").all_inner_texts() == 2 * [
        "Clean images",
        "Gaussian blur 1",
        "Of each site the clean image that differs most",
    ]
    pictures = page.locator("#pictures table.pictures img")
    assert pictures.count() == 2 * 3 * 2
    assert page.evaluate("[...document.querySelectorAll('.pictures img')].every((i) => i.naturalWidth === 32)")
    assert page.locator("#pictures .ex").count() == 2


def test_classes_and_latents_are_tables(visit_once, report):
    page = visit_once(report)
    classes, latents = page.locator("#difference-classes tbody tr"), page.locator("#sae-latents tbody tr")
    layers, tokens = 2, 2  # those after the block that was moved
    assert classes.count() == 2 * tokens * (1 + layers)
    assert latents.count() == 2 * 2 * (1 + 10)
    assert page.evaluate("getComputedStyle(document.querySelector('#difference-classes td')).textAlign") == "left"
