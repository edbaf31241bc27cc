"""SAEs of models whose head is no softmax classifier: all that needs no answers is there, and nothing else."""

from __future__ import annotations

import torch
from evaluation_saes import CORRUPTIONS, random_sae
from transformers import ViTConfig, ViTForImageClassification

from mechvit import HookedViT
from mechvit.saes import browse_features, evaluate_saes


def test_a_multi_label_models_saes_are_described_without_answers(tiny_hf, tiny_processor, tiny_model, tiny_images):
    settings = tiny_hf.config.to_dict() | {"problem_type": "multi_label_classification"}
    theirs = ViTForImageClassification(ViTConfig.from_dict(settings)).eval()
    theirs.load_state_dict(tiny_hf.state_dict())
    model, sae = HookedViT.from_hf(theirs, tiny_processor), random_sae("standard")
    found, other = (
        evaluate_saes(each, {"a": sae}, tiny_images, CORRUPTIONS[:1], top_images=2, seed=1)
        for each in (model, tiny_model)
    )
    own, known = found.quality["a", "clean"], other.quality["a", "clean"]
    assert own.accuracy is own.ece is own.cross_entropy is own.accuracy_recovered is None
    assert known.accuracy is not None
    assert own.explained_variance == known.explained_variance
    assert own.l0 == known.l0
    assert found.features["a"].logits is None
    browsed = browse_features({"a": (model, sae)}, tiny_images, CORRUPTIONS[:1])
    assert browsed.class_names == tuple(tiny_images.features["label"].names[: len(browsed.class_names)])
    assert torch.equal(browsed.labels, torch.tensor(tiny_images["label"]))


def test_top5_of_five_classes_is_not_applicable(tiny_model, tiny_images):
    found = evaluate_saes(tiny_model, {"a": random_sae("standard")}, tiny_images, CORRUPTIONS[:1])
    assert all(quality.top5 is None and quality.accuracy is not None for quality in found.quality.values())
