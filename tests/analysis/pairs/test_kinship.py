"""Kinship: models trained from one another are kin whatever the order of heads and neurons; others are not."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers
from hf_zoo import ZOO
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from mechvit import HookedViT
from mechvit.analysis import kinship, require_kin, unrelated_cosine
from mechvit.analysis.pairs import known_kinship
from mechvit.analysis.pairs.matching import best_partners, block_units, matched_cosines
from mechvit.models import graft_head

SHAPES = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64},
    "narrow": {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128},
    "wide MLP": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 600},
}


def vit(seed: int, architecture: str = "ViTForImageClassification", **shape) -> HookedViT:
    config = transformers.ViTConfig(**({"image_size": 32, "patch_size": 8, "num_labels": 5} | SHAPES["tiny"] | shape))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HookedViT.from_hf(getattr(transformers, architecture)(config).eval())


def permuted(model: HookedViT, seed: int = 0) -> HookedViT:
    """The same function, with the heads and neurons of every block in another order."""
    found, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in found.blocks:
            order = torch.randperm(model.cfg.d_mlp, generator=generator)
            block.mlp.fc1.weight.copy_(block.mlp.fc1.weight[order])
            block.mlp.fc1.bias.copy_(block.mlp.fc1.bias[order])
            block.mlp.fc2.weight.copy_(block.mlp.fc2.weight[:, order])
            heads = torch.arange(model.cfg.n_heads).roll(1)
            rows = torch.arange(model.cfg.n_heads * model.cfg.d_head).unflatten(0, (model.cfg.n_heads, -1))
            rows = rows[heads].flatten()
            for linear in (block.attn.q, block.attn.k, block.attn.v):
                linear.weight.copy_(linear.weight[rows])
                linear.bias.copy_(linear.bias[rows])
            block.attn.o.weight.copy_(block.attn.o.weight[:, rows])
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_two_seeds_are_no_kin(shape):
    found = kinship(vit(0, **SHAPES[shape]), vit(1, **SHAPES[shape]))
    assert not found.is_kin
    assert found.value < found.bound
    assert abs(found.value - found.unrelated) < 0.05
    assert all(matrix.matched > matrix.plain for matrix in found.matrices if ".mlp." in matrix.matrix)


def test_a_model_is_its_own_kin_and_nothing_is_matched():
    model = vit(0)
    found = kinship(model, copy.deepcopy(model))
    assert found.value == pytest.approx(1, abs=1e-6)
    assert found.is_kin
    assert all(matrix.moved == 0 for matrix in found.matrices)
    assert len(found.matrices) == 3 * 6
    assert repr(found).startswith("Kinship(kin: the median cosine of their weight matrices is 1.00")


@pytest.mark.parametrize("shape", SHAPES)
def test_an_order_of_heads_and_neurons_is_undone(shape):
    model = vit(0, **SHAPES[shape])
    other = permuted(model)
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(other(pixels), model(pixels))
    found = kinship(model, other)
    assert found.value == pytest.approx(1, abs=1e-6)
    frame = found.to_frame()
    assert frame["plain"].median() < found.bound < frame["matched"].min()
    mlp = frame[frame["matrix"].str.contains("mlp")]
    assert (mlp["units"] == min(512, model.cfg.d_mlp)).all()
    assert (mlp["moved"] > 0.9 * mlp["units"]).all()
    assert (frame.loc[frame["matrix"].str.contains("attn"), "moved"] == model.cfg.n_heads).all()


def test_one_mlp_in_another_order_is_matched_and_the_rest_is_not():
    model = vit(0)
    other = copy.deepcopy(model)
    whole = permuted(model)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name.startswith("blocks.1.mlp."):
                parameter.copy_(whole.get_parameter(name))
    frame = kinship(model, other).to_frame().set_index("matrix")
    assert frame.loc["blocks.1.mlp.fc1.weight", "plain"] < 0.2
    assert frame.loc["blocks.1.mlp.fc1.weight", "matched"] == pytest.approx(1, abs=1e-6)
    assert set(frame.index[frame["moved"] > 0]) == {"blocks.1.mlp.fc1.weight", "blocks.1.mlp.fc2.weight"}


def test_a_heavily_tuned_model_is_kin():
    """Large steps on other labels, until the outputs have nothing in common with the base's."""
    base = vit(0)
    tuned = copy.deepcopy(base)
    pixels, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 5
    optimiser = torch.optim.SGD(tuned.parameters(), lr=0.5)
    for _ in range(30):
        optimiser.zero_grad()
        F.cross_entropy(tuned(pixels), labels).backward()
        optimiser.step()
    found = kinship(base, tuned)
    assert (tuned(pixels) - base(pixels)).norm() > 3 * base(pixels).norm()
    assert found.is_kin
    assert found.value < 0.999


def test_layer_norms_and_biases_are_no_evidence():
    base, other = vit(0), vit(1)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if parameter.ndim == 1 or name.startswith("embed."):
                parameter.copy_(base.get_parameter(name))
    assert kinship(base, other).value == kinship(base, vit(1)).value
    assert not kinship(base, other).is_kin


def test_heads_and_families_make_no_difference():
    tuned = vit(0)
    bare = vit(0, "ViTModel")
    with torch.no_grad():
        for name, parameter in bare.named_parameters():
            if name.startswith("blocks."):
                parameter.copy_(tuned.get_parameter(name))
    assert kinship(bare, tuned).value == pytest.approx(1, abs=1e-6)
    mae = HookedViT.from_hf(ZOO["mae encoder"]())
    assert not kinship(mae, HookedViT.from_hf(ZOO["vit classifier"]())).is_kin
    gated = HookedViT.from_hf(ZOO["dinov2 classifier, swiglu"]())
    assert [m.matrix for m in kinship(gated, gated).matrices][6] == "blocks.0.mlp.gate.weight"


def test_other_shapes_are_no_kin_and_said_so():
    found = kinship(vit(0), vit(0, hidden_size=64, num_hidden_layers=2))
    assert not found.is_kin
    assert np.isnan(found.value)
    assert "n_layers 3 and 2" in found.reason
    assert "d_model 32 and 64" in found.reason
    assert found.to_frame().empty


def test_what_needs_kin_is_refused_with_the_reason():
    with pytest.raises(
        ValueError, match=r"^swapping weights needs models of which one was trained from the other"
    ) as no:
        require_kin(vit(0), vit(1), "swapping weights")
    assert "the median cosine of their weight matrices is 0." in str(no.value)
    assert "\n" not in str(no.value)
    assert require_kin(vit(0), vit(0), "swapping weights").is_kin
    with pytest.raises(ValueError, match="base must be a HookedViT"):
        kinship(3, vit(0))


def test_what_is_known_is_not_asked_again_in_its_context():
    base, tuned, stranger = vit(0), vit(0), vit(1)
    found = kinship(base, stranger)
    with known_kinship(base, tuned, found):  # a wrong one, which shows where it is taken
        for pair in ((base, tuned), (tuned, base), (base, graft_head(tuned, base))):
            with pytest.raises(ValueError, match="swapping weights needs models"):
                require_kin(*pair, "swapping weights")
        assert require_kin(base, vit(0), "swapping weights").is_kin
        with known_kinship(base, tuned, kinship(base, tuned)):
            assert require_kin(base, tuned, "swapping weights").is_kin
        with pytest.raises(ValueError, match="swapping weights needs models"):
            require_kin(base, tuned, "swapping weights")
    assert require_kin(base, tuned, "swapping weights").is_kin


def test_partners_are_scipy_s_on_cosines_by_loops():
    block, other = (vit(seed).requires_grad_(False).blocks[0] for seed in (0, 1))
    own, given = block_units(block)["mlp"], block_units(other)["mlp"]
    table = np.zeros((64, 64))
    for i in range(64):
        for j in range(64):
            for name in own:
                a, b = own[name][i].double(), given[name][j].double()
                table[i, j] += float(a @ b / (a.norm() * b.norm()))
    rows, columns = linear_sum_assignment(-table)
    assert best_partners(own, given).tolist() == columns.tolist()
    a, b = own["fc1"].double(), given["fc1"].double()[columns]
    found = matched_cosines("x", own, given, 0.9)[0]
    assert found.matrix == "x.fc1.weight"
    assert found.matched == pytest.approx(float((a * b).sum() / (a.norm() * b.norm())), abs=1e-6)
    assert rows.tolist() == list(range(64))


def test_heads_are_rows_of_q_and_columns_of_o():
    block = vit(0).blocks[0]
    heads = block_units(block)["attn"]
    assert torch.equal(heads["q"][1].view(16, 32), block.attn.W_Q[1].T)
    assert torch.equal(heads["o"][1].view(16, 32), block.attn.W_O[1])


def test_unrelated_models_reach_more_the_smaller_they_are():
    small, large = (unrelated_cosine(vit(0, **SHAPES[name]).cfg) for name in ("tiny", "narrow"))
    assert 0 < large < small < 0.3
