"""Cost of cross-model patching of every component over the bare forward passes that it needs.

    benchmarks/model_patching.py --out runs/benchmarks/model_patching
    benchmarks/model_patching.py --quick --out runs/benchmarks/quick      # does it run? its ratios mean little

Patched is every (layer, component) pair of a small model (48 px, patch 8, 6 layers, width 96): residual stream,
attention, MLP, every head, all tokens. Contenders: `mechvit.analysis.patch_models`; the blocks that it must run (each
copy's, from the place that it changes) and the two models' own passes, on ready tensors, with nothing patched, read or
scored; a plain hook and a whole pass for each component; and `attribution_patching`. Patching and plain hooks must
agree before they are timed.

OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws the ratios.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from timing import Contender

from mechvit.cli.command_line import read, run
from mechvit.experiment.inputs import check_device
from mechvit.files import check_out
from mechvit.settings_checks import COUNT, THREADS, check, check_common

if TYPE_CHECKING:
    from report import Measure
    from torch import Tensor

    from mechvit import HookedViT
    from mechvit.analysis import Component
    from mechvit.data.batches import ImageBatch

PATCHING, BARE, HOOKS, ATTRIBUTION = "patching", "bare blocks", "a hook and a whole pass each", "attribution patching"
CORRUPTION = "gaussian_blur_4"
LIMIT = 1.3
"""Largest time of patching over the bare blocks'."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    images: int = 256
    """Number of images; the limit is for 256."""
    device: str | None = None
    """Device to compute on, as in cuda:0 or cpu; CUDA by default if there is a GPU."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights and the pixels."""
    threads: int = 2
    """Threads of the CPU's operators."""
    rounds: int = 8
    """Number of measurements of every contender; half a minute a round on two cores. Even is better."""
    quick: bool = False
    """A tiny model, few images and two rounds; its ratios are held against no limit."""
    seed: int = 0
    """Seed of the weights, the images and the order of the contenders."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check(self, THREADS, "threads")
        check(self, COUNT, "rounds", "images")


def make_pair(shape: str, n_images: int, options: Options) -> tuple[HookedViT, HookedViT, ImageBatch]:
    """Return a model of random weights, one a third of the way to another such model, and random images in memory."""
    import torch
    from contenders import make_models
    from transformers import ViTImageProcessorPil

    from mechvit.data.batches import ImageBatch

    device = options.device or "cpu"
    pair = [make_models(shape, 1, device, options.dtype, options.seed + i).hooked for i in range(2)]
    size, classes = pair[0].cfg.image_size, pair[0].cfg.n_classes
    with torch.no_grad():
        for name, parameter in pair[1].named_parameters():
            parameter.lerp_(pair[0].get_parameter(name), 2 / 3)
    for model in pair:
        model.image_processor = ViTImageProcessorPil(size={"height": size, "width": size})
    generator = torch.Generator().manual_seed(options.seed)
    images = torch.rand(n_images, 3, size, size, generator=generator).to(device)
    labels = torch.randint(classes, (n_images,), generator=generator).to(device)
    return pair[0], pair[1], ImageBatch(images, labels, torch.arange(n_images).to(device))


class Bare:
    """Block evaluations of a patching, batch by batch, on tensors that exist already."""

    def __init__(self, receiver: HookedViT, giver: HookedViT, images: ImageBatch, components: tuple[Component, ...]):
        from mechvit.analysis.condition_images import shown_to
        from mechvit.analysis.inputs import image_batches, pixel_values

        self.receiver, self.giver, self.components = receiver, giver, components
        batches = image_batches(receiver, images)
        self.pixels = [pixel_values(receiver, shown_to(receiver, batch, CORRUPTION, seed=0)) for batch in batches]
        layers = range(receiver.cfg.n_layers)
        names = [f"blocks.{layer}.hook_resid_{where}" for layer in layers for where in ("pre", "mid", "post")]
        _, self.cache = receiver.run_with_cache(self.pixels[0], names_filter=names, return_cache_object=False)

    def __call__(self) -> None:
        """Run them."""
        last = self.receiver.cfg.n_layers - 1
        for pixels in self.pixels:
            self.receiver(pixels)
            self.giver(pixels)
            for component in self.components:
                start, before = component.start, component.start - 1
                entered = self._of(f"blocks.{min(start, last)}.hook_resid_{'pre' if start <= last else 'post'}", pixels)
                if component.before_mlp:
                    entered = self.receiver.blocks[before].after_attention(
                        self._of(f"blocks.{before}.hook_resid_mid", pixels)
                    )
                self.receiver(entered, start_at_layer=start)

    def _of(self, name: str, pixels: Tensor) -> Tensor:
        return self.cache[name][: len(pixels)]  # the last batch may be smaller


def hook_by_hook(
    receiver: HookedViT, giver: HookedViT, images: ImageBatch, components: tuple[Component, ...]
) -> dict[str, Tensor]:
    """Return each component's logit differences from a whole pass with a plain hook."""
    import torch

    from mechvit.analysis import foils, logit_difference
    from mechvit.analysis.condition_images import shown_to
    from mechvit.analysis.inputs import image_batches, pixel_values

    n_layers, parts = receiver.cfg.n_layers, []
    for batch in image_batches(receiver, images):
        pixels = pixel_values(receiver, shown_to(receiver, batch, CORRUPTION, seed=0))
        names = [component.point(n_layers) for component in components]
        logits, given = giver.run_with_cache(pixels, names_filter=names, return_cache_object=False)
        foil, found = foils(batch.labels, receiver(pixels), logits), []
        for component, name in zip(components, names, strict=True):

            def swap(x: Tensor, hook: Any, name: str = name, head: int = component.head) -> Tensor:
                if head < 0:
                    return given[name]  # noqa: B023 (called in this round)
                x = x.clone()
                x[:, :, head] = given[name][:, :, head]  # noqa: B023
                return x

            logits = receiver.run_with_hooks(pixels, fwd_hooks=[(name, swap)])
            found.append(logit_difference(logits.float(), batch.labels, foil))
        parts.append(torch.stack(found))
    return {"logit difference": torch.cat(parts, dim=1)}


def main(options: Options) -> None:
    """Time all contenders, print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
    check_device(options.device)
    import torch
    from contenders import TOLERANCES, check_agreement
    from report import Beginning, publish
    from timing import time_interleaved

    from mechvit.analysis import attribution_patching, patch_models

    torch.set_num_threads(options.threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    options, beginning = replace(options, device=device, rounds=rounds), Beginning.now()
    shape, n_images = ("tiny", min(options.images, 5)) if options.quick else ("small", options.images)
    receiver, giver, images = make_pair(shape, n_images, options)
    with torch.inference_mode():
        found = patch_models(receiver, giver, images, CORRUPTION)
        parts = found.components
        ways = [
            Contender(name=HOOKS, call=lambda: hook_by_hook(receiver, giver, images, parts), tensors=dict),
            Contender(
                name=PATCHING,
                call=lambda: patch_models(receiver, giver, images, CORRUPTION),
                tensors=lambda out: {"logit difference": out.logit_difference.to(device)},
            ),
        ]
        title = f"{len(parts)} components, {n_images} images, {found.passes:.1f} passes an image"
        agreement = {title: check_agreement(ways, TOLERANCES[options.dtype])}
        ways += [
            Contender(name=BARE, call=Bare(receiver, giver, images, parts)),
            Contender(name=ATTRIBUTION, call=lambda: attribution_patching(receiver, giver, images, CORRUPTION)),
        ]
        timing = time_interleaved(ways, rounds=rounds, device=device, seed=options.seed, progress=title)
    limit = None if options.quick or n_images != 256 else LIMIT
    publish(
        options,
        beginning,
        title="Cost of patching every component",
        measures=measures(title, timing, limit),
        timings={title: timing},
        agreement=agreement,
    )


def measures(title: str, timing: Any, limit: float | None) -> tuple[Measure, ...]:
    """Return patching over the bare blocks and over plain hooks, and its approximation over patching."""
    from report import Measure

    pairs = ((PATCHING, BARE, limit), (PATCHING, HOOKS, None), (ATTRIBUTION, PATCHING, None))
    return tuple(Measure.ratio(title, timing, name, over, most) for name, over, most in pairs)


if __name__ == "__main__":
    run(main, read(Options, __doc__))
