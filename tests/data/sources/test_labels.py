"""Class names matched: every class once and rightly, or refused with both names."""

from __future__ import annotations

import csv
import hashlib
import random
import unicodedata
import warnings
from importlib.resources import files

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.data import InferredLabels, align_labels, config_classes
from mechvit.data.sources.label_columns import as_classes
from mechvit.data.sources.labels import match_classes

ROWS = list(csv.reader(files("mechvit.data").joinpath("imagenet_synsets.tsv").open(encoding="utf8"), delimiter="\t"))[
    1:
]
IDS, IMAGENET = [row[1] for row in ROWS], [row[2] for row in ROWS]
FIRST = [name.split(", ")[0] for name in IMAGENET]
UNNAMED = {i: f"LABEL_{i}" for i in range(1000)}
HERONS = {0: "heron, shitepoke", 1: "shitepoke"}


def labelled(names: list[str], labels: list[int] | None = None) -> datasets.Dataset:
    """A data set of these classes with an image of each, or with these labels."""
    rows = list(range(len(names))) if labels is None else labels
    features = datasets.Features({"label": datasets.ClassLabel(names=names), "image_id": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"label": rows, "image_id": list(range(len(rows)))}, features=features)


def of_values(values: list, dtype: str) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"label": values}, features=datasets.Features({"label": datasets.Value(dtype)}))


def matched(names: list[str], id2label: dict[int, str]) -> list[int | None]:
    return list(match_classes(names, id2label).classes)


def said(names: list[str], id2label: dict[int, str]) -> list[str]:
    found: list[str] = []
    align_labels(labelled(names), id2label, say=found.append)
    return found


# names


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
        (["B-"], {0: "B", 1: "C"}, "B-"),
        (["-1"], {0: "1", 1: "0"}, "-1"),
        (["1 5"], {0: "1.5", 1: "2"}, "1 5"),
    ],
)
def test_what_is_not_sure_is_refused(names, id2label, message):
    with pytest.raises(ValueError, match=message):
        align_labels(labelled(names), id2label)


def test_imagenet_as_the_checkpoint_spells_it_is_the_identity():
    """ClassLabel takes no name twice, so the second crane is written as this package writes it, or as `crane2`."""
    assert IMAGENET[134] == IMAGENET[517] == "crane"
    model = dict(enumerate(IMAGENET))
    for second in ("crane (517)", "crane2", "crane (construction)"):
        names = [*IMAGENET[:517], second, *IMAGENET[518:]]
        assert align_labels(labelled(names), model, say=print)["label"] == list(range(1000))
    assert matched(IMAGENET, model) == list(range(1000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        once = align_labels(labelled([*IMAGENET[:517], "crane (517)", *IMAGENET[518:]]), model)
        assert align_labels(once, model)["label"] == list(range(1000)), "what was aligned stays as it is"


def test_imagenet_shuffled_by_any_spelling_is_right():
    order = list(range(1000))
    random.Random(0).shuffle(order)
    model = dict(enumerate(IMAGENET))
    told = {134: "crane (134)", 517: "crane (517)"}
    assert matched([told.get(i, IMAGENET[i]) for i in order], model) == order
    underscored = [told.get(i, IMAGENET[i].replace(" ", "_").replace(",", "")) for i in order]
    assert matched(underscored, model) == order
    assert matched([IDS[i] for i in order], model) == order
    assert matched([str(i) for i in order], model) == order


EVERY_CLASS = pytest.param(range(1000), marks=pytest.mark.slow, id="every class")


@pytest.mark.long
@pytest.mark.parametrize(
    "asked", [pytest.param((*range(0, 1000, 10), 124, 264, 358, 577, 876), id="a tenth"), EVERY_CLASS]
)
def test_imagenets_first_names_are_right_or_refused(asked):
    """638 and 639 are both called maillot first, and 134 and 517 crane: told apart, all are right. Some are names of
    other classes, too, and refused alone."""
    first = [{134: "crane (134)", 517: "crane (517)", 639: "maillot, tank suit"}.get(i, FIRST[i]) for i in range(1000)]
    model = dict(enumerate(IMAGENET))
    assert matched(first, model) == list(range(1000))
    alone = {i: matched([first[i]], model)[0] for i in asked}
    refused = {i: first[i] for i, found in alone.items() if found is None}
    assert refused == {124: "crayfish", 264: "Cardigan", 358: "polecat", 577: "gong", 876: "tub"}
    assert all(found == i for i, found in alone.items() if i not in refused)


def test_imagenets_names_against_first_names_are_right_or_refused():
    found = matched(["crane (134)" if i == 134 else name for i, name in enumerate(IMAGENET)], dict(enumerate(FIRST)))
    assert {i for i, index in enumerate(found) if index != i} == {i for i, index in enumerate(found) if index is None}
    assert sum(index is None for index in found) < 10


# WordNet ids


def test_wordnet_ids_are_the_tables_index_where_classes_are_unnamed():
    names = ["n02102040", "n03888257", "n01440764"]
    assert align_labels(labelled(names), UNNAMED, say=print)["label"] == [217, 701, 0]
    assert said(names, UNNAMED)[0].startswith("3 classes matched by WordNet id")


def test_wordnet_ids_tell_both_cranes_apart():
    assert matched(["n03126707", "n02012849"], dict(enumerate(IMAGENET))) == [517, 134]
    assert matched(["n03126707", "n02012849"], dict(enumerate(FIRST))) == [517, 134]


def test_wordnet_ids_match_named_classes_in_any_order():
    chosen = [217, 701, 0, 474, 86]
    model = {i: IMAGENET[k] for i, k in enumerate(reversed(chosen))}
    assert matched([IDS[k] for k in chosen], model) == [4, 3, 2, 1, 0]
    assert matched([IDS[217]], {0: "parachute", 1: "English_springer"}) == [1]
    assert matched(["parachute", "English springer"], {0: IDS[217], 1: IDS[701]}) == [1, 0]


@pytest.mark.parametrize(
    ("names", "id2label", "message"),
    [
        (["n01440764", "n01443537"], {0: "LABEL_0", 1: "LABEL_1"}, "tench, Tinca tinca.*1,000 classes"),
        (["n01440764", "n01443537"], {0: "cat", 1: "dog"}, "tench, Tinca tinca"),
        (["n03126707"], {0: "crane", 1: "dog"}, r"n03126707.*\(crane\)"),
        (["n02113186"], {0: "cardigan", 1: "dog"}, "Cardigan Welsh corgi"),
        (["n00000001"], UNNAMED, "no class of ImageNet-1k"),
    ],
)
def test_wordnet_ids_without_a_sure_class_are_refused(names, id2label, message):
    with pytest.raises(ValueError, match=message):
        align_labels(labelled(names), id2label)


# numbers


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


# what is said, and where it is not


def test_inferred_matchings_are_said_once(monkeypatch):
    monkeypatch.setattr("mechvit.data.sources.labels._SAID", set())
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


# labels of other kinds, and none


def test_columns_of_other_kinds():
    assert align_labels(of_values(["dog", "cat", "dog"], "string"), {0: "cat", 1: "dog"})["label"] == [1, 0, 1]
    assert align_labels(of_values([1, 0, 1], "int8"), {0: "cat", 1: "dog"}, say=print)["label"] == [1, 0, 1]
    assert align_labels(of_values([701, 3], "int64"), UNNAMED, say=print)["label"] == [701, 3]
    assert align_labels(of_values([True, False], "bool"), {0: "true", 1: "false"}, say=print)["label"] == [0, 1]
    with pytest.raises(ValueError, match="holds float64"):
        align_labels(of_values([0.0, 1.0], "float64"), {0: "cat", 1: "dog"})
    with pytest.raises(ValueError, match="is a number"):
        align_labels(of_values([0, 1], "int64"), {0: "cat", 1: "dog", 2: "elk"})
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
    with pytest.raises(ValueError, match="'error' or 'skip'; got 'keep'"):
        align_labels(images, {0: "cat", 1: "dog"}, unlabelled="keep")


# the checkpoint's side


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


# laws

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


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(
    chosen=st.lists(st.integers(0, 999), min_size=1, max_size=12, unique=True),
    spelling=st.lists(st.sampled_from(["whole", "first", "last", "underscores", "upper"]), min_size=12, max_size=12),
)
def test_imagenets_synonyms_are_right_or_refused(chosen, spelling):
    """Of any classes by any of their names: their own class, or another that has exactly this name, or none."""
    spelled = {
        "whole": lambda name: name,
        "first": lambda name: name.split(", ")[0],
        "last": lambda name: name.split(", ")[-1],
        "underscores": lambda name: name.replace(" ", "_"),
        "upper": str.upper,
    }
    names = [spelled[how](IMAGENET[i]) for i, how in zip(chosen, spelling, strict=False)]
    found = match_classes(names, dict(enumerate(IMAGENET)))
    for i, name, index in zip(chosen, names, found.classes, strict=True):
        assert index in (i, None) or IMAGENET[index].casefold() == name.casefold()


def test_the_table_is_the_packages_own():
    from mechvit.data.sources.synsets import synset_names

    assert synset_names() == dict(zip(IDS, IMAGENET, strict=True))
    assert sorted(IDS) == IDS
    assert [int(row[0]) for row in ROWS] == list(range(1000))


def test_wordnets_licence_is_princetons_own():
    """Against the SHA-256 of LICENSE in Princeton's WordNet-3.0, blanks at the ends of its lines aside."""
    text = files("mechvit.data").joinpath("imagenet_synsets.LICENSE.txt").read_text()
    licence = text[text.index("WordNet Release 3.0") :]
    found = hashlib.sha256(licence.encode()).hexdigest()
    assert found == "e95e845ba95cedf3fb62c96f656ab2d71e4404f3aa84741f1ec2862741965c98"


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
    """As of Flowers, whose classes are called 1 to 102: 1 may be the second class or the first."""
    labels = [1, 2] if len(names) == 3 else [1, 2, 3]
    numbers = datasets.Dataset.from_dict({"label": labels})
    with pytest.raises(ValueError, match=r"holds whole numbers, as 1, .* make the column text if"):
        align_labels(numbers, dict(enumerate(names)))
    text = datasets.Dataset.from_dict({"label": [str(label) for label in labels]})
    found = align_labels(text, dict(enumerate(names)))["label"]
    assert [str(names[index]) for index in found] == [str(label) for label in labels]
    same = align_labels(numbers, {i: str(i) for i in range(4)})
    assert same["label"] == labels
