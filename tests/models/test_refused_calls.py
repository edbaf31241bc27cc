"""Calls that a HookedViT refuses before it computes anything, each with what came and what would be right."""

from __future__ import annotations

import pytest
import torch

from mechvit import HookedViT


@pytest.fixture
def model(make_hf) -> HookedViT:
    return HookedViT.from_hf(make_hf())


@pytest.fixture
def bare(make_hf) -> HookedViT:
    return HookedViT.from_hf(make_hf("ViTModel"))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((3, 32, 32), torch.float32),
        ((2, 1, 32, 32), torch.float32),
        ((2, 3, 40, 32), torch.float32),
        ((2, 3, 224, 224), torch.float32),
        ((2, 32, 32, 3), torch.float32),
        ((2, 3, 32, 32), torch.uint8),
        ((2, 3, 32, 32), torch.int64),
    ],
    ids=str,
)
def test_wrong_pixels(model, shape, dtype):
    pixels = torch.zeros(shape, dtype=dtype)
    for run in (model, model.run_with_cache, model.run_with_hooks):
        with pytest.raises(ValueError, match=r"floats \[batch, 3, 32, 32\]; got") as error:
            run(pixels)
        assert f"{dtype} {list(shape)}" in str(error.value)


def test_wrong_return_type(model, pixels, labels):
    with pytest.raises(ValueError, match=r'"logits", "loss", "both" or None; got \'logit\''):
        model(pixels, "logit", labels=labels)


@pytest.mark.parametrize("return_type", ["loss", "both"])
def test_loss_without_labels_or_head(model, bare, pixels, labels, return_type):
    with pytest.raises(ValueError, match=f'return_type="{return_type}" needs labels'):
        model(pixels, return_type)
    with pytest.raises(ValueError, match="This ViTModel has no classification head"):
        bare(pixels, return_type, labels=labels)


@pytest.mark.parametrize("stop", [-4, 4, 100])
def test_stop_out_of_range(model, pixels, stop):
    for run in (model, model.run_with_cache, model.run_with_hooks):
        with pytest.raises(ValueError, match=rf"within -3\.\.3; got {stop}"):
            run(pixels, stop_at_layer=stop)


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        ("blocks.1.hook_resid_pre", 1),
        ("blocks.2.attn.hook_pattern", -1),
        ("blocks.0.hook_resid_post", 0),
        ("ln_final.hook_scale", 3),
        ("hook_logits", 3),
    ],
)
def test_name_beyond_the_stop(model, pixels, name, stop):
    with pytest.raises(ValueError, match=f"stop_at_layer={stop} ends the run before '{name}'"):
        model.run_with_cache(pixels, names_filter=[name, "hook_embed"], stop_at_layer=stop)
    with pytest.raises(ValueError, match=f"stop_at_layer={stop} ends the run before '{name}'"):
        model.run_with_hooks(pixels, fwd_hooks=[(name, lambda x, hook: x)], stop_at_layer=stop)


def test_start_out_of_range_or_after_the_stop(model, pixels):
    entered = model(pixels, stop_at_layer=1)
    for run in (model, model.run_with_cache, model.run_with_hooks):
        with pytest.raises(ValueError, match=r"start_at_layer must lie within -3\.\.3; got 4"):
            run(entered, start_at_layer=4)
        with pytest.raises(ValueError, match=r"stop_at_layer must not lie before start_at_layer; got -2 and 2"):
            run(entered, start_at_layer=2, stop_at_layer=-2)
        with pytest.raises(ValueError, match=r"stop_at_layer must lie within -3\.\.3; got -5"):
            run(entered, start_at_layer=2, stop_at_layer=-5)


def test_wrong_residual_stream(model, pixels):
    good = model(pixels, stop_at_layer=1)
    for wrong in (pixels, good[:, 1:], good[..., :8], good[0], good.long(), model.to_tokens(pixels), [1]):
        for run in (model, model.run_with_cache, model.run_with_hooks):
            with pytest.raises(ValueError, match=r"floats \[batch, 17, 32\]; got .*stop_at_layer=1 returns"):
                run(wrong, start_at_layer=1)
    with pytest.raises(ValueError, match=r"leave interpolate_pos_encoding out"):
        model(good, start_at_layer=1, interpolate_pos_encoding=True)
    good[2, 3, 4] = float("nan")
    with pytest.raises(ValueError, match=r"images \[2\] of the batch are not"):
        model(good, start_at_layer=1, check_finite=True)


@pytest.mark.parametrize(
    ("name", "start"), [("blocks.0.hook_resid_post", 1), ("blocks.1.attn.hook_pattern", -1), ("hook_embed", 0)]
)
def test_name_before_the_start(model, pixels, name, start):
    entered = model(pixels, stop_at_layer=start)
    with pytest.raises(ValueError, match=f"start_at_layer={start} begins the run after '{name}'"):
        model.run_with_cache(entered, names_filter=[name, "hook_logits"], start_at_layer=start)
    with pytest.raises(ValueError, match=f"start_at_layer={start} begins the run after '{name}'"):
        model.run_with_hooks(entered, fwd_hooks=[(name, lambda x, hook: x)], start_at_layer=start)


MISSPELT = {
    "blocks.1.hook_resid_pots": "blocks.1.hook_resid_post",
    "blocks.0.attn.hook_patern": "blocks.0.attn.hook_pattern",
    "block.2.mlp.hook_post": "blocks.2.mlp.hook_post",
    "hook_logit": "hook_logits",
    "ln_final.hook_normalised": "ln_final.hook_normalized",
    "blocks.7.hook_resid_post": r"blocks.\d.hook_resid_post",
    "blocks.1.attn": "blocks.1.attn.",
}


@pytest.mark.parametrize(("name", "nearest"), MISSPELT.items(), ids=MISSPELT)
def test_misspelt_hook_point_gets_the_nearest(model, pixels, name, nearest):
    def hook(x, hook):
        return x

    calls = (
        lambda: model.run_with_cache(pixels, names_filter=name),
        lambda: model.run_with_cache(pixels, names_filter=["hook_embed", name]),
        lambda: model.run_with_hooks(pixels, fwd_hooks=[(name, hook)]),
        lambda: model.run_with_hooks(pixels, fwd_hooks=[(name, hook)], stop_at_layer=3),
        lambda: model.run_with_hooks(pixels, bwd_hooks=[(name, hook)], reset_hooks_end=True),
        lambda: model.add_hook(name, hook),
        lambda: model.add_perma_hook(name, hook),
        lambda: model.add_caching_hooks(name),
    )
    for call in calls:
        with pytest.raises(ValueError, match=rf"no hook point '{name}'\. Did you mean '{nearest}"):
            call()
    assert model.list_hooks() == {}


def test_predicate_that_selects_nothing(model, pixels):
    def nowhere(name):
        return "resid_pots" in name

    for call in (
        lambda: model.run_with_cache(pixels, names_filter=nowhere),
        lambda: model.run_with_hooks(pixels, fwd_hooks=[(nowhere, lambda x, hook: x)]),
        lambda: model.add_hook(nowhere, lambda x, hook: x),
    ):
        with pytest.raises(ValueError, match="selects no hook point"):
            call()


@pytest.mark.parametrize(
    ("point", "request_call"),
    [
        ("attn.hook_result", "set_use_attn_result(True)"),
        ("hook_q_input", "set_use_split_qkv_input(True)"),
        ("hook_k_input", "set_use_split_qkv_input(True)"),
        ("hook_v_input", "set_use_split_qkv_input(True)"),
        ("hook_mlp_in", "set_use_hook_mlp_in(True)"),
    ],
)
def test_point_on_request_names_its_call(model, pixels, point, request_call):
    name = f"blocks.0.{point}"
    with pytest.raises(ValueError, match="on request only") as error:
        model.run_with_cache(pixels, names_filter=name)
    assert f"model.{request_call}" in str(error.value)
    eval(f"model.{request_call}", {"model": model})  # the advice works as it stands
    assert name in model.run_with_cache(pixels, names_filter=name)[1]


def test_backward_cache_without_a_loss(model, pixels, labels):
    with pytest.raises(ValueError, match=r"incl_bwd needs return_type=\"loss\".*got 'logits'"):
        model.run_with_cache(pixels, incl_bwd=True)
    with pytest.raises(ValueError, match=r"incl_bwd needs .* no stop; got 'loss' and 1"):
        model.run_with_cache(pixels, "loss", labels=labels, incl_bwd=True, stop_at_layer=1)


def test_gradients_of_a_frozen_model_or_without_autograd(model, pixels, labels):
    backward = {"labels": labels, "incl_bwd": True}
    for off in (torch.no_grad, torch.inference_mode):
        with (
            off(),
            pytest.raises(ValueError, match=r"incl_bwd needs gradients, .*outside torch.no_grad and torch.inference"),
        ):
            model.run_with_cache(pixels, "loss", **backward)
    wanted = model.run_with_cache(pixels, "loss", **backward)[1]["blocks.1.hook_resid_post_grad"]
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"all weights of the model are frozen. Call pixels.requires_grad_\(\)"):
        model.run_with_cache(pixels, "loss", **backward)
    _, cache = model.run_with_cache(pixels.clone().requires_grad_(), "loss", **backward)
    torch.testing.assert_close(cache["blocks.1.hook_resid_post_grad"], wanted)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ([0, 1], "got list"),
        (torch.tensor([0.0, 1.0]), r"got torch.float32 \[2\]"),
        (torch.tensor([0, 1, 1]), r"one per image; got torch.int64 \[3\]"),
        (torch.tensor(1), r"got torch.int64 \[\]"),
        (torch.tensor([0, 500]), r"labels must be classes of the model, 0 to \d+; got 0 to 500. Map them with"),
        (torch.tensor([-1, 0]), r"0 to \d+; got -1 to 0"),
    ],
    ids=str,
)
def test_labels_that_are_no_classes(model, wrong, line):
    pixels = torch.zeros(2, 3, 32, 32)
    for run in (model, model.run_with_cache, model.run_with_hooks):
        with pytest.raises(ValueError, match=f"{line}") as refused:
            run(pixels, "loss", labels=wrong)
        assert str(refused.value).startswith("labels must be ")


def test_remove_batch_dim_of_several_images(model, pixels):
    with pytest.raises(ValueError, match="a batch of one image; got 4"):
        model.run_with_cache(pixels, remove_batch_dim=True)
    assert model.list_hooks() == {}


def test_unembedding_other_tokens(model):
    for shape in ((2, 17, 32), (2, 32)):
        with pytest.raises(ValueError, match=r"\[batch, 1, d_model\].*Pass resid\[:, model.head_tokens\]"):
            model.unembed_residual(torch.zeros(shape))


def test_head_of_a_bare_encoder(bare):
    for call in (
        lambda: bare.W_U,
        lambda: bare.b_U,
        lambda: bare.unembed_residual(torch.zeros(2, 1, 32)),
        lambda: bare.tokens_to_residual_directions(0),
    ):
        with pytest.raises(ValueError, match="This ViTModel has no classification head"):
            call()


def test_unknown_class_name(model):
    assert model.to_single_token("elk") == 4
    with pytest.raises(ValueError, match=r"one of the 5 names in cfg.id2label; got 'emu'"):
        model.to_single_token("emu")


@pytest.mark.parametrize(("layer", "mlp_input", "most"), [(-1, False, 3), (4, False, 3), (3, True, 2)])
def test_accumulated_bias_out_of_range(model, layer, mlp_input, most):
    with pytest.raises(ValueError, match=rf"within 0\.\.{most}; got {layer}"):
        model.accumulated_bias(layer, mlp_input=mlp_input)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_pixels_that_are_not_finite_are_named_on_request(model, pixels, value):
    broken = pixels.clone()
    broken[1, 2, 3, 4] = broken[3, 0, 0, 0] = value
    for run in (model, model.run_with_cache, model.run_with_hooks, model.run_with_saes):
        with pytest.raises(ValueError, match=r"must be finite; images \[1, 3\] of the batch are not"):
            run(broken, check_finite=True)
        run(broken)
        run(pixels, check_finite=True)


@pytest.mark.parametrize("shape", [(2, 3, 7, 32), (2, 1, 32, 32), (3, 32, 32)], ids=str)
def test_wrong_pixels_of_any_size(model, shape):
    for run in (model, model.run_with_cache, model.run_with_hooks):
        with pytest.raises(ValueError, match=r"floats \[batch, 3, at least 8, at least 8\]; got torch.float32"):
            run(torch.zeros(shape), interpolate_pos_encoding=True)


def test_another_size_says_how(model):
    with pytest.raises(ValueError, match="pass interpolate_pos_encoding=True"):
        model(torch.zeros(1, 3, 40, 40))


def test_no_tensor_at_all(model):
    with pytest.raises(ValueError, match=r"floats \[batch, 3, 32, 32\]; got list"):
        model([[0.0]])
