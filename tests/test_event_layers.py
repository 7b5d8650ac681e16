"""Linear and neurons by events against nn.Linear and the recursion in torch: spikes to the last bit, every gradient.

Weights are multiples of 1/64, so that sums of them are exact in any order, and with them the spikes.
"""

import functools
import itertools
import math
import subprocess
import sys
import warnings

import pytest
import torch
from kernel_tools import compiled as compiled
from torch import nn
from torch.nn import functional as F

from snnlearn import (
    Adjoint,
    Analog,
    Bounded,
    Learned,
    Neuron,
    Reset,
    Threshold,
    Unrolled,
    cuba_lif,
    eventpath,
    kernels,
    lif,
)
from snnlearn import eventpath as path_module
from snnlearn.eventlayers import LinearLIF
from snnlearn.eventpath import FIRST, HIDDEN, BreakEven, Path, known, measure
from snnlearn.neurons import readout
from snnlearn.resets import no_reset, subtract, subtract_decayed, to_zero, to_zero_with_input
from snnlearn.sparse import Near
from snnlearn.spikes import Spikes, unpack
from snnlearn.surrogate import SHAPES, FastSigmoid, StraightThrough, Surrogate
from snnlearn.temporal import TSSLBP, Eligibility

pytestmark = [pytest.mark.usefixtures("compiled"), pytest.mark.filterwarnings("ignore:.* is too narrow")]

RESETS = [subtract, subtract_decayed, to_zero, to_zero_with_input, no_reset]
CUBA = Neuron(0.625, 0.875, 1.0)
S = FastSigmoid(0.2)
NEAR = Near(FastSigmoid(0.1), 0.5)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def drawn(T=70, B=3, inputs=70, p=0.1, seed=0):
    return (torch.rand(T, B, inputs, generator=seeded(seed)) < p).float()


def layer(inputs=70, outputs=100, neuron=CUBA, gain=3.0, seed=1, **options):
    """A layer whose weights are multiples of 1/64."""
    made = LinearLIF(inputs, outputs, neuron, path=options.pop("path", Path.EVENTS), generator=seeded(seed), **options)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_((gain * 64 * p).round() / 64)
    return made


def output(out, dtype=torch.float32):
    return out.dense(dtype) if isinstance(out, Spikes) else out


def error(x, seed=5):
    return torch.randn(x.shape, generator=seeded(seed), dtype=torch.float64).to(x.dtype)


def gradients(module, x, dtype=torch.float32, e=None):
    """Output, and gradients of the parameters and of x."""
    module.zero_grad()
    x = x.detach().to(dtype).requires_grad_()
    out = output(module(x), dtype)
    out.backward(error(out) if e is None else e.to(dtype))
    return out.detach(), [p.grad.clone() for p in module.parameters()] + [x.grad]


def reference(module, x, dtype=torch.float64, e=None):
    """The same by ``nn.Linear`` and the method's recursion in torch."""
    parts = [m for m in module.modules() if isinstance(m, LinearLIF)]
    before = [m.path for m in parts]
    old = [p.detach().clone() for p in module.parameters()]
    try:
        with kernels.off():
            for m in parts:
                m.path = Path.DENSE
            return gradients(module.to(dtype), x, dtype, e)
    finally:
        module.to(torch.float32)
        with torch.no_grad():
            for m, path in zip(parts, before, strict=True):
                m.path = path
            for p, value in zip(module.parameters(), old, strict=True):
                p.copy_(value)


def close(found, wanted, rtol=1e-4):
    """Each within rtol of the largest entry."""
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert b.abs().max() > 0
        torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=rtol * b.abs().max().item())


def differs(found, wanted, rtol=1e-3):
    """The control of `close`."""
    assert any((a.double() - b.double()).abs().max() > rtol * b.abs().max() for a, b in zip(found, wanted, strict=True))


def same(module, x, dtype=torch.float64, rtol=1e-4, silent=False):
    out, found = gradients(module, x)
    wanted_out, wanted = reference(module, x, dtype)
    assert torch.equal(out.to(dtype), wanted_out)
    if not silent:
        assert 0 < out.mean() < 1
    close(found, wanted, rtol)
    return found, wanted


# Every neuron, every slope, every way to see the reset.


@pytest.mark.parametrize("seen", Reset)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("reset", RESETS, ids=lambda r: r.__name__)
def test_resets_and_firing(reset, strict, seen):
    neuron = Neuron(0.625, 0.875, 1.0, reset, Threshold(strict))
    found, _ = same(layer(neuron=neuron, surrogate=S, temporal=Adjoint(seen)), drawn())
    if seen is Reset.KEPT and reset is not no_reset:  # the other two are seen to be others
        differs(found, reference(layer(neuron=neuron, surrogate=S, temporal=Adjoint(Reset.IGNORED)), drawn())[1])
        differs(found, reference(layer(neuron=neuron, surrogate=S, temporal=Adjoint(Reset.DETACHED)), drawn())[1])


def test_at_the_threshold_itself():
    """One input, weight 1: the membrane is 1 exactly."""
    x = torch.ones(1, 1, 1)
    for strict, fires in ((False, 1.0), (True, 0.0)):
        one = layer(1, 1, Neuron(fire=Threshold(strict)), bias=False)
        with torch.no_grad():
            one.weight.fill_(1.0)
        assert one(x).dense().item() == fires


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.__name__)
def test_slopes(shape):
    inner = shape(peak=1.5) if shape is StraightThrough else shape(0.3, 1.5)
    found, _ = same(layer(surrogate=inner), drawn())
    differs(found, gradients(layer(surrogate=Near(inner, 0.2)), drawn())[1])


@pytest.mark.parametrize(
    "neuron", [lif(), cuba_lif(), readout(), readout(tau_syn=5e-3), Neuron(1.0, 1.0, 3.0)], ids=str
)
@pytest.mark.parametrize("bias", [True, False])
def test_neurons_and_bias(neuron, bias):
    made = layer(neuron=neuron, bias=bias, surrogate=S)
    x = drawn()
    out, found = gradients(made, x)
    with kernels.off():
        made.path = Path.DENSE
        assert torch.equal(out, output(made(x)).detach())
    made.path = Path.EVENTS
    assert len(found) == 2 + bias
    close(found, reference(made, x)[1])


# Sizes.


@pytest.mark.parametrize("T", [1, 63, 64, 65, 150])
@pytest.mark.parametrize("outputs", [1, 64, 65])
def test_steps_and_outputs(T, outputs):
    made = layer(70, outputs, surrogate=S)
    same(made, drawn(T, 2, p=0.3), silent=True)
    same(layer(70, outputs, neuron=readout(), surrogate=S), drawn(T, 2, p=0.3), torch.float32, silent=True)


@pytest.mark.parametrize("inputs", [1, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("B", [1, 3, 11])
def test_inputs_and_samples(inputs, B):
    """11 samples are more than one group, and no multiple of any."""
    same(layer(inputs, 65, surrogate=S, gain=4.0), drawn(20, B, inputs, 0.4))


@pytest.mark.parametrize("surrogate", [S, NEAR], ids=["exact", "sparse"])
def test_many_outputs(surrogate):
    """1000 outputs: events are sorted by input for the sparse gradient; 300 steps are three sweeps of that."""
    for T in (1, 127, 128, 300):
        same(layer(70, 1000, surrogate=surrogate), drawn(T, 2), torch.float32, silent=True)


@pytest.mark.parametrize("surrogate", [S, NEAR], ids=["exact", "sparse"])
@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("outputs", [65, 600])
def test_no_input_and_all_of_it(p, surrogate, outputs):
    """Without input the bias alone drives the layer."""
    made = layer(70, outputs, surrogate=surrogate, gain=8.0)
    x = drawn(p=p)
    out, found = gradients(made, x)
    wanted_out, wanted = reference(made, x, torch.float32)
    assert torch.equal(out, wanted_out)
    assert out.mean() > 0
    if p:
        return close(found, wanted)
    assert (found[0] == 0).all()
    assert (wanted[0] == 0).all()
    close(found[1:], wanted[1:])
    return None


@pytest.mark.parametrize("surrogate", [S, NEAR], ids=["exact", "sparse"])
def test_a_layer_that_never_fires(surrogate):
    made = layer(neuron=Neuron(0.5, 0.5, 1000.0), surrogate=surrogate)
    out, found = gradients(made, drawn())
    assert (out == 0).all()
    with kernels.off():
        wanted = reference(made, drawn(), torch.float32)[1]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-12)


def test_strided_and_expanded_input():
    made = layer(surrogate=S)
    x = drawn(B=6, inputs=140)
    for view in (x[:, ::2, :70], x[..., ::2], x[:, :1, :70].expand(70, 4, 70), x[:1, :, :70].expand(33, 6, 70)):
        out, found = gradients(made, view)
        again, wanted = gradients(made, view.contiguous())
        assert torch.equal(out, again)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    spikes = Spikes(Spikes.pack(x[..., :70]).bits[:, ::2], 70)
    assert torch.equal(made(spikes).bits, made(x[:, ::2, :70]).bits)


@pytest.mark.parametrize("neuron", [CUBA, readout()], ids=["fires", "readout"])
def test_strided_and_expanded_error(neuron):
    made = layer(neuron=neuron, surrogate=S)
    plain = torch.full((70, 3, 100), 0.5)
    wanted = gradients(made, drawn(), e=plain)[1]
    for e in (torch.tensor(0.5).expand(70, 3, 100), torch.full((70, 3, 200), 0.5)[..., ::2]):
        assert all(torch.equal(a, b) for a, b in zip(gradients(made, drawn(), e=e)[1], wanted, strict=True))
    differs(gradients(made, drawn(), e=2 * plain)[1], wanted)


def test_strided_and_expanded_values_of_near_neurons():
    made = layer(surrogate=NEAR)

    def grads(change):
        made.zero_grad()
        carrier = made(drawn()).carrier
        assert carrier.dim() == 1
        carrier.backward(change(torch.full((2 * len(carrier),), 0.5)))
        return [p.grad.clone() for p in made.parameters()]

    wanted = grads(lambda e: e[: len(e) // 2])
    for change in (lambda e: e[::2], lambda e: e[:1].expand(len(e) // 2)):
        assert all(torch.equal(a, b) for a, b in zip(grads(change), wanted, strict=True))


# The sparse gradient.


@pytest.mark.parametrize("seen", Reset)
@pytest.mark.parametrize("reset", RESETS, ids=lambda r: r.__name__)
@pytest.mark.parametrize("outputs", [100, 600])
def test_the_sparse_gradient_is_that_of_the_dense_path(reset, seen, outputs, monkeypatch):
    """600 outputs are enough for events to be sorted by input."""
    monkeypatch.setattr(path_module, "ACTIVE", 1.0)
    neuron = Neuron(0.625, 0.875, 1.0, reset)
    made = layer(70, outputs, neuron, surrogate=NEAR, temporal=Adjoint(seen))
    out = made(drawn().requires_grad_())
    sparse = reset is not to_zero_with_input or seen is Reset.IGNORED  # whose derivative looks at I
    assert made.report.sparse == sparse
    assert (out.near is not None) == sparse == (out.carrier.dim() == 1)
    found, _ = same(made, drawn(), torch.float32)
    monkeypatch.setattr(path_module, "ACTIVE", 0.0)
    dense = gradients(made, drawn())[1]
    assert not made.report.sparse
    close(found, dense, 1e-5)
    differs(found, gradients(layer(70, outputs, neuron, surrogate=NEAR.inner, temporal=Adjoint(seen)), drawn())[1])


def test_near_is_where_the_slope_is_not_zero(monkeypatch):
    monkeypatch.setattr(path_module, "ACTIVE", 1.0)
    made, x = layer(surrogate=NEAR), drawn()
    out = made(x.requires_grad_())
    with torch.no_grad(), kernels.off():
        U = CUBA.simulate(F.linear(x, made.weight, made.bias)).U
    near = (U - 1).abs() < 0.5
    assert torch.equal(unpack(out.near, 100, torch.bool), near)
    assert made.report.activity == pytest.approx(near.double().mean().item())
    assert len(out.carrier) == near.sum()
    assert 0.02 < made.report.activity < 0.5


def test_an_activity_that_is_too_high_takes_a_dense_error(monkeypatch):
    made, x = layer(surrogate=Near(S, 2.0)), drawn()
    out = made(x.requires_grad_())
    assert made.report.activity > path_module.ACTIVE
    assert out.near is None
    assert not made.report.sparse
    same(made, x, torch.float32)
    monkeypatch.setattr(path_module, "ACTIVE", made.report.activity)  # up to and with it
    made(x)
    assert made.report.sparse


def test_an_infinite_edge_is_no_edge():
    a = gradients(layer(surrogate=Near(S, math.inf)), drawn())[1]
    b = gradients(layer(surrogate=S), drawn())[1]
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_near_within_near(monkeypatch):
    monkeypatch.setattr(path_module, "ACTIVE", 1.0)
    one = gradients(layer(surrogate=Near(Near(S, 0.3), 0.5)), drawn())[1]
    two = gradients(layer(surrogate=Near(S, 0.3)), drawn())[1]
    assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))


# Layer upon layer.


def stack(surrogate, path=Path.EVENTS, outputs=(100, 65)):
    n, m = outputs
    return nn.Sequential(
        layer(70, n, surrogate=surrogate, path=path, seed=1),
        layer(n, m, lif(), surrogate=surrogate, path=path, seed=2),
        layer(m, 10, readout(), surrogate=surrogate, path=path, seed=3),
    )


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, surrogate):
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, e):
        return e * ctx.surrogate.slope(ctx.saved_tensors[0]), None


def naive(net, x, surrogate):
    """The stack as one would write it without a library, differentiated by autograd."""
    for part in net:
        I = U = s = torch.zeros_like(F.linear(x[0], part.weight))
        neuron, out = part.source, []
        for a in F.linear(x, part.weight, part.bias).unbind(0):
            I = neuron.alpha * I + a
            if neuron.fire.analog:
                U = s = neuron.beta * U + I
            else:
                U = (neuron.beta * U - neuron.theta * s) + I
                s = Spike.apply(U - neuron.theta, surrogate)
            out.append(s)
        x = torch.stack(out)
    return x


@pytest.mark.parametrize("surrogate", [S, NEAR], ids=["exact", "sparse"])
def test_a_stack_is_the_naive_loop(surrogate, monkeypatch):
    monkeypatch.setattr(path_module, "ACTIVE", 1.0)
    net, x = stack(surrogate), drawn()
    out, found = gradients(net, x)
    assert [part.report.path for part in net] == [Path.EVENTS] * 3
    assert [part.report.sparse for part in net] == [surrogate is NEAR, surrogate is NEAR, False]
    net.zero_grad()
    y = x.clone().requires_grad_()
    wanted_out = naive(net, y, surrogate)
    wanted_out.backward(error(wanted_out))
    assert torch.equal(out, wanted_out)
    wanted = [p.grad for p in net.parameters()] + [y.grad]
    close(found, wanted)
    net.zero_grad()
    naive(net, y, FastSigmoid(0.15)).backward(error(wanted_out))
    differs(found, [p.grad for p in net.parameters()] + [y.grad])


@pytest.mark.parametrize("surrogate", [S, NEAR], ids=["exact", "sparse"])
@pytest.mark.parametrize("paths", list(itertools.product([Path.EVENTS, Path.DENSE], repeat=3)), ids=str)
def test_paths_mix(paths, surrogate, monkeypatch):
    """A dense layer takes bits, and gives them, whatever lies above and below."""
    monkeypatch.setattr(path_module, "ACTIVE", 1.0)
    net, x = stack(surrogate), drawn()
    out, wanted = gradients(net, x)
    for part, path in zip(net, paths, strict=True):
        part.path = path
    again, found = gradients(net, x)
    assert [part.report.path for part in net] == list(paths)
    assert torch.equal(out, again)
    close(found, wanted)


def test_two_that_read_one_layer():
    """Errors from above add up, sparse ones too."""
    for surrogate in (S, NEAR):
        one, net = layer(surrogate=surrogate), [layer(100, 10, readout(), seed=s) for s in (2, 3)]
        x = drawn()

        def grads(*outs, one=one):
            one.zero_grad()
            sum(o.sum() for o in outs).backward()
            return one.weight.grad.clone()

        h = one(x)
        both = grads(net[0](h), net[1](h), h.dense())
        alone = [grads(f(one(x))) for f in (*net, lambda h: h.dense())]
        close([both], [sum(alone)])


def test_a_layer_that_is_frozen_or_not_asked():
    x, net = drawn(), stack(S)
    _, wanted = gradients(net, x)
    net[1].weight.requires_grad_(False)
    net.zero_grad()
    net(x)[:].backward(error(net(x)))
    assert net[1].weight.grad is None
    assert torch.equal(net[1].bias.grad, wanted[3])
    assert torch.equal(net[0].weight.grad, wanted[0])
    with torch.no_grad():
        out = net[0](x)
    assert out.carrier is None
    assert out.near is None
    for p in net[0].parameters():
        p.requires_grad_(False)
    assert net[0](x).carrier is None
    net[0](x.clone().requires_grad_()).dense().sum().backward()


def test_an_optimiser_that_steps_between():
    net, x = stack(NEAR), drawn()
    twin = stack(NEAR, Path.DENSE)
    for model in (net, twin):
        optimizer = torch.optim.SGD(model.parameters(), 1 / 64)
        for _ in range(3):
            optimizer.zero_grad()
            out = model(x)
            out.square().mean().backward()
            optimizer.step()
    close([p.detach() for p in net.parameters()], [p.detach() for p in twin.parameters()], 1e-4)
    differs([net[0].weight.detach()], [stack(NEAR)[0].weight.detach()], 1e-4)


# The same numbers on any number of threads, whatever lay in the memory before.

THREADS = """
import sys, torch
sys.path.insert(0, "tests")
from test_event_layers import NEAR, S, drawn, gradients, stack
torch.set_num_threads(int(sys.argv[1]))
import hashlib
sums = hashlib.sha256()
for surrogate in (S, NEAR):
    for x in gradients(stack(surrogate, outputs=(600, 65)), drawn(130, 21)):
        for x in x if isinstance(x, list) else [x]:
            sums.update(x.numpy().tobytes())
print(sums.hexdigest())
"""


def test_one_thread_or_two():
    commands = ([sys.executable, "-c", THREADS, n] for n in "123")
    one, two, three = (subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands)
    assert one == two == three
    assert len(one.strip()) == 64


def test_memory_that_was_used_before(compiled):
    """Results are all written: torch fills fresh memory with NaN, and the pool's last tenant left other numbers."""
    for surrogate in (S, NEAR):
        net = stack(surrogate, outputs=(600, 65))
        x = drawn(300, 5)
        _, clean = gradients(net, x)
        torch.use_deterministic_algorithms(True)  # which also fills
        try:
            _, poisoned = gradients(net, x)
        finally:
            torch.use_deterministic_algorithms(False)
        gradients(net, drawn(300, 5, p=0.9, seed=7), e=torch.full((300, 5, 10), 1e6))
        _, again = gradients(net, x)
        for a, b, c in zip(clean, poisoned, again, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)


# As a module.


def test_parameters_are_those_of_a_linear_layer():
    made, linear = LinearLIF(7, 5), nn.Linear(7, 5)
    made.load_state_dict(linear.state_dict())
    linear.load_state_dict(made.state_dict())
    assert set(LinearLIF(7, 5, bias=False).state_dict()) == {"weight"}
    torch.manual_seed(3)
    linear = nn.Linear(7, 5)
    torch.manual_seed(3)
    assert torch.equal(LinearLIF(7, 5).weight, linear.weight)
    a, b, c = (LinearLIF(7, 5, generator=seeded(s)).weight for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.abs().max() <= 1 / math.sqrt(7)
    assert "7, 5" in repr(made)


def test_the_path_is_chosen_by_density():
    made = layer(surrogate=S, path=Path.AUTO)
    threshold = FIRST.at(100, False)
    thin, thick = drawn(p=threshold / 2), drawn(p=min(1.0, threshold * 1.5))
    out = made(thin)
    assert (made.report.path, made.report.threshold) == (Path.EVENTS, threshold)
    assert made.report.density == pytest.approx(thin.mean().item())
    assert "events are faster" in made.report.why
    assert made.report.activity is None
    made(thick)
    assert made.report.path is Path.DENSE
    assert made.report.density == pytest.approx(thick.mean().item())
    assert "matrix product is faster" in made.report.why
    made(thin.clone().requires_grad_())
    assert made.report.threshold == HIDDEN.at(100, False) > threshold  # the error of the inputs is another product
    layer(surrogate=NEAR, path=Path.AUTO)(thin)
    made.path = Path.DENSE
    assert torch.equal(made(thin).bits, out.bits)
    assert (made.report.path, made.report.why) == (Path.DENSE, "asked for")
    assert made.report.density == pytest.approx(thin.mean().item())
    made.path = Path.EVENTS
    made(thick)
    assert (made.report.path, made.report.why) == (Path.EVENTS, "asked for")


def test_between_measured_sizes():
    table = BreakEven((10, 100, 1000), (0.1, 0.2, 0.4), (0.3, 0.2, 0.1))
    assert [table.at(n, False) for n in (1, 10, 100, 1000, 5000)] == pytest.approx([0.1, 0.1, 0.2, 0.4, 0.4])
    assert table.at(round(math.sqrt(10) * 10), False) == pytest.approx(0.15, abs=1e-3)
    assert table.at(1000, True) == 0.1
    assert all(0 < p < 1 for table in (FIRST, HIDDEN) for p in (*table.exact, *table.sparse))


def own_reset(U, s, I, beta, theta):
    return beta * U - theta * s + I


class OwnSlope(Surrogate):
    A = 1.0

    def _slope(self, z):
        return 1 / (1 + z * z)


REASONS = [
    ({"temporal": Unrolled()}, "events go backward by Adjoint, not by Unrolled"),
    ({"neuron": Neuron(reset=own_reset)}, "no kernel knows Neuron"),
    ({"neuron": Neuron(reset=Bounded(subtract, -1.0))}, "no kernel knows Neuron"),
    ({"neuron": Neuron(beta=torch.tensor(0.5))}, "constants are tensors"),
    ({"neuron": Learned(lif, tau_mem=nn.Parameter(torch.tensor(0.02)))}, "constants are tensors"),
    ({"neuron": Neuron(fire=Analog())}, "a readout with a reset"),
    ({"neuron": Neuron(theta=0.0, fire=Threshold(strict=True))}, "threshold of 0"),
    ({"surrogate": OwnSlope(0.2)}, "no kernel knows the surrogate"),
    ({"surrogate": Near(OwnSlope(0.2), 5.0)}, "no kernel knows the surrogate"),
]


@pytest.mark.parametrize(("options", "reason"), REASONS, ids=[r for _, r in REASONS])
def test_what_no_kernel_knows_goes_the_dense_way(options, reason):
    made = LinearLIF(70, 10, **{"generator": seeded(1), "surrogate": S} | options)
    output(made(drawn())).sum().backward()
    assert made.report.path is Path.DENSE
    assert reason in made.report.why
    assert made.weight.grad.abs().max() > 0
    made.path = Path.EVENTS
    with pytest.raises(ValueError, match=r"path=Path.EVENTS cannot be had: .*; Path.AUTO takes the dense path"):
        made(drawn())


def test_a_rule_that_only_the_dense_way_knows():
    made = LinearLIF(70, 10, Neuron(0.5, 0.5, 1.0, to_zero), temporal=TSSLBP(), generator=seeded(1))
    made(drawn()).dense().sum().backward()
    assert made.report.path is Path.DENSE


def test_double_precision_goes_the_dense_way():
    made = layer(surrogate=S, path=Path.AUTO).double()
    out = made(drawn().double())
    assert made.report.path is Path.DENSE
    assert "float32" in made.report.why
    out.dense(torch.float64).sum().backward()
    assert made.weight.grad.dtype == torch.float64
    made.path = Path.EVENTS
    with pytest.raises(ValueError, match="events are computed in float32"):
        made(drawn().double())
    made.path = Path.AUTO
    assert made(Spikes.pack(drawn())).shape == (70, 3, 100)


def test_without_kernels():
    made, x = layer(surrogate=NEAR, path=Path.AUTO), drawn()
    out, wanted = gradients(made, x)
    assert made.report.path is Path.EVENTS
    with kernels.off():
        again, found = gradients(made, x)
        assert made.report.path is Path.DENSE
        assert "compiled kernels are not in use" in made.report.why
        assert made.report.activity > 0
        made.path = Path.EVENTS
        with pytest.raises(ValueError, match="compiled kernels are not in use"):
            made(x)
    assert torch.equal(out, again)
    close(found, wanted)


# Recurrent layers.


@pytest.mark.parametrize("surrogate", [S, NEAR], ids=["exact", "sparse"])
@pytest.mark.parametrize("outputs", [30, 100])
def test_recurrent(outputs, surrogate):
    made = layer(70, outputs, recurrent=True, surrogate=surrogate, gain=2.0)
    assert set(dict(made.named_parameters())) == {"weight", "bias", "recurrent_weight"}
    x = drawn(40)
    out, found = gradients(made, x)
    assert made.report.path is Path.EVENTS
    wanted_out, wanted = reference(made, x, torch.float32)
    assert torch.equal(out, wanted_out)
    assert out.mean() > 0.01
    close(found, wanted)
    with torch.no_grad():
        made.recurrent_weight.zero_()
    assert not torch.equal(gradients(made, x)[0], out)


def test_recurrent_refusals():
    with pytest.raises(ValueError, match="a readout has no spikes that could come back"):
        LinearLIF(3, 2, readout(), recurrent=True)
    with pytest.raises(TypeError, match="recurrent must be True or False"):
        LinearLIF(3, 2, recurrent=nn.Linear(2, 2))


# The price of B_th.


def warned(made, x):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        made(x)
        made(x)
    return [str(w.message) for w in found if issubclass(w.category, UserWarning)]


@pytest.mark.parametrize("path", [Path.EVENTS, Path.DENSE])
def test_a_surrogate_that_is_too_wide_is_told_once(path):
    wide = layer(surrogate=Near(FastSigmoid.from_steepness(10), 0.05), path=path)
    (message,) = warned(wide, drawn())
    assert wide.report.cosine < 0.9
    assert f"is {wide.report.cosine:.2f} on the first batch" in message
    assert "B_th = 0.05" in message
    assert "% of neurons" in message
    assert "Use a larger within or a narrower surrogate" in message
    narrow = layer(surrogate=Near(FastSigmoid.from_steepness(100), 0.2), path=path)
    assert warned(narrow, drawn()) == []
    assert narrow.report.cosine > 0.99
    assert warned(layer(surrogate=FastSigmoid.from_steepness(10), path=path), drawn()) == []
    with torch.no_grad():
        assert warned(layer(surrogate=wide.surrogate, path=path), drawn()) == []  # nothing is trained


def test_the_cosine_is_that_of_the_slopes(monkeypatch):
    neuron, x = lif(), drawn()
    monkeypatch.setattr(eventpath, "LOOKED_AT", 7000)  # one sample
    made = layer(neuron=neuron, surrogate=Near(FastSigmoid(0.05), 0.1))
    made(x)
    with torch.no_grad(), kernels.off():
        U = neuron.simulate(F.linear(x[:, :1], made.weight, made.bias)).U
    kept, full = made.surrogate.slope(U - 1), made.surrogate.inner.slope(U - 1)
    wanted = F.cosine_similarity(kept.flatten().double(), full.flatten().double(), 0).item()
    assert made.report.cosine == pytest.approx(wanted, abs=1e-6)
    assert measure(U, neuron, made.surrogate) == pytest.approx(wanted, abs=1e-6)
    assert measure(U, neuron, Near(FastSigmoid(0.05), 100.0)) == 1
    assert measure(U + 1e6, neuron, Near(FastSigmoid(0.05), 0.1)) < 1e-3


# What is refused.


@pytest.mark.parametrize("path", Path)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_weights_that_silence_would_hide(name, bad, path):
    made = layer(surrogate=S, path=path)
    x = drawn()
    x[..., 3] = 0
    made(x)
    with torch.no_grad():
        p = getattr(made, name)
        p.view(-1)[3] = bad
    with pytest.raises(ValueError, match=f"the layer's {name} holds NaN or infinity"):
        made(x)


@pytest.mark.parametrize("path", Path)
def test_inputs_that_are_refused(path):
    made = layer(surrogate=S, path=path)
    for shape in ((5, 3, 71), (5, 3, 69), (5, 3, 2, 70)):
        with pytest.raises(ValueError, match=r"wants an input \(T, B, 70\)"):
            made(torch.zeros(shape))
    for shape in ((0, 3, 70), (5, 0, 70)):
        with pytest.raises(ValueError, match="is empty"):
            made(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"wants an input \(T, B, 70\)"):
        made(Spikes.pack(torch.zeros(2, 2, 71)))
    for value in (0.5, 2.0):
        with pytest.raises(ValueError, match="0 or 1"):
            made(torch.full((5, 3, 70), value))
    with pytest.raises(ValueError, match="NaN or infinity"):
        made(torch.full((5, 3, 70), math.nan))
    with pytest.raises(TypeError, match="floating point"):
        made(torch.zeros(5, 3, 70, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"must be Spikes or a tensor \(T, B, 70\)"):
        made([0, 1])
    with pytest.raises(TypeError, match="float64"):
        made(torch.zeros(5, 3, 70, dtype=torch.float64))


def test_arguments_that_are_refused():
    for bad in (0, -1):
        with pytest.raises(ValueError, match="inputs must be at least 1"):
            LinearLIF(bad, 2)
        with pytest.raises(ValueError, match="outputs must be at least 1"):
            LinearLIF(2, bad)
    with pytest.raises(TypeError, match="neuron must be a Neuron"):
        LinearLIF(2, 2, nn.ReLU)
    with pytest.raises(TypeError, match="surrogate must be a Surrogate"):
        LinearLIF(2, 2, surrogate=FastSigmoid)
    with pytest.raises(TypeError, match="temporal must be a method"):
        LinearLIF(2, 2, temporal="bptt")
    with pytest.raises(TypeError, match="works forward in time"):
        LinearLIF(2, 2, temporal=Eligibility())
    with pytest.raises(TypeError, match=r"path must be one of Path\.AUTO"):
        LinearLIF(2, 2, path="events")
    with pytest.raises(TypeError, match="bias must be True or False"):
        LinearLIF(2, 2, bias=None)
    with pytest.raises(ValueError, match="spikes leave this layer as bits"):
        LinearLIF(2, 2, lif(fire=Threshold(most=3)))


# The ops themselves.


def operands(near=False, neuron=CUBA, inputs=70, outputs=100):
    made, x = layer(inputs, outputs, neuron), drawn(inputs=inputs)
    weight = torch.ops.snnlearn.events_blocks(made.weight.detach())
    bias = F.pad(made.bias.detach(), (0, -outputs % 64)).view(-1, 64)
    found = known(neuron, S, Adjoint())
    kinds = (found.reset, found.fire)
    return Spikes.pack(x).bits, weight, bias, outputs, (0.625, 0.875, 1.0, 0.3), kinds, near, True


def test_blocks(compiled):
    for outputs, inputs in ((1, 1), (64, 3), (65, 17), (200, 33)):
        W = torch.randn(outputs, inputs, generator=seeded(0))
        blocks = torch.ops.snnlearn.events_blocks(W)
        back = blocks.transpose(1, 2).flatten(0, 1)
        assert torch.equal(back[:outputs], W)
        assert (back[outputs:] == 0).all()
        assert torch.equal(torch.ops.snnlearn.events_blocks(W.t().contiguous().t()), blocks)


def test_neurons_that_do_not_exist_have_no_bits(compiled):
    """At a threshold of 0 the padding of the last block would fire, and be near."""
    bits, weight, _, outputs, *_ = operands()
    fired, near, near_U, *_ = torch.ops.snnlearn.events_forward(
        torch.zeros_like(bits), weight, None, outputs, (0.5, 0.5, 0.0, 0.3), (4, 0), True, False
    )
    assert (unpack(fired, 128)[..., :outputs] == 1).all()
    for found in (fired, near):
        assert torch.ops.snnlearn.bits_set(found) == 70 * 3 * outputs == len(near_U)


def test_opcheck(compiled):
    ops, check = torch.ops.snnlearn, torch.library.opcheck
    check(ops.events_blocks, (torch.randn(70, 5),))
    check(ops.events_down, (torch.randn(5, 3, 100), torch.randn(100, 7)))
    for near, neuron in ((False, CUBA), (True, CUBA), (False, readout())):
        check(ops.events_forward, operands(near, neuron))
    bits, weight, bias, outputs, numbers, kinds, *_ = operands()
    fired, near, near_U, _, saved = ops.events_forward(*operands(True))
    rest = (outputs, (*numbers[:3], 5.0, 1.0, 0.3), (*kinds, 1, 0))
    e, values = torch.randn(70, 3, 100), torch.randn(len(near_U))
    below = Spikes.pack(drawn(seed=3))
    n = int(below.dense().sum())
    check(ops.events_backward, (bits, weight, bias, e, saved, None, None, None, None, None, 0, *rest, True))
    check(
        ops.events_backward, (bits, weight, bias, None, None, values, near, near_U, fired, below.bits, n, *rest, False)
    )


@pytest.mark.parametrize("T", [1, 64, 65, 130])
def test_the_error_below_is_dL_da_times_the_weights(T, compiled):
    """Made 64 steps at a time, or from all of dL/da."""
    ops, x = torch.ops.snnlearn, drawn(T)
    bits, weight, bias, outputs, numbers, kinds, *_ = operands()
    bits, W = Spikes.pack(x).bits, torch.randn(100, 70, generator=seeded(1))
    saved = ops.events_forward(bits, weight, bias, outputs, numbers, kinds, False, True)[4]
    e = torch.randn(T, 3, 100, generator=seeded(2))
    head = (bits, weight, bias, e, saved, *(None,) * 5, 0, outputs, (*numbers[:3], 5.0, 1.0, math.inf), (*kinds, 1, 0))
    *sums, drive, _ = ops.events_backward(*head, True)
    *again, below, _ = ops.events_backward(*head, False, W)
    close([below, ops.events_down(drive, W)], [drive @ W] * 2, 1e-5)
    assert all(torch.equal(a, b) for a, b in zip(sums, again, strict=True))
    assert ops.events_backward(*head, False)[2].numel() == 0
    with pytest.raises(ValueError, match="either dL/da is wanted or"):
        ops.events_backward(*head, True, W)


def test_ops_refuse_what_would_read_beyond(compiled):
    """Whatever arrives, no kernel starts on arrays that do not fit."""
    ops = torch.ops.snnlearn
    bits, weight, bias, outputs, numbers, kinds, *_ = operands()
    wrong = [
        (bits[..., :1].contiguous(), weight, bias, outputs),
        (bits, weight[:1], bias, outputs),
        (bits, weight[..., :32].contiguous(), bias, outputs),
        (bits, weight, bias[:1], outputs),
        (bits, weight, bias, 129),
        (bits, weight, bias, 0),
        (bits[:0], weight, bias, outputs),
        (bits.transpose(0, 1), weight, bias, outputs),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError):  # noqa: PT011  # of several kinds
            ops.events_forward(*arguments, numbers, kinds, True, True)
    with pytest.raises(TypeError, match="spikes must be"):
        ops.events_forward(bits.int(), weight, bias, outputs, numbers, kinds, True, True)
    with pytest.raises(ValueError, match="at most one spike"):
        ops.events_forward(bits, weight, bias, outputs, numbers, (0, 3), True, True)
    with pytest.raises(ValueError, match="unknown reset"):
        ops.events_forward(bits, weight, bias, outputs, numbers, (9, 0), True, True)
    fired, near, near_U, _, saved = ops.events_forward(bits, weight, bias, outputs, numbers, kinds, True, True)
    rest = (outputs, (*numbers[:3], 5.0, 1.0, 0.3), (*kinds, 1, 0), False)
    e, v, none = torch.zeros(70, 3, 100), torch.zeros(len(near_U)), (None,) * 4
    back = functools.partial(ops.events_backward, bits, weight, bias)
    for arguments in (
        (e[:69], saved, *none, None, 0),
        (e, saved[:2], *none, None, 0),
        (e, None, *none, None, 0),
        (e, saved, v, near, near_U, fired, None, 0),
        (None, None, v[1:], near, near_U, fired, None, 0),
        (None, None, v[1:], near, near_U[1:], fired, None, 0),
        (None, None, v, near, near_U, None, None, 0),
        (None, None, v, near[:69], near_U, fired, None, 0),
        (e, saved, *none, bits, 1),
        (e, saved, *none, near[..., :1].contiguous(), 1),
        (e, saved, *none, None, -1),
        (None, None, None, None, None, None, None, 0),
    ):
        with pytest.raises((ValueError, TypeError)):
            back(*arguments, *rest)
    assert back(e, saved, *none, None, 0, *rest)[0].shape == (100, 70)
