from __future__ import annotations

import base64
import io
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mechvit.visualization.html_page.licence_notices import licences, notices
from mechvit.visualization.html_page.page import (
    CSP,
    check_page,
    circuitsvis_script,
    json_text,
    picture_uri,
    plotly_script,
    render,
    script_text,
    write_whole,
)

HOSTILE = "</script><script>alert(1)</script>\u2028\u2029<!-- &amp;"


@pytest.mark.long
@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda part: st.lists(part) | st.dictionaries(st.text(), part))
)
def test_json_text_is_the_same_json_without_markup(value):
    text = json_text(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_json_text_refuses_nan():
    with pytest.raises(ValueError, match="JSON"):
        json_text({"a": float("nan")})


def test_scripts_cannot_end_their_element():
    assert script_text("a='</script>';b='<!--'") == "a='<\\/script>';b='<\\!--'"
    for script in (circuitsvis_script(), plotly_script()):
        assert len(script) > 1_000_000
        assert "</script" not in script
        assert "<!--" not in script


def test_a_hostile_label_stays_text():
    spec = {"tokens": [HOSTILE], "panels": [], "sets": [], "layers": [0], "heads": [], "grid": [1, 1]}
    owed = notices("circuitsvis")
    known = {"circuitsvis": "", "provenance": {"images": HOSTILE}, "notices": owed, "licences": licences(owed)}
    page = render("attention.html.j2", title=HOSTILE, spec=spec, **known)
    assert "<script>alert" not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page  # the title, as text
    assert "\\u003c/script\\u003e\\u003cscript\\u003ealert(1)" in page  # the spec, as JSON
    assert "\u2028" not in page.split("application/json")[1].split("</script>")[0]
    assert page.count("<script") == page.count("</script>") == 5


def test_policy_requests_nothing():
    rules = dict(rule.strip().split(" ", 1) for rule in CSP.split(";"))
    for rule in ("default-src", "form-action", "base-uri"):  # the last two do not fall back on the first
        assert rules.pop(rule) == "'none'"
    assert set(" ".join(rules.values()).split()) == {"'unsafe-inline'", "data:", "blob:"}


@pytest.mark.parametrize(("side", "largest"), [(64, 0), (160, 40)])
def test_picture_uri_keeps_pixels(side, largest):
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack([x, y, x + y]).astype(np.float64)
    pixels = (pixels / pixels.max((1, 2), keepdims=True) * 255).astype(np.uint8)
    head, data = picture_uri(pixels).split(",")
    assert head == "data:image/webp;base64"
    got = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).transpose(2, 0, 1)
    assert np.abs(got.astype(int) - pixels).max() <= largest


def test_write_whole_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write_whole(tmp_path / "new" / "page.html", "é")
    first = path.read_bytes()
    assert first.startswith("é<!-- mechvit ".encode())

    def killed(source, target):
        assert (tmp_path / "new" / source).read_text().endswith(" -->\n")  # whole before it is put in place
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "second")
    assert path.read_bytes() == first


def test_a_file_that_is_no_page_of_ours_is_never_written_over(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<!doctype html>the user's own page")
    with pytest.raises(ValueError, match="is no page that mechvit wrote"):
        write_whole(path, "new")
    with pytest.raises(ValueError, match="is no page that mechvit wrote"):
        check_page(path)
    for bad in ("", tmp_path):
        with pytest.raises(ValueError, match="must be a file's name"):
            check_page(bad)
    path.write_text("")
    assert check_page(path) == path
    assert write_whole(path, "new").read_text().startswith("new<!--")
    assert write_whole(path, "newer").read_text().startswith("newer<!--")


@pytest.mark.parametrize(
    "edit",
    [lambda t: t.replace("page", "pags"), lambda t: t + "\n<p>my note</p>", lambda t: t[:-90], lambda t: "note" + t],
)
def test_an_edited_page_is_kept(tmp_path, edit):
    """Notes that somebody wrote into a page, before, within or behind its text, are as good as a file of their own."""
    path = write_whole(tmp_path / "page.html", "<p>the page</p>")
    path.write_text(edit(path.read_text()))
    mine = path.read_text()
    for refused in (lambda: check_page(path), lambda: write_whole(path, "new")):
        with pytest.raises(ValueError, match="edited since"):
            refused()
    assert path.read_text() == mine


def test_a_link_is_written_through(tmp_path):
    """A page behind a link, dangling or not, is made where the link points; the link stays."""
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "far" / "page.html")
    for text in ("first", "second"):
        write_whole(link, text)
        assert link.is_symlink()
        assert (tmp_path / "far" / "page.html").read_text().startswith(text)


@pytest.mark.parametrize("label", ["ant\udcff", "\ud83d", "b\udc80e"])
def test_half_characters_in_labels_are_refused_in_one_line(tmp_path, label):
    """They have no UTF-8; file names and damaged JSON bring them. What stands there stays, and no part is left."""
    path = write_whole(tmp_path / "page.html", "<p>été 犬</p>")
    with pytest.raises(
        ValueError, match=r"page.html cannot be written: .* is half a character.*correct that name"
    ) as no:
        write_whole(path, f"<p>{label} été 犬</p>")
    assert "\n" not in str(no.value)
    assert path.read_text(encoding="utf-8").startswith("<p>été 犬</p><!--")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_notices_cover_each_script_and_licence():
    owed = notices("plotly.js", "circuitsvis")
    assert {notice.inside for notice in owed} == {"plotly.js", "circuitsvis"}
    texts = licences(owed)
    assert {name for notice in owed for name in notice.licences} == set(texts)
    assert "Version 2.0, January 2004" in texts["Apache-2.0"]
    assert "BSD-3-Clause" not in licences(notices("circuitsvis"))
