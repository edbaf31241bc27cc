"""Images under a condition: attacks, paired pictures, functions; models of unequal input size."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from mechvit import HookedViT
from mechvit.analysis import corrupted_performance, evaluate, linear_cka, patch_models, study, swap_weights
from mechvit.analysis.condition_images import check_same_image, resized, shown, shown_to
from mechvit.analysis.inputs import corrupted_batches, model_batches, pixel_values
from mechvit.data import ImageBatch, corrupt, iter_batches, load_images, load_pictures, prepare, register_corruption
from mechvit.data.conditions import Attack, parse_condition
from mechvit.data.corruption_spec import CORRUPTION_FAMILIES
from mechvit.data.corruptions import CORRUPTIONS
from mechvit.data.partners import check_partners


@pytest.fixture
def trained(tiny_model, batch):
    """The tiny model after a hundred steps on its images, all of which it knows by heart."""
    optimizer = torch.optim.Adam(tiny_model.parameters(), lr=3e-3)
    pixels = pixel_values(tiny_model, batch)
    for _ in range(100):
        optimizer.zero_grad()
        cross_entropy(tiny_model(pixels), batch.labels).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return tiny_model


def accuracy(model, images, condition):
    return float((evaluate(model, images, condition).rank == 0).double().mean())


def test_an_attack_finds_what_noise_of_its_size_does_not(trained, batch):
    assert accuracy(trained, batch, "clean") == 1
    signs = torch.randint(0, 2, batch.images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noisy = ImageBatch((batch.images + 8 / 255 * signs).clamp(0, 1), batch.labels, batch.image_ids)
    attacked = accuracy(trained, batch, "pgd_8")
    assert attacked < accuracy(trained, noisy, "clean") - 0.3
    assert attacked <= accuracy(trained, batch, "fgsm_8")
    assert accuracy(trained, batch, "pgd_16") <= attacked


def test_gradients_flow_in_inference_mode_and_leave_nothing_behind(trained, batch):
    hooks = {name: len(point.fwd_hooks) + len(point.bwd_hooks) for name, point in trained.hook_dict.items()}
    outside = shown_to(trained, batch, "pgd_4").images
    with torch.inference_mode():
        inside = shown_to(trained, ImageBatch(batch.images.clone(), batch.labels, batch.image_ids), "pgd_4").images
    assert torch.equal(outside, inside)
    assert float((outside - batch.images).abs().mean()) > 2 / 255
    assert all(parameter.grad is None for parameter in trained.parameters())
    assert not outside.requires_grad
    assert {name: len(p.fwd_hooks) + len(p.bwd_hooks) for name, p in trained.hook_dict.items()} == hooks


def test_an_image_is_attacked_alike_in_any_batch(trained, batch):
    """A gradient differs by rounding, which can turn the sign of a pixel whose gradient is next to zero."""
    whole = shown_to(trained, batch, "pgd_4").images
    parts = torch.cat([shown_to(trained, batch.take(slice(i, i + 5)), "pgd_4").images for i in range(0, 24, 5)])
    assert float(((whole - parts).abs() < 1e-6).double().mean()) > 0.999


def test_attacks_on_the_base_are_the_same_images_for_all(tiny_model, planted):
    base, tuned, images = planted
    models = {"base": base, "tuned": tuned}
    clean = dict.fromkeys(models, images)
    one = shown(models, clean, "pgd_4@base", seed=0)
    assert torch.equal(one["base"].images, one["tuned"].images)
    assert torch.equal(one["base"].images, shown_to(base, images, "pgd_4").images)
    other = shown(models, clean, "pgd_4@tuned", seed=0)
    assert torch.equal(other["base"].images, shown_to(tuned, images, "pgd_4").images)
    own = shown(models, clean, "pgd_4@self", seed=0)
    assert torch.equal(own["base"].images, one["base"].images)
    assert torch.equal(own["tuned"].images, other["tuned"].images)


def test_tables_of_several_models_hold_what_each_alone_gives(planted):
    base, tuned, images = planted
    models = {"base": base, "tuned": tuned}
    keys = ["pgd_4@self", "pgd_4@base", "gaussian_noise_2"]
    found = study(models, images, keys).performance.set_index(["model", "corruption"])
    for name, model in models.items():
        for key, condition in [
            ("pgd_4@self", "pgd_4"),
            ("pgd_4@base", Attack("pgd", 4).against(base)),
            ("gaussian_noise_2", "gaussian_noise_2"),
        ]:
            alone = evaluate(model, images, condition)
            np.testing.assert_allclose(found.loc[(name, key), "loss"], alone.loss, rtol=1e-4)


def test_what_compares_one_image_refuses_an_attack_on_each_itself(planted):
    base, tuned, images = planted
    said = "needs one image for both models, and pgd_4@self shows each its own: give pgd_4@base or pgd_4@tuned"
    for call in (
        lambda key: linear_cka(base, tuned, images, key, groups=2),
        lambda key: patch_models(base, tuned, images, key),
        lambda key: swap_weights(base, tuned, images, [key]),
    ):
        with pytest.raises(ValueError, match=said):
            call("pgd_4@self")
    with pytest.raises(ValueError, match=r"must know the model that pgd_4 attacks: give it, as in Attack\('pgd', 4\)"):
        patch_models(base, tuned, images, "pgd_4")
    attack = Attack("pgd", 4, "base").against(base)
    assert check_same_image([attack], "this") == (attack,)
    pixels = shown_to(base, images, attack)
    given = ImageBatch(pixels.images, images.labels, images.image_ids)
    direct, made = (patch_models(base, tuned, i, c).effect for i, c in ((images, attack), (given, "clean")))
    assert torch.equal(direct, made)


def test_a_model_without_classes_cannot_be_attacked(tiny_model, batch):
    tiny_model.head = None
    with pytest.raises(ValueError, match=r"pgd_4 attacks a softmax classifier; .* it has no classification head"):
        shown_to(tiny_model, batch, "pgd_4")


@pytest.fixture
def registered():
    register_corruption("mine", lambda x: CORRUPTIONS["gaussian_blur"](x, 4, torch.zeros(len(x)).long(), 0))
    yield "mine"
    del CORRUPTION_FAMILIES["mine"], CORRUPTIONS["mine"]


def test_a_blur_registered_again_gives_the_same_tables(planted, registered):
    base, tuned, images = planted
    images = ImageBatch(torch.nn.functional.interpolate(images.images, 32), images.labels, images.image_ids)
    models = {"base": base, "tuned": tuned}
    with pytest.MonkeyPatch.context() as patched:  # a blur of 4 pixels needs more than 32; its matrix is no matter here
        patched.setitem(CORRUPTIONS, "gaussian_blur", lambda x, level, ids, seed: x.flip(-1) * level / 4)
        found = study(models, images, [registered, "gaussian_blur_4"])
    for table in (found.performance, found.lens, found.attention):
        mine, theirs = (
            table[table["corruption"] == key].drop(columns="corruption").reset_index(drop=True)
            for key in (registered, "gaussian_blur_4")
        )
        assert len(mine)
        assert mine.equals(theirs)


@pytest.fixture
def folders(tmp_path):
    """A folder of two classes, and its partner with the same names, each picture turned upside down."""
    rng = np.random.default_rng(0)
    for label in ("ant", "bee"):
        for i in range(10):
            pixels = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
            for root, picture in (("day", pixels), ("night", pixels[::-1])):
                path = tmp_path / root / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
    return tmp_path / "day", tmp_path / "night"


@pytest.fixture
def day(folders):
    return load_images(f"folder:{folders[0]}", "finetune")


@pytest.mark.parametrize("kind", ["raw", "prepared", "in memory"])
def test_paired_folders_of_the_same_files_give_the_clean_tables(tiny_model, tiny_processor, folders, day, kind):
    given = {"raw": day, "prepared": prepare(day, tiny_processor)}.get(kind)
    given = next(iter_batches(day, tiny_processor, 100)) if given is None else given
    copied = shutil.copytree(folders[0], folders[0].with_name("again"))
    paired = parse_condition(f"paired:{copied}")
    clean, same = (evaluate(tiny_model, given, condition) for condition in ("clean", paired))
    for name in ("image_id", "label", "prediction", "rank", "confidence", "probability", "loss"):
        assert torch.equal(getattr(clean, name), getattr(same, name)), name


def test_each_model_sees_the_partner_as_its_own_processor_makes_it(tiny_hf, folders, day):
    processors = [ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=r) for r in (2, 3)]
    models = {str(i): HookedViT.from_hf(tiny_hf, image_processor=each) for i, each in enumerate(processors)}
    condition = parse_condition(f"paired:{folders[1]}")
    for batches in model_batches(models, day, 3):
        found = shown(models, batches, condition, seed=0)
        for name, processor in zip(models, processors, strict=True):
            pictures = [Image.open(folders[1] / path) for path in batches[name].paths]
            expected = processor(pictures, return_tensors="pt")["pixel_values"]
            torch.testing.assert_close(pixel_values(models[name], found[name]), expected)


def test_missing_partners_are_counted_and_named_before_anything_runs(tiny_model, folders, day, monkeypatch):
    lost = sorted(day["path"])[:3]
    for path in lost:
        (folders[1] / path).unlink()
    monkeypatch.setattr(HookedViT, "forward", lambda *_, **__: pytest.fail("a model ran"))
    with pytest.raises(ValueError, match=rf"3 of {len(day)} images have no partner in .*night, .*: ") as refused:
        corrupted_performance({"a": tiny_model}, day, [f"paired:{folders[1]}"])
    assert all(path in str(refused.value) for path in lost)
    with pytest.raises(ValueError, match="these images have none: load them from a folder"):
        evaluate(tiny_model, load_images("photos", "test", limit=19), parse_condition(f"paired:{folders[1]}"))


def test_a_picture_named_by_its_whole_path_is_not_its_own_partner(folders, day, monkeypatch):
    """Joined to a folder, an absolute path is itself."""
    file = day["file"][0]
    night = parse_condition(f"paired:{folders[1]}")
    with pytest.raises(ValueError, match="is no path below one: load the images from a folder"):
        check_partners(night, load_pictures([file]))
    monkeypatch.chdir(folders[0])
    with pytest.raises(ValueError, match=r"\.\./.* is no path below one"):
        check_partners(night, load_pictures([f"../{folders[0].name}/{day['path'][0]}"]))
    check_partners(night, load_pictures([day["path"][0]]))


def test_paired_folders_are_named_after_the_folder(tmp_path):
    for name in ("night", "fog/3", "other/night"):
        (tmp_path / name).mkdir(parents=True)
    night, fog, other = (parse_condition(f"paired:{tmp_path / name}") for name in ("night", "fog/3", "other/night"))
    assert night.key.startswith("paired_night_")
    assert fog.key.startswith("paired_fog_3_")
    assert fog.title == "Paired: fog/3"
    assert night.key != other.key
    assert parse_condition(night.key) == night
    for none in (tmp_path / "none", "", " "):
        with pytest.raises(ValueError, match=r"paired:.* is not a folder; give one that holds a partner of each image"):
            parse_condition(f"paired:{none}")


def vit(size: int) -> HookedViT:
    config = ViTConfig(
        image_size=size,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        id2label=dict(enumerate("abcde")),
        label2id={name: i for i, name in enumerate("abcde")},
    )
    torch.manual_seed(size)
    processor = ViTImageProcessorPil(size={"height": size, "width": size}, resample=3)
    return HookedViT.from_hf(ViTForImageClassification(config).eval(), image_processor=processor)


@pytest.fixture
def unequal():
    return {"small": vit(32), "large": vit(48)}


@pytest.fixture
def raw():
    images = load_images("photos", "test", limit=8, image_size=64)
    return images.map(lambda row: {"label": row["label"] % 5}, keep_in_memory=True, load_from_cache_file=False)


def test_models_of_unequal_size_are_shown_one_condition_made_at_the_larger(unequal, raw):
    for batches in model_batches(unequal, raw, 8):
        clean = shown(unequal, batches, "clean", seed=0)
        assert clean["small"] is batches["small"]
        found = shown(unequal, batches, "gaussian_noise_3", seed=0)
        large = corrupt(batches["large"].images, "gaussian_noise_3", batches["large"].image_ids)
        assert torch.equal(found["large"].images, large)
        expected = [
            [np.array(Image.fromarray(channel.numpy()).resize((32, 32), Image.Resampling.BICUBIC)) for channel in image]
            for image in large
        ]
        torch.testing.assert_close(
            found["small"].images, torch.tensor(np.array(expected)).clamp(0, 1), rtol=0, atol=1e-6
        )
        own = shown(unequal, batches, "pgd_4@self", seed=0)
        for name, model in unequal.items():
            assert torch.equal(own[name].images, shown_to(model, batches[name], "pgd_4").images)
        one = shown(unequal, batches, "pgd_4@base", seed=0)
        assert float((one["large"].images - batches["large"].images).abs().max()) <= 4 / 255 + 2**-23
        assert torch.equal(one["small"].images, resized(one["large"].images, unequal["small"].image_processor, 32))
    whole = corrupted_performance(unequal, raw, ["gaussian_noise_3", "pgd_4@base", "pgd_4@self"], batch_size=3)
    assert (whole.groupby(["model", "corruption"]).size() == 8).all()


@torch.inference_mode()
def test_an_attack_through_a_resize_raises_the_smaller_models_loss(unequal, raw):
    (batches,) = model_batches(unequal, raw, 8)
    small = unequal["small"]
    target = small(pixel_values(small, batches["small"])).argmax(-1)
    attack = Attack("pgd", 16, "base").against(small, uses_labels=False)
    found = shown(unequal, batches, attack, seed=0)
    changed = (found["large"].images - batches["large"].images).abs()
    signs = torch.randint(0, 2, changed.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    random = resized((batches["large"].images + 16 / 255 * signs).clamp(0, 1), small.image_processor, 32)
    given = found["small"], replace(batches["small"], images=random), batches["small"]
    loss = [float(cross_entropy(small(pixel_values(small, each)), target)) for each in given]
    assert float(changed.mean()) > 8 / 255
    assert loss[0] - loss[2] > 3 * abs(loss[1] - loss[2])


def test_batches_of_several_conditions_come_in_order(planted):
    base, tuned, images = planted
    models = {"base": base, "tuned": copy.deepcopy(tuned)}
    keys = ["clean", "pgd_2@self", "gaussian_noise_1"]
    parts = list(corrupted_batches(models, images, keys, 10))
    assert [(part.models, part.start) for part in parts] == [
        ((name,), start) for start in (0, 10, 20) for name in models
    ]
    assert [condition.key for condition, _ in parts[0].conditions] == keys
