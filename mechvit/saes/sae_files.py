"""The two files of a published SAE, `cfg.json` and `sae_weights.safetensors`, checked before sae-lens opens them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mechvit.models.checkpoints.stored_files import check_finite, open_tensors, read_object
from mechvit.terminal import printable

from .sae_settings_checks import check_metadata, check_old_settings, check_settings, is_old

if TYPE_CHECKING:
    from sae_lens import SAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
REQUIRED_SETTINGS = ("architecture", "d_in", "d_sae", "dtype")


def read_sae_config(path: Path) -> dict[str, Any]:
    """Read a `cfg.json` and check it.

    Raises:
        ValueError: it is no JSON object, a setting is missing, unknown, of the wrong type or out of range, or sae-lens
            cannot load the architecture or dtype; names the file, the setting and its value.
    """
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
    from sae_lens.util import DTYPE_MAP

    config = read_object(path)
    if missing := [name for name in REQUIRED_SETTINGS if name not in config]:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}, which sae-lens writes there: save the SAE again with "
            "save_inference_model, or add what it was made with"
        )
    architecture, dtype = config["architecture"], config["dtype"]
    if not isinstance(architecture, str) or architecture not in SAE_CLASS_REGISTRY:
        training = isinstance(architecture, str) and architecture in SAE_TRAINING_CLASS_REGISTRY
        known = ", ".join(sorted(SAE_CLASS_REGISTRY))
        hint = "that is an SAE in training: publish it with save_inference_model" if training else f"known are {known}"
        raise ValueError(f"{path}: sae-lens has no architecture {architecture!r} to load; {hint}")
    if not isinstance(dtype, str) or dtype not in DTYPE_MAP:
        raise ValueError(f"{path}: dtype must be one of {', '.join(map(str, DTYPE_MAP))}; got {dtype!r}")
    check_metadata(path, config)
    if is_old(path, config):
        check_old_settings(path, config)
    check_settings(path, config, SAE_CLASS_REGISTRY[architecture][1])
    return config


def check_sae_weights(path: Path, config: dict[str, Any]) -> None:
    """Compare the names and shapes in `sae_weights.safetensors` with the configuration; weights are not read.

    Raises:
        ValueError: the file is damaged, or tensors are missing, unexpected or of another shape; names the file and
            each.
    """
    with open_tensors(path) as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if "scaling_factor" in found and bool((file.get_tensor("scaling_factor") == 1).all()):
            del found["scaling_factor"]  # written by older versions of sae-lens, and ignored when loading
    layers = config.get("n_attn_layers", 0)
    if layers > len(found):
        raise ValueError(f"{path.with_name(CONFIG)}: n_attn_layers is {layers}, and {path} holds {len(found)} tensors")
    d_in, d_sae, d_out = config["d_in"], config["d_sae"], config.get("d_out", config["d_in"])
    sizes = {"W_dec": (d_sae, d_out), "W_enc": (d_in, d_sae), "b_dec": (d_out,)}
    wrong = [name for name, shape in sizes.items() if found.get(name, shape) != shape]
    wanted = sizes if wrong else _expected(config)  # building it allocates an SAE of that size
    faults = [
        f"{name} is {list(found[name])}, must be {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    if not wrong:
        faults += [f"it lacks {name}" for name in wanted if name not in found]
        faults += [f"{name} is left over" for name in found if name not in wanted]
    if faults:
        raise ValueError(
            f"{path} does not hold the weights that {CONFIG} beside it describes: {printable('; '.join(faults))}"
        )


def _expected(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the weights that sae-lens expects."""
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting
    from sae_lens.registry import get_sae_class

    whole = handle_config_defaulting({**config, "device": "meta"})
    sae_class, config_class = get_sae_class(whole["architecture"])
    weights = sae_class(config_class.from_dict(whole)).state_dict()
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def open_sae(folder: Path, device: str) -> SAE:
    """Open a published SAE with sae-lens, after checking its files.

    Raises:
        ValueError: either file is wrong or holds values that are not finite; names the file.
    """
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    def read(*args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        config, weights = sae_lens_disk_loader(*args, **kwargs)
        check_finite(weights, folder / WEIGHTS)
        return config, weights

    config = read_sae_config(folder / CONFIG)
    try:
        check_sae_weights(folder / WEIGHTS, config)
        return SAE.load_from_disk(folder, device=device, converter=read)
    except (ArithmeticError, AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if str(folder) in str(error):
            raise
        reason = printable(" ".join(str(error).split()))
        raise ValueError(f"{folder} is no SAE that sae-lens can open: {type(error).__name__}, {reason}") from error
