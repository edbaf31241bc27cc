"""Any base against any tuned models, from images to report, as one run that can be interrupted and continued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.data.conditions import PAIRED, fingerprint, parse_condition
from mechvit.data.corruption_spec import CLEAN
from mechvit.data.sources.class_folders import fingerprint_folder
from mechvit.data.sources.load import count_images
from mechvit.experiment.inputs import check_device, local_inputs
from mechvit.experiment.nulls.limits import check_null, given_nulls, measured_sections, null_facts, with_limits
from mechvit.experiment.runs.run_folder import open_run
from mechvit.experiment.runs.stages import Stages, write_json, write_tables
from mechvit.experiment.tables import joined_tables
from mechvit.files.reading import read_json, read_object, read_objects

from .checks import check_conditions, check_dictionaries, short_names
from .config import CompareConfig
from .facts import model_facts, pair_facts
from .images import ImagesName, image_settings, prepare_images
from .one_pass import OnePass
from .pair import OpenPairs
from .plan import PlannedSection, allowed_sections, plan_lines, seconds_per_pass
from .rounding import rounding

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.data.conditions import Condition

KIND = "comparison"
NO_LABELS = "the images have no labels"
"""Reason why nothing is measured that needs them."""
PAIR_FACTS = ("heads", "head_reason", "kinship", "identical", "equal_when_rounded", "pixels")
"""Facts of each pair in `comparison.json`."""


@checked
def run_comparison(config: CompareConfig, say: Callable[[str], None] = print) -> Path:
    """Run the whole comparison, or its unfinished stages, into `config.out`.

    Folder: `images/` (resized once for each input size), `parts/` (tables of each pair), `tables/` (Parquet, all pairs,
    with the tuned model's name in the column `tuned`), `views/`, `plans/` (what each pair allows), `stages/` (records
    of finished stages), `comparison.json` (models, heads, kinship, what was not measured), `config.json`,
    `provenance.json`, `report.html`.

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
        *(*config.models, *config.nulls, *config.pictures),
        *(config.images, config.unrelated, config.groups, config.cluster, *paired, *saes),
    )
    nulls = given_nulls(config.nulls, config.models[0])
    with open_run(config.out, KIND, inputs) as folder:
        return _ComparisonRun(config, folder, say, nulls).report()


class _ComparisonRun:
    """The stages of one comparison: models and images, then every section of every pair, then the report."""

    def __init__(
        self, config: CompareConfig, folder: Path, say: Callable[[str], None], nulls: dict[str, dict[str, Any]]
    ) -> None:
        self.config, self.folder, self.say = config, folder, say
        self.stages = Stages(folder, say, verify=config.verify, fresh=config.fresh)
        self.checkpoints = short_names(config.models)
        self.base, *self.tuned = self.checkpoints
        self.nulls = {f"{name}-clean" if name in self.checkpoints else name: row for name, row in nulls.items()}
        self.places = self.checkpoints | {name: row["checkpoint"] for name, row in self.nulls.items()}
        """Name -> checkpoint of all models, the nulls' too."""
        self.conditions: tuple[Condition, ...] = (CLEAN, *map(parse_condition, config.conditions))
        self.unmeasured: list[dict[str, Any]] = []
        self.done: dict[str, list[str]] = {}
        """Tuned model -> the sections that were measured."""
        self.null_parts: dict[str, list[str]] = {}
        """Null -> the sections that it was measured in."""
        self.facts: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.pictured = False
        self.pairs = OpenPairs(config, self.places, self.conditions, folder, say)

    def report(self) -> Path:
        """Run all stages in order and return the path of the report."""
        for name in self.checkpoints:
            self.model(name)
        self.prepare("images")
        if "difference" in self.config.chosen:
            self.prepare("unrelated")
        allowed = {tuned: self.plan(tuned) for tuned in self.tuned}  # of all pairs, before any is measured
        for tuned, sections in allowed.items():
            self.announce(tuned, sections)
        for tuned, sections in allowed.items():
            self.measure(tuned, sections)
        for name in self.nulls:
            self.measure_null(name)
        return self.finish()

    def model(self, name: str) -> None:
        """Check that a model can be read, before anything depends on it."""
        from mechvit.models.checkpoints.revisions import hub_revision

        checkpoint = self.places[name]
        local = Path(checkpoint).expanduser()
        content = fingerprint_folder(local) if local.is_dir() else None
        settings = {"model": checkpoint, "content": content, "revision": hub_revision(checkpoint)}
        self.stages.run(
            f"models/{name}",
            lambda: self.pairs.model(name),
            settings=[settings, self.config.model_dtype],
        )

    def prepare(self, what: ImagesName) -> None:
        """Resize images once, for every model's image processor, and say which they are; the stage's key holds all
        their settings.
        """
        outputs, fresh = [self.folder / what, self.folder / f"{what}.json"], list[bool]()

        def work() -> None:
            fresh.append(True)
            prepare_images(self.config, what, self.checkpoints, *outputs, say=self.say)

        self.stages.run(
            what,
            work,
            settings=image_settings(self.config, what, self.checkpoints),
            after=[f"models/{name}" for name in self.checkpoints],
            outputs=outputs,
        )
        for line in [] if fresh else read_json(outputs[1]):
            self.say(line)

    def plan(self, tuned: str) -> list[PlannedSection]:
        """Return the sections that one pair allows; the others are listed with the reason."""
        found = self._judged(tuned)
        self.unmeasured += found["unmeasured"]
        self.models = found["models"] | self.models
        self.facts[tuned] = found["facts"]
        return [PlannedSection(**section) for section in found["sections"]]

    def _judged(self, tuned: str) -> dict[str, Any]:
        """Return what `_planned` finds of one pair.

        What cannot be used, of the conditions and the SAEs too, is refused here. The judgement is kept as a stage of
        the run, so that a finished run loads no model.
        """
        out, config = self.folder / "plans" / f"{tuned}.json", self.config
        has_saes = "saes" in config.chosen and tuned in self.tuned
        given = self.sae_folders(tuned).values() if has_saes and not self.trains else ()
        saes = [fingerprint_folder(folder) for folder in given if folder.is_dir()]
        self.stages.run(
            f"plan/{tuned}",
            lambda: write_json(out, self._planned(tuned)),
            settings=[
                {name: config.count(name) for name in config.chosen},
                [config.head, config.quick, config.seed, config.limit],
                self._condition_keys(),
                [config.sae_training, saes] if has_saes else [],
            ],
            after=self._inputs(tuned, "difference" if "difference" in config.chosen else ""),
            outputs=[out],
        )
        return read_object(out)

    def _planned(self, tuned: str) -> dict[str, Any]:
        """Judge what one pair allows: sections, what is not measured, facts of the models and of the pair."""
        pair = self.pairs.open(tuned)
        check_conditions(pair)
        if "saes" in self.config.chosen and tuned in self.tuned:
            check_dictionaries(pair, self.config, {} if self.trains else self.sae_folders(tuned))
        sections, unmeasured = allowed_sections(self.config, pair)
        if not pair.labelled and "behaviour" in self.config.chosen:
            unmeasured = [*(("Accuracy", why) for why in self.pairs.unused[tuned] or [NO_LABELS]), *unmeasured]
        models = {name: model_facts(name, self.places[name], pair.models[place]) for place, name in self._names(tuned)}
        return {
            "sections": sections,
            "unmeasured": [{"what": what, "tuned": tuned, "why": why} for what, why in unmeasured],
            "models": models,
            "facts": pair_facts(
                pair, identical=models[self.base]["hash"] == models[tuned]["hash"], dtype=self.config.model_dtype
            ),
        }

    def announce(self, tuned: str, sections: list[PlannedSection]) -> None:
        """Print how one pair is compared, and the sections that are left to be measured, with an estimate."""
        left = self._left(tuned, sections)
        saes = not all(self.stages.is_finished(**stage) for stage in self._sae_stages(tuned))
        if not left and not saes:
            self.say(f"{tuned} against {self.base}. {self.facts[tuned]['said']} All sections were measured before.")
            return
        self.say(f"{tuned} against {self.base}. {self.facts[tuned]['said']} Sections:")
        pair = self.pairs.open(tuned)
        for line in plan_lines(left, seconds_per_pass(pair), self.config, pair, saes=saes):
            self.say(line)

    def _left(self, tuned: str, sections: list[PlannedSection]) -> list[PlannedSection]:
        """Return the sections that are not finished."""
        return [section for section in sections if not self.stages.is_finished(**self._stage(section, tuned))]

    def measure(self, tuned: str, sections: list[PlannedSection]) -> None:
        """Run the sections of one pair."""
        self._measure(tuned, sections)
        self.done[tuned] = [section.name for section in sections]
        for name, stages in {"rounding": self._rounding_stages(tuned), "saes": self._sae_stages(tuned)}.items():
            for stage in stages:
                self.stages.run(**stage)
            self.done[tuned] += [name] * bool(stages)

    def measure_null(self, name: str) -> None:
        """Measure a null exactly as the tuned models are, in the sections of these; of causes, single blocks alone."""
        self.model(name)
        check_null(name, self.places[name], self.pairs.images("images"))
        wanted = measured_sections(self.done)
        planned = [PlannedSection(**section) for section in self._judged(name)["sections"]]
        sections = [replace(each, quick=each.quick or each.name == "causes") for each in planned if each.name in wanted]
        self._measure(name, sections)
        self.null_parts[name] = [section.name for section in sections]

    def _measure(self, tuned: str, sections: list[PlannedSection]) -> None:
        """Run sections of a pair; those of the shared pass that are not finished share it."""
        from mechvit.analysis.pairs import known_kinship

        shared = OnePass({each.name: each.measure for each in self._left(tuned, sections) if each.in_pass})

        def work(section: PlannedSection) -> None:
            pair = self.pairs.open(tuned)
            with known_kinship(pair.base, pair.tuned, pair.kin):
                tables = shared.tables(section.name, pair) if section.in_pass else section.measure(pair)
            write_tables(self._part(section.name, tuned), tables)

        for section in sections:
            self.stages.run(work=partial(work, section), **self._stage(section, tuned))

    def _names(self, tuned: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """Return the place in the pair and the name of both models."""
        return (("base", self.base), ("tuned", tuned))

    def _part(self, section: str, tuned: str) -> Path:
        return self.folder / "parts" / section / tuned

    def _inputs(self, tuned: str, section: str = "") -> list[str]:
        """Return the stages that a section of one pair reads."""
        inputs = [f"models/{self.base}", f"models/{tuned}", "images"]
        return [*inputs, "unrelated"] if section == "difference" else inputs

    def _stage(self, section: PlannedSection, tuned: str) -> dict[str, Any]:
        """Return the arguments of a section's stage, but for its work."""
        config = self.config
        return {
            "name": f"{section.name}/{tuned}",
            "settings": [
                section.name,
                section.images,
                config.seed,
                config.head,
                self._condition_keys(),
                [config.recovered, config.quick] if section.name == "causes" else [],
            ],
            "after": self._inputs(tuned, section.name),
            "outputs": [self._part(section.name, tuned)],
            "output_format": section.output_format,
        }

    def _rounding_stages(self, tuned: str) -> list[dict[str, Any]]:
        """Return the arguments of the stage that measures what rounding alone changes; none without any."""
        if not self.facts[tuned]["rounds"]:
            return []
        out, both = self._part("rounding", tuned), {place: self.checkpoints[name] for place, name in self._names(tuned)}
        stage = {
            "name": f"rounding/{tuned}",
            "work": lambda: write_tables(out, rounding(self.pairs.open(tuned), self.config, both)),
            "settings": [self.config.head, self.config.seed, self.config.count("behaviour"), self._condition_keys()],
            "after": self._inputs(tuned),
            "outputs": [out],
        }
        return [stage]

    @property
    def trains(self) -> bool:
        """Whether SAEs are trained, rather than given."""
        return self.config.saes == ("train",)

    def sae_folders(self, tuned: str) -> dict[str, Path]:
        """Return the folders of the SAEs of one pair."""
        given = {} if self.trains else dict(zip(self.checkpoints, self.config.saes, strict=True))
        return {
            place: self.folder / "saes" / name if self.trains else Path(given[name]).expanduser()
            for place, name in self._names(tuned)
        }

    def _sae_stages(self, tuned: str) -> list[dict[str, Any]]:
        """Return the arguments of the stages that train SAEs, if asked to, and measure those of one pair; none where
        no SAEs are asked for."""
        from .dictionaries import saes, train_sae

        if "saes" not in self.config.chosen:
            return []
        config, names, folders = self.config, dict(self._names(tuned)), self.sae_folders(tuned)

        def train(place: str) -> None:
            pair = self.pairs.open(tuned)
            train_sae(pair.models[place], pair.fitted_on, config, folders[place], names[place])

        def measure() -> None:
            write_tables(self._part("saes", tuned), saes(self.pairs.open(tuned), count, folders))

        count, training = config.count("saes"), names if self.trains else {}
        given = [] if training else [fingerprint_folder(folder) for folder in folders.values()]
        trained = [
            {
                "name": f"sae-training/{name}",
                "work": partial(train, place),
                "settings": [config.sae_training, config.seed, self._condition_keys()],
                "after": [f"models/{name}", "images"],
                "outputs": [folders[place]],
            }
            for place, name in training.items()
        ]
        measured = {
            "name": f"saes/{tuned}",
            "work": measure,
            "settings": [count, config.head, config.seed, self._condition_keys(), given],
            "after": [*self._inputs(tuned), *(f"sae-training/{name}" for name in training.values())],
            "outputs": [self._part("saes", tuned)],
            "output_format": 2,  # with the latents that differ
        }
        return [*trained, measured]

    def _condition_keys(self) -> list[list[str | None]]:
        """Return what identifies the conditions in a stage's key."""
        return [[condition.key, fingerprint(condition)] for condition in self.conditions]

    def finish(self) -> Path:
        """Join the tables of all pairs, choose the pictures, and write the report."""
        made = [f"{name}/{tuned}" for tuned, names in (self.done | self.null_parts).items() for name in names]
        self.stages.run(
            "tables",
            lambda: write_tables(self.folder / "tables", self._joined()),
            settings=[self.done, self.null_parts] if self.nulls else self.done,
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
        """Return each table of all pairs, with the tuned model's name in the first column, and the nulls' limits."""
        found = joined_tables(self._parts(self.done), "tuned")
        if not self.nulls:
            return found
        return with_limits(found, joined_tables(self._parts(self.null_parts), "null"), len(self.nulls))

    def _parts(self, done: dict[str, list[str]]) -> dict[str, list[Path]]:
        return {tuned: [self._part(name, tuned) for name in names] for tuned, names in done.items()}

    def _pictures(self, shown: list[str]) -> None:
        import pandas as pd

        from .pictures import PicturedPair, write_pictures

        pairs = []
        for tuned in shown:
            pair = self.pairs.open(tuned)
            reading = pair.readings[0]
            pairs.append(
                PicturedPair(
                    names=(self.base, tuned),
                    behaviour=pd.read_parquet(self._part("behaviour", tuned) / "behaviour.parquet"),
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
        images = self.pairs.images("images")
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
            "nulls": null_facts(self.nulls),
            "pictured": self.pictured,
            "unmeasured": self.unmeasured,
        }
