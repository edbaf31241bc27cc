from .choice import HeadChoice, choose_head
from .combinations import HeadCombinations, head_combinations
from .probe import Probe, cross_fitted, fit_probe, fit_shared_probe, with_probe
from .ridge import RidgeHead

__all__ = [
    "HeadChoice",
    "HeadCombinations",
    "Probe",
    "RidgeHead",
    "choose_head",
    "cross_fitted",
    "fit_probe",
    "fit_shared_probe",
    "head_combinations",
    "with_probe",
]
