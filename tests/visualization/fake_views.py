"""Example pictures, attention patterns, an explorer and a lens, as an experiment leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from fake_tables import CORRUPTIONS, LAYERS
from numpy.random import Generator
from random_maps import random_explorer, random_lens
from safetensors.numpy import save_file

from mechvit.experiment.example_views import EXPLORER_BYTES

LABELS = ["astronaut", "</script><script>alert(1)</script>", "coffee & <b>cream</b>"]
HEADS, GRID, PREFIX = 3, (6, 6), 1


def picture(rng: Generator, corruption: str, size: int = 64) -> np.ndarray:
    """A coloured gradient with a disc, blurred or noised crudely: uint8 [3, size, size]."""
    y, x = np.mgrid[0:size, 0:size] / size
    channels = [x, y, ((x - 0.5) ** 2 + (y - 0.5) ** 2 < rng.uniform(0.05, 0.12)) * 0.8 + 0.1]
    image = np.stack(channels) + (0.2 * rng.normal(size=(3, size, size)) if "noise" in corruption else 0)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def pattern(rng: Generator, layers: int = LAYERS, heads: int = HEADS, grid: tuple[int, int] = GRID) -> np.ndarray:
    """Attention that prefers near patches, its rows summing to one: float16 [layers, heads, tokens, tokens]."""
    place = np.stack(np.divmod(np.arange(grid[0] * grid[1]), grid[1]), 1)
    near = np.zeros((PREFIX + len(place),) * 2, np.float32)
    near[PREFIX:, PREFIX:] = -np.square(place[:, None] - place).sum(-1)
    width = rng.uniform(0.05, 0.6, (layers, heads, 1, 1)).astype(np.float32)
    noise = rng.standard_normal((layers, heads, *near.shape), np.float32)
    scores = np.exp(width * near + np.float32(0.6) * noise)
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float16)


def write_views(rng: Generator, run: Path, labels: Sequence[str] = LABELS) -> None:
    views = run / "views"
    views.mkdir()
    write_examples(rng, views, labels, 64)
    write_attention(views, labels[1], lambda: pattern(rng), GRID)
    shown = {"models": ["Base", "Blur 4 tuned", "Noise 4 tuned"], "titles": labels[:2]}
    shown["conditions"] = ["clean", "Gaussian blur 4", "Gaussian noise 4"]
    explorer, lens = random_explorer(**shown, layers=3, heads=2, side=6), random_lens(**shown, names=labels)
    (views / "explorer.json").write_text(json.dumps(explorer.spec()))
    (views / "lens.json").write_text(json.dumps({"spec": lens.spec(), "figures": lens.figures()}))


def write_examples(rng: Generator, views: Path, labels: Sequence[str], size: int) -> None:
    """One picture a label under every corruption."""
    ids = range(3, 3 + 8 * len(labels), 8)
    pictures = {f"{i}/{corruption}": picture(rng, corruption, size) for i in ids for corruption in CORRUPTIONS}
    save_file(pictures, views / "examples.safetensors")
    listed = [{"image_id": i, "label": label} for i, label in zip(ids, labels, strict=True)]
    (views / "examples.json").write_text(json.dumps(listed))


def write_attention(views: Path, label: str, pattern: Callable[[], np.ndarray], grid: tuple[int, int]) -> None:
    """The second image's attention in the base under every condition, and in each tuned model on clean and its own."""
    strongest = ["gaussian_blur_4", "gaussian_noise_4"]
    own = {"base": ["clean", *strongest], **{model: ["clean", model] for model in strongest}}
    save_file({f"{m}/{c}": pattern() for m in own for c in own[m]}, views / "attention.safetensors")
    about = {"image_id": 11, "label": label, "grid": grid, "n_prefix_tokens": PREFIX}
    (views / "attention.json").write_text(
        json.dumps({**about, "models": list(own), "corruptions": ["clean", *strongest]})
    )


def large_views(rng: Generator, views: Path) -> None:
    """Replace the views by ones of the budgets' size, the explorer in the bytes that an experiment allows."""
    names = [f"class {place}" for place in range(1000)]
    shown = {"models": ["Base", "Blur 4 tuned"], "conditions": ["clean", "Gaussian blur 4"]}
    titles = [f"picture {place}" for place in range(8)]
    write_examples(rng, views, titles, 224)
    write_attention(views, titles[1], lambda: pattern(rng, 12, 12, (14, 14)), (14, 14))
    explorer = random_explorer(**shown, titles=titles, max_bytes=EXPLORER_BYTES)
    lens = random_lens(**shown, titles=titles, names=names, side=14, layers=13)
    (views / "explorer.json").write_text(json.dumps(explorer.spec()))
    (views / "lens.json").write_text(json.dumps({"spec": lens.spec(), "figures": lens.figures()}))
