"""Safetensors and JSON that were damaged after they were written: one line that names the file."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from mechvit.models.checkpoints.stored_files import check_finite, open_tensors, read_object, read_tensors

DAMAGES = {
    "truncated": lambda whole: whole[:-3],
    "cut in its header": lambda whole: whole[:20],
    "empty": lambda whole: b"",
    "text": lambda whole: b"weights",
    "another header": lambda whole: whole[:8] + b"!" + whole[9:],
    "a length beyond the file": lambda whole: b"\xff" * 8 + whole[8:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_safetensors_are_named(tmp_path, damage):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.arange(6.0)}, path)
    assert torch.equal(read_tensors(path)["a"], torch.arange(6.0))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(ValueError, match="is damaged or no safetensors file") as refused:
        read_tensors(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_a_missing_tensor_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ValueError, match=r"weights\.safetensors is missing"):
        read_tensors(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"weights.safetensors .*'?b'?"), open_tensors(path) as file:
        file.get_tensor("b")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named(value):
    tensors = {"whole": torch.zeros(4), "count": torch.arange(3), "broken": torch.tensor([[0.0, value], [1.0, value]])}
    with pytest.raises(ValueError, match="here: broken holds 2 values that are NaN or infinite, of 4"):
        check_finite(tensors, "here")
    check_finite({name: tensors[name] for name in ("whole", "count")}, "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[1]", "must hold a JSON object; got list"),
        (b'"a"', "must hold a JSON object; got str"),
        (b"{", "is damaged or no JSON"),
        (b"\xff\xfe", "is damaged or no JSON"),
        (b"{}", "lacks plan, made"),
        (json.dumps({"plan": 1}).encode(), "lacks made"),
    ],
)
def test_json_that_is_no_whole_object_is_named(tmp_path, text, message):
    path = tmp_path / "about.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=f"about.json {message}"):
        read_object(path, ("plan", "made"))
