"""The paper's claims, one row each: this run's measurement, its interval, and a verdict by a stated rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from mechvit.analysis.statistics.bootstrap import Interval, interval
from mechvit.analysis.statistics.verdicts import Verdict
from mechvit.analysis.summaries.bootstrap_draws import TOP_K
from mechvit.arguments import checked
from mechvit.data.conditions import family_title
from mechvit.data.corruption_spec import Condition

from .evidence import Claim, ClaimWords, Evidence, Rules, judged, unmeasured

if TYPE_CHECKING:
    import pandas as pd


@checked
def claims(tables: Mapping[str, pd.DataFrame], rules: Rules | None = None) -> list[Claim]:
    """Judge every claim of the paper on one run.

    Args:
        tables: the per-image tables `performance`, `lens`, `first_correct` and `attention`, and `sae_distance`. The
            model is "base" or the key of the corruption that it was tuned on; each family is judged on the strongest
            level that it was tuned on.
        rules: thresholds; the defaults when None.

    Raises:
        ValueError: a table, the base model, or a model under a corruption that a claim requires is missing.
    """
    evidence = Evidence(tables, rules or Rules())
    rows: list[Claim] = []
    for judge in (_better, _monotone, _ordering, _transfer, _clean, _certainty, _overtakes, _earlier):
        rows += [judge(evidence, family, tuned) for family, tuned in evidence.families.items()]
    rows += _earlier_for_blur(evidence)
    rows += [_entropy_sign(evidence, family, tuned) for family, tuned in evidence.families.items()]
    rows += [*_entropy_blur(evidence), *_entropy_noise(evidence), *_sae(evidence)]
    return rows


def _tuned_on(tuned: Sequence[Condition]) -> dict[str, str]:
    return {f"tuned on {c.level}": c.key for c in tuned}


def _better(ev: Evidence, family: str, tuned: Sequence[Condition]) -> Claim:
    test, name = tuned[-1], family_title(family)
    words = ClaimWords(
        f"better_{family}",
        f"Fine-tuning on {name} makes models better on new images with {name}",
        "section 4.1, Table 1, Figures 2 and 3",
        f"Gain in accuracy over the base model on {test.title}, for each model tuned on {name}",
        "percentage points",
    )
    parts = {label: 100 * ev.gain(key, test.key, "accuracy") for label, key in _tuned_on(tuned).items()}
    return ev.effect(words, parts, ev.rules.smallest_gain)


def _monotone(ev: Evidence, family: str, tuned: Sequence[Condition]) -> Claim:
    test, name = tuned[-1], family_title(family)
    words = ClaimWords(
        f"monotone_{family}",
        f"The stronger the {name} in training, the larger the gain",
        "section 4.1, Table 1, Figures 2 and 3",
        f"Accuracy on {test.title}: each training level's minus the next lower level's",
        "percentage points",
    )
    if len(tuned) < 2:
        return unmeasured(words, f"only one level of {name} was trained on")
    steps = {
        f"{high.level} over {low.level}": 100
        * (ev.gain(high.key, test.key, "accuracy") - ev.gain(low.key, test.key, "accuracy"))
        for low, high in pairwise(tuned)
    }
    return ev.effect(words, steps, ev.rules.smallest_gain)


def _ordering(ev: Evidence, family: str, tuned: Sequence[Condition]) -> Claim:
    test, name = tuned[-1], family_title(family)
    words = ClaimWords(
        f"ordering_{family}",
        f"The gain on {name} is largest in top-1, then top-5, then top-10 accuracy",
        "section 4.1, Figures 2 and 3",
        f"Differences of gains on {test.title}, averaged over the models tuned on {name}",
        "percentage points",
    )
    if few := _not_applicable(ev, test.key):
        return unmeasured(words, f"{' and '.join(few)} {'are' if few[1:] else 'is'} not defined with so few classes")
    gains = {metric: 100 * np.mean([ev.gain(c.key, test.key, metric) for c in tuned], axis=0) for metric in TOP_K}
    parts = {"top-1 over top-5": gains["accuracy"] - gains["top5"], "top-5 over top-10": gains["top5"] - gains["top10"]}
    return ev.effect(words, parts, ev.rules.smallest_gain)


def _not_applicable(ev: Evidence, test: str) -> list[str]:
    """Return the top-k metrics that do not apply because there are too few classes."""
    return [metric for metric in TOP_K if np.isnan(ev.gain("base", test, metric)).all()]


def _unchanged(ev: Evidence, words: ClaimWords, tuned: Sequence[Condition], test: str) -> Claim:
    found = {
        f"{metric} {label}": interval(100 * ev.gain(key, test, metric), ev.rules.level)
        for label, key in _tuned_on(tuned).items()
        for metric in TOP_K
        if metric not in _not_applicable(ev, test)
    }
    return ev.no_effect(words, found, ev.rules.unchanged)


def _transfer(ev: Evidence, family: str, tuned: Sequence[Condition]) -> Claim:
    others = [levels[-1] for other, levels in ev.families.items() if other != family]
    words = ClaimWords(
        f"no_transfer_{family}",
        f"Fine-tuning on {family_title(family)} neither helps nor harms on the other family",
        "section 4.1",
        f"Gain on {others[0].title if others else 'another family'} in accuracy, top-5 and top-10",
        "percentage points",
    )
    return _unchanged(ev, words, tuned, others[0].key) if others else unmeasured(words, "there is only one family")


def _clean(ev: Evidence, family: str, tuned: Sequence[Condition]) -> Claim:
    words = ClaimWords(
        f"clean_unchanged_{family}",
        f"Fine-tuning on {family_title(family)} leaves performance on clean images unchanged",
        "section 4.1",
        "Gain on clean images in accuracy, top-5 and top-10",
        "percentage points",
    )
    return _unchanged(ev, words, tuned, "clean")


def _certainty(ev: Evidence, family: str, tuned: Sequence[Condition]) -> Claim:
    test, name = tuned[-1], family_title(family)
    words = ClaimWords(
        f"certainty_{family}",
        f"Fine-tuning on {name} makes models more certain of the right class",
        "sections 1 and 4.1",
        f"Gain in the right class's mean probability on {test.title}",
        "percentage points",
    )
    parts = {label: 100 * ev.gain(key, test.key, "probability") for label, key in _tuned_on(tuned).items()}
    return ev.effect(words, parts, ev.rules.smallest_gain)


def _overtakes(ev: Evidence, family: str, tuned: Sequence[Condition]) -> Claim:
    test, rules = tuned[-1], ev.rules
    strongest, *others = (
        ev.by_layer(ev.lens, model, test.key) for model in (test.key, "base", *(c.key for c in tuned[:-1]))
    )
    lead = strongest - np.max(others, axis=0)
    layers = lead.shape[1] - 1
    ahead_from_here = np.logical_and.accumulate((lead > rules.ahead)[:, ::-1], axis=1)[:, ::-1]
    never = layers + 1
    onset = interval(np.where(ahead_from_here.any(1), ahead_from_here.argmax(1), never).astype(float), rules.level)
    words = ClaimWords(
        f"overtakes_{family}",
        f"From a middle or late layer on, the model tuned on the strongest {family_title(family)} gives the right "
        "class more probability than the others",
        "section 4.2, Figure 4",
        f"First layer from which its mean probability on {test.title} stays more than {rules.ahead:g} above that of "
        "the base and of every model tuned on the same family",
        "layers",
    )
    rule = (
        f"Replicates if the {rules.level:.0%} interval lies within layers {layers / 2:g} to {layers}; does not "
        f"replicate if it lies wholly outside ({never} stands for never ahead); otherwise inconclusive."
    )
    verdict: Verdict = "inconclusive"
    if layers / 2 <= onset.low and onset.high <= layers:
        verdict = "replicates"
    elif onset.high < layers / 2 or onset.low > layers:
        verdict = "does not replicate"
    first = f"ahead from (of {layers})"
    found = {first: onset, "lead at the last layer": interval(lead[:, -1], rules.level)}
    return judged(words, found, first, rule, verdict)


def _shift(ev: Evidence, model: str, corruption: str) -> np.ndarray:
    """Return draws of how many layers earlier than the base the model first predicts the right class (paired).

    NaN if the table lacks one of them, which is then right at no layer.
    """
    nowhere = np.full(1 + ev.rules.resamples, np.nan)
    return -ev.first.get((model, corruption, "difference"), nowhere)


def _earlier(ev: Evidence, family: str, tuned: Sequence[Condition]) -> Claim:
    test, name = tuned[-1], family_title(family)
    words = ClaimWords(
        f"earlier_{family}",
        f"Models tuned on {name} first predict the right class at an earlier layer",
        "section 4.2, Figures 5 and 6",
        f"First correct layer of the base minus the tuned model's on {test.title}, over images that both get right "
        "at some layer",
        "layers",
    )
    parts = {label: _shift(ev, key, test.key) for label, key in _tuned_on(tuned).items()}
    return ev.effect(words, parts, ev.rules.smallest_shift)


def _earlier_for_blur(ev: Evidence) -> Iterator[Claim]:
    words = ClaimWords(
        "earlier_more_for_blur",
        "Tuning brings the right class forward by more layers for Gaussian blur than for Gaussian noise",
        "section 4.2, Figures 5 and 6",
        "Number of layers earlier, averaged over the models tuned on blur, minus the same for noise",
        "layers",
    )
    blur, noise = (ev.families.get(family) for family in ("gaussian_blur", "gaussian_noise"))
    if not blur or not noise:
        yield unmeasured(words, "both families are needed")
        return
    means = [np.mean([_shift(ev, c.key, levels[-1].key) for c in levels], axis=0) for levels in (blur, noise)]
    yield ev.effect(words, {"blur over noise": means[0] - means[1]}, ev.rules.smallest_shift)


def _entropy_sign(ev: Evidence, family: str, tuned: Sequence[Condition]) -> Claim:
    test = tuned[-1]
    models = ["base", *(c.key for c in tuned)]
    mean = np.mean([ev.by_layer(ev.entropy, model, test.key) for model in models], axis=0)
    half = mean.shape[1] // 2
    words = ClaimWords(
        f"entropy_sign_{family}",
        f"Under {family_title(family)}, attention entropy lies below the clean image's in the first layer and above "
        "it in later ones",
        "section 4.3, Figures 7 and 8",
        f"H(corrupted) - H(clean) on {test.title}, averaged over the base and the tuned models: in the first layer "
        f"with its sign reversed, and on average over layers {half} to {mean.shape[1] - 1}",
        "nats",
    )
    parts = {"fall at the first layer": -mean[:, 0], "rise in the later half": mean[:, half:].mean(1)}
    return ev.effect(words, parts, ev.rules.smallest_entropy)


def _entropy_gap(ev: Evidence, tuned: Sequence[Condition]) -> dict[str, np.ndarray]:
    """Return base minus tuned entropy difference on the strongest level, [draws, layers]."""
    test = tuned[-1].key
    base = ev.by_layer(ev.entropy, "base", test)
    return {label: base - ev.by_layer(ev.entropy, key, test) for label, key in _tuned_on(tuned).items()}


def _entropy_blur(ev: Evidence) -> Iterator[Claim]:
    words = ClaimWords(
        "entropy_blur",
        "Under Gaussian blur, the entropy difference is highest in the base model",
        "section 4.3, Figure 7",
        "H(corrupted) - H(clean) on the strongest blur, averaged over layers: the base's minus each tuned model's",
        "nats",
    )
    if tuned := ev.families.get("gaussian_blur"):
        parts = {label: gap.mean(1) for label, gap in _entropy_gap(ev, tuned).items()}
        yield ev.effect(words, parts, ev.rules.smallest_entropy)


def _entropy_noise(ev: Evidence) -> Iterator[Claim]:
    words = ClaimWords(
        "entropy_noise",
        "Under Gaussian noise, the base's entropy difference is higher than the tuned models' in middle layers only",
        "section 4.3, Figure 8",
        "H(corrupted) - H(clean) on the strongest noise, the base's minus the tuned models' mean: in the middle third "
        "of the layers (the paper's text does not name its range), and that minus the same in the last third",
        "nats",
    )
    if tuned := ev.families.get("gaussian_noise"):
        gap = np.mean(list(_entropy_gap(ev, tuned).values()), axis=0)
        layers = gap.shape[1]
        start = layers // 3
        stop = max(2 * layers // 3, start + 1)
        middle, late = gap[:, start:stop].mean(1), gap[:, min(stop, layers - 1) :].mean(1)
        parts = {f"layers {start} to {stop - 1}": middle, "minus the later layers": middle - late}
        yield ev.effect(words, parts, ev.rules.smallest_entropy)


def _sae(ev: Evidence) -> Iterator[Claim]:
    table = ev.tables["sae_distance"]
    for architecture in table["architecture"].unique():
        for family, tuned in ev.families.items():
            key = tuned[-1].key
            words = ClaimWords(
                f"sae_cosine_{architecture}_{family}",
                f"SAE codes of clean and corrupted patches have nearly the same distribution of cosines in the model "
                f"tuned on {tuned[-1].title} as in the base ({architecture} SAE)",
                "section 4.4, Figures 9 and 10",
                "Kolmogorov-Smirnov distance between the two models' distributions of cosines",
                "distance, 0 to 1",
            )
            asked = (table["architecture"] == architecture) & (table["model"] == key) & (table["corruption"] == key)
            rows = table[asked].set_index("statistic")
            if "kolmogorov_smirnov" not in rows.index:
                yield unmeasured(words, f"there is no {architecture} SAE of the model tuned on {tuned[-1].title}")
                continue
            found = {
                str(name).replace("_", " "): Interval(float(row["value"]), float(row["low"]), float(row["high"]))
                for name, row in rows.iterrows()
            }
            yield ev.no_effect(words, found, ev.rules.identical, on=["kolmogorov smirnov"])
