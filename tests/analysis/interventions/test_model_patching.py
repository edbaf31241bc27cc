"""Cross-model patching against one plain hook at a time, known answers, and transformer-lens's own patching."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hf_zoo import ZOO
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformer_lens import patching as lens_patching

from mechvit import HookedViT
from mechvit.analysis import Patching, evaluate, patch_models
from mechvit.analysis.interventions.components import COMPONENT_KINDS, Component
from mechvit.data.batches import ImageBatch
from mechvit.data.corruptions import corrupt
from mechvit.data.pixels import normalize

OUTCOMES = ["correct", "logit_difference", "divergence"]
NOISE, CLEAN = "gaussian_noise_2", "clean"
TOKENS = {"all": slice(None), "cls": slice(0, 1)}


def perturbed(model: HookedViT, scale: float = 0.2, keep: Callable[[str], bool] = lambda name: False) -> HookedViT:
    """A copy whose weights are others, but those whose names are kept."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            noise = scale * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator)
            if not keep(name):
                parameter.add_(noise.to(parameter))
    return other


def pixels_of(model: HookedViT, batch: ImageBatch, key: str) -> Tensor:
    return normalize(corrupt(batch.images, key, batch.image_ids, seed=0), model.image_processor)


def margin(logits: Tensor, labels: Tensor, *models: Tensor) -> Tensor:
    """The label's logit minus that of the wrong class that is likeliest to all models together, by a loop."""
    out, together = [], sum(model.double().log_softmax(-1) for model in models)
    for own, label, reference in zip(logits, labels.tolist(), together, strict=True):
        foil = max((c for c in range(len(own)) if c != label), key=lambda c: float(reference[c]))
        out.append(own[label] - own[foil])
    return torch.stack(out)


def one_by_one(
    receiver: HookedViT, giver: HookedViT, batch: ImageBatch, key: str, giver_key: str, kinds: tuple, tokens: tuple
) -> dict[Component, tuple[Tensor, Tensor]]:
    """(correct, logit difference) of each component: a whole forward pass with one hook."""
    slices = {**TOKENS, "patches": slice(receiver.cfg.n_prefix_tokens, None)}
    found, n = {}, receiver.cfg.n_layers
    with torch.no_grad():
        plain = receiver(pixels_of(receiver, batch, key))
        other, cache = giver.run_with_cache(pixels_of(giver, batch, giver_key))
        for kind in kinds:
            for layer in range(n + (kind == "resid")):
                for head in range(receiver.cfg.n_heads) if kind == "head" else (-1,):
                    for where in tokens:
                        name = {
                            "resid": f"blocks.{min(layer, n - 1)}.hook_resid_{'pre' if layer < n else 'post'}",
                            "attn": f"blocks.{layer}.hook_attn_out",
                            "mlp": f"blocks.{layer}.hook_mlp_out",
                            "head": f"blocks.{layer}.attn.hook_z",
                        }[kind]

                        def swap(x, hook, name=name, where=where, head=head):
                            x = x.clone()
                            chosen = (slice(None), slices[where]) + ((head,) if head >= 0 else ())
                            x[chosen] = cache[name][chosen]
                            return x

                        logits = receiver.run_with_hooks(pixels_of(receiver, batch, key), fwd_hooks=[(name, swap)])
                        found[Component(kind, layer, head, where)] = (
                            logits.argmax(-1) == batch.labels,
                            margin(logits, batch.labels, plain, other),
                        )
    return found


def assert_matches(found: Patching, wanted: dict[Component, tuple[Tensor, Tensor]], atol: float = 1e-5) -> None:
    assert list(found.components) == list(wanted)
    for correct, difference, (own_correct, own) in zip(
        found.correct, found.logit_difference, wanted.values(), strict=True
    ):
        assert torch.equal(correct, own_correct)
        torch.testing.assert_close(difference, own.float(), rtol=1e-5, atol=atol)


def first(batch: ImageBatch, n: int) -> ImageBatch:
    return ImageBatch(batch.images[:n], batch.labels[:n], batch.image_ids[:n])


@pytest.mark.parametrize(("images", "batch_size", "giver_key"), [(24, 7, NOISE), (3, None, CLEAN), (24, 100, CLEAN)])
def test_matches_one_hook_at_a_time(tiny_model, batch, images, batch_size, giver_key):
    """With 24 images a pass holds one copy of each, with 3 many components', with 100 some."""
    giver, few = perturbed(tiny_model), first(batch, images)
    found = patch_models(
        tiny_model,
        giver,
        few,
        NOISE,
        giver_corruption=giver_key,
        tokens=("all", "cls", "patches"),
        batch_size=batch_size,
    )
    wanted = one_by_one(tiny_model, giver, few, NOISE, giver_key, COMPONENT_KINDS, ("all", "cls", "patches"))
    assert len(wanted) == (4 + 3 + 3 + 6) * 3
    assert_matches(found, wanted)
    assert found.logit_difference.std(0).min() > 1e-3, "components differ"
    for own, model, key in ((found.receiver, tiny_model, NOISE), (found.giver, giver, giver_key)):
        assert own.correct.float().mean() == pytest.approx(evaluate(model, few, key).accuracy)


FAMILIES = [
    "deit with teacher",
    "beit classifier, shared bias",
    "dinov2 classifier, swiglu",
    "registers classifier",
    "siglip classifier",
    "clip classifier",
    "clip zero-shot",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_matches_one_hook_at_a_time_in_other_families(name, batch, tiny_processor):
    entry = ZOO[name]
    receiver = HookedViT.from_hf(entry(), tiny_processor, **entry.zero_shot_head())
    giver, few = perturbed(receiver), first(batch, 2)
    tokens = ("all", "cls", "patches") if receiver.cfg.cls_token else ("all", "patches")
    found = patch_models(receiver, giver, few, NOISE, tokens=tokens)
    assert_matches(found, one_by_one(receiver, giver, few, NOISE, NOISE, COMPONENT_KINDS, tokens), 1e-4)


def test_hooks_of_the_receiver_stay(tiny_model, batch):
    giver, few = perturbed(tiny_model), first(batch, 2)
    points = ("blocks.1.hook_mlp_out", "blocks.1.hook_attn_out", "blocks.2.attn.hook_z", "blocks.0.hook_resid_mid")
    plain = patch_models(tiny_model, giver, few, NOISE)
    with tiny_model.hooks(fwd_hooks=[(point, lambda x, hook: 0.5 * x) for point in points]):
        found = patch_models(tiny_model, giver, few, NOISE)
        assert_matches(found, one_by_one(tiny_model, giver, few, NOISE, NOISE, COMPONENT_KINDS, ("all",)))
    assert (found.receiver.logit_difference - plain.receiver.logit_difference).abs().min() > 1e-4


def test_matches_transformer_lens(tiny_model, batch):
    giver, few = perturbed(tiny_model), first(batch, 4)
    found = patch_models(tiny_model, giver, few, NOISE, kinds=("head",))
    with torch.no_grad():
        plain = tiny_model(pixels_of(tiny_model, few, NOISE))
        other, cache = giver.run_with_cache(pixels_of(giver, few, NOISE))
        wanted = lens_patching.get_act_patch_attn_head_out_all_pos(
            tiny_model,
            tiny_model.to_tokens(pixels_of(tiny_model, few, NOISE)),
            cache,
            lambda logits: margin(logits, few.labels, plain, other).mean(),
        )
    torch.testing.assert_close(found.logit_difference.mean(1).view(3, 2), wanted, rtol=1e-5, atol=1e-5)


def test_from_itself_nothing_changes(tiny_model, batch):
    found = patch_models(tiny_model, tiny_model, batch, NOISE, tokens=("all", "cls", "patches"))
    assert found.effect.abs().max() <= 1e-5
    assert torch.equal(found.correct, found.receiver.correct.expand_as(found.correct))


def test_all_before_the_head_gives_the_giver(tiny_model, batch):
    giver = perturbed(tiny_model, keep=lambda name: name.startswith(("head.", "ln_final.")))
    found = patch_models(tiny_model, giver, batch, NOISE, kinds=("resid",), tokens=("all", "cls", "patches"))
    place = {(c.layer, c.tokens): i for i, c in enumerate(found.components)}
    assert found.giver.logit_difference.sub(found.receiver.logit_difference).abs().min() > 1e-3
    for tokens, reference in (("all", found.giver), ("cls", found.giver), ("patches", found.receiver)):
        i = place[3, tokens]  # the head reads CLS alone
        torch.testing.assert_close(found.logit_difference[i], reference.logit_difference, rtol=0, atol=1e-5)
        assert torch.equal(found.correct[i], reference.correct)


@pytest.mark.parametrize("name", ["vit classifier", "deit with teacher", "siglip classifier", "clip zero-shot"])
def test_everything_gives_exactly_the_giver(name, batch, tiny_processor):
    """Every weight is another's: of the receiver nothing is left once the logits are patched, its head alone once what
    the head reads is, and with the giver's head that is the giver, bit for bit."""
    entry = ZOO[name]
    receiver = HookedViT.from_hf(entry(), tiny_processor, **entry.zero_shot_head())
    giver, few = perturbed(receiver), first(batch, 6)
    kinds = ("resid", "head_input", "logits")
    found = patch_models(receiver, giver, few, NOISE, kinds=kinds)
    place = {(c.kind, c.layer): i for i, c in enumerate(found.components)}
    n = receiver.cfg.n_layers
    assert torch.equal(found.logit_difference[place["logits", n]], found.giver.logit_difference)
    assert torch.equal(found.correct[place["logits", n]], found.giver.correct)
    summary = found.to_frame().query("kind == 'logits'")
    assert len(summary) == 6
    apart = found.logit_difference[place["head_input", n]] - found.giver.logit_difference
    assert apart.abs().max() > 1e-4, "the heads differ"
    receiver.head.load_state_dict(giver.head.state_dict())
    found = patch_models(receiver, giver, few, NOISE, kinds=kinds)
    for kind in ("logits", "head_input"):
        assert torch.equal(found.logit_difference[place[kind, n]], found.giver.logit_difference)
        assert torch.equal(found.correct[place[kind, n]], found.giver.correct)
    assert found.passes == pytest.approx(2 + sum(n - layer for layer in range(n)) / n)


def test_embedding_of_a_clean_image_gives_the_clean_pass(tiny_model, batch):
    found = patch_models(tiny_model, tiny_model, batch, NOISE, giver_corruption=CLEAN, kinds=("resid",))
    torch.testing.assert_close(
        found.logit_difference, found.giver.logit_difference.expand(4, -1), rtol=0, atol=1e-5
    )  # all tokens at any layer are all that later layers read


def test_planted_mlp_is_found(planted):
    base, tuned, images = planted
    found = patch_models(base, tuned, images, NOISE)
    summary = found.summary(resamples=300).query("quantity == 'accuracy'").set_index(["kind", "layer", "head"])
    recovered = summary["recovered"]
    whole = [("mlp", 1, -1), ("resid", 2, -1), ("resid", 3, -1)]
    for row in whole:
        assert recovered[row] == 1
        assert summary.loc[row, "recovered_low"] == 1
    before = [("resid", 0, -1), ("resid", 1, -1), ("attn", 0, -1), ("attn", 1, -1), ("mlp", 0, -1)]
    before += [("head", layer, head) for layer in (0, 1) for head in (0, 1)]
    assert (recovered[before] == 0).all()
    assert (recovered.drop(whole) < 0.95).all()


def test_reverse_takes_the_planted_gain_away(planted):
    base, tuned, images = planted
    found = patch_models(tuned, base, images, NOISE, kinds=("mlp",))
    assert found.correct[1].tolist() == found.giver.correct.tolist()
    assert found.correct[0].all()


def test_passes_are_those_that_run(tiny_model, batch):
    """Tokens through each block's attention and MLP, counted, and weighed by their multiplications."""
    few, ran = first(batch, 2), {"attn": 0, "mlp": 0}
    giver = perturbed(tiny_model)
    for model in (tiny_model, giver):
        for block in model.blocks:
            for name in ran:
                module = getattr(block, name)
                module.register_forward_pre_hook(
                    lambda module, args, name=name: ran.__setitem__(name, ran[name] + len(args[0]))
                )
    found = patch_models(tiny_model, giver, few, NOISE, tokens=("all", "cls"))
    mlp, attention = 2 * 32 * 64, 4 * 32 * 32 + 2 * 17 * 32
    counted = (ran["attn"] * attention + ran["mlp"] * mlp) / (mlp + attention) / 3 / 2
    assert found.passes == pytest.approx(counted)
    assert ran["mlp"] > ran["attn"] > 0


@settings(max_examples=12, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(COMPONENT_KINDS), min_size=1, max_size=4, unique=True),
    tokens=st.lists(st.sampled_from(["all", "cls", "patches"]), min_size=1, max_size=3, unique=True),
    batch_size=st.integers(1, 40),
    images=st.integers(1, 5),
)
def test_no_choice_of_batches_or_company_changes_a_component(laws, kinds, tokens, batch_size, images):
    receiver, giver, batch, whole = laws
    found = patch_models(
        receiver, giver, first(batch, images), NOISE, kinds=kinds, tokens=tokens, batch_size=batch_size
    )
    assert len(found.components) == len(set(found.components))
    for component, own in zip(found.components, found.logit_difference, strict=True):
        wanted = whole.logit_difference[whole.components.index(component), :images]
        torch.testing.assert_close(own, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def laws(tiny_hf, tiny_processor, batch):
    receiver = HookedViT.from_hf(tiny_hf, tiny_processor)
    giver, few = perturbed(receiver), first(batch, 5)
    return receiver, giver, few, patch_models(receiver, giver, few, NOISE, tokens=("all", "cls", "patches"))


def test_tables(tiny_model, batch):
    found = patch_models(tiny_model, perturbed(tiny_model), first(batch, 3), NOISE, tokens=("all", "patches"))
    frame = found.to_frame(receiver="base")
    assert list(frame) == ["receiver", "kind", "layer", "head", "tokens", "image_id", *OUTCOMES]
    assert len(frame) == 3 * len(found.components)
    ids = found.image_id.tolist()
    assert ids == batch.image_ids[:3].tolist()
    row = frame.query(f"kind == 'head' and layer == 2 and head == 1 and tokens == 'patches' and image_id == {ids[1]}")
    i = found.components.index(Component("head", 2, 1, "patches"))
    assert row["logit_difference"].item() == pytest.approx(found.logit_difference[i, 1].item())
    assert row["correct"].item() == found.correct[i, 1].item()
    references = found.references()
    assert references["condition"].tolist() == ["receiver"] * 3 + ["giver"] * 3
    assert references["image_id"].tolist() == ids * 2


def test_the_divergence_needs_no_labels(tiny_model, batch):
    giver = perturbed(tiny_model)
    bare = ImageBatch(batch.images, torch.full_like(batch.labels, -1), batch.image_ids)
    kinds = ("resid", "mlp", "head_input", "logits")
    found, known = (patch_models(tiny_model, giver, images, NOISE, kinds=kinds) for images in (bare, batch))
    assert torch.equal(found.divergence, known.divergence)
    assert found.logit_difference.isnan().all()
    assert (found.divergence[found.components.index(Component("logits", 3, -1, "all"))] == 0).all()
    assert (found.giver.divergence == 0).all()
    i = found.components.index(Component("mlp", 1, -1, "all"))
    with torch.no_grad():
        _, cache = giver.run_with_cache(pixels_of(giver, batch, NOISE))
        patch = ("blocks.1.hook_mlp_out", lambda x, hook: cache[hook.name])
        patched = tiny_model.run_with_hooks(pixels_of(tiny_model, batch, NOISE), fwd_hooks=[patch])
        p, q = (logits.double().softmax(-1) for logits in (giver(pixels_of(giver, batch, NOISE)), patched))
    wanted = (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(found.divergence[i], wanted, rtol=1e-4, atol=1e-7)
    summary = found.summary(resamples=50)
    assert set(summary["quantity"]) == {"divergence"}
    rows = summary.set_index(["kind", "layer"])["recovered"]
    assert rows["logits", 3] == 1
    assert rows["mlp", 1] == pytest.approx(float(1 - wanted.mean() / found.receiver.divergence.mean()), rel=1e-4)
    same = patch_models(tiny_model, tiny_model, bare, NOISE, kinds=("logits",))
    assert set(same.summary(resamples=20)["recovered_reason"]) == {"same_answers"}


def test_refuses_what_cannot_be_patched(tiny_model, batch, make_other):
    with pytest.raises(ValueError, match="they differ in n_layers, 3 and 2"):
        patch_models(tiny_model, make_other(num_hidden_layers=2), batch, NOISE)
    with pytest.raises(ValueError, match=r"they differ in classes \(id2label; mechvit.models.graft_head"):
        patch_models(tiny_model, make_other(id2label=dict(enumerate("abcde"))), batch, NOISE)
    with pytest.raises(ValueError, match="they differ in dtype"):
        patch_models(tiny_model, copy.deepcopy(tiny_model).double(), batch, NOISE)
    bare = HookedViT.from_hf(ZOO["vit encoder"]())
    with pytest.raises(ValueError, match="the giver, a ViTModel, has no classification head"):
        patch_models(tiny_model, bare, batch, NOISE)
    for wrong in ({"kinds": ("mpl",)}, {"kinds": ()}, {"tokens": ("cls", "cls")}):
        with pytest.raises(ValueError, match=r"must be some of .*, none twice; got"):
            patch_models(tiny_model, tiny_model, batch, NOISE, **wrong)
    siglip = HookedViT.from_hf(ZOO["siglip classifier"](), tiny_model.image_processor)
    with pytest.raises(ValueError, match="has no CLS"):
        patch_models(siglip, siglip, batch, NOISE, tokens=("cls",))


@pytest.fixture
def make_other(tiny_hf, tiny_processor) -> Callable[..., HookedViT]:
    """A model of another shape than the tiny one."""
    from transformers import ViTConfig, ViTForImageClassification

    def make(**changes):
        config = ViTConfig.from_dict({**tiny_hf.config.to_dict(), "label2id": None, **changes})
        return HookedViT.from_hf(ViTForImageClassification(config).eval(), tiny_processor)

    return make
