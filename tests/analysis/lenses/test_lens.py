import pandas as pd
import pytest
import torch

from mechvit.analysis import evaluate, first_correct, logit_lens


@pytest.mark.parametrize("key", ["clean", "gaussian_noise_4"])
def test_lens_matches_hugging_face(tiny_model, tiny_hf, batch, hf_pass, key):
    """Hugging Face's own hidden states through its own final LayerNorm and classifier."""
    _, hidden, _ = hf_pass(key)
    lens = logit_lens(tiny_model, batch, key)
    assert lens.probability.shape == (24, 4)
    for layer, state in enumerate(hidden[:4]):
        with torch.no_grad():
            logits = tiny_hf.classifier(tiny_hf.vit.layernorm(state)[:, 0])
        expected = logits.softmax(-1)[range(24), batch.labels]
        torch.testing.assert_close(lens.probability[:, layer], expected, atol=1e-5, rtol=0)
        rank = (logits > logits[range(24), batch.labels][:, None]).sum(-1)
        assert torch.equal(lens.rank[:, layer], rank)
    assert lens.probability.std() > 0.05


def test_bare_head_matches_hugging_face(tiny_model, tiny_hf, batch, hf_pass):
    _, hidden, _ = hf_pass("clean")
    lens = logit_lens(tiny_model, batch, apply_ln=False)
    with torch.no_grad():
        expected = tiny_hf.classifier(hidden[2][:, 0]).softmax(-1)[range(24), batch.labels]
    torch.testing.assert_close(lens.probability[:, 2], expected, atol=1e-5, rtol=0)


def test_last_layer_is_the_model(tiny_model, tiny_images):
    lens, performance = logit_lens(tiny_model, tiny_images, batch_size=10), evaluate(tiny_model, tiny_images)
    torch.testing.assert_close(lens.probability[:, -1], performance.probability, atol=1e-5, rtol=0)
    assert torch.equal(lens.rank[:, -1], performance.rank)


def test_first_correct_layer_matches_loop(tiny_model, batch):
    lens = logit_lens(tiny_model, batch)
    expected = [next((layer for layer, rank in enumerate(row) if rank == 0), None) for row in lens.rank.tolist()]
    found = [None if layer != layer else layer for layer in lens.first_correct_layer.tolist()]
    assert found == expected
    ever_right = [layer for layer in expected if layer is not None]
    assert len(set(ever_right)) > 1
    assert None in expected
    mean = sum(ever_right) / len(ever_right)
    assert float(lens.first_correct_layer.nanmean()) == pytest.approx(mean)
    assert lens.first_correct_layer.mean().isnan()  # and never a mean with those that no layer gets right
    assert pd.Series(lens.first_correct_layer.numpy()).mean() == pytest.approx(mean)
    assert first_correct(lens.to_frame(model="m", corruption="clean"))["layer"].mean() == pytest.approx(mean)


def test_to_frame_has_one_row_an_image_and_layer(tiny_model, batch):
    lens = logit_lens(tiny_model, batch)
    frame = lens.to_frame(model="base", corruption="clean")
    assert list(frame.columns) == ["model", "corruption", "image_id", "layer", "probability", "rank"]
    for position, layer in ((0, 0), (5, 2), (23, 3)):
        image_id = int(batch.image_ids[position])
        (row,) = frame[(frame["image_id"] == image_id) & (frame["layer"] == layer)].itertuples()
        assert row.probability == pytest.approx(float(lens.probability[position, layer]))
        assert row.rank == int(lens.rank[position, layer])
    assert len(frame) == 24 * 4


def test_hooks_are_gone_afterwards(tiny_model, batch):
    logit_lens(tiny_model, batch)
    assert not any(point._forward_hooks for point in tiny_model.hook_dict.values())
