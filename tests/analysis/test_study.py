import pandas as pd
import pytest
import torch

from mechvit import HookedViT
from mechvit.analysis import attention_shift, evaluate, logit_lens, study
from mechvit.data.corruption_spec import CLEAN, Corruption

BLUR, NOISE = Corruption("gaussian_blur", 2), Corruption("gaussian_noise", 4)


@pytest.fixture
def models(tiny_model, tiny_hf, tiny_processor) -> dict[str, HookedViT]:
    """The tiny model and one whose weights are another's."""
    other = HookedViT.from_hf(tiny_hf, image_processor=tiny_processor)
    with torch.no_grad():
        other.blocks[1].attn.q.weight.mul_(-1.3)
    return {"base": tiny_model, "gaussian_blur_2": other}


def part(frame: pd.DataFrame, model: str, corruption: str) -> pd.DataFrame:
    chosen = frame[(frame["model"] == model) & (frame["corruption"] == corruption)]
    return chosen.drop(columns=["model", "corruption"]).reset_index(drop=True)


def test_study_matches_single_functions(models, tiny_images):
    tables = study(models, tiny_images, [BLUR, NOISE], batch_size=7)
    assert list(tables.performance["model"].unique()) == list(models)
    assert not part(tables.lens, "base", "clean").equals(part(tables.lens, "gaussian_blur_2", "clean"))
    for name, model in models.items():
        for corruption in (CLEAN, BLUR, NOISE):
            pairs = [
                (tables.performance, evaluate(model, tiny_images, corruption)),
                (tables.lens, logit_lens(model, tiny_images, corruption)),
            ]
            if corruption != CLEAN:
                pairs.append((tables.attention, attention_shift(model, tiny_images, corruption)))
            for table, single in pairs:
                found = part(table, name, corruption.key)
                pd.testing.assert_frame_equal(found, single.to_frame(), atol=2e-5, rtol=1e-4)
    assert set(tables.attention["corruption"]) == {BLUR.key, NOISE.key}


def test_models_studied_apart_give_the_same_numbers(models, tiny_images):
    together = study(models, tiny_images, [NOISE], batch_size=8)
    apart = [study({name: model}, tiny_images, [NOISE], batch_size=8) for name, model in models.items()]
    for table in ("performance", "lens", "attention"):
        joined = pd.concat([getattr(one, table) for one in apart], ignore_index=True)
        pd.testing.assert_frame_equal(getattr(together, table), joined)


def test_attention_limit_and_choice(models, tiny_images):
    options = {"batch_size": 7, "attention_corruptions": [NOISE], "attention_limit": 10}
    tables = study(models, tiny_images, [BLUR, NOISE], **options)
    assert set(tables.attention["corruption"]) == {NOISE.key}
    assert len(tables.attention) == 2 * 10 * 3
    assert tables.attention["image_id"].unique().tolist() == tiny_images["image_id"][:10]
    whole = study(models, tiny_images, [NOISE], batch_size=7).attention
    limited = part(tables.attention, "base", NOISE.key)
    pd.testing.assert_frame_equal(limited, part(whole, "base", NOISE.key)[: len(limited)])
    assert len(tables.performance) == 2 * 3 * 24


def test_without_attention_its_table_is_empty_but_named(models, tiny_images):
    tables = study(models, tiny_images, [NOISE], attention_corruptions=())
    assert len(tables.attention) == 0
    assert "squared_difference" in tables.attention.columns


def test_attention_under_an_unapplied_corruption_is_refused(models, tiny_images):
    with pytest.raises(ValueError, match="add gaussian_noise_4 to corruptions"):
        study(models, tiny_images, [BLUR], attention_corruptions=[NOISE])
    with pytest.raises(ValueError, match="no model"):
        study({}, tiny_images, [BLUR])
