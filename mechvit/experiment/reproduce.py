"""The paper from images to report, as one run that can be interrupted at any point and continued."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.arguments import checked
from mechvit.experiment.runs.run_folder import open_run
from mechvit.experiment.runs.stages import write_tables

from .config import ExperimentConfig
from .inputs import local_inputs
from .preflight import Shape, preflight
from .sae_stages import SAEStages
from .shared_stages import known_by

if TYPE_CHECKING:
    pass

PREPARED = ("finetune", "finetune_validation", "sae", "sae_validation", "test")
"""Parts of the images that are resized once and stored in the run."""


@checked
def reproduce(config: ExperimentConfig, say: Callable[[str], None] = print) -> Path:
    """Run the whole experiment, or its unfinished stages, into `config.out`.

    Folder: `models/` (ordinary Hugging Face checkpoints), `images/` (resized once), `saes/` (as
    `sae_lens.SAE.load_from_disk` opens them), `parts/` (per-image tables of each model), `tables/` (Parquet), `views/`,
    `stages/` (records of finished stages), `claims.json`, `config.json`, `provenance.json`, `features.html` (the SAEs'
    latents), `report.html` and, if requested, `figures/`.

    Args:
        config: a preset of `mechvit.experiment.config`, possibly changed.
        say: called with a line for each stage.

    Returns:
        the path of the report.

    Raises:
        ValueError, ConnectionError, PermissionError: the model or the images cannot be used, or figures cannot be
            exported; the message gives the reason.
    """
    if config.export:
        from mechvit.visualization.export.figure_files import formats_named, require_exporter

        formats_named(config.export)
        require_exporter()
    shape = preflight(config, (*config.tuned, *config.others), PREPARED)
    with open_run(config.out, "reproduction of the paper", local_inputs(config.model, config.images)) as folder:
        return _Reproduction(config, folder, say).report(shape)


class _Reproduction(SAEStages):
    """The stages of the paper, in order."""

    def __init__(self, config: ExperimentConfig, folder: Path, say: Callable[[str], None]) -> None:
        super().__init__(config, folder, say)
        self.keys = ["base", *config.keys]
        chosen = config.strongest if config.sae_models == "strongest" else config.tuned
        self.sae_keys = ["base", *(c.key for c in chosen)]

    def report(self, shape: Shape) -> Path:
        """Run all stages in order and return the path of the report."""
        self.base()
        self.prepare_all(PREPARED, shape)
        for key in self.config.keys:
            self.finetune(key)
        for key in self.keys:
            self.study(key)
        for key in self.sae_keys:
            self.train_saes(key)
            self.evaluate_saes(key)
        self.relate()
        for key in self.sae_keys[1:]:
            self.train_shared_sae(key)
            self.isolate(key)
        return self.finish()

    def study(self, key: str) -> None:
        """Study performance, logit lens and attention of one model under every corruption."""
        config = self.config
        out = self.folder / "parts" / "study" / key

        def work() -> None:
            from mechvit.analysis import study
            from mechvit.analysis.summaries import with_image_units

            tables = study(
                {key: self.model(key)},
                self.images("test"),
                config.tuned,
                attention_limit=config.count("attention"),
                seed=config.seed,
                progress=f"Study of {key}",
            )
            performance = with_image_units(tables.performance, self.images("test"))
            write_tables(out, {"performance": performance, "lens": tables.lens, "attention": tables.attention})

        self.stages.run(
            f"study/{key}",
            work,
            settings=[key, config.keys, config.count("attention"), config.seed, *known_by(config.tuned)],
            after=[self.made(key), "images/test"],
            outputs=[out],
        )

    def relate(self) -> None:
        """Test the base and the strongest models under other filters of the families; all see the same images."""
        out, related, some = self.folder / "parts" / "related", self.config.others, self.config.count("isolation")

        def work() -> None:
            from mechvit.analysis import corrupted_performance

            found = corrupted_performance(
                {key: self.model(key) for key in self.sae_keys},
                self.images("test", some),
                related,
                clean=False,
                seed=self.config.seed,
                progress="Other filters",
            )
            write_tables(out, {"related": found})

        if related:
            self.stages.run(
                "related",
                work,
                settings=[self.sae_keys, related, some, self.config.seed],
                after=["images/test", *map(self.made, self.sae_keys)],
                outputs=[out],
            )

    def isolate(self, key: str) -> None:
        """Locate a tuned model's gain over the base."""
        config, out = self.config, self.folder / "parts" / "gain" / key
        some = config.count("isolation")

        def work() -> None:
            from .gain_analysis import Isolation, isolate

            base, tuned = self.model("base"), self.model(key)
            saes = {name: self.saes(of, str(base.cfg.device)) for name, of in (("base", "base"), ("tuned", key))}
            architecture = "batchtopk" if "batchtopk" in saes["base"] else next(iter(saes["base"]))

            pair = Isolation(
                base=base,
                tuned=tuned,
                corruption=config.condition(key),
                images=self.images("test", some),
                train=self.images("finetune", some),
                held_out=self.images("finetune_validation"),
                saes={name: found[architecture] for name, found in saes.items()},
                shared=next(iter(self.saes(f"shared/{key}", str(base.cfg.device)).values())),
                seed=config.seed,
                bootstrap=config.rules.bootstrap,
            )
            write_tables(out, isolate(pair))

        self.stages.run(
            f"gain/{key}",
            work,
            settings=[key, some, config.seed, config.rules.bootstrap],
            after=[
                *map(self.made, ("base", key)),
                "saes/base",
                f"saes/{key}",
                f"saes/shared/{key}",
                "images/test",
                "images/finetune",
            ],
            outputs=[out],
        )

    def finish(self) -> Path:
        """Write the tables of all models, claims, views, provenance and the report."""
        config, folder = self.config, self.folder
        parts = [*(f"study/{key}" for key in self.keys), *(f"sae-evaluation/{key}" for key in self.sae_keys)]
        parts += [f"gain/{key}" for key in self.sae_keys[1:]]
        parts += ["related"] if config.others else []

        def tables() -> None:
            from .tables import make_tables

            make_tables(folder, self.keys, self.sae_keys, config)

        self.stages.run(
            "tables",
            tables,
            settings=[self.keys, self.sae_keys, config.rules],
            after=[*parts, *(f"saes/{key}" for key in self.sae_keys)],
            outputs=[folder / "claims.json", folder / "tables"],
            output_format=3,
        )

        def views() -> None:
            from .example_views import make_views

            shown = ["base", *(c.key for c in config.strongest)]
            models = {key: self.model(key) for key in shown}
            make_views(folder / "views", models, self.images("test"), config)

        self.stages.run(
            "views",
            views,
            settings=[config.keys, config.example_images, config.seed, *known_by(config.tuned)],
            after=[*map(self.made, self.keys), "images/test"],
            outputs=[folder / "views"],
        )
        self.features()
        gc.collect()
        return self._write_report()

    def features(self) -> None:
        """Write the page of the SAEs' latents, of the base and the models tuned on the strongest levels."""
        config, shown = self.config, ["base", *(c.key for c in self.config.strongest)]

        def work() -> None:
            from .features import write_feature_page

            some = self.images("test", config.count("sae_test"))
            write_feature_page(self.folder, {key: self.model(key) for key in shown}, some, config)

        self.stages.run(
            "features",
            work,
            settings=[config.keys, config.count("sae_test"), config.seed, *known_by(config.tuned)],
            after=[*(f"saes/{key}" for key in shown), "images/test"],
            outputs=[self.folder / "features.html"],
        )

    def _write_report(self) -> Path:
        """Write the report, which is quick."""
        from mechvit.experiment.runs.provenance import describe_run, seeds_of
        from mechvit.visualization import render_report

        describe_run(self.stages, self.config, self.revisions, seeds_of(self.config))
        report = render_report(self.folder)
        if self.config.export:
            from mechvit.visualization.export.figure_files import export_figures

            self.stages.say("figures ...")
            export_figures(self.folder, formats=self.config.export)
        return report
