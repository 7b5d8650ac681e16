"""The lesson "The derivative that is not there": its numbers against closed forms and autograd, panels, exercises."""

import math

import numpy as np
import pytest
import torch
from panels import check_controls, check_exercise, check_extremes, check_slip
from torch import Tensor, nn

from snnlearn import LIF, FastSigmoid, Gaussian, Layer, Network, PiecewiseLinear, Reset, Rule, Sigmoid, Unrolled, lif
from snnlearn.lessons import missing_derivative as lesson
from snnlearn.lessons import missing_derivative_exercises as exercises
from snnlearn.lessons import missing_derivative_numbers as numbers
from snnlearn.lessons import missing_derivative_training as training
from snnlearn.lessons.exercise import Exercise
from snnlearn.surrogate import SHAPES, StraightThrough

FINITE = [shape for shape in SHAPES if shape is not StraightThrough]


def weights(*w: float) -> Tensor:
    return torch.tensor(w, dtype=torch.float64)


# One neuron, one weight.


def loss_of(s: Tensor, problem: numbers.Problem) -> Tensor:
    """The van Rossum loss as a matrix product: r = K (s - target), K[n, m] = gamma**(n - m) for m <= n."""
    n = torch.arange(len(s))
    K = torch.where(n[:, None] >= n, problem.gamma ** (n[:, None] - n).clamp(min=0).double(), 0.0)
    return 0.5 * (K @ (s - problem.target)).square().sum()


@pytest.mark.parametrize("w", [0.3, 0.45, 0.9])
def test_sweep_is_the_librarys_loss_and_surrogate_gradient(w: float) -> None:
    problem, surrogate = numbers.problem(), Gaussian(0.3).with_area(1.0)
    weight = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    layer = LIF(lif(tau_mem=20e-3, dt=1e-3), surrogate=surrogate, temporal=Unrolled(Reset.KEPT))
    trace = layer.trace(weight * problem.x[:, None, None])
    loss = loss_of(trace.s.flatten(), problem)
    found = numbers.sweep(problem, weights(0.2, w), surrogate)
    torch.testing.assert_close(found.loss[1], loss.detach())
    torch.testing.assert_close(found.gradient[1], torch.autograd.grad(loss, weight)[0])
    torch.testing.assert_close(found.U[:, 1], trace.U.detach().flatten())


@pytest.mark.parametrize("shape", FINITE)
def test_smoothed_gradient_is_the_derivative_of_the_smoothed_loss(shape: type) -> None:
    surrogate, w, h = shape(0.3).with_area(1.0), 0.43, 1e-6
    found = numbers.sweep(numbers.problem(), weights(w - h, w, w + h), surrogate, smooth=True)
    difference = (found.loss[2] - found.loss[0]) / (2 * h)
    torch.testing.assert_close(found.gradient[1], difference, rtol=1e-5, atol=1e-6)


def test_surrogate_gradient_is_not_the_smoothed_one() -> None:
    surrogate = Gaussian(0.3).with_area(1.0)
    step, smooth = (numbers.sweep(numbers.problem(), weights(0.45), surrogate, smooth=s) for s in (False, True))
    assert abs(step.gradient.item() - smooth.gradient.item()) > 1


def test_target_is_met_at_the_weight_that_made_it() -> None:
    found = numbers.sweep(numbers.problem(), weights(0.6, 0.5), FastSigmoid())
    assert found.loss[0] == 0
    assert found.loss[1] > 1
    assert numbers.problem().target.sum() == 4


def test_downhill_looks_at_the_next_stair() -> None:
    w = torch.arange(8.0)
    loss = torch.tensor([3.0, 3, 1, 1, 2, 2, 5, 5])
    leftward, rightward, none = torch.ones(8), -torch.ones(8), torch.zeros(8)
    assert numbers.downhill(w, loss, rightward).tolist() == [-1, -1, 1, 1, 1, 1, 0, 0]
    assert numbers.downhill(w, loss, leftward).tolist() == [0, 0, 1, 1, -1, -1, -1, -1]
    assert numbers.downhill(w, loss, none).tolist() == [0] * 8


def test_counterexample_of_the_tutorial() -> None:
    surrogate = Gaussian(0.3).with_area(1.0)
    path = numbers.descend(numbers.problem(), [0.475], surrogate, smooth=False, rate=5e-4, updates=150)
    loss = numbers.sweep(numbers.problem(), path[[0, -1], 0], surrogate).loss
    assert path.shape == (151, 1)
    assert loss[1] > loss[0] + 1


def test_descent_of_the_smoothed_loss_lowers_it() -> None:
    surrogate = Gaussian(0.3).with_area(1.0)
    path = numbers.descend(numbers.problem(), [0.3, 0.9], surrogate, smooth=True, rate=5e-4, updates=20)
    loss = torch.stack([numbers.sweep(numbers.problem(), w, surrogate, smooth=True).loss for w in path])
    assert bool((loss[1:] < loss[:-1]).all())


def test_edge_is_where_the_loss_jumps() -> None:
    w = numbers.edge(numbers.problem(), 0.55, 0.57)
    loss = numbers.sweep(numbers.problem(), weights(math.nextafter(w, 0), w, 0.55, 0.57), FastSigmoid()).loss
    assert loss[0] == loss[2]
    assert loss[1] == loss[3]
    assert loss[0] != loss[1]
    with pytest.raises(ValueError, match="choose weights on two stairs"):
        numbers.edge(numbers.problem(), 0.57, 0.6)


# Shapes.


@pytest.mark.parametrize("shape", FINITE)
def test_measured_finds_the_three_numbers(shape: type) -> None:
    surrogate = shape(0.07, 2.5)
    peak, width, area = numbers.measured(surrogate)
    assert peak == pytest.approx(2.5, rel=1e-3)
    assert width == pytest.approx(0.07, rel=5e-3)
    assert area == pytest.approx(surrogate.area, rel=1e-2)


def test_scaled() -> None:
    assert numbers.scaled(Sigmoid, 0.2, "area").area == pytest.approx(1)
    assert numbers.scaled(Sigmoid, 0.2, "peak").peak == 1
    assert numbers.scaled(StraightThrough, 0.2, "area").peak == 1


def test_library_defaults_are_the_tables() -> None:
    rows = {name.split("(")[0]: s for name, s in numbers.library_defaults()}
    expected = {
        "Norse super": (1, 0.02, 0.004),
        "snnTorch fast_sigmoid": (1, 0.08, 0.017),
        "snnTorch sigmoid": (6.25, 1, 0.071),
        "Sinabs SingleExponential": (2, 2, 0.347),
        "SpikingJelly Sigmoid": (1, 1, 0.441),
    }
    for name, values in expected.items():
        s = rows[name]
        assert (s.peak, s.area, s.width) == pytest.approx(values, rel=0.05)


# Depth and time.


def test_carries_by_hand() -> None:
    c = numbers.carries([0.8, 1.22], PiecewiseLinear(0.5, 3.0), 0.9)
    assert c == pytest.approx([0.9 - 3 * 0.8, 0.9 - 3 * 0.78])


@pytest.mark.parametrize("kept", [True, False])
def test_layer_norms_are_those_of_autograd_through_the_library(kept: bool) -> None:
    surrogate = FastSigmoid(0.2, 1.5)
    small = numbers.deep_network(layers=3, neurons=5, steps=24, seed=1)
    rule = Rule(surrogate, Unrolled(Reset.KEPT if kept else Reset.DETACHED))
    layers = [Layer(nn.Linear(5, 5, bias=False, dtype=torch.float64), lif(tau_mem=20e-3, dt=1e-3)) for _ in small.W]
    for layer, W in zip(layers, small.W, strict=True):
        layer.synapse.weight.data = torch.from_numpy(W)
    bottom = LIF(lif(tau_mem=20e-3, dt=1e-3), surrogate=surrogate, temporal=rule.temporal)
    U, s = torch.from_numpy(small.U[0]), torch.from_numpy(small.s[0])
    past_U, past_s = (torch.cat([torch.zeros(1, 5), v[:-1]]) for v in (U, s))
    a = (U - small.beta * past_U + small.theta * past_s)[:, None].requires_grad_()  # Eq. 8, solved for the input
    top = Network(*layers)(bottom(a), rule)[-1]
    torch.testing.assert_close(top.s[:, 0].detach(), torch.from_numpy(small.s[-1]))
    (gradient,) = torch.autograd.grad((torch.from_numpy(small.error) * top.s[:, 0]).sum(), a)
    norms = numbers.layer_norms(small, surrogate, kept)
    assert len(norms) == 3
    assert norms[0] == pytest.approx(gradient.norm().item(), rel=1e-9)


def test_memory_is_the_product_of_carries() -> None:
    net, surrogate = numbers.deep_network(), FastSigmoid(0.1, 5.0)
    c = np.array([numbers.carries(U, surrogate, net.beta) for U in net.U[1]])
    rms = math.sqrt(((c[-2] * c[-3] * c[-4]) ** 2).mean())
    assert numbers.memory(net, surrogate, True, layer=1)[3] == pytest.approx(rms)
    assert numbers.memory(net, surrogate, False) == pytest.approx(net.beta ** np.arange(60))


def test_carry_below_the_bound_never_grows() -> None:
    net = numbers.deep_network()
    peak = 0.999 * (1 + net.beta) / net.theta
    for shape in FINITE:
        assert (np.diff(numbers.memory(net, shape(1.0, peak), True)) <= 0).all()


def test_deep_network_is_active_in_every_layer() -> None:
    rates = [s.mean() for s in numbers.deep_network().s]
    assert len(rates) == 6
    assert 0.1 < min(rates) <= max(rates) < 0.2


# Training.


def test_side_by_side_gives_each_case_its_slope() -> None:
    parts = [FastSigmoid(0.1), None, Sigmoid(0.2)]
    x = torch.linspace(-1, 1, 2 * 6 * 5, dtype=torch.float64).view(2, 6, 5)
    slope = training.SideBySide(parts).slope(x)
    assert torch.equal(slope[:, :2], parts[0].slope(x[:, :2]))
    assert torch.equal(slope[:, 2:4], torch.zeros(2, 2, 5, dtype=torch.float64))
    assert torch.equal(slope[:, 4:], parts[2].slope(x[:, 4:]))


def test_networks_trained_together_are_those_trained_alone() -> None:
    parts = [FastSigmoid(0.1), None]
    together = numbers.train(parts, seeds=2, updates=5)
    alone = numbers.train(parts[1:], seeds=2, updates=5)
    assert together.loss.shape == together.accuracy.shape == (2, 2)
    assert together.loss[1] == pytest.approx(alone.loss[0], rel=1e-9)
    assert (abs(together.loss[0] - together.loss[1]) > 1e-3).all()


def test_what_the_gradient_sees_of_the_reset_changes_training() -> None:
    kept, detached = (numbers.train([Sigmoid(0.1)], seeds=1, updates=5, reset=r).loss for r in list(Reset)[:2])
    assert abs(kept - detached).max() > 1e-4


def test_training_lowers_the_loss_and_more_with_a_surrogate() -> None:
    before = numbers.train([FastSigmoid(0.3), None], seeds=1, updates=0)
    after = numbers.train([FastSigmoid(0.3), None], seeds=1, updates=30)
    assert (after.loss < before.loss).all()
    assert after.loss[0] < after.loss[1]


def test_patterns() -> None:
    task = training.patterns(0)
    assert task.x.shape == (20, 72, 12)
    assert task.x.sum(0).max() == 1
    assert task.y.unique().tolist() == [0, 1, 2]
    assert not torch.equal(task.x, training.patterns(1).x)


def test_outcome_table() -> None:
    outcome = training.Outcome(np.array([[0.1, 0.3]]), np.array([[0.5, 1.0]]))
    assert "0.20  (0.10 to 0.30)" in numbers.outcome_table(["x"], outcome)
    assert "75 %" in numbers.outcome_table(["x"], outcome)


# Panels.

PANELS = [lesson.shapes_panel, lesson.weight_panel, lesson.norms_panel]
each_panel = pytest.mark.parametrize("make", PANELS, ids=lambda make: make.__name__)


@each_panel
@pytest.mark.filterwarnings("error")
def test_every_control_moves_the_picture_and_returning_restores_it(make) -> None:
    check_controls(make())


@each_panel
@pytest.mark.filterwarnings("error")
def test_extremes_draw_without_errors_or_warnings(make) -> None:
    check_extremes(make(), pairs=True)


def test_shapes_panel_shows_the_chosen_shapes() -> None:
    panel = lesson.shapes_panel()
    panel.set(first="Gaussian", second="Boxcar", width=0.5, equal="area")
    x, y = panel.axes[0].get_lines()[0].get_data()
    np.testing.assert_allclose(y, Gaussian(0.5).with_area(1.0).slope(torch.as_tensor(x)))
    assert panel.axes[1].get_lines()[-1].get_ydata()[[0, -1]] == pytest.approx([0, 1])
    assert "Boxcar: peak 1.00, width 0.50, area 1.00" in panel._text


def test_weight_panel_points_downhill() -> None:
    panel = lesson.weight_panel()
    panel.set(w=0.9, width=10**-0.5, shape="Gaussian")
    for arrow in panel.axes[0].patches:
        (x0, y0), (x1, y1) = arrow._posA_posB
        assert x1 < x0  # both gradients are positive there
        assert y1 < y0
    assert "would first rise" in lesson.weight_words(0.475, 0.3, "Gaussian")
    assert "would first not change" in lesson.weight_words(0.6, 0.3, "Gaussian")


def test_norms_panel_shows_both_resets() -> None:
    panel = lesson.norms_panel()
    panel.set(width=0.1, peak=10.0, shape="FastSigmoid")
    kept, detached = (line.get_ydata() for line in panel.axes[1].get_lines()[-2:])
    assert kept[0] / kept[-1] == pytest.approx(
        np.divide(*numbers.layer_norms(numbers.deep_network(), FastSigmoid(0.1, 10.0), True)[[0, -1]])
    )
    assert not np.allclose(kept, detached)


# Exercises.

EXERCISES = {
    "slope": lesson.slope_exercise,
    "peak": lesson.peak_exercise,
    "function": lesson.function_exercise,
    "carry": lesson.carry_exercise,
}


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise(exercise: Exercise) -> None:
    check_exercise(exercise, hints=(2,))


def spike(gradient):
    """An attempt at exercise 3 whose backward returns gradient(e, U, theta)."""

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, U, theta):
            ctx.save_for_backward(U)
            ctx.theta = theta
            return (theta <= U).to(U.dtype)

        @staticmethod
        def backward(ctx, e):
            return gradient(e, *ctx.saved_tensors, ctx.theta), None

    return lambda U, theta: lesson.through(Spike, U, theta)


def test_an_unwritten_backward_reads_not_attempted() -> None:
    assert lesson.function_exercise.verify(spike(stub)) == (None, "not attempted yet")


def triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


@pytest.mark.parametrize(
    ("exercise", "attempt", "slip"),
    [
        ("slope", lambda x, k: 1 / (1 + k * x.abs()), "square is missing"),
        ("slope", lambda x, k: 1 / (1 + k * x) ** 2, "|x| is missing"),
        ("slope", lambda x, k: k / (1 + k * x.abs()) ** 2, "factor k too many"),
        ("peak", lambda width: 1 / width, "half of the base"),
        ("peak", lambda width: 1 / (4 * width), "factor 1/2"),
        ("peak", lambda width: 2 * width, "area at peak 1"),
        ("function", spike(lambda e, U, theta: triangle(U - theta)), "not multiplied in"),
        ("function", spike(lambda e, U, theta: e), "slope is missing"),
        ("function", spike(lambda e, U, theta: e * triangle(U)), "stand at the threshold"),
        ("function", lambda U, theta: lesson.through(exercises._Reference, U, theta) * 2, "must be the step"),
        ("carry", lambda f, beta, theta: torch.full_like(f, beta), "reset detached"),
        ("carry", lambda f, beta, theta: beta + theta * f, "sign"),
        ("carry", lambda f, beta, theta: beta - f, "theta is missing"),
        ("carry", lambda f, beta, theta: beta * (1 - theta * f), "does not let the reset decay"),
    ],
)
def test_slips_are_named(exercise: str, attempt, slip: str) -> None:
    check_slip(EXERCISES[exercise], attempt, slip)
