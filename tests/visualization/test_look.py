"""One picture in several models: what the page holds, what it leaves out and why."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from mechvit import HookedViT
from mechvit.data import load_images
from mechvit.views import look
from mechvit.visualization.pages.picture_page import DIM, lit


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return load_images("photos", "test", limit=1, image_size=40)[0]["image"]


def test_answers_are_the_models_own(tiny_hf, tiny_processor, picture):
    model = HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)
    page = look(picture, {"base": model, "tuned": model}, conditions=["gaussian_blur_1"], title="a photo")
    with torch.no_grad():
        logits = tiny_hf(**tiny_processor(picture, return_tensors="pt")).logits.softmax(-1)[0]
    name, probability = page.answers["base"][0]
    assert name == tiny_hf.config.id2label[int(logits.argmax())]
    assert probability == pytest.approx(float(logits.max()), abs=1e-5)
    assert page.explorer is not None
    assert page.lens is not None
    assert page.missing == ()
    assert re.search("a photo", page.html())


def test_a_bare_encoder_has_attention_and_no_answers(tiny_hf, tiny_processor, picture):
    bare = HookedViT.from_hf(tiny_hf.vit, image_processor=tiny_processor)
    with pytest.raises(ValueError, match="pgd_4 attacks a softmax classifier; this ViTModel is not one"):
        look(picture, {"bare": bare}, conditions=["pgd_4"])
    page = look(picture, {"bare": bare})
    assert page.answers == {}
    assert page.lens is None
    assert len(page.missing) == 1
    assert page.missing[0].startswith("Patch lens left out")
    assert page.missing[0] in page.html().replace("&#39;", "'")


def test_no_model_is_refused(picture):
    with pytest.raises(ValueError, match="there is no model to look with"):
        look(picture, {})


def test_an_attack_must_say_which_of_several_models_it_attacks(tiny_hf, tiny_processor, picture):
    model = HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)
    for attack, said in (("pgd_4", "must say which of 2 models"), ("pgd_4@self", "give pgd_4@base or pgd_4@tuned")):
        with pytest.raises(ValueError, match=said):
            look(picture, {"a": model, "b": model}, conditions=[attack])
    assert look(picture, {"a": model, "b": model}, conditions=["pgd_4@base"]).missing == ()


def test_a_lit_picture_keeps_the_strongest_patch_and_dims_the_rest():
    from base64 import b64decode
    from io import BytesIO

    white = np.full((3, 8, 8), 255, dtype=np.uint8)
    uri = lit(white, np.array([[0.0, 2.0], [0.0, 0.0]]))
    shown = np.asarray(Image.open(BytesIO(b64decode(uri.partition(",")[2]))))
    assert (shown[:4, 4:] == 255).all()
    assert (shown[4:] == round(255 * DIM)).all()


def test_partner_pictures_of_one_picture_are_refused(tiny_model, picture, tmp_path):
    with pytest.raises(ValueError, match="conditions must name no partner pictures, which one picture lacks"):
        look(picture, {"base": tiny_model}, conditions=[f"paired:{tmp_path}"])


def test_folders_are_opened_and_one_call_is_a_notebook_s_output(tiny_hf, tiny_processor, picture, tmp_path):
    import mechvit

    tiny_hf.save_pretrained(tmp_path / "m")
    tiny_processor.save_pretrained(tmp_path / "m")
    page = mechvit.look(picture, {"base": str(tmp_path / "m"), "tuned": tmp_path / "m"}, title="a photo")
    model = HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)
    assert page.answers == look(picture, {"base": model, "tuned": model}).answers
    assert page._repr_html_().startswith("<iframe srcdoc=")
    with pytest.raises(ValueError, match="nowhere"):
        mechvit.look(picture, {"base": str(tmp_path / "nowhere")})
