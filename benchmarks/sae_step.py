"""Cost of one training step of an SAE: tokens per second against sae-lens's own, and the time of each part.

    benchmarks/sae_step.py --out runs/benchmarks/sae_step                       # d_in 96, 768 and 1024; 20 minutes
    benchmarks/sae_step.py --d-in 96 --rounds 20 --out runs/benchmarks/sae_step_96
    benchmarks/sae_step.py --quick --out runs/benchmarks/quick                  # does it run? its ratios mean little

A step is sae-lens's own `SAETrainer.step`: forward pass, backward pass, Adam, and the count of when each latent fired
last. "stock" takes sae-lens's classes, "sparse" the sparse form of the same SAE (mechvit's default on a CPU; a sparse
contender that takes a dense step is refused). Both start at the same weights with k = 32 latents active a token, and
take the same batches in turn; after one step they must have the same loss and weights, or nothing is timed. With
`dead`, a tenth of the latents has not fired for long, so that BatchTopK's auxiliary loss works.

By part, each measured in the same rounds: the encoder's dense product alone (the floor that both share), the rest of
the forward pass, the backward pass, Adam, and what is left of the step.

OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws the ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

from timing import Contender, Timing, spread, time_interleaved

from mechvit.cli.command_line import read, run
from mechvit.experiment.inputs import check_device
from mechvit.files import check_out
from mechvit.settings_checks import COUNT, THREADS, SettingError, check, check_common, check_some

if TYPE_CHECKING:
    from report import Measure
    from torch import Tensor

    from mechvit.saes.training.learner import Learner

Architecture = Literal["standard", "batchtopk"]
STOCK, SPARSE, PRODUCT = "stock", "sparse", "dense encoder product"
STEP, FORWARD, BACKWARD, ADAM = "step", "forward", "forward and backward", "Adam"
BATCH = {96: 4096, 768: 2048, 1024: 2048}
"""Tokens a step, by d_in."""
LIMITS: dict[str, dict[tuple[str, int], float]] = {
    "cpu": {("batchtopk", 96): 1 / 8, ("batchtopk", 768): 1 / 4} | {("standard", d): 1 / 1.15 for d in BATCH},
    "cuda": {("batchtopk", 768): 1 / 3} | {("standard", d): 1 / 1.15 for d in BATCH},
}
"""Largest time of a sparse step over a stock one."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    d_in: tuple[Literal[96, 768, 1024], ...] = (96, 768, 1024)
    """Widths of the activations; steps of 4,096 tokens at 96 and 2,048 beyond."""
    architectures: tuple[Architecture, ...] = ("standard", "batchtopk")
    """The SAEs."""
    dead: bool = True
    """Time BatchTopK with a tenth of its latents dead, too."""
    device: str | None = None
    """Device to compute on, as in cuda:0 or cpu; CUDA by default if there is a GPU."""
    threads: int = 2
    """Threads of the CPU's operators."""
    rounds: int = 6
    """Number of measurements of every contender; even is better."""
    expansion_factor: int = 32
    """Latents per dimension."""
    k: int = 32
    """Active latents per token."""
    quick: bool = False
    """d_in 16 and two rounds; its ratios are held against no limit."""
    seed: int = 0
    """Seed of the weights, the activations and the order of the contenders."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "d_in", "architectures")
        check(self, THREADS, "threads")
        check(self, COUNT, "rounds", "expansion_factor", "k")
        if self.k > (least := min(self.d_in) * self.expansion_factor):
            raise SettingError("k", f"must be at most the latents, {least}; got {self.k}")


def learners(architecture: Architecture, d_in: int, options: Options, dead: bool) -> tuple[list[Tensor], list[Learner]]:
    """Draw batches, and make a stock and a sparse learner with the same weights."""
    from sae_contenders import draw, learner_maker

    from mechvit.saes.config import TrainConfig

    batch = 256 if options.quick else BATCH[d_in]
    batches = draw(d_in, 3, batch, device=str(options.device), seed=options.seed)
    config = TrainConfig(
        architectures=(architecture,),
        expansion_factor=options.expansion_factor,
        k=min(options.k, d_in // 2),
        epochs=10_000,  # no schedule moves while the steps are timed
        train_batch_size_tokens=batch,
        l1_coefficient=0.2,
        lr=1e-5,
    )
    make = learner_maker(config, batches, device=str(options.device), seed=options.seed)
    made = [make(False), make(True)]
    if dead:
        for learner in made:
            n_dead = learner.sae.cfg.d_sae // 10
            learner.sae.b_enc.data[:n_dead] = -1e3
            learner.trainer.n_forward_passes_since_fired[:n_dead] = 2.0**30
    return batches.rows, made


def contenders(rows: list[Tensor], made: list[Learner]) -> list[Contender]:
    """Return the step of both learners, its parts, and the dense product."""
    import torch

    found = []
    for name, learner in zip((STOCK, SPARSE), made, strict=True):
        found.append(Contender(name=f"{name}, {STEP}", call=_step(learner, cycle(rows)), tensors=_after(learner)))
        forward = _forward(learner, cycle(rows))
        found.append(Contender(name=f"{name}, {FORWARD}", call=forward))
        found.append(Contender(name=f"{name}, {BACKWARD}", call=_backward(learner, forward)))
        adam = learner.trainer.optimizer.step
        found.append(Contender(name=f"{name}, {ADAM}", call=adam, context=partial(_with_gradients, learner)))
    weight = made[0].sae.W_enc.detach()
    together = 256 if weight.device.type == "cpu" else len(rows[0])  # as the sparse form encodes
    out, chunk = torch.empty(together, weight.shape[1], device=weight.device), rows[0].split(together)

    def product() -> None:
        for part in chunk:
            torch.mm(part, weight, out=out[: len(part)])

    return [*found, Contender(name=PRODUCT, call=product)]


@contextmanager
def _with_gradients(learner: Learner) -> Iterator[None]:
    """Provide every weight with a gradient, which a step clears."""
    import torch

    for parameter in learner.sae.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    yield


def _step(learner: Learner, rows: Iterator[Tensor]) -> Callable[[], Any]:
    import torch

    def call() -> Any:
        with torch.enable_grad():
            return learner.step(next(rows))

    return call


def _after(learner: Learner) -> Callable[[Any], dict[str, Tensor]]:
    return lambda output: {"loss": output.loss.detach(), "W_dec": learner.sae.W_dec.detach()}


def _forward(learner: Learner, rows: Iterator[Tensor]) -> Callable[[], Any]:
    import torch
    from sae_lens.saes.sae import TrainStepInput

    trainer = learner.trainer

    def call() -> Any:
        with torch.enable_grad():
            inputs = TrainStepInput(
                sae_in=next(rows),
                dead_neuron_mask=trainer.dead_neurons,
                coefficients=trainer.get_coefficients(),
                n_training_steps=trainer.n_training_steps,
                is_logging_step=False,
            )
            return learner.sae.training_forward_pass(inputs)

    return call


def _backward(learner: Learner, forward: Callable[[], Any]) -> Callable[[], None]:
    def call() -> None:
        learner.trainer.optimizer.zero_grad()  # as a step does
        forward().loss.backward()

    return call


def rows_of(title: str, timing: Timing, n_tokens: int, limit: float | None) -> list[Measure]:
    """Return the ratio, tokens per second, and each part's share of its step."""
    from report import Measure

    found = [Measure.ratio(title, timing, f"{SPARSE}, {STEP}", f"{STOCK}, {STEP}", limit)]
    for name in (STOCK, SPARSE):
        step = timing.seconds[f"{name}, {STEP}"]
        seconds = timing.of(f"{name}, {STEP}")
        rates = spread([n_tokens / s for s in step])
        found.append(Measure(part=title, contender=name, over="", seconds=seconds, value=rates, unit="tokens/s"))
        forward, both, adam = (timing.seconds[f"{name}, {part}"] for part in (FORWARD, BACKWARD, ADAM))
        product = timing.seconds[PRODUCT]
        parts = {
            PRODUCT: product,
            "rest of forward": [f - p for f, p in zip(forward, product, strict=True)],
            "backward": [b - f for b, f in zip(both, forward, strict=True)],
            ADAM: adam,
            "counts and the rest": [s - b - a for s, b, a in zip(step, both, adam, strict=True)],
        }
        for part, times in parts.items():
            share = spread([100 * t / s for t, s in zip(times, step, strict=True)])
            unit = "% of its step"
            found.append(
                Measure(part=title, contender=f"{name}: {part}", over="", seconds=spread(times), value=share, unit=unit)
            )
    return found


def main(options: Options) -> None:
    """Time every SAE, print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
    check_device(options.device)
    import torch
    from contenders import check_agreement
    from report import Beginning, publish

    torch.set_num_threads(options.threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options = replace(options, device=device, rounds=min(options.rounds, 2) if options.quick else options.rounds)
    limits = {} if options.quick else LIMITS["cuda" if device.startswith("cuda") else "cpu"]
    beginning, measures, timings, agreement = Beginning.now(device), [], {}, {}
    for d_in in (16,) if options.quick else options.d_in:
        for architecture in options.architectures:
            for dead in (False, True) if options.dead and architecture == "batchtopk" else (False,):
                title = f"{architecture}, d_in {d_in}" + (", a tenth dead" if dead else "")
                rows, made = learners(architecture, d_in, options, dead)
                ways = contenders(rows, made)
                steps = [way for way in ways if way.tensors is not None]
                with torch.no_grad():
                    agreement[title] = check_agreement(steps, 1e-3)
                    timings[title] = timing = time_interleaved(
                        ways, rounds=options.rounds, device=device, seed=options.seed, progress=title
                    )
                limit = None if dead else limits.get((architecture, d_in))
                measures += rows_of(title, timing, len(rows[0]), limit)
                del ways, steps, made
    publish(options, beginning, title="One step of an SAE", measures=measures, timings=timings, agreement=agreement)


if __name__ == "__main__":
    run(main, read(Options, __doc__))
