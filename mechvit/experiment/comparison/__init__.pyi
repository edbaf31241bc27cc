from .compare import Comparison, compare
from .config import CompareConfig, SectionLimits
from .run import run_comparison

__all__ = ["CompareConfig", "Comparison", "SectionLimits", "compare", "run_comparison"]
