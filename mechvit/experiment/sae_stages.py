"""Stages that train and evaluate SAEs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mechvit.experiment.runs.stages import write_tables

from .shared_stages import Run, known_by

if TYPE_CHECKING:
    from sae_lens import SAE


class SAEStages(Run):
    """Stages for each model's own SAEs, and for one SAE of base and tuned model together."""

    def train_saes(self, key: str) -> None:
        """Train the SAEs of one model's residuals."""
        config, out = self.config, self.folder / "saes" / key
        settings = self.seeded(config.saes)

        def work() -> None:
            from mechvit.saes import train_saes

            train_saes(
                self.model(key),
                self.images("sae"),
                self.images("sae_validation"),
                out,
                corruptions=config.tuned,
                config=settings,
                overwrite=True,
                progress=f"SAEs of {key}",
            )

        self.stages.run(
            f"saes/{key}",
            work,
            settings=[key, config.keys, settings, *known_by(config.tuned)],
            after=[self.made(key), "images/sae", "images/sae_validation"],
            outputs=[out],
        )

    def saes(self, key: str, device: str) -> dict[str, SAE]:
        """Load a model's SAEs, by architecture."""
        from mechvit.saes import load_sae, read_history

        folder = self.folder / "saes" / key
        return {name: load_sae(folder / name, device=device) for name in read_history(folder)["architecture"].unique()}

    def evaluate_saes(self, key: str) -> None:
        """Evaluate a model's SAEs, opened again by sae-lens: their quality and the cosines of their codes."""
        config, out = self.config, self.folder / "parts" / "saes" / key
        strongest = [c.key for c in config.strongest] if config.sae_models == "strongest" else list(config.keys)
        watched = [c for c in config.tuned if c.key in strongest]

        def work() -> None:
            from mechvit.saes import evaluate_saes

            model = self.model(key)
            saes = self.saes(key, str(model.cfg.device))
            found = evaluate_saes(
                model,
                saes,
                self.images("test", config.count("sae_test")),
                watched,
                cosine_corruptions=[c for c in watched if key in ("base", c.key)],
                seed=config.seed,
                progress=f"SAEs of {key} on test images",
            )
            tables = {"sae_quality": found.quality_frame(model=key), "sae_cosine": found.cosine_frame(model=key)}
            write_tables(out, tables)

        self.stages.run(
            f"sae-evaluation/{key}",
            work,
            settings=[key, strongest, config.count("sae_test"), config.seed, *known_by(watched)],
            after=[self.made(key), f"saes/{key}", "images/test"],
            outputs=[out],
        )

    def train_shared_sae(self, key: str) -> None:
        """Train one SAE on the base and a tuned model together, for a quarter of the epochs."""
        config, out = self.config, self.folder / "saes" / "shared" / key
        architecture = "batchtopk" if "batchtopk" in config.saes.architectures else config.saes.architectures[0]
        even = config.saes.train_batch_size_tokens + config.saes.train_batch_size_tokens % 2  # half of each model
        settings = self.seeded(
            replace(
                config.saes,
                architectures=(architecture,),
                epochs=max(1, config.saes.epochs // 4),
                train_batch_size_tokens=even,
            )
        )

        def work() -> None:
            from mechvit.saes import ImageStreams, MixedStreams, train_on

            streams = [
                ImageStreams(
                    self.model(name),
                    self.images("sae"),
                    self.images("sae_validation"),
                    corruptions=[config.condition(key)],
                    config=settings,
                )
                for name in ("base", key)
            ]
            mixed = MixedStreams(streams, batch_size=settings.train_batch_size_tokens)
            train_on(mixed, out, config=settings, overwrite=True, progress=f"SAE of base and {key}")

        self.stages.run(
            f"saes/shared/{key}",
            work,
            settings=[key, settings, *known_by([key])],
            after=[*map(self.made, ("base", key)), "images/sae", "images/sae_validation"],
            outputs=[out],
        )
