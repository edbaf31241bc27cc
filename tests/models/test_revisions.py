"""A hub id is one commit for a whole process, offline too; nothing here touches a network."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from transformers import ViTImageProcessorPil

from mechvit import HookedViT
from mechvit.models import revisions
from mechvit.models.image_processor import read_image_processor
from mechvit.models.revisions import hub_revision

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
