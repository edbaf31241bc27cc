"""Cosines of SAE codes, clean against corrupted, against float64 loops."""

from __future__ import annotations

import math

import pytest
import torch
from evaluation_saes import CHOSEN, CORRUPTIONS, KINDS, float64_codes, random_sae

from mechvit.data import CLEAN
from mechvit.saes import sae_cosine
from mechvit.saes.evaluation.reconstruction import code_cosine


@pytest.mark.parametrize("tokens", CHOSEN)
@pytest.mark.parametrize("kind", KINDS)
def test_cosine_matches_float64_loops(tiny_model, batch, hf_logits, kind, tokens):
    sae = random_sae(kind, tokens=tokens)
    compared = CHOSEN["cls" if tokens == "cls" else "patches"]
    clean_residuals = hf_logits("clean")[1][:, compared]
    with torch.no_grad():
        sae.b_dec.copy_(clean_residuals.mean((0, 1)))  # else all codes share the latents of the mean
    for key in CORRUPTIONS:
        pair = (clean_residuals, hf_logits(key)[1][:, compared])
        clean, other = (float64_codes(sae, x).tolist() for x in pair)
        found = sae_cosine(tiny_model, sae, batch, key, seed=3, batch_size=5)
        assert torch.equal(found.image_id, batch.image_ids)
        assert found.token.tolist() == list(range(1 if tokens == "cls" else 16))
        assert found.cosine.shape == (24, len(found.token))
        assert found.cosine.dtype == torch.float32
        for i in range(24):
            for j in range(len(found.token)):
                a, b = clean[i][j], other[i][j]
                dot = sum(p * q for p, q in zip(a, b, strict=True))
                expected = dot / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))
                assert float(found.cosine[i, j]) == pytest.approx(expected, abs=2e-5)
        assert float(found.cosine.min()) < 0.9 < float(found.cosine.max())


def test_cosine_of_clean_with_itself_is_one(tiny_model, batch):
    found = sae_cosine(tiny_model, random_sae("batchtopk"), batch, CLEAN)
    torch.testing.assert_close(found.cosine, torch.ones(24, 16), rtol=0, atol=1e-6)


def test_cosine_of_empty_codes():
    zero, one = torch.zeros(4), torch.tensor([0.0, 3.0, 0.0, 4.0])
    clean = torch.stack([zero, zero, one, one, one])
    other = torch.stack([zero, one, zero, 1e-18 * one, torch.tensor([0.0, 4.0, 1.0, 0.0])])
    expected = torch.tensor([1.0, 0.0, 0.0, 1.0, 12 / (5 * 17**0.5)])
    torch.testing.assert_close(code_cosine(clean, other), expected)
