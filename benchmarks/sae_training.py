"""What training SAEs costs: our loop over sae-lens's `SAETrainer.fit`, and the image store over the bare forward pass.

    benchmarks/sae_training.py --out runs/benchmarks/sae_training     # a small ViT's residuals, 3,072 latents
    benchmarks/sae_training.py --parts store --shape vit_b_16 --images 16 --images-per-batch 8 --out runs/benchmarks/b16
    benchmarks/sae_training.py --quick --out runs/benchmarks/quick    # does it run? seconds; its ratios mean little

Training: the same batches in memory and the same first weights; all end at the same weights, or nothing is timed. Our
loop also logs, checks on held-out tokens (256 here) and writes a checkpoint, which `fit` does not. "stock SAE" takes
sae-lens's own classes, "sparse SAE" the sparse form of the same steps (`fast`, the default). The store: one pass over
prepared clean images, read, normalised, checked and mixed, over a loop of truncated forward passes on pixels that lie
ready. A value is a median over rounds of one time over another in the same round; a ratio below 1 is more tokens a
second. Leave the machine alone while it runs.

OUT/result.json holds every time, OUT/table.md the table, OUT/figure.html draws the ratios.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from contenders import SHAPES, check_agreement
from timing import Contender, time_interleaved

from mechvit.experiment.command_line import check_device, check_out, run

if TYPE_CHECKING:
    from torch import Tensor

    from mechvit.saes.learner import Learner

FIT, STOCK, SPARSE = "SAETrainer.fit", "our loop, stock SAE", "our loop, sparse SAE"
BARE, STORE = "truncated forward", "ImageActivationsStore"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of one benchmark."""

    out: str
    """Folder of the result: result.json, table.md, figure.html."""
    device: str | None = None
    """Where to compute, as in cuda:0 or cpu; by default CUDA where there is one."""
    threads: int = 2
    """Threads of the CPU's operators."""
    rounds: int = 10
    """Times that every contender is measured; even is better."""
    parts: tuple[Literal["training", "store"], ...] = ("training", "store")
    """Which comparisons."""
    architectures: tuple[Literal["standard", "batchtopk"], ...] = ("standard", "batchtopk")
    """The SAEs whose training is timed."""
    shape: Literal["small", "vit_b_16", "tiny"] = "small"
    """Of the ViT: 48 px and width 96, or ViT-B/16. Its width is the SAEs' d_in."""
    expansion_factor: int = 32
    """Latents per dimension."""
    batch_size_tokens: int = 4096
    """Tokens a training step."""
    steps: int = 10
    """Training steps in one measurement."""
    images: int = 512
    """Images that the store reads in one measurement."""
    images_per_batch: int = 64
    """Images a forward pass."""
    quick: bool = False
    """A tiny model, few tokens, and three rounds at most; its ratios are held against no limit."""
    seed: int = 0
    """Of the weights, the activations and the order of the contenders."""
    overwrite: bool = False
    """Replace an earlier result at OUT."""

    def __post_init__(self) -> None:
        counts = (self.threads, self.rounds, self.steps, self.images, self.images_per_batch, self.batch_size_tokens)
        if min(counts) < 1 or not self.parts:
            raise ValueError(f"every count must be at least 1, and parts must name one; got {counts}, {self.parts}")


@dataclass(frozen=True)
class Batches:
    """The same batches in memory in every epoch: what the trainer reads."""

    rows: list[Tensor]

    @property
    def widths(self) -> dict[str, int]:
        """One hook point."""
        return {"drawn": self.rows[0].shape[1]}

    def steps_per_epoch(self, batch_size: int) -> int:
        """All batches."""
        return len(self.rows)

    def epoch(self, number: int) -> list[Tensor]:
        """All batches."""
        return self.rows

    def held_out(self) -> Iterator[Tensor]:
        """A few tokens: what a check costs depends on how many are held out."""
        return iter([self.rows[0][:256]])

    def calibration(self) -> Iterator[Tensor]:
        """One batch."""
        return iter(self.rows[:1])

    def about(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}


def draw(options: Options, d_in: int, device: str) -> Batches:
    """Draw activations that are sums of some of 4 d_in directions, about a mean."""
    import torch

    generator = torch.Generator().manual_seed(options.seed)
    directions = torch.randn(4 * d_in, d_in, generator=generator)
    rows = []
    for _ in range(options.steps):
        codes = torch.rand(options.batch_size_tokens, 4 * d_in, generator=generator)
        rows.append((1 + (codes * (codes > 0.95)) @ directions).to(device))
    return Batches(rows)


def training(architecture: str, options: Options, folder: Path) -> list[Contender]:
    """sae-lens's own loop and ours, on the same batches from the same weights."""
    import torch

    from mechvit.saes.checkpoints import Position
    from mechvit.saes.config import TrainConfig
    from mechvit.saes.learner import build
    from mechvit.saes.logs import Logs
    from mechvit.saes.loop import Loop
    from mechvit.saes.start import start_from_data

    d_in, device = SHAPES[options.shape]["hidden_size"], str(options.device)
    streams = draw(options, d_in, device)
    config = TrainConfig(
        architectures=(architecture,),  # type: ignore[arg-type]
        expansion_factor=options.expansion_factor,
        k=min(32, options.expansion_factor * d_in // 4),
        epochs=1,
        train_batch_size_tokens=options.batch_size_tokens,
        l1_coefficient=0.2,
    )
    (spec,) = config.saes(streams.widths)

    def make(fast: bool) -> Learner:
        torch.manual_seed(options.seed)
        learner = build(spec, d_in, options.steps, replace(config, fast=fast), torch.device(device), slice(None))
        learner.trainer.activation_scaler.scaling_factor = 1.0
        return learner

    first = make(fast=False)
    start_from_data(first, streams.rows[0], 1.0)
    weights = {name: value.clone() for name, value in first.sae.state_dict().items()}

    def ready(fast: bool) -> Learner:
        learner = make(fast)
        learner.sae.load_state_dict(weights)
        return learner

    def fit() -> Any:
        trainer = ready(fast=False).trainer
        trainer.data_provider = iter(streams.rows)
        with torch.enable_grad():
            return trainer.fit()

    def ours(fast: bool) -> Any:
        learner = ready(fast)
        loop = Loop([learner], streams, config, folder, Logs(folder), 1000, 20)
        with torch.enable_grad():
            loop.run(Position(), None)
        return learner.sae

    def tensors(sae: Any) -> dict[str, Tensor]:
        return {"W_dec": sae.W_dec.detach(), "b_dec": sae.b_dec.detach()}

    return [
        Contender(name=FIT, call=fit, tensors=tensors),
        Contender(name=STOCK, call=lambda: ours(fast=False), tensors=tensors),
        Contender(name=SPARSE, call=lambda: ours(fast=True), tensors=tensors),
    ]


def store(options: Options) -> list[Contender]:
    """The image store, and nothing but forward passes as far as the penultimate residual."""
    import torch
    from contenders import make_models
    from transformers import ViTImageProcessorPil

    from mechvit.data import iter_batches, load_images, normalize, prepare
    from mechvit.saes.config import StreamConfig
    from mechvit.saes.store import ImageActivationsStore, hook_widths

    model = make_models(options.shape, 1, str(options.device), "float32", options.seed).hooked
    size = model.cfg.image_size
    model.image_processor = ViTImageProcessorPil(size={"height": size, "width": size})
    images = prepare(load_images("photos", "sae", limit=options.images, image_size=size), model.image_processor)
    device = str(options.device)
    ready = [
        normalize(batch.images, model.image_processor)
        for batch in iter_batches(images, batch_size=options.images_per_batch, device=device)
    ]
    tokens = len(images) * model.cfg.n_tokens
    config = StreamConfig(
        images_per_batch=options.images_per_batch,
        clean_fraction=1.0,
        train_batch_size_tokens=max(n for n in range(1, min(options.batch_size_tokens, tokens) + 1) if tokens % n == 0),
    )
    widths = hook_widths(model, config)

    def bare() -> list[Tensor]:
        return [model(pixels, stop_at_layer=model.cfg.n_layers - 1).flatten(0, 1) for pixels in ready]

    def stored() -> list[Tensor]:
        return list(ImageActivationsStore(model, images, corruptions=(), config=config, widths=widths))

    def tensors(found: list[Tensor]) -> dict[str, Tensor]:
        rows = torch.cat(found).double()  # in another order
        return {"mean": rows.mean(0), "norms": rows.norm(dim=1).sort().values}

    return [
        Contender(name=BARE, call=bare, tensors=tensors),
        Contender(name=STORE, call=stored, tensors=tensors),
    ]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison; the first contender is the reference."""

    title: str
    contenders: list[Contender]
    tolerance: float
    """Largest difference between what the contenders give, over the largest value."""
    limit: float
    """Largest ratio to the reference."""


def parts(options: Options, folder: Path) -> Iterator[Part]:
    """Make the comparisons that are asked for, one after the other."""
    if "training" in options.parts:
        for architecture in options.architectures:
            contenders = training(architecture, options, folder)
            yield Part(title=f"training, {architecture}", contenders=contenders, tolerance=1e-3, limit=1.0)
    if "store" in options.parts:
        yield Part(title="the store", contenders=store(options), tolerance=1e-4, limit=1.05)


def main(options: Options) -> None:
    """Time each part, print the table and write it."""
    check_out(options.out, options.overwrite, "result.json")
    check_device(options.device)
    import torch
    from report import Measure, Result, about_this_machine, load_average, markdown, write

    if options.quick:
        options = replace(
            options, shape="tiny", rounds=min(options.rounds, 3), expansion_factor=4, batch_size_tokens=256, steps=4,
            images=38, images_per_batch=19,
        )  # fmt: skip
    torch.set_num_threads(options.threads)
    options = replace(options, device=options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    load, about = load_average(), about_this_machine()
    measures, timings, agreement = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts(options, Path(folder)):
            with torch.no_grad():
                agreement[part.title] = check_agreement(part.contenders, part.tolerance)
                timings[part.title] = timing = time_interleaved(
                    part.contenders, rounds=options.rounds, device=str(options.device), seed=options.seed,
                    progress=part.title,
                )  # fmt: skip
            over = part.contenders[0].name
            measures += [
                Measure(
                    part=part.title, contender=contender.name, over=over, seconds=timing.of(contender.name),
                    value=timing.ratio(contender.name, over), limit=None if options.quick else part.limit,
                )
                for contender in part.contenders[1:]
            ]  # fmt: skip
    settings = {name: value for name, value in asdict(options).items() if name not in ("out", "overwrite")}
    result = Result(
        title="What training SAEs costs", settings=settings, measures=tuple(measures), timings=timings,
        agreement=agreement, load=(load, load_average()), **about,
    )  # fmt: skip
    written = write(result, options.out, overwrite=options.overwrite)
    print(f"\n{markdown(result)}\n{written}: {', '.join(sorted(path.name for path in written.iterdir()))}")


if __name__ == "__main__":
    run(main, tyro.cli(Options, description=__doc__))
