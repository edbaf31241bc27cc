"""The commonest wrong things that a user hands to a public function: one line each, with the next step."""

from __future__ import annotations

import inspect
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from wrong_things import FACES, held

from mechvit import HookedViT, analysis, finetuning, saes, views
from mechvit.arguments import _annotations, _choices, _name
from mechvit.data import CLEAN, Corruption, ImageBatch, Mixture, corrupt


@pytest.fixture(scope="module")
def given(tiny_hf, tiny_processor, tiny_images):
    return held(tiny_hf, tiny_processor, tiny_images)


CASES = {
    "a data set's name": (
        lambda g: analysis.evaluate(g.model, "photos"),
        "images must be a datasets.Dataset or a mechvit.data.ImageBatch; got 'photos': load them first, with "
        r"mechvit.data.load_images\('photos'\)",
    ),
    "a folder": (
        lambda g: analysis.evaluate(g.model, Path("pictures")),
        "images must be a datasets.Dataset or a mechvit.data.ImageBatch; got the path pictures: load them first, with "
        r"mechvit.data.load_images\('folder:pictures'\)",
    ),
    "a picture": (lambda g: analysis.logit_lens(g.model, g.picture), "got an Image: put pictures into a mechvit.data."),
    "pictures": (lambda g: analysis.logit_lens(g.model, [g.picture] * 2), r"got a list of 2 \(Image\): put pictures"),
    "one array": (
        lambda g: analysis.evaluate(g.model, np.zeros((3, 32, 32))),
        r"got a ndarray \[3, 32, 32\]: put pictures into a mechvit.data.ImageBatch .images \[batch, 3, height, width\]",
    ),
    "a part's dict": (
        lambda g: analysis.evaluate(g.model, datasets.DatasetDict(test=g.images)),
        r"got a DatasetDict of 1 .*: choose one of its parts, as images\['test'\]",
    ),
    "a stream": (
        lambda g: analysis.evaluate(g.model, g.images.to_iterable_dataset()),
        "got an IterableDataset: load it without streaming",
    ),
    "a checkpoint's folder": (
        lambda g: analysis.evaluate("runs/base", g.images),
        r"model must be a HookedViT; got 'runs/base': load it first, with HookedViT.from_pretrained\('runs/base'\)",
    ),
    "Hugging Face's model": (
        lambda g: analysis.evaluate(g.hf_model, g.images),
        r"got a ViTForImageClassification: make it a HookedViT, with HookedViT.from_hf\(model, image_processor\)",
    ),
    "a data parallel model": (
        lambda g: analysis.evaluate(torch.nn.DataParallel(g.model), g.images),
        "got a DataParallel: give the model that it wraps, its .module",
    ),
    "a compiled model": (
        lambda g: analysis.evaluate(torch.compile(g.model), g.images),
        "got an OptimizedModule: give the model as it was before torch.compile, its ._orig_mod",
    ),
    "a bare model": (
        lambda g: analysis.study(g.model, g.images, [CLEAN]),
        r"models must be a dict of names to HookedViTs; got a HookedViT: give each a name, as \{'base': ...\}",
    ),
    "a list of models": (
        lambda g: analysis.corrupted_performance([g.model], g.images, []),
        r"models must be a dict of names to HookedViTs; got a list of 1 .*: give each a name",
    ),
    "models where one is wanted": (
        lambda g: analysis.evaluate({"base": g.model}, g.images),
        r"model must be a HookedViT; got a dict of 1 \(HookedViT\): give one of its models at a time",
    ),
    "a dict of Hugging Face's": (
        lambda g: analysis.study({"base": g.hf_model}, g.images, [CLEAN]),
        r"models\['base'\] must be a HookedViT; got a ViTFor.*: make it a HookedViT",
    ),
    "a bare SAE": (
        lambda g: saes.evaluate_saes(g.model, "saes/base/topk", g.images, []),
        "saes must be a dict of names to SAEs; got 'saes/base/topk'",
    ),
    "an SAE's folder": (
        lambda g: saes.evaluate_sae(g.model, "saes/base/topk", g.images),
        r"sae must be an SAE of sae-lens; got 'saes/base/topk': open it first, with mechvit.saes.load_sae\('saes/",
    ),
    "one corruption's key": (
        lambda g: analysis.study({"base": g.model}, g.images, "gaussian_blur_4"),
        r"corruptions must be a list of corruptions; got 'gaussian_blur_4': write \['gaussian_blur_4'\]",
    ),
    "one corruption": (
        lambda g: analysis.study({"base": g.model}, g.images, Corruption("fog", 3)),
        r"corruptions must be a list of corruptions; got a Corruption: write it in brackets, as \[corruption\]",
    ),
    "several corruptions": (
        lambda g: analysis.evaluate(g.model, g.images, ["fog_3", "snow_2"]),
        r"corruption must be a Corruption or its key, .*; got a list of 2 \(str\): give one at a time",
    ),
    "a mixture": (
        lambda g: analysis.evaluate(g.model, g.images, Mixture.parse("fog_3+snow_2")),
        "got a Mixture: a mixture is for training alone",
    ),
    "a hook point": (
        lambda g: analysis.steering_directions(g.model, g.images, "fog_3", hook_names="blocks.0.hook_resid_post"),
        r"hook_names must be a list of texts or None; got 'blocks.0.hook_resid_post': write \['blocks",
    ),
    "a layer": (
        lambda g: analysis.attention_maps(g.model, torch.zeros(1, 3, 32, 32), layers=2),
        r"layers must be a list of whole numbers or None; got 2: write \[2\]",
    ),
    "a table's file": (
        lambda g: analysis.lens_summary("tables/lens.parquet"),
        r"lens must be a pandas DataFrame; got 'tables/lens.parquet': read it first, with pandas.read_parquet\('tables",
    ),
    "a result": (
        lambda g: analysis.performance_summary(analysis.evaluate(g.model, g.batch)),
        r"performance must be a pandas DataFrame; got a Performance: call its to_frame\(\)",
    ),
    "settings as a dict": (
        lambda g: views.feature_browser({}, g.images, settings={"n_features": 3}),
        r"settings must be a Browsing or None; got a dict of 1 \(int\): write Browsing\(\*\*settings\)",
    ),
    "a number as text": (
        lambda g: analysis.evaluate(g.model, g.images, batch_size="8"),
        "batch_size must be a whole number or None; got '8'",
    ),
    "a fraction": (lambda g: analysis.evaluate(g.model, g.images, seed=0.5), "seed must be a whole number; got 0.5"),
    "a model to tune": (
        lambda g: finetuning.finetune(g.model, g.images, g.images, "out"),
        "checkpoint must be a path; got a HookedViT",
    ),
    "an SAE without its model": (
        lambda g: saes.browse_features({"mine": g.model}, g.images),
        r"saes\['mine'\] must be \(HookedViT, SAE\); got a HookedViT",
    ),
    "a size in halves": (lambda g: g.model.set_image_size(48.0), "image_size must be a whole number; got 48.0"),
    "a size as text": (lambda g: g.model.set_image_size("48"), "image_size must be a whole number; got '48'"),
    "a size as a truth value": (lambda g: g.model.set_image_size(True), "image_size must be a whole number; got True"),
    "a size below a patch": (lambda g: g.model.set_image_size(4), "image_size must be at least patch_size; got 4 < 8"),
    "a model to load": (
        lambda g: HookedViT.from_pretrained(g.hf_model),
        "path_or_hub_id must be a path; got a ViTForImageClassification",
    ),
    "a path to convert": (
        lambda g: HookedViT.from_hf("runs/base"),
        "from_hf takes a loaded Hugging Face model; got a str. Load it with HookedViT.from_pretrained",
    ),
    "a data parallel model to convert": (
        lambda g: HookedViT.from_hf(torch.nn.DataParallel(g.hf_model)),
        "The DataParallel wraps a model, and hooks go into the model itself: give the model that it wraps, its .module",
    ),
    "a compiled model to convert": (
        lambda g: HookedViT.from_hf(torch.compile(g.hf_model)),
        "The OptimizedModule wraps a model, .*: give the model as it was before torch.compile, its ._orig_mod",
    ),
    "one image": (
        lambda g: g.model(torch.zeros(3, 32, 32)),
        r"got torch.float32 \[3, 32, 32\]. Add the batch's dimension, as in pixels\[None\]",
    ),
    "no image": (
        lambda g: corrupt(torch.zeros(0, 3, 32, 32), "fog_3", torch.zeros(0, dtype=torch.int64)),
        r"there is no image to corrupt: the batch is empty, \[0, 3, 32, 32\]; give at least one",
    ),
    "no image, clean": (
        lambda g: corrupt(torch.zeros(0, 3, 32, 32), CLEAN, torch.zeros(0, dtype=torch.int64)),
        "there is no image to corrupt",
    ),
    "one image to corrupt": (
        lambda g: corrupt(torch.zeros(3, 32, 32), "fog_3", torch.zeros(1, dtype=torch.int64)),
        r"got torch.float32 .3, 32, 32.: add the batch's dimension, as in images\[None\]",
    ),
    "arrays to corrupt": (
        lambda g: corrupt(np.zeros((1, 3, 32, 32)), "fog_3", [0]),
        r"images and image_ids must be tensors, .*; got a ndarray and a list",
    ),
    "a batch of one image without its dimension": (
        lambda g: ImageBatch(torch.zeros(3, 32, 32), torch.zeros(1), torch.zeros(1)),
        r"got a Tensor \[3, 32, 32\], a Tensor \[1\] and a Tensor \[1\]: one image is a batch too, images\[None\]",
    ),
    "a batch of arrays": (
        lambda g: ImageBatch(np.zeros((2, 3, 32, 32)), [0, 1], [0, 1]),
        r"an ImageBatch holds tensors: .*; got a ndarray \[2, 3, 32, 32\], a list of 2 \(int\) and a list of 2",
    ),
    "a batch with too few labels": (
        lambda g: ImageBatch(torch.zeros(2, 3, 32, 32), torch.zeros(1), torch.zeros(2)),
        r"an ImageBatch holds tensors: .*; got a Tensor \[2, 3, 32, 32\], a Tensor \[1\] and a Tensor \[2\]",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_line_says_what_came_and_what_to_do(given, case):
    call, line = CASES[case]
    with pytest.raises(ValueError, match=line) as refused:
        call(given)
    assert "\n" not in str(refused.value)


def other_table(name):
    """A function's tables with columns that it cannot use, and its other arguments."""
    tables, rest = {}, {}
    for parameter, annotation in _annotations(FACES[name]).items():
        if "pd.DataFrame" in map(_name, _choices(annotation)):
            tables[parameter] = pd.DataFrame({"a": [1.0, 2.0]})
        elif inspect.signature(FACES[name]).parameters[parameter].default is inspect.Parameter.empty:
            rest[parameter] = ["a"] if parameter == "by" else [] if parameter == "spectra" else "x"
    return tables, rest


TABLES = {name: arguments for name in FACES if (arguments := other_table(name))[0]}
"""Read before any function runs: its first call puts types in the place of its annotations' text."""


@pytest.mark.parametrize("name", TABLES)
def test_columns_that_a_table_lacks_are_named(name):
    tables, rest = TABLES[name]
    with pytest.raises(ValueError, match=r"lacks .*\ba\b") as refused:
        FACES[name](**tables, **rest)
    assert "\n" not in str(refused.value)
