"""Ctrl-C at every line of what changes a model for a while: it is restored exactly, and the interrupt is not lost."""

from __future__ import annotations

import contextlib
import copy
import logging
import signal
import threading

import pytest
import torch
import transformers
from interrupting import interrupted_everywhere, state_of
from random_saes import FIRST, RESID, make_sae

from mechvit import HookedViT
from mechvit.analysis.attention.capture import entropy_reading
from mechvit.analysis.weights.model_parts import weights_replaced
from mechvit.models.checkpoints.checkpoint_config import quiet
from mechvit.models.checkpoints.loading import _uninitialised
from mechvit.models.interrupts import random_numbers_kept, sigint_held, temporary
from mechvit.models.layers.hook_state import unwatched
from mechvit.models.runs.splicing import _without_points

PATTERN, QUERY = "blocks.1.attn.hook_pattern", "blocks.0.attn.hook_q"


@pytest.fixture(autouse=True)
def usual_handler():
    """Python's own handler of SIGINT, whatever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def model(make_hf):
    found = HookedViT.from_hf(make_hf(num_hidden_layers=2))
    found.add_hook(RESID, lambda x, hook: None, is_permanent=True)
    found.add_hook(RESID, lambda x, hook: None)
    return found


@pytest.fixture
def at_rest(model, monkeypatch):
    """The model with a forward pass that does nothing: all lines are those of set-up and tear-down."""
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: torch.zeros(()))
    return model


def keep(x, hook):
    return None


def enter(context):
    with context:
        pass


def nested(model, sae):
    with model.hooks([(RESID, keep)]), model.saes(sae), model.hooks([(FIRST, keep)], [(QUERY, keep)]):
        pass


CONTEXTS = {
    "hooks": (40, lambda m, sae, p: enter(m.hooks([(PATTERN, keep), (QUERY, keep)], [(RESID, keep)]))),
    "hooks by a predicate": (40, lambda m, sae, p: enter(m.hooks([(lambda name: name.endswith("hook_z"), keep)]))),
    "hooks with contexts cleared": (40, lambda m, sae, p: enter(m.hooks([(QUERY, keep)], clear_contexts=True))),
    "an SAE": (100, lambda m, sae, p: enter(m.saes(sae))),
    "two SAEs": (150, lambda m, sae, p: enter(m.saes([sae, make_sae(name=FIRST)]))),
    "nested": (200, lambda m, sae, p: nested(m, sae)),
    "run_with_hooks": (100, lambda m, sae, p: m.run_with_hooks(p, fwd_hooks=[(PATTERN, keep), (QUERY, keep)])),
    "run_with_cache": (200, lambda m, sae, p: m.run_with_cache(p, names_filter=[PATTERN, RESID])),
    "run_with_saes": (200, lambda m, sae, p: m.run_with_saes(p, saes=[sae])),
    "run_with_cache_with_saes": (200, lambda m, sae, p: m.run_with_cache_with_saes(p, saes=sae, names_filter=FIRST)),
    "entropy": (30, lambda m, sae, p: enter(entropy_reading(m))),
    "no hook at some modules": (30, lambda m, sae, p: enter(unwatched([m.blocks[0]]))),
    "other weights": (50, lambda m, sae, p: enter(weights_replaced(m, {"blocks.0.mlp.fc1.bias": torch.zeros(64)}))),
    "an SAE without its hook points": (50, lambda m, sae, p: enter(_without_points(sae, dict(sae.hook_dict)))),
}


def check_everywhere(act, states, least, **options):
    tries, before = 0, states()
    for line in interrupted_everywhere(act, **options):
        tries += 1
        assert states() == before, line
    assert tries > least


MANY_LINES = ("two SAEs", "nested", "run_with_saes", "run_with_cache_with_saes")


@pytest.mark.long
@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in MANY_LINES else c for c in CONTEXTS])
def test_an_interrupt_at_any_line_leaves_the_model_as_it_was(at_rest, pixels, case):
    least, act = CONTEXTS[case]
    sae = make_sae()
    check_everywhere(lambda: act(at_rest, sae, pixels), lambda: (state_of(at_rest), state_of(sae)), least)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["hooks", "nested", "entropy", "other weights"])
def test_an_interrupt_at_any_line_of_torch_leaves_the_model_as_it_was(at_rest, pixels, case):
    _, act = CONTEXTS[case]
    sae = make_sae()
    states = lambda: (state_of(at_rest), state_of(sae))  # noqa: E731
    check_everywhere(lambda: act(at_rest, sae, pixels), states, 100, skipped=())


@pytest.mark.long
def test_an_interrupt_at_any_line_of_a_real_pass(model, pixels):
    """Forward pass included: what is held back is short, and everything else is interrupted at once."""
    check_everywhere(lambda: model.run_with_hooks(pixels, fwd_hooks=[(QUERY, keep)]), lambda: state_of(model), 200)


@pytest.fixture
def few_loggers(monkeypatch):
    """Leave logging ten loggers: it visits each at every change, and a thousand take a hundred times the lines."""
    manager = logging.Logger.manager
    first = sorted(manager.loggerDict, key=lambda name: (not name.startswith("transformers"), name.count(".")))[:10]
    assert "transformers" in first
    monkeypatch.setattr(manager, "loggerDict", {name: manager.loggerDict[name] for name in first})


@pytest.mark.long
@pytest.mark.usefixtures("few_loggers")
def test_random_numbers_and_logs_are_given_back_at_any_line():
    def draw():
        with random_numbers_kept():
            torch.rand(3)

    check_everywhere(draw, lambda: torch.get_rng_state().tolist(), 20)
    log = transformers.utils.logging
    check_everywhere(lambda: enter(quiet()), lambda: (log.get_verbosity(), log.is_progress_bar_enabled()), 20)
    globally = lambda: (torch.get_default_device(), torch.nn.init.normal_, torch.nn.init.zeros_)  # noqa: E731
    check_everywhere(lambda: enter(_uninitialised("meta")), globally, 20)


LASTING = {
    "add_hook": lambda m, sae: m.add_hook(QUERY, keep),
    "add_caching_hooks": lambda m, sae: m.add_caching_hooks([QUERY, FIRST], incl_bwd=True),
    "reset_hooks": lambda m, sae: m.reset_hooks(),
    "remove_all_hook_fns": lambda m, sae: m.remove_all_hook_fns(including_permanent=True),
    "add_sae": lambda m, sae: m.add_sae(sae),
    "reset_saes": lambda m, sae: m.reset_saes(),
    "set_use_attn_result": lambda m, sae: m.set_use_attn_result(True),
    "set_use_split_qkv_input": lambda m, sae: m.set_use_split_qkv_input(True),
    "set_image_size": lambda m, sae: m.set_image_size(48),
    "process_weights_": lambda m, sae: m.process_weights_(fold_ln=True, center_writing_weights=True),
}


def outline(model):
    """`state_of` without what is made anew by each call: the hooks' number, and the weights' sums."""
    found = {
        name: (type(part).__name__, len(part._forward_hooks), len(part._backward_hooks), str(getattr(part, "cfg", "")))
        for name, part in model.named_modules()
    }
    handles = [len(point.fwd_hooks) + len(point.bwd_hooks) for point in model.hook_points()]
    return found, handles, list(model.hook_dict), [round(float(p.detach().sum()), 4) for p in model.parameters()]


DAILY = ("add_hook", "add_caching_hooks", "reset_saes")


@pytest.mark.long
@pytest.mark.parametrize("case", [c if c in DAILY else pytest.param(c, marks=pytest.mark.slow) for c in LASTING])
def test_what_stays_is_done_as_a_whole_or_not_at_all(make_hf, case):
    act, sae, model = LASTING[case], make_sae(name=FIRST), HookedViT.from_hf(make_hf(num_hidden_layers=1))
    model.add_hook(FIRST, keep)
    if case == "reset_saes":
        model.add_sae(sae)
    before, changed = outline(model), copy.deepcopy(model)
    act(changed, sae)
    allowed, seen, tried = (before, outline(changed)), set(), [model]
    prepare = lambda: tried.append(copy.deepcopy(model))  # noqa: E731
    for line in interrupted_everywhere(lambda: act(tried[-1], sae), prepare=prepare):
        found = outline(tried.pop())
        assert found in allowed, line
        seen.add(allowed.index(found))
    assert seen == {0, 1}


def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with sigint_held():
            signal.raise_signal(signal.SIGINT)
            with sigint_held():
                signal.raise_signal(signal.SIGINT)
            done.append("after the inner block")
        done.append("never reached")
    assert done == ["after the inner block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_is_not_hidden():
    def fail():
        with sigint_held():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("set-up failed")

    with pytest.raises(KeyboardInterrupt) as raised:
        fail()
    assert isinstance(raised.value.__context__, ValueError)


def test_a_handler_of_ones_own_is_called_once_and_afterwards():
    calls = []
    mine = lambda number, frame: calls.append((number, len(done)))  # noqa: E731
    signal.signal(signal.SIGINT, mine)
    done = []
    with sigint_held():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append(1)
    assert calls == [(signal.SIGINT, 1)]
    assert signal.getsignal(signal.SIGINT) is mine


@pytest.mark.parametrize("other", [signal.SIG_IGN, signal.SIG_DFL])
def test_where_no_function_handles_it_nothing_is_changed(other):
    signal.signal(signal.SIGINT, other)
    with sigint_held():
        assert signal.getsignal(signal.SIGINT) is other
    assert signal.getsignal(signal.SIGINT) is other


def test_a_handler_that_a_library_puts_in_stays_and_its_old_one_still_works():
    calls = []
    library = lambda number, frame: calls.append("library")  # noqa: E731
    with sigint_held():
        signal.raise_signal(signal.SIGINT)
        replaced = signal.signal(signal.SIGINT, library)
    assert calls == ["library"]
    assert signal.getsignal(signal.SIGINT) is library
    signal.signal(signal.SIGINT, replaced)  # the library puts back what it found: Ctrl-C still gets through
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), sigint_held():
        signal.raise_signal(signal.SIGINT)


def test_another_thread_changes_models_without_touching_handlers(at_rest):
    """Python interrupts the main thread alone, and only that may set handlers."""
    seen, failed = [], []

    def work():
        try:
            with at_rest.hooks([(QUERY, keep)]):
                seen.append((signal.getsignal(signal.SIGINT), len(at_rest.hook_dict[QUERY].fwd_hooks)))
            with sigint_held():
                seen.append((signal.getsignal(signal.SIGINT), len(at_rest.hook_dict[QUERY].fwd_hooks)))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
    assert seen == [(signal.default_int_handler, 1), (signal.default_int_handler, 0)]


def test_temporary_contexts_behave_as_contextlibs_do():
    calls = []

    @temporary
    def change(value):
        calls.append("in")
        try:
            yield value
        finally:
            calls.append("out")

    with contextlib.ExitStack() as stack:
        assert stack.enter_context(change(3)) == 3
        assert calls == ["in"]
    assert calls == ["in", "out"]
    with pytest.raises(ZeroDivisionError), change(0) as value:
        1 / value
    assert calls == ["in", "out"] * 2
    forgotten = change(1)
    forgotten.__enter__()
    del forgotten  # as contextlib's: undone when nobody holds it
    assert calls == ["in", "out"] * 3
    with pytest.raises(ValueError, match="no set-up"), failing():
        pass


@temporary
def failing():
    raise ValueError("no set-up")
    yield
