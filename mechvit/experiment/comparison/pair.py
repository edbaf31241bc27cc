"""Two loaded models, the heads through which they are read, and the images that they are shown."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.experiment.inputs import load_model

from .config import CompareConfig
from .images import ImagesName, with_labels

if TYPE_CHECKING:
    import datasets

    from mechvit.analysis.heads.choice import HeadChoice
    from mechvit.analysis.pairs.kinship import Kinship
    from mechvit.data.conditions import Condition
    from mechvit.models import HookedViT


@dataclass(frozen=True, kw_only=True)
class ReadPair:
    """Both models with heads of the same classes."""

    head: str
    """`own`, `tuned` or `probe`."""
    base: HookedViT
    tuned: HookedViT

    @property
    def models(self) -> dict[str, HookedViT]:
        """Both models by their place in the comparison."""
        return {"base": self.base, "tuned": self.tuned}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A base and one tuned model, as every section takes them."""

    base: HookedViT
    """The base as it was loaded, with or without a head."""
    tuned: HookedViT
    kin: Kinship
    choice: HeadChoice
    images: datasets.Dataset
    """Images that are shown, with class ids; labels are -1 where there are none."""
    unrelated: datasets.Dataset
    """Images of another kind, for the difference lens."""
    asked_for: tuple[Condition, ...]
    """Conditions as they were asked for, clean first."""
    groups: tuple[str, ...] = ()
    """Columns of the images by which behaviour is tabled, too."""
    batch_size: int | None = None
    seed: int = 0
    recovered: float = 0.9
    most: int = 10_000
    """Largest number of images whose predictions are compared."""
    quick: bool = False
    """Whether what is dear is left out: CKA, and the directions of weight changes."""
    bootstrap: dict[str, Any] = field(default_factory=lambda: {"resamples": 2000, "level": 0.95, "seed": 0})
    """Arguments resamples, level and seed of every interval."""

    @cached_property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return bool(len(self.images)) and min(self.images["label"][:]) >= 0

    @cached_property
    def readings(self) -> tuple[ReadPair, ...]:
        """Both models with each head that was chosen; a probe is fitted on `fitted_on`, one for both where
        they are kin and their heads would read alike."""
        return tuple(self._read(head) for head in self.choice.heads)

    def _read(self, head: str) -> ReadPair:
        from mechvit.analysis import fit_shared_probe, with_probe
        from mechvit.analysis.heads.probe import read_alike
        from mechvit.models import graft_head

        if head == "own":
            return ReadPair(head=head, base=self.base, tuned=self.tuned)
        if head == "tuned":
            return ReadPair(head=head, base=graft_head(self.base, self.tuned), tuned=self.tuned)
        shared = self.kin.is_kin and read_alike(self.models)  # else their features have no basis in common
        groups = [self.models] if shared else [{name: model} for name, model in self.models.items()]
        probed: dict[str, HookedViT] = {}
        for models in groups:
            probe = fit_shared_probe(models, self.fitted_on, progress="Shared probe", **self.asked)
            probed |= {name: with_probe(model, probe) for name, model in models.items()}
        return ReadPair(head=head, **probed)

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """Conditions, clean first; an attack that names no model attacks the base, and each its model's first head."""
        return tuple(self._bound(condition) for condition in self.asked_for)

    def _bound(self, condition: Condition) -> Condition:
        from mechvit.data.conditions import Attack

        if not isinstance(condition, Attack) or condition.victim == "self" or not self.readings:
            return condition
        victim = condition.victim or "base"
        model = self.readings[0].models[victim]
        return replace(condition, victim=victim).against(model, uses_labels=self.labelled)

    @property
    def no_probe(self) -> str | None:
        """Reason why no probe can be fitted on the images; None where one can."""
        return why_no_probe(self.images, self.most)

    @property
    def one_image(self) -> tuple[Condition, ...]:
        """Conditions under which both models are shown the same image: all but an attack on each itself."""
        return tuple(each for each in self.conditions if getattr(each, "victim", "") != "self")

    @property
    def models(self) -> dict[str, HookedViT]:
        """The models as they were loaded, by their place in the comparison."""
        return {"base": self.base, "tuned": self.tuned}

    @property
    def encoders(self) -> dict[str, HookedViT]:
        """The models to run where any head is read: as loaded or, under an attack, those that it knows."""
        from mechvit.data.conditions import Attack

        attacked = any(isinstance(condition, Attack) for condition in self.conditions)
        return self.readings[0].models if attacked else self.models

    @cached_property
    def _halves(self) -> tuple[datasets.Dataset, datasets.Dataset]:
        from mechvit.analysis.held_out_split import split_images

        return split_images(self.images, 0.5, seed=self.seed)

    @property
    def apart(self) -> datasets.Dataset:
        """The other half of the images."""
        return self._halves[1]

    @property
    def fitted_on(self) -> datasets.Dataset:
        """Half of the images, on which a shared probe is fitted and SAEs are trained."""
        return self._halves[0]

    def first(self, count: int, head: str | None = None) -> datasets.Dataset:
        """Return the first images; for models with a probe, of those that it was not fitted on."""
        images = self._halves[1] if head == "probe" else self.images
        return images.select(range(min(count, len(images))))

    @property
    def asked(self) -> dict[str, Any]:
        """Arguments that every streamed analysis takes."""
        return {"batch_size": self.batch_size, "seed": self.seed}

    def unmet(self, quantity: str) -> str | None:
        """Return the reason why a quantity cannot be measured here; None where it can."""
        from mechvit.analysis.requirements import unmet

        shared = bool(self.choice.heads) and self.choice.heads != ("own",)
        return unmet(quantity, self.base, self.tuned, kin=self.kin, shared_head=shared)


def why_no_probe(images: datasets.Dataset, most: int) -> str | None:
    """Return the reason why no cross-fitted probe can be fitted on the first images; None where one can."""
    from mechvit.analysis.heads.probe import FOLDS

    labels = images["label"][: min(most, len(images))]
    if not labels or min(labels) < 0:
        return "the images have no labels to fit a probe on"
    if len(labels) < 2 * FOLDS:
        return f"a probe needs at least {2 * FOLDS} images, and there are {len(labels)}"
    return None if len(set(labels)) > 1 else "a probe needs images of several classes, and all are of one"


def open_pair(
    base: HookedViT,
    tuned: HookedViT,
    images: datasets.Dataset,
    unrelated: datasets.Dataset,
    conditions: tuple[Condition, ...],
    config: CompareConfig,
    kin: Kinship | None = None,
) -> Pair:
    """Judge the kinship of two models, unless it is given, and choose their heads.

    Raises:
        ValueError: a head was asked for that cannot be had.
    """
    from mechvit.analysis import choose_head, kinship
    from mechvit.data import group_columns

    kin = kin or kinship(base, tuned)
    most = config.count("behaviour")
    labelled = bool(len(images)) and min(images["label"][:]) >= 0
    return Pair(
        base=base,
        tuned=tuned,
        kin=kin,
        choice=choose_head(
            base, tuned, labels=labelled, asked=config.head, kin=kin, no_probe=why_no_probe(images, most)
        ),
        images=images,
        unrelated=unrelated,
        asked_for=conditions,
        groups=tuple(group_columns(images)) if config.groups is not None else (),
        batch_size=config.batch_size,
        seed=config.seed,
        recovered=config.recovered,
        quick=config.quick,
        most=most,
        bootstrap={"resamples": 2000, "level": 0.95, "seed": config.seed},
    )


class OpenPairs:
    """The pairs of a comparison: the base and one tuned model stay in memory, and the pair that was opened last.

    Args:
        config: settings of the comparison.
        checkpoints: name -> checkpoint of every model, the base first.
        conditions: conditions as they were asked for, clean first.
        folder: the run's folder, with its images.
        say: called with a line wherever the images' classes cannot be used.
    """

    def __init__(
        self,
        config: CompareConfig,
        checkpoints: Mapping[str, str],
        conditions: tuple[Condition, ...],
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.checkpoints, self.conditions = config, checkpoints, conditions
        self.folder, self.say = folder, say
        self.base = next(iter(checkpoints))
        self.unused: dict[str, list[str]] = {}
        """Tuned model -> why its pair cannot use the images' classes."""
        self._models: dict[str, HookedViT] = {}
        self._kin: dict[str, Kinship] = {}
        self._labelled: dict[str, datasets.Dataset] = {}
        self._last: tuple[str, Pair] | None = None

    def model(self, name: str) -> HookedViT:
        """Return a model, loaded unless it is in memory."""
        if name not in self._models:
            for other in set(self._models) - {self.base} if name != self.base else ():
                del self._models[other]
                self._last = None
                gc.collect()
            self._models[name] = load_model(self.checkpoints[name], self.config.device, self.config.model_dtype)
        return self._models[name]

    def images(self, what: ImagesName) -> datasets.Dataset:
        """Return the images of the run's folder, with classes of their own."""
        import datasets

        return datasets.load_from_disk(str(self.folder / what))

    def open(self, tuned: str) -> Pair:
        """Return both models with their kinship and their heads, opened unless this pair was the last."""
        if self._last is not None and self._last[0] == tuned:
            return self._last[1]
        unrelated = self.images("unrelated" if "difference" in self.config.chosen else "images")
        own, base = self.model(tuned), self.model(self.base)
        images, kin = self._with_labels(tuned), self._kin.get(tuned)
        pair = open_pair(base, own, images, unrelated, self.conditions, self.config, kin)
        self._kin[tuned], self._last = pair.kin, (tuned, pair)
        return pair

    def _with_labels(self, tuned: str) -> datasets.Dataset:
        """Return the images with the class ids of a pair: the tuned model's, else the base's, else their own."""
        if tuned not in self._labelled:
            checkpoints, said = [self.checkpoints[tuned], self.checkpoints[self.base]], list[str]()
            self._labelled[tuned] = with_labels(self.images("images"), checkpoints, self.config, said.append)
            for line in said:
                self.say(line)
            self.unused[tuned] = said
        return self._labelled[tuned]
