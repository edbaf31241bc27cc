"""Pages tell which models, images, commits and code they were made with."""

from __future__ import annotations

import copy
import html

import numpy as np
import pytest
from PIL import Image
from random_saes import make_sae

from mechvit import HookedViT
from mechvit.code_version import code_version, described
from mechvit.data import load_images, prepare
from mechvit.data.image_origin import with_origin
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.views import attention_explorer, attention_view, feature_browser, patch_lens_view

COMMIT, IMAGES = "1" * 40, "2" * 40


@pytest.fixture
def hub_model(tiny_hf, tiny_processor):
    """A model as it is loaded from the Hub."""
    model = HookedViT.from_hf(copy.deepcopy(tiny_hf), tiny_processor)
    model.hf_config.name_or_path, model.hf_config._commit_hash = "owner/name", COMMIT
    return model


def provenance(view) -> dict[str, str]:
    """The rows, after a look at the page for each of them."""
    page = html.unescape(view.html())
    assert all(f"{title}: {text}" in page for title, text in view.provenance.items())
    return dict(view.provenance)


def test_every_page_tells_its_origin(hub_model, tiny_model, tiny_processor):
    raw = with_origin(load_images("photos", "test", limit=8, image_size=32), "owner/pictures@test", IMAGES)
    images = prepare(raw.map(lambda row: {"label": row["label"] % 5}, load_from_cache_file=False), tiny_processor)
    made = {"images": f"owner/pictures@test at commit {IMAGES}", "made by": described(code_version())}
    both, tuned = {"base": hub_model, "tuned": tiny_model}, checkpoint_hash(tiny_model)[:16]
    base = f"owner/name at commit {COMMIT}"
    known = provenance(attention_explorer(both, images, (), limit=1))
    assert known == {"model base": base, "model tuned": known["model tuned"]} | made
    assert known["model tuned"].endswith(f"(SHA-256 of its weights {tuned}…)")
    assert provenance(patch_lens_view({"base": hub_model}, images, (), limit=1)) == {"model base": base} | made
    weights = checkpoint_hash(hub_model)
    saes = {
        name: (hub_model, make_sae(seed=seed, hook_tokens="all", checkpoint_hash=weights))
        for seed, name in enumerate(("one", "other"))
    }
    assert provenance(feature_browser(saes, images)) == {"model one, other": base} | made


def test_attention_of_two_models_tells_both(hub_model, tiny_model):
    picture = np.zeros((32, 32, 3), np.uint8)
    one, other = attention_view(hub_model, picture), attention_view(tiny_model, picture)
    assert provenance(one)["model"] == f"owner/name at commit {COMMIT}"
    together = provenance(one.beside(other, one))
    assert together["model"] == f"{one.provenance['model']}, {other.provenance['model']}"
    assert together["made by"] == one.provenance["made by"]


def test_a_folder_tells_its_name_alone(tmp_path, tiny_model, tiny_processor):
    for i in range(20):
        picture = tmp_path / "mine" / "ab"[i % 2] / f"{i}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (i, 0, 0)).save(picture)
    images = prepare(load_images(f"folder:{tmp_path / 'mine'}", "test"), tiny_processor)
    found = provenance(attention_explorer({"base": tiny_model}, images, (), limit=1))
    assert found["images"] == "folder:mine"
    assert str(tmp_path) not in " ".join(found.values())
