"""The fused layer against the reference, torch step by step: spikes to the last bit, gradients to rounding."""

import itertools
import math
import os

import pytest
import torch
from kernel_tools import compiled as compiled
from torch import nn
from torch.library import opcheck

from snnlearn import (
    LIF,
    TSSLBP,
    Adjoint,
    Analog,
    Bounded,
    Learned,
    Method,
    Near,
    Neuron,
    Reset,
    Threshold,
    cuba_lif,
    kernels,
    lif,
    no_reset,
    readout,
    subtract,
    subtract_decayed,
    surrogate,
    to_zero,
    to_zero_with_input,
)
from snnlearn.neurons import State
from snnlearn.temporal import Credit, fused
from snnlearn.temporal.tsslbp import Fallback

pytestmark = pytest.mark.usefixtures("compiled")

PLAIN = [subtract, subtract_decayed, to_zero, to_zero_with_input, no_reset]
BOUNDED = [Bounded(subtract, -0.3), Bounded(to_zero, -0.2, before_input=False), Bounded(subtract_decayed, -0.1, False)]
FIRES = [Threshold(), Threshold(strict=True), Threshold(most=3), Threshold(most=math.inf), Analog()]
S = surrogate.FastSigmoid(0.3)
SLOPES = [shape() if shape is surrogate.StraightThrough else shape(0.3, 0.7) for shape in surrogate.SHAPES]


def name(x):
    return getattr(x, "__name__", str(x)).replace("<function ", "").split(" at ")[0]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Count:
    """How often the compiled ops were called."""

    def __init__(self, monkeypatch):
        self.calls = 0
        for op in ("simulate", "reverse"):
            original = getattr(fused, op)

            def counted(*args, original=original, **kwargs):
                found = original(*args, **kwargs)
                self.calls += found is not None
                return found

            monkeypatch.setattr(fused, op, counted)


def both(neuron, method, slope, a, errors, state=None, recurrent=None, lag=1, constants=()):
    """(trace, gradients) by the kernels and by the reference."""
    results = []
    for context in (kernels.load, kernels.off):
        leaves = [a.clone().requires_grad_(), *(x.clone().requires_grad_() for x in state or ())]
        given = None if state is None else State(*leaves[1:])
        made = neuron
        learned = [c.detach().clone().requires_grad_() for c in constants]
        if constants:
            made = Neuron(*learned, neuron.reset, neuron.fire)
        weights = [] if recurrent is None else list(recurrent.parameters())
        manager = kernels.off() if context is kernels.off else None
        if manager:
            manager.__enter__()
        trace = method.run(made, slope, leaves[0], recurrent, lag, given)
        loss = sum((x * e).sum() for x, e in zip(trace, errors, strict=True) if e is not None)
        gradients = torch.autograd.grad(loss, [*leaves, *learned, *weights], allow_unused=True, materialize_grads=True)
        if manager:
            manager.__exit__(None, None, None)
        results.append((trace, gradients))
    return results


def agree(found, reference, tolerance=1e-12):
    (trace, gradients), (wanted, expected) = found, reference
    for x, y in zip(trace, wanted, strict=True):
        assert torch.equal(x, y)
    for x, y in zip(gradients, expected, strict=True):
        scale = max(1.0, y.abs().max().item())
        torch.testing.assert_close(x, y, rtol=0, atol=tolerance * scale)
    assert any(y.abs().max() > 0 for y in expected)


def sensible(reset, fire):
    """U * (1 - U) is no reset of a readout but a map that explodes."""
    kind = reset.reset if isinstance(reset, Bounded) else reset
    return not (fire.analog and kind in (to_zero, to_zero_with_input))


CASES = [c for c in itertools.product([*PLAIN, *BOUNDED], FIRES, Reset) if sensible(*c[:2])]


@pytest.mark.parametrize(("reset", "fire", "seen"), CASES, ids=lambda x: name(x))
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_every_neuron_and_reset_choice(reset, fire, seen, alpha, monkeypatch):
    """T = 24 is more than one block of the reference; all of I, U and s carry an error, and so does the state."""
    count = Count(monkeypatch)
    neuron = Neuron(alpha, 0.9, 0.8, reset, fire)
    a = random(24, 2, 3) * 0.6 + 0.2
    errors = [random(24, 2, 3, seed=k) for k in (1, 2, 3)]
    state = [random(2, 3, seed=5), random(2, 3, seed=6) * 0.5, (random(2, 3, seed=7) > 0).double()]
    agree(*both(neuron, Adjoint(seen), S, a, errors, state))
    assert count.calls == 2


@pytest.mark.parametrize("reset", [*PLAIN, *BOUNDED], ids=name)
@pytest.mark.parametrize("seen", Reset)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_constants_that_are_learned(reset, seen, shape, monkeypatch):
    count = Count(monkeypatch)
    fires = [fire for fire in (Threshold(), Threshold(most=3), Analog()) if sensible(reset, fire)]
    for fire in fires:
        constants = [
            torch.full(shape, x, dtype=torch.float64) + 0.05 * random(*shape, seed=4) for x in (0.6, 0.85, 0.7)
        ]
        state = [random(2, 3, seed=5), random(2, 3, seed=6) * 0.5, (random(2, 3, seed=7) > 0).double()]
        errors = [random(24, 2, 3, seed=k) for k in (1, 2, 3)]
        neuron = Neuron(0.5, 0.9, 0.8, reset, fire)
        a = random(24, 2, 3) * 0.6 + 0.2
        agree(*both(neuron, Adjoint(seen), S, a, errors, state, constants=constants))
    assert count.calls == 2 * len(fires)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("slope", [*SLOPES, *(Near(s, 0.25) for s in SLOPES)], ids=str)
def test_every_slope(slope, dtype, monkeypatch):
    count = Count(monkeypatch)
    a = random(24, 2, 300, dtype=dtype) * 0.6 + 0.2
    errors = [None, None, random(24, 2, 300, seed=1, dtype=dtype)]
    found, reference = both(lif(tau_mem=10e-3), Adjoint(Reset.IGNORED), slope, a, errors)
    agree(found, reference, 1e-6 if dtype == torch.float32 else 2e-15)
    assert count.calls == 2


def test_the_power_of_two_is_exact_to_rounding():
    """By the exponential slope, from the threshold to where the smallest number ends."""
    x = torch.linspace(0, 1100, 20001, dtype=torch.float64)
    for dtype, least, ulp in ((torch.float32, 2.0**-126, 2.0**-23), (torch.float64, 2.0**-1022, 2.0**-52)):
        U, one = 1 + x.to(dtype), torch.ones(1, len(x), dtype=dtype)
        zero = torch.zeros_like(one[0])
        numbers, kinds = (0.0, 1.0, 1.0, 0.0, 1.0), (4, 0, 0, 0)
        found = torch.ops.snnlearn.scan_reverse(
            None, None, one, None, U[None], zero, zero, zero, None, None, None, None, [], numbers, kinds,
            (1.0, 1.0, math.inf), (), (0, 2, 0, 0), False,
        )[0][0]  # fmt: skip
        exact = torch.exp2(-(U - 1).double())
        large = exact >= least
        assert ((found.double() - exact).abs() <= 3 * ulp * exact)[large].all()
        assert (found[exact < least / 2] == 0).all()
        assert large.sum() > 1000


SHAPES = [(1, 1, 1), (2, 1, 7), (3, 5, 1025), (17, 2, 2049), (33, 1, 4099), (5, 4, 64)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "neuron",
    [
        lif(),
        cuba_lif(reset=to_zero),
        cuba_lif(reset=to_zero_with_input),
        lif(reset=Bounded(subtract, -0.3)),
        cuba_lif(reset=Bounded(subtract_decayed, -0.7, before_input=False)),
    ],
    ids=str,
)
def test_sizes_that_are_no_multiple_of_a_block(neuron, shape, dtype):
    a = (random(*shape, dtype=dtype) * 0.6 + 0.3) * 2
    found, reference = both(neuron, Adjoint(), S, a, [None, None, random(*shape, seed=1, dtype=dtype)])
    agree(found, reference, 1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_silence_and_a_spike_at_every_step(density):
    a = torch.full((20, 2, 5), 3.0 * density, dtype=torch.float64)
    found, reference = both(lif(reset=to_zero), Adjoint(), S, a, [None, None, random(20, 2, 5)])
    agree(found, reference)
    assert found[0].s.mean() == density


def test_strides_and_errors_that_are_the_same_everywhere():
    base = random(4, 3, 12) * 0.6 + 0.3
    inputs = [base.permute(2, 1, 0), base[:, :, ::2].transpose(0, 1), base[:1].expand(7, 3, 12), base.mT[::2]]
    for a in inputs:
        for e in (torch.ones((), dtype=torch.float64).expand(a.shape), random(*a.shape[1:]).expand(a.shape)):
            agree(*both(cuba_lif(), Adjoint(), S, a, [e, None, e]))
    gradients = []
    for context in (kernels.load, kernels.off):
        x = base.clone().requires_grad_()
        with kernels.off() if context is kernels.off else torch.enable_grad():
            LIF(cuba_lif(), temporal=Adjoint(), surrogate=S)(x).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_features_of_any_rank():
    a = random(6, 2, 3, 4, 5) * 0.6 + 0.3
    agree(*both(cuba_lif(), Adjoint(), S, a, [None, None, random(*a.shape, seed=1)]))


TIMES = [
    TSSLBP(),
    TSSLBP.paper(),
    TSSLBP(intra=False),
    TSSLBP(leak=False),
    TSSLBP(fallback=None, largest=2.0),
    TSSLBP(fallback=Fallback(0.3, 2.0, 0.9), tau_s=2.0),
]


@pytest.mark.parametrize("method", TIMES, ids=str)
def test_tssl_bp(method, monkeypatch):
    count = Count(monkeypatch)
    neuron = cuba_lif(reset=to_zero, fire=Threshold(strict=True), tau_mem=5e-3, tau_syn=2e-3)
    a = random(40, 3, 50) * 0.8 + 0.1
    agree(*both(neuron, method, S, a, [None, None, random(40, 3, 50, seed=1)]), tolerance=1e-11)
    assert count.calls >= 2


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("neuron", [lif(), cuba_lif(reset=to_zero_with_input), readout(tau_syn=2e-3)], ids=str)
@pytest.mark.parametrize("seen", Reset)
def test_recurrent_layers(neuron, lag, seen, monkeypatch):
    count = Count(monkeypatch)
    recurrent = nn.Linear(5, 5, bias=False, dtype=torch.float64)
    a = random(20, 3, 5) * 0.6 + 0.3
    agree(*both(neuron, Adjoint(seen), S, a, [random(20, 3, 5, seed=k) for k in (1, 2, 3)], None, recurrent, lag))
    constants = [torch.full((5,), x, dtype=torch.float64) for x in (0.6, 0.85, 0.7)]
    errors = [random(20, 3, 5, seed=k) for k in (1, 2, 3)]
    agree(*both(neuron, Adjoint(seen), S, a, errors, None, recurrent, lag, constants))
    assert count.calls == 4


pooled = pytest.mark.skipif("SNN_NO_POOL" in os.environ.get("SNNLEARN_CXXFLAGS", ""), reason="built without the pool")


@pooled
def test_results_do_not_depend_on_what_was_in_their_memory():
    """Larger than the pool's smallest buffer; what it hands out next has been filled with NaN."""
    shape = (100, 3, 2500)
    a, e = random(*shape, dtype=torch.float32), random(*shape, seed=1, dtype=torch.float32)
    first = both(cuba_lif(), Adjoint(), S, a, [None, None, e])[0]
    kept = [x.clone() for x in (*first[0], *first[1])]
    del first
    poison = [torch.ops.snnlearn.stream_copy(torch.full(shape, math.nan)) for _ in range(6)]
    assert torch.ops.snnlearn.pool_unused() >= 0
    del poison
    assert torch.ops.snnlearn.pool_unused() >= 6 * 4 * a.numel()
    again = both(cuba_lif(), Adjoint(), S, a, [None, None, e])[0]
    for x, y in zip(kept, (*again[0], *again[1]), strict=True):
        assert torch.equal(x, y)


@pooled
def test_the_pool_returns_what_is_above_its_limit():
    torch.ops.snnlearn.pool_limit(0)
    assert torch.ops.snnlearn.pool_unused() == 0
    torch.ops.snnlearn.pool_limit(4 << 20)
    del_me = [torch.ops.snnlearn.stream_copy(torch.zeros(3 << 20)) for _ in range(2)]
    del del_me
    assert torch.ops.snnlearn.pool_unused() == 0
    torch.ops.snnlearn.pool_limit(1 << 30)


def test_one_thread_and_two_give_the_same_bits():
    a, e = random(50, 3, 3000, dtype=torch.float32), random(50, 3, 3000, seed=1, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(both(cuba_lif(), Adjoint(), S, a, [None, None, e])[0])
    finally:
        torch.set_num_threads(before)
    (one, da), (two, db) = results
    assert all(torch.equal(x, y) for x, y in zip((*one, *da), (*two, *db), strict=True))


def test_denormal_numbers_are_zero_in_the_kernels_and_numbers_outside():
    a = torch.zeros(3000, 1, 4)
    a[0] = 0.5
    trace = Adjoint().run(lif(tau_mem=20e-3), S, a)
    assert trace.U[-1].abs().max() == 0
    assert torch.tensor(1e-40) * torch.tensor(0.5) > 0  # the processor's mode is as it was


@pytest.mark.parametrize("reset", [*PLAIN, *BOUNDED], ids=name)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("neuron", [lif, cuba_lif])
def test_a_current_that_is_not_finite_is_refused_wherever_it_is(reset, bad, neuron):
    layer = LIF(neuron(reset=reset), temporal=Adjoint(), surrogate=S)
    for at in range(8):
        a = random(8, 2, 3) * 2
        layer(a)
        a[at, 1, 2] = bad
        with pytest.raises(ValueError, match="NaN or infinity"):
            layer(a)


class OnlyAtSpikes(Method):
    def credit(self, neuron, surrogate, trace, state, *extra):
        f = trace.s * surrogate.slope(trace.U - neuron.theta)
        return Credit(f, c=neuron.beta * (1 - trace.s))


class Other(Adjoint):
    def credit(self, neuron, surrogate, trace, state, *extra):
        return super().credit(neuron, surrogate, trace, state, *extra)._replace(f=0 * trace.U + 1)


class Wide(surrogate.FastSigmoid):
    def slope(self, x):
        return torch.ones_like(x)


def test_what_the_kernels_do_not_know_runs_on_the_reference(monkeypatch):
    count = Count(monkeypatch)
    a, errors = random(20, 2, 3), [None, None, random(20, 2, 3, seed=1)]
    for method, slope in ((OnlyAtSpikes(), S), (Other(), S), (Adjoint(), Wide(0.3))):
        count.calls = 0
        agree(*both(lif(), method, slope, a, errors))
        assert count.calls == 1  # the forward pass, which is the same for all

    def mine(U, s, I, beta, theta):
        return beta * U - 0.5 * s + I

    count.calls = 0
    agree(*both(lif(reset=mine), Adjoint(), S, a, errors))
    agree(*both(lif(), Adjoint(), S, a.bfloat16(), [None, None, errors[2].bfloat16()]))
    assert count.calls == 0


def test_a_second_derivative_goes_through_the_reference():
    a, e = (random(6, 1, 2) + 0.5).requires_grad_(), random(6, 1, 2, seed=1).requires_grad_()
    s = LIF(lif(), temporal=Adjoint(), surrogate=S)(a)
    (first,) = torch.autograd.grad((s * e).sum(), a, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), e)
    with kernels.off():
        s = LIF(lif(), temporal=Adjoint(), surrogate=S)(a)
        (first,) = torch.autograd.grad((s * e).sum(), a, create_graph=True)
        torch.testing.assert_close(second, torch.autograd.grad(first.sum(), e)[0], rtol=0, atol=1e-13)
    assert second.abs().max() > 0


MODULES = [lif(), cuba_lif(reset=to_zero), Learned(cuba_lif, tau_mem=nn.Parameter(torch.tensor([0.02, 0.01, 0.03])))]


@pytest.mark.parametrize("neuron", MODULES, ids=lambda x: type(x).__name__)
def test_transforms_of_torch(neuron, monkeypatch):
    layer = LIF(neuron, temporal=Adjoint(), surrogate=S)
    a = (random(12, 2, 3, dtype=torch.float32) * 0.6 + 0.3).requires_grad_()
    out = layer(a)
    (expected,) = torch.autograd.grad(out.sum(), a)
    batch = random(4, 12, 2, 3, dtype=torch.float32)
    torch.testing.assert_close(torch.func.grad(lambda x: layer(x).sum())(a.detach()), expected)
    assert torch.equal(torch.vmap(layer)(batch), torch.stack([layer(x) for x in batch]))
    each = torch.vmap(torch.func.grad(lambda x: layer(x).sum()))(batch)
    torch.testing.assert_close(each[0], torch.func.grad(lambda x: layer(x).sum())(batch[0]))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    again = compiled(a)
    assert torch.equal(out, again)
    assert torch.equal(torch.autograd.grad(again.sum(), a)[0], expected)


def test_torch_compile_calls_the_kernel_and_nothing_step_by_step():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    layer = LIF(lif(), temporal=Adjoint(), surrogate=S)
    for training in (False, True):
        torch.compile(layer, fullgraph=True, backend=backend)(
            random(50, 2, 3, dtype=torch.float32).requires_grad_(training)
        )
        modules = [part for part in graphs[-1].modules() if isinstance(part, torch.fx.GraphModule)]
        calls = [str(node.target) for part in modules for node in part.graph.nodes]
        assert any("scan_forward" in call for call in calls)
        assert any("scan_reverse" in call for call in calls) == training
        assert len(calls) < 80
        torch._dynamo.reset()


@pytest.mark.parametrize("neuron", [lif(), cuba_lif(reset=to_zero_with_input)], ids=str)
def test_opcheck(neuron):
    shape = fused.shape(neuron)
    a, step = random(5, 2, 3), torch.zeros(2, 3, dtype=torch.float64)
    ops, numbers, kinds = torch.ops.snnlearn, list(shape.numbers), list(shape.kinds)
    each = [step + 0.5] * 3
    for constants in ([], each):
        opcheck(ops.scan_forward.default, (a, step, step, step, constants, numbers, kinds))
        rest = (constants, numbers, kinds, [2.0, 1.0, math.inf], [], [0, 1, 0, 0], bool(constants))
        opcheck(ops.scan_reverse.default, (None, a, a, a, a, step, step, step, step, step, step, None, *rest))
    opcheck(ops.stream_copy.default, (a,))


def test_the_ops_refuse_what_does_not_fit():
    a, step = random(5, 2, 3), torch.zeros(2, 3, dtype=torch.float64)
    numbers, kinds = [0.0, 0.9, 1.0, 0.0, 1.0], [0, 0, 0, 0]
    run = torch.ops.snnlearn.scan_forward
    for bad in (step[:1], step.float(), torch.zeros(3, 2, dtype=torch.float64)):
        with pytest.raises(ValueError, match="before the first step"):
            run(a, step, bad, step, [], numbers, kinds)
    with pytest.raises(ValueError, match="unknown kind"):
        run(a, step, step, step, [], numbers, [9, 0, 0, 0])
    with pytest.raises(ValueError, match="expected alpha, beta and theta"):
        run(a, step, step, step, [step], numbers, kinds)
    back = torch.ops.snnlearn.scan_reverse
    with pytest.raises(ValueError, match="looks at the current I"):
        back(None, None, a, None, a, step, step, step, None, None, None, None, [], numbers, [3, 0, 0, 0],
             [1.0, 1.0, 1.0], [], [0, 1, 0, 0], False)  # fmt: skip
    with pytest.raises(ValueError, match="the error of s must have shape"):
        back(None, None, a[:4], None, a, step, step, step, None, None, None, None, [], numbers, kinds,
             [1.0, 1.0, 1.0], [], [0, 1, 0, 0], False)  # fmt: skip


def test_distributed_data_parallel(tmp_path):
    """The hooks of the weights' gradients fire; on one process, the result is that of the module itself."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(3, 4), LIF(lif(), temporal=Adjoint(), surrogate=S))
        x = random(10, 2, 3, dtype=torch.float32) * 3
        (expected,) = torch.autograd.grad(model(x).sum(), model[0].weight)
        nn.parallel.DistributedDataParallel(model)(x).sum().backward()
        assert torch.equal(model[0].weight.grad, expected)
        assert expected.abs().max() > 0
    finally:
        torch.distributed.destroy_process_group()


def test_the_comparison_sees_an_error():
    """A control: another beta by one part in a million is found."""
    a, errors = random(24, 2, 3) * 0.6 + 0.2, [None, None, random(24, 2, 3, seed=1)]
    found, _ = both(Neuron(0.0, 0.9), Adjoint(), S, a, errors)
    _, reference = both(Neuron(0.0, 0.9 * (1 + 1e-6)), Adjoint(), S, a, errors)
    with pytest.raises(AssertionError):
        agree(found, reference)
