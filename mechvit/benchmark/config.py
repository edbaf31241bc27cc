"""Plans of the benchmark: bases, null pairs and plants, in a light module that imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from mechvit.settings_checks import COUNT, COUNT_OR_ZERO, check

EVERYWHERE = (
    "activation patching",
    "attribution patching",
    "weight swapping",
    "weight change",
    "attention entropy",
    "CKA",
    "logit lens",
    "difference lens",
)
"""Methods that read every pair."""
COSTLY = ("smallest set",)
"""Methods that read the pairs of one base a shape, plants at the largest strength alone."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkPlan:
    """The models that are made, and what is planted in them."""

    shapes: tuple[str, ...] = ("vit", "ijepa")
    """Shapes of the bases: vit reads its CLS token, ijepa has none and reads the mean of the patches."""
    base_seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the bases, each trained from scratch."""
    image_size: int = 32
    d_model: int = 32
    n_layers: int = 4
    n_heads: int = 4
    d_mlp: int = 64
    train: int = 950
    """Images that a base is trained on; crops of the embedded photographs."""
    tune: int = 380
    """Images of a clean tuning."""
    test: int = 95
    """Images on which strength is measured and methods read."""
    base_epochs: int = 10
    tune_epochs: int = 2
    nulls: int = 5
    """Null pairs of a base: it and a clean tuning, each from another seed."""
    changes: tuple[str, ...] = ("head_queries_permuted", "ln_gains", "class_projected_out")
    """Kinds planted that change the function."""
    nothings: tuple[str, ...] = ("qk_rotation",)
    """Kinds planted that change no function."""
    layers: tuple[int, ...] = (1, 3)
    """Blocks in which changes are planted, in turn."""
    strengths: tuple[float, ...] = (1.0, 4.0)
    first_seed: int = 100
    """Seed of the first plant; each has one of its own."""

    def __post_init__(self) -> None:
        names = ("image_size", "d_model", "n_layers", "n_heads", "d_mlp", "train", "tune", "test")
        check(self, COUNT, *names, "base_epochs", "tune_epochs", "nulls")
        check(self, COUNT_OR_ZERO, "base_seeds", "layers", "first_seed")
        if self.nulls < 3:
            raise ValueError(f"nulls must be at least 3, since each is read beside others; got {self.nulls}")


DEVELOPMENT = BenchmarkPlan(
    base_seeds=(10, 11),
    changes=("mlp_rank_one", "attn_constant"),
    nothings=(),
    layers=(0, 2),
    first_seed=0,
)
"""The plants on which readings are chosen: kinds, blocks and seeds that no test plant has."""
QUICK = BenchmarkPlan()
"""Test plants of the quick benchmark."""
WHOLE = BenchmarkPlan(
    base_seeds=(0, 1, 2, 3, 4),
    image_size=48,
    d_model=96,
    n_layers=6,
    n_heads=3,
    d_mlp=384,
    train=2850,
    tune=950,
    test=190,
    base_epochs=15,
    nothings=("qk_rotation", "head_permutation", "neuron_permutation"),
    layers=(1, 3, 5),
    strengths=(0.5, 1.0, 2.0, 4.0),
)
"""Test plants of the whole benchmark."""
PLANS = {"quick": QUICK, "whole": WHOLE, "development": DEVELOPMENT}


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Settings of a run of the benchmark."""

    out: str
    """Folder of the run; an interrupted run there is continued."""
    plan: BenchmarkPlan = field(default_factory=BenchmarkPlan)
    """Bases and plants."""
    develop: bool = False
    """Choose each method's reading on these plants, instead of reading them as was chosen before."""
    verify: bool = False
    """Read every finished output again."""
    fresh: bool = False
    """Make everything again."""
