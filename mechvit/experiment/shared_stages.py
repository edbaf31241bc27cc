"""The common part of all runs: folder, stages, base model, images and fine-tuned checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mechvit.data.conditions import fingerprints, parse_condition
from mechvit.data.corruption_spec import Condition
from mechvit.data.mixture_spec import Mixture
from mechvit.data.sources.class_folders import fingerprint_folder
from mechvit.data.sources.folder_source import FolderSource
from mechvit.data.sources.photos import CROPS
from mechvit.experiment.runs.stages import Stages, write_json
from mechvit.files.reading import read_object

from .config import ExperimentConfig
from .preflight import Shape, check_images

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT


def known_by(conditions: Iterable[Condition | str]) -> list[dict[str, str]]:
    """Return what a stage's settings hold of conditions besides their keys, which for most is nothing."""
    found = fingerprints(conditions)
    return [found] if found else []


class Run:
    """One run's folder, its stages, and those that produce the base, the images and the tuned models.

    A subclass runs them in its own order and adds its measurements.
    """

    def __init__(self, config: ExperimentConfig, folder: Path, say: Callable[[str], None]) -> None:
        self.config, self.folder = config, folder
        self.stages = Stages(self.folder, say, verify=config.verify, fresh=config.fresh)

    # paths and loading

    def checkpoint(self, key: str) -> str:
        if key == "base" and self.config.model is not None:
            return str(Path(self.config.model).expanduser()) if self._local_model else self.config.model
        return str(self.folder / "models" / key)

    @property
    def _local_model(self) -> bool:
        return self.config.model is not None and Path(self.config.model).expanduser().is_dir()

    def model(self, key: str) -> HookedViT:
        """Load one of the run's models, in float32 whatever its checkpoint's dtype is, so that all can be compared."""
        from .inputs import load_model

        return load_model(self.checkpoint(key), self.config.device)

    def images(self, part: str, most: int | None = None) -> datasets.Dataset:
        """Load one part of the images, or the first `most` of it."""
        import datasets

        whole = datasets.load_from_disk(str(self.folder / "images" / part))
        return whole if most is None else whole.select(range(min(most, len(whole))))

    def seeded(self, settings: Any) -> Any:
        """Return a part's settings with the run's seed added to its own."""
        from dataclasses import replace

        return replace(settings, seed=settings.seed + self.config.seed)

    @cached_property
    def revisions(self) -> dict[str, str | None]:
        """Commits of the Hub's model and images used by the run; None for those not from the Hub.

        If neither the Hub nor its cache can tell them, they are those recorded in the run's folder.
        """
        from mechvit.data.sources.hub import HubSet
        from mechvit.models.checkpoints.revisions import hub_revision

        config, kept = self.config, self.folder / "stages" / "revisions.json"
        before = read_object(kept) if kept.is_file() else {}
        named: list[tuple[str, str, Literal["model", "dataset"]]] = []
        if config.model is not None:
            named.append(("model", config.model, "model"))
        if config.images != "photos" and not config.images.startswith("folder:"):
            named.append(("images", HubSet.parse(config.images).name, "dataset"))
        found: dict[str, str | None] = {"model": None, "images": None}
        for what, name, kind in named:
            found[what] = hub_revision(name, kind) or before.get(f"{what} {name}")
        if any(found.values()):
            write_json(kept, {f"{what} {name}": found[what] for what, name, _ in named})
        return found

    # stages

    def base(self) -> None:
        """Provide the model from which all others are tuned: given, or trained here on clean images."""
        config = self.config
        if config.model is not None:
            content = fingerprint_folder(Path(self.checkpoint("base"))) if self._local_model else None
            settings = {"model": self.checkpoint("base"), "content": content}
            if self.revisions["model"] is not None:
                settings["revision"] = self.revisions["model"]
            self.stages.run("base", self._check_model, settings=settings)
            return
        shape_and_counts = [
            config.shape,
            self.seeded(config.base),
            config.count("train"),
            config.count("validation"),
            config.seed,
            CROPS,
        ]
        out = Path(self.checkpoint("base"))
        self.stages.run("base", lambda: self._train_base(out), settings=shape_and_counts, outputs=[out])

    def _check_model(self) -> None:
        """Refuse a checkpoint that cannot be analysed before hours of work depend on it."""
        from .inputs import load_classifier

        load_classifier(self.checkpoint("base"), self.config.device)

    def _train_base(self, out: Path) -> None:
        from transformers import ViTImageProcessorPil

        from mechvit.data import load_images, prepare
        from mechvit.finetuning import train_from_scratch

        config, size = self.config, self.config.shape.image_size
        processor = ViTImageProcessorPil(size={"height": size, "width": size})
        taken: dict[str, Any] = {"seed": config.seed, "image_size": size, "say": self.stages.say}
        train, validation = (
            prepare(load_images("photos", part, limit=config.count(part), **taken), processor)
            for part in ("train", "validation")
        )
        train_from_scratch(
            config.shape, train, validation, out, config=self.seeded(config.base), device=config.device, overwrite=True
        )

    def prepare_all(self, parts: Sequence[str], shape: Shape) -> None:
        """Prepare every part's images, and check that those of a Hub data set suffice, which is known only now."""
        for part in parts:
            self.prepare(part)
        if self.config.images != "photos" and not self.config.images.startswith("folder:"):
            check_images(self.config, shape, {part: len(self.images(part)) for part in parts})

    def prepare(self, part: str) -> None:
        """Resize one part's images once, with the base's image processor; the stage's key holds all its settings."""
        from mechvit.models.processors.image_processor import read_image_processor
        from mechvit.models.processors.preprocessing import all_settings

        config, out = self.config, self.folder / "images" / part
        folder = FolderSource.parse(config.images)
        settings = {
            "source": config.images,
            "content": None if folder is None else fingerprint_folder(folder.root),
            "count": config.count(part),
            "seed": config.seed,
            "bad_files": config.bad_files,
            "processor": all_settings(read_image_processor(self.checkpoint("base"))),
            "revision": self.revisions["images"],
            **(
                {"crops": CROPS}
                if config.images == "photos"
                else {"pixel_range": config.pixel_range, "unlabelled": config.unlabelled}
            ),
        }
        self.stages.run(
            f"images/{part}", lambda: self._prepare(part, out), settings=settings, after=["base"], outputs=[out]
        )

    def _prepare(self, part: str, out: Path) -> None:
        from .inputs import prepared_images, read_checkpoint

        config = self.config
        prepared_images(
            config.images,
            part,
            *read_checkpoint(self.checkpoint("base")),
            limit=config.count(part),
            seed=config.seed,
            bad_files=config.bad_files,
            pixel_range=config.pixel_range,
            unlabelled=config.unlabelled,
            say=self.stages.say,
            path=out,
        )

    def finetune(self, key: str) -> None:
        """Fine-tune one model on one condition."""
        self.tune(key, parse_condition(key), settings=[key], known=[key])

    def tune(
        self, key: str, what: Condition | Mixture, *, settings: list[Any], known: Iterable[Condition | str]
    ) -> None:
        """Fine-tune one model.

        Args:
            key: name of the model.
            what: condition, or mixture of conditions, of the training images.
            settings: names of the model and of what it is tuned on, for the stage's key.
            known: the conditions.
        """
        out, training = Path(self.checkpoint(key)), self.seeded(self.config.finetuning)

        def work() -> None:
            from mechvit.finetuning import finetune

            finetune(
                self.checkpoint("base"),
                self.images("finetune"),
                self.images("finetune_validation"),
                out,
                corruption=what,
                config=training,
                device=self.config.device,
                overwrite=True,
            )

        self.stages.run(
            f"finetune/{key}",
            work,
            settings=[*settings, training, *known_by(known)],
            after=["base", "images/finetune", "images/finetune_validation"],
            outputs=[out],
        )

    def made(self, key: str) -> str:
        """Return the name of the stage that produces a model."""
        return "base" if key == "base" else f"finetune/{key}"
