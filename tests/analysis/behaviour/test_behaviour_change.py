"""Agreement, divergence and flips against sums written out, of planted logits and of whole models."""

from __future__ import annotations

import copy
import functools
from fractions import Fraction

import numpy as np
import pytest
import scipy.special
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from shifted_models import shifted

from mechvit import HookedViT
from mechvit.analysis import BehaviourChange, behaviour_change, behaviour_of_logits, evaluate
from mechvit.data import ImageBatch, corrupt, load_images, normalize

CONDITIONS = ("clean", "gaussian_noise_2")


def planted_logits(n=40, classes=5, seed=0):
    """Two models' logits, of which the second is another's on half of the images; and labels."""
    generator = torch.Generator().manual_seed(seed)
    base = 2 * torch.randn(n, classes, generator=generator)
    tuned = base.clone()
    tuned[::2] = 2 * torch.randn(n, classes, generator=generator)[::2]
    return base, tuned, torch.randint(classes, (n,), generator=generator), torch.arange(n) + 70


def rows(table, quantity, by="all", group="all", condition="clean"):
    return table.query("quantity == @quantity and by == @by and group == @group and condition == @condition").iloc[0]


def test_the_table_matches_sums_in_numpy():
    base, tuned, labels, ids = planted_logits()
    table = behaviour_of_logits(base, tuned, labels, ids).images
    p, q = (scipy.special.softmax(logits.double().numpy(), axis=1) for logits in (base, tuned))
    np.testing.assert_allclose(table["kl"], scipy.special.rel_entr(p, q).sum(1), rtol=1e-12, atol=1e-15)
    for name, own in (("base", p), ("tuned", q)):
        order = np.sort(own, axis=1)
        assert table[f"prediction_{name}"].tolist() == own.argmax(1).tolist()
        np.testing.assert_allclose(table[f"confidence_{name}"], order[:, -1], rtol=1e-12)
        np.testing.assert_allclose(table[f"margin_{name}"], np.log(order[:, -1] / order[:, -2]), rtol=1e-9)
    assert (table["kl"][1::2] == 0).all()
    assert (table["kl"][::2] > 0).all()
    kinds = []
    for own, other, label in zip(p.argmax(1), q.argmax(1), labels.tolist(), strict=True):
        right = (own == label, other == label)
        flip = {(True, False): "negative", (False, True): "positive"}.get(right, "wrong_to_wrong")
        kinds.append("none" if own == other else flip)
    assert table["flip"].tolist() == kinds
    assert set(kinds) == {"none", "negative", "positive", "wrong_to_wrong"}
    assert table["image_id"].tolist() == ids.tolist()


def test_two_exchanged_logits_flip_their_images_alone():
    """Three right answers exchanged with the runner-up are three negative flips; two wrong ones righted, positive."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(30, 5, generator=generator)
    labels = base.argmax(-1)
    labels[:8] = base[:8].topk(2).indices[:, 1]
    tuned = base.clone()
    for image in (0, 1, 10, 11, 12):
        first, second = base[image].topk(2).indices
        tuned[image, [first, second]] = base[image, [second, first]]
    found = behaviour_of_logits(base, tuned, labels, torch.arange(30))
    assert found.images["flip"].value_counts().to_dict() == {"none": 25, "negative": 3, "positive": 2}
    summary = found.summary(resamples=100)
    assert rows(summary, "negative_flips")["value"] == pytest.approx(3 / 30)
    assert rows(summary, "positive_flips")["value"] == pytest.approx(2 / 30)
    assert rows(summary, "accuracy_change")["value"] == pytest.approx(-1 / 30)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 1000))
def test_flips_account_for_the_drop_of_accuracy_exactly(n, classes, seed):
    base, tuned, labels, ids = planted_logits(n, classes, seed)
    found = behaviour_of_logits(base, tuned, labels, ids)
    right = [int((logits.argmax(-1) == labels).sum()) for logits in (base, tuned)]
    kinds = found.images["flip"].value_counts()
    assert kinds.get("negative", 0) - kinds.get("positive", 0) == right[0] - right[1]
    summary = found.summary(resamples=3)
    for by, group in summary.loc[summary["quantity"] == "accuracy_base", ["by", "group"]].itertuples(index=False):
        value = {q: rows(summary, q, by, group)["value"] for q in summary["quantity"].unique()}
        count = rows(summary, "accuracy_base", by, group)["n"]
        exact = {name: Fraction(round(own * count), int(count)) for name, own in value.items() if own == own}
        drop = exact["accuracy_base"] - exact["accuracy_tuned"]
        assert exact["negative_flips"] - exact["positive_flips"] == drop
        assert value["negative_flips"] - value["positive_flips"] == -value["accuracy_change"]


def test_models_are_compared_as_each_is_evaluated(tiny_model, batch):
    tuned = shifted(copy.deepcopy(tiny_model), 0.2)
    found = behaviour_change(tiny_model, tuned, batch, CONDITIONS, batch_size=7)
    summary = found.summary(resamples=50)
    for condition in CONDITIONS:
        under = functools.partial(rows, summary, condition=condition)
        own = {"base": evaluate(tiny_model, batch, condition), "tuned": evaluate(tuned, batch, condition)}
        for name, performance in own.items():
            assert rows(summary, f"accuracy_{name}", condition=condition)["value"] == pytest.approx(
                performance.accuracy
            )
            assert under(f"ece_{name}")["value"] == pytest.approx(performance.ece(), abs=1e-6)
        pixels = normalize(corrupt(batch.images, condition, batch.image_ids, seed=0), tiny_model.image_processor)
        with torch.no_grad():
            alone = behaviour_of_logits(tiny_model(pixels), tuned(pixels), batch.labels, batch.image_ids)
        part = found.images[found.images["condition"] == condition].reset_index(drop=True)
        assert part["image_id"].tolist() == batch.image_ids.tolist()
        assert part["flip"].tolist() == alone.images["flip"].tolist()
        np.testing.assert_allclose(part["kl"], alone.images["kl"], rtol=1e-4, atol=1e-9)
    assert "ant" in set(summary.query("by == 'label'")["group"])


def test_calibration_matches_torchmetrics():
    base, tuned, labels, ids = planted_logits(200)
    summary = behaviour_of_logits(base, tuned, labels, ids).summary(resamples=10)
    for name, logits in (("base", base), ("tuned", tuned)):
        wanted = torchmetrics.functional.calibration_error(
            logits.double().softmax(-1), labels, task="multiclass", num_classes=5, n_bins=15, norm="l1"
        )
        assert rows(summary, f"ece_{name}")["value"] == pytest.approx(float(wanted), abs=1e-6)


def test_intervals_match_explicit_resampling():
    base, tuned, labels, ids = planted_logits(60)
    found = behaviour_of_logits(base, tuned, labels, ids)
    row, values = rows(found.summary(resamples=4000), "kl"), found.images["kl"].to_numpy()
    rng = np.random.default_rng(5)
    draws = [rng.choice(values, len(values)).mean() for _ in range(4000)]
    assert row["value"] == pytest.approx(values.mean())
    np.testing.assert_allclose([row["low"], row["high"]], np.quantile(draws, [0.025, 0.975]), rtol=0.05)


def test_a_model_does_not_differ_from_its_copy(tiny_model, batch):
    found = behaviour_change(tiny_model, copy.deepcopy(tiny_model), batch, CONDITIONS)
    assert (found.images["kl"] == 0).all()
    assert found.images["agreement"].all()
    assert (found.images["flip"] == "none").all()
    summary = found.summary(resamples=20)
    changes = summary[summary["quantity"].isin(["accuracy_change", "confidence_change", "margin_change", "ece_change"])]
    assert (changes[["value", "low", "high"]] == 0).all(axis=None)
    assert "agreement 1.000" in repr(found)


def test_images_without_labels_are_compared_too(tiny_model, batch):
    tuned = shifted(copy.deepcopy(tiny_model), 0.2)
    bare = ImageBatch(batch.images, torch.full_like(batch.labels, -1), batch.image_ids)
    found, known = (behaviour_change(tiny_model, tuned, images) for images in (bare, batch))
    pd_columns = ["kl", "agreement", "margin_base", "confidence_tuned"]
    assert found.images[pd_columns].equals(known.images[pd_columns])
    assert set(found.images["flip"]) == {"none", "unlabelled"}
    summary = found.summary(resamples=20)
    assert set(summary["by"]) == {"all"}
    assert not summary["quantity"].str.contains("accuracy|flips|ece|wrong").any()
    assert rows(summary, "agreement")["n"] == 24
    half = ImageBatch(batch.images, torch.where(torch.arange(24) < 12, batch.labels, -100), batch.image_ids)
    summary = behaviour_change(tiny_model, tuned, half).summary(resamples=20)
    assert rows(summary, "agreement")["n"] == 24
    assert rows(summary, "accuracy_base")["n"] == 12
    with torch.no_grad():
        predictions = tiny_model(normalize(batch.images, tiny_model.image_processor)).argmax(-1)
    wanted = float((predictions == batch.labels)[:12].double().mean())
    assert rows(summary, "accuracy_base")["value"] == pytest.approx(wanted)


def test_models_of_two_input_sizes_see_their_own_pixels(tiny_model):
    from transformers import ViTImageProcessorPil

    images = load_images("photos", "test", limit=12, image_size=48)
    images = images.map(lambda row: {"label": row["label"] % 5, "site": f"site {row['image_id'] % 2}"}).cast_column(
        "label", images.features["image_id"]
    )
    larger = HookedViT.from_hf(tiny_model.to_hf(), ViTImageProcessorPil(size={"height": 48, "width": 48}))
    larger.set_image_size(48)
    found = behaviour_change(tiny_model, larger, images, by=["site"], batch_size=5)
    for name, model in (("base", tiny_model), ("tuned", larger)):
        own = evaluate(model, images)
        assert found.images[f"prediction_{name}"].tolist() == own.prediction.tolist()
        np.testing.assert_allclose(found.images[f"confidence_{name}"], own.confidence, rtol=1e-5)
    assert found.images["kl"].max() > 0
    assert found.images["site"].tolist() == images["site"]
    summary = found.summary(resamples=20)
    one = summary.query("by == 'site' and group == 'site 1' and quantity == 'kl'").iloc[0]
    assert one["n"] == sum(site == "site 1" for site in images["site"])
    assert one["value"] == pytest.approx(found.images.loc[found.images["site"] == "site 1", "kl"].mean())


def test_images_are_ranked_by_divergence():
    base, tuned, labels, ids = planted_logits()
    parts = [
        behaviour_of_logits(base, tuned, labels, ids, condition=name, groups={"site": [*"ab"] * 20})
        for name in CONDITIONS
    ]
    found = BehaviourChange.concatenate(parts)
    order = found.ranked(5, condition="clean")
    assert order["kl"].tolist() == sorted(parts[0].images["kl"], reverse=True)[:5]
    assert found.ranked()["kl"].is_monotonic_decreasing
    assert len(found.ranked()) == 80
    last = found.ranked(condition="clean").tail(20)["image_id"]  # equal at 0: in order of their ids
    assert last.tolist() == ids[1::2].tolist()
    assert list(found.to_frame(pair="mine"))[:2] == ["pair", "condition"]
    with pytest.raises(ValueError, match="condition must be one of the table's, clean, gaussian_noise_2; got 'fog_3'"):
        found.ranked(condition="fog_3")


def test_bad_requests_are_refused(tiny_model, tiny_images, batch):
    base, tuned, labels, ids = planted_logits()
    with pytest.raises(ValueError, match=r"of the same classes; got logits \[40, 5\] and \[40, 4\]"):
        behaviour_of_logits(base, tuned[:, :4], labels, ids)
    with pytest.raises(ValueError, match=r"labels must be classes of the model, 0 to 4; got \[9\]"):
        behaviour_of_logits(base, tuned, labels.index_fill(0, torch.tensor([1]), 9), ids)
    with pytest.raises(ValueError, match="'tuned' gave NaN or infinity"):
        behaviour_of_logits(base, tuned * torch.inf, labels, ids)
    with pytest.raises(ValueError, match="'site' has 3"):
        behaviour_of_logits(base, tuned, labels, ids, groups={"site": [1, 2, 3]})
    with pytest.raises(ValueError, match="names of their own; rename kl"):
        behaviour_of_logits(base, tuned, labels, ids, groups={"kl": [0] * 40})
    with pytest.raises(ValueError, match="each of the 5 classes, or be empty; got 2 names"):
        behaviour_of_logits(base, tuned, labels, ids, classes=("a", "b"))
    with pytest.raises(ValueError, match="name at least one condition"):
        behaviour_change(tiny_model, tiny_model, batch, [])
    for images in (batch, tiny_images):
        with pytest.raises(ValueError, match="lacks scanner"):
            behaviour_change(tiny_model, tiny_model, images, by=["scanner"])
    other = copy.deepcopy(tiny_model)
    other.cfg.id2label[2] = "cow"
    with pytest.raises(ValueError, match="class 2 is 'cat' and 'cow'"):
        behaviour_change(tiny_model, other, batch)
