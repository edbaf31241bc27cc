"""Checkpoints with a new head: the encoder of one model under the class, and for the classes, of another."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def with_new_head(model: PreTrainedModel, hf_config: Any, seed: int) -> Any:
    """Return a classifier with a model's encoder and a new head, drawn as transformers initialises it.

    Args:
        model: a loaded model, with or without a head of its own, which is left out.
        hf_config: config of a checkpoint tuned from the model: its class, its classes, its settings.
        seed: seed of the head's weights.

    Raises:
        ValueError: the encoder's weights are not those of the other class, one by one.
    """
    import transformers

    config = copy.deepcopy(hf_config)
    kind = getattr(transformers, config.architectures[0])
    transformers.set_seed(seed)
    found = kind(config).to(model.dtype)
    inner: Any = getattr(found, found.base_model_prefix)
    theirs = getattr(model, model.base_model_prefix, model).state_dict()
    own = inner.state_dict()
    wrong = sorted(name for name in own if name not in theirs or theirs[name].shape != own[name].shape)
    left = sorted(name for name in theirs.keys() - own.keys() if not name.startswith("pooler."))
    if wrong or left:
        raise ValueError(
            f"the encoder of the {type(model).__name__} does not fit the {kind.__name__} that was tuned from it: "
            f"{', '.join([*wrong, *left][:4])} {'differ' if wrong else 'have no place'}; give the base that it was "
            "tuned from, of the same input size"
        )
    inner.load_state_dict({name: theirs[name] for name in own})
    found.config.name_or_path = model.config.name_or_path
    return found
