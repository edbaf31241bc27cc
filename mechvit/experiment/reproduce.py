"""The paper from images to report, as one run that can be cut off anywhere and continued."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ExperimentConfig
from .stages import Stages, fingerprint_folder, write_json

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT

PREPARED = ("finetune", "finetune_validation", "sae", "sae_validation", "test")
"""The parts of the images that are resized once and kept in the run."""


def reproduce(config: ExperimentConfig, say: Callable[[str], None] = print) -> Path:
    """Run the whole experiment into `config.out`, or what is left of it.

    Folder: `models/` (ordinary Hugging Face checkpoints), `images/` (resized once), `saes/` (as
    `sae_lens.SAE.load_from_disk` opens them), `parts/` (per-image tables of each model), `tables/` (Parquet),
    `views/`, `stages/` (what is done), `claims.json`, `config.json`, `provenance.json`, `features.html` (the SAEs'
    latents), `report.html` and, where asked for, `figures/`.

    Args:
        config: a preset of `mechvit.experiment.config`, or one with changes.
        say: gets a line for each stage.

    Returns:
        the report.

    Raises:
        ValueError, ConnectionError, PermissionError: a model or images that cannot be used, or figures that cannot be
            exported; the message says why.
    """
    if config.export:
        from mechvit.visualization.export import formats_named, require_exporter

        formats_named(config.export)
        require_exporter()
    return _Run(config, say).report()


class _Run:
    """One run's folder, its stages, and what they share."""

    def __init__(self, config: ExperimentConfig, say: Callable[[str], None]) -> None:
        self.config, self.folder = config, Path(config.out)
        self.stages = Stages(self.folder, say)
        self.keys = ["base", *config.corruptions]
        chosen = config.strongest if config.sae_models == "strongest" else config.tuned
        self.sae_keys = ["base", *(c.key for c in chosen)]

    def report(self) -> Path:
        """Go through all stages in order."""
        self.base()
        for part in PREPARED:
            self.prepare(part)
        for key in self.config.corruptions:
            self.finetune(key)
        for key in self.keys:
            self.study(key)
        for key in self.sae_keys:
            self.train_saes(key)
            self.evaluate_saes(key)
        return self.finish()

    # where things lie

    def checkpoint(self, key: str) -> str:
        if key == "base" and self.config.model is not None:
            return str(Path(self.config.model).expanduser()) if self._local_model else self.config.model
        return str(self.folder / "models" / key)

    @property
    def _local_model(self) -> bool:
        return self.config.model is not None and Path(self.config.model).expanduser().is_dir()

    def model(self, key: str) -> HookedViT:
        from mechvit.models import HookedViT

        return HookedViT.from_pretrained(self.checkpoint(key), device=self.config.device)

    def images(self, part: str) -> datasets.Dataset:
        import datasets

        return datasets.load_from_disk(str(self.folder / "images" / part))

    def seeded(self, settings: Any) -> Any:
        """A part's settings with the run's seed added to its own."""
        from dataclasses import replace

        return replace(settings, seed=settings.seed + self.config.seed)

    # stages

    def base(self) -> None:
        """The model that all others are tuned from: given, or trained here on clean images."""
        config = self.config
        if config.model is not None:
            content = fingerprint_folder(Path(self.checkpoint("base"))) if self._local_model else None
            self.stages.run("base", self._check_model, settings={"model": self.checkpoint("base"), "content": content})
            return
        settings = [
            config.shape, self.seeded(config.base), config.count("train"), config.count("validation"), config.seed
        ]  # fmt: skip
        out = Path(self.checkpoint("base"))
        self.stages.run("base", lambda: self._train_base(out), settings=settings, outputs=[out])

    def _check_model(self) -> None:
        """Refuse a checkpoint that cannot be analysed before hours of work rest on it."""
        from .command_line import load_classifier

        load_classifier(self.checkpoint("base"), self.config.device)

    def _train_base(self, out: Path) -> None:
        from transformers import ViTImageProcessorPil

        from mechvit.data import load_images, prepare
        from mechvit.finetuning import train_from_scratch

        config, size = self.config, self.config.shape.image_size
        processor = ViTImageProcessorPil(size={"height": size, "width": size})
        train, validation = (
            prepare(load_images("photos", part, limit=config.count(part), seed=config.seed, image_size=size), processor)
            for part in ("train", "validation")
        )
        train_from_scratch(config.shape, train, validation, out, config=self.seeded(config.base), device=config.device)

    def prepare(self, part: str) -> None:
        """Resize one part's images once."""
        config, out = self.config, self.folder / "images" / part
        folder = config.images.removeprefix("folder:")
        settings = {
            "source": config.images,
            "content": fingerprint_folder(Path(folder).expanduser()) if folder != config.images else None,
            "count": config.count(part),
            "seed": config.seed,
            "bad_files": config.bad_files,
        }
        self.stages.run(
            f"images/{part}", lambda: self._prepare(part, out), settings=settings, after=["base"], outputs=[out]
        )

    def _prepare(self, part: str, out: Path) -> None:
        from .command_line import prepared_images, read_checkpoint

        config = self.config
        prepared_images(
            config.images,
            part,
            *read_checkpoint(self.checkpoint("base")),
            limit=config.count(part),
            seed=config.seed,
            bad_files=config.bad_files,
            path=out,
        )

    def finetune(self, key: str) -> None:
        """One model for one corruption."""
        from mechvit.data.spec import Corruption

        out, settings = Path(self.checkpoint(key)), self.seeded(self.config.finetuning)

        def work() -> None:
            from mechvit.finetuning import finetune

            finetune(
                self.checkpoint("base"),
                self.images("finetune"),
                self.images("finetune_validation"),
                out,
                corruption=Corruption.parse(key),
                config=settings,
                device=self.config.device,
            )

        self.stages.run(
            f"finetune/{key}",
            work,
            settings=[key, settings],
            after=["base", "images/finetune", "images/finetune_validation"],
            outputs=[out],
        )

    def _made(self, key: str) -> str:
        """The stage that makes a model."""
        return "base" if key == "base" else f"finetune/{key}"

    def study(self, key: str) -> None:
        """Performance, logit lens and attention of one model under every corruption."""
        config = self.config
        out = self.folder / "parts" / "study" / key
        outputs = [out / f"{name}.parquet" for name in ("performance", "lens", "attention")]

        def work() -> None:
            from mechvit.analysis import study

            tables = study(
                {key: self.model(key)},
                self.images("test"),
                config.tuned,
                attention_limit=config.count("attention"),
                seed=config.seed,
                progress=f"Study of {key}",
            )
            write_tables(out, {name: getattr(tables, name) for name in ("performance", "lens", "attention")})

        self.stages.run(
            f"study/{key}",
            work,
            settings=[key, config.corruptions, config.count("attention"), config.seed],
            after=[self._made(key), "images/test"],
            outputs=outputs,
        )

    def train_saes(self, key: str) -> None:
        """The SAEs of one model's residuals."""
        config, out = self.config, self.folder / "saes" / key
        settings = self.seeded(config.saes)

        def work() -> None:
            from mechvit.saes import train_saes

            train_saes(
                self.model(key),
                self.images("sae"),
                self.images("sae_validation"),
                out,
                corruptions=config.tuned,
                config=settings,
                overwrite=True,
                progress=f"SAEs of {key}",
            )

        self.stages.run(
            f"saes/{key}",
            work,
            settings=[key, config.corruptions, settings],
            after=[self._made(key), "images/sae", "images/sae_validation"],
            outputs=[out],
        )

    def evaluate_saes(self, key: str) -> None:
        """Quality of a model's SAEs, and the cosines of their codes, as opened again by stock sae-lens."""
        config, out = self.config, self.folder / "parts" / "saes" / key
        strongest = [c.key for c in config.strongest] if config.sae_models == "strongest" else list(config.corruptions)
        watched = [c for c in config.tuned if c.key in strongest]

        def work() -> None:
            from mechvit.saes import evaluate_saes, load_sae, read_history

            model, test = self.model(key), self.images("test")
            saes: dict[str, Any] = {
                name: load_sae(self.folder / "saes" / key / name, device=str(model.cfg.device))
                for name in read_history(self.folder / "saes" / key)["architecture"].unique()
            }
            found = evaluate_saes(
                model,
                saes,
                test.select(range(min(config.count("sae_test"), len(test)))),
                watched,
                cosine_corruptions=[c for c in watched if key in ("base", c.key)],
                seed=config.seed,
                progress=f"SAEs of {key} on test images",
            )
            tables = {"sae_quality": found.quality_frame(model=key), "sae_cosine": found.cosine_frame(model=key)}
            write_tables(out, tables)

        self.stages.run(
            f"sae-evaluation/{key}",
            work,
            settings=[key, strongest, config.count("sae_test"), config.seed],
            after=[self._made(key), f"saes/{key}", "images/test"],
            outputs=[out / "sae_quality.parquet", out / "sae_cosine.parquet"],
        )

    def finish(self) -> Path:
        """Tables of all models, claims, views, provenance, report."""
        config, folder = self.config, self.folder
        parts = [*(f"study/{key}" for key in self.keys), *(f"sae-evaluation/{key}" for key in self.sae_keys)]

        def tables() -> None:
            from .tables import make_tables

            make_tables(folder, self.keys, self.sae_keys, config)

        self.stages.run(
            "tables",
            tables,
            settings=[self.keys, self.sae_keys, config.rules],
            after=[*parts, *(f"saes/{key}" for key in self.sae_keys)],
            outputs=[folder / "claims.json", folder / "tables" / "performance_summary.parquet"],
        )

        def views() -> None:
            from .views import make_views

            shown = ["base", *(c.key for c in config.strongest)]
            models = {key: self.model(key) for key in shown}
            make_views(folder / "views", models, self.images("test"), config)

        self.stages.run(
            "views",
            views,
            settings=[config.corruptions, config.example_images, config.seed],
            after=[*map(self._made, self.keys), "images/test"],
            outputs=[
                folder / "views" / name
                for name in ("examples.safetensors", "attention.safetensors", "explorer.json", "lens.json")
            ],
        )
        self.features()
        gc.collect()
        return self._write_report()

    def features(self) -> None:
        """The page of the SAEs' latents: base beside the models tuned on the strongest levels."""
        config, shown = self.config, ["base", *(c.key for c in self.config.strongest)]

        def work() -> None:
            from .features import write_feature_page

            test = self.images("test")
            some = test.select(range(min(config.count("sae_test"), len(test))))
            write_feature_page(self.folder, {key: self.model(key) for key in shown}, some, config)

        self.stages.run(
            "features",
            work,
            settings=[config.corruptions, config.count("sae_test"), config.seed],
            after=[*(f"saes/{key}" for key in shown), "images/test"],
            outputs=[self.folder / "features.html"],
        )

    def _write_report(self) -> Path:
        """Always anew: it is quick, and it holds the times of all stages."""
        from mechvit.visualization import render_report

        from .provenance import provenance

        write_json(self.folder / "config.json", self.config)
        about = provenance(self.stages.records(), self.config)
        write_json(self.folder / "provenance.json", about)
        self.stages.say("report ...")
        report = render_report(self.folder)
        if self.config.export:
            from mechvit.visualization.export import export_figures

            self.stages.say("figures ...")
            export_figures(self.folder, formats=self.config.export)
        return report


def write_tables(folder: Path, tables: dict[str, Any]) -> None:
    """Write Parquet tables as one folder, beside its place, and rename it there."""
    beside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, frame in tables.items():
        frame.to_parquet(beside / f"{name}.parquet", index=False)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
