"""Checkpoints' folders that are damaged on purpose, and the one line with which they must be refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mechvit import HookedViT
from mechvit.models.checkpoints.loading import load_hf_model

JSON = {
    "a list": "[1, 2]",
    "a word": '"vit"',
    "null": "null",
    "nothing": "",
    "half": '{"model_type": "vit",',
    "another thing": "not json",
    "nested deep": "[" * 100_000,
    "not UTF-8": b'{"model_type": "\xff"}',
}
"""Contents of a JSON file that hold no settings."""


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(where: Path) -> str:
    """Return the one line with which both loaders refuse a checkpoint."""
    lines = []
    for load in (load_hf_model, lambda folder: HookedViT.from_pretrained(folder, device="cpu")):
        with pytest.raises(ValueError, match=re.escape(str(where))) as error:
            load(where)
        lines.append(str(error.value))
    assert lines[0] == lines[1]
    assert "\n" not in lines[0]
    assert len(lines[0]) < 1000
    return lines[0]
