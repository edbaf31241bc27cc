"""A stopped cache is continued to the same bytes, or refused if its settings, images or model have changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from cache_contents import CORRUPTIONS, HOOKS, files_of
from transformers import ViTImageProcessorPil

from mechvit import HookedViT, files
from mechvit.data import load_images
from mechvit.files import MARKER
from mechvit.saes.activation_cache import CachedActivations, Plan, shards, writer
from mechvit.saes.activation_cache.manifest import MANIFEST_FILE, PLAN_FILE


def stop_after(monkeypatch, n, error):
    """Allow `n` shards to be written; the next raises."""
    written = []

    def write(*args):
        if len(written) == n:
            raise error
        written.append(args)
        shards.write_shard(*args)

    monkeypatch.setattr(writer, "write_shard", write)
    return written


def test_a_stopped_run_goes_on_to_the_same_bytes(make_cache, monkeypatch, tmp_path):
    whole = make_cache("whole", shard_bytes=1, hooks=HOOKS)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            make_cache(shard_bytes=1, hooks=HOOKS)
    (tmp_path / "cache/shard-00002.partial").mkdir()  # as a killed process leaves it
    (tmp_path / "cache/shard-00002.partial/images.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="unfinished cache of activations: run the same command again"):
        CachedActivations(tmp_path / "cache")
    with monkeypatch.context() as patch:
        written = stop_after(patch, 99, AssertionError())
        make_cache(shard_bytes=1, hooks=HOOKS)
    assert [index for _, _, index, *_ in written] == [2, 3, 4, 5]  # the first two are not made again
    assert files_of(tmp_path / "cache") == files_of(whole.folder)
    with monkeypatch.context() as patch:
        stop_after(patch, 0, AssertionError())
        assert make_cache(shard_bytes=1, hooks=HOOKS).n_rows == whole.n_rows  # a finished one is only opened


def test_a_damaged_shard_is_made_again(make_cache):
    cache = make_cache()
    whole = files_of(cache.folder)
    path = cache.path(1, HOOKS[0])
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"shard-00001.*is damaged"):
        cache.verify()
    damaged = r"shard-00001.*is damaged.*made again"
    with (
        pytest.warns(UserWarning, match=damaged),
        pytest.raises(ValueError, match=r"in use by this process itself \(close what reads it"),
    ):
        make_cache()
    cache.close()
    with pytest.warns(UserWarning, match=damaged):
        make_cache()
    assert files_of(cache.folder) == whole


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 4}, "seed was 3 and is now 4"),
        ({"dtype": "bfloat16"}, "dtype was 'float32' and is now 'bfloat16'"),
        ({"tokens": "cls"}, "tokens was 'all' and is now 'cls'; tokens_per_image was 17 and is now 1"),
        ({"clean_fraction": 0.5}, "clean_fraction was 0.4 and is now 0.5"),
        ({"corruptions": CORRUPTIONS[:1]}, r"corruptions was \['gaussian_noise_1', .* is now \['gaussian_noise_1'\]"),
        ({"batch_size": 8}, "batch_size was 4 and is now 8"),
        ({"hooks": HOOKS}, "hooks was .* and is now"),
    ],
)
def test_a_restart_with_other_settings_is_refused(make_cache, changes, said):
    before = files_of(make_cache().folder)
    with pytest.raises(ValueError, match=f"was begun with other settings: .*{said}"):
        make_cache(**changes)
    assert files_of(make_cache().folder) == before
    assert make_cache(**changes, overwrite=True).n_rows > 0


def test_a_restart_with_other_images_or_weights_is_refused(make_cache, tiny_model, tiny_images):
    make_cache()
    with pytest.raises(ValueError, match=r"data_fingerprint was .*; n_images was 24 and is now 23"):
        make_cache(images=tiny_images.select(range(23)))
    other = tiny_images.select(list(range(23, -1, -1)))
    with pytest.raises(ValueError, match=r"settings: data_fingerprint was [^;]*$"):
        make_cache(images=other)
    with torch.no_grad():
        tiny_model.blocks[0].mlp.b_out[0] += 1
    with pytest.raises(ValueError, match="settings: checkpoint_hash was"):
        make_cache()


def with_processor(tiny_hf, **changes):
    processor = ViTImageProcessorPil(**{"size": {"height": 32, "width": 32}} | changes)
    return HookedViT.from_hf(tiny_hf, image_processor=processor)


@pytest.fixture
def raw():
    """Pictures that each processor has to resize."""
    return load_images("photos", "test", limit=12, image_size=40)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resample": 3}, "the processor's resample was 2 and is now 3"),
        ({"image_mean": [0.4] * 3}, r"the processor's image_mean was \[0.5, 0.5, 0.5\] and is now \[0.4, 0.4, 0.4\]"),
        ({"rescale_factor": 1 / 127.5}, "the processor's rescale_factor was 0.0039.* and is now 0.0078"),
        ({"size": 40, "do_center_crop": True, "crop_size": 32}, "the processor's crop_size was None and is now"),
    ],
    ids=["resample", "image_mean", "rescale_factor", "crop"],
)
def test_no_setting_of_the_processor_changes_within_a_cache(make_cache, tiny_hf, raw, changes, said):
    """A run that was killed went on with another resampling or mean, half of its shards each."""
    cache = make_cache(model=with_processor(tiny_hf), images=raw)
    cache.close()
    shutil.rmtree(cache.folder / cache.plan.shard(1))
    (cache.folder / MANIFEST_FILE).unlink()
    other = with_processor(tiny_hf, **changes)
    with pytest.raises(ValueError, match=f"was begun with other settings: .*{said}"):
        make_cache(model=other, images=raw)
    whole = make_cache(model=with_processor(tiny_hf), images=raw)
    whole.check_model(with_processor(tiny_hf))
    with pytest.raises(ValueError, match=f"activations of other pixels than this model's .*{next(iter(changes))}"):
        whole.check_model(other)
    whole.check_model(other, allow_other_model=True)


def test_the_precision_that_a_model_computes_in_does_not_change_within_a_cache(make_cache, tiny_model):
    """Its weights stay the same here, so that their hash does not tell."""
    rounded = tiny_model.to(torch.bfloat16).to(torch.float32)
    make_cache(model=rounded).close()
    with pytest.raises(ValueError, match=r"settings: model_dtype was 'float32' and is now 'bfloat16'\."):
        make_cache(model=rounded.to(torch.bfloat16))


def test_a_cache_from_before_is_read_but_not_gone_on_with(make_cache, tiny_model):
    """Its plan holds no image processor, and its digest is made without one."""
    cache = make_cache()
    cache.close()
    for name in (PLAN_FILE, MANIFEST_FILE):
        (cache.folder / name).unlink()
    old = replace(cache.plan, processor=None)
    assert "processor" not in old.to_json()
    assert old.digest != cache.plan.digest
    assert Plan(**{k: v for k, v in old.to_json().items() if k != "corruptions"}, corruptions=old.corruptions) == old
    (cache.folder / MARKER).unlink()  # which there was none of, either
    (cache.folder / PLAN_FILE).write_text(json.dumps(old.to_json()))
    with pytest.raises(ValueError, match="begun by a version that kept neither the image processor's settings"):
        make_cache()
    make_cache(overwrite=True)


def test_a_whole_cache_from_before_is_read(numbered_cache, tiny_model):
    cache = numbered_cache()
    assert "processor" not in json.loads((cache.folder / PLAN_FILE).read_text())
    assert CachedActivations(cache.folder, verify=True).n_rows == 53 * 7
    cache.check_model(tiny_model, allow_other_model=True)


def test_a_run_killed_before_its_plan_was_written_starts_again(make_cache, tmp_path):
    files.begin(tmp_path / "cache", writer.KIND)
    (tmp_path / "cache/.plan.json.mechvit-999999999.part").write_text("{")
    assert make_cache().n_rows == 24 * 17


def test_overwriting_leaves_nothing_of_the_earlier_cache(make_cache, tmp_path):
    make_cache(shard_bytes=1)
    cache = make_cache(overwrite=True, seed=5)
    assert (cache.plan.n_shards, cache.plan.seed) == (3, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cache.mechvit-lock", "cache"]  # which is being read
    cache.close()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
