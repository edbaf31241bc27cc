from .corruption_error import ALEXNET_ERROR, corrupted_performance, mean_corruption_error
from .corruption_spectrum import CorruptionSpectrum, corruption_spectrum, family_bands, spectrum_summary
from .fourier_sensitivity import FourierSensitivity, fourier_sensitivity
from .spectral_distance import relabelling_p_value, spectral_distances
from .transfer import Transfer, transfer

__all__ = [
    "ALEXNET_ERROR",
    "CorruptionSpectrum",
    "FourierSensitivity",
    "Transfer",
    "corrupted_performance",
    "corruption_spectrum",
    "family_bands",
    "fourier_sensitivity",
    "mean_corruption_error",
    "relabelling_p_value",
    "spectral_distances",
    "spectrum_summary",
    "transfer",
]
