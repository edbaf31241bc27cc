"""JSON of another form than was written is refused by name, wherever the tool reads it back."""

from __future__ import annotations

import json

import pytest

from mechvit.files.reading import read_json, read_object, read_objects

OTHER_FORMS = {
    "list": "[]",
    "list of pairs": '[["key", 1]]',
    "text": '"key"',
    "number": "3",
    "null": "null",
    "empty": "",
    "cut off": '{"key": 1',
    "too deep": "[" * 100_000,
    "no text": b"\xff\xfe\x00",
    "another object": '{"other": 1}',
}


def written(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_another_form_than_an_object_is_refused_with_the_file_s_name(form, tmp_path):
    path = written(tmp_path / "settings.json", OTHER_FORMS[form])
    with pytest.raises(ValueError, match=r"settings\.json"):
        read_object(path, ("key",))


@pytest.mark.parametrize(
    "form", ["text", "number", "null", "empty", "cut off", "too deep", "no text", "another object"]
)
def test_another_form_than_a_list_of_objects_is_refused_with_the_file_s_name(form, tmp_path):
    path = written(tmp_path / "claims.json", OTHER_FORMS[form])
    with pytest.raises(ValueError, match=r"claims\.json"):
        read_objects(path, ("key",))


def test_an_entry_is_named_by_its_place(tmp_path):
    path = written(tmp_path / "claims.json", '[{"key": 1}, [2]]')
    with pytest.raises(ValueError, match=r"claims\.json, entry 1, must hold a JSON object; got list"):
        read_objects(path, ("key",))


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "a.json"
    for value in ({"key": [1, 2.5, None]}, [{"key": "é"}], 3):
        path.write_text(json.dumps(value), encoding="utf-8")
        assert read_json(path) == value
    path.write_text('{"key": 1}')
    assert read_object(path, ("key",)) == {"key": 1}
    path.write_text('[{"key": 1}, {"key": 2}]')
    assert read_objects(path, ("key",)) == [{"key": 1}, {"key": 2}]
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "nowhere")
