"""Tutorial 04: both orders against autograd and the library, memory as measured, the panels, the exercises."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_slip
from torch import nn

from snnlearn import FastSigmoid, Layer, Network, Neuron, Reset, Rule, Unrolled, cuba_lif, lif
from snnlearn.lessons import forwards as lesson
from snnlearn.lessons import forwards_cost as cost
from snnlearn.lessons import forwards_numbers as numbers
from snnlearn.losses import OverTime, half_square
from snnlearn.microscope import memory
from snnlearn.temporal import RTRL, Adjoint, Eligibility

SEEN = [Reset.KEPT, Reset.IGNORED]
EXAMPLE = {"w": 0.2, "tau_mem": 20.0, "width": 0.3}
DIRECTIONS = [numbers.BACKWARDS, numbers.FORWARDS]


def linear(weight):
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.as_tensor(weight))
    return module


# The triangle.


@pytest.mark.parametrize("seen", SEEN)
def test_triangle_is_what_autograd_finds(seen):
    found = numbers.pairs(seen=seen, **EXAMPLE)
    w = torch.tensor(EXAMPLE["w"], dtype=torch.float64, requires_grad=True)
    a = (w * torch.from_numpy(found.x)).view(-1, 1, 1)
    a.retain_grad()
    neuron = Neuron(beta=math.exp(-1 / EXAMPLE["tau_mem"]))
    trace = Unrolled(seen).run(neuron, FastSigmoid(width=EXAMPLE["width"]), a)
    (0.5 * (trace.U - numbers.AIM) ** 2).sum().backward()
    np.testing.assert_allclose(found.U, trace.U.detach().flatten(), rtol=1e-12)
    np.testing.assert_array_equal(found.s, trace.s.detach().flatten())
    assert 3 <= found.s.sum() <= 16
    np.testing.assert_allclose(found.lam, a.grad.flatten(), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(found.gradient, w.grad, rtol=1e-11)


def test_what_the_gradient_sees_of_the_reset_matters():
    kept, ignored = (numbers.pairs(seen=seen, **EXAMPLE) for seen in SEEN)
    assert abs(kept.gradient - ignored.gradient) > 0.1 * abs(kept.gradient)
    beta = math.exp(-1 / EXAMPLE["tau_mem"])
    np.testing.assert_allclose(ignored.P[5], sum(beta ** (5 - m) * ignored.x[m] for m in range(6)), rtol=1e-12)


@pytest.mark.parametrize("seen", SEEN)
def test_rows_are_rtrl_and_columns_are_bptt(seen):
    found = numbers.pairs(seen=seen, **EXAMPLE)
    np.testing.assert_allclose(found.credit.sum(1), found.e * found.P, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(found.credit.sum(0), found.lam * found.x, rtol=1e-11, atol=1e-14)
    assert not np.triu(found.credit, 1).any()
    P = 0.0
    for n in range(numbers.STEPS):
        P = found.J[n] * P + found.x[n]
        assert found.P[n] == pytest.approx(P, rel=1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_clock(direction):
    found, T = numbers.pairs(seen=Reset.KEPT, **EXAMPLE), numbers.STEPS
    part, remembered = numbers.so_far(found, direction), numbers.numbers_kept(direction)
    for tick in range(2 * T + 1):
        assert part[tick] == pytest.approx(found.credit[numbers.done(direction, tick)].sum(), abs=1e-12)
    assert part[-1] == pytest.approx(found.gradient)
    assert not part[0]
    assert remembered[[0, -1]].tolist() == [0, 0]
    if direction == numbers.FORWARDS:
        assert remembered.max() == 2
        assert part[T] == part[-1]
    else:
        assert remembered.argmax() == T
        assert remembered.max() == 2 * T
        assert not part[: T + 1].any()


# P of a layer.


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("strength", [0.0, 0.2])
def test_influence_is_the_derivative_that_autograd_finds(seen, strength):
    found, last = numbers.influences(strength, 20.0, 0.3, seen), 12
    N, K, draw = numbers.NEURONS, numbers.INPUTS, np.random.default_rng(1)
    W, V = draw.uniform(0.1, 0.5, (N, K)), draw.standard_normal((N, N)) * strength
    x = torch.from_numpy((draw.random((numbers.RUN, K)) < 0.25).astype(float))[:last, None]
    layer = Layer(linear(W), lif(tau_mem=20e-3), linear(V))
    trace = Network(layer)(x, Rule(FastSigmoid(width=0.3), Unrolled(seen)))[0]
    np.testing.assert_array_equal(found.s[:last], trace.s[:, 0].detach())
    assert 0.1 < found.s.mean() < 0.4
    for k in range(N):
        weights = [layer.synapse.weight, layer.recurrent.weight]
        row = torch.autograd.grad(trace.U[last - 1, 0, k], weights, retain_graph=True)
        np.testing.assert_allclose(found.P[last - 1, k], torch.cat([g.flatten() for g in row]), rtol=1e-10, atol=1e-13)


def test_without_recurrence_only_the_boxes_are_left():
    alone, together = (numbers.influences(v, 20.0, 0.3, Reset.KEPT) for v in (0.0, 0.1))
    assert not alone.P[:, ~alone.own].any()
    assert numbers.own_share(alone.P[-1], alone.own) == pytest.approx(1)
    assert 0.3 < numbers.own_share(together.P[-1], together.own) < 0.9
    assert numbers.own_share(np.zeros((2, 2)), np.eye(2) > 0) == 1
    assert alone.own.sum() == numbers.NEURONS * (numbers.NEURONS + numbers.INPUTS)


def test_what_the_notebook_says_of_the_influence():
    found = numbers.influences(0.1, 20.0, 0.3, Reset.KEPT)
    full = [np.count_nonzero(P) == P.size for P in found.P]
    assert full.index(True) == 9  # after ten steps
    largest = {(v, r): np.abs(numbers.influences(v, 20.0, 0.3, r).P).max() for v in (0.1, 0.3) for r in SEEN}
    assert largest[0.1, Reset.KEPT] == pytest.approx(2.4, abs=0.05)
    assert largest[0.3, Reset.KEPT] == pytest.approx(4.7, abs=0.05)
    assert largest[0.1, Reset.IGNORED] > 100
    assert largest[0.3, Reset.IGNORED] > 1e4


# What it costs.


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("N", [3, 8])
def test_kept_is_what_is_measured(recurrent, N):
    net = Network(Layer(linear(torch.rand(N, N)), cuba_lif(), linear(torch.rand(N, N)) if recurrent else None))

    def make(T):
        return torch.ones(T, 1, N).double(), torch.zeros(T, 1, N).double()

    gradient = 8 * numbers.parameters(N, recurrent)
    for method, way in zip(numbers.METHODS, (Unrolled(), RTRL(), Eligibility()), strict=True):
        own = 0 if method == numbers.BPTT else gradient
        for T, used in memory(Rule(FastSigmoid(), way), net, make, OverTime(half_square), [3, 9]).items():
            assert used.kept - own == 8 * numbers.kept(method, N, T, recurrent), (method, T)


def test_growth_of_memory_and_work():
    grow_T = [numbers.kept(m, 16, 2000, True) / numbers.kept(m, 16, 1000, True) for m in numbers.METHODS]
    grow_N = [numbers.kept(m, 2000, 100, True) / numbers.kept(m, 1000, 100, True) for m in numbers.METHODS]
    more_work = [numbers.work(m, 200, True) / numbers.work(m, 100, True) for m in numbers.METHODS]
    np.testing.assert_allclose(grow_T, [2, 1, 1], rtol=1e-3)
    np.testing.assert_allclose(grow_N, [2, 8, 2], rtol=1e-3)
    np.testing.assert_allclose(more_work, [4, 16, 4])
    assert numbers.work(numbers.RTRL_, 100, False) == 100**3
    for N, crossing in ((8, 172), (128, 43_700)):
        keeps = [numbers.kept(m, N, crossing, True) for m in (numbers.BPTT, numbers.RTRL_)]
        assert keeps[0] == pytest.approx(keeps[1], rel=2e-3)


@pytest.mark.parametrize("function", [numbers.kept, numbers.work])
def test_unknown_method_is_refused(function):
    with pytest.raises(ValueError, match="BPTT, RTRL, eligibility traces"):
        function("adjoint", 3, *((4,) if function is numbers.kept else ()), True)


# Truncation.


@pytest.fixture(scope="module")
def table():
    return numbers.truncation((5, 30), (10, 40, 80), samples=16)


def test_truncation(table):
    np.testing.assert_allclose(table.cosine[:, -1], 1, rtol=1e-12)
    np.testing.assert_allclose(table.ratio[:, -1], 1, rtol=1e-12)
    assert table.cosine[0, 0] > table.cosine[1, 0]
    assert table.cosine[1, 0] < 0.7 < table.cosine[1, 1]
    assert table.ratio[1, 0] < 0.3


def test_a_cue_outside_the_window_gets_no_credit():
    net = numbers.late_network(torch.Generator().manual_seed(0))
    x, y = numbers.late_batch(30, 32, torch.Generator().manual_seed(5))
    short, long = (
        numbers.hidden_gradient(net, x, y, Rule(numbers.SLOPE, Unrolled(window=k)))[:, : numbers.CUES] for k in (28, 40)
    )
    assert not short.any()
    assert long.norm() > 0.1


def test_late_batch_asks_for_the_cue_at_its_lag():
    x, y = numbers.late_batch(20, 50, torch.Generator().manual_seed(0))
    cue, asked = y
    assert x.dtype == torch.float64
    for b in range(50):
        steps, channels = x[:, b, : numbers.CUES].nonzero(as_tuple=True)
        assert (channels == cue[b]).all()
        assert steps.tolist() == [asked[b] - 20 + k for k in range(3)]
    assert asked.max() < numbers.LENGTH
    assert 10 < cue.sum() < 40
    out = torch.randn(numbers.LENGTH, 50, 2, dtype=torch.float64)
    other = out.clone()
    other[asked[7] - 1, 7] += 1
    assert numbers.late_loss(out, y) == numbers.late_loss(other, y)
    other[asked[7], 7, 0] += 1
    assert numbers.late_loss(out, y) != numbers.late_loss(other, y)


def test_batches_do_not_depend_on_the_default_dtype():
    before = numbers.late_batch(20, 4, torch.Generator().manual_seed(0))[0]
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(numbers.late_batch(20, 4, torch.Generator().manual_seed(0))[0], before)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("lag", "window"), [(30, 10), (30, 40), (5, 20), (0, 7)])
def test_surviving_pairs(lag, window):
    inside = cost.blocks(window, 20 * window)
    along = np.diagonal(inside, -lag)[: 10 * window]  # pairs lag apart, in whole windows
    assert along.mean() == pytest.approx(numbers.surviving(lag, window), abs=1e-12)
    assert inside.sum() == 20 * window * (window + 1) // 2


def test_training_needs_the_window():
    (start, long), (again, short) = numbers.train_late(None, steps=15), numbers.train_late(10, steps=15)
    assert start == again < 0.6
    assert long > 0.8 > 0.6 > short


def test_detached():
    net = numbers.late_network(torch.Generator().manual_seed(0))
    x, _ = numbers.late_batch(20, 2, torch.Generator().manual_seed(0))
    _, past = net.run(x[:9], Rule(numbers.SLOPE, Unrolled()))
    cut = numbers.detached(past)
    assert past[1].state.U.requires_grad
    assert type(cut[1]) is type(past[1])
    for old, new in zip(past, cut, strict=True):
        assert not any(v.requires_grad for v in (*new.state, *new.inputs, *new.sent))
        assert torch.equal(old.state.U, new.state.U)


# Eligibility traces.


def test_leftover():
    alone, together = numbers.leftover(0.0), numbers.leftover(0.4)
    assert alone.ignored == pytest.approx(1, abs=1e-12)
    assert alone.kept < 0.9
    assert together.ignored < 0.9
    assert 0.05 < alone.rate < 0.4


def test_traces_equal_slayer_without_recurrence_only():
    draw = torch.Generator().manual_seed(0)
    W, V = (torch.randn(6, n, generator=draw, dtype=torch.float64) * 0.3 for n in (5, 6))
    x = (torch.rand(40, 2, 5, generator=draw) < 0.4).double()
    y = (torch.rand(40, 2, 6, generator=draw) < 0.2).double()
    for recurrent in (None, linear(V)):
        net = Network(Layer(linear(W), lif(), recurrent))
        traces, slayer = (
            Rule(FastSigmoid(width=0.3), way).gradients(net, x, y, OverTime(half_square))[1]["layers.0.synapse.weight"]
            for way in (Eligibility(), Adjoint(Reset.IGNORED))
        )
        same = torch.allclose(traces, slayer, rtol=1e-10, atol=1e-12)
        assert same is (recurrent is None)
        assert slayer.norm() > 0.1


# The panels.

MEASURED = {(method, 8, T): 8.0 * numbers.kept(method, 8, T, True) for method in numbers.METHODS for T in (10, 100)}


@pytest.fixture(params=["triangle", "influence", "meter", "window"])
def panel(request):
    if request.param == "window":
        return lesson.window_panel(request.getfixturevalue("table"))
    made = {"triangle": lesson.triangle_panel, "influence": lesson.influence_panel}
    return lesson.meter_panel(MEASURED) if request.param == "meter" else made[request.param]()


@pytest.mark.filterwarnings("error")
def test_every_control_changes_the_picture_and_returning_restores_it(panel):
    check_controls(panel)


@pytest.mark.filterwarnings("error")
def test_extremes_of_all_controls(panel):
    check_extremes(panel)


def test_triangle_image_hides_what_is_not_added_up_yet():
    found, T = numbers.pairs(seen=Reset.KEPT, **EXAMPLE), numbers.STEPS
    image = lesson.triangle_image(found, numbers.FORWARDS, 10)
    pale = (image[..., :3] == 0.86).all(2)
    assert pale.sum() == T * (T + 1) // 2 - 55
    assert not pale[:10].any()
    assert (image[np.triu_indices(T, 1)] == 1).all()


@pytest.mark.parametrize(
    ("largest", "wanted"), [(0.9, 1), (1, 1), (1.2, 3), (31, 100), (0.02, 0.03), (0, 1), (9.5, 10)]
)
def test_coarse_scale(largest, wanted):
    assert lesson.coarse_scale(largest) == wanted


def test_signed_colors():
    up, zero, down, beyond = lesson.signed_colors([3.0, 0.0, -3.0, 30.0], 3.0)
    assert (up == beyond).all()
    assert zero[:3].min() > 0.95
    assert up[0] > up[2]  # orange
    assert down[2] > down[1]  # violet


def test_measured_points_are_drawn_where_they_belong():
    panel = lesson.meter_panel(MEASURED)

    def points():
        return [len(line.get_xdata()) for ax in panel.axes for line in ax.lines if line.get_marker() in "os^"]

    assert points()[:3] == [2, 2, 2]
    panel.set(neurons=16)
    assert points()[:3] == [0, 0, 0]
    panel.set(neurons=8, recurrent=False)
    assert not any(points()[:3])


def test_leftover_is_drawn():
    ax = Figure().subplots()
    lesson.draw_leftover(ax, [numbers.Leftover(0.0, 0.7, 1.0, 0.1), numbers.Leftover(1.0, 0.9, 0.4, 0.2)])
    assert [list(line.get_ydata()) for line in ax.lines][:2] == [[1.0, 0.4], [0.7, 0.9]]
    assert ax.get_xlabel()
    assert ax.get_ylabel()


# The exercises.

EXERCISES = {
    "influence": lesson.influence_exercise,
    "size": lesson.size_exercise,
    "break-even": lesson.break_even_exercise,
}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise)


def influence(P_I, P_U, x, f, alpha, beta, theta, *, slip):
    new = alpha * P_I + x
    slips = {
        "not the old one": (new, (beta - theta * f) * P_U + P_I),
        "reset is missing": (new, beta * P_U + new),
        "lowers the membrane": (new, (beta + theta * f) * P_U + new),
        "theta, not 1": (new, (beta - f) * P_U + new),
        "leaks too": (P_I + x, (beta - theta * f) * P_U + P_I + x),
        "memory of the current": (x, (beta - theta * f) * P_U + x),
        "direct part": (alpha * P_I, (beta - theta * f) * P_U + alpha * P_I),
        "does not reach": (new, (beta - theta * f) * P_U),
    }
    return slips[slip]


INFLUENCE = ["not the old one", "reset is missing", "lowers the membrane", "theta, not 1", "leaks too"]
INFLUENCE += ["memory of the current", "direct part", "does not reach"]
SLIPS = {
    "influence": {slip: lambda *a, slip=slip: influence(*a, slip=slip) for slip in INFLUENCE},
    "size": {
        "times batch": lambda N, K, states, recurrent, batch: N * states * (N * K + recurrent * N * N),
        "several states": lambda N, K, states, recurrent, batch: batch * N * (N * K + recurrent * N * N),
        "parameters too": lambda N, K, states, recurrent, batch: batch * N * states * N * K,
        "no recurrent weights": lambda N, K, states, recurrent, batch: batch * N * states * (N * K + N * N),
        "a row for every state": lambda N, K, states, recurrent, batch: N * K + recurrent * N * N,
    },
    "break-even": {
        "still equal": lambda N: 2 * N**3 // (3 * N),
        "recurrent weights are missing": lambda N: N**3 // (3 * N) + 1,
        "three numbers": lambda N: 2 * N**2 + 1,
        "input belongs": lambda N: N**2 + 1,
    },
}


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_references_against_what_they_stand_for():
    draw, alpha, beta, theta = torch.Generator().manual_seed(3), 0.8, 0.9, 1.2
    x = torch.rand(30, generator=draw, dtype=torch.float64)
    w = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    slope = FastSigmoid(width=0.3)
    trace = Unrolled().run(Neuron(alpha, beta, theta), slope, (w * x).view(-1, 1, 1))
    assert 2 < trace.s.sum() < 28
    P_I = P_U = f = torch.zeros((), dtype=torch.float64)
    for n in range(30):
        P_I, P_U = lesson.influence_exercise.solution(P_I, P_U, x[n], f, alpha, beta, theta)
        f = slope.slope(trace.U[n].detach() - theta).squeeze()
        (wanted,) = torch.autograd.grad(trace.U[n].sum(), w, retain_graph=True)
        torch.testing.assert_close(P_U, wanted)

    for N in (3, 7, 10, 100):
        T, P = lesson.break_even_exercise.solution(N), lesson.size_exercise.solution(N, N, 1, True, 1)
        assert 3 * N * (T - 1) <= P < 3 * N * T
