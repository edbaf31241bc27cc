"""Nothing in the package and the scripts replaces or removes a file but `mechvit.files`."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "rmtree",
    "unlink",
    "replace",
    "rename",
    "renames",
    "removedirs",
    "rmdir",
    "move",
    "copyfile",
    "copytree",
    "copy2",
    "save_to_disk",
    "save_pretrained",
    "save_file",
    "save_inference_model",
    "to_parquet",
    "to_csv",
    "write_text",
    "write_bytes",
    "write_html",
    "mkdir",
    "makedirs",
    "mkdtemp",
    "TemporaryDirectory",
    "truncate",
    "open",
}
ALLOWED = {
    # file, call: reason
    ("mechvit/analysis/", "rename"): "pandas and datasets: columns",
    ("mechvit/saes/evaluation/results.py", "rename"): "pandas: columns",
    ("mechvit/experiment/comparison/measures.py", "rename"): "pandas: columns",
    ("mechvit/experiment/comparison/dictionaries.py", "rename"): "pandas: columns",
    ("mechvit/visualization/", "rename"): "pandas: columns",
    ("mechvit/visualization/html_page/csv_text.py", "to_csv"): "into a string",
    ("mechvit/data/pixels.py", "save_to_disk"): "into a new folder, inside library_writes",
    ("mechvit/finetuning/finetune.py", "save_pretrained"): "into a new folder, inside library_writes",
    ("mechvit/benchmark/bases.py", "save_pretrained"): "into a run's folder, inside library_writes",
    ("mechvit/models/checkpoints/saving.py", "save_pretrained"): "into a new folder, inside library_writes",
    ("mechvit/saes/training/publishing.py", "save_inference_model"): "into a new folder, inside library_writes",
    ("mechvit/saes/activation_cache/export.py", "save_to_disk"): "into a new folder, inside library_writes",
    ("mechvit/saes/training/checkpoints.py", "save_file"): "into a whole_folder",
    ("mechvit/saes/training/train.py", "copytree"): "into a new folder, inside library_writes",
    ("mechvit/experiment/sections/views.py", "save_file"): "into a path that files.beside gives",
    ("mechvit/experiment/runs/stages.py", "write_text"): "/proc/self/clear_refs, which is no file",
    (
        "mechvit/saes/training/training_log.py",
        "open",
    ): "appending to a log of ours, and into a path that files.beside gives",
    (
        "mechvit/visualization/export/figure_files.py",
        "TemporaryDirectory",
    ): "in the system's folder for temporary files",
}


def calls(path: Path) -> list[tuple[str, int]]:
    """Calls of forbidden names; `open` counts only where it writes, `replace` only on os or a path."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in FORBIDDEN:
            continue
        if name == "open":
            modes = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            if not any(isinstance(mode, str) and len(mode) < 4 and set(mode) & set("wax+") for mode in modes):
                continue
        if name == "replace":
            on = node.func.value if isinstance(node.func, ast.Attribute) else None
            if not (isinstance(on, ast.Name) and on.id in ("os", "path", "place", "beside", "folder", "final")):
                continue
        if name in ("write_text", "write_bytes", "truncate", "move") and not isinstance(node.func, ast.Attribute):
            continue  # our own functions
        if name in ("write_text", "write_bytes") and isinstance(node.func, ast.Attribute):
            on = node.func.value
            if isinstance(on, ast.Name) and on.id == "files":
                continue
        found.append((name, node.lineno))
    return found


def sources() -> list[Path]:
    own = [path for top in ("mechvit", "scripts") for path in sorted((ROOT / top).rglob("*.py"))]
    return [path for path in own if not path.is_relative_to(ROOT / "mechvit" / "files")]


def test_files_are_written_and_removed_in_one_place():
    used, wrong = set(), []
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        for call, line in calls(path):
            reason = next((key for key in ALLOWED if name.startswith(key[0]) and call == key[1]), None)
            if reason is None:
                wrong.append(f"{name}:{line} calls {call}")
            else:
                used.add(reason)
    assert not wrong, "use mechvit.files: " + "; ".join(wrong)
    assert used == set(ALLOWED), "an exception that nothing needs any more"


def test_the_test_finds_what_it_looks_for(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "import os, shutil\nshutil.rmtree(x)\nos.replace(a, b)\npath.unlink()\nmodel.save_pretrained(out)\n"
        "open(p, 'w')\npath.open('wb')\nframe.to_parquet(p)\ntext.replace('a', 'b')\nopen(p)\n"
    )
    assert [name for name, _ in calls(path)] == [
        "rmtree",
        "replace",
        "unlink",
        "save_pretrained",
        "open",
        "open",
        "to_parquet",
    ]
