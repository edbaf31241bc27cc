"""Random activations, and learners that start from the same weights, for the SAE benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from mechvit.saes.config import TrainConfig
    from mechvit.saes.training.learner import Learner


@dataclass(frozen=True)
class Batches:
    """Stream of the same batches in memory in every epoch."""

    rows: list[Tensor]

    @property
    def widths(self) -> dict[str, int]:
        """Width of the single hook point."""
        return {"drawn": self.rows[0].shape[1]}

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches."""
        return len(self.rows)

    def epoch(self, number: int) -> list[Tensor]:
        """Return all batches."""
        return self.rows

    def held_out(self) -> Iterator[Tensor]:
        """Return a few tokens: the cost of a check depends on the number that is held out."""
        return iter([self.rows[0][:256]])

    def calibration(self) -> Iterator[Tensor]:
        """Return one batch."""
        return iter(self.rows[:1])

    def about(self) -> dict[str, Any]:
        """Return an empty description."""
        return {}


def draw(d_in: int, n_batches: int, batch_size: int, *, device: str, seed: int) -> Batches:
    """Draw activations that are sums of some of 4 d_in directions, about a mean."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(4 * d_in, d_in, generator=generator)
    rows = []
    for _ in range(n_batches):
        codes = torch.rand(batch_size, 4 * d_in, generator=generator)
        rows.append((1 + (codes * (codes > 0.95)) @ directions).to(device))
    return Batches(rows)


def learner_maker(config: TrainConfig, batches: Batches, *, device: str, seed: int) -> Callable[[bool], Learner]:
    """Return a function that makes a learner of sae-lens's own SAE, or of its sparse form (`fast`) on any device.

    All start at the same weights, set once from the first batch. A step of the sparse form that falls back to the dense
    one raises a ValueError: its time would be that of stock sae-lens.
    """
    import torch

    from mechvit.saes.training.initialisation import start_from_data
    from mechvit.saes.training.learner import build

    (spec,), (d_in,) = config.saes(batches.widths), batches.widths.values()

    def fresh(fast: bool) -> Learner:
        torch.manual_seed(seed)
        settings = replace(config, fast=fast)
        learner = build(spec, d_in, len(batches.rows), settings, torch.device(device), slice(None))
        learner.trainer.activation_scaler.scaling_factor = 1.0
        return learner

    first = fresh(fast=False)
    start_from_data(first, batches.rows[0], 1.0)
    weights = {name: value.clone() for name, value in first.sae.state_dict().items()}

    def make(fast: bool) -> Learner:
        learner = fresh(fast)
        learner.sae.load_state_dict(weights)
        if fast:
            only_sparse(learner.sae, torch.device(device).type)
        return learner

    return make


def only_sparse(sae: Any, device_type: str) -> None:
    """Make an SAE use its sparse form on this kind of device, by default or not, and refuse a dense step."""
    sae.devices = (device_type,)
    forward = sae.training_forward_pass

    def checked(step_input: Any) -> Any:
        output = forward(step_input)
        if not output.feature_acts.is_sparse:
            raise ValueError(
                f"the sparse contender took a dense step on {output.sae_in.device} (autocast, a hook, settings or too "
                "many active latents): its time would be stock sae-lens's. Measure settings to which the sparse form "
                "applies."
            )
        return output

    sae.training_forward_pass = checked
