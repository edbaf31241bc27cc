"""Heads that are no softmax classifier: refused by name where labels are asked for, and looked into all the same."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from mechvit import HookedViT, analysis
from mechvit.analysis.behaviour.performance import score
from mechvit.data import PAPER_CORRUPTIONS
from mechvit.finetuning import check_trainable

HEADS = {
    "regression": ({"num_labels": 1}, "it has 1 class, and a choice needs two"),
    "several at once": ({"num_labels": 5, "problem_type": "multi_label_classification"}, "multi_label_classification"),
    "several numbers": ({"num_labels": 5, "problem_type": "regression"}, "its problem_type is regression"),
}
KINDS = (None, "single_label_classification")


def model_with(tiny_hf: ViTForImageClassification, tiny_processor, settings: dict) -> HookedViT:
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": None, "label2id": None} | settings)
    torch.manual_seed(0)
    return HookedViT.from_hf(ViTForImageClassification(config).eval(), tiny_processor)


def saved(config: ViTConfig) -> ViTConfig:
    """The config as a checkpoint on disk has it."""
    return ViTConfig.from_dict(config.to_dict() | {"architectures": ["ViTForImageClassification"]})


@pytest.fixture(params=HEADS)
def headed(request, tiny_hf, tiny_processor) -> tuple[HookedViT, str]:
    settings, why = HEADS[request.param]
    return model_with(tiny_hf, tiny_processor, settings), why


def test_what_asks_for_labels_is_refused_by_name(headed, tiny_images):
    model, why = headed
    corruption = PAPER_CORRUPTIONS[0]
    calls = [
        lambda: analysis.evaluate(model, tiny_images),
        lambda: analysis.study({"base": model}, tiny_images, [corruption]),
        lambda: analysis.corrupted_performance({"base": model}, tiny_images, [corruption]),
        lambda: analysis.logit_lens(model, tiny_images),
        lambda: analysis.compare_lenses(model, {"logit": None}, tiny_images),
        lambda: analysis.fourier_sensitivity(model, tiny_images, resolution=1),
        lambda: analysis.patch_models(model, model, tiny_images, corruption),
        lambda: analysis.attribution_patching(model, model, tiny_images, corruption),
        lambda: analysis.swap_weights(model, model, tiny_images, [corruption]),
        lambda: analysis.train_tuned_lens(model, tiny_images, tiny_images),
        lambda: model(torch.zeros(1, 3, 32, 32), return_type="loss", labels=torch.tensor([0])),
        lambda: check_trainable(saved(model.hf_config), "the checkpoint"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=why):
            call()


def test_what_asks_for_no_label_is_the_trunks(headed, tiny_model, tiny_images):
    """The trunk's numbers are those of a classifier with the same trunk."""
    model, _ = headed
    trunk = {name: tensor for name, tensor in tiny_model.state_dict().items() if not name.startswith("head.")}
    model.load_state_dict(trunk, strict=False)
    own, known = (analysis.attention_entropy(each, tiny_images).entropy for each in (model, tiny_model))
    torch.testing.assert_close(own, known)
    cka = analysis.linear_cka(model, tiny_model, tiny_images)
    layers = cka.value[~cka.value.isnan()]
    torch.testing.assert_close(layers, torch.ones_like(layers))
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, model.cfg.n_classes)


def test_logits_of_one_class_are_refused():
    with pytest.raises(ValueError, match="at least two classes to choose between; got logits of 1"):
        score(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), torch.arange(3))


def test_what_training_writes_is_a_softmax_classifier(tiny_hf, tiny_processor):
    """transformers sets problem_type while it trains; base and tuned keep one config."""
    base, tuned = (model_with(tiny_hf, tiny_processor, {"num_labels": 5, "problem_type": kind}) for kind in KINDS)
    assert base.cfg == tuned.cfg
    assert base.cfg.no_softmax is None
    assert base.hf_config.problem_type != tuned.hf_config.problem_type


@pytest.mark.parametrize("id2label", [{1: "a", 2: "b"}, {0: "a", 2: "b"}])
def test_classes_with_gaps_are_refused(tiny_hf, id2label):
    config = ViTConfig.from_dict(tiny_hf.config.to_dict() | {"id2label": id2label, "label2id": None})
    with pytest.raises(ValueError, match=r"2 classes, 0 to 1; got 2 names, of"):
        HookedViT.from_hf(ViTForImageClassification(config).eval())
    with pytest.raises(ValueError, match="must number its 2 classes 0 to 1"):
        check_trainable(ViTConfig(id2label=id2label, architectures=["ViTForImageClassification"]), "the checkpoint")


# top-k among few classes


def test_top_k_only_below_the_number_of_classes(tiny_model, tiny_images):
    found = analysis.evaluate(tiny_model, tiny_images)
    assert set(found.classes.tolist()) == {5}
    assert found.top(1) == found.accuracy <= found.top(4) <= 1
    for k in (0, 5, 10):
        with pytest.raises(ValueError, match=r"below the number of classes, 5, .*; got"):
            found.top(k)


def test_summaries_say_not_applicable(tiny_model, tiny_images):
    """Among 5 classes top-5 and top-10 are NaN; of 6, the same ranks' top-5 is their mean."""
    frame = analysis.evaluate(tiny_model, tiny_images).to_frame(model="base", corruption="clean")
    summary = analysis.performance_summary(frame, resamples=20).set_index("metric")
    assert summary.loc[["top5", "top10"], ["value", "low", "high", "gain"]].isna().all(axis=None)
    assert summary.loc[["accuracy", "ece"], ["value", "low", "high"]].notna().all(axis=None)
    six = analysis.performance_summary(frame.assign(classes=6), resamples=20).set_index("metric")
    assert six.loc["top5", "value"] == (frame["rank"] < 5).mean()
    assert pd.isna(six.loc["top10", "value"])
    two = pd.concat([frame.assign(classes=11), frame.assign(model="other")])
    mixed = analysis.performance_summary(two, resamples=20).set_index(["model", "metric"])["value"]
    assert mixed.notna().loc[[("base", "top10"), ("base", "top5")]].all()
    assert mixed.isna().loc[[("other", "top10"), ("other", "top5")]].all()
