"""Algebraic edits of one block: what is changed, where, and by how much at a given scale.

An edit is a line in the space of weights, so that its strength is chosen by one number, the scale: 0 leaves the model
as it is. Edits that may grow without bound are in units of the norm of the weight that they change; a permutation and a
projection end at 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from mechvit.models import HookedViT

Weights: TypeAlias = dict[str, Tensor]
"""Name of a tensor in the state dict -> its new values."""
Pixels: TypeAlias = Callable[[], Iterator[Tensor]]
"""Function that streams the normalised pixels of all images, batch by batch."""
FEWEST = 2
"""Fewest images of a class, and of all others together, for their mean outputs to be compared."""


@dataclass(frozen=True)
class Edit:
    """A change of one part of a model, along a line."""

    part: str
    """The part that is changed, as in `blocks.1.mlp` (`mechvit.analysis.model_parts`)."""
    at: Callable[[float], Weights]
    """Function of a scale, 0 or more, that returns the changed tensors in float64."""
    most: float = math.inf
    """Largest scale; infinite where there is none."""
    head: int | None = None
    """The one head that is changed."""
    direction: Float[Tensor, " d_model"] | None = None
    """Unit vector of the residual stream along which the part writes something else; None where there is no single
    one.
    """


def mlp_rank_one(model: HookedViT, layer: int, generator: torch.Generator, pixels: Pixels) -> Edit:
    """Add a matrix of rank one to the output weights of an MLP.

    It writes one random direction, by as much as the neurons resemble those of one token, drawn from the first batch,
    minus their mean there.
    """
    mlp = model.blocks[layer].mlp
    point = f"blocks.{layer}.mlp.hook_post"
    _, cache = model.run_with_cache(next(iter(pixels())), names_filter=[point], return_cache_object=False)
    neurons = exact(cache[point].flatten(0, 1))
    read = unit(neurons[torch.randint(len(neurons), (), generator=generator)] - neurons.mean(0))
    weight, written = exact(mlp.fc2.weight), unit(draw(model.cfg.d_model, generator))
    step = weight.norm() * torch.outer(written, read)
    name = f"blocks.{layer}.mlp.fc2.weight"
    return Edit(f"blocks.{layer}.mlp", lambda t: {name: weight + t * step}, direction=in_stream(mlp, written))


def head_queries_permuted(model: HookedViT, layer: int, generator: torch.Generator, pixels: Pixels) -> Edit:
    """Reorder the dimensions of one head's queries and not of its keys, so that it attends elsewhere.

    Between scales 0 and 1 the queries are a mixture of the old and the permuted ones.
    """
    d_head = model.cfg.d_head
    if d_head < 2:
        raise ValueError(f"queries of one dimension have no other order; got a model with d_head {d_head}")
    head = int(torch.randint(model.cfg.n_heads, (), generator=generator))
    circle = torch.randperm(d_head, generator=generator)
    order = torch.arange(model.cfg.n_heads * d_head)
    order[head * d_head + circle] = head * d_head + circle.roll(1)  # no dimension stays where it was
    before = tensors(model.blocks[layer].attn.q, f"blocks.{layer}.attn.q")
    step = {name: values[order] - values for name, values in before.items()}
    return Edit(
        f"blocks.{layer}.attn",
        lambda t: {name: values + t * step[name] for name, values in before.items()},
        most=1.0,
        head=head,
    )


def ln_gains(model: HookedViT, layer: int, generator: torch.Generator, pixels: Pixels) -> Edit:
    """Shift the gains of one LayerNorm of a block, drawn, in one random direction."""
    name = ("ln1", "ln2")[int(torch.randint(2, (), generator=generator))]
    gains = exact(getattr(model.blocks[layer], name).w)
    step = gains.norm() * unit(draw(len(gains), generator))
    return Edit(f"blocks.{layer}.{name}", lambda t: {f"blocks.{layer}.{name}.w": gains + t * step})


def attn_constant(model: HookedViT, layer: int, generator: torch.Generator, pixels: Pixels) -> Edit:
    """Add one constant vector to what attention writes for every token of every image, by its output bias."""
    attn = model.blocks[layer].attn
    if attn.o.bias is None:
        raise ValueError(
            "a constant is written by the output bias of attention, and this checkpoint has none: plant another kind"
        )
    bias, written = exact(attn.o.bias), unit(draw(len(attn.o.bias), generator))
    step, name = exact(attn.o.weight).norm() * written, f"blocks.{layer}.attn.o.bias"
    return Edit(f"blocks.{layer}.attn", lambda t: {name: bias + t * step}, direction=in_stream(attn, written))


def class_projected_out(model: HookedViT, layer: int, generator: torch.Generator, pixels: Pixels) -> Edit:
    """Take one class's feature out of what attention or an MLP, drawn, writes.

    The feature is the mean output of that branch, over tokens, on images that the model takes for the class, minus that
    on all others; the class is drawn among those that it predicts. At scale 1 the branch writes nothing along it.
    """
    branch = ("attn", "mlp")[int(torch.randint(2, (), generator=generator))]
    module: Any = getattr(model.blocks[layer], branch)
    outputs, classes = outputs_and_classes(model, f"blocks.{layer}.hook_{branch}_out", pixels)
    counts = classes.bincount(minlength=model.cfg.n_classes)
    known = ((counts >= FEWEST) & (len(classes) - counts >= FEWEST)).nonzero()[:, 0]
    if len(known) == 0:
        raise ValueError(
            f"a class's feature needs a class that the model predicts for {FEWEST} images or more, and not for "
            f"{FEWEST}; of {len(classes)} images none is so: give more images"
        )
    chosen = classes == known[torch.randint(len(known), (), generator=generator)]
    feature = unit(outputs[chosen].mean(0) - outputs[~chosen].mean(0))
    linear = module.o if branch == "attn" else module.fc2
    read = feature if module.scale is None else unit(exact(module.scale) * feature)  # before the layer scale
    before = tensors(linear, f"blocks.{layer}.{branch}.{'o' if branch == 'attn' else 'fc2'}")
    step = {name: -torch.tensordot(read, read @ values, dims=0) for name, values in before.items()}
    return Edit(
        f"blocks.{layer}.{branch}",
        lambda t: {name: values + t * step[name] for name, values in before.items()},
        most=1.0,
        direction=feature,
    )


EDITS = {
    edit.__name__: edit for edit in (mlp_rank_one, head_queries_permuted, ln_gains, attn_constant, class_projected_out)
}
"""Kind -> the function that makes the edit; each changes what the model computes."""


def outputs_and_classes(model: HookedViT, point: str, pixels: Pixels) -> tuple[Float[Tensor, "images d_model"], Tensor]:
    """Return the mean over tokens of what passes a hook point, and the predicted class, of every image."""
    outputs, classes = [], []
    for batch in pixels():
        logits, cache = model.run_with_cache(batch, names_filter=[point], return_cache_object=False)
        outputs.append(cache[point].double().mean(1).cpu())
        classes.append(logits.argmax(-1).cpu())
    return torch.cat(outputs), torch.cat(classes)


def in_stream(module: Any, written: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """Return the direction in the residual stream of what a branch's last linear layer writes, after its scale."""
    return written if module.scale is None else unit(exact(module.scale) * written)


def tensors(linear: Any, name: str) -> Weights:
    """Return the weight and, where there is one, the bias of a linear layer, by their names in the state dict."""
    found = {f"{name}.weight": exact(linear.weight)}
    return found if linear.bias is None else found | {f"{name}.bias": exact(linear.bias)}


def exact(tensor: Tensor) -> Tensor:
    """Return a copy in float64 on the CPU."""
    return tensor.detach().cpu().double().clone()


def draw(size: int, generator: torch.Generator) -> Float[Tensor, " size"]:
    """Draw a vector of independent normal numbers."""
    return torch.randn(size, generator=generator, dtype=torch.float64)


def unit(vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
    """Scale a vector to length 1.

    Raises:
        ValueError: it has no length.
    """
    length = vector.norm()
    if not length > 0:
        raise ValueError("a direction must have a length; the part writes nothing, or the same for every class")
    return vector / length
