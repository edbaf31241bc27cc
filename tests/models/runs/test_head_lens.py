"""`unembed_residual`, the logit lens, is the head that each family really uses."""

from __future__ import annotations

import pytest
import torch
from family_runs import CLASSIFIERS, CLS_ONLY, LAYERS, build, close, count_tokens, draw, resid, run
from hf_zoo import ZOO
from torch.nn import functional as F
from zoo_options import daily, exact

from mechvit.models.runs.activation_cache import ViTActivationCache

every_classifier = pytest.mark.parametrize("name", exact(CLASSIFIERS))


def bare_head(name, model, stream):
    """The head on a stream without `ln_final`, per family, from Hugging Face's own modules and weights."""
    hf = model.to_hf()
    cls, patches = stream[:, 0], stream[:, count_tokens(model)[0] :].mean(1)
    if ZOO[name].zero_shot:
        text = F.normalize(ZOO[name].text_embeds(torch.float64), dim=-1)
        image = hf.visual_projection(cls) if ZOO[name].family == "clip" else hf.vision_model.head(stream)
        return F.normalize(image, dim=-1) @ text.T * hf.logit_scale.exp() + getattr(hf, "logit_bias", 0)
    if "Teacher" in ZOO[name].architecture:
        return (hf.cls_classifier(cls) + hf.distillation_classifier(stream[:, 1])) / 2
    if "dinov2" in ZOO[name].family:
        return hf.classifier(torch.cat([cls, patches], dim=1))
    return hf.classifier(cls if name in CLS_ONLY else patches)


@every_classifier
def test_the_lens_of_the_last_layer_is_the_logits(name):
    model, logits, cache = run(name)
    prefix, n_patches = count_tokens(model)
    read = list(range(prefix + n_patches))[model.head_tokens]
    if name in CLS_ONLY:
        assert read == [0]
    elif "Teacher" in ZOO[name].architecture:
        assert read == [0, 1]
    elif "dinov2" in ZOO[name].family or ZOO[name].zero_shot:
        assert read == list(range(prefix + n_patches))
    else:
        assert read == list(range(prefix, prefix + n_patches))
    last = cache["resid_post", -1]
    close(model.unembed_residual(last[:, model.head_tokens]), logits)
    for layer in range(LAYERS + 1):
        stream = resid(cache, layer)
        found = model.unembed_residual(stream[:, model.head_tokens], apply_ln=False)
        close(found, bare_head(name, model, stream))
    with pytest.raises(ValueError, match="head_tokens"):
        model.unembed_residual(last[:, :0])


@pytest.mark.parametrize("name", daily(CLASSIFIERS))
def test_the_lens_fires_no_hook(name):
    model, cache = build(name), run(name)[2]
    fired = []
    ends = ("ln_final.", "head.", "pooler.", "hook_head_input", "hook_logits")
    watched = [point for point in model.hook_dict if point.startswith(ends)]
    assert {"hook_head_input", "hook_logits"} <= set(watched)
    for point in watched:
        model.add_hook(point, lambda tensor, hook: fired.append(hook.name) or tensor * 0)
    tokens = cache["resid_post", -1][:, model.head_tokens]
    expected = run(name)[0]
    for apply_ln in (True, False):
        assert torch.equal(model.unembed_residual(tokens, apply_ln), expected.unembed_residual(tokens, apply_ln))
    if model.cfg.final_norm != "pooled":
        ours = ViTActivationCache(cache.cache_dict, model).accumulated_resid(apply_ln=True)
        assert torch.equal(ours, cache.accumulated_resid(apply_ln=True))
    assert fired == []
    model(draw())
    assert set(fired) == set(watched), "they fire in a run, before the lens and after"
