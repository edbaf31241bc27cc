"""Columns of labels of any kind, and the classes in a checkpoint's config."""

from __future__ import annotations

import datasets
import pytest
from label_cases import UNNAMED, labelled, of_values

from mechvit.data import align_labels, config_classes
from mechvit.data.sources.label_columns import as_classes


def test_columns_of_other_kinds():
    assert align_labels(of_values(["dog", "cat", "dog"], "string"), {0: "cat", 1: "dog"})["label"] == [1, 0, 1]
    assert align_labels(of_values([1, 0, 1], "int8"), {0: "cat", 1: "dog"}, say=print)["label"] == [1, 0, 1]
    assert align_labels(of_values([701, 3], "int64"), UNNAMED, say=print)["label"] == [701, 3]
    assert align_labels(of_values([True, False], "bool"), {0: "true", 1: "false"}, say=print)["label"] == [0, 1]
    with pytest.raises(ValueError, match="holds float64"):
        align_labels(of_values([0.0, 1.0], "float64"), {0: "cat", 1: "dog"})
    with pytest.raises(ValueError, match="is a number"):
        align_labels(of_values([0, 1], "int64"), {0: "cat", 1: "dog", 2: "elk"})
    for values in ([1, 1], [1]):  # the second of two, or the first, counted from 1
        with pytest.raises(ValueError, match="from 1 to 1, which may be counted from 0 or from 1"):
            align_labels(of_values(values, "int64"), {0: "cat", 1: "dog"})
    assert align_labels(of_values([0, 2], "int64"), {0: "cat", 1: "dog", 2: "elk"}, say=print)["label"] == [0, 2]
    with pytest.raises(ValueError, match="no column 'label'"):
        align_labels(datasets.Dataset.from_dict({"image_id": [1]}), {0: "cat", 1: "dog"})


@pytest.mark.parametrize("missing", [-1, -100, None])
def test_images_without_a_label_are_counted_or_left_out(missing):
    images = of_values([0, missing, 1, missing], "int64")
    with pytest.raises(ValueError, match=r"2 of 4 images of the data set have no label.* with unlabelled='skip'"):
        align_labels(images, {0: "cat", 1: "dog"})
    with pytest.warns(UserWarning, match="left out 2 of 4 images"):
        assert align_labels(images, {0: "cat", 1: "dog"}, unlabelled="skip", say=print)["label"] == [0, 1]
    with pytest.raises(ValueError, match="2 of 2 images"):
        align_labels(of_values([missing, missing], "int64"), UNNAMED, unlabelled="skip")


def test_the_last_class_is_not_what_is_unlabelled():
    features = datasets.Features({"label": datasets.ClassLabel(names=["cat", "dog"])})
    images = datasets.Dataset.from_dict({"label": [0, -1, 1, None]}, features=features)
    with pytest.raises(ValueError, match="2 of 4 images"):
        align_labels(images, {0: "cat", 1: "dog"})
    with pytest.raises(ValueError, match="from -2 to 1"):
        align_labels(of_values([-2, 1], "int64"), {0: "cat", 1: "dog"})
    with pytest.raises(ValueError, match="'error', 'skip' or 'keep'; got 'drop'"):
        align_labels(images, {0: "cat", 1: "dog"}, unlabelled="drop")
    kept = align_labels(images, {0: "dog", 1: "elk", 2: "cat"}, unlabelled="keep")
    assert kept["label"] == [2, -1, 0, -1]


@pytest.mark.parametrize("keys", [(1, 2), (0, 2), ("0", "x"), (0, "0")])
def test_class_indices_must_be_0_to_n(keys):
    with pytest.raises(ValueError, match="must number its 2 classes 0 to 1; its keys are"):
        align_labels(labelled(["cat", "dog"]), dict(zip(keys, ["cat", "dog"], strict=True)))


def test_id2label_and_label2id_must_agree():
    from transformers import ViTConfig

    names = {0: "cat", 1: "crane", 2: "crane"}
    assert config_classes(ViTConfig(id2label=names, label2id={"cat": 0, "crane": 2})) == names
    assert config_classes(ViTConfig(id2label=names, label2id={"LABEL_0": 0})) == names
    assert config_classes(ViTConfig(id2label={"0": 7, "1": 3})) == {0: "7", 1: "3"}
    with pytest.raises(ValueError, match="'cat' is class 0 in one and 1 in the other"):
        config_classes(ViTConfig(id2label=names, label2id={"cat": 1, "crane": 2}))


@pytest.mark.parametrize("name", [None, True, ["cat"]])
def test_names_are_text_or_numbers(name):
    with pytest.raises(ValueError, match="must be text"):
        align_labels(labelled(["cat"]), {0: "cat", 1: name})


def test_labels_that_are_plainly_others_are_refused(tiny_model, tiny_images):
    """A data set in its own order, given to an analysis or to training as it is: not scored as other classes."""
    from mechvit.analysis import evaluate, logit_lens

    names = list(tiny_model.cfg.id2label.values())
    own = tiny_images.cast_column("label", datasets.ClassLabel(names=names[::-1]))
    for analysis in (evaluate, logit_lens):
        with pytest.raises(ValueError, match=r"'elk' is class 0 there and 4 in the model: .*align_labels"):
            analysis(tiny_model, own)
    aligned = align_labels(own, tiny_model.cfg.id2label)
    assert aligned["label"] == [4 - label for label in tiny_images["label"]]
    assert evaluate(tiny_model, aligned).label.tolist() == aligned["label"]
    other = tiny_images.cast_column("label", datasets.ClassLabel(names=["a", "b", "c", "d", "e"]))
    assert evaluate(tiny_model, other).label.tolist() == tiny_images["label"], "mapped by hand"


ODD = "cat\x1b[31m\u202e"


@pytest.mark.parametrize(
    ("names", "id2label"),
    [
        ([ODD, "dog"], {0: "elk", 1: "dog"}),
        (["cat", "dog"], {0: ODD, 1: "dog"}),
        ([ODD, f"{ODD}s"], {0: f"{ODD}, {ODD}s", 1: "dog"}),
        (["a", "b"], {0: f"a, {ODD}", 1: f"a, b, {ODD}"}),
        ([ODD, f"{ODD} "], {0: f"{ODD}, x", 1: "LABEL_1"}),
        (["0", ODD], {0: ODD, 1: "b"}),
    ],
)
def test_names_in_messages_are_escaped(names, id2label):
    told: list[str] = []
    try:
        align_labels(labelled(names), id2label, say=told.append)
    except ValueError as error:
        told.append(str(error))
    assert told
    assert any("\\x1b" in line for line in told)
    assert not any("\x1b" in line or "\u202e" in line for line in told)


def test_columns_in_messages_are_escaped():
    rows = datasets.Dataset.from_dict({ODD: [1], "label": [0.5]})
    for column in ("absent", "label"):
        with pytest.raises(ValueError, match="column") as caught:
            as_classes(rows, column)
        assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("index", [None, "x", [1], -1, 1.5])
def test_a_label2id_without_an_index_is_refused(index):
    from types import SimpleNamespace

    config = SimpleNamespace(id2label={0: "ant", 1: "bee"}, label2id={"ant": index, "bee": 1})
    with pytest.raises(ValueError, match="label2id of the checkpoint must give every class its index; 'ant' has"):
        config_classes(config)


@pytest.mark.parametrize("names", [["1", "2", "3", "4"], ["2", "0", "1"], [2, 0, 1]])
def test_whole_numbers_that_may_be_indices_or_names_are_refused(names):
    """For example Flowers, whose classes are called 1 to 102: 1 may be the second class or the first."""
    labels = [1, 2] if len(names) == 3 else [1, 2, 3]
    numbers = datasets.Dataset.from_dict({"label": labels})
    with pytest.raises(ValueError, match=r"holds whole numbers, as 1, .* make the column text if"):
        align_labels(numbers, dict(enumerate(names)))
    text = datasets.Dataset.from_dict({"label": [str(label) for label in labels]})
    found = align_labels(text, dict(enumerate(names)))["label"]
    assert [str(names[index]) for index in found] == [str(label) for label in labels]
    same = align_labels(numbers, {i: str(i) for i in range(4)})
    assert same["label"] == labels
