"""The convolution driven by events against torch's, and the layer around it."""

import math

import pytest
import torch
from kernel_tools import compiled as compiled
from torch import nn
from torch.nn import functional as F

from snnlearn import kernels
from snnlearn.eventconv import ConvLIF, break_even
from snnlearn.eventpath import Path
from snnlearn.learned import Learned
from snnlearn.neurons import Neuron, cuba_lif, readout
from snnlearn.resets import to_zero_with_input
from snnlearn.sparse import Near
from snnlearn.spikes import Spikes
from snnlearn.surrogate import FastSigmoid
from snnlearn.temporal import RTRL, Adjoint, Reset, Unrolled

NEURON = Neuron(0.75, 0.875, 1.0)
SIXTY_FOURTH = 2.0**-6
GEOMETRY = [  # in, out, rows, columns, kernel, padding
    (1, 1, 1, 1, (1, 1), 0),
    (2, 3, 5, 7, (3, 3), 1),
    (3, 17, 6, 5, (5, 3), 2),
    (1, 4, 4, 4, (3, 3), 0),
    (3, 64, 8, 8, (2, 2), 1),
    (2, 5, 2, 9, (5, 5), 4),
    (2, 33, 9, 2, (3, 3), 2),
    (1, 16, 1, 64, (1, 3), 0),
    (5, 100, 4, 13, (3, 3), 1),
]


@pytest.fixture(autouse=True)
def loaded(request):
    if "without" not in request.node.name:
        request.getfixturevalue("compiled")


def coarse(x):
    """Multiples of 2**-6, whose sums float32 has exactly: any order of additions gives the same spikes."""
    return (x / SIXTY_FOURTH).round() * SIXTY_FOURTH


def draw(T, B, C, H, W, density=0.3, seed=0):
    return (torch.rand(T, B, C, H, W, generator=torch.Generator().manual_seed(seed)) < density).float()


def layer(path=Path.EVENTS, neuron=NEURON, channels=(2, 5), temporal=None, surrogate=None, **options):
    g = torch.Generator().manual_seed(1)
    made = ConvLIF(
        *channels,
        neuron=neuron,
        temporal=temporal or Adjoint(),
        surrogate=surrogate or FastSigmoid(0.2),
        path=path,
        generator=g,
        **options,
    )
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(coarse(2 * p))
    return made


def distance(x, y):
    return float((x.double() - y.double()).norm() / y.double().norm().clamp(min=1e-30))


def learn(net, x, e):
    """Output and gradients of the weights."""
    net.zero_grad()
    y = net(x)
    y.backward(e)
    return y.detach(), net.weight.grad, None if net.bias is None else net.bias.grad


# The ops.


@pytest.mark.parametrize("geometry", GEOMETRY)
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_the_ops_are_torchs_convolution(geometry, density):
    C, O, H, W, (kh, kw), padding = geometry
    g = torch.Generator().manual_seed(0)
    x = draw(3, 7, C, H, W, density)
    w = torch.randn(O, C, kh, kw, generator=g).double().requires_grad_()
    b = torch.randn(O, generator=g).double().requires_grad_()
    y = F.conv2d(x.double().flatten(0, 1), w, b, padding=padding).unflatten(0, (3, 7))
    ops, bits = torch.ops.snnlearn, Spikes.pack(x.flatten(2)).bits
    a = ops.conv_forward(bits, w.detach().float(), b.detach().float(), (H, W), padding).permute(0, 1, 4, 2, 3)
    assert a.shape == y.shape
    assert distance(a, y.detach()) < 1e-6
    e = torch.randn(y.shape, generator=g)
    y.backward(e.double())
    to_w, to_b = ops.conv_reverse(bits, e.permute(0, 1, 3, 4, 2), w.shape, (H, W), padding, True)
    assert distance(to_w, w.grad) < 1e-5
    assert distance(to_b, b.grad) < 1e-5
    assert ops.conv_reverse(bits, e.permute(0, 1, 3, 4, 2), w.shape, (H, W), padding, False)[1].numel() == 0


def test_one_spike_is_the_kernel():
    """By hand: the kernel turned by half a turn around the spike."""
    w = torch.arange(1.0, 10).view(1, 1, 3, 3)
    x = torch.zeros(1, 1, 1, 4, 5)
    x[..., 1, 2] = 1
    a = torch.ops.snnlearn.conv_forward(Spikes.pack(x.flatten(2)).bits, w, None, (4, 5), 1)[0, 0, ..., 0]
    assert a.tolist() == [[0, 9, 8, 7, 0], [0, 6, 5, 4, 0], [0, 3, 2, 1, 0], [0, 0, 0, 0, 0]]


def test_one_and_two_threads_give_the_same_bits():
    x, before, found = draw(9, 5, 3, 12, 12), torch.get_num_threads(), []
    bits, e = Spikes.pack(x.flatten(2)).bits, torch.randn(9, 5, 12, 12, 40, generator=torch.Generator().manual_seed(2))
    w = torch.randn(40, 3, 3, 3, generator=torch.Generator().manual_seed(3))
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            a = torch.ops.snnlearn.conv_forward(bits, w, None, (12, 12), 1)
            found.append((a, *torch.ops.snnlearn.conv_reverse(bits, e, w.shape, (12, 12), 1, True)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(p, q) for p, q in zip(*found, strict=True))


def test_the_ops_refuse_what_does_not_fit():
    ops = torch.ops.snnlearn
    bits, w = Spikes.pack(draw(2, 3, 2, 5, 5).flatten(2)).bits, torch.randn(4, 2, 3, 3)
    e = torch.randn(2, 3, 5, 5, 4)
    ops.conv_forward(bits, w, None, (5, 5), 1)
    for wrong in (
        lambda: ops.conv_forward(bits, w, None, (5, 5), 3),
        lambda: ops.conv_forward(bits, w, None, (5, 5), -1),
        lambda: ops.conv_forward(bits, w, None, (9, 9), 1),
        lambda: ops.conv_forward(bits, w, None, (4, 5), 1),  # bits beyond the image
        lambda: ops.conv_forward(bits, w, None, (1, 1), 0),
        lambda: ops.conv_forward(bits, w.double(), None, (5, 5), 1),
        lambda: ops.conv_forward(bits, w, torch.zeros(3), (5, 5), 1),
        lambda: ops.conv_reverse(bits, e[..., :3], w.shape, (5, 5), 1, True),
    ):
        with pytest.raises(ValueError, match=r"must|larger|beyond|expected"):
            wrong()


# The layer.


def test_the_layer_by_events_is_the_layer_by_convolution_and_a_plain_loop():
    net, dense = layer(), layer(Path.DENSE)
    x, e = draw(20, 3, 2, 6, 7, 0.1), torch.randn(20, 3, 5, 6, 7)
    y, to_w, to_b = learn(net, x, e)
    other, dense_w, dense_b = learn(dense, x, e)
    assert net.report.path is Path.EVENTS
    assert dense.report.path is Path.DENSE
    assert torch.equal(y, other)
    assert 0.02 < y.mean() < 0.5
    double = layer(Path.DENSE).double()
    exact, exact_w, exact_b = learn(double, x.double(), e.double())
    assert torch.equal(y.double(), exact)
    for found in ((to_w, to_b), (dense_w, dense_b)):
        assert distance(found[0], exact_w) < 1e-4
        assert distance(found[1], exact_b) < 1e-4
    I = U = s = torch.zeros(3, 5, 6, 7)
    for n in range(20):
        I = 0.75 * I + F.conv2d(x[n], net.weight.detach(), net.bias.detach(), padding=1)
        U = 0.875 * U - s + I
        s = (U >= 1).float()
        assert torch.equal(y[n], s)


def test_a_change_of_one_weight_shows():
    """A control for the comparison above."""
    net, x = layer(), draw(20, 3, 2, 6, 7, 0.1)
    y, to_w, _ = learn(net, x, torch.ones(20, 3, 5, 6, 7))
    with torch.no_grad():
        net.weight[3, 1, 0, 2] += 0.5
    changed, changed_w, _ = learn(net, x, torch.ones(20, 3, 5, 6, 7))
    assert torch.equal(y[:, :, :3], changed[:, :, :3])
    assert not torch.equal(y[:, :, 3], changed[:, :, 3])
    assert distance(changed_w, to_w) > 1e-3


@pytest.mark.parametrize(
    ("neuron", "temporal", "surrogate"),
    [
        (cuba_lif(), Unrolled(), None),
        (NEURON, Adjoint(Reset.IGNORED), Near(FastSigmoid(0.2), 0.3)),
        (Neuron(0.5, 0.75, 1.0, to_zero_with_input), Adjoint(), None),
        (readout(tau_syn=5e-3), Adjoint(), None),
        (Neuron(0.5, 0.75, torch.tensor([0.5, 1, 1, 2, 3]).view(5, 1, 1)), Adjoint(), None),
    ],
)
def test_any_neuron_and_rule(neuron, temporal, surrogate):
    x, e = draw(12, 3, 2, 6, 7, 0.1), torch.randn(12, 3, 5, 6, 7)
    events, dense = (
        learn(layer(path, neuron, temporal=temporal, surrogate=surrogate), x, e) for path in (Path.EVENTS, Path.DENSE)
    )
    if neuron.fire.analog:
        assert distance(events[0], dense[0]) < 1e-5
    else:
        assert torch.equal(events[0], dense[0])
    assert distance(events[1], dense[1]) < 1e-4
    assert distance(events[2], dense[2]) < 1e-4


def test_constants_that_are_learned():
    found, x, e = [], draw(12, 3, 2, 6, 7, 0.1), torch.randn(12, 3, 5, 6, 7)
    for path in (Path.EVENTS, Path.DENSE):
        net = layer(path, Learned(cuba_lif, tau_mem=nn.Parameter(torch.tensor(20e-3)), theta=0.5))
        learn(net, x, e)
        found.append(net.source.log["tau_mem"].grad)
    assert found[1].abs() > 0
    assert distance(*found) < 1e-4


def test_packed_spikes_and_no_bias():
    x, e = draw(12, 3, 2, 6, 7, 0.1), torch.randn(12, 3, 5, 6, 7)
    net = layer(bias=False, size=(6, 7))
    assert net.bias is None
    found, packed = learn(net, x, e), learn(net, Spikes.pack(x.flatten(2)), e)
    dense = learn(layer(Path.DENSE, bias=False, size=(6, 7)), Spikes.pack(x.flatten(2)), e)
    assert torch.equal(found[0], packed[0])
    assert torch.equal(found[1], packed[1])
    assert torch.equal(found[0], dense[0])
    assert distance(found[1], dense[1]) < 1e-4


@pytest.mark.parametrize("pack", [False, True])
def test_the_error_goes_on_to_the_layer_below(pack):
    x, e = draw(12, 3, 2, 6, 7, 0.1), torch.randn(12, 3, 5, 6, 7)
    found = []
    for path in (Path.EVENTS, Path.DENSE):
        below = x.clone().requires_grad_()
        net = layer(path, size=(6, 7))
        net(Spikes.pack(below.flatten(2)) if pack else below).backward(e)
        found.append(below.grad)
    assert found[0].norm() > 0
    assert distance(*found) < 1e-4


def test_two_layers_stand_on_each_other():
    x = draw(12, 3, 2, 6, 7, 0.1)
    found = []
    for path in (Path.EVENTS, Path.DENSE):
        net = nn.Sequential(layer(path), layer(path, channels=(5, 4)))
        y = net(x)
        (y * torch.arange(y.numel()).view(y.shape).sin()).sum().backward()
        found.append((y.detach(), net[0].weight.grad, net[1].weight.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][0].sum() > 0
    assert all(distance(p, q) < 1e-4 for p, q in zip(found[0][1:], found[1][1:], strict=True))


@pytest.mark.parametrize(
    ("channels", "density", "path"), [(2, 0.3, Path.EVENTS), (2, 0.6, Path.DENSE), (9, 0.3, Path.DENSE)]
)
def test_the_path_is_chosen_by_density_and_reported(channels, density, path):
    net = layer(Path.AUTO, channels=(channels, 4))
    net(draw(20, 30, channels, 12, 12, density))
    assert net.report.path is path
    assert net.report.density == pytest.approx(density, abs=0.02)
    assert net.report.threshold == break_even(channels)
    assert ("events are faster" in net.report.why) == (path is Path.EVENTS)


def test_break_even_falls_with_the_channels():
    found = [break_even(n) for n in (1, 2, 4, 8, 64)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


def test_without_kernels_the_dense_path_is_taken_or_events_refused():
    x = draw(5, 2, 2, 6, 7)
    net, asked = layer(Path.AUTO), layer(Path.EVENTS)
    with kernels.off():
        y = net(x)
        assert net.report.path is Path.DENSE
        assert "kernels" in net.report.why
        with pytest.raises(ValueError, match=r"Path\.EVENTS cannot be had"):
            asked(x)
    assert torch.equal(y, layer(Path.DENSE)(x))


def test_weights_are_drawn_as_told():
    make = lambda seed: ConvLIF(2, 3, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(make(0).weight, make(0).weight)
    assert not torch.equal(make(0).weight, make(1).weight)
    assert make(0).weight.abs().max() <= 18**-0.5
    assert "kernel_size=(3, 3)" in repr(make(0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("path", [Path.EVENTS, Path.DENSE])
def test_weights_that_are_no_numbers_are_refused(bad, path):
    for name in ("weight", "bias"):
        net = layer(path)
        with torch.no_grad():
            getattr(net, name).view(-1)[2] = bad
        with pytest.raises(ValueError, match=f"{name} holds NaN or infinity"):
            net(draw(5, 2, 2, 6, 7))


def test_what_is_refused():
    net = layer(Path.AUTO)
    x = draw(5, 2, 2, 6, 7)
    with pytest.raises(ValueError, match=r"\(T, B, 2, H, W\)"):
        net(x[:, :, :1])
    with pytest.raises(ValueError, match=r"\(T, B, 2, H, W\)"):
        net(x.flatten(2))
    with pytest.raises(ValueError, match="size="):
        net(Spikes.pack(x.flatten(2)))
    with pytest.raises(ValueError, match="84 neurons"):
        layer(size=(6, 7))(Spikes.pack(x.flatten(2)[..., :83]))
    with pytest.raises(ValueError, match="0 or 1"):
        net(2 * x)
    with pytest.raises(ValueError, match="0 or 1"):
        layer(Path.DENSE)(2 * x)
    with pytest.raises(TypeError, match="float32"):
        net(x.double())
    with pytest.raises(TypeError, match="Spikes"):
        net([x])
    with pytest.raises(ValueError, match="smaller than the kernel"):
        layer(kernel_size=9, padding=0)(x)
    with pytest.raises(ValueError, match="padding"):
        ConvLIF(1, 2, padding=3)
    with pytest.raises(ValueError, match="at least 1"):
        ConvLIF(1, 2, kernel_size=0)
    with pytest.raises(TypeError, match="RTRL"):
        ConvLIF(1, 2, temporal=RTRL())
    with pytest.raises(TypeError, match="path"):
        ConvLIF(1, 2, path="events")
