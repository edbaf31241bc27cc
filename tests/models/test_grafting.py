"""Grafted heads and linear heads: exactly the function of the parts, with nothing copied and nothing else changed."""

from __future__ import annotations

import copy

import pytest
import torch
from family_runs import BARE, CLASSIFIERS, build, close, draw
from hf_reference import run_reference
from hf_zoo import ZOO
from zoo_options import daily

from mechvit import HookedViT
from mechvit.analysis.weights.model_parts import weights_replaced
from mechvit.models import graft_head, linear_head
from mechvit.models.grafting import encoder_source, is_encoder

classifiers = pytest.mark.parametrize("name", daily(CLASSIFIERS))
NAMES = {0: "fox", 1: "gnu", 2: "hen"}


def other(model: HookedViT, *, encoder: bool = False) -> HookedViT:
    """A copy whose head (or encoder, instead) differs in every weight."""
    found = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if is_encoder(name) == encoder:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return found


@classifiers
def test_a_graft_onto_an_equal_encoder_is_the_head_s_model(name):
    base = build(name)
    tuned = other(base)
    grafted = graft_head(base, tuned)
    assert not torch.equal(base(draw()), tuned(draw()))
    assert torch.equal(grafted(draw()), tuned(draw()))
    assert grafted.cfg == tuned.cfg
    shared = {t.data_ptr() for model in (base, tuned) for t in model.state_dict().values()}
    assert {t.data_ptr() for t in grafted.parameters()} <= shared


@classifiers
def test_a_graft_is_a_model_like_any_other(name, tmp_path):
    """It is given back to Hugging Face and saved as the class of the head's model."""
    base = build(name)
    grafted = graft_head(other(base, encoder=True), base)
    logits = grafted(draw())
    assert not torch.allclose(logits, base(draw()))
    theirs = run_reference(grafted.to_hf(), draw(), text_embeds=ZOO[name].text_embeds(torch.float64))
    close(logits, theirs.logits, 1e-8)
    grafted.save_pretrained(tmp_path / "kept")
    assert torch.equal(HookedViT.from_pretrained(tmp_path / "kept", "cpu")(draw()), logits)
    _, cache = grafted.run_with_cache(draw())
    close(grafted.unembed_residual(cache["resid_post", -1][:, grafted.head_tokens]), logits)


ENCODERS = {
    "vit classifier": "vit encoder, no pooler",
    "dinov2 classifier": "dinov2 encoder, swiglu",
    "beit classifier, relative bias": "beit encoder, mean",
    "ijepa classifier": "ijepa encoder, pooler",
    "clip classifier": "clip vision",
    "siglip classifier": "siglip vision",
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_bare_encoder_takes_the_head_of_its_family(name):
    """Final norm, pooling and classifier are the head's; the bare model's own pooler is left out."""
    tuned = build(name)
    entry = copy.deepcopy(ZOO[ENCODERS[name]])
    entry.changes.clear()
    entry.changes.update(ZOO[name].changes)
    bare = HookedViT.from_hf(entry(torch.float64))
    with torch.no_grad():
        for key, parameter in bare.named_parameters():
            if is_encoder(key):
                parameter.copy_(tuned.get_parameter(key))
    assert bare.head is None
    grafted = graft_head(bare, tuned)
    assert torch.equal(grafted(draw()), tuned(draw()))
    assert grafted.cfg == tuned.cfg
    close(grafted(draw()), run_reference(grafted.to_hf(), draw()).logits, 1e-8)


def test_a_masked_autoencoder_takes_the_head_of_the_classifier_tuned_from_it():
    """transformers tunes ViT-MAE as a ViT, so that the two are of different families."""
    mae, tuned = build("mae encoder"), build("vit classifier")
    grafted = graft_head(mae, tuned)
    expected = copy.deepcopy(tuned)
    with torch.no_grad():
        for name, parameter in expected.named_parameters():
            if is_encoder(name):
                parameter.copy_(mae.get_parameter(name))
    assert torch.equal(grafted(draw()), expected(draw()))
    assert type(grafted.to_hf()).__name__ == "ViTForImageClassification"


def test_another_input_size_is_the_encoder_s():
    base, tuned = build("vit classifier"), build("vit classifier")
    small = HookedViT.from_hf(_resized(base.to_hf(), 24))
    grafted = graft_head(small, other(tuned))
    assert grafted.cfg.image_size == 24
    assert run_reference(grafted.to_hf(), draw((24, 24))).logits.shape == (4, 5)
    close(grafted(draw((24, 24))), run_reference(grafted.to_hf(), draw((24, 24))).logits, 1e-8)
    larger = graft_head(build("vit classifier").set_image_size(48), tuned)
    close(larger(draw((48, 48))), tuned.set_image_size(48)(draw((48, 48))))


def _resized(hf_model, size):
    config = copy.deepcopy(hf_model.config)
    config.image_size = size
    state = hf_model.state_dict()
    positions = state["vit.embeddings.position_embeddings"]
    state["vit.embeddings.position_embeddings"] = positions[:, : 1 + (size // 8) ** 2]
    resized = type(hf_model)(config).to(torch.float64).eval()
    resized.load_state_dict(state)
    return resized


def test_what_is_done_to_a_graft_leaves_its_models_alone(pixels):
    base = build("vit classifier", torch.float32)
    tuned = other(base)
    before = base(pixels), tuned(pixels)
    grafted = graft_head(base, tuned)
    seen: list[int] = []
    grafted.add_hook("blocks.0.hook_resid_post", lambda value, hook: seen.append(1))
    base(pixels)
    assert not seen
    grafted.reset_hooks()
    name = "blocks.0.mlp.fc1.weight"
    with weights_replaced(grafted, {name: torch.zeros_like(grafted.get_parameter(name))}):
        assert torch.equal(base(pixels), before[0])
        assert not torch.equal(grafted(pixels), before[1])
    folded = grafted.process_weights_(fold_ln=True, center_writing_weights=True, center_unembed=True)
    assert torch.equal(base(pixels), before[0])
    assert torch.equal(tuned(pixels), before[1])
    torch.testing.assert_close(folded(pixels).softmax(-1), before[1].softmax(-1))
    twice = linear_head(graft_head(base, tuned), torch.zeros(3, 32), torch.zeros(3), NAMES)
    assert encoder_source(twice) is base
    assert encoder_source(base) is encoder_source(copy.deepcopy(twice)) is encoder_source(folded) is None
    graft_head(base, tuned).to(torch.float64)
    assert base.cfg.dtype == next(base.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": 64}, r"d_model of the ViTForImageClassification .* is 64 and 32"),
        ({"num_hidden_layers": 2}, "n_layers"),
        ({"num_attention_heads": 4}, "n_heads"),
        ({"layer_norm_eps": 0.5}, "eps"),
        ({"patch_size": 16}, "patch_size"),
    ],
)
def test_encoders_of_another_shape_are_refused_by_name(make_hf, changes, reason):
    encoder, tuned = HookedViT.from_hf(make_hf(**changes)), HookedViT.from_hf(make_hf())
    with pytest.raises(ValueError, match=reason):
        graft_head(encoder, tuned)


def test_heads_that_cannot_be_grafted_are_refused(make_hf):
    tuned = HookedViT.from_hf(make_hf())
    with pytest.raises(ValueError, match="this ViTModel has no classification head"):
        graft_head(tuned, HookedViT.from_hf(make_hf("ViTModel")))
    with pytest.raises(ValueError, match="dtype"):
        graft_head(copy.deepcopy(tuned).to(torch.float64), tuned)
    with pytest.raises(ValueError, match="had no processing and fold_ln: process"):
        graft_head(tuned, copy.deepcopy(tuned).process_weights_(fold_ln=True))
    with pytest.raises(ValueError, match="distillation_token"):
        graft_head(build("vit classifier"), build("deit with teacher"))
    with pytest.raises(ValueError, match="cls_token"):
        graft_head(build("ijepa classifier"), build("vit classifier"))
    with pytest.raises(ValueError, match="HookedViT"):
        graft_head(make_hf(), tuned)


def head_input(name: str, hidden: torch.Tensor, model: HookedViT) -> torch.Tensor:
    """The input of a family's classifier from a bare encoder's last hidden state, by hand."""
    family, patches = ZOO[name].family, hidden[:, model.cfg.n_prefix_tokens :].mean(1)
    if family.startswith("dinov2"):
        return torch.cat([hidden[:, 0], patches], 1)
    if family.startswith(("clip", "siglip", "ijepa")):
        return patches
    if family in ("beit", "data2vec-vision") and model.hf_config.use_mean_pooling:
        if model.pooler is None:
            return patches
        return torch.nn.functional.layer_norm(patches, (32,), model.pooler.w, model.pooler.b, model.cfg.eps)
    return hidden[:, 0]


@pytest.mark.parametrize("name", daily(BARE))
def test_a_linear_head_on_a_bare_encoder_reads_what_its_family_s_classifier_reads(name, tmp_path):
    model = build(name)
    expected = head_input(name, model(draw()), model)
    weight, bias = torch.randn(3, expected.shape[1], dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    headed = linear_head(model, weight, bias, NAMES)
    close(headed(draw()), expected @ weight.T + bias)
    assert headed.cfg.id2label == NAMES
    assert model.head is None
    with pytest.raises(ValueError, match="was given a linear head"):
        headed.to_hf()
    headed.save_pretrained(tmp_path / "kept")
    assert torch.equal(HookedViT.from_pretrained(tmp_path / "kept", "cpu")(draw()), headed(draw()))


@classifiers
def test_a_linear_head_on_a_classifier_reads_what_its_own_reads(name):
    model = build(name)
    _, cache = model.run_with_cache(draw(), names_filter="hook_head_input")
    expected = cache["hook_head_input"]
    weight, bias = torch.randn(3, expected.shape[1], dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    headed = linear_head(model, weight, bias, NAMES)
    close(headed(draw()), expected @ weight.T + bias)
    if not ZOO[name].zero_shot:
        close(run_reference(headed.to_hf(), draw()).logits, headed(draw()), 1e-8)
        assert headed.to_hf().config.id2label == NAMES
    assert model.cfg.n_classes == 5


def test_models_made_where_gradients_are_off_have_gradients():
    base = build("vit classifier", torch.float32)
    with torch.inference_mode():
        made = [graft_head(base, base), linear_head(base, torch.randn(3, 32), torch.zeros(3), NAMES)]
    for model in made:
        model(draw(dtype=torch.float32)).sum().backward()
        assert model.head.weight.grad is not None
        assert base.head.weight.grad is None


def test_a_linear_head_of_another_shape_is_refused():
    model = build("dinov2 encoder")
    with pytest.raises(ValueError, match=r"\[3, 64\] and \[3\] .* 64 values .* got \[3, 32\] and \[3\]"):
        linear_head(model, torch.zeros(3, 32), torch.zeros(3), NAMES)
