"""Stock sae-lens reads the exported folder in its cached mode, and gives the cache's values."""

from __future__ import annotations

import pytest
import torch
from cache_contents import HOOKS
from sae_lens import ActivationsStore

from mechvit.saes.activation_cache import export_for_sae_lens


def stock_store(folder, hook, n_tokens, d_in, images_at_once):
    return ActivationsStore(
        model=None,
        dataset=None,
        streaming=False,
        hook_name=hook,
        hook_head_index=None,
        context_size=n_tokens,
        d_in=d_in,
        n_batches_in_buffer=8,
        total_training_tokens=24 * n_tokens,
        store_batch_size_prompts=images_at_once,
        train_batch_size_tokens=n_tokens,
        prepend_bos=False,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
        cached_activations_path=str(folder),
    )


@pytest.mark.filterwarnings("ignore:All samples in the training dataset have been exhausted")  # meant: it reads on
@pytest.mark.parametrize(("tokens", "n_tokens"), [("all", 17), ("cls", 1)])
def test_stock_store_reads_the_same_values(make_cache, tmp_path, tokens, n_tokens):
    cache = make_cache(hooks=HOOKS, tokens=tokens, dtype="bfloat16")
    folder = export_for_sae_lens(cache, tmp_path / "exported")
    assert not (tmp_path / "exported.partial").exists()
    for hook in HOOKS:
        store = stock_store(folder, hook, n_tokens, 32, images_at_once=6)
        found = torch.cat([store.get_raw_llm_batch()[0] for _ in range(4)])
        assert torch.equal(found, torch.cat(list(cache.in_order(100, hooks=(hook,)))))
        mixed = next(store)
        assert mixed.shape == (n_tokens, 32)
        assert all((found == row).all(dim=1).any() for row in mixed)


def test_one_hook_point_alone(make_cache, tmp_path):
    import datasets

    folder = export_for_sae_lens(make_cache(hooks=HOOKS), tmp_path / "exported", HOOKS[1])
    assert datasets.load_from_disk(folder).column_names == [HOOKS[1]]


def test_refuses_what_is_there_and_what_is_not(make_cache, tmp_path):
    cache = make_cache()
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "state.json").write_text("mine")
    with pytest.raises(ValueError, match="exists and is no earlier result"):
        export_for_sae_lens(cache, tmp_path / "exported")
    with pytest.raises(ValueError, match="hooks must be"):
        export_for_sae_lens(cache, tmp_path / "other", "hook_embed")
    assert not (tmp_path / "other").exists()
