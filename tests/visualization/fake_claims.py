"""Claims as an experiment judges them: one of each kind, one not measured, one with hostile text."""

from __future__ import annotations


def claim(id: str, text: str, source: str, what: str, unit: str, parts: dict, decides: str, rule: tuple, verdict: str):
    """One row of claims.json in the words of an experiment: `parts` maps labels to (value, low, high)."""
    kind, threshold, words = rule
    return {
        "id": id,
        "claim": text,
        "source": source,
        "what": what,
        "unit": unit,
        "kind": kind,
        "threshold": threshold,
        "rule": f"Replicates if {words}; otherwise inconclusive.",
        "parts": [{"label": label, "value": v, "low": low, "high": high} for label, (v, low, high) in parts.items()],
        "decides": list(parts).index(decides),
        "verdict": verdict,
    }


def claims() -> list[dict]:
    """A claim of each kind, one of them not measured and one with hostile text."""
    points = "percentage points"
    above = ("effect", 1.0, "every 95% interval lies above 0; does not replicate if one lies wholly below 1")
    within = ("no effect", 3.0, "every 95% interval lies within ±3; does not replicate if one lies wholly outside")
    levels = {"tuned on 1": (6.9, 4.8, 9.1), "tuned on 2": (11.2, 8.9, 13.6), "tuned on 4": (14.9, 12.8, 17.1)}
    nine = {
        f"{metric} tuned on {level}": (-0.4 * level + place, -1.2 * level + place, 0.3 * level + place)
        for place, metric in enumerate(["accuracy", "top5", "top10"])
        for level in (1, 2, 4)
    }
    hostile = {"<img src=x onerror=alert(2)> first layer": (-0.021, -0.034, -0.008), "later half": (0.1, 0.08, 0.12)}
    distance = {"wasserstein": (0.012, 0.01, 0.015), "kolmogorov smirnov": (0.024, 0.019, 0.031)}
    better = "Fine-tuning on Gaussian blur makes models better on new images with Gaussian blur"
    earlier = "Tuning brings the right class forward by more layers for Gaussian blur than for Gaussian noise"
    entropy = "Under Gaussian noise, attention entropy starts below the clean image's and ends above it"
    alike = "SAE codes of clean and corrupted patches are as alike in the model tuned on Gaussian blur 4 as in the base"
    stronger = "The stronger the Gaussian noise in training, the larger the gain"
    transfer = "Fine-tuning on Gaussian blur neither helps nor harms on the other family"
    judged = [
        claim(
            "better_gaussian_blur",
            better,
            "section 4.1, Table 1, Figures 2 and 3",
            "Gain in accuracy over the base model on Gaussian blur 4, for each model tuned on Gaussian blur",
            points,
            levels,
            "tuned on 1",
            above,
            "replicates",
        ),
        claim(
            "no_transfer_gaussian_blur",
            transfer,
            "section 4.1",
            "Gain on Gaussian noise 4 in accuracy, top-5 and top-10",
            points,
            nine,
            "accuracy tuned on 4",
            within,
            "inconclusive",
        ),
        claim(
            "earlier_more_for_blur",
            earlier,
            "section 4.2, Figures 5 and 6",
            "Number of layers earlier, averaged over the models tuned on blur, minus the same for noise",
            "layers",
            {"blur over noise": (0.21, 0.08, 0.34)},
            "blur over noise",
            above,
            "replicates",
        ),
        claim(
            "entropy_sign_gaussian_noise",
            entropy,
            "section 4.3, Figures 7 and 8",
            "H(corrupted) - H(clean) on Gaussian noise 4",
            "nats",
            hostile,
            "<img src=x onerror=alert(2)> first layer",
            above,
            "does not replicate",
        ),
        claim(
            "sae_cosine_batchtopk_gaussian_blur",
            alike,
            "section 4.4, Figures 9 and 10",
            "Kolmogorov-Smirnov distance between the two models' distributions of cosines",
            "distance, 0 to 1",
            distance,
            "kolmogorov smirnov",
            within,
            "replicates",
        ),
    ]
    unmeasured = {
        "id": "monotone_gaussian_noise",
        "claim": stronger,
        "source": "section 4.1, Table 1, Figures 2 and 3",
        "what": "Accuracy on Gaussian noise 4: each training level's minus the next lower level's",
        "unit": points,
        "kind": "other",
        "threshold": None,
        "rule": "",
        "parts": [
            {
                "label": "not measured: only one level of Gaussian noise was trained on",
                "value": None,
                "low": None,
                "high": None,
            }
        ],
        "decides": None,
        "verdict": "inconclusive",
    }
    return [*judged, unmeasured]
