"""Cost of training SAEs: our loop over sae-lens's `SAETrainer.fit`.

    benchmarks/sae_training.py --out runs/benchmarks/sae_training     # a small ViT's residuals, 3,072 latents
    benchmarks/sae_training.py --quick --out runs/benchmarks/quick    # does it run? seconds; its ratios mean little

The same batches in memory and the same first weights; all end at the same weights, or nothing is timed. Our loop also
logs, checks on held-out tokens (256 here) and writes a checkpoint, which `fit` does not. "stock SAE" takes sae-lens's
own classes, "sparse SAE" the sparse form of the same steps (`fast`, the default on a CPU). A value is a median over
rounds of one time over another in the same round; below 1 is more tokens a second. Leave the machine alone while it
runs. A single step, and where its time goes: sae_step.py.

OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws the ratios.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contenders import SHAPES, check_agreement
from timing import Contender, time_interleaved

from mechvit.cli.command_line import read, run
from mechvit.experiment.inputs import check_device
from mechvit.files import check_out
from mechvit.settings_checks import COUNT, THREADS, check, check_common, check_some

if TYPE_CHECKING:
    from torch import Tensor

FIT, STOCK, SPARSE = "SAETrainer.fit", "our loop, stock SAE", "our loop, sparse SAE"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    device: str | None = None
    """Device to compute on, as in cuda:0 or cpu; CUDA by default if there is a GPU."""
    threads: int = 2
    """Threads of the CPU's operators."""
    rounds: int = 10
    """Number of measurements of every contender; even is better."""
    architectures: tuple[Literal["standard", "batchtopk"], ...] = ("standard", "batchtopk")
    """The SAEs whose training is timed."""
    shape: Literal["small", "vit_b_16", "tiny"] = "small"
    """Shape of the ViT: 48 px and width 96, or ViT-B/16. Its width is the SAEs' d_in."""
    expansion_factor: int = 32
    """Latents per dimension."""
    batch_size_tokens: int = 4096
    """Tokens per training step."""
    steps: int = 10
    """Training steps in one measurement."""
    quick: bool = False
    """A tiny model, few tokens, and three rounds at most; its ratios are held against no limit."""
    seed: int = 0
    """Seed of the weights, the activations and the order of the contenders."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        check_common(self)
        check_some(self, "architectures")
        check(self, THREADS, "threads")
        check(self, COUNT, "rounds", "steps", "batch_size_tokens", "expansion_factor")


def training(architecture: str, options: Options, folder: Path) -> list[Contender]:
    """Return sae-lens's own loop and ours, on the same batches from the same weights."""
    import torch
    from sae_contenders import draw, learner_maker

    from mechvit.files import begin
    from mechvit.saes.config import TrainConfig
    from mechvit.saes.training.checkpoints import TrainingPosition
    from mechvit.saes.training.loop import Loop
    from mechvit.saes.training.training_log import Logs

    d_in, device = SHAPES[options.shape]["hidden_size"], str(options.device)
    batches = draw(d_in, options.steps, options.batch_size_tokens, device=device, seed=options.seed)
    config = TrainConfig(
        architectures=(architecture,),  # type: ignore[arg-type]
        expansion_factor=options.expansion_factor,
        k=min(32, options.expansion_factor * d_in // 32),  # few enough for the sparse form
        epochs=1,
        train_batch_size_tokens=options.batch_size_tokens,
        l1_coefficient=0.2,
    )
    begin(folder, "SAEs")
    make = learner_maker(config, batches, device=device, seed=options.seed)

    def fit() -> Any:
        trainer = make(False).trainer
        trainer.data_provider = iter(batches.rows)
        with torch.enable_grad():
            return trainer.fit()

    def ours(fast: bool) -> Any:
        learner = make(fast)
        loop = Loop([learner], batches, config, folder, Logs(folder), 1000, 20)
        with torch.enable_grad():
            loop.run(TrainingPosition(), None)
        return learner.sae

    def tensors(sae: Any) -> dict[str, Tensor]:
        return {"W_dec": sae.W_dec.detach(), "b_dec": sae.b_dec.detach()}

    return [
        Contender(name=FIT, call=fit, tensors=tensors),
        Contender(name=STOCK, call=lambda: ours(fast=False), tensors=tensors),
        Contender(name=SPARSE, call=lambda: ours(fast=True), tensors=tensors),
    ]


def main(options: Options) -> None:
    """Time each part, print the table and write it."""
    check_out(options.out, "benchmark", overwrite=options.overwrite, flag="--overwrite")
    check_device(options.device)
    import torch
    from report import Beginning, Measure, publish

    if options.quick:
        options = replace(
            options, shape="tiny", rounds=min(options.rounds, 3), expansion_factor=4, batch_size_tokens=256, steps=4
        )
    torch.set_num_threads(options.threads)
    options = replace(options, device=options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    beginning = Beginning.now(options.device)
    measures, timings, agreement = [], {}, {}
    for architecture in options.architectures:
        title = f"training, {architecture}"
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            contenders = training(architecture, options, Path(folder))
            agreement[title] = check_agreement(contenders, 1e-3)
            timings[title] = timing = time_interleaved(
                contenders, rounds=options.rounds, device=str(options.device), seed=options.seed, progress=title
            )
        limit = None if options.quick else 1.0
        measures += [Measure.ratio(title, timing, name, FIT, limit) for name in (STOCK, SPARSE)]
    publish(options, beginning, title="Cost of training SAEs", measures=measures, timings=timings, agreement=agreement)


if __name__ == "__main__":
    run(main, read(Options, __doc__))
