"""Null models as one run that can be interrupted at any point and continued."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN
from mechvit.experiment.inputs import check_device, local_inputs
from mechvit.experiment.runs.run_folder import open_run
from mechvit.experiment.runs.stages import Stages, plain, write_json
from mechvit.files.reading import read_object
from mechvit.settings_checks import SettingError

from .config import KINDS, NullsConfig
from .pair import check_kin, check_kind, identity, read_pair
from .recipe import STATE, Recipe, recipe_of
from .trainer_state import check_batches
from .training_sets import prepare_sets, training_set

if TYPE_CHECKING:
    import datasets

    from mechvit.finetuning.divergence import CleanDivergence

FOLDER = "null models"
LIST = "nulls.json"
"""File of a folder of nulls: base, tuned, recipe, images, divergence, and the nulls that there are."""
FINEST = 20
"""Fewest measurements of the divergence of drift within as many steps as the tuned model took."""


@checked
def make_nulls(config: NullsConfig, say: Callable[[str], None] = print) -> Path:
    """Make null models, or those that are not finished, into `config.out`.

    Folder: `KIND_SEED/` (ordinary Hugging Face checkpoints), `nulls.json` (the recipe with the source of each setting;
    kind, seed, steps and divergence of each null), `images/` and `clean/` (resized once), `measured/`, `stages/`
    (records of finished stages). Nulls of several kinds may lie in one folder, if all are of one base, one tuned model,
    one recipe and the same images.

    Args:
        config: the models, the images, and what their records do not tell.
        say: called with a line for each stage, and with an estimate of the time after the first null.

    Returns:
        the folder.

    Raises:
        ValueError, ConnectionError, PermissionError: a model or the images cannot be used, nothing tells the recipe, or
            nulls of this kind are none for such a pair; the message gives the reason.
    """
    check_device(config.device)
    recipe = recipe_of(
        config.like,
        corruption=config.corruption,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        epochs=config.epochs,
        steps=config.steps,
        weight_decay=config.weight_decay,
        warmup_fraction=config.warmup_fraction,
    )
    processor, tuned, own_head = read_pair(config)
    check_kind(config, recipe, own_head=own_head)
    if config.kind == "seeds":
        recipe.condition()  # refuses a function or a folder that is not there
    _check_images(config)
    inputs = local_inputs(config.base, config.like, config.images, *(config.corruption or ()))
    with open_run(config.out, FOLDER, inputs) as folder:
        return _NullsRun(config, recipe, processor, tuned, own_head, folder, say).make()


def _check_images(config: NullsConfig) -> None:
    """Refuse a folder without images before anything is written."""
    from mechvit.data.sources.load import count_images

    count_images(config.images, "finetune", seed=config.seed, bad_files=config.bad_files)


class _NullsRun:
    """The stages of one call: models, images, then one null after the other."""

    def __init__(
        self,
        config: NullsConfig,
        recipe: Recipe,
        processor: Any,
        tuned: Any,
        own_head: bool,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.recipe, self.folder, self.say = config, recipe, folder, say
        self.processor, self.tuned, self.own_head = processor, tuned, own_head
        self.stages = Stages(folder, say, verify=config.verify, fresh=config.fresh)
        self.pair = {"base": identity(config.base), "tuned": identity(config.like)}
        self.listed: list[dict[str, Any]] = []
        self.said_time = False
        self._divergence: CleanDivergence | None = None

    def make(self) -> Path:
        """Run all stages in order and return the folder."""
        config, kind = self.config, KINDS[self.config.kind]
        self.check_folder()
        self.stages.run("pair", lambda: check_kin(config), settings=self.pair)
        self.prepare()
        if self.recipe.sources["batch_size"] == STATE:
            check_batches(Path(config.like).expanduser() / STATE, self.recipe.batch_size, len(self.images))
        self.measure_tuned()
        seeds = config.seeds(self.recipe.seed)
        names = [f"{config.kind}_{seed}" for seed in seeds]
        self.say_plan(names)
        for name, seed in zip(names, seeds, strict=True):
            left = [each for each in names if not (self.folder / each).is_dir() and each != name]
            self.null(name, seed)
            self.write_list(name, seed)
            self.say_rest(name, left)
            gc.collect()
        self.say(f"{kind.title}: {kind.question} {kind.reading[0].upper()}{kind.reading[1:]}.")
        return self.folder

    def check_folder(self) -> None:
        """Refuse a folder with nulls of another pair or by another recipe.

        Raises:
            SettingError: says what differs.
        """
        path = self.folder / LIST
        if self.config.fresh or not path.is_file():
            return
        was, now = read_object(path, ("identity", "recipe", "nulls")), self._about()
        for name, what in (("identity", "of another base or another tuned model"), ("recipe", "by another recipe")):
            if plain(now[name]) != was[name]:
                raise SettingError("out", f"must hold nulls of one recipe, and {self.folder} has some {what}")
        self.listed = [each for each in was["nulls"] if (self.folder / each["name"]).is_dir()]

    def prepare(self) -> None:
        """Resize the images once; the stage's key holds all their settings."""
        from mechvit.data.sources.class_folders import fingerprint_folder
        from mechvit.data.sources.folder_source import FolderSource
        from mechvit.experiment.runs.provenance import revisions_of

        config, source = self.config, FolderSource.parse(self.config.images)
        names = ("images", "limit", "validation_limit", "seed", "bad_files", "pixel_range", "unlabelled")
        settings = {
            **{name: getattr(config, name) for name in names},
            "content": None if source is None else fingerprint_folder(source.root),
            "revision": revisions_of([], config.images),
            "tuned": self.pair["tuned"],
        }
        self.stages.run(
            "images",
            lambda: prepare_sets(config, self.tuned, self.processor, self.folder, self.say),
            settings=settings,
            outputs=[self.folder / "images", self.folder / "clean"],
        )

    @property
    def images(self) -> datasets.Dataset:
        """The images of the training."""
        return training_set(self.config, self.folder)

    def divergence(self) -> CleanDivergence:
        """Return the divergence from the base, whose answers are computed once."""
        import datasets

        from mechvit.finetuning.divergence import CleanDivergence

        if self._divergence is None:
            clean = datasets.load_from_disk(str(self.folder / "clean"))
            self._divergence = CleanDivergence(self.load(self.config.base), self.processor, clean)
        return self._divergence

    def load(self, checkpoint: str) -> Any:
        """Load a checkpoint in float32 as transformers' own class, on the device."""
        import torch

        from mechvit.models.checkpoints.loading import load_hf_model
        from mechvit.models.devices import device_named

        return load_hf_model(checkpoint, torch.float32).to(device_named(self.config.device))

    def measure_tuned(self) -> None:
        """Measure the tuned model's divergence from the base on the clean images, where both have the same classes."""
        path = self.folder / "measured" / "tuned.json"

        def work() -> None:
            value = self.divergence()(self.load(self.config.like)) if self.own_head else None
            write_json(path, {"divergence": value})

        self.stages.run("tuned", work, settings=self.own_head, after=["pair", "images"], outputs=[path])

    @property
    def target(self) -> float | None:
        """The tuned model's divergence from the base, in nats; None where the classes differ."""
        found: float | None = read_object(self.folder / "measured" / "tuned.json", ("divergence",))["divergence"]
        return found

    def null(self, name: str, seed: int) -> None:
        """Train one null and measure its divergence from the base."""
        config = self.config
        out, path = self.folder / name, self.folder / "measured" / f"{name}.json"
        drifts = config.kind == "drift"
        if drifts and not self.target:
            raise SettingError("like", f"{config.like} does not differ from the base on clean images: nothing to match")

        def work() -> None:
            write_json(path, self.drift(out, seed) if drifts else self.train(out, seed))

        self.stages.run(
            name,
            work,
            settings=[config.kind, seed, self.recipe.to_dict(), config.furthest if drifts else None],
            after=["pair", "images", "tuned"],
            outputs=[out, path],
        )

    def train(self, out: Path, seed: int) -> dict[str, Any]:
        """Train a null for as many steps as the tuned model, and return its steps and its divergence."""
        clean, images = self.config.kind == "clean", self.images
        recipe = self.recipe.config(len(images), seed)
        self._finetune(out, images, recipe, corruption=CLEAN if clean else self.recipe.condition())
        value = self.divergence()(self.load(str(out))) if self.own_head else None
        return {"steps": recipe.stop_step, "divergence": value, "planned_steps": recipe.planned_steps}

    def drift(self, out: Path, seed: int) -> dict[str, Any]:
        """Train on clean images until the divergence is the tuned model's, and return the step that is kept."""
        from dataclasses import replace

        from mechvit.finetuning.callbacks import KeepNearest

        images, target = self.images, self.target
        assert target is not None
        recipe = self.recipe.config(len(images), seed)
        steps, planned = recipe.stop_step or 0, recipe.planned_steps or 0
        times = self.config.furthest
        longer = replace(recipe, planned_steps=times * planned, stop_step=None, epochs=times * recipe.epochs)
        keep = KeepNearest(self.divergence(), target, max(1, steps // FINEST))
        self._finetune(out, images, longer, corruption=CLEAN, keep=keep)
        about = {"steps": keep.kept_step, "divergence": keep.value, "target": target, "reached": keep.reached}
        return {**about, "planned_steps": longer.planned_steps, "measured": keep.measured}

    def _finetune(self, out: Path, images: datasets.Dataset, recipe: Any, **more: Any) -> None:
        from mechvit.finetuning import finetune

        finetune(
            self.config.base,
            images,
            None,
            out,
            config=recipe,
            head_of=None if self.own_head else self.config.like,
            save_dtype=getattr(self.tuned, "dtype", None),
            device=self.config.device,
            overwrite=True,
            **more,
        )

    def _about(self) -> dict[str, Any]:
        """Return what all nulls of the folder have in common."""
        config = self.config
        return {
            "base": config.base,
            "tuned": config.like,
            "identity": self.pair,
            "recipe": self.recipe.to_dict(),
            "images": {"source": config.images, "part": "finetune", "seed": config.seed},
            "new_head": not self.own_head,
        }

    def write_list(self, name: str, seed: int) -> None:
        """Write the list of the nulls that there are, with the one that was finished."""
        kind, path = KINDS[self.config.kind], self.folder / "measured" / f"{name}.json"
        own = {"name": name, "kind": self.config.kind, "seed": seed, **read_object(path)}
        own |= {"title": kind.title, "question": kind.question, "made": kind.made, "reading": kind.reading}
        self.listed = [*(each for each in self.listed if each["name"] != name), own]
        about = self._about() | {"divergence_of_tuned": self.target, "training_images": len(self.images)}
        about |= {"nulls": sorted(self.listed, key=lambda each: (each["kind"], each["seed"]))}
        write_json(self.folder / LIST, about)

    def say_plan(self, names: list[str]) -> None:
        """Print what is made, by which recipe, and where each setting is from."""
        kind, count = KINDS[self.config.kind], len(self.images)
        planned, steps = self.recipe.schedule(count)
        self.say(f"{len(names)} of the kind {kind.title}: {kind.made}. {kind.question}")
        sources = {"planned_steps": "", "steps": "", **self.recipe.sources}
        for name, source in sources.items():
            value = {"planned_steps": planned, "steps": steps}.get(name, getattr(self.recipe, name))
            shown = "+".join(value) if name == "corruption" else value
            self.say(f"  {name:16} {shown}{f' ({source})' if source else ''}")

    def say_rest(self, name: str, left: list[str]) -> None:
        """Print how far a null is from the base, and about how long those take that are left."""
        from mechvit.visualization.report.provenance_rows import duration

        found, target = self.listed[-1], self.target
        if found["divergence"] is not None:
            said = f"{name}: {found['steps']} steps, KL(base | null) {found['divergence']:.4f} nats on clean images"
            self.say(f"{said} (the tuned model's is {target:.4f})")
        if not found.get("reached", True):
            self.say(f"{name}: the divergence of the tuned model was not reached; this is the furthest point")
        seconds = self.stages.records()[-1]["seconds"]
        if left and not self.said_time:
            self.said_time = True
            self.say(f"{len(left)} more: about {duration(len(left) * seconds)}")
