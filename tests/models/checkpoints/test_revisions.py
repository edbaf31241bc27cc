"""A hub id is one commit for a whole process, offline too; nothing here touches a network."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from transformers import ViTImageProcessorPil

from mechvit import HookedViT
from mechvit.data import CLEAN
from mechvit.finetuning import FinetuneConfig, finetune
from mechvit.models.checkpoints import revisions
from mechvit.models.checkpoints.revisions import hub_revision
from mechvit.models.processors.image_processor import read_image_processor
from mechvit.saes import CacheConfig, SAEConfig, cache_activations, load_sae, train_saes

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
