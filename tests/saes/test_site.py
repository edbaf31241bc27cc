"""The sites that SAEs read; SAEs that do not fit a model are refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from evaluation_saes import CORRUPTIONS, empty_sae, random_sae

from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.saes import evaluate_sae, evaluate_saes, load_sae, sae_cosine
from mechvit.saes.evaluation.evaluate import sae_features
from mechvit.saes.hook_site import sae_site


def test_load_refuses_other_folders(tmp_path):
    with pytest.raises(ValueError, match=r"lacks cfg\.json and sae_weights\.safetensors"):
        load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(ValueError, match=r"lacks sae_weights\.safetensors"):
        load_sae(tmp_path)


def test_refuses_saes_that_do_not_fit(tiny_model, batch):
    for sae, words in (
        (empty_sae(d_in=48), r"width 48; the model's at blocks\.1\.hook_resid_post have width 32"),
        (empty_sae(hook="blocks.3.hook_resid_post"), r"blocks\.2\.hook_resid_post.*got 'blocks\.3\.hook_resid_post'"),
        (empty_sae(hook="blocks.1.hook_rsid_pre"), r"one vector per token.*got 'blocks\.1\.hook_rsid_pre'"),
        (empty_sae(hook="blocks.1.attn.hook_z"), r"one vector per token.*got 'blocks\.1\.attn\.hook_z'"),
        (empty_sae(hook="hook_head_input"), r"one vector per token.*got 'hook_head_input'"),
        (empty_sae(hook="blocks.1.mlp.hook_post"), r"width 32; the model's at blocks\.1\.mlp\.hook_post have width 64"),
        (empty_sae(hook=None), r"one vector per token.*got None"),
        (empty_sae(tokens=None), "hook_tokens .*got None"),
    ):
        with pytest.raises(ValueError, match=words):
            evaluate_sae(tiny_model, sae, batch)
    for pair in ({"tokens": "cls"}, {"hook": "blocks.0.hook_resid_post"}):
        with pytest.raises(ValueError, match="same hook and tokens"):
            evaluate_saes(tiny_model, {"a": random_sae(), "b": random_sae(**pair)}, batch, [])
    with pytest.raises(ValueError, match="at least one"):
        evaluate_saes(tiny_model, {}, batch, [])
    with pytest.raises(ValueError, match=r"measured; got \['gaussian_blur_4'\] besides"):
        evaluate_saes(tiny_model, {"a": random_sae()}, batch, CORRUPTIONS, cosine_corruptions=["gaussian_blur_4"])
    with pytest.raises(ValueError, match=r"dense_above must be in \[0, 1\]; got 10"):
        evaluate_sae(tiny_model, random_sae(), batch, dense_above=10)
    with pytest.raises(ValueError, match=r"top_images must be at least 1.*got 0"):
        sae_features(tiny_model, random_sae(), batch, top_images=0)


def test_an_sae_of_cls_needs_a_model_with_one(tiny_model):
    model = tiny_model
    model.cfg = dataclasses.replace(model.cfg, cls_token=False)
    with pytest.raises(ValueError, match=r"cls \(where the model has one\).*got 'cls'"):
        sae_site(model, empty_sae(tokens="cls"))


def test_an_sae_of_another_checkpoint_is_an_error_unless_allowed(tiny_model, batch):
    own = random_sae(checkpoint_hash=checkpoint_hash(tiny_model), model_name="base")
    other = random_sae(checkpoint_hash="0123456789abcdef" * 4, model_name="tuned")
    for call in (evaluate_sae, sae_features, lambda *a, **k: sae_cosine(*a, CORRUPTIONS[0], **k)):
        call(tiny_model, own, batch)
        with pytest.raises(ValueError, match=r"'sae' was trained on another model \(tuned, .* hash 0123456789ab"):
            call(tiny_model, other, batch)
        call(tiny_model, other, batch, allow_other_model=True)
    with pytest.raises(ValueError, match="'b' was trained on another model"):
        evaluate_saes(tiny_model, {"a": own, "b": other}, batch, [])
    found = evaluate_saes(tiny_model, {"a": own, "b": other}, batch, [], allow_other_model=True).quality
    assert found["a", "clean"] == found["b", "clean"]
    with torch.no_grad():
        tiny_model.head.bias[0] += 1e-3
    with pytest.raises(ValueError, match="give that model, or allow_other_model"):
        evaluate_sae(tiny_model, own, batch)


def test_refuses_activations_that_are_not_finite(tiny_model, batch):
    poisoned = tiny_model.image_processor(batch.images[5].numpy(), do_resize=False, do_rescale=False)["pixel_values"][0]

    def poison(module, inputs, output):
        same = torch.isclose(inputs[0], torch.from_numpy(poisoned)).flatten(1).all(1)
        return torch.where(same[:, None, None, None], torch.nan, output)

    handle = tiny_model.embed.patch.register_forward_hook(poison)
    with pytest.raises(ValueError, match=rf"finite; under clean .* not on the image ids \[{batch.image_ids[5]}\]"):
        evaluate_sae(tiny_model, random_sae(), batch, batch_size=4)
    handle.remove()
    with torch.no_grad():
        tiny_model.blocks[1].mlp.b_out[3] = float("nan")
    with pytest.raises(ValueError, match=r"blocks\.1\.hook_resid_post.* must be finite"):
        sae_cosine(tiny_model, random_sae(), batch, CORRUPTIONS[0])


def test_an_image_without_a_label_counts_where_classes_do_not(tiny_model, batch):
    labels = batch.labels.clone()
    labels[3] = -1
    found, known = (
        sae_features(tiny_model, random_sae(), dataclasses.replace(batch, labels=own)) for own in (labels, batch.labels)
    )
    assert torch.equal(found.firing_rate, known.firing_rate)
    assert torch.equal(found.max_activation, known.max_activation)
    assert not torch.equal(found.mass_label_purity.nan_to_num(), known.mass_label_purity.nan_to_num())
