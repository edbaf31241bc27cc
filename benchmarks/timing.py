"""Interleaved timing: contenders run in the same rounds, so that the machine's drift affects all equally."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do the work."""

    name: str
    call: Callable[[], Any]
    """Function that is timed, including the release of its result."""
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    """Entered before the clock starts, left after it stops."""
    tensors: Callable[[Any], Mapping[str, Any]] | None = None
    """Function that names the tensors in the call's result that must equal those of other contenders."""
    times: int = 1
    """Number of times that one call does the work, by which its time is divided."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median of some measurements, their spread, and the uncertainty of the median."""

    median: float
    lower_quartile: float
    upper_quartile: float
    low: float | None
    high: float | None
    """The 95% confidence interval of the median (order statistics); None below 6 measurements, which bound none."""
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Summarise measurements; quartiles interpolate linearly.

    The interval is distribution-free: the i-th smallest and i-th largest value enclose the median with a probability
    of 1 - 2 P(Binomial(n, 1/2) < i), and i is the largest that keeps it at 95% or more.

    Raises:
        ValueError: no value at all.
    """
    if not values:
        raise ValueError("values must hold at least one measurement; got none. Time at least one round.")
    n, ordered = len(values), sorted(values)
    lower, median, upper = statistics.quantiles(ordered, n=4, method="inclusive") if n > 1 else ordered * 3
    outside, i = 2.0**-n, 0  # P(Binomial(n, 1/2) <= i)
    while outside <= 0.025:
        i += 1
        outside += math.comb(n, i) * 2.0**-n
    low, high = (ordered[i - 1], ordered[n - i]) if i else (None, None)
    return Spread(median=median, lower_quartile=lower, upper_quartile=upper, low=low, high=high, n=n)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Time of each contender, round by round."""

    seconds: Mapping[str, tuple[float, ...]]
    """Contender's name -> seconds per call (over its `times`), one value a round; the same position is the same round
    in all."""

    def of(self, name: str) -> Spread:
        """Return the seconds per call."""
        return spread(self.seconds[name])

    def ratio(self, name: str, over: str) -> Spread:
        """Return one contender's time over another's, paired by round."""
        return spread([a / b for a, b in zip(self.seconds[name], self.seconds[over], strict=True)])

    def difference(self, name: str, minus: str, *, scale: float = 1.0) -> Spread:
        """Return one contender's time minus another's, paired by round, in seconds times `scale`."""
        return spread([(a - b) * scale for a, b in zip(self.seconds[name], self.seconds[minus], strict=True)])


def time_interleaved(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    warmup: int = 1,
    calls: int = 1,
    device: str = "cpu",
    seed: int = 0,
    progress: str | None = None,
) -> Timing:
    """Time all contenders once in every round.

    A round's order is random and the next round's is its reverse: in each pair of rounds every contender stands before
    every other exactly once, and a linear drift cancels. Garbage is collected between rounds only.

    Args:
        contenders: with names of their own.
        rounds: measurements of each; an even number balances the order.
        warmup: calls of each before the first round.
        calls: calls in one measurement; more where one call is too short for the clock.
        device: of the work; CUDA is timed with events on its current stream, which was idle before.
        seed: of the order.
        progress: label of the progress bar; None shows none.

    Raises:
        ValueError: two contenders of one name, or no round or call.
    """
    named = {contender.name: contender for contender in contenders}
    if len(named) < len(contenders) or min(rounds, calls) < 1:
        raise ValueError(
            f"contenders must have names of their own, and rounds and calls must be at least 1; "
            f"got {[contender.name for contender in contenders]}, {rounds} rounds of {calls} calls."
        )
    from tqdm import tqdm

    seconds: dict[str, list[float]] = {name: [] for name in named}
    with tqdm(total=(rounds + 1) * len(named), desc=progress, disable=progress is None) as bar, _collected_between():
        for contender in contenders:
            with contender.context():
                for _ in range(warmup):
                    contender.call()
            bar.update()
        for order in orders(list(named), rounds, seed):
            gc.collect()
            for name in order:
                with named[name].context():
                    seconds[name].append(_measure(named[name].call, calls, device) / named[name].times)
                bar.update()
    return Timing(seconds={name: tuple(times) for name, times in seconds.items()})


def orders(names: Sequence[str], rounds: int, seed: int) -> Iterator[list[str]]:
    """Yield each round's order: a random one, its reverse, another random one, its reverse, ..."""
    generator = random.Random(seed)
    order: list[str] = []
    for index in range(rounds):
        order = order[::-1] if index % 2 else generator.sample(names, len(names))
        yield order


def _measure(call: Callable[[], Any], calls: int, device: str) -> float:
    if not device.startswith("cuda"):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls
    import torch

    with torch.cuda.device(device):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        first.record()
        for _ in range(calls):
            call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / calls  # from milliseconds


@contextlib.contextmanager
def _collected_between() -> Iterator[None]:
    """Switch automatic garbage collection off, and spare what lives already, so that `gc.collect()` is quick."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
