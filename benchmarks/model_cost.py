"""Cost of a HookedViT over the Hugging Face model that it copies: plain, with caching, and of its hook points alone.

    benchmarks/model_cost.py --out runs/benchmarks/model_cost             # ViT-B/16, batch 8
    benchmarks/model_cost.py --device cpu --threads 2 --rounds 40 --out runs/benchmarks/model_cost
    benchmarks/model_cost.py --quick --out runs/benchmarks/quick          # does it run? seconds; its ratios mean little

All contenders run the same weights and pixels without gradients, in the same rounds, and must agree before they are
timed. A value is the median over the rounds of one time over another in the same round. "Hugging Face, again" is a copy
against the original: what it is off 1 is noise, and no other ratio is known better. A verdict is "unsure" where the
limit lies within the median's 95% interval: take more rounds. Leave the machine alone while it runs.

OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws the ratios. The exit status is 0 whether
or not a limit is met, and 2 where contenders disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from timing import Contender, Timing

from mechvit.cli.command_line import read, run
from mechvit.experiment.inputs import check_device
from mechvit.files import check_out
from mechvit.settings_checks import COUNT, THREADS, check, check_common, check_some

if TYPE_CHECKING:
    from contenders import Models
    from report import Measure

AGAIN, SDPA, EAGER, TRUNCATED = (
    "Hugging Face, again",
    "Hugging Face SDPA",
    "Hugging Face eager, output_attentions",
    "Hugging Face, first n - 1 layers",
)
HOOK_POINTS = "hook_points"
PartName = Literal["no_hooks", "penultimate", "patterns", "hook_points"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    device: str | None = None
    """Device to compute on, as in cuda:0 or cpu; CUDA by default if there is a GPU."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights and the pixels."""
    threads: int = 2
    """Threads of the CPU's operators."""
    rounds: int = 20
    """Number of measurements of every contender; ViT-B/16 takes half a minute a round on two cores. Even is better: the
    order of one round is the reverse of the one before."""
    batch_size: int = 8
    """Images per call; the limits are for 8."""
    parts: tuple[PartName, ...] = ("no_hooks", "penultimate", "patterns", "hook_points")
    """Comparisons to run: the plain forward; the penultimate residual cached; attention patterns cached; the cost of
    hook points on a small model (48 px, 6 layers, width 96)."""
    quick: bool = False
    """A tiny model instead of ViT-B/16, and three rounds at most; its ratios are held against no limit."""
    seed: int = 0
    """Seed of the weights, the pixels and the order of the contenders."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "parts")
        check(self, THREADS, "threads")
        check(self, COUNT, "rounds")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison: its contenders, the first of which is the reference, and the compared pairs."""

    title: str
    contenders: Callable[[Models], Sequence[Contender]]
    pairs: tuple[tuple[str, str, float | None], ...]
    """(contender, compared with, largest ratio at ViT-B/16's shape)."""


def no_hooks(models: Models) -> list[Contender]:
    """Return the contenders for the whole model, with nothing cached."""
    return [
        Contender(name=SDPA, call=lambda: models.sdpa(models.pixels), tensors=lambda out: {"logits": out.logits}),
        Contender(name=AGAIN, call=lambda: models.again(models.pixels), tensors=lambda out: {"logits": out.logits}),
        Contender(name="HookedViT", call=lambda: models.hooked(models.pixels), tensors=lambda out: {"logits": out}),
    ]


def penultimate(models: Models) -> list[Contender]:
    """Return the contenders for the residual stream that enters the last block."""
    stop = models.hooked.cfg.n_layers - 1
    name = f"blocks.{stop - 1}.hook_resid_post"

    def truncated(hf_model: Any) -> Any:
        resid = hf_model.vit.embeddings(models.pixels)
        for layer in hf_model.vit.layers[:stop]:
            resid = layer(resid)
        return resid

    return [
        Contender(name=TRUNCATED, call=lambda: truncated(models.sdpa), tensors=lambda out: {"resid": out}),
        Contender(name=AGAIN, call=lambda: truncated(models.again), tensors=lambda out: {"resid": out}),
        Contender(
            name="HookedViT, stop_at_layer",
            call=lambda: models.hooked.run_with_cache(models.pixels, names_filter=name, stop_at_layer=stop),
            tensors=lambda out: {"resid": out[1][name]},
        ),
    ]


def patterns(models: Models) -> list[Contender]:
    """Return the contenders for the attention patterns of all layers, and of the last one alone."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(models.hooked.cfg.n_layers)]

    def theirs(out: Any) -> dict[str, Any]:
        return {"logits": out.logits, **dict(zip(names, out.attentions, strict=True))}

    def ours(out: Any) -> dict[str, Any]:
        return {"logits": out[0], **{name: out[1][name] for name in names if name in out[1]}}

    return [
        Contender(name=EAGER, call=lambda: models.eager(models.pixels, output_attentions=True), tensors=theirs),
        Contender(name=SDPA, call=lambda: models.sdpa(models.pixels), tensors=lambda out: {"logits": out.logits}),
        Contender(
            name="HookedViT, all layers",
            call=lambda: models.hooked.run_with_cache(models.pixels, names_filter=names),
            tensors=ours,
        ),
        Contender(
            name="HookedViT, one layer",
            call=lambda: models.hooked.run_with_cache(models.pixels, names_filter=names[-1]),
            tensors=ours,
        ),
    ]


PARTS: dict[str, Part] = {
    "no_hooks": Part(
        title="no hooks",
        contenders=no_hooks,
        pairs=(("HookedViT", SDPA, 1.02), (AGAIN, SDPA, None)),
    ),
    "penultimate": Part(
        title="penultimate residual",
        contenders=penultimate,
        pairs=(("HookedViT, stop_at_layer", TRUNCATED, 1.02), (AGAIN, TRUNCATED, None)),
    ),
    "patterns": Part(
        title="attention patterns",
        contenders=patterns,
        pairs=(
            ("HookedViT, all layers", EAGER, 1.10),
            ("HookedViT, one layer", EAGER, None),
            ("HookedViT, one layer", SDPA, None),
        ),
    ),
}


def main(options: Options) -> None:
    """Time each part, print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
    check_device(options.device)
    import torch
    from contenders import TOLERANCES, check_agreement, make_models
    from report import Beginning, publish

    torch.set_num_threads(options.threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    rounds = min(options.rounds, 3) if options.quick else options.rounds
    shape = "tiny" if options.quick else "vit_b_16"
    options, beginning = replace(options, device=device, rounds=rounds), Beginning.now(device)
    measures, timings, agreement = [], {}, {}
    with torch.inference_mode():
        chosen = [part for name, part in PARTS.items() if name in options.parts]
        if chosen:
            models = make_models(shape, options.batch_size, device, options.dtype, options.seed)
        for part in chosen:
            contenders = part.contenders(models)
            agreement[part.title] = check_agreement(contenders, TOLERANCES[options.dtype])
            timings[part.title] = timing = timed(contenders, options, part.title)
            measures += rows(part, timing, judged=shape == "vit_b_16" and options.batch_size == 8)
        if HOOK_POINTS in options.parts:
            timing, found = hook_points(options)
            timings["hook points"], measures = timing, measures + found
    publish(
        options,
        beginning,
        title="Cost of a HookedViT",
        measures=measures,
        timings=timings,
        agreement=agreement,
        shape=shape,
    )


def timed(contenders: Sequence[Contender], options: Options, title: str) -> Timing:
    """Time a part's contenders under the options."""
    from timing import time_interleaved

    return time_interleaved(
        contenders, rounds=options.rounds, device=str(options.device), seed=options.seed, progress=title
    )


def rows(part: Part, timing: Timing, *, judged: bool) -> list[Measure]:
    """Return a part's rows, compared with their limits if `judged`."""
    from report import Measure

    return [
        Measure(
            part=part.title,
            contender=name,
            over=over,
            seconds=timing.of(name),
            value=timing.ratio(name, over),
            limit=limit if judged else None,
        )
        for name, over, limit in part.pairs
    ]


def hook_points(options: Options) -> tuple[Timing, list[Measure]]:
    """Measure the cost of unused hook points in a small model's forward pass, in ms and in µs per call."""
    import hook_points as points
    import torch
    from contenders import make_models
    from report import Measure

    torch.set_num_threads(1)  # threads of so small a model wait for each other more than they compute
    models = make_models("small", 1, str(options.device), options.dtype, options.seed)
    timing, n = points.time_hook_points(
        models.hooked,
        models.pixels,
        rounds=options.rounds * 5,
        calls=2 if options.quick else 20,
        device=str(options.device),
        seed=options.seed,
        progress="hook points",
    )
    pairs: tuple[tuple[str, str, str, float, float | None], ...] = (
        (points.AS_IS, points.BYPASSED, "ms", 1e3, 1.0),
        (points.POINTS, points.NOTHING, "µs a call", 1e6 / n, None),
    )
    found = [
        Measure(
            part=f"{n} hook points, small model",
            contender=name,
            over=minus,
            seconds=timing.of(name),
            value=timing.difference(name, minus, scale=scale),
            unit=unit,
            limit=limit,
        )
        for name, minus, unit, scale, limit in pairs
    ]
    return timing, found


if __name__ == "__main__":
    run(main, read(Options, __doc__))
