"""Formatting of numbers and lists in figures and captions."""

from __future__ import annotations


def signed(value: float, digits: int = 1) -> str:
    """Format a number with its sign and a true minus: `+1.2`, `−0.4`, `0.0`."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if any(character in "123456789" for character in text) else text[1:]


def share(value: float) -> str:
    """Format a share with a true minus and no plus: `0.83`, `−0.17`."""
    return signed(value, 2).replace("+", "")


def interval(low: float, high: float, digits: int = 1) -> str:
    """Format an interval: `−0.4 to +1.2`."""
    return f"{signed(low, digits)} to {signed(high, digits)}"


def listing(parts: list[str]) -> str:
    """Join parts: `a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
