"""Both sides of the bound of kinship: models trained apart and models tuned from one another; and its time.

    benchmarks/kinship.py --out runs/benchmarks/kinship

Small ViTs of three shapes learn the embedded photographs from several seeds. Every two of one shape were trained apart:
their median cosine after matching must lie below the bound. Each first one is then tuned on labels without sense, at
learning rates up to ten times that of its training, and must lie above it. Last, two ViT-B/16 of random weights are
judged, which is what takes longest, and one and its copy.

OUT/result.json holds every number, OUT/table.md the table, OUT/figure.html draws it. Measures are cosines minus the
bound of their shape: below 0 is no kin.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from timing import Contender

from mechvit.cli.command_line import read, run
from mechvit.files import check_out
from mechvit.settings_checks import COUNT, check, check_common

if TYPE_CHECKING:
    from report import Measure
    from torch import Tensor

    from mechvit import HookedViT

SHAPES: dict[str, dict[str, int]] = {
    "width 32": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64},
    "width 64": {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256},
    "width 96": {"hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 384},
}
RATE = 1e-3
TUNING_RATES = (1e-4, 1e-3, 3e-3, 1e-2)
APART, TUNED = "trained apart", "tuned at {rate:g}"
UNRELATED, SAME = "two models of random weights", "a model and its copy"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    seeds: int = 3
    """Models of each shape that are trained apart."""
    steps: int = 250
    """Steps of 64 images in training; tuning takes three fifths as many."""
    rounds: int = 4
    """Times that ViT-B/16s are judged."""
    quick: bool = False
    """One shape, few steps and no ViT-B/16: does it run?"""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check(self, COUNT, "seeds", "steps", "rounds")


def main(options: Options) -> None:
    """Train, tune and judge; print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
    from report import Beginning, Measure, publish
    from timing import time_interleaved

    from mechvit.analysis import kinship

    beginning, measures, timings = Beginning.now(), list[Measure](), {}
    steps, shapes = (5, ["width 32"]) if options.quick else (options.steps, list(SHAPES))
    images, labels = photographs()
    for shape in shapes:
        measures += judged(shape, options.seeds, steps, images, labels, limits=not options.quick)
    timed, of = ("width 32", SHAPES["width 32"]) if options.quick else ("ViT-B/16", {})
    base, other = (new_model(seed, of, 1000) for seed in (0, 1))
    same = copy.deepcopy(base)
    ways = [
        Contender(name=UNRELATED, call=lambda: kinship(base, other)),
        Contender(name=SAME, call=lambda: kinship(base, same)),
    ]
    timings[timed] = time_interleaved(ways, rounds=options.rounds, progress=timed)
    measures.append(Measure.ratio(timed, timings[timed], UNRELATED, SAME))
    publish(options, beginning, title="Kinship", measures=measures, timings=timings)


def judged(shape: str, seeds: int, steps: int, images: Tensor, labels: Tensor, *, limits: bool) -> list[Measure]:
    """Return the distances from the bound of models trained apart, and of one tuned at several rates."""
    import torch
    from report import Measure
    from timing import spread

    from mechvit.analysis import kinship

    classes = int(labels.max()) + 1
    models = [trained(new_model(s, SHAPES[shape], classes), images, labels, steps, RATE, s) for s in range(seeds)]
    apart = [kinship(a, b) for i, a in enumerate(models) for b in models[:i]]
    found = {APART: [each.value - each.bound for each in apart]}
    nonsense = torch.randint(classes, labels.shape, generator=torch.Generator().manual_seed(0))
    for rate in TUNING_RATES:
        tuned = trained(copy.deepcopy(models[0]), images, nonsense, steps * 3 // 5, rate, seeds)
        each = kinship(models[0], tuned)
        found[TUNED.format(rate=rate)] = [each.value - each.bound]
    nothing = spread([0.0])
    return [
        Measure(
            part=shape,
            contender=name,
            over="the bound",
            seconds=nothing,
            value=spread(values),
            unit="cosine",
            limit=0.0 if limits and name == APART else None,
            at_least=0.0 if limits and name != APART else None,
        )
        for name, values in found.items()
    ]


def photographs() -> tuple[Tensor, Tensor]:
    """Return the training part of the embedded photographs at 32 pixels, in [-1, 1], and their labels."""
    import transformers

    from mechvit.data import iter_batches, load_images, prepare

    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
    prepared = prepare(load_images("photos", "train", image_size=32), processor)
    batch = next(iter_batches(prepared, batch_size=len(prepared)))
    return 2 * batch.images - 1, batch.labels


def new_model(seed: int, shape: dict[str, Any], classes: int) -> HookedViT:
    """Return a ViT of random weights, of 32 pixels where a shape is given."""
    import torch
    import transformers

    from mechvit import HookedViT

    torch.manual_seed(seed)
    size = {"image_size": 32, "patch_size": 8} if shape else {}
    config = transformers.ViTConfig(**{**shape, **size, "num_labels": classes})
    return HookedViT.from_hf(transformers.ViTForImageClassification(config))


def trained(model: HookedViT, images: Tensor, labels: Tensor, steps: int, rate: float, seed: int) -> HookedViT:
    """Train a model in place with AdamW, and return it."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    for _ in range(steps):
        rows = torch.randint(len(images), (64,), generator=generator)
        optimiser.zero_grad()
        model(images[rows], "loss", labels=labels[rows]).backward()
        optimiser.step()
    return model


if __name__ == "__main__":
    run(main, read(Options, __doc__))
