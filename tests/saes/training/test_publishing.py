"""Published SAEs: stock, on raw activations, with their whole provenance, a model card, and a way to the hub."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from sae_lens import SAE

from mechvit.code_version import code_version
from mechvit.saes import ARCHITECTURES, TrainConfig, push_to_hub, train_on
from mechvit.saes.training import train as training_module
from mechvit.saes.training.publishing import published, settle

CONFIG = TrainConfig(
    architectures=ARCHITECTURES,
    epochs=2,
    k=3,
    expansion_factor=4,
    lr=5e-3,
    train_batch_size_tokens=128,
    matryoshka_levels=2,
)


@pytest.fixture(scope="module")
def trained(make_streams, tmp_path_factory):
    """Every architecture, and what each was before it was folded: its codes on scaled activations."""
    out, before = tmp_path_factory.mktemp("saes") / "all", {}
    streams = make_streams(steps=30)
    x = torch.cat(list(streams.held_out()))

    def watched(learners, streams):
        settle(learners, streams)
        for learner in learners:
            with torch.no_grad():
                scaled = learner.trainer.activation_scaler(x)
                codes, pre = learner.sae.encode_with_hidden_pre(scaled)
                if learner.spec.name in ("batchtopk", "matryoshka_batchtopk"):
                    codes = torch.where(pre > learner.sae.topk_threshold, pre, 0)
                scale = learner.trainer.activation_scaler.scaling_factor
                before[learner.spec.name] = (codes, learner.sae.decode(codes) / scale, scale)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_module, "settle", watched)
        with pytest.warns(UserWarning, match="the gated SAE's L0 never came down"):
            found = train_on(streams, out, config=CONFIG, progress=None)
    return found, before, x


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_codes_on_raw_activations_are_those_of_training_on_scaled_ones(trained, architecture):
    found, before, x = trained
    codes, rebuilt, scale = before[architecture]
    assert abs(scale - 1) > 0.1, "the scale must matter, or this shows nothing"
    sae = SAE.load_from_disk(found[architecture])
    assert sae.cfg.normalize_activations == "none"
    with torch.no_grad():
        own = sae.encode(x)
        torch.testing.assert_close(sae.decode(own), rebuilt, rtol=0, atol=1e-4)
        assert torch.equal(own != 0, codes != 0)
        if architecture in ("standard", "gated", "jumprelu"):
            torch.testing.assert_close(own, codes, rtol=0, atol=1e-4)
        else:  # a top-k SAE in training takes decoder norms for its own; published ones are normalised
            ratio = own[codes > 0] / codes[codes > 0]
            torch.testing.assert_close(ratio, torch.full_like(ratio, 1 / scale), rtol=1e-3, atol=0)


def test_cfg_tells_everything_about_the_training(trained, make_streams):
    found, _, _ = trained
    cfg = json.loads((found["batchtopk"] / "cfg.json").read_text())
    about = cfg["metadata"]
    assert about.items() >= make_streams().about().items()
    assert (about["hook_name"], about["k"], about["architecture_in_training"]) == ("resid", 3, "batchtopk")
    assert about["training_tokens"] == 2 * 30 * 128
    assert set(about["metrics"]) == {"explained_variance", "l0", "loss", "dead_fraction"}
    assert about["metrics"]["explained_variance"] == about["explained_variance"]
    assert cfg["architecture"] == "jumprelu"
    assert about["mechvit"] == code_version()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_model_card_tells_what_cfg_tells(trained, architecture):
    found, _, _ = trained
    card = (found[architecture] / "README.md").read_text()
    about = json.loads((found[architecture] / "cfg.json").read_text())["metadata"]
    assert card.startswith("---\nlibrary_name: saelens\n")
    for shown in (
        f"# {architecture}\n",
        "| model | drawn |",
        "| hook point | `resid` |",
        "| images | 50% clean, the rest gaussian_blur_2; fingerprint 0 |",
        f"| explained_variance | {about['metrics']['explained_variance']:.4g} |",
        "| training tokens | 7680 |",
        "| d_sae | 48 |",
    ):
        assert shown in card
    best = about["best_epoch"]
    assert ("after its last epoch:" if best is None else f"after epoch {best}, its best:") in card
    assert "{" not in card
    namespace = {}  # the card's own lines load the SAE
    code = card.split("```python\n")[1].split("```")[0]
    exec(
        code.replace(f'"{architecture}")  #', f'r"{found[architecture]}")  #').replace(
            "codes =", "activations = __import__('torch').zeros(5, 12)\ncodes ="
        ),
        namespace,
    )
    assert namespace["codes"].shape == (5, 48)


def test_push_to_hub_goes_through_sae_lens(trained, monkeypatch):
    found, _, _ = trained
    sent = {}

    class Api:
        def repo_info(self, repo_id):
            assert repo_id == "me/saes"

        def upload_folder(self, *, folder_path, path_in_repo, allow_patterns, revision, **_):
            files = {path.name for path in Path(folder_path).iterdir()} & set(allow_patterns)
            sent.update({f"{path_in_repo}/{name}": revision for name in files})

        def upload_file(self, *, path_or_fileobj, path_in_repo, revision, **_):
            assert isinstance(path_or_fileobj, io.BytesIO) or path_or_fileobj.is_file()
            sent[path_in_repo] = revision

    import sae_lens.training.upload_saes_to_huggingface as uploader

    monkeypatch.setattr(uploader, "HfApi", Api)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr(uploader, "_repo_file_exists", lambda *args: "README.md" in sent)
    push_to_hub(found["topk"].parent, "me/saes", revision="v1")
    names = ("cfg.json", "sae_weights.safetensors", "README.md")
    assert sent == dict.fromkeys(["README.md", *(f"{a}/{name}" for a in ARCHITECTURES for name in names)], "v1")
    sent.clear()
    push_to_hub(found["topk"], "me/saes")
    assert sent == dict.fromkeys(["README.md", *(f"topk/{name}" for name in names)], "main")


def test_a_folder_without_saes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no SAE"):
        push_to_hub(tmp_path, "me/saes")
    with pytest.raises(ValueError, match="holds no SAE"):
        published(tmp_path)
