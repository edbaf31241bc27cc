"""The data of a feature browser, against loops in float64 and Hugging Face's model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from browse_calls import SMALL
from evaluation_saes import CHOSEN, CORRUPTIONS, KINDS, float64_codes, random_sae

from mechvit import HookedViT
from mechvit.data import ImageBatch, corrupt
from mechvit.saes.dashboard.collect import browse_features
from mechvit.saes.dashboard.examples import BINS
from mechvit.saes.evaluation.evaluate import sae_features


def codes_of(sae, hf_logits, key, tokens):
    return float64_codes(sae, hf_logits(key)[1][:, CHOSEN[tokens]])


@pytest.mark.parametrize("tokens", CHOSEN)
@pytest.mark.parametrize("kind", KINDS)
def test_chosen_latents_match_loops(make, batch, hf_logits, kind, tokens):
    sae = random_sae(kind, tokens=tokens)
    found = make(sae)
    page = found.saes["one"]
    codes = {key: codes_of(sae, hf_logits, key, tokens) for key in found.conditions}
    assert found.conditions == ("clean", *CORRUPTIONS)
    assert (page.special, page.grid) == {"all": (1, (4, 4)), "patches": (0, (4, 4)), "cls": (1, (0, 0))}[tokens]
    labels = batch.labels.tolist()
    for i, j in enumerate(page.chosen.tolist()):
        own = codes["clean"][:, :, j]
        fired, top = own[own > 1e-6], float(own.max())
        edges = np.linspace(0, top, BINS + 1)
        assert int(page.histogram[i].sum()) == pytest.approx(len(fired), abs=1)
        np.testing.assert_allclose(
            page.histogram[i].cumsum(0), np.histogram(fired, edges)[0].cumsum(), atol=2, err_msg=str(j)
        )  # a value may lie on an edge
        mass = [sum(float(own[n].sum()) for n in range(24) if labels[n] == label) for label in range(5)]
        np.testing.assert_allclose(page.label_share[i], np.array(mass) / sum(mass), atol=1e-4)
        for e, row in enumerate(page.example_row[i].tolist()):
            if row < 0:
                assert page.example_score[i, e].isnan()
                assert page.maps[:, i, e].isnan().all()
                continue
            assert float(page.example_score[i, e]) == pytest.approx(float(own[row].max()), abs=1e-4)
            for c, key in enumerate(found.conditions):
                np.testing.assert_allclose(page.maps[c, i, e], codes[key][row, :, j], atol=1e-4)


@pytest.mark.parametrize("tokens", CHOSEN)
@pytest.mark.parametrize("kind", KINDS)
def test_ablation_matches_hugging_face(make, batch, hf_logits, kind, tokens):
    """The layer's output less the latent's own part, in float64, put into Hugging Face's model."""
    sae = random_sae(kind, tokens=tokens)
    page = make(sae, corruptions=()).saes["one"]
    before, x = hf_logits("clean")
    codes, W_dec = float64_codes(sae, x[:, CHOSEN[tokens]]), sae.W_dec.detach().double()
    moved = 0
    for i, j in enumerate(page.chosen.tolist()):
        rows = [row for row in page.example_row[i, :3].tolist() if row >= 0]
        part = codes[:, :, j : j + 1] * W_dec[j]
        after, _ = hf_logits("clean", tokens=tokens, change=lambda h, part=part: (h.double() - part).float())
        logit, probability, changed = [], [], []
        shares = torch.zeros(5, dtype=torch.float64)
        for row in rows:
            a, b, label = before[row].double(), after[row].double(), int(batch.labels[row])
            logit.append(float((b - a)[label] - (b - a).mean()))
            shares += (b.softmax(0) - a.softmax(0)) / len(rows)
            probability.append(float(b.softmax(0)[label] - a.softmax(0)[label]))
            changed.append(int(a.argmax()) != int(b.argmax()))
        found = page.ablation
        assert int(found.images[i]) == len(rows)
        assert float(found.label_logit[i]) == pytest.approx(np.mean(logit), abs=1e-4)
        assert float(found.label_probability[i]) == pytest.approx(np.mean(probability), abs=1e-5)
        assert float(found.changed[i]) == pytest.approx(np.mean(changed))
        np.testing.assert_allclose(found.lowered_by[i], np.sort(shares)[:3], atol=1e-5)
        np.testing.assert_allclose(found.raised_by[i], np.sort(shares)[::-1][:3], atol=1e-5)
        np.testing.assert_allclose(shares[found.lowered[i]], found.lowered_by[i], atol=1e-5)
        np.testing.assert_allclose(shares[found.raised[i]], found.raised_by[i], atol=1e-5)
        moved += abs(np.mean(logit)) > 0.01
    assert moved > (1 if tokens == "cls" else 5)


def test_ablation_is_that_of_the_spliced_sae(make, tiny_model, batch):
    """With sae-lens's error term and a hook that sets the latent to zero."""
    sae = random_sae("batchtopk")
    page = make(sae, corruptions=()).saes["one"]
    i = int(page.ablation.label_logit.abs().argmax())
    j, rows = int(page.chosen[i]), page.example_row[i, :3]
    pixels = tiny_model.image_processor(batch.images[rows].numpy(), do_resize=False, do_rescale=False)["pixel_values"]
    pixels = torch.as_tensor(np.stack(pixels))

    def zero(acts, hook):
        acts[..., j] = 0
        return acts

    with torch.no_grad(), tiny_model.saes([sae], use_error_term=True):
        before = tiny_model(pixels)
        after = tiny_model.run_with_hooks(pixels, fwd_hooks=[("blocks.1.hook_resid_post.hook_sae_acts_post", zero)])
    change = (after - before) - (after - before).mean(1, keepdim=True)
    wanted = change.gather(1, batch.labels[rows][:, None]).mean()
    assert float(page.ablation.label_logit[i]) == pytest.approx(float(wanted), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_shown_images_match_loops(make, batch, hf_logits, kind):
    sae = random_sae(kind)
    found = make(sae)
    page = found.saes["one"]
    assert len(set(found.shown)) == 4
    assert len({int(batch.labels[row]) for row in found.shown}) > 2
    norm = sae.W_dec.detach().double().norm(dim=1)
    for c, key in enumerate(found.conditions):
        logits, x = hf_logits(key)
        codes = float64_codes(sae, x)
        for n, row in enumerate(found.shown):
            share = logits[row].double().softmax(0)
            np.testing.assert_allclose(page.predicted.probability[c, n], np.sort(share)[::-1][:3], atol=1e-5)
            np.testing.assert_allclose(share[page.predicted.label[c, n]], page.predicted.probability[c, n], atol=1e-5)
            for t in range(17):
                size = codes[row, t] * norm
                latents = page.strongest.feature[c, n, t].tolist()
                wanted = [s for s in np.sort(size)[::-1][:4] if s > 1e-5]
                assert sum(j >= 0 for j in latents) >= len(wanted)
                np.testing.assert_allclose([float(size[j]) for j in latents[: len(wanted)]], wanted, atol=1e-4)
                activation = [float(codes[row, t, j]) for j in latents[: len(wanted)]]
                np.testing.assert_allclose(page.strongest.activation[c, n, t, : len(wanted)], activation, atol=1e-4)
                fewer = page.strongest.feature[c, n, t] < 0
                assert torch.equal(page.strongest.activation[c, n, t].isnan(), fewer)


def test_sensitivity_matches_loops(make, hf_logits):
    sae = random_sae("standard")
    found = make(sae).saes["one"].sensitivity
    clean = codes_of(sae, hf_logits, "clean", "patches").flatten(0, 1)
    for c, key in enumerate(CORRUPTIONS):
        other = codes_of(sae, hf_logits, key, "patches").flatten(0, 1)
        for j in range(96):
            total = float(clean[:, j].sum() + other[:, j].sum())
            if total < 1e-3:
                continue
            wanted = float((clean[:, j] - other[:, j]).abs().sum()) / total
            assert float(found[c, j]) == pytest.approx(wanted, abs=1e-3)
            assert 0 <= wanted <= 1
    assert found[:, :7].isnan().all()  # dead


def test_several_models_share_one_page(tiny_model, tiny_hf, tiny_processor, batch):
    other = HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)
    with torch.no_grad():
        other.blocks[0].mlp.W_in.mul_(1.5)
    saes = {
        "base": (tiny_model, random_sae()),
        "top": (tiny_model, random_sae("batchtopk")),
        "tuned": (other, random_sae()),
    }
    together = browse_features(saes, batch, CORRUPTIONS, settings=SMALL)
    assert list(together.saes) == ["base", "top", "tuned"]
    for name, (model, sae) in saes.items():
        asked = {"alone": together.saes[name].chosen.tolist()}
        alone = browse_features({"alone": (model, sae)}, batch, CORRUPTIONS, settings=SMALL, features=asked)
        for field in ("chosen", "histogram", "example_row", "maps", "nearest"):
            own, beside = (getattr(page, field) for page in (alone.saes["alone"], together.saes[name]))
            torch.testing.assert_close(own, beside, rtol=0, atol=0, equal_nan=True, msg=field)
    assert not torch.equal(together.saes["base"].maps.nan_to_num(), together.saes["tuned"].maps.nan_to_num())


def test_batches_and_known_descriptions_change_nothing(make, tiny_model, batch):
    sae = random_sae()
    whole = make(sae, settings=dataclasses.replace(SMALL, batch_size=24))
    known = sae_features(tiny_model, sae, batch, CORRUPTIONS, top_images=16, seed=3, batch_size=1)
    alone = make(sae, settings=dataclasses.replace(SMALL, batch_size=1), described={"one": known})
    a, b = whole.saes["one"], alone.saes["one"]
    assert torch.equal(a.chosen, b.chosen)
    assert torch.equal(a.example_row, b.example_row)
    torch.testing.assert_close(a.maps, b.maps, rtol=1e-4, atol=1e-4, equal_nan=True)
    torch.testing.assert_close(a.ablation.label_logit, b.ablation.label_logit, rtol=1e-3, atol=1e-4)
    assert set(whole.pictures) == set(alone.pictures)
    assert all(torch.equal(picture, alone.pictures[key]) for key, picture in whole.pictures.items())


def test_pictures_are_the_images(make, batch):
    found = make(random_sae(), settings=dataclasses.replace(SMALL, picture_side=16))
    page = found.saes["one"]
    rows = set(page.example_row[page.example_row >= 0].tolist()) | set(found.shown)
    assert {row for row, key in found.pictures if key == "clean"} == rows
    assert {row for row, key in found.pictures if key == "gaussian_blur_2"} == set(found.shown)
    for row in rows:
        picture = found.pictures[row, "clean"]
        pixels = (batch.images[row] * 255).round()
        if row in found.shown:
            assert torch.equal(picture.float(), pixels)
        else:
            assert picture.shape == (3, 16, 16)
            assert picture.float().mean() == pytest.approx(float(pixels.mean()), abs=2)
    row = found.shown[0]
    blurred = corrupt(batch.images[row : row + 1], CORRUPTIONS[1], batch.image_ids[row : row + 1], seed=3)[0]
    assert torch.equal(found.pictures[row, CORRUPTIONS[1]].float(), (blurred * 255).round())


def test_a_bare_encoder_has_no_ablation(tiny_hf, tiny_processor, batch):
    bare = HookedViT.from_hf(tiny_hf.vit, image_processor=tiny_processor)
    page = browse_features({"one": (bare, random_sae())}, batch, settings=SMALL).saes["one"]
    assert page.ablation is None
    assert page.predicted is None
    assert page.features.logits is None


@pytest.mark.parametrize("n_unlabelled", [7, 24])
def test_images_without_labels_change_nothing_but_classes(make, batch, n_unlabelled):
    """The maps, the choice and what an ablation changes are those of labelled images; shares are of the labelled."""
    labels = batch.labels.clone()
    labels[:n_unlabelled] = -1
    sae, paths = random_sae(), tuple(f"day/{i}.png" for i in range(24))
    known, found = (
        make(sae, ImageBatch(batch.images, own, batch.image_ids, paths=paths)) for own in (batch.labels, labels)
    )
    one, other = known.saes["one"], found.saes["one"]
    common, i, j = np.intersect1d(one.chosen.numpy(), other.chosen.numpy(), return_indices=True)
    assert len(common) > 5
    drawn = [k for k, kind in enumerate(found.example_kinds) if kind != "random"]
    assert torch.equal(one.histogram[i], other.histogram[j])
    torch.testing.assert_close(one.example_score[i][:, drawn], other.example_score[j][:, drawn], equal_nan=True)
    torch.testing.assert_close(one.ablation.changed[i], other.ablation.changed[j])
    torch.testing.assert_close(one.ablation.raised_by[i], other.ablation.raised_by[j])
    assert found.files[3] == "3.png"
    if n_unlabelled == 24:
        assert other.label_share.shape[1] == 0
        assert other.ablation.label_logit.isnan().all()
        assert (other.features.mass_label == -1).all()
        return
    assert not other.ablation.label_logit.isnan().all()
    labelled = make(sae, batch.take(torch.arange(7, 24))).saes["one"]
    _, i, j = np.intersect1d(labelled.chosen.numpy(), other.chosen.numpy(), return_indices=True)
    torch.testing.assert_close(labelled.label_share[i], other.label_share[j], equal_nan=True)
    assert torch.equal(labelled.features.mass_label, other.features.mass_label)
    torch.testing.assert_close(labelled.features.selectivity, other.features.selectivity, equal_nan=True)


def test_another_hook_point(make, tiny_model, batch, hf_logits):
    """One in the middle of a block, where the network goes on through a hook."""
    sae = random_sae(hook="blocks.1.hook_mlp_out")
    page = make(sae, corruptions=()).saes["one"]
    i = int(page.ablation.label_logit.abs().argmax())
    j, row = int(page.chosen[i]), page.example_row[i, :3]
    pixels = tiny_model.image_processor(batch.images[row].numpy(), do_resize=False, do_rescale=False)["pixel_values"]
    pixels = torch.as_tensor(np.stack(pixels))

    def without(x, hook):
        return x - float64_codes(sae, x)[..., j : j + 1].float() * sae.W_dec[j]

    with torch.no_grad():
        before = tiny_model(pixels)
        after = tiny_model.run_with_hooks(pixels, fwd_hooks=[("blocks.1.hook_mlp_out", without)])
    change = (after.softmax(1) - before.softmax(1)).gather(1, batch.labels[row][:, None]).mean()
    assert float(page.ablation.label_probability[i]) == pytest.approx(float(change), abs=1e-5)
