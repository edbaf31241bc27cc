"""Pictures on command lines are read as those of data sets: upright, whole, by a range that is stated or given."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from script_calls import SCRIPTS, call, script
from transformers import ViTModel

from mechvit.data import load_images
from mechvit.experiment.config import PRESETS
from mechvit.experiment.transfer_config import PRESETS as TRANSFER_PRESETS


@pytest.fixture
def phone(tmp_path):
    """A photo of 16 bits taken sideways, and the same upright in bytes."""
    picture = load_images("photos", "test", limit=1, image_size=32)[0]["image"].resize((50, 41)).convert("L")
    values = (np.asarray(picture).astype(np.uint16) << 4) + 3
    sideways = Image.fromarray(values)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "phone.png", exif=exif)
    upright = Image.fromarray(np.rint(values / 4095 * 255).astype(np.uint8))
    upright.getexif()[0x0112] = 6
    (tmp_path / "plain").mkdir()
    ImageOps.exif_transpose(upright).convert("RGB").save(tmp_path / "plain" / "phone.png")
    return tmp_path / "phone.png", tmp_path / "plain" / "phone.png"


def test_attention_pages_of_one_picture_are_alike(checkpoint, phone, tmp_path):
    sideways, plain = phone
    with pytest.raises(ValueError, match=r"phone.png: 16-bit values of at most [\d,]+,.*pixel_range=\(LOW, HIGH\)"):
        call("visualize_attention", model=checkpoint, pictures=(sideways,), out=tmp_path / "no.html")
    call("visualize_attention", model=checkpoint, pictures=(sideways,), out=tmp_path / "a.html", pixel_range=(0, 4095))
    call("visualize_attention", model=checkpoint, pictures=(plain,), out=tmp_path / "b.html")
    assert (tmp_path / "a.html").read_text() == (tmp_path / "b.html").read_text()


def test_explorer_pages_of_pictures_are_alike(checkpoint, phone, tmp_path):
    sideways, plain = phone
    pages = {"a": ((sideways,), (0, 4095)), "b": ((plain,), None)}
    for name, (pictures, given) in pages.items():
        call(
            "explore_attention",
            model=(checkpoint,),
            pictures=pictures,
            pixel_range=given,
            out=tmp_path / f"{name}.html",
            lens=tmp_path / f"{name}_lens.html",
        )
    assert (tmp_path / "a.html").read_text() == (tmp_path / "b.html").read_text()
    assert (tmp_path / "a_lens.html").read_text() == (tmp_path / "b_lens.html").read_text()


def test_names_that_are_not_utf8_are_shown_escaped(checkpoint, phone, tmp_path):
    odd = tmp_path / b"caf\xe9.png".decode("utf-8", "surrogateescape")
    phone[1].rename(odd)
    call("visualize_attention", model=checkpoint, pictures=(odd,), out=tmp_path / "a.html")
    call("explore_attention", model=(checkpoint,), pictures=(odd,), out=tmp_path / "b.html")
    assert r"<title>Attention on caf\xe9.png</title>" in (tmp_path / "a.html").read_text()
    assert r'"title":"caf\\xe9.png"' in (tmp_path / "b.html").read_text()


@pytest.mark.parametrize("name", ["visualize_attention", "explore_attention"])
def test_a_path_that_is_no_picture_is_named_whole(name, checkpoint, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    for path in (Path("/dev/null"), tmp_path / "notes.txt", tmp_path / "absent.png", tmp_path):
        given = {"pictures": (path,), "model": checkpoint if name == "visualize_attention" else (checkpoint,)}
        with pytest.raises(ValueError, match=rf"^{path} (is not an image|cannot be read).*, such as a PNG or JPEG"):
            call(name, out=tmp_path.parent / f"{name}.html", **given)


def test_a_set_of_twelve_bits_is_evaluated_as_its_bytes(checkpoint, tmp_path):
    rng = np.random.default_rng(0)
    classes = load_images("photos", "test", limit=19, image_size=32).features["label"].names[:2]
    for name in classes:
        for folder in ("deep", "plain"):
            (tmp_path / folder / name).mkdir(parents=True)
        for i in range(10):
            values = rng.integers(0, 4096, (32, 32), dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / "deep" / name / f"{i}.png")
            plain = Image.fromarray(np.rint(values / 4095 * 255).astype(np.uint8))
            plain.save(tmp_path / "plain" / name / f"{i}.png")
    options = {"model": (checkpoint,), "corruptions": ("clean", "gaussian_blur_2")}
    with pytest.raises(ValueError, match="16-bit values of at most"):
        call("evaluate", images=f"folder:{tmp_path / 'deep'}", out=str(tmp_path / "a"), **options)
    call("evaluate", images=f"folder:{tmp_path / 'deep'}", pixel_range=(0, 4095), out=str(tmp_path / "a"), **options)
    call("evaluate", images=f"folder:{tmp_path / 'plain'}", out=str(tmp_path / "b"), **options)
    ours, theirs = (pd.read_parquet(tmp_path / name / "performance.parquet") for name in ("a", "b"))
    assert len(ours) == 40
    pd.testing.assert_frame_equal(ours, theirs)


def test_every_command_that_reads_images_takes_a_range():
    reading = []
    for path in sorted(SCRIPTS.glob("*.py")):
        options = getattr(script(path.stem), "Options", None)
        names = {field.name for field in fields(options)} if options else set()
        if names & {"images", "image", "pictures"}:
            reading.append(path.stem)
            assert "pixel_range" in names, path.stem
            assert "images" not in names or "bad_files" in names, path.stem
    assert len(reading) >= 15
    for preset in (*PRESETS.values(), *TRANSFER_PRESETS.values()):
        assert preset.pixel_range is None


def test_a_range_for_photos_is_refused_before_anything_else(tmp_path):
    for name in ("evaluate", "explore_attention"):
        options = {"model": ("nowhere",), "out": tmp_path / "page.html", "pixel_range": (0, 4095)}
        with pytest.raises(
            ValueError, match=r"pixel_range is for pictures of more than eight bits per channel; those of"
        ):
            call(name, **options)
        with pytest.raises(ValueError, match="nowhere"):
            call(name, **options | {"pixel_range": (0, 255)})
    with pytest.raises(ValueError, match="is for pictures of more than eight bits"):
        replace(PRESETS["photos"], pixel_range=(0, 4095))


def test_a_run_takes_a_range():
    given = replace(TRANSFER_PRESETS["imagenet"], pixel_range=(0, 4095))
    assert given.experiment().pixel_range == (0, 4095)
    for preset in (PRESETS["imagenet"], TRANSFER_PRESETS["imagenet"]):
        with pytest.raises(ValueError, match=r"pixel_range must be the value of black and a larger one of white"):
            replace(preset, pixel_range=(4095, 0))


def test_every_named_picture_is_explored_unless_there_is_a_limit(checkpoint, tmp_path, capsys):
    pictures = []
    for i, image in enumerate(load_images("photos", "test", limit=10, image_size=32)["image"]):
        image.save(tmp_path / f"{i}.png")
        pictures.append(tmp_path / f"{i}.png")
    asked = {"model": (checkpoint,), "pictures": tuple(pictures), "corruptions": ("clean",)}
    for limit, count in ((None, 10), (3, 3)):
        page = tmp_path / f"{limit}.html"
        call("explore_attention", limit=limit, out=page, **asked)
        titles = [name for name in (path.name for path in pictures) if f'"{name}"' in page.read_text()]
        assert len(titles) == count
    assert "3 of 10 pictures: the first" in capsys.readouterr().out.splitlines()


def test_attention_of_bare_encoders_is_shown_and_their_representations_compared(checkpoint, tiny_hf, phone, tmp_path):
    """Attention and CKA read no head; the patch lens does, and is refused before a page is written."""
    bare, (_, plain) = tmp_path / "bare", phone
    ViTModel.from_pretrained(checkpoint, add_pooling_layer=False).save_pretrained(bare)
    shutil.copy(Path(checkpoint) / "preprocessor_config.json", bare)
    one = {"pictures": (plain,), "out": tmp_path / "a.html"}
    call("explore_attention", model=(str(bare), checkpoint), **one)
    assert one["out"].is_file()
    with pytest.raises(ValueError, match="n_classes"):
        call("explore_attention", model=(str(bare), checkpoint), lens=tmp_path / "c.html", **one | {"overwrite": True})
    assert not (tmp_path / "c.html").exists()
    call("visualize_attention", model=str(bare), **one | {"out": tmp_path / "b.html"})
    for i, image in enumerate(load_images("photos", "test", limit=9, image_size=32)["image"]):
        image.save(plain.parent / f"{i}.png")
    plain.unlink()
    out = tmp_path / "cka"
    asked = {"model": (str(bare), checkpoint), "images": f"folder:{plain.parent}", "corruptions": ("gaussian_blur_2",)}
    call("compare_representations", out=str(out), **asked)
    found = pd.read_parquet(out / "cka.parquet").query("model_a != model_b and corruption_a == corruption_b")
    assert found["cka"].to_numpy() == pytest.approx(1, abs=1e-5)  # the same encoder, with a head and without
    assert not (out / "lens_readings.parquet").exists()


def test_a_picture_in_the_home_folder_is_found(checkpoint, phone, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    call("evaluate", model=(checkpoint,), pictures=(Path("~/plain/phone.png"),), corruptions=("clean",))
    assert "1 picture, without labels" in capsys.readouterr().out
    call("explore_attention", model=(checkpoint,), pictures=(Path("~/plain/phone.png"),), out=tmp_path / "a.html")
