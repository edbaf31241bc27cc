"""Checkpoints that bring code of their own: whoever runs it leaves a file behind."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

CODE = """\
from pathlib import Path
Path({mark!r}).write_text("run")
from transformers import PreTrainedConfig, PreTrainedModel, ViTImageProcessorPil
class Config(PreTrainedConfig):
    model_type = "mine"
class Model(PreTrainedModel):
    pass
class Processor(ViTImageProcessorPil):
    pass
"""
AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModel": "evil.Model",
    "AutoModelForImageClassification": "evil.Model",
    "AutoImageProcessor": "evil.Processor",
    "AutoFeatureExtractor": "evil.Processor",
    "AutoProcessor": "evil.Processor",
}


class Bomb:
    """An object that writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.mark, "run")


def edit(path: Path, **changes: object) -> None:
    """Change settings of a JSON file; None removes one."""
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))


def code_by_config(folder: Path, mark: Path) -> None:
    edit(folder / "config.json", model_type="mine", auto_map=AUTO_MAP)


def code_by_config_without_a_type(folder: Path, mark: Path) -> None:
    edit(folder / "config.json", model_type=None, auto_map=AUTO_MAP)


def code_by_processor(folder: Path, mark: Path) -> None:
    edit(folder / "preprocessor_config.json", image_processor_type="MyImageProcessor", auto_map=AUTO_MAP)


def code_by_feature_extractor(folder: Path, mark: Path) -> None:
    edit(
        folder / "preprocessor_config.json",
        image_processor_type=None,
        feature_extractor_type="MyFeatureExtractor",
        auto_map={"AutoFeatureExtractor": "evil.Processor"},
    )


def code_by_processor_of_several_parts(folder: Path, mark: Path) -> None:
    own = json.loads((folder / "preprocessor_config.json").read_text())
    own |= {"image_processor_type": "MyImageProcessor", "auto_map": AUTO_MAP}
    whole = {"image_processor": own, "processor_class": "MyProcessor", "auto_map": AUTO_MAP}
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps(whole))


def code_of_another_repository(folder: Path, mark: Path) -> None:
    edit(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "someone/else--evil.Config"})


def pickled_weights(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))


def pickled_shards(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "part.bin").write_bytes(pickle.dumps(Bomb(mark)))
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"classifier.bias": "part.bin"}})
    )


def pickle_called_safetensors(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(mark)))


def stale_code(folder: Path, mark: Path) -> None:
    """A checkpoint with code for a class that transformers has by now."""
    edit(folder / "config.json", auto_map=AUTO_MAP)
    edit(folder / "preprocessor_config.json", auto_map=AUTO_MAP)


def stale_code_by_processor_without_a_type(folder: Path, mark: Path) -> None:
    """transformers then asks the config for the processor's class."""
    edit(folder / "preprocessor_config.json", image_processor_type=None)
    edit(folder / "config.json", auto_map=AUTO_MAP)


def pickle_beside(folder: Path, mark: Path) -> None:
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", ".metadata", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Bomb(mark)))


def kernel_of_the_hub(folder: Path, mark: Path) -> None:
    own = {"attn_implementation": "someone/kernel", "_attn_implementation": "someone/kernel"}
    edit(folder / "config.json", **own, experts_implementation="someone/kernel")


HOSTILE: dict[str, Callable[[Path, Path], None]] = {
    change.__name__: change
    for change in (
        code_by_config,
        code_by_processor,
        code_by_config_without_a_type,
        code_by_feature_extractor,
        code_by_processor_of_several_parts,
        code_of_another_repository,
        pickled_weights,
        pickled_shards,
        pickle_called_safetensors,
    )
}
"""Each is refused; the first two are tried with every command on every run of the tests."""


def make_hostile(checkpoint: str | Path, folder: Path, kind: str) -> Path:
    """Copy a checkpoint, make it hostile, and give the file that its code would write."""
    shutil.copytree(checkpoint, folder)
    mark = folder.with_name(f"{folder.name}.run")
    (folder / "evil.py").write_text(CODE.format(mark=str(mark)))
    (HOSTILE | HARMLESS)[kind](folder, mark)
    return mark


HARMLESS: dict[str, Callable[[Path, Path], None]] = {
    change.__name__: change
    for change in (stale_code, stale_code_by_processor_without_a_type, pickle_beside, kernel_of_the_hub)
}
"""Each is read as if the code were not there."""
