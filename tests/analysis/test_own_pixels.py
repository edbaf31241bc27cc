"""Every model that is compared sees its own pixels, or is refused with the settings in which the processors differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

from mechvit import HookedViT
from mechvit.analysis import corrupted_performance, evaluate, linear_cka, study
from mechvit.analysis.inputs import distinct, image_batches, model_batches, pixel_values
from mechvit.analysis.interventions.activation_patching import patch_models
from mechvit.analysis.interventions.attribution_patching import attribution_patching
from mechvit.analysis.interventions.head_effects import head_links
from mechvit.analysis.interventions.neuron_patching import patch_neurons
from mechvit.analysis.weights.interpolation import interpolate_weights
from mechvit.analysis.weights.smallest_set import smallest_set
from mechvit.analysis.weights.swapping import swap_weights
from mechvit.data import Corruption, ImageBatch, iter_batches, load_images, prepare

BLUR = Corruption("gaussian_blur", 2)
SQUARE = {"size": {"height": 32, "width": 32}}
PROCESSORS = {
    "own": ViTImageProcessorPil(**SQUARE),
    "another filter": ViTImageProcessorPil(**SQUARE, resample=3),
    "another crop": CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
    "another mean": ViTImageProcessorPil(**SQUARE, image_mean=[0.4] * 3, image_std=[0.3] * 3),
}


@pytest.fixture
def models(tiny_hf):
    """The same weights with every processor, so that all differences are the pixels'."""
    return {name: HookedViT.from_hf(tiny_hf, image_processor=each) for name, each in PROCESSORS.items()}


@pytest.fixture(scope="module")
def raw():
    """16 crops of 50 pixels, which every processor has to resize."""
    images = load_images("photos", "test", limit=16, image_size=50)
    return images.map(lambda row: {"label": row["label"] % 5}, keep_in_memory=True, load_from_cache_file=False)


@pytest.fixture(scope="module")
def images(raw):
    """The same, prepared for all models at once."""
    return prepare(raw, list(PROCESSORS.values()))


def test_a_set_for_several_models_has_a_column_for_each_way_of_resizing(images):
    units = {"cluster", "stratum"}  # of crops of photographs
    assert set(images.column_names) == {"pixels", "pixels_2", "pixels_3", "label", "image_id", "sha256"} | units


@pytest.mark.parametrize("kind", ["raw", "prepared"])
def test_each_model_sees_what_its_own_processor_makes(models, raw, images, kind):
    """The reference is transformers' own output, picture by picture."""
    given = raw if kind == "raw" else images
    found = {name: [] for name in models}
    for batches in model_batches(models, given, 5):
        for name, model in models.items():
            found[name].append(pixel_values(model, batches[name]))
        shared = [set(names) for _, names in distinct(batches)]
        assert shared == [{"own", "another mean"}, {"another filter"}, {"another crop"}]
    for name, processor in PROCESSORS.items():
        expected = processor([row["image"] for row in raw], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(torch.cat(found[name]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["raw", "prepared"])
def test_models_together_get_what_each_gets_alone(models, raw, images, kind):
    """`study` and `corrupted_performance` of all, against `evaluate` of one on raw pictures."""
    given = raw if kind == "raw" else images
    together = study(models, given, [BLUR], batch_size=6).performance
    errors = corrupted_performance(models, given, [BLUR], batch_size=6)
    for name, model in models.items():
        for corruption in ("clean", BLUR):
            alone = evaluate(model, raw, corruption)
            key = corruption if isinstance(corruption, str) else corruption.key
            for table in (together, errors):
                part = table[(table["model"] == name) & (table["corruption"] == key)]
                np.testing.assert_allclose(part["probability"], alone.probability, rtol=0, atol=1e-5)
    predictions = errors[errors["corruption"] == "clean"].pivot(index="image_id", columns="model", values="probability")
    assert (predictions["own"] - predictions["another crop"]).abs().max() > 0.01  # which the first one's pixels hid


def test_cka_of_each_models_own_pixels(models, images, raw):
    """The same weights: CKA is 1 where both see the same bytes, and less where they do not."""
    same = linear_cka(models["own"], models["own"], images, tokens="mean", groups=2, debiased=False)
    other = linear_cka(models["own"], models["another crop"], images, tokens="mean", groups=2, debiased=False)
    torch.testing.assert_close(same.value, torch.ones_like(same.value), rtol=0, atol=1e-6)
    assert other.value.max() < 0.999
    from_raw = linear_cka(models["own"], models["another crop"], raw, tokens="mean", groups=2, debiased=False)
    torch.testing.assert_close(from_raw.value, other.value, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"CKA of patches at one place needs .*size .*'shortest_edge': 40"):
        linear_cka(models["own"], models["another crop"], images, tokens="patch", groups=2)
    linear_cka(models["own"], models["another filter"], images, tokens="patch", groups=2)


@pytest.mark.parametrize("other", ["another filter", "another crop"])
def test_activations_are_not_patched_between_different_pixels(models, images, other):
    own, named = models["own"], "resample" if other == "another filter" else "crop_size"
    patching = patch_models(own, own, images, BLUR, kinds=("head",))
    calls = [
        lambda: patch_models(own, models[other], images, BLUR, kinds=("resid",)),
        lambda: attribution_patching(own, models[other], images, BLUR),
        lambda: patch_neurons(own, models[other], images, BLUR, [(0, 0)]),
        lambda: head_links(own, models[other], images, BLUR, patching),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"in the other's place needs .* resize and crop alike; .*{named}"):
            call()


def test_a_giver_normalises_its_own_pixels(models, images, raw):
    """The giver's values of `patch_models` are those of the giver alone, with its own mean and deviation."""
    found = patch_models(models["own"], models["another mean"], images, BLUR, kinds=("resid",)).references()
    for condition, name in (("receiver", "own"), ("giver", "another mean")):
        alone = evaluate(models[name], raw, BLUR)
        part = found[found["condition"] == condition]
        np.testing.assert_array_equal(part["correct"], (alone.rank == 0).numpy())


@pytest.mark.parametrize("other", ["another filter", "another crop"])
def test_weights_are_not_swapped_between_different_pixels(models, images, other):
    named = {"another filter": "resample", "another crop": "crop_size"}[other]
    for call in (swap_weights, interpolate_weights):
        with pytest.raises(ValueError, match=rf"weights of one in the other's place needs .*{named}"):
            call(models["own"], models[other], images, [BLUR])
    with pytest.raises(ValueError, match=rf"weights of one in the other's place needs .*{named}"):
        smallest_set(models["own"], models[other], images, BLUR)


def test_a_giver_s_embedding_normalises_its_own_pixels(models, images, raw):
    """With two means each embedding has its own; no line lies between the two embeddings."""
    found = swap_weights(models["own"], models["another mean"], images, [BLUR]).reference_frame()
    for condition, name in (("receiver", "own"), ("giver", "another mean")):
        alone = evaluate(models[name], raw, BLUR)
        part = found[found["condition"] == condition]
        np.testing.assert_array_equal(part["correct"], (alone.rank == 0).numpy())
    with pytest.raises(ValueError, match=r"to interpolate the embedding needs .*image_mean"):
        interpolate_weights(models["own"], models["another mean"], images, [BLUR])


def test_images_prepared_for_another_model_are_refused(models, raw):
    prepared = prepare(raw, PROCESSORS["own"])
    evaluate(models["another mean"], prepared)
    for name, setting in (("another filter", "resample bilinear and bicubic"), ("another crop", "crop_size None and")):
        with pytest.raises(ValueError, match=f"were resized for another model: .*{setting}"):
            evaluate(models[name], prepared)
        with pytest.raises(ValueError, match=f"were resized for another model: .*{setting}"):
            study({"own": models["own"], name: models[name]}, prepared, [])


def test_a_batch_remembers_what_resized_it(models, raw):
    batch = next(iter_batches(raw, PROCESSORS["own"], 16))
    evaluate(models["another mean"], batch)
    for call in (pixel_values, evaluate):
        with pytest.raises(ValueError, match="resized for another model: resample bilinear and bicubic"):
            call(models["another filter"], batch)
    assert next(image_batches(models["own"], batch, 4)).resized_by == batch.resized_by


def test_pixels_of_unknown_origin_are_for_models_that_resize_alike(models):
    """Tensors made by hand are taken as they are, but not for two models of which one would be shown the wrong ones."""
    batch = ImageBatch(torch.rand(8, 3, 32, 32), torch.arange(8) % 5, torch.arange(8))
    evaluate(models["another crop"], batch)
    corrupted_performance({name: models[name] for name in ("own", "another mean")}, batch, [BLUR])
    with pytest.raises(ValueError, match=r"already resized, needs .*of own and another filter differ in resample"):
        corrupted_performance(models, batch, [BLUR])
