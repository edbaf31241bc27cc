"""Class names matched: every class once and rightly, or refused with both names."""

from __future__ import annotations

import unicodedata
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_cases import UNNAMED, labelled, matched, said

from mechvit.data import InferredLabels, align_labels
from mechvit.data.sources.labels import match_classes

HERONS = {0: "heron, shitepoke", 1: "shitepoke"}


@pytest.mark.parametrize(
    ("names", "id2label", "expected"),
    [
        (["cat", "dog"], {0: "Dog", 1: "elk", 2: "CAT"}, [2, 0]),
        (["tench", "great_white-shark"], {0: "tench, Tinca tinca", 1: "ant", 2: "great white shark, shark"}, [0, 2]),
        (["heron, shitepoke", "shitepoke"], HERONS, [0, 1]),
        (["shitepoke", "heron"], HERONS, [1, 0]),
        (["Shitepoke"], HERONS, [1]),
        (["shitepoke", "heron, shitepoke"], HERONS, [1, 0]),
        (["cat ", " dog"], {0: "dog", 1: "cat"}, [1, 0]),
        (["jack_o_lantern", "St. Bernard"], {0: "Saint Bernard, St Bernard", 1: "jack-o'-lantern"}, [1, 0]),
        (["grade B-", "grade B"], {0: "Grade B", 1: "Grade B-"}, [1, 0]),
        (["1.5", "15", "-1"], {0: "-1", 1: "1.5", 2: "15"}, [1, 2, 0]),
        (["tench, Tinca tinca"], {0: "ant", 1: "tench"}, [1]),
        (["shark, great white"], {0: "ant", 1: "great white, shark, man-eater"}, [1]),
        ([unicodedata.normalize("NFD", "Café"), "thé"], {0: "thé", 1: "café"}, [1, 0]),
        (["Cardigan", "cardigan"], {0: "cardigan", 1: "Cardigan, Cardigan Welsh corgi"}, [1, 0]),
        (["7", "3"], {0: 3, 1: 7}, [1, 0]),
    ],
)
def test_names_match(names, id2label, expected):
    assert align_labels(labelled(names), id2label, say=print)["label"] == expected


@pytest.mark.parametrize(
    ("names", "id2label", "message"),
    [
        (["shitepoke, bittern"], HERONS, r"0 \(heron, shitepoke\) or 1 \(shitepoke\)"),
        (
            ["Cardigan"],
            {0: "cardigan", 1: "Cardigan, Cardigan Welsh corgi"},
            r"could be 0 \(cardigan\) or 1 \(Cardigan",
        ),
        (["CAT", "Cat"], {0: "cat", 1: "dog"}, r"'CAT' and 'Cat' would all be 0 \(cat\)"),
        (["partridge", "Partridge"], {0: "ruffed grouse, partridge", 1: "partridge"}, r"'Partridge' could only be 1"),
        (["crane"], {0: "crane", 1: "drake", 2: "crane"}, r"could be 0 \(crane\) or 2 \(crane\)"),
        (["C#"], {0: "C++", 1: "D"}, "C#"),
        (["lesion, benign"], {0: "lesion, malignant", 1: "x"}, r"'lesion, benign' shares a name with 0 .*malignant\)"),
        (["a, b", "A, c"], {0: "a, c", 1: "a, d"}, r"'a, b' shares a name with 1 \(a, d\)"),
        (["a, b", "a"], {0: "a, c", 1: "a, d"}, r"'a' could be 0 \(a, c\) or 1 \(a, d\)"),
        (["x", "Melanoma, stage 1"], {0: "melanoma, stage 2", 1: "x"}, "each has another that the other lacks"),
        (["B-"], {0: "B", 1: "C"}, "B-"),
        (["-1"], {0: "1", 1: "0"}, "-1"),
        (["1 5"], {0: "1.5", 1: "2"}, "1 5"),
    ],
)
def test_what_is_not_sure_is_refused(names, id2label, message):
    with pytest.raises(ValueError, match=message):
        align_labels(labelled(names), id2label)


def test_numbers_are_indices_of_all_classes_or_of_unnamed_ones():
    names = sorted(str(i) for i in range(12))  # 0, 1, 10, 11, 2, …
    named = {i: f"kind {chr(97 + i)}" for i in range(12)}
    assert align_labels(labelled(names), named, say=print)["label"] == [int(name) for name in names]
    assert matched(["7", "3"], UNNAMED) == [7, 3]
    assert matched(["LABEL_7", "LABEL_3"], UNNAMED) == [7, 3]
    assert matched(["LABEL_1", "LABEL_0"], {0: "cat", 1: "dog"}) == [1, 0]
    assert matched(["2", "1"], {0: "1", 1: "2"}) == [1, 0], "names come first"
    assert said(names, named) == ["12 classes matched by their numbers, which are class indices"]


@pytest.mark.parametrize(
    ("names", "id2label", "message"),
    [
        (["3", "7"], {0: "cat", 1: "dog"}, "'3' is a number"),
        (["1", "2"], {0: "cat", 1: "dog"}, "'1' is a number.*0 to 1"),
        (["0", "2"], {0: "LABEL_0", 1: "LABEL_1"}, "'2' is no class index, 0 to 1"),
        (["1", "01"], UNNAMED, "'1' is the index 1, as is another"),
        (["cat", "dog"], {0: "LABEL_0", 1: "LABEL_1"}, "cat, dog"),
        (["0", "1"], {0: "LABEL_1", 1: "LABEL_0"}, "'0' is a number"),
    ],
)
def test_numbers_that_prove_nothing_are_refused(names, id2label, message):
    with pytest.raises(ValueError, match=message):
        align_labels(labelled(names), id2label)


def test_inferred_matchings_are_said_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            align_labels(labelled(["n02102040", "n03888257"]), UNNAMED)
            align_labels(labelled(["Cat", "dog"]), {0: "dog", 1: "cat"})
    assert [w.category for w in caught] == [InferredLabels] * 2
    assert str(caught[1].message) == "1 class matched by case and punctuation: Cat as 1 (cat)"


def test_only_classes_with_images_need_be_the_checkpoints():
    images = labelled(["zebra", "dog", "cat"], [2, 1, 1])
    assert align_labels(images, {0: "cat", 1: "dog"})["label"] == [0, 1, 1]
    with pytest.raises(ValueError, match=r"1 of the data set's 3 classes are not among the checkpoint's 2: zebra"):
        align_labels(labelled(["zebra", "dog", "cat"], [0, 1]), {0: "cat", 1: "dog"})


def test_labels_keep_doubled_class_names():
    aligned = align_labels(labelled(["drake", "crane (2)", "crane"]), {0: "crane", 1: "drake", 2: "crane"})
    assert aligned.features["label"].names == ["crane", "drake", "crane (2)"]
    assert aligned["label"] == [1, 2, 0]
    written = align_labels(labelled(["a"]), {0: "a", 1: "crane", 2: "crane (3)", 3: "crane"})
    assert len(set(written.features["label"].names)) == 4


WORDS = st.sampled_from(["cat", "Cat", "CAT ", "dog", "elk", "big cat", "big-cat", "big_cat", "1", "01", "2", "café"])

LABELS = st.lists(WORDS | st.tuples(WORDS, WORDS).map(", ".join), min_size=1, max_size=6)


@settings(max_examples=400, deadline=None)
@given(names=LABELS, labels=LABELS)
def test_any_matching_is_injective_or_refused(names, labels):
    found = match_classes(names, dict(enumerate(labels)))
    taken = [index for index in found.classes if index is not None]
    assert len(set(taken)) == len(taken)
    assert all((index is None) == (name in found.faults) for name, index in zip(names, found.classes, strict=True))
    assert all(index is None or 0 <= index < len(labels) for index in found.classes)


@settings(max_examples=300, deadline=None)
@given(labels=st.lists(WORDS, min_size=1, max_size=8), seed=st.randoms(use_true_random=False))
def test_permuted_names_find_their_own_class(labels, seed):
    order = list(range(len(labels)))
    seed.shuffle(order)
    found = matched([labels[i] for i in order], dict(enumerate(labels)))
    doubled = [labels[i] for i in order if labels.count(labels[i]) > 1]
    for i, index in zip(order, found, strict=True):
        same_order = order == sorted(order) or [labels[j] for j in order] == labels
        if not same_order and labels[i] in doubled:
            assert index is None, "nothing tells two classes of one name apart but their order"
        elif not same_order:
            assert index == i
    assert matched(labels, dict(enumerate(labels))) == list(range(len(labels)))
