"""A hub id is one commit for a whole process, offline too; nothing here touches a network."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from mechvit import HookedViT
from mechvit.data import CLEAN, align_labels, iter_batches, load_images, prepare
from mechvit.data.image_origin import image_origins, image_revisions
from mechvit.finetuning import FinetuneConfig, finetune
from mechvit.models.checkpoints import revisions
from mechvit.models.checkpoints.revisions import hub_revision
from mechvit.models.processors.image_processor import read_image_processor
from mechvit.saes import (
    CacheConfig,
    CachedStreams,
    ImageStreams,
    MixedStreams,
    SAEConfig,
    ShuffleOptions,
    cache_activations,
    load_sae,
    train_on,
    train_saes,
)

OLD, NEW = "1" * 40, "2" * 40


@pytest.fixture(autouse=True)
def _unsettled(monkeypatch):
    monkeypatch.setattr(revisions, "_SETTLED", {})


@pytest.fixture
def hub(monkeypatch):
    """A hub whose main branch can move; counts how often it is asked."""
    state = SimpleNamespace(commit=OLD, asked=[])

    def resolve(self, repo_id, *, repo_type, local_files_only):
        state.asked.append((repo_id, repo_type))
        if state.commit is None:
            raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")
        return SimpleNamespace(resolved=state.commit)

    monkeypatch.setattr(huggingface_hub.HfApi, "resolve_revision", resolve)
    return state


def test_a_hub_id_is_settled_once(hub):
    assert hub_revision("owner/name") == OLD
    hub.commit = NEW
    assert hub_revision("owner/name") == OLD
    assert hub_revision("owner/name", "dataset") == NEW
    assert hub.asked == [("owner/name", "model"), ("owner/name", "dataset")]


def test_a_folder_has_no_commit_and_an_unknown_name_none(hub, tmp_path):
    assert hub_revision(tmp_path) is None
    assert hub.asked == []
    hub.commit = None
    assert hub_revision("owner/name") is None


@pytest.fixture
def cache(monkeypatch, tmp_path, tiny_hf):
    """A hub cache on disk with two commits of one model, which differ in weights and processor."""
    repo = tmp_path / "hub" / "models--owner--name"
    for commit, resample, scale in ((OLD, 2, 1.0), (NEW, 3, 0.5)):
        folder = repo / "snapshots" / commit
        tiny_hf.save_pretrained(folder)
        changed = type(tiny_hf).from_pretrained(folder)
        with torch.no_grad():
            changed.classifier.weight.mul_(scale)
        changed.save_pretrained(folder)
        ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=resample).save_pretrained(folder)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(OLD)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield repo
    shutil.rmtree(repo)


def test_all_that_is_read_offline_is_of_one_commit(cache, tiny_hf):
    """The branch moves between the processor's reading and the model's; both are of the commit that was first seen."""
    processor = read_image_processor("owner/name")
    (cache / "refs" / "main").write_text(NEW)
    model = HookedViT.from_pretrained("owner/name", device="cpu")
    assert (processor.resample, model.image_processor.resample) == (2, 2)
    assert torch.equal(model.to_hf().classifier.weight, tiny_hf.classifier.weight)
    assert model.hf_config._commit_hash == OLD


def test_another_process_sees_the_branch_where_it_is(cache, tiny_hf):
    (cache / "refs" / "main").write_text(NEW)
    model = HookedViT.from_pretrained("owner/name", device="cpu")
    assert model.image_processor.resample == 3
    assert torch.equal(model.to_hf().classifier.weight, tiny_hf.classifier.weight * 0.5)
    assert model.hf_config._commit_hash == NEW


def test_what_is_made_of_a_hub_s_model_tells_its_commit(cache, tiny_images, tmp_path):
    model = HookedViT.from_pretrained("owner/name", device="cpu")
    hook = "blocks.1.hook_resid_post"
    cache_activations(model, tiny_images, tmp_path / "cache", CacheConfig(hooks=[hook], batch_size=8), progress=None)
    assert json.loads((tmp_path / "cache" / "manifest.json").read_text())["model_revision"] == OLD
    config = SAEConfig(
        hook_names=(hook,),
        architectures=("topk",),
        epochs=1,
        k=2,
        expansion_factor=1,
        train_batch_size_tokens=64,
        images_per_batch=8,
    )
    saes = train_saes(model, tiny_images, tiny_images, tmp_path / "saes", config=config, progress=None)
    assert load_sae(saes["topk"], "cpu").cfg.metadata.model_revision == OLD
    short = FinetuneConfig(epochs=1, batch_size=8)
    tuned = finetune(
        "owner/name",
        tiny_images,
        tiny_images,
        tmp_path / "tuned",
        corruption=CLEAN,
        config=short,
        device="cpu",
        progress=False,
    )
    log = json.loads((tuned / "training_log.json").read_text())
    assert (log["base"], log["base_revision"]) == ("owner/name", OLD)


def test_what_is_made_of_a_folder_tells_none(tiny_model, tiny_images, tmp_path):
    cache_activations(tiny_model, tiny_images, tmp_path, CacheConfig(hooks=["hook_embed"], batch_size=8), progress=None)
    assert "model_revision" not in json.loads((tmp_path / "manifest.json").read_text())


@pytest.fixture
def hub_images(monkeypatch, tmp_path, tiny_images):
    """The images of a Hub data set `owner/pictures`, prepared; the set lies in a folder, and its commit is NEW."""
    pictures = [Image.fromarray(np.asarray(row, dtype=np.uint8).transpose(1, 2, 0)) for row in tiny_images["pixels"]]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    folder = tmp_path / "pictures" / "data"
    folder.mkdir(parents=True)
    rows = {"image": pictures * 10, "label": [0, 1] * (5 * len(pictures))}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "test-00000.parquet")
    asked = []

    def placed(read):
        def from_folder(name, *, revision, **options):
            asked.append((name, revision))
            return read(str(folder.parent), **options)

        return from_folder

    for name in ("load_dataset_builder", "load_dataset"):
        monkeypatch.setattr(datasets, name, placed(getattr(datasets, name)))
    monkeypatch.setitem(revisions._SETTLED, ("dataset", "owner/pictures"), NEW)
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    made = prepare(align_labels(load_images("owner/pictures@test", "sae"), {0: "a", 1: "b"}), processor)
    assert asked == [("owner/pictures", NEW)] * 2
    return made


def test_what_is_made_of_a_hub_s_images_tells_their_commit(cache, hub_images, tmp_path):
    """An activation cache, its SAEs, those of images and of two models, and a fine-tuned checkpoint."""
    images = {"image_revisions": {"owner/pictures@test": NEW}}
    both = images | {"validation_image_revisions": images["image_revisions"]}
    model = HookedViT.from_pretrained("owner/name", device="cpu")
    hook = "blocks.1.hook_resid_post"
    cached = [
        cache_activations(model, hub_images, tmp_path / name, CacheConfig(hooks=[hook], batch_size=8), progress=None)
        for name in ("cache", "held out")
    ]
    assert cached[0].revisions == {"model_revision": OLD} | images
    sizes = {"epochs": 1, "train_batch_size_tokens": 64}
    config = SAEConfig(
        hook_names=(hook,), architectures=("topk",), k=2, expansion_factor=1, images_per_batch=8, **sizes
    )
    of_images = ImageStreams(model, hub_images, hub_images, corruptions=(), config=config)
    streams = {
        "cached": CachedStreams(*cached, ShuffleOptions(batch_size=64, seed=0), calibration_images=8),
        "images": of_images,
        "mixed": MixedStreams([of_images, of_images], batch_size=64),
    }
    for name, stream in streams.items():
        saved = train_on(stream, tmp_path / name, config=config, progress=None)["topk"]
        found = json.loads((saved / "cfg.json").read_text())["metadata"]
        commit = {"model_revisions": [OLD, OLD]} if name == "mixed" else {"model_revision": OLD}
        assert {key: found[key] for key in (*commit, *both)} == commit | both
        card = (saved / "README.md").read_text()
        assert f"| commit of the model | {', '.join([OLD] * (2 if name == 'mixed' else 1))} |" in card
        assert f"| commit of the images | owner/pictures@test: {NEW} |" in card
    short = FinetuneConfig(epochs=1, batch_size=8)
    tuned = finetune(
        "owner/name", hub_images, hub_images, tmp_path / "tuned", config=short, device="cpu", progress=False
    )
    log = json.loads((tuned / "training_log.json").read_text())
    assert {key: log[key] for key in both} == both


def test_prepared_images_that_are_kept_and_joined_tell_their_commits(hub_images, tmp_path):
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    raw = load_images("owner/pictures@test", "test")
    kept = prepare(raw, processor, path=tmp_path / "kept")
    assert image_revisions(kept) == {"owner/pictures@test": NEW}
    photos = prepare(load_images("photos", "test", limit=2, image_size=32), processor)
    assert image_origins(photos) == {"photos": None}
    assert image_revisions(photos) == {}
    joined = datasets.concatenate_datasets([kept.remove_columns("label"), photos.remove_columns("label")])
    assert image_origins(joined) == {"owner/pictures@test": NEW, "photos": None}
    assert len(next(iter_batches(joined.add_column("label", [0] * len(joined)), processor, 4))) == 4
