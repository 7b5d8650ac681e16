import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnlearn import ArcTan, Boxcar, Exponential, FastSigmoid, Neuron, Sigmoid, StraightThrough, lif
from snnlearn import surrogate as S
from snnlearn.learned import Learned
from snnlearn.neurons import Threshold

FINITE = [shape for shape in S.SHAPES if shape is not StraightThrough]
shapes = pytest.mark.parametrize("shape", FINITE, ids=lambda shape: shape.__name__)
sizes = st.floats(1e-3, 1e3)


def at(*x):
    return torch.tensor(x, dtype=torch.float64)


@shapes
@given(width=sizes, peak=sizes)
def test_peak_and_width_mean_the_same_for_every_shape(shape, width, peak):
    g = shape(width=width, peak=peak)
    assert g.slope(at(0.0)).item() == pytest.approx(peak)
    if shape is Boxcar:  # it has no half: it ends at its width
        inside, outside = g.slope(at(0.999 * width, 1.001 * width)).tolist()
        assert (inside, outside) == (peak, 0)
    else:
        torch.testing.assert_close(g.slope(at(width, -width)), at(peak / 2, peak / 2))


@shapes
def test_area_is_the_integral(shape):
    g = shape(width=0.3, peak=2.5)
    z = torch.linspace(-16, 16, 400_001, dtype=torch.float64)
    x = 0.3 * torch.sinh(z)  # fine in the middle, far out at the ends
    numeric = torch.trapezoid(g.slope(x), x).item()
    assert numeric == pytest.approx(g.area, rel=2e-4)
    assert shape(width=0.3).with_area(1.0).area == pytest.approx(1.0)
    assert shape(width=0.3).with_area(1.0).width == 0.3


@shapes
def test_slope_is_the_derivative_of_the_primitive(shape):
    g = shape(width=0.4, peak=1.5)
    x = at(-3.1, -0.77, -0.39, -0.05, 0.0, 0.02, 0.3, 0.81, 2.9).requires_grad_()
    if shape is Boxcar:
        x = (x.detach() * 0.999).requires_grad_()
    (slope,) = torch.autograd.grad(g.primitive(x).sum(), x)
    torch.testing.assert_close(slope, g.slope(x.detach()))
    away = x.detach()[x.detach().abs() > 1e-3].requires_grad_()
    assert torch.autograd.gradcheck(g.primitive, (away,))


@shapes
def test_primitive_is_a_step_of_the_area(shape):
    g = shape(width=0.05).with_area(1.0)
    far = g.primitive(at(-1e7, 0.0, 1e7))
    torch.testing.assert_close(far, at(0.0, 0.5, 1.0), atol=1e-6, rtol=0)
    assert (g.primitive(torch.linspace(-1, 1, 100)).diff() >= 0).all()


def test_straight_through():
    g = StraightThrough(peak=2.0)
    assert g.slope(at(-9.0, 0.0, 9.0)).tolist() == [2.0] * 3
    x = at(-9.0, 0.0, 9.0).requires_grad_()
    assert torch.autograd.grad(g.primitive(x).sum(), x)[0].tolist() == [2.0] * 3
    assert math.isinf(g.area)
    with pytest.raises(ValueError, match="no finite area"):
        g.with_area(1.0)
    with pytest.raises(ValueError, match="no width"):
        StraightThrough(width=0.1)


def test_the_papers_forms():
    x = at(-0.7, 0.0, 0.2)
    torch.testing.assert_close(FastSigmoid.from_steepness(10.0).slope(x), 1 / (1 + 10 * x.abs()) ** 2)
    torch.testing.assert_close(Exponential.from_scale(0.6, 0.3).slope(x), 2 * torch.exp(-x.abs() / 0.3))
    logistic = torch.sigmoid(4 * x)
    torch.testing.assert_close(Sigmoid.from_steepness(4.0).slope(x), 4 * logistic * (1 - logistic))


# (converter, its arguments, the other library's slope written out, peak, area, half width), the last three measured
# by running the other library's own backward pass
q = math.sqrt(2) - 1
PEERS = [
    (S.snntorch_fast_sigmoid, (), lambda x: 1 / (1 + 25 * x.abs()) ** 2, 1, 0.08, 0.0165685),
    (S.snntorch_sigmoid, (), lambda x: 25 * torch.sigmoid(25 * x) * torch.sigmoid(-25 * x), 6.25, 1, 0.070510),
    (S.snntorch_atan, (), lambda x: 1 / (1 + (math.pi * x) ** 2), 1, 1, 0.318310),
    (S.snntorch_atan, (5.0,), lambda x: 2.5 / (1 + (2.5 * math.pi * x) ** 2), 2.5, 1, 2 / (5 * math.pi)),
    (S.norse_superspike, (), lambda x: 1 / (1 + 100 * x.abs()) ** 2, 1, 0.02, 0.0041421),
    (S.norse_triangle, (), lambda x: 0.3 * (1 - x.abs()).clamp(min=0), 0.3, 0.3, 0.5),
    (S.norse_tanh, (), lambda x: 1 / torch.cosh(100 * x) ** 2, 1, 0.02, 0.0088137),
    (S.norse_heavi_erfc, (), lambda x: 2 / math.sqrt(math.pi) * torch.exp(-((100 * x) ** 2)), 1.12838, 0.02, 0.0083255),
    (S.spikingjelly_sigmoid, (), lambda x: 4 * torch.sigmoid(4 * x) * torch.sigmoid(-4 * x), 1, 1, 0.440687),
    (S.spikingjelly_atan, (), lambda x: 1 / (1 + (math.pi * x) ** 2), 1, 1, 0.318310),
    (S.spikingjelly_superspike, (), lambda x: 1 / (1 + x.abs()) ** 2, 1, 2, 0.414214),
    (S.spikingjelly_superspike, (3.0,), lambda x: 3 / (1 + x.abs()) ** 2, 3, 6, 0.414214),
    (S.spikingjelly_soft_sign, (), lambda x: 1 / (1 + 2 * x.abs()) ** 2, 1, 1, 0.207107),
    (S.spikingjelly_piecewise_quadratic, (), lambda x: (1 - x.abs()).clamp(min=0), 1, 1, 0.5),
    (S.spikingjelly_piecewise_exp, (), lambda x: 0.5 * torch.exp(-x.abs()), 0.5, 1, 0.693147),
    (S.spikingjelly_erf, (), lambda x: 2 / math.sqrt(math.pi) * torch.exp(-4 * x * x), 1.12838, 1, 0.416277),
    (S.spikingjelly_rect, (), lambda x: (x.abs() < 0.5).double(), 1, 1, 0.5),
    (S.sinabs_single_exponential, (), lambda x: 2 * torch.exp(-2 * x.abs()), 2, 2, 0.346574),
    (S.sinabs_single_exponential, (0.5, 1.0, 2.0), lambda x: torch.exp(-x.abs()), 1, 2, 0.693147),
    (S.sinabs_gaussian, (), lambda x: torch.exp(-2 * x * x) / math.sqrt(math.pi / 2), 0.797885, 1, 0.588705),
]


@pytest.mark.parametrize(
    ("convert", "arguments", "theirs", "peak", "area", "width"), PEERS, ids=[f"{p[0].__name__}{p[1]}" for p in PEERS]
)
def test_converters(convert, arguments, theirs, peak, area, width):
    ours = convert(*arguments)
    x = torch.linspace(-1.97, 1.98, 200, dtype=torch.float64)
    torch.testing.assert_close(ours.slope(x), theirs(x), rtol=1e-12, atol=1e-12)
    assert (ours.peak, ours.area, ours.width) == pytest.approx((peak, area, width), rel=1e-5)


def test_every_converter_is_tested():
    prefixes = ("snntorch_", "norse_", "spikingjelly_", "sinabs_")
    there = {name for name in vars(S) if name.startswith(prefixes)}
    assert there == {p[0].__name__ for p in PEERS}


def test_converters_against_the_libraries_themselves():
    """Where they are installed (they are not needed)."""
    snntorch = pytest.importorskip("snntorch.surrogate", reason="snnTorch is not installed")
    spikingjelly = pytest.importorskip(
        "spikingjelly.activation_based.surrogate", reason="SpikingJelly is not installed"
    )
    pairs = [
        (S.snntorch_fast_sigmoid(), snntorch.fast_sigmoid()),
        (S.snntorch_atan(), snntorch.atan()),
        (S.spikingjelly_sigmoid(), spikingjelly.Sigmoid()),
        (S.spikingjelly_superspike(), spikingjelly.SuperSpike()),
    ]
    for ours, theirs in pairs:
        x = torch.linspace(-1, 1, 50).requires_grad_()
        theirs(x).sum().backward()
        torch.testing.assert_close(ours.slope(x.detach()), x.grad)


@pytest.mark.parametrize("shape", S.SHAPES, ids=lambda shape: shape.__name__)
def test_firing_steps_forward_and_slopes_backward(shape):
    g = shape()
    U = at(0.2, 0.97, 1.0, 1.06, 2.5).requires_grad_()
    theta = at(1.0).requires_grad_()
    s = S.firing(lif(), g)(U, theta)
    assert s.tolist() == [0, 0, 1, 1, 1]
    e = at(1.0, -2.0, 3.0, 0.5, 1.5)
    dU, dtheta = torch.autograd.grad(s, (U, theta), e)
    torch.testing.assert_close(dU, e * g.slope(U.detach() - 1.0))
    torch.testing.assert_close(dtheta, -dU.sum(0, keepdim=True))


def test_firing_of_a_threshold_per_neuron():
    theta = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    U = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    s = S.firing(Neuron(theta=theta), FastSigmoid())(U, theta)
    assert s.tolist() == [[1, 1, 0]] * 4
    (grad,) = torch.autograd.grad(s.sum(), theta)
    torch.testing.assert_close(grad, -4 * FastSigmoid().slope(1 - theta.detach()))


def test_firing_works_under_vmap_and_func_grad():
    fire = S.firing(lif(), ArcTan())
    U = torch.linspace(0, 2, 7, dtype=torch.float64)
    slopes = torch.func.vmap(torch.func.grad(lambda u: fire(u, 1.0)))(U)
    torch.testing.assert_close(slopes, ArcTan().slope(U - 1))


def test_several_spikes_have_one_bump():
    """EXODUS and Sinabs use one slope, at theta, however many spikes leave in a step."""
    U = at(3.5).requires_grad_()
    s = S.firing(Neuron(fire=Threshold(most=math.inf)), FastSigmoid(1.0))(U, 1.0)
    assert s.item() == 3
    assert torch.autograd.grad(s, U)[0].item() == pytest.approx(FastSigmoid(1.0).slope(at(2.5)).item())


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_bad_sizes(bad):
    for arguments in ({"width": bad}, {"peak": bad}):
        with pytest.raises(ValueError, match="positive, finite"):
            FastSigmoid(**arguments)
    with pytest.raises(ValueError, match="positive, finite"):
        FastSigmoid.from_steepness(bad)
    with pytest.raises(ValueError, match="positive, finite"):
        ArcTan().with_area(bad)


def test_a_shape_of_ones_own_needs_two_functions(tmp_path):
    class Mine(S.Surrogate):
        def slope(self, x):
            return torch.cos(x).clamp(min=0)

        def primitive(self, x):
            return torch.sin(x.clamp(-math.pi / 2, math.pi / 2)) + 1

    learned = Learned(lif, theta=torch.nn.Parameter(torch.tensor(1.0)))
    s = S.firing(learned(), Mine())(torch.tensor([1.0], requires_grad=True), learned().theta)
    s.sum().backward()
    assert learned.log.theta.grad.item() == pytest.approx(-1.0)
