"""Transfer between corruptions, one model for each, all tested on all, as a run that can be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.arguments import checked
from mechvit.data.corruption_spec import Condition
from mechvit.data.mixture_spec import Mixture
from mechvit.experiment.runs.run_folder import open_run
from mechvit.experiment.runs.stages import write_tables
from mechvit.files.reading import read_object

from .inputs import local_inputs
from .preflight import Shape, preflight
from .shared_stages import Run, known_by
from .transfer_config import TransferConfig

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

PREPARED = ("finetune", "finetune_validation", "test")
"""Parts of the images that are resized once and stored in the run."""


@checked
def run_transfer(config: TransferConfig, say: Callable[[str], None] = print) -> Path:
    """Run the whole experiment, or its unfinished stages, into `config.out`.

    Folder: `models/` (ordinary Hugging Face checkpoints), `images/` (resized once), `parts/test/` (per-image tables
    under each corruption), `tables/` (Parquet: performance, transfer, transfer_means, transfer_similarity, spectra,
    training), `stages/` (records of finished stages), `config.json`, `provenance.json` and `transfer.html`.

    Args:
        config: a preset of `mechvit.experiment.transfer_config`, possibly changed.
        say: called with a line for each stage.

    Returns:
        the path of the page.

    Raises:
        ValueError, ConnectionError, PermissionError: the model or the images cannot be used; the message gives the
            reason.
    """
    shape = preflight(config.experiment(), config.tested, PREPARED)
    with open_run(config.out, "transfer between corruptions", local_inputs(config.model, config.images)) as folder:
        return _TransferRun(config, folder, say).report(shape)


class _TransferRun(Run):
    """The stages of the transfer experiment, with models for single corruptions and for mixtures."""

    def __init__(self, config: TransferConfig, folder: Path, say: Callable[[str], None]) -> None:
        super().__init__(config.experiment(), folder, say)
        self.transfer = config
        self.trained = config.trained

    def report(self, shape: Shape) -> Path:
        """Run all stages in order and return the path of the page."""
        self.base()
        self.prepare_all(PREPARED, shape)
        for key in self.trained:
            self.finetune(key)
        for corruption in self.transfer.tested:
            self.test(corruption)
        self.tables()
        return self._write_report()

    def finetune(self, key: str) -> None:
        """Fine-tune one model on one corruption or mixture."""
        what = self.trained[key]
        members = what.members if isinstance(what, Mixture) else (what,)
        self.tune(key, what, settings=[key, [member.key for member in members]], known=members)

    @cached_property
    def models(self) -> dict[str, HookedViT]:
        """All models, loaded at once so that each batch is corrupted once."""
        return {key: self.model(key) for key in ("base", *self.trained)}

    def test(self, corruption: Condition) -> None:
        """Test all models under one corruption."""
        out = self.folder / "parts" / "test" / corruption.key

        def work() -> None:
            from mechvit.analysis import corrupted_performance

            found = corrupted_performance(
                self.models,
                self.images("test"),
                [self.config.condition(corruption.key)],
                clean=False,
                batch_size=self.transfer.batch_size,
                seed=self.config.seed,
                progress=f"Tests under {corruption.title}",
            )
            write_tables(out, {"performance": found})

        self.stages.run(
            f"test/{corruption.key}",
            work,
            settings=[corruption.key, list(self.trained), self.config.seed, *known_by([corruption])],
            after=["images/test", *map(self.made, ("base", *self.trained))],
            outputs=[out],
        )

    def tables(self) -> None:
        """Write the matrix, its means, and the corruptions' spectra."""
        self.stages.run(
            "tables",
            lambda: write_tables(self.folder / "tables", self._tables()),
            settings=[list(self.trained), self.transfer.resamples, self.transfer.counts.spectrum, self.config.seed],
            after=["images/test", *(f"test/{corruption.key}" for corruption in self.transfer.tested)],
            outputs=[self.folder / "tables"],
        )

    def _tables(self) -> dict[str, pd.DataFrame]:
        import pandas as pd

        from mechvit.analysis import corruption_spectrum, spectrum_summary, transfer
        from mechvit.models.processors.image_processor import read_image_processor

        seed = self.config.seed
        some = self.images("test", self.transfer.counts.spectrum)
        processor = read_image_processor(self.checkpoint("base"))
        tested = [corruption for corruption in self.transfer.tested if corruption.family != "clean"]
        spectra = [
            (
                corruption,
                corruption_spectrum(some, self.config.condition(corruption.key), image_processor=processor, seed=seed),
            )
            for corruption in tested
        ]
        parts = [self.folder / "parts" / "test" / corruption.key for corruption in self.transfer.tested]
        performance = pd.concat([pd.read_parquet(part / "performance.parquet") for part in parts], ignore_index=True)
        found = transfer(
            performance, trained=self.trained, spectra=spectra, resamples=self.transfer.resamples, seed=seed
        )
        return {
            "performance": performance,
            "transfer": found.matrix,
            "transfer_means": found.means,
            "transfer_similarity": found.similarity,
            "spectra": spectrum_summary(spectra, resamples=self.transfer.resamples, seed=seed),
            "training": self._training(),
        }

    def _training(self) -> pd.DataFrame:
        """Return every fine-tuning's epochs: model, kept, epoch, loss, learning_rate, eval_loss, eval_accuracy."""
        import pandas as pd

        from mechvit.analysis.statistics.tidy_tables import labelled

        frames = []
        for key in self.trained:
            log = read_object(Path(self.checkpoint(key), "training_log.json"), ("epochs", "kept_epoch"))
            frame = pd.DataFrame(log["epochs"])
            frames.append(labelled(frame, {"model": key, "kept": frame["epoch"] == log["kept_epoch"]}))
        return pd.concat(frames, ignore_index=True)

    def _write_report(self) -> Path:
        """Write the page, which is quick."""
        from mechvit.experiment.runs.provenance import describe_run, seeds_of
        from mechvit.visualization.report.transfer_page import render_transfer

        seeds = {name: seed for name, seed in seeds_of(self.config).items() if name != "SAEs"}
        describe_run(self.stages, self.transfer, self.revisions, seeds | {"bootstrap": self.config.seed})
        return render_transfer(self.folder)
