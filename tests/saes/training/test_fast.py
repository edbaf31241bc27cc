"""The sparse SAEs compute what stock sae-lens computes: losses, gradients, tracking, files, training."""

from __future__ import annotations

import json

import pytest
import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file

from mechvit.kernels import jit
from mechvit.saes.training import sparse_step as fast
from mechvit.saes.training.sparse_step import MAX_DENSITY, reconstruct

RARE = {"standard": 7.0, "batchtopk": 0.0}
"""Amount by which b_enc is lowered, so that few entries of the vanilla SAE are positive."""


def dead_latents(share, d_sae=96):
    return torch.rand(d_sae, generator=torch.Generator().manual_seed(4)) < share


def assert_same(ours, theirs, atol):
    """Losses and gradients, relative to each tensor's largest entry."""
    (out, grads), (expected, expected_grads) = ours, theirs
    assert out.losses.keys() == expected.losses.keys()
    for name, loss in [("loss", expected.loss), *expected.losses.items()]:
        found = out.loss if name == "loss" else out.losses[name]
        assert found.item() == pytest.approx(loss.item(), rel=atol, abs=0), name
    assert grads.keys() == expected_grads.keys() == {"W_enc", "b_enc", "W_dec", "b_dec"}
    for name, grad in expected_grads.items():
        assert grad.abs().max() > 0.01
        assert (grads[name] - grad).abs().max() <= atol * grad.abs().max(), name
    assert (out.sae_out - expected.sae_out).abs().max() <= atol * expected.sae_out.abs().max()


def assert_same_codes(out, expected, atol):
    assert out.feature_acts.is_sparse
    found = out.feature_acts.to_dense()
    assert torch.equal(found != 0, expected.feature_acts != 0)
    assert (found - expected.feature_acts).abs().max() <= atol * expected.feature_acts.abs().max()


@pytest.fixture
def floors(monkeypatch):
    """The floors at which the sparse SAEs searched for entries, in order."""
    seen, search = [], fast.encode_above

    def spy(x, weight, bias, floor, **options):
        seen.append(floor)
        return search(x, weight, bias, floor, **options)

    monkeypatch.setattr(fast, "encode_above", spy)
    return seen


@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-10), ("float32", 2e-5)])
@pytest.mark.parametrize("dead_share", [None, 0.0, 0.03, 0.4, 1.0])
def test_batchtopk_losses_and_gradients_match_stock(make_pair, tokens, forward_backward, dtype, atol, dead_share):
    ours, stock = make_pair("batchtopk", dtype, k=5, aux_loss_coefficient=0.6)
    dead = None if dead_share is None else dead_latents(dead_share)
    for seed in range(4):
        x = tokens(seed=seed).to(getattr(torch, dtype))
        found, expected = forward_backward(ours, x, dead), forward_backward(stock, x.double(), dead)
        assert_same(found, expected, atol)
        assert_same_codes(found[0], expected[0], atol)
        assert (expected[0].losses["auxiliary_reconstruction_loss"].item() > 0) == bool(dead_share)
        assert float(found[0].metrics["topk_threshold"]) == pytest.approx(float(stock.topk_threshold), rel=atol)
    assert float(ours.topk_threshold) > 0.01


@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-10), ("float32", 2e-5)])
@pytest.mark.parametrize("l1", [0.0, 0.7, 30.0])
def test_standard_losses_and_gradients_match_stock(make_pair, tokens, forward_backward, dtype, atol, l1):
    ours, stock = make_pair("standard", dtype, rare=RARE["standard"])
    x = tokens().to(getattr(torch, dtype))
    found, expected = forward_backward(ours, x, l1=l1), forward_backward(stock, x.double(), l1=l1)
    assert 0.005 < float((expected[0].feature_acts > 0).double().mean()) < MAX_DENSITY
    assert_same(found, expected, atol)
    assert_same_codes(found[0], expected[0], atol)


def test_standard_is_dense_where_many_entries_are_active(make_pair, tokens, forward_backward):
    ours, stock = make_pair("standard")
    found, expected = forward_backward(ours, tokens()), forward_backward(stock, tokens())
    assert not found[0].feature_acts.is_sparse
    assert float((found[0].feature_acts > 0).double().mean()) > MAX_DENSITY
    assert_same(found, expected, 1e-10)


def test_batchtopk_with_fewer_positive_entries_than_k(make_pair, tokens, forward_backward):
    ours, stock = make_pair("batchtopk", k=20, rare=4.0)
    for seed in range(2):
        found, expected = forward_backward(ours, tokens(seed=seed)), forward_backward(stock, tokens(seed=seed))
        assert 0 < found[0].feature_acts.values().numel() < 20 * 300
        assert float(found[0].feature_acts.values().min()) > 0  # never a negative pre-activation
        assert_same(found, expected, 1e-10)
        assert_same_codes(found[0], expected[0], 1e-10)


def test_batchtopk_shortcut_and_its_miss_match_stock(make_pair, tokens, forward_backward, floors):
    ours, stock = make_pair("batchtopk")
    small = stock.b_dec.detach() + 0.1 * (tokens(seed=2) - stock.b_dec.detach())
    for x in (tokens(seed=0), tokens(seed=1), small, tokens(seed=3)):
        assert_same(forward_backward(ours, x), forward_backward(stock, x), 1e-10)
    shortcut = [floor > 0 for floor in floors]
    assert shortcut == [False, True, True, False, True]  # the third batch missed and was searched again


def test_batchtopk_does_not_search_twice_after_a_batch_with_few_positive_entries(make_pair, tokens, floors):
    ours, _ = make_pair("batchtopk")
    ours.active(tokens())
    with torch.no_grad():
        ours.b_enc -= 8
    for _ in range(3):
        assert len(ours.active(tokens()).values) < 5 * 300
    assert [floor > 0 for floor in floors] == [False, True, False, False, False]


@pytest.mark.parametrize("k", [1, 2.51, 7])
def test_batchtopk_keeps_as_many_of_equal_entries_as_stock(make_pair, forward_backward, k):
    ours, stock = make_pair("batchtopk", d_in=4, d_sae=24, k=k)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 4, (50, 4), generator=generator).double()
    with torch.no_grad():
        for sae in (ours, stock):  # small integers: every pre-activation is exact, and many are equal
            sae.W_enc.copy_(torch.randint(-2, 3, (4, 24), generator=torch.Generator().manual_seed(1)))
            sae.W_dec.copy_(torch.eye(4).repeat(6, 1) * 2)
            sae.b_enc.fill_(1)
            sae.b_dec.fill_(1)
    for _ in range(2):
        (out, _), (expected, _) = forward_backward(ours, x), forward_backward(stock, x)
        values, theirs = out.feature_acts.values(), expected.feature_acts[expected.feature_acts != 0]
        assert len(values) == len(theirs) == int(k * 50)
        smallest = theirs.min()
        assert (((x - 1) @ stock.W_enc + 1) * 2 >= smallest).sum() > len(theirs)  # the boundary really is a tie
        assert torch.equal(values.sort().values, theirs.sort().values)
    assert torch.equal(ours.topk_threshold, stock.topk_threshold)


def test_auxiliary_loss_leaves_the_decoder_bias_out(make_pair, tokens, forward_backward):
    ours, _ = make_pair("batchtopk")
    x, dead = tokens(), dead_latents(0.4)
    with torch.no_grad():
        ours.b_dec.mul_(10)
    out, _ = forward_backward(ours, x, dead)
    W_enc, W_dec, b_enc, b_dec = (p.detach() for p in (ours.W_enc, ours.W_dec, ours.b_enc, ours.b_dec))
    total, half = 0.0, 6
    for token, rebuilt in zip(x, out.sae_out.detach(), strict=True):
        pre = {i: float((token - b_dec) @ W_enc[:, i] + b_enc[i]) for i in dead.nonzero().flatten().tolist()}
        best = sorted(pre, key=lambda i: -pre[i] * float(W_dec[i].norm()))[:half]
        total += float((token - rebuilt - sum(pre[i] * W_dec[i] for i in best)).pow(2).sum())
    assert out.losses["auxiliary_reconstruction_loss"].item() == pytest.approx(total / len(x), rel=1e-10)


def train(sae, batches, autocast=False):
    settings = SAETrainerConfig(
        total_training_samples=300 * len(batches),
        train_batch_size_samples=300,
        lr=3e-3,
        lr_end=1e-4,
        lr_scheduler_name="cosineannealing",
        lr_warm_up_steps=3,
        dead_feature_window=4,
        autocast=autocast,
    )
    trainer = SAETrainer(settings, sae, iter(()))
    trainer.activation_scaler.scaling_factor = 0.9
    for batch in batches:
        trainer.step(batch)
        trainer.n_training_steps += 1
    return trainer


@pytest.mark.parametrize(("architecture", "settings"), [("standard", {"l1_coefficient": 0.3}), ("batchtopk", {"k": 3})])
def test_training_with_sae_lens_trainer_matches_stock(make_pair, tokens, architecture, settings):
    ours, stock = make_pair(architecture, rare=RARE[architecture], **settings)
    start = {name: value.clone() for name, value in stock.state_dict().items()}
    batches = [tokens(seed=seed) for seed in range(25)]
    trainer, expected = train(ours, batches), train(stock, batches)
    assert torch.equal(trainer.n_forward_passes_since_fired, expected.n_forward_passes_since_fired)
    assert torch.equal(trainer.act_freq_scores, expected.act_freq_scores)
    assert 0 < int(expected.dead_neurons.sum()) < 96
    assert expected.act_freq_scores.sum() > 0
    assert ours.state_dict().keys() == stock.state_dict().keys()
    for name, value in stock.state_dict().items():
        assert (value - start[name]).abs().max() > 1e-3
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_published_model_equals_stock(make_pair, tokens, tmp_path, architecture):
    ours, stock = make_pair(architecture, rare=RARE[architecture], normalize_activations="expected_average_only_in")
    stock.load_state_dict(ours.state_dict())
    for sae, folder in ((ours, "ours"), (stock, "stock")):
        if architecture == "batchtopk":
            sae.topk_threshold.fill_(0.75)
        sae.fold_activation_norm_scaling_factor(2.0)
        sae.save_inference_model(tmp_path / folder)
    written, expected = (load_file(tmp_path / folder / "sae_weights.safetensors") for folder in ("ours", "stock"))
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    cfgs = [json.loads((tmp_path / folder / "cfg.json").read_text()) for folder in ("ours", "stock")]
    assert cfgs[0] == cfgs[1]
    opened = SAE.load_from_disk(tmp_path / "ours")
    assert type(opened).__module__.startswith("sae_lens.")
    if architecture == "batchtopk":  # the threshold is published, in raw units: sae-lens divides it by the scale
        assert torch.equal(opened.threshold, torch.full_like(opened.threshold, 0.375))


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_autocast_takes_the_stock_path(make_pair, tokens, architecture):
    ours, stock = make_pair(architecture, "float32", "float32", rare=RARE[architecture])
    batches = [tokens(seed=seed, dtype=torch.float32) for seed in range(5)]
    train(ours, batches, autocast=True)
    train(stock, batches, autocast=True)
    for name, value in stock.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("standard", {"lp_norm": 2.0}),
        ("standard", {"apply_b_dec_to_input": False}),
        ("standard", {"normalize_activations": "layer_norm"}),
        ("batchtopk", {"rescale_acts_by_decoder_norm": False}),
        ("batchtopk", {"apply_b_dec_to_input": False}),
        ("batchtopk", {"normalize_activations": "constant_norm_rescale"}),
    ],
)
def test_other_settings_take_the_stock_path(make_pair, tokens, forward_backward, architecture, settings):
    ours, stock = make_pair(architecture, rare=RARE[architecture], **settings)
    found, expected = forward_backward(ours, tokens()), forward_backward(stock, tokens())
    assert not found[0].feature_acts.is_sparse
    assert found[0].loss.item() == expected[0].loss.item()
    assert all(torch.equal(found[1][name], grad) for name, grad in expected[1].items())


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_a_device_where_it_is_not_used_takes_the_stock_path(make_pair, tokens, forward_backward, architecture):
    ours, _ = make_pair(architecture, rare=RARE[architecture])
    assert ours.devices == fast.DEVICES == ("cpu",)
    assert forward_backward(ours, tokens())[0].feature_acts.is_sparse
    ours.devices = ("cuda",)
    assert not forward_backward(ours, tokens())[0].feature_acts.is_sparse


def assert_step_matches_stock(make_pair, tokens, forward_backward, architecture, device):
    """In float32, both shortcut and first search, with dead latents."""
    ours, stock = make_pair(architecture, "float32", rare=RARE[architecture])
    ours = ours.to(device)
    ours.devices = (torch.device(device).type,)
    dead = dead_latents(0.4) if architecture == "batchtopk" else None
    for seed in range(3):
        x = tokens(n=90, seed=seed).float()
        out, grads = forward_backward(ours, x.to(device), None if dead is None else dead.to(device))
        assert out.feature_acts.is_sparse
        found = (out, {name: grad.cpu() for name, grad in grads.items()})
        expected = forward_backward(stock, x.double(), dead)
        out.sae_out = out.sae_out.cpu()
        assert_same(found, expected, 5e-5)
        assert torch.equal(out.feature_acts.to_dense().cpu() != 0, expected[0].feature_acts != 0)


@pytest.mark.long
@pytest.mark.parametrize("architecture", [pytest.param("standard", marks=pytest.mark.slow), "batchtopk"])
def test_a_step_on_the_interpreted_kernels_matches_stock(
    make_pair, tokens, forward_backward, architecture, monkeypatch
):
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("the kernels are compiled")  # on a GPU test_a_step_on_cuda_matches_stock runs them instead
    monkeypatch.setattr(jit, "INTERPRET", True)
    assert_step_matches_stock(make_pair, tokens, forward_backward, architecture, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_a_step_on_cuda_matches_stock(make_pair, tokens, forward_backward, architecture):
    assert_step_matches_stock(make_pair, tokens, forward_backward, architecture, "cuda")


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_a_hook_takes_effect(make_pair, tokens, forward_backward, architecture):
    ours, stock = make_pair(architecture, rare=RARE[architecture])
    plain = forward_backward(ours, tokens())[0].loss.item()
    for sae in (ours, stock):
        sae.add_hook("hook_sae_acts_post", lambda acts, hook: 2 * acts)
    found, expected = forward_backward(ours, tokens()), forward_backward(stock, tokens())
    assert found[0].loss.item() == expected[0].loss.item() != plain


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
def test_the_input_gets_its_gradient(make_pair, tokens, forward_backward, architecture):
    grads = []
    for sae in make_pair(architecture, rare=RARE[architecture]):
        x = tokens().requires_grad_()
        forward_backward(sae, x)
        grads.append(x.grad)
    assert torch.equal(*grads)
    assert grads[1].abs().max() > 0


@pytest.mark.parametrize(("architecture", "rare"), [("standard", 7.0), ("standard", 0.0), ("batchtopk", 0.0)])
def test_reconstruction_matches_stock(make_pair, tokens, architecture, rare):
    ours, stock = make_pair(architecture, rare=rare)
    with torch.no_grad():
        codes = stock.encode(tokens())
        expected = stock.decode(codes)
    for sae in (ours, stock):
        found, l0 = reconstruct(sae, tokens())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        assert l0 == int((codes > 0).sum()) / 300
