"""How good published SAEs are, and how far a corruption moves their codes: one stream of images, nothing kept."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.performance import score
from mechvit.analysis.stream import Images, default_batch_size, image_batches, on_cpu, pixel_values
from mechvit.data.batches import ImageBatch
from mechvit.data.spec import CLEAN, Corruption

from .results import SAECosine, SAEEvaluation, SAEQuality
from .store import token_slice

if TYPE_CHECKING:
    from sae_lens import SAE

    from mechvit.models import HookedViT


class Site(NamedTuple):
    """What an SAE reads: the residual that a block leaves, at some tokens."""

    layer: int
    tokens: str

    def __str__(self) -> str:
        return f"blocks.{self.layer}.hook_resid_post, tokens {self.tokens!r}"


def load_sae(path: str | os.PathLike[str], device: str = "cpu") -> SAE:
    """Open a published SAE with stock sae-lens.

    Raises:
        ValueError: the folder is not one that `save_inference_model` wrote.
    """
    from sae_lens import SAE

    folder = Path(path)
    missing = [name for name in ("cfg.json", "sae_weights.safetensors") if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} is not a published SAE: it lacks {' and '.join(missing)}. Give the folder of one architecture "
            "that train_saes wrote, as in saes/base/batchtopk"
        )
    return SAE.load_from_disk(folder, device=device)


def sae_site(model: HookedViT, sae: SAE, name: str = "the SAE") -> Site:
    """What an SAE reads, by its own metadata, once it is known to fit the model.

    Raises:
        ValueError: another width than the model's, a hook that the model lacks, or unknown tokens.
    """
    cfg, about = model.cfg, sae.cfg.metadata
    if sae.cfg.d_in != cfg.d_model:
        raise ValueError(f"{name} reads activations of width {sae.cfg.d_in}; the model's d_model is {cfg.d_model}")
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", str(about.hook_name))
    if not found or int(found[1]) >= cfg.n_layers:
        raise ValueError(
            f"{name} reads the hook {about.hook_name!r}; the model's are blocks.0.hook_resid_post to "
            f"blocks.{cfg.n_layers - 1}.hook_resid_post"
        )
    if about.hook_tokens not in ("all", "patches", "cls"):
        raise ValueError(
            f"{name} must say which tokens it reads, all, patches or cls, in sae.cfg.metadata.hook_tokens; "
            f"got {about.hook_tokens!r}"
        )
    return Site(int(found[1]), cast(str, about.hook_tokens))


def _shared_site(model: HookedViT, saes: Mapping[str, SAE]) -> Site:
    sites = {name: sae_site(model, sae, f"the SAE {name!r}") for name, sae in saes.items()}
    if len(set(sites.values())) != 1:
        listed = "; ".join(f"{name}: {site}" for name, site in sites.items())
        raise ValueError(f"SAEs evaluated together must read the same hook and tokens, at least one; got {listed}")
    return next(iter(sites.values()))


def evaluate_saes(
    model: HookedViT,
    saes: Mapping[str, SAE],
    images: Images,
    corruptions: Collection[Corruption | str],
    *,
    cosine_corruptions: Collection[Corruption | str] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> SAEEvaluation:
    """Measure SAEs on clean images and under each corruption, and compare their codes, in one pass over the images.

    The front of the model runs once a condition; what follows the residual runs untouched, with the tokens that the
    SAEs read set to zero, and with each SAE's reconstruction in their place.

    Args:
        model: any HookedViT; without a head only the reconstruction is measured.
        saes: by architecture; as published, they take and give raw activations.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the model's own class ids.
        corruptions: measured beside clean.
        cosine_corruptions: those of them whose codes are compared with the clean ones; None compares all.
        batch_size: images a forward pass; None takes 32 on a CPU, else 128, and at most 256 MiB of one SAE's codes.
        seed: of the noise.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: SAEs that do not fit the model or read different tokens, a `cosine_corruption` that is not among
            `corruptions`, and what `mechvit.analysis.evaluate` refuses.
    """
    measured = tuple(dict.fromkeys((CLEAN, *map(_parsed, corruptions))))
    compared = measured[1:] if cosine_corruptions is None else tuple(map(_parsed, cosine_corruptions))
    if unknown := [c.key for c in compared if c not in measured[1:]]:
        raise ValueError(f"cosine_corruptions must be among the corruptions that are measured; got {unknown} besides")
    run = _Run(model, saes, measured, compared, seed)
    return run.over(images, batch_size, progress)


def evaluate_sae(
    model: HookedViT,
    sae: SAE,
    images: Images,
    corruption: Corruption | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> SAEQuality:
    """Measure one SAE under one condition; arguments and errors as in `evaluate_saes`."""
    run = _Run(model, {"sae": sae}, (_parsed(corruption),), (), seed)
    return run.over(images, batch_size, progress).quality["sae", _parsed(corruption).key]


def sae_cosine(
    model: HookedViT,
    sae: SAE,
    images: Images,
    corruption: Corruption | str,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> SAECosine:
    """Compare the codes of each patch, clean and corrupted; arguments and errors as in `evaluate_saes`.

    Source: the paper's section 4.4. It does not say what the cosine of an empty code is; `SAECosine` does.
    """
    run = _Run(model, {"sae": sae}, (), (_parsed(corruption),), seed)
    return run.over(images, batch_size, progress).cosine["sae", _parsed(corruption).key]


def _parsed(corruption: Corruption | str) -> Corruption:
    return Corruption.parse(corruption) if isinstance(corruption, str) else corruption


def code_cosine(clean: Float[Tensor, "*token d_sae"], other: Float[Tensor, "*token d_sae"]) -> Float[Tensor, "*token"]:
    """Cosine over latents; 1 where both codes are empty, 0 where one is."""
    dot = torch.linalg.vecdot(clean, other)
    a, b = torch.linalg.vector_norm(clean, dim=-1), torch.linalg.vector_norm(other, dim=-1)
    empty = (a == 0) & (b == 0)
    cosine = dot / torch.where((a == 0) | (b == 0), 1, a * b)
    return torch.where(empty, 1, cosine).float().clamp(-1, 1)


class _Tally:
    """Float64 sums over the tokens of one SAE under one condition."""

    def __init__(self) -> None:
        from sae_lens.evals import ExplainedVarianceCalculator

        self.variance = ExplainedVarianceCalculator()
        self.relative = 0.0
        self.tokens = 0
        self.fired: Tensor | int = 0  # how often each latent did

    def add(self, x: Float[Tensor, "token d"], codes: Float[Tensor, "token d_sae"], x_hat: Tensor) -> None:
        x, x_hat = x.double(), x_hat.double()
        self.variance.add_batch(x_hat, x)
        self.relative += float(((x - x_hat).square().sum(-1) / x.square().sum(-1)).sum())
        self.fired = self.fired + (codes != 0).sum(0, dtype=torch.int32).long()  # int32 sums are three times as fast
        self.tokens += len(x)

    def metrics(self) -> tuple[float, float, float, float]:
        assert isinstance(self.fired, Tensor)
        return (
            self.variance.compute(),
            self.relative / self.tokens,
            int(self.fired.sum()) / self.tokens,
            float((self.fired == 0).double().mean()),
        )


class _Classified:
    """Right answers and nats, summed over images."""

    def __init__(self) -> None:
        self.images, self.correct, self.nats = 0, 0, 0.0

    def add(self, logits: Tensor, batch: ImageBatch) -> None:
        found = score(logits, batch.labels, batch.image_ids)
        self.images += len(batch)
        self.correct += int((found.rank == 0).sum())
        self.nats += float(found.loss.double().sum())

    def means(self) -> tuple[float, float]:
        return self.correct / self.images, self.nats / self.images


def recovered(zero: float, reconstructed: float, untouched: float) -> float:
    """(zero - reconstructed) / (zero - untouched); NaN where zero ablation changes nothing."""
    return (zero - reconstructed) / (zero - untouched) if zero != untouched else math.nan


class _Run:
    """One pass over the images: what each SAE and condition adds up to, and the cosines."""

    def __init__(
        self,
        model: HookedViT,
        saes: Mapping[str, SAE],
        measured: tuple[Corruption, ...],
        compared: tuple[Corruption, ...],
        seed: int,
    ) -> None:
        self.model, self.saes, self.measured, self.compared, self.seed = model, saes, measured, compared, seed
        self.site = _shared_site(model, saes)
        self.read = token_slice(model, self.site.tokens)
        self.patches = slice(model.cfg.n_prefix_tokens if self.site.tokens == "all" else 0, None)
        self.conditions = tuple(dict.fromkeys((*((CLEAN,) if compared else ()), *measured, *compared)))
        self.image_ids: list[Tensor] = []
        self.tallies: dict[tuple[str, str], _Tally] = defaultdict(_Tally)
        self.classified: dict[tuple[str, str], _Classified] = defaultdict(_Classified)
        self.cosines: dict[tuple[str, str], list[Tensor]] = defaultdict(list)

    @torch.inference_mode()
    def over(self, images: Images, batch_size: int | None, progress: str | None) -> SAEEvaluation:
        if batch_size is None:
            tokens = len(range(self.model.cfg.n_tokens)[self.read])
            held = 2**28 // (4 * tokens * max(sae.cfg.d_sae for sae in self.saes.values()))
            batch_size = max(1, min(default_batch_size(self.model, patterns=False), held))
        for batch in image_batches(self.model, images, batch_size, progress=progress):
            self.image_ids.append(on_cpu(batch.image_ids))
            self.add(batch)
        ids = torch.cat(self.image_ids)
        cosine = {key: SAECosine(ids, torch.cat(parts)) for key, parts in self.cosines.items()}
        return SAEEvaluation({key: self.quality(*key) for key in self.tallies}, cosine)

    def add(self, batch: ImageBatch) -> None:
        clean: dict[str, Tensor] = {}
        for corruption in self.conditions:
            pixels = pixel_values(self.model, batch, corruption, seed=self.seed)
            resid = self.model(pixels, stop_at_layer=self.site.layer + 1)
            x = resid[:, self.read]
            bad = ~x.isfinite().flatten(1).all(1)
            if bool(bad.any()):
                ids = batch.image_ids[bad].tolist()[:8]
                raise ValueError(f"the residual {self.site} must be finite; it is not on the image ids {ids}")
            if corruption in self.measured and self.model.cfg.n_classes:
                self.classified["untouched", corruption.key].add(self.finish(resid), batch)
                zero = self.finish(self.replaced(resid, torch.zeros_like(x)))
                self.classified["zero", corruption.key].add(zero, batch)
            for name, sae in self.saes.items():
                codes = sae.encode(x.to(sae.W_enc.device))
                if corruption in self.measured:
                    self.measure((name, corruption.key), codes, resid, batch)
                if corruption == CLEAN and self.compared:
                    clean[name] = codes
                if corruption in self.compared:
                    cosine = code_cosine(clean[name][:, self.patches], codes[:, self.patches])
                    self.cosines[name, corruption.key].append(on_cpu(cosine))

    def measure(self, key: tuple[str, str], codes: Tensor, resid: Tensor, batch: ImageBatch) -> None:
        x = resid[:, self.read]
        x_hat = self.saes[key[0]].decode(codes).to(x)
        self.tallies[key].add(x.flatten(0, 1), codes.flatten(0, 1), x_hat.flatten(0, 1))
        if self.model.cfg.n_classes:
            self.classified["sae " + key[0], key[1]].add(self.finish(self.replaced(resid, x_hat)), batch)

    def replaced(self, resid: Tensor, values: Tensor) -> Tensor:
        out = resid.clone()
        out[:, self.read] = values
        return out

    def finish(self, resid: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch class"]:
        """The logits that the rest of the network gives for this residual."""
        place = self.model.place(self.model.cfg.grid)
        for block in self.model.blocks[self.site.layer + 1 :]:
            resid = block(resid, place)
        return self.model.unembed_residual(resid[:, self.model.head_tokens])

    def quality(self, name: str, condition: str) -> SAEQuality:
        reconstruction = self.tallies[name, condition].metrics()
        if not self.model.cfg.n_classes:
            return SAEQuality(*reconstruction)
        zero, found, untouched = (
            self.classified[which, condition].means() for which in ("zero", "sae " + name, "untouched")
        )
        return SAEQuality(*reconstruction, *found, *map(recovered, zero, found, untouched))
