"""ImageNet's names and WordNet ids: every class rightly, or refused."""

from __future__ import annotations

import hashlib
import random
import warnings
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_cases import FIRST, IDS, IMAGENET, ROWS, UNNAMED, labelled, matched, said

from mechvit.data import align_labels
from mechvit.data.sources.labels import match_classes


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


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(
    chosen=st.lists(st.integers(0, 999), min_size=1, max_size=12, unique=True),
    spelling=st.lists(st.sampled_from(["whole", "first", "last", "underscores", "upper"]), min_size=12, max_size=12),
)
def test_imagenets_synonyms_are_right_or_refused(chosen, spelling):
    """Any classes by any of their names give their own class, or another that has exactly this name, or none."""
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
