"""Any base against any tuned models, from images to report, as one run that can be interrupted and continued."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.data.conditions import PAIRED, fingerprint, parse_condition
from mechvit.data.corruption_spec import CLEAN
from mechvit.data.sources.class_folders import fingerprint_folder
from mechvit.data.sources.load import count_images
from mechvit.experiment.inputs import check_device, local_inputs
from mechvit.experiment.runs.run_folder import open_run
from mechvit.experiment.runs.stages import Stages, write_json, write_tables
from mechvit.experiment.tables import joined_tables
from mechvit.files.reading import read_json, read_objects

from .checks import check_conditions, check_dictionaries, short_names
from .config import CompareConfig
from .facts import model_facts, number
from .images import ImagesName, image_settings, prepare_images, with_labels
from .measures import why_no_cka
from .pair import Pair, open_pair
from .plan import PlannedSection, plan_lines, planned_sections, seconds_per_pass, why_no_steering, why_not
from .rounding import equal_when_rounded, rounding, roundings

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.analysis.pairs.kinship import Kinship
    from mechvit.data.conditions import Condition

KIND = "comparison"
PAIR_FACTS = ("heads", "head_reason", "kinship", "identical", "equal_when_rounded", "pixels")
"""Facts of each pair in `comparison.json`."""


@checked
def run_comparison(config: CompareConfig, say: Callable[[str], None] = print) -> Path:
    """Run the whole comparison, or its unfinished stages, into `config.out`.

    Folder: `images/` (resized once for each input size), `parts/` (tables of each pair), `tables/` (Parquet, all pairs,
    with the tuned model's name in the column `tuned`), `views/`, `stages/` (records of finished stages),
    `comparison.json` (models, heads, kinship, what was not measured), `config.json`, `provenance.json`, `report.html`.

    Args:
        config: what to compare.
        say: called with a line for each stage, and with the plan before the first measurement.

    Returns:
        the path of the report.

    Raises:
        ValueError, ConnectionError, PermissionError: a model, the images or a condition cannot be used; the message
            gives the reason.
    """
    check_device(config.device)
    for key in config.conditions:
        parse_condition(key)
    for source in () if config.pictures else (config.images, config.unrelated):
        count_images(source, "all", seed=config.seed, bad_files=config.bad_files)
    paired = (key for key in config.conditions if key.startswith(PAIRED))
    saes = config.saes if config.saes != ("train",) else ()
    inputs = local_inputs(
        *config.models, *config.pictures, config.images, config.unrelated, config.groups, *paired, *saes
    )
    with open_run(config.out, KIND, inputs) as folder:
        return _ComparisonRun(config, folder, say).report()


class _ComparisonRun:
    """The stages of one comparison: models and images, then every section of every pair, then the report."""

    def __init__(self, config: CompareConfig, folder: Path, say: Callable[[str], None]) -> None:
        self.config, self.folder, self.say = config, folder, say
        self.stages = Stages(folder, say, verify=config.verify, fresh=config.fresh)
        self.checkpoints = short_names(config.models)
        self.base, *self.tuned = self.checkpoints
        self.conditions: tuple[Condition, ...] = (CLEAN, *map(parse_condition, config.conditions))
        self.unmeasured: list[dict[str, Any]] = []
        self.done: dict[str, list[str]] = {}
        """Tuned model -> the sections that were measured."""
        self.facts: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.kin: dict[str, Kinship] = {}
        self.pictured = False
        self._labelled: dict[str, datasets.Dataset] = {}

    def report(self) -> Path:
        """Run all stages in order and return the path of the report."""
        for name in self.checkpoints:
            self.model(name)
        self.prepare("images")
        if "difference" in self.config.chosen:
            self.prepare("unrelated")
        allowed = {tuned: self.plan(tuned) for tuned in self.tuned}  # of all pairs, before any is measured
        for tuned, sections in allowed.items():
            self.measure(tuned, sections)
        return self.finish()

    def model(self, name: str) -> None:
        """Check that a model can be read, before anything depends on it."""
        from mechvit.experiment.inputs import load_model
        from mechvit.models.checkpoints.revisions import hub_revision

        checkpoint = self.checkpoints[name]
        local = Path(checkpoint).expanduser()
        content = fingerprint_folder(local) if local.is_dir() else None
        settings = {"model": checkpoint, "content": content, "revision": hub_revision(checkpoint)}
        self.stages.run(
            f"models/{name}",
            lambda: load_model(checkpoint, self.config.device, self.config.model_dtype),
            settings=[settings, self.config.model_dtype],
        )

    def prepare(self, what: ImagesName) -> None:
        """Resize images once, for every model's image processor; the stage's key holds all their settings."""
        outputs = [self.folder / what, self.folder / f"{what}.json"]
        self.stages.run(
            what,
            lambda: prepare_images(self.config, what, self.checkpoints, *outputs, say=self.say),
            settings=image_settings(self.config, what, self.checkpoints),
            after=[f"models/{name}" for name in self.checkpoints],
            outputs=outputs,
        )

    def images(self, what: str) -> datasets.Dataset:
        import datasets

        return datasets.load_from_disk(str(self.folder / what))

    def labelled_images(self, tuned: str) -> datasets.Dataset:
        """Return the images with the class ids of a pair: the tuned model's, else the base's, else their own."""
        if tuned not in self._labelled:
            checkpoints = [self.checkpoints[tuned], self.checkpoints[self.base]]
            self._labelled[tuned] = with_labels(self.images("images"), checkpoints, self.config, self.say)
        return self._labelled[tuned]

    def plan(self, tuned: str) -> list[PlannedSection]:
        """Return the sections that one pair allows, and print them; the others are listed with the reason.

        What cannot be used, of the conditions and the SAEs too, is refused here.
        """
        pair = self.pair(tuned)
        check_conditions(pair)
        if "saes" in self.config.chosen:
            check_dictionaries(pair, self.config, {} if self.trains else self.sae_folders(tuned))
        allowed = []
        for section in planned_sections(self.config, pair):
            reason = why_not(section, pair)
            if reason is None:
                allowed.append(section)
                if (unsteered := why_no_steering(section, pair)) is not None:
                    self.unmeasured.append({"what": "steering", "tuned": tuned, "why": unsteered})
            else:
                self.unmeasured.append({"what": section.name, "tuned": tuned, "why": reason})
        self._note(tuned, pair)
        if "depth" in {section.name for section in allowed} and (why := why_no_cka(pair, self.config.count("depth"))):
            self.unmeasured.append({"what": "CKA", "tuned": tuned, "why": why})
        for condition in set(pair.conditions) - set(pair.one_image):
            why = "it shows each model an image of its own, so that nothing was exchanged or compared image by image"
            self.unmeasured.append({"what": condition.key, "tuned": tuned, "why": why})
        kin = pair.kin.reason[0].upper() + pair.kin.reason[1:]
        self.say(f"{tuned} against {self.base}. {pair.choice.sentence} {kin}. Sections:")
        for line in plan_lines(allowed, seconds_per_pass(pair), self.config, pair):
            self.say(line)
        return allowed

    def measure(self, tuned: str, sections: list[PlannedSection]) -> None:
        """Run the sections of one pair."""
        pair = self.pair(tuned)
        for section in sections:
            self.section(section, tuned, pair)
        self.done[tuned] = [section.name for section in sections]
        self.rounding(tuned, pair)
        if "saes" in self.config.chosen:
            self.dictionaries(tuned, pair)
            self.done[tuned].append("saes")
        del pair
        gc.collect()

    def pair(self, tuned: str) -> Pair:
        """Load both models, judge their kinship and choose the heads."""
        config = self.config
        unrelated = self.images("unrelated") if "difference" in config.chosen else self.images("images")
        pair = open_pair(
            self.checkpoints[self.base],
            self.checkpoints[tuned],
            self.labelled_images(tuned),
            unrelated,
            self.conditions,
            config,
            self.kin.get(tuned),
        )
        self.kin[tuned] = pair.kin
        return pair

    def _note(self, tuned: str, pair: Pair) -> None:
        """Keep the facts of a pair for the report."""
        from mechvit.models.processors.preprocessing import described, differences

        differing = differences(pair.base.image_processor, pair.tuned.image_processor)
        for name, model in ((self.base, pair.base), (tuned, pair.tuned)):
            self.models.setdefault(name, model_facts(name, self.checkpoints[name], model))
        self.facts[tuned] = {
            "heads": list(pair.choice.heads),
            "head_reason": pair.choice.reason,
            "kinship": {"value": number(pair.kin.value), "bound": number(pair.kin.bound), "reason": pair.kin.reason}
            | {"is_kin": pair.kin.is_kin},
            "identical": self.models[self.base]["hash"] == self.models[tuned]["hash"],
            "equal_when_rounded": equal_when_rounded(pair),
            "pixels": described(differing.resizing | differing.scale),
            "labelled": pair.labelled,
            "groups": pair.groups,
        }

    def section(self, section: PlannedSection, tuned: str, pair: Pair) -> None:
        """Measure one section of one pair."""
        out = self.folder / "parts" / section.name / tuned
        config = self.config
        after = [f"models/{self.base}", f"models/{tuned}", "images"]
        self.stages.run(
            f"{section.name}/{tuned}",
            lambda: write_tables(out, section.measure(pair, section.images)),
            settings=[
                section.name,
                section.images,
                config.seed,
                config.head,
                self._condition_keys(),
                [config.recovered, config.quick] if section.name == "causes" else [],
            ],
            after=[*after, "unrelated"] if section.name == "difference" else after,
            outputs=[out],
            output_format=section.output_format,
        )

    def rounding(self, tuned: str, pair: Pair) -> None:
        """Measure what rounding alone changes, where a dtype below float32 is between the models."""
        if self.models[self.base]["hash"] == self.models[tuned]["hash"] or not roundings(pair, self.config.model_dtype):
            return
        out = self.folder / "parts" / "rounding" / tuned
        both = {"base": self.checkpoints[self.base], "tuned": self.checkpoints[tuned]}
        self.stages.run(
            f"rounding/{tuned}",
            lambda: write_tables(out, rounding(pair, self.config, both)),
            settings=[self.config.head, self.config.seed, self.config.count("behaviour"), self._condition_keys()],
            after=[f"models/{self.base}", f"models/{tuned}", "images"],
            outputs=[out],
        )
        self.done[tuned].append("rounding")

    @property
    def trains(self) -> bool:
        """Whether SAEs are trained, rather than given."""
        return self.config.saes == ("train",)

    def sae_folders(self, tuned: str) -> dict[str, Path]:
        """Return the folders of the SAEs of one pair."""
        given = {} if self.trains else dict(zip(self.checkpoints, self.config.saes, strict=True))
        return {
            place: self.folder / "saes" / name if self.trains else Path(given[name]).expanduser()
            for place, name in {"base": self.base, "tuned": tuned}.items()
        }

    def dictionaries(self, tuned: str, pair: Pair) -> None:
        """Train SAEs if asked to, and measure those of one pair."""
        from .dictionaries import saes, train_sae

        config, names = self.config, {"base": self.base, "tuned": tuned}
        training, folders = self.trains, self.sae_folders(tuned)
        for place, name in names.items() if training else ():
            out, model = folders[place], pair.models[place]
            self.stages.run(
                f"sae-training/{name}",
                partial(train_sae, model, pair.fitted_on, config, out, name),
                settings=[config.sae_training, config.seed, self._condition_keys()],
                after=[f"models/{name}", "images"],
                outputs=[out],
            )
        count, out = config.count("saes"), self.folder / "parts" / "saes" / tuned
        self.stages.run(
            f"saes/{tuned}",
            lambda: write_tables(out, saes(pair, count, folders)),
            settings=[
                count,
                config.head,
                config.seed,
                self._condition_keys(),
                [] if training else [fingerprint_folder(folder) for folder in folders.values()],
            ],
            after=[
                *(f"models/{name}" for name in names.values()),
                "images",
                *(f"sae-training/{name}" for name in names.values() if training),
            ],
            outputs=[out],
            output_format=2,  # with the latents that differ
        )

    def _condition_keys(self) -> list[list[str | None]]:
        """Return what identifies the conditions in a stage's key."""
        return [[condition.key, fingerprint(condition)] for condition in self.conditions]

    def finish(self) -> Path:
        """Join the tables of all pairs, choose the pictures, and write the report."""
        made = [f"{name}/{tuned}" for tuned, names in self.done.items() for name in names]
        self.stages.run(
            "tables",
            lambda: write_tables(self.folder / "tables", self._joined()),
            settings=self.done,
            after=made,
            outputs=[self.folder / "tables"],
        )
        shown = {tuned: pair for tuned, pair in self.facts.items() if "behaviour" in self.done[tuned]}
        for tuned in set(self.facts) - set(shown) if "pictures" in self.config.chosen else ():
            self.unmeasured.append({"what": "pictures", "tuned": tuned, "why": "they are chosen by behaviour"})
        self.pictured = "pictures" in self.config.chosen and bool(shown)
        if self.pictured:
            self.stages.run(
                "pictures",
                lambda: self._pictures(list(shown)),
                settings=[list(shown), self.config.count("pictures"), self.config.seed],
                after=[*(f"behaviour/{tuned}" for tuned in shown), "images"],
                outputs=[self.folder / "views"],
                output_format=2,  # a row for each condition and group
            )
            self.unmeasured += read_objects(self.folder / "views" / "missing.json")
        return self._write_report()

    def _joined(self) -> dict[str, pd.DataFrame]:
        """Return each table of all pairs, with the tuned model's name in the first column."""
        parts = self.folder / "parts"
        return joined_tables(
            {tuned: [parts / name / tuned for name in names] for tuned, names in self.done.items()}, "tuned"
        )

    def _pictures(self, shown: list[str]) -> None:
        import pandas as pd

        from .pictures import PicturedPair, write_pictures

        pairs = []
        for tuned in shown:
            pair = self.pair(tuned)
            reading = pair.readings[0]
            pairs.append(
                PicturedPair(
                    names=(self.base, tuned),
                    behaviour=pd.read_parquet(self.folder / "parts" / "behaviour" / tuned / "behaviour.parquet"),
                    models=(pair.base, pair.tuned),
                    read=(reading.base, reading.tuned),
                    own_heads=reading.head == "own",
                    images=pair.images,
                    conditions=pair.one_image,
                    groups=pair.groups,
                )
            )
        write_pictures(self.folder / "views", pairs, count=self.config.count("pictures"), seed=self.config.seed)

    def _write_report(self) -> Path:
        """Write the report, which is quick."""
        from mechvit.experiment.runs.provenance import describe_run, revisions_of
        from mechvit.visualization.comparison.page import render_comparison

        config = self.config
        write_json(self.folder / "comparison.json", self._about())
        seeds = {"noise, folds, directions and bootstrap": config.seed}
        describe_run(self.stages, config, revisions_of(self.checkpoints.values(), config.images), seeds)
        return render_comparison(self.folder)

    def _about(self) -> dict[str, Any]:
        """Return what was compared, for the report and for other programs."""
        images = self.images("images")
        return {
            "base": self.base,
            "tuned": self.tuned,
            "models": list(self.models.values()),
            "images": {"source": self.config.images, "n": len(images), "notes": read_json(self.folder / "images.json")},
            "labelled": any(facts["labelled"] for facts in self.facts.values()),
            "labels_of": {tuned: facts["labelled"] for tuned, facts in self.facts.items()},
            "groups": list(next(iter(self.facts.values()))["groups"]),
            "conditions": [condition.key for condition in self.conditions],
            "sizes_differ": len({(row["image_size"], row["patch_size"]) for row in self.models.values()}) > 1,
            "dtype": self.config.model_dtype,
            **{name: {tuned: facts[name] for tuned, facts in self.facts.items()} for name in PAIR_FACTS},
            "pictured": self.pictured,
            "unmeasured": self.unmeasured,
        }
