"""Image sources: disjoint parts, bad files named, hub errors that say what to do, labels aligned."""

from __future__ import annotations

import warnings
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from mechvit.data import align_labels, iter_batches, load_images, prepare
from mechvit.data.sources import photos
from mechvit.data.sources.photos import PHOTOGRAPHS, SPLITS, cells, crop_box, photograph

ROLES = ("finetune", "finetune_validation", "sae", "sae_validation", "test")


def save_image(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    for label, name in enumerate(["cat", "dog", "elk"]):
        for i in range(20):
            save_image(tmp_path / "images" / name / f"{i:02}.{'jpg' if i % 2 else 'png'}", seed=100 * label + i)
    return tmp_path / "images"


# photos


@pytest.mark.parametrize("size", [48, 64])
def test_photo_parts_never_share_a_pixel(size):
    """Paint every crop of every role on a map of its photograph: no pixel is painted by two parts."""
    for name in PHOTOGRAPHS:
        image = photograph(name)
        painted = {part: np.zeros((image.height, image.width), bool) for part in set(SPLITS.values())}
        for split, part in SPLITS.items():
            for index in range(60):
                left, top, right, bottom = crop_box(name, split, index, size, seed=0)
                assert 0 <= left < right <= image.width
                assert 0 <= top < bottom <= image.height
                painted[part][top:bottom, left:right] = True
        assert all(mask.any() for mask in painted.values()), f"{name} lacks a part"
        assert np.sum(list(painted.values()), axis=0).max() == 1, f"two parts of {name} overlap"


@pytest.mark.parametrize("size", [48, 64])
def test_no_crop_depends_on_pixels_of_another_part(size, monkeypatch):
    """Each photograph's other cells are turned to their negative: every crop stays as it is, to the last pixel."""
    for split, part in (("test", "test"), ("finetune", "train"), ("validation", "validation"), ("sae", "sae")):
        before = load_images("photos", split, limit=114, image_size=size)

        def altered(name, part=part):
            pixels = 255 - np.asarray(photograph(name))
            for cell in (cell for cell in cells(name, size) if cell.part == part):
                rows, columns = slice(cell.top, cell.top + cell.height), slice(cell.left, cell.left + cell.width)
                pixels[rows, columns] = 255 - pixels[rows, columns]
            return Image.fromarray(pixels)

        with monkeypatch.context() as patched:
            patched.setattr(photos, "photograph", altered)
            after = load_images("photos", split, limit=114, image_size=size)
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(np.asarray(old["image"]), np.asarray(new["image"]), err_msg=old["file"])


def test_photo_cells_tile_the_photograph():
    for name in PHOTOGRAPHS:
        covered = np.zeros((photograph(name).height, photograph(name).width), int)
        for cell in cells(name, 64):
            covered[cell.top : cell.top + cell.height, cell.left : cell.left + cell.width] += 1
        assert (covered == 1).all()


def test_photos_are_balanced_prefixes_with_unique_ids():
    small, large = (load_images("photos", "test", limit=n) for n in (19, 57))
    assert small["label"] == list(range(19))
    assert large["image_id"][:19] == small["image_id"]
    np.testing.assert_array_equal(np.asarray(large[5]["image"]), np.asarray(small[5]["image"]))
    ids = [i for split in SPLITS for i in load_images("photos", split, limit=19)["image_id"]]
    assert len(set(ids)) == len(ids)
    assert small[0]["image"].size == (64, 64)
    assert small.features["label"].names == list(PHOTOGRAPHS)


def test_finetune_draws_other_crops_than_train():
    train, finetune = (set(load_images("photos", split, limit=190)["file"]) for split in ("train", "finetune"))
    assert len(train & finetune) <= 2


# folder


def test_folder_parts_are_disjoint_and_cover(folder):
    files = {split: load_images(f"folder:{folder}", split)["file"] for split in ROLES}
    parts = [set(files["finetune"]), set(files["finetune_validation"]), set(files["sae"]), set(files["test"])]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60
    assert files["sae_validation"] == files["finetune_validation"]
    ids = [
        i
        for s in ("finetune", "finetune_validation", "sae", "test")
        for i in load_images(f"folder:{folder}", s)["image_id"]
    ]
    assert sorted(ids) == list(range(60))


def test_folder_is_class_balanced_whatever_the_limit(folder):
    labels = load_images(f"folder:{folder}", "finetune", limit=9)["label"]
    assert sorted(labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (
        load_images(f"folder:{folder}", "finetune", seed=1)["file"]
        != load_images(f"folder:{folder}", "finetune")["file"]
    )


def break_files(folder: Path) -> list[str]:
    """Truncate one JPEG of each class, and put a text file among the images."""
    broken = [folder / name / "03.jpg" for name in ("cat", "dog", "elk")]
    for path in broken:
        path.write_bytes(path.read_bytes()[:500])
    (folder / "cat" / "notes.txt").write_text("these are cats")
    return [path.name for path in broken] + ["notes.txt"]


def test_bad_files_are_named(folder):
    break_files(folder)
    messages = []
    for split in ROLES:
        try:
            load_images(f"folder:{folder}", split)
        except ValueError as error:
            messages.append(str(error))
    assert messages, "at least one part holds a bad file"
    assert all("03.jpg cannot be decoded" in m or "notes.txt is not an image" in m for m in messages)
    assert all("bad_files='skip'" in m for m in messages)


def test_bad_files_are_skipped_and_counted_on_request(folder):
    names = break_files(folder)
    kept: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for split in ("finetune", "finetune_validation", "sae", "test"):
            kept += load_images(f"folder:{folder}", split, bad_files="skip")["file"]
    warned = sum(int(str(w.message).split()[2]) for w in caught if "left out" in str(w.message))
    assert len(kept) == 57
    assert warned == 4
    assert not {Path(file).name for file in kept if "cat" in file} & {names[0], "notes.txt"}


def test_skipping_fills_up_to_the_limit(folder):
    order = load_images(f"folder:{folder}", "test")["file"]
    Path(order[0]).write_text("no image")
    with pytest.warns(UserWarning, match="left out 1 of 6 files"):
        kept = load_images(f"folder:{folder}", "test", limit=5, bad_files="skip")["file"]
    assert kept == order[1:6]


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")])
def test_folder_without_images_is_refused(tmp_path, make):
    make(tmp_path / "empty")
    with pytest.raises(ValueError, match="sub-folder"):
        load_images(f"folder:{tmp_path / 'empty'}")


def test_folders_of_numbers_come_as_numbers(tmp_path):
    for i in range(12):
        save_image(tmp_path / str(i) / "0.png", seed=i)
        save_image(tmp_path / str(i) / "1.png", seed=100 + i)
    images = load_images(f"folder:{tmp_path}", "finetune")
    assert images.features["label"].names == [str(i) for i in range(12)]
    aligned = align_labels(images, {i: f"LABEL_{i}" for i in range(20)}, say=print)
    assert aligned["label"] == [int(Path(file).parent.name) for file in images["file"]]


def test_folders_names_are_composed(tmp_path):
    """macOS writes the accents of folders apart; a checkpoint's JSON does not."""
    for i in range(10):
        save_image(tmp_path / "cafe\u0301" / f"{i}.png", seed=i)
    images = load_images(f"folder:{tmp_path}", "finetune")
    assert images.features["label"].names == ["caf\u00e9"]
    assert Path(images[0]["file"]).is_file()
    assert set(align_labels(images, {0: "bar", 1: "caf\u00e9"})["label"]) == {1}
    save_image(tmp_path / "caf\u00e9" / "0.png", seed=0)
    with pytest.raises(ValueError, match=r"two folders called 'café'"):
        load_images(f"folder:{tmp_path}", "finetune")


# hub


def hub_set(folder: Path, features: dict[str, object], rows: dict[str, list], split: str = "validation") -> str:
    """A folder of Parquet files in the hub's layout."""
    (folder / "data").mkdir(exist_ok=True)
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    made.to_parquet(folder / "data" / f"{split}-00000.parquet")
    return str(folder)


def test_one_of_several_columns_must_be_named(tmp_path):
    """CIFAR-100's layout, with a second column of pictures."""
    pictures = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(40)]
    source = hub_set(
        tmp_path,
        {
            "img": datasets.Image(),
            "mask": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=["ant", "bee", "cow", "dog"]),
            "coarse_label": datasets.ClassLabel(names=["insect", "mammal"]),
        },
        {
            "img": pictures,
            "mask": [Image.new("L", (8, 8), i) for i in range(40)],
            "fine_label": [i % 4 for i in range(40)],
            "coarse_label": [i % 4 // 2 for i in range(40)],
        },
    )
    with pytest.raises(
        ValueError, match=r"2 columns that can be the image, img and mask: name one, as in .*:image=img"
    ):
        load_images(source)
    with pytest.raises(
        ValueError, match=r"fine_label and coarse_label: name one, as in .*@validation:image=img:label=fine_label"
    ):
        load_images(f"{source}@validation:image=img")
    fine = load_images(f"{source}:image=img:label=fine_label")
    coarse = load_images(f"{source}@validation:label=coarse_label:image=mask")
    assert fine.features["label"].names == ["ant", "bee", "cow", "dog"]
    assert fine["label"] == [i % 4 for i in fine["image_id"]]
    assert coarse["label"] == [i % 4 // 2 for i in coarse["image_id"]]
    assert fine[0]["image"].mode == "RGB"
    assert coarse[0]["image"].getpixel((0, 0)) == (coarse[0]["image_id"],) * 3
    for wrong, message in [
        (":image=img:label=species", "no column 'species'"),
        (":image=fine_label:label=fine_label", "'fine_label' of .* holds no images"),
        (":image=img:image=mask", "named once each"),
        (":lable=fine_label", "named once each"),
        (":image=img:label=", "named once each"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_images(source + wrong)


def test_columns_of_text_and_numbers_are_classes_only_where_named(tmp_path):
    pictures = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(20)]
    source = hub_set(
        tmp_path,
        {
            "image": datasets.Image(),
            "species": datasets.Value("string"),
            "grade": datasets.Value("int64"),
            "score": datasets.Value("float32"),
        },
        {
            "image": pictures,
            "species": ["wolf", "ant"] * 10,
            "grade": [2, 0] * 10,
            "score": [0.0, 1.0] * 10,
        },
    )
    with pytest.raises(ValueError, match=r"must have a ClassLabel column.*:label=species"):
        load_images(source)
    assert load_images(f"{source}:label=species").features["label"].names == ["ant", "wolf"]
    by_grade = load_images(f"{source}:label=grade")
    assert by_grade.features["label"].names == ["0", "1", "2"]
    assert by_grade["label"] == [2 - 2 * (i % 2) for i in by_grade["image_id"]]
    with pytest.raises(ValueError, match="'label' holds float32"):
        load_images(f"{source}:label=score")


@pytest.mark.parametrize("missing", [-1, None])
def test_hub_images_without_a_label_are_counted_or_left_out(tmp_path, missing):
    source = hub_set(
        tmp_path,
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])},
        {
            "image": [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(40)],
            "label": [missing if i % 4 == 0 else i % 2 for i in range(40)],
        },
    )
    with pytest.raises(ValueError, match=r"10 of 40 images of .* have no label .* with unlabelled='skip'"):
        load_images(source)
    with pytest.warns(UserWarning, match="left out 10 of 40 images"):
        parts = [load_images(source, split, unlabelled="skip") for split in ("finetune", "sae", "test")]
    ids = [i for part in parts for i in part["image_id"]]
    assert all(i % 4 for i in ids)
    assert all(part[0]["image"].getpixel((0, 0))[0] == part[0]["image_id"] for part in parts)
    assert [i % 2 for i in ids] == [label for part in parts for label in part["label"]]


def test_hub_layout_loads_offline(tmp_path):
    """A local folder of Parquet files in the hub's layout goes the way of a hub set."""
    features = datasets.Features({"picture": datasets.Image(), "fine_label": datasets.ClassLabel(names=["a", "b"])})
    for split, count in [("train", 4), ("validation", 40)]:
        rows = {
            "picture": [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(count)],
            "fine_label": [i % 2 for i in range(count)],
        }
        (tmp_path / "data").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / f"{split}-00000.parquet")
    ids = {split: load_images(str(tmp_path), split)["image_id"] for split in ROLES}
    assert sum(len(ids[s]) for s in ("finetune", "finetune_validation", "sae", "test")) == 40, "validation is preferred"
    images = load_images(str(tmp_path), "test", limit=2)
    assert images.column_names == ["image", "label", "image_id", "file"]
    assert images[0]["image"].getpixel((0, 0))[0] == images[0]["image_id"]
    assert len(load_images(f"{tmp_path}@train", "finetune")) <= 4
    with pytest.raises(ValueError, match=r"has the splits train, validation; got 'nope'"):
        load_images(f"{tmp_path}@nope")


def test_unreachable_hub_set_says_what_to_do():
    with pytest.raises(ConnectionError, match=r"Check the n.*photos \(embedded\).*folder:PATH"):
        load_images("ILSVRC/imagenet-1k")


def test_a_sets_script_is_never_run(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    (folder / "test.parquet").write_bytes(b"")
    for source in (folder, folder / "set.py"):
        with pytest.raises(ValueError, match=r"brings a script, which is never run \(.*set\.py\)"):
            load_images(str(source), "test")
    assert not (tmp_path / "ran").exists()


def test_gated_hub_set_says_what_to_do(monkeypatch):
    def gated(name: str) -> None:
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset_builder", gated)
    with pytest.raises(
        PermissionError, match=r"ILSVRC/imagenet-1k is gated: accept its terms at https://.*hf auth login"
    ):
        load_images("ILSVRC/imagenet-1k")


def test_folder_without_prefix_is_explained(folder):
    with pytest.raises(ValueError, match="write folder:"):
        load_images(str(folder))


# arguments, pixels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "testing"}, "split must be all or one of"),
        ({"limit": 0}, "limit must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_images("photos", **arguments)


def test_bad_files_must_be_a_known_word(folder):
    with pytest.raises(ValueError, match="'error' or 'skip'; got 'ignore'"):
        load_images(f"folder:{folder}", bad_files="ignore")


def test_prepare_is_the_processors_own_resize(folder, tiny_processor, tmp_path):
    images = load_images(f"folder:{folder}", "test")
    prepared = prepare(images, tiny_processor, path=tmp_path / "prepared")
    batch = next(iter_batches(prepared, batch_size=4))
    expected = tiny_processor([row["image"] for row in images.select(range(4))], return_tensors="pt")["pixel_values"]
    np.testing.assert_allclose((batch.images.numpy() - 0.5) / 0.5, expected.numpy(), atol=1e-6)
    assert batch.image_ids.tolist() == images["image_id"][:4]
    raw = next(iter_batches(images, tiny_processor, batch_size=4))
    np.testing.assert_array_equal(raw.images, batch.images)
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_iter_batches_covers_everything_once(tiny_images):
    batches = list(iter_batches(tiny_images, batch_size=10))
    assert [len(b) for b in batches] == [10, 10, 4]
    assert [int(i) for b in batches for i in b.image_ids] == tiny_images["image_id"]


def test_iter_batches_names_what_is_missing(tiny_images):
    with pytest.raises(ValueError, match="lacks image_id"):
        next(iter_batches(tiny_images.remove_columns("image_id")))
    with pytest.raises(ValueError, match="'pixels'"):
        next(iter_batches(load_images("photos", limit=3)))


def test_the_path_below_the_folder_stays_with_each_image(folder, tiny_processor):
    images = load_images(f"folder:{folder}", "test", limit=9)
    assert images["path"] == [Path(file).relative_to(folder).as_posix() for file in images["file"]]
    aligned = align_labels(images, {0: "elk", 1: "dog", 2: "cat"})
    prepared = prepare(aligned, tiny_processor)
    assert prepared["path"] == images["path"]
    assert prepared.column_names == ["pixels", "label", "image_id", "path", "sha256"]
