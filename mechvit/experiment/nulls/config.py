"""Kinds of null models, with the question that each answers, and the settings by which they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from mechvit.settings_checks import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE_BELOW_ONE,
    SettingError,
    check,
    check_choice,
    check_common,
    check_some,
)

NullKindName = Literal["clean", "seeds", "drift"]
ONLY_SEEDS = "for a plain task fine-tune the clean tuning is the treatment: only seeds are a null"
"""Reason why nulls tuned on clean images are refused."""


class NullKind(NamedTuple):
    """One kind of null models, in words for every place where it is shown."""

    title: str
    question: str
    """The question that a comparison with it answers."""
    made: str
    """Training of the nulls."""
    reading: str
    """Use of the nulls beside a difference of the tuned model from the base."""
    usual: int
    """Number of nulls that are made where none is given."""


KINDS: dict[str, NullKind] = {
    "clean": NullKind(
        "clean-tuned",
        "Is it more than tuning does anyway?",
        "the base tuned on clean images by the same recipe, for as many steps, from other seeds",
        "at least two give the limits within which one more clean-tuned model falls 95 times in 100",
        5,
    ),
    "seeds": NullKind(
        "seeds",
        "Would another training say the same?",
        "the same tuning from other seeds",
        "read as the difference of two of these trainings, which is centred at 0; never as tuned minus base, whose "
        "mean is the effect itself",
        5,
    ),
    "drift": NullKind(
        "matched drift",
        "Is it more than moving as far away from the base does?",
        "one trajectory of tuning on clean images, taken on until its KL divergence from the base on clean images is "
        "the tuned model's",
        "a contrast of the tuned model with it, pair by pair, without limits",
        1,
    ),
}
"""The kinds of nulls that `make_nulls` makes."""


@dataclass(frozen=True, kw_only=True)
class NullsConfig:
    """A base, a model tuned from it, the images of that tuning, and the nulls to make."""

    base: str
    """The base: a folder or Hub id of an image classifier; for seeds also a bare encoder."""
    like: str
    """The tuned model, whose training is repeated: a folder or Hub id."""
    out: str
    """Folder of the nulls; an interrupted run there is continued, and finished nulls are kept."""
    kind: NullKindName = "clean"
    """clean: the base tuned on clean images by the same recipe, for as many steps (more than tuning does anyway?);
    seeds: the same tuning from other seeds (would another training say the same?); drift: one trajectory on clean
    images, taken on until it is as far from the base as the tuned model (more than moving as far does?)."""
    count: int | None = None
    """Number of nulls; 5 by default, and for drift 1."""
    first_seed: int = 1
    """Seed of the first null; the others follow, without the tuned model's own."""
    images: str = "photos"
    """The images that the tuned model was trained on: `photos` (embedded), `folder:DIR` (a sub-folder for each class)
    or a Hub data set's id. Of these its record chooses, where it has one, else all of the part `finetune` are taken."""
    corruption: tuple[str, ...] | None = None
    """Conditions under which the tuned model was trained, where no record tells: clean, gaussian_blur_4, several for a
    mixture."""
    learning_rate: float | None = None
    """AdamW's peak learning rate, where no record tells; it falls linearly to zero."""
    epochs: int | None = None
    """Passes over the images, where no record tells."""
    batch_size: int | None = None
    """Images per step, where no record tells."""
    steps: int | None = None
    """Steps after which the tuned model's weights were saved, where no record tells; by default the last."""
    weight_decay: float | None = None
    """AdamW's weight decay, where no record tells; 0 by default."""
    warmup_fraction: float | None = None
    """Share of the steps over which the learning rate rises, where no record tells; 0 by default."""
    furthest: int = 4
    """Steps of the longest trajectory of drift, as a multiple of those that were planned for the tuned model."""
    limit: int | None = None
    """Largest number of training images; None takes as many as the record holds, else the whole part."""
    validation_limit: int = 500
    """Largest number of clean images, of the part `finetune_validation`, on which KL divergences are measured."""
    bad_files: Literal["error", "skip"] = "error"
    """Treatment of a file that cannot be read: stop and name it, or leave it out and warn."""
    pixel_range: tuple[float, float] | None = None
    """Values of black and white in pictures of more than eight bits that do not state them, for example 0 4095."""
    unlabelled: Literal["error", "skip"] = "error"
    """Treatment of images without a label: stop and count them, or leave them out and warn."""
    seed: int = 0
    """Seed of the images' parts and the crops: the one that the tuned model's training had."""
    device: str | None = None
    """Device to compute on, as in cuda:1 or cpu; CUDA by default if there is a GPU."""
    verify: bool = False
    """Read every output of finished stages again and compare its hash; otherwise only those with a new size or time."""
    fresh: bool = False
    """Start over: make every null again, including finished ones."""

    def __post_init__(self) -> None:
        check_common(self)
        check_choice(self, kind=get_args(NullKindName))
        if self.corruption is not None:
            object.__setattr__(self, "corruption", tuple(self.corruption))
            check_some(self, "corruption")
        check(self, COUNT, "count", "epochs", "steps", or_none=True)
        check(self, COUNT, "furthest")
        check(self, SEED, "first_seed")
        check(self, POSITIVE, "learning_rate", or_none=True)
        check(self, NOT_NEGATIVE, "weight_decay", or_none=True)
        check(self, SHARE_BELOW_ONE, "warmup_fraction", or_none=True)
        if self.first_seed + self.number + 1 not in SEED:
            raise SettingError("first_seed", f"must leave room for {self.number} seeds; got {self.first_seed}")

    @property
    def number(self) -> int:
        """Number of nulls."""
        return KINDS[self.kind].usual if self.count is None else self.count

    def seeds(self, own: int | None) -> tuple[int, ...]:
        """Return the seeds of the nulls, from the first on without the tuned model's own."""
        known = (seed for seed in range(self.first_seed, self.first_seed + self.number + 1) if seed != own)
        return tuple(known)[: self.number]
