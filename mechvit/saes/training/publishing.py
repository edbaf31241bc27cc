"""Publication of trained SAEs as folders that sae-lens opens, with a model card, and upload to the Hugging Face Hub."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit import files
from mechvit.arguments import checked
from mechvit.code_version import code_version

from .architectures import THRESHOLDED
from .learner import Learner
from .model_card import model_card

if TYPE_CHECKING:
    from mechvit.saes.activations.streams import ActivationStreams


@torch.no_grad()
def settle(learners: list[Learner], streams: ActivationStreams) -> None:
    """Restore each SAE's best epoch, and set the thresholds on training tokens, in one pass over these.

    A threshold is the mean over batches of the smallest pre-activation among the k x batch largest. sae-lens's own is a
    moving average of the same that starts at 0 and lags by hundreds of steps.

    Raises:
        ValueError: no latent of an SAE fires on these tokens.
    """
    for learner in learners:
        learner.sae.eval()
        if learner.best_weights:
            learner.sae.load_state_dict(learner.best_weights)
    smallest: dict[str, list[float]] = {
        learner.spec.name: [] for learner in learners if learner.spec.architecture in THRESHOLDED
    }
    if not smallest:
        return
    size = learners[0].config.train_batch_size_tokens
    for part in _batches(streams.calibration(), size):
        for learner in learners:
            found = smallest.get(learner.spec.name)
            if found is None or (found and len(part) < size):
                continue
            codes = learner.sae.encode(learner.trainer.activation_scaler(learner.own(part)))
            if (codes > 0).any():
                found.append(float(codes[codes > 0].min()))
    for learner in learners:
        found = smallest.get(learner.spec.name)
        if found == []:
            raise ValueError(f"no latent of the {learner.spec.name} SAE fires on the calibration tokens; train longer")
        if found:
            learner.sae.topk_threshold.fill_(sum(found) / len(found))


def _batches(tokens: Iterator[Tensor], size: int) -> Iterator[Float[Tensor, "token columns"]]:
    """Yield the same tokens, `size` at a time; fewer at the end."""
    held: list[Tensor] = []
    for part in tokens:
        held.append(part)
        if sum(map(len, held)) >= size:
            whole = torch.cat(held).split(size)
            yield from whole[:-1]
            held = [whole[-1]]
    yield torch.cat(held)


@torch.no_grad()
def publish(learner: Learner, streams: ActivationStreams, folder: Path) -> None:
    """Write an SAE, after `settle`, as an inference SAE that reads raw activations, with a model card."""
    spec, sae = learner.spec, learner.sae
    if not learner.best_weights:
        warnings.warn(
            f"the {spec.name} SAE's L0 never came down to 1.25 k = {1.25 * spec.k:g}: its last epoch is published; "
            "train longer, or give an l1_coefficient",
            stacklevel=4,
        )
    scale = learner.trainer.activation_scaler.scaling_factor
    assert scale is not None  # set at the start of the training
    if learner.penalty is not None:
        setattr(sae.cfg, f"{learner.penalty}_coefficient", learner.coefficient)
    sae.fold_activation_norm_scaling_factor(scale)
    metadata = streams.about() | {
        "hook_name": spec.hook_name,
        "architecture_in_training": spec.architecture,
        "k": spec.k,
        "lr": spec.lr,
        "training_tokens": learner.trainer.n_training_samples,
        "best_epoch": learner.best_epoch if learner.best_weights else None,
        "explained_variance": learner.best_score if learner.best_weights else None,
        "metrics": learner.best_metrics or learner.last_metrics,
        "activation_scale": scale,
        "mechvit": code_version(),
        **getattr(streams, "revisions", dict)(),
    }
    for name, value in metadata.items():
        setattr(sae.cfg.metadata, name, value)
    with files.library_writes(folder):
        _, cfg = sae.save_inference_model(folder)
    ordered = json.dumps(
        json.loads(cfg.read_text(encoding="utf-8")), indent=1, sort_keys=True
    )  # sae-lens's order varies
    files.write_text(cfg, ordered + "\n", ours=lambda path: path == cfg)
    details = {"d_in": sae.cfg.d_in, "d_sae": sae.cfg.d_sae, "sparsity coefficient": learner.coefficient}
    card = model_card(spec.name, metadata, {name: value for name, value in details.items() if value == value})
    files.write_text(folder / "README.md", card)


@checked
def push_to_hub(folder: str | os.PathLike[str], repo_id: str, *, revision: str = "main") -> None:
    """Upload published SAEs with sae-lens's own uploader, each with its model card.

    `sae_lens.SAE.from_pretrained(repo_id, NAME)` then opens each. The repository is created if it does not exist.

    Args:
        folder: the output folder of `train_saes`, or that of one SAE in it.
        repo_id: `OWNER/NAME` on the Hugging Face hub; you must be logged in (`hf auth login`).
        revision: the branch to upload to.

    Raises:
        ValueError: the folder holds no published SAE.
    """
    from huggingface_hub import HfApi
    from sae_lens.training.upload_saes_to_huggingface import upload_saes_to_huggingface

    saes = published(folder)
    upload_saes_to_huggingface(dict(saes), repo_id, hf_revision=revision, show_progress=False)
    api = HfApi()
    for name, path in saes.items():
        if (path / "README.md").is_file():
            api.upload_file(
                path_or_fileobj=path / "README.md",
                path_in_repo=f"{name}/README.md",
                repo_id=repo_id,
                revision=revision,
                commit_message=f"Add the model card of {name}",
            )


def published(folder: str | os.PathLike[str]) -> Mapping[str, Path]:
    """Return the published SAEs in a folder of `train_saes`, or the one that the folder itself is, by name.

    Raises:
        ValueError: the folder holds no published SAE.
    """
    root = Path(folder)
    found = [path.parent for path in (root / "cfg.json", *sorted(root.glob("*/cfg.json"))) if path.is_file()]
    if not found:
        raise ValueError(f"{root} holds no SAE: neither it nor a folder in it has a cfg.json")
    return {path.resolve().name: path for path in found}
