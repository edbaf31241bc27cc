"""A run that some stage could not do is refused before the first stage: by its model, its images, its device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mechvit.data.sources.load import count_images, load_images
from mechvit.experiment import ExperimentConfig, ImageCounts, reproduce
from mechvit.experiment.preflight import Shape, check_images, check_saes, preflight, tokens_of
from mechvit.experiment.runs.stages import Stages
from mechvit.saes import SAEConfig
from mechvit.settings_checks import SettingError

PARTS = ("finetune", "finetune_validation", "sae", "sae_validation", "test")


def folder(place, each: int) -> str:
    """So many pictures of each of two classes, as `--images` takes them."""
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (place / name).mkdir(parents=True)
        for index in range(each):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(place / name / f"{index:03}.png")
    return f"folder:{place}"


@pytest.fixture(scope="module")
def checkpoint(tiny_hf, tiny_processor, tmp_path_factory) -> str:
    place = tmp_path_factory.mktemp("model") / "base"
    tiny_hf.save_pretrained(place)
    tiny_processor.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def config(checkpoint, tmp_path_factory) -> ExperimentConfig:
    """A config for a model of 3 blocks, width 32 and 17 tokens, and for 40 images."""
    return ExperimentConfig(
        model=checkpoint,
        images=folder(tmp_path_factory.mktemp("images"), 20),
        device="cpu",
        corruptions=("gaussian_blur_2",),
        related=(),
        saes=SAEConfig(k=4, expansion_factor=4, train_batch_size_tokens=64),
    )


@pytest.mark.long
def test_what_is_found_of_a_given_model(config):
    assert preflight(config, config.tuned, PARTS) == Shape(image_size=32, n_layers=3, d_model=32, tokens=17)
    patches = replace(config, saes=replace(config.saes, tokens="patches"))
    assert preflight(patches, config.tuned, PARTS).tokens == 16


def test_counting_a_folder_opens_no_picture_and_agrees_with_loading(config):
    counted = {part: count_images(config.images, part, seed=3) for part in PARTS}
    assert counted == {part: len(load_images(config.images, part, seed=3)) for part in PARTS}
    assert count_images("photos", "test") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "mars"}, "device 'mars' cannot be used here"),
        ({"model": "nowhere/at/all"}, "nowhere/at/all"),
        ({"corruptions": ("gaussian_blur_400",)}, "gaussian_blur at level 400 mirrors"),
        ({"images": "folder:nowhere"}, "nowhere is not a folder"),
        ({"saes": {"k": 129}}, "k must be at most the 128 latents"),
        ({"saes": {"hook_layer": 3}}, "hook_layer must be one of the model's blocks, 0 to 2; got 3"),
        ({"saes": {"hook_names": ("blocks.3.hook_mlp_out",)}}, "blocks.2.hook_resid_post, the last; got 'blocks.3"),
        ({"saes": {"hook_names": ("blocks.1.attn.hook_z",)}}, "hook_names must be a block's"),
        ({"saes": {"train_batch_size_tokens": 4096}}, "train_batch_size_tokens must be at most"),
        ({"saes": {"segment_images": 2}}, "train_batch_size_tokens must be at most"),
    ],
)
def test_what_the_stages_could_not_do_is_refused_before_the_first(config, changes, message, tmp_path, monkeypatch):
    def stage(*args, **kwargs):
        raise AssertionError("a stage was begun")

    monkeypatch.setattr(Stages, "run", stage)
    changes = {name: replace(config.saes, **own) if name == "saes" else own for name, own in changes.items()}
    with pytest.raises(ValueError, match=message):
        reproduce(replace(config, out=str(tmp_path / "run"), **changes))
    assert not list(tmp_path.iterdir())


def test_too_few_images_are_named(config, tmp_path):
    few = replace(config, images=folder(tmp_path / "few", 1))
    with pytest.raises(SettingError, match=r"images must have at least 2 for the part (test|finetune); folder:"):
        preflight(few, config.tuned, PARTS)
    check_images(config, Shape(32, 3, 32, 17), {"finetune": 2, "test": 2, "sae": 4})
    with pytest.raises(SettingError, match="images must have at least 2 for the part test"):
        check_images(config, Shape(32, 3, 32, 17), {"finetune": 2, "test": 1, "sae": 4})


def test_a_model_without_a_classifier_is_refused(config, tiny_hf, tiny_processor, tmp_path):
    tiny_hf.vit.save_pretrained(tmp_path / "bare")
    tiny_processor.save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="classification head"):
        preflight(replace(config, model=str(tmp_path / "bare")), config.tuned, PARTS)


@pytest.mark.parametrize(("tokens", "batch", "fits"), [(17, 68, True), (17, 67, True), (17, 69, False), (1, 4, True)])
def test_a_batch_of_two_models_has_equal_halves(tokens, batch, fits):
    """Four images: a batch of odd size is made even, since base and tuned model give half each."""
    saes, shape = SAEConfig(k=4, train_batch_size_tokens=batch), Shape(32, 3, 32, tokens)
    if fits:
        check_saes(saes, shape, 4)
    else:
        with pytest.raises(
            SettingError, match=f"must be at most {4 * tokens}, since 4 images give {tokens} tokens each"
        ):
            check_saes(saes, shape, 4)


def test_tokens_of_an_image():
    assert [tokens_of(which, 16, 5) for which in ("all", "patches", "cls")] == [21, 16, 1]
    with pytest.raises(SettingError, match="the model has no class token"):
        tokens_of("cls", 16, 0, cls=False)
    assert ImageCounts().test > 2
