"""The `mechvit` command: the list of commands, and calls of single ones."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any

from mechvit.terminal import NobodyReads, say

COMMANDS: dict[str, dict[str, str]] = {
    "The paper": {
        "reproduce": "the whole experiment, also with your own model and images, in one report",
        "transfer": "which corruptions help on which: models tuned on each, tested on all",
        "export-figures": "a finished run's figures as files for print",
        "screenshots": "pictures of a finished run's pages",
    },
    "Models": {
        "finetune": "fine-tune a ViT on corrupted images, into an ordinary checkpoint",
        "nulls": "models tuned on clean images, from other seeds, or as far: what a change is held against",
        "evaluate": "accuracy, rank, confidence and calibration under corruptions",
        "robustness": "corruption error, Fourier sensitivity and spectra",
        "hook-points": "the hook points of a checkpoint, or of every family",
    },
    "What changed inside": {
        "compare": "any base and any models tuned from it, on any images: one report",
        "look": "one picture in one or more models: attention, patch lens, latents",
        "analyze": "performance, logit lens and attention of a base model and tuned ones",
        "compare-representations": "CKA, tuned lens and prediction depth",
        "patch-models": "activations of one model patched into another, part by part",
        "swap-weights": "weights of one model put into another, and paths between them",
        "steer": "directions that lead from corrupted to clean",
        "benchmark": "every method scored on changes that were planted",
    },
    "Sparse autoencoders": {
        "cache-activations": "write a model's activations to disk, for training",
        "train-sae": "train vanilla, BatchTopK and other SAEs on activations",
        "evaluate-sae": "reconstruction, sparsity, spliced accuracy, cosine of codes",
        "ablate-features": "accuracy without the latents that a corruption changes most",
        "browse-features": "a page of an SAE's latents: images, numbers, change",
    },
    "Pages": {
        "visualize-attention": "attention of one picture, head by head (circuitsvis)",
        "explore-attention": "attention of several models on several pictures, and the patch lens",
    },
}
"""Commands by purpose, each with one line of help."""
NAMES = [name for group in COMMANDS.values() for name in group]
EXAMPLES = """\
  mechvit reproduce
  mechvit compare runs/photos/models/base runs/photos/models/gaussian_blur_4 --out comparison
  mechvit COMMAND --help"""


def main(arguments: list[str] | None = None) -> None:
    """Call one command with what was given after its name; without a name, or with `--help`, list them all."""
    try:
        _main(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except (BrokenPipeError, NobodyReads):  # whoever read the help, as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at the end
        sys.exit(1)


def _main(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        say(overview())
        return
    if words[0] in ("-V", "--version"):
        from mechvit import __version__

        say(__version__)
        return
    name = words[0].replace("_", "-")
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else "`mechvit --help` lists them"
        from .command_line import refuse

        refuse(f"there is no command {words[0]}: {hint}")
    call(name, words[1:])


def call(name: str, arguments: list[str]) -> None:
    """Run a command; an error that the user can resolve ends the process with one line."""
    from .command_line import run

    run(command(name).main, read_options(name, arguments))


def command(name: str) -> ModuleType:
    """Import and return a command's module, with its `main`, and its `Options` or its `PRESETS` of options."""
    return import_module(f".{name.replace('-', '_')}", __package__)


def read_options(name: str, arguments: list[str]) -> Any:
    """Read a command's options; invalid ones end the process with one line."""
    from .command_line import read, with_preset

    module, prog = command(name), f"mechvit {name.replace('_', '-')}"
    if presets := getattr(module, "PRESETS", None):
        return with_preset(presets, arguments, module.__doc__, prog=prog)
    return read(module.Options, module.__doc__, args=arguments, prog=prog)


def overview() -> str:
    """Return the text of `mechvit --help`."""
    lines = ["What changed inside a vision transformer when it was fine-tuned?", "", "usage: mechvit COMMAND [options]"]
    for group, commands in COMMANDS.items():
        lines += ["", group, *(f"  {name:24} {line}" for name, line in commands.items())]
    return "\n".join([*lines, "", "Examples", EXAMPLES])
