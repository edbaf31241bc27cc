"""Accuracy over the classes that images have, by group, and predictions without labels: against plain numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from mechvit import analysis
from mechvit.analysis.behaviour.performance import label_rank, present_classes, score
from mechvit.analysis.summaries.groups import with_image_groups


def some(images, labels: list[int]):
    """The images with these labels."""
    names = images.features["label"]
    return images.remove_columns("label").add_column("label", labels, feature=names)


def test_the_best_of_the_present_classes_is_what_counts(tiny_model, tiny_images):
    labels = [1, 3] * 12
    images = some(tiny_images, labels)
    found = analysis.evaluate(tiny_model, images)
    logits = torch.cat([tiny_model(x) for x in pixels(tiny_model, images)]).detach().numpy()
    two = logits[:, [1, 3]]
    right = np.array([1, 3])[two.argmax(1)] == labels
    assert found.accuracy_present_classes == right.mean()
    assert found.rank_present.tolist() == (two > logits[np.arange(24), labels][:, None]).sum(1).tolist()
    assert found.accuracy == (logits.argmax(1) == labels).mean()
    assert found.accuracy_present_classes > found.accuracy
    assert present_classes(images).tolist() == [1, 3]


def pixels(model, images):
    from mechvit.analysis.inputs import image_batches, pixel_values

    return [pixel_values(model, batch) for batch in image_batches(model, images)]


def test_of_equal_logits_the_lower_class_is_first_among_the_present_too():
    logits, labels = torch.tensor([[1.0, 1.0, 1.0, 0.0]] * 3), torch.tensor([0, 1, 2])
    assert label_rank(logits, labels).tolist() == [0, 1, 2]
    assert label_rank(logits, labels, torch.tensor([1, 2])).tolist() == [0, 0, 1]
    scored = score(logits, labels, torch.arange(3))
    assert scored.rank_present.tolist() == scored.rank.tolist()


def test_where_all_classes_are_present_both_accuracies_are_one(tiny_model, tiny_images):
    table = analysis.study({"base": tiny_model}, tiny_images, ["gaussian_blur_2"]).performance
    summary = analysis.performance_summary(table)
    assert set(table["label"]) == set(range(5))
    wide = summary.set_index(["corruption", "metric"])[["value", "low", "high"]]
    pd.testing.assert_frame_equal(
        wide.xs("accuracy", level="metric"), wide.xs("accuracy_present_classes", level="metric")
    )
    older = analysis.performance_summary(table.drop(columns="rank_present"))
    both = summary[summary["metric"] != "accuracy_present_classes"].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, older, check_exact=True)


def test_groups_are_summaries_of_their_own_images(tiny_model, tiny_images):
    sites = ["north" if i % 3 else None for i in range(24)]
    images = tiny_images.add_column("site", sites)
    frames = [
        analysis.evaluate(tiny_model, images, key).to_frame(model="base", corruption=key)
        for key in ("clean", "gaussian_noise_4")
    ]
    table = with_image_groups(pd.concat(frames, ignore_index=True), images)
    found = analysis.performance_by_group(table, ["site"])
    assert found["by"].unique().tolist() == ["site"]
    for group, own in (("north", [i for i in range(24) if i % 3]), ("(none)", list(range(0, 24, 3)))):
        part = found[found["group"] == group].reset_index(drop=True)
        ids = np.asarray(images["image_id"])[own]
        alone = analysis.performance_summary(table[table["image_id"].isin(ids)])
        pd.testing.assert_frame_equal(part[alone.columns], alone)
        assert set(part["n"]) == {len(own)}
    assert set(found["group"]) == {"north", "(none)"}
    with pytest.raises(ValueError, match="the table has site already"):
        with_image_groups(table, images)
    with pytest.raises(ValueError, match="8 images of the table are not among the 16"):
        with_image_groups(frames[0], images.select(range(16)))


def test_predictions_are_those_of_the_evaluation_without_its_labels(tiny_model, tiny_images):
    known = analysis.evaluate(tiny_model, tiny_images, "gaussian_noise_2", seed=3)
    found = analysis.predict(tiny_model, some(tiny_images, [-1] * 24), "gaussian_noise_2", seed=3)
    assert torch.equal(found.prediction, known.prediction)
    assert torch.equal(found.image_id, known.image_id)
    torch.testing.assert_close(found.confidence, known.confidence)
