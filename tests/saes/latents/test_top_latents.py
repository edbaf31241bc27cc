"""The latents of one picture against the codes written out."""

from __future__ import annotations

import pytest
import torch
from evaluation_saes import empty_sae, float64_codes, random_sae
from PIL import Image

from mechvit.data import ImageBatch, normalize
from mechvit.saes import top_latents

HOOK = "blocks.1.hook_resid_post"


def one(batch: ImageBatch, place: int = 2) -> ImageBatch:
    return batch.take(slice(place, place + 1))


@pytest.mark.parametrize("tokens", ["all", "patches", "cls"])
def test_latents_match_codes_written_out(tiny_model, batch, tokens):
    sae = random_sae(hook=HOOK, tokens=tokens)
    found = top_latents(tiny_model, sae, one(batch), count=6)
    with torch.no_grad():
        _, cache = tiny_model.run_with_cache(normalize(one(batch).images, tiny_model.image_processor))
    x = cache[HOOK][0, {"all": slice(None), "patches": slice(1, None), "cls": slice(0, 1)}[tokens]]
    codes = float64_codes(sae, x)
    written = (codes * sae.W_dec.detach().double().norm(dim=1)).sum(0)
    order = written.argsort(descending=True)[:6]
    assert found.latent.tolist() == order.tolist()
    torch.testing.assert_close(found.total.double(), written[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.maps.double(), codes[:, order].T, rtol=1e-4, atol=1e-5)
    assert found.fired == int((codes > 1e-9).any(0).sum())
    frame = found.to_frame(model="base")
    for i, latent in enumerate(order.tolist()):
        token = int(codes[:, latent].argmax())
        row = frame.iloc[i]
        patch = token - {"all": 1, "patches": 0, "cls": 1}[tokens]
        assert row[["place", "latent", "token"]].tolist() == [i + 1, latent, token]
        assert (row["row"], row["column"]) == ((patch // 4, patch % 4) if patch >= 0 else (-1, -1))
        assert row["activation"] == pytest.approx(float(codes[token, latent]), rel=1e-4)
        assert row["share"] == pytest.approx(float((codes[:, latent] > 0).double().mean()))
    if tokens != "cls":
        assert found.patch_maps().shape == (6, 4, 4)


def test_a_picture_is_resized_as_the_model_does(tiny_model, batch):
    sae = random_sae(hook=HOOK)
    pixels = (one(batch).images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    by_picture, by_batch = (top_latents(tiny_model, sae, shown) for shown in (Image.fromarray(pixels), one(batch)))
    assert torch.equal(by_picture.latent, by_batch.latent)
    assert torch.equal(by_picture.activation, by_batch.activation)
    larger = Image.fromarray(pixels).resize((90, 70))
    assert len(top_latents(tiny_model, sae, larger).latent) == 10


def test_only_latents_that_fire_are_named(tiny_model, batch):
    sae = empty_sae(hook=HOOK)
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.b_enc.fill_(-1.0)
        sae.b_enc[[5, 9]] = torch.tensor([2.0, 3.0])
        sae.W_dec.fill_(0.1)
    found = top_latents(tiny_model, sae, one(batch))
    assert found.latent.tolist() == [9, 5]
    assert repr(found) == "TopLatents(2 of 2 latents that fire, latent 9 first)"
    with torch.no_grad():
        sae.b_enc.fill_(-1.0)
    nothing = top_latents(tiny_model, sae, one(batch))
    assert nothing.to_frame().empty
    assert repr(nothing) == "TopLatents(0 of 0 latents that fire)"


def test_bad_requests_are_refused(tiny_model, batch):
    sae = random_sae(hook=HOOK)
    with pytest.raises(ValueError, match="picture must be one image; got a batch of 24"):
        top_latents(tiny_model, sae, batch)
    with pytest.raises(ValueError, match="count must be"):
        top_latents(tiny_model, sae, one(batch), count=0)
    tiny_model.image_processor = None
    with pytest.raises(ValueError, match="this model has none: give an ImageBatch of one image"):
        top_latents(tiny_model, sae, Image.new("RGB", (32, 32)))
