"""The Python of the README and of docs runs as it stands, on a tiny run in the place of `make reproduce`'s."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mechvit import HookedViT
from mechvit.data import load_images, prepare
from mechvit.saes import SAEConfig, train_saes

ROOT = Path(__file__).parents[1]


@pytest.fixture
def a_run(tmp_path, monkeypatch):
    """`runs/photos` with a random model of six layers, one that is tuned from it a little, and an SAE."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    monkeypatch.chdir(tmp_path)
    processor = ViTImageProcessorPil(size={"height": 64, "width": 64})
    config = ViTConfig(
        image_size=64,
        patch_size=16,
        hidden_size=16,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=19,
    )
    torch.manual_seed(0)
    tuned = ViTForImageClassification(config)
    for key in ("base", "gaussian_blur_4"):
        tuned.save_pretrained(f"runs/photos/models/{key}")
        processor.save_pretrained(f"runs/photos/models/{key}")
        with torch.no_grad():
            for parameter in tuned.parameters():
                parameter.add_(0.005 * torch.randn_like(parameter))
    model = HookedViT.from_pretrained("runs/photos/models/base", device="cpu")
    images = prepare(load_images("photos", "sae", limit=19), processor)
    settings = SAEConfig(epochs=1, k=4, expansion_factor=4, train_batch_size_tokens=64, images_per_batch=16)
    train_saes(model, images, images, "runs/photos/saes/base", config=settings, progress=None)
    return tmp_path


def run_python(name: str) -> dict[str, object]:
    """Run a page's blocks of Python in order, and return what they leave."""
    text = (ROOT / name).read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, name, "exec"), scope)
    return scope


def test_every_page_with_python_is_run():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    found = {str(page.relative_to(ROOT)) for page in pages if "```python" in page.read_text(encoding="utf-8")}
    assert found == {"README.md", "docs/python.md", "docs/gain.md", "docs/conditions.md"}


def test_the_readmes_python_runs(a_run, capsys):
    scope = run_python("README.md")
    assert scope["cache"]["blocks.4.hook_resid_post"].shape == (1, 17, 16)
    assert len(scope["found"].components) == 7 + 6 + 6 + 12
    assert len(capsys.readouterr().out.splitlines()) > 4


def test_the_examples_of_the_api_run(a_run, capsys):
    scope = run_python("docs/python.md")
    assert scope["cache"]["blocks.4.hook_resid_post"].shape == (1, 17, 16)
    assert (a_run / "attention.html").stat().st_size > 1_000_000
    assert (a_run / "back" / "model.safetensors").is_file()
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_the_examples_of_where_the_gain_lives_run(a_run, capsys):
    scope = run_python("docs/gain.md")
    assert len(scope["found"].components) == 7 + 6 + 6 + 12
    assert "recovered" in capsys.readouterr().out


def test_the_example_of_a_condition_of_ones_own_runs():
    import torch

    from mechvit.data import corrupt
    from mechvit.data.corruption_spec import CORRUPTION_FAMILIES

    try:
        run_python("docs/conditions.md")
        images = torch.full((1, 3, 8, 8), 0.5)
        assert torch.allclose(corrupt(images, "haze_4", torch.tensor([0])), torch.full_like(images, 0.7))
    finally:
        CORRUPTION_FAMILIES.pop("haze", None)
