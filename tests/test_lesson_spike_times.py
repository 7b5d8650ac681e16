"""Tutorial 08: spike times against closed forms, the library and finite differences; the panels; the exercises."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_show, check_slip
from torch import nn

from snnlearn import FastSigmoid
from snnlearn.events import Events
from snnlearn.firstspike import FirstSpike, FirstSpikeCrossEntropy, silence_cost
from snnlearn.lessons import spike_times as lesson
from snnlearn.lessons import spike_times_numbers as numbers
from snnlearn.lessons import spike_times_training as training
from snnlearn.lessons import spike_times_xor as xor

# The spike time of a neuron without a leak.


def test_by_hand():
    t = np.log([1.0, 2.0, 4.0])
    spike = numbers.first_spike([0.8, 0.7, 0.5], t, tau=1.0)
    assert spike.t == pytest.approx(math.log(4.2))
    np.testing.assert_allclose(spike.by_weight, [-3.2 / 4.2, -2.2 / 4.2, -0.2 / 4.2])
    np.testing.assert_allclose(spike.by_time, [0.8 / 4.2, 1.4 / 4.2, 2.0 / 4.2])
    assert numbers.first_spike([0.8, 0.7, -0.3], t, tau=1.0).t == pytest.approx(math.log(5))
    silent = numbers.first_spike([0.8, 0.7, -0.6], t, tau=1.0)
    assert math.isinf(silent.t)
    assert not silent.causal.any()
    assert not silent.by_weight.any()


def test_first_spike_is_what_the_library_finds():
    draw = np.random.default_rng(0)
    fired = kinds = 0
    for _ in range(200):
        w, t = draw.normal(0.4, 0.8, 5), draw.uniform(0, 12, 5)
        layer = FirstSpike(nn.Linear(5, 1, bias=False, dtype=torch.float64), tau_syn=5.0)
        with torch.no_grad():
            layer.synapse.weight.copy_(torch.from_numpy(w)[None])
        times = torch.from_numpy(t)[None].requires_grad_()
        out = layer(times)
        spike = numbers.first_spike(w, t)
        if math.isinf(spike.t):
            assert out.isinf().all()
            continue
        fired += 1
        kinds += not spike.causal.all()
        out.sum().backward()
        assert spike.t == pytest.approx(out.item(), rel=1e-12)
        np.testing.assert_allclose(spike.by_weight, layer.synapse.weight.grad[0], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(spike.by_time, times.grad[0], rtol=1e-8, atol=1e-10)
        assert spike.by_time.sum() == pytest.approx(1)
        assert numbers.potential(w, t, [spike.t]).item() == pytest.approx(1, abs=1e-9)
        assert numbers.potential(w, t, np.linspace(0, spike.t, 999)[:-1]).max() < 1
    assert 50 < fired < 170
    assert kinds > 20


def test_potential_is_the_integral_of_the_current():
    at = np.linspace(0, 20, 20001)
    w, t = np.array([1.0, -0.5]), np.array([2.0, 7.0])
    current = np.where(at[:, None] > t, np.exp(-(at[:, None] - t) / 5), 0) @ w / 5
    integral = np.concatenate([[0], np.cumsum(0.5 * (current[1:] + current[:-1]) * 1e-3)])
    np.testing.assert_allclose(numbers.potential(w, t, at), integral, atol=2e-4)
    np.testing.assert_allclose(numbers.potential(w, [2.0, math.inf], at), numbers.potential(w[:1], t[:1], at))


# One neuron with a leak.

CASE = ((5.0, 4.0, 5.0), (2.0, 6.0, 14.0), (10.0, 13.0))


def test_story_gradient_is_that_of_finite_differences():
    told = numbers.story(*CASE)
    assert len(told.spikes) == 2
    h = 1e-5
    for i in range(3):
        ends = []
        for sign in (1, -1):
            w = list(CASE[0])
            w[i] += sign * h
            ends.append(numbers.story(tuple(w), *CASE[1:]).loss)
        assert told.by_weight[i] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)
        assert abs(told.by_weight[i]) > 0.1


def test_story_jumps_where_the_text_says():
    last, *_, first = (m for m in numbers.story(*CASE).moments if m.kind == "out")
    told = numbers.story(*CASE)
    assert last.jump == pytest.approx(told.errors[1] / (told.current[1] - 1))
    behind = last.lV * math.exp(-(last.t - first.t) / numbers.TAU_MEM)
    assert first.jump == pytest.approx((behind + told.errors[0]) / (told.current[0] - 1))
    on_first = numbers.story(*CASE[:2], (told.spikes[0], 13.0))
    (jump,) = (m.jump for m in on_first.moments if m.kind == "out" and m.number == 0)
    assert abs(jump) > 0.1  # through the reset alone
    on_second = numbers.story(*CASE[:2], (10.0, told.spikes[1]))
    assert {m.jump == 0 for m in on_second.moments if m.kind == "out" and m.number == 1} == {True}


def test_membrane_reaches_the_threshold_at_its_spikes_and_is_zero_behind():
    told = numbers.story(*CASE)
    at = np.concatenate([told.spikes, told.spikes + 1e-9])
    np.testing.assert_allclose(numbers.membrane(told.w, told.inputs, told.spikes, at), [1, 1, 0, 0], atol=1e-8)
    assert numbers.membrane(told.w, told.inputs, [], at[1:2]).item() > 1.4


def test_adjoint_curves_solve_their_equations():
    told = numbers.story(*CASE)
    t, lV, lI = numbers.adjoint_curves(told, points=2001)
    inside = np.flatnonzero((np.diff(t) > 1e-6) & (t[1:] < told.spikes[1] - 0.1))
    dV, dI = (-np.diff(x)[inside] / np.diff(t)[inside] for x in (lV, lI))
    V, I = (0.5 * (x[1:] + x[:-1])[inside] for x in (lV, lI))
    np.testing.assert_allclose(numbers.TAU_MEM * dV, -V, atol=1e-4)
    np.testing.assert_allclose(numbers.TAU_SYN * dI, V - I, atol=1e-4)
    assert not lV[t > told.spikes[1] + 1e-9].any()
    for m in told.moments:
        before = np.flatnonzero(np.isclose(t, m.t))[0]  # of a moment's two values the one before the jump
        assert lV[before] == pytest.approx(m.lV)


# The birth of a spike.


def test_births_and_what_the_notebook_says_of_them():
    born = [numbers.birth(0.0, 3.5), numbers.birth(3.0, 6.0)]
    np.testing.assert_allclose(born, [1.4056, 3.9204], atol=1e-4)
    for b in born:
        near = numbers.exact([b + 10.0**-k for k in (3, 4, 5)]).slope
        np.testing.assert_allclose(near[1:] / near[:-1], math.sqrt(10), rtol=0.02)
    silent = numbers.exact([born[0] - 1e-6])
    assert (silent.t[0], silent.slope[0], silent.spikes[0]) == (numbers.HORIZON, 0, 0)
    with pytest.raises(ValueError, match="no jump"):
        numbers.birth(5.0, 6.0)
    assert [len(p) for p in numbers.exact_curves()] == [3, 3, 3]
    for b, piece in zip(born, numbers.exact_curves()[1:], strict=True):
        assert 0 <= piece[0][0] - b < 0.011


def test_exact_slope_is_that_of_finite_differences():
    w, h = np.array([1.8, 3.0, 4.5, 7.0]), 1e-5
    nudged = (numbers.exact(w + h).t - numbers.exact(w - h).t) / (2 * h)
    np.testing.assert_allclose(numbers.exact(w).slope, nudged, rtol=1e-6)


def test_first_spike_steps_counts_and_is_differentiable_at_zeros():
    s = torch.tensor([[0, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]]).T.double().requires_grad_()
    steps = numbers.first_spike_steps(s)
    assert steps.tolist() == [2, 5, 0]
    (slope,) = torch.autograd.grad(steps.sum(), s)
    wanted = [[-2, -1, -2, 0, 0], [-5, -4, -3, -2, -1], [-1, 0, 0, 0, 0]]  # how many steps a spike there takes away
    assert slope.T.tolist() == wanted


def test_grid_neuron_samples_the_membrane_exactly():
    dt = 0.25
    neuron, gain = numbers.grid_neuron(dt)
    a = torch.zeros(100, 1, 1, dtype=torch.float64)
    a[8] = 2.0 * gain
    U = neuron.simulate(a).U.flatten()
    np.testing.assert_allclose(U, 2 * numbers.pulse(dt * (np.arange(100) - 7)), atol=1e-12)


def test_surrogate_gradient_against_the_text():
    for dt in numbers.STEP_SIZES:
        w, loss, slope = numbers.surrogate_gradient(0.02, dt)
        exact = numbers.exact(w)
        assert (slope < 0).all()
        near = np.abs(w[:, None] - [1.41, 3.92]).min(1) > 0.15
        assert np.abs(loss - exact.t)[near].max() <= 1.5 * dt
    w, _, narrow = numbers.surrogate_gradient(0.02, 0.5)
    _, _, wide = numbers.surrogate_gradient(0.2, 0.5)
    before = [int(np.argmin(abs(w - x))) for x in (2.0, 3.8)]
    assert narrow[before[1]] < 2 * narrow[before[0]]  # grows, while
    assert wide[before[1]] > wide[before[0]]  # and the exact one falls, too
    assert np.diff(numbers.exact(w[before]).slope)[0] > 0
    at = [numbers.surrogate_gradient(0.04, dt)[2][12] for dt in numbers.STEP_SIZES]
    assert 1.3 < at[1] / at[0] < 1.7
    assert 1.3 < at[2] / at[1] < 1.7


# Temporal XOR.


@pytest.fixture(scope="module")
def histories():
    return {name: xor.train_exactly(4, 60, wake=wake) for name, wake in (("without", 0.0), ("with", 1.0))}


@pytest.mark.parametrize("wake", [0.0, 1.0])
def test_networks_side_by_side_do_what_each_does_alone(wake):
    seed, steps = 2, 20
    layers = [FirstSpike(nn.Linear(n, m, bias=False, dtype=torch.float64), tau_syn=5e-3) for n, m in ((2, 4), (4, 2))]
    with torch.no_grad():
        for layer, weights in zip(layers, xor.start(seed), strict=True):
            layer.synapse.weight.copy_(weights)
    optimizer = torch.optim.Adam([layer.synapse.weight for layer in layers], lr=0.05)
    loss = FirstSpikeCrossEntropy(30e-3, 2e-3)
    history = xor.train_exactly(4, steps, wake=wake)
    for step in range(steps):
        hidden = layers[0](xor.PATTERNS)
        out = layers[1](hidden)
        value = loss(Events.from_times(out), xor.LABELS)
        if step % 4 == 0:
            assert history.loss[step // 4, seed] == pytest.approx(value.item(), rel=1e-8)
        value = value + wake * silence_cost(layers[0].synapse, xor.PATTERNS, hidden, 1.5)
        value = value + wake * silence_cost(layers[1].synapse, hidden, out, 1.5)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    np.testing.assert_allclose(history.first[-1, seed], layers[0].synapse.weight.detach(), atol=1e-8)
    np.testing.assert_allclose(history.second[-1, seed], layers[1].synapse.weight.detach(), atol=1e-8)
    assert np.abs(history.first[-1] - history.first[0]).max() > 0.1


def test_training_on_a_grid_learns_and_shares_nothing():
    many = xor.train_on_grid(3, 40)
    alone = xor.train_on_grid(1, 40)
    np.testing.assert_allclose(many.loss[:, :1], alone.loss, atol=1e-8)
    assert many.loss[-1].mean() < 0.6 * many.loss[0].mean()
    assert xor.train_on_grid(3, 40, width=1.0).loss[-1].mean() > many.loss[-1].mean()


def test_on_a_fine_grid_spikes_come_when_they_should():
    first, second = (nn.Linear(n, m, bias=False, dtype=torch.float64) for n, m in ((2, 4), (4, 2)))
    W, V = xor.start(3)
    with torch.no_grad():
        first.weight.copy_(W)
        second.weight.copy_(V)
    net, x = training._grid(first, second, 0.1e-3)
    with torch.no_grad():
        hidden, _ = net(x, recipe())
    found = training.respond(W.numpy(), V.numpy()).hidden
    on_grid = 0.1e-3 * numbers.first_spike_steps(hidden.s).numpy()
    early = found < 25e-3
    assert early.sum() >= 8
    np.testing.assert_allclose(on_grid[early], found[early], atol=0.3e-3)
    assert xor.grid_objective(first, second, 1e-3).requires_grad


def recipe():
    from snnlearn import Rule

    return Rule(FastSigmoid(width=0.1))


def test_solved_means_the_right_output_first_for_all_patterns(histories):
    for history in histories.values():
        for seed in range(4):
            out = training.respond(history.first[-1, seed], history.second[-1, seed]).out
            right = all(
                (t[y] < t[1 - y]) and math.isfinite(t[y]) for t, y in zip(out, xor.LABELS.tolist(), strict=True)
            )
            assert right == history.solved[-1, seed]
    assert histories["with"].solved[-1].any()
    assert not histories["with"].solved[0].all()


def test_answers():
    inf = math.inf
    out = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [inf, inf], [inf, 3.0]])
    assert training.answers(out).tolist() == [0, 1, -1, -1, 1]


def test_late_late_is_early_early_ten_milliseconds_later(histories):
    history = histories["with"]
    found = training.respond(history.first[-1, 1], history.second[-1, 1])
    for times in found:
        np.testing.assert_allclose(times[3], times[0] + 10e-3, rtol=1e-9)
    assert np.isfinite(found.out).any()


@pytest.mark.parametrize(
    ("out", "wanted", "text"),
    [
        ([5.0, 7.5], 0, "“same” fires first, 2.5 ms ahead ✔"),
        ([5.0, 7.5], 1, "“same” fires first, 2.5 ms ahead ✘"),
        ([math.inf, 7.5], 1, "“different” fires first, alone ✔"),
        ([math.inf, math.inf], 1, "no output spike ✘ (wanted: different)"),
        ([5.0, 5.0], 0, "“same” fires first, 0.0 ms ahead ✘"),
    ],
)
def test_verdict(out, wanted, text):
    assert xor.verdict(np.array(out), wanted) == text


def test_losses_are_drawn_for_every_seed(histories):
    axes = Figure().subplots(1, 2)
    xor.draw_losses(axes, histories)
    for ax, (name, history) in zip(axes, histories.items(), strict=True):
        styles = [line.get_linestyle() for line in ax.lines[:4]]
        assert styles.count("-") == history.solved[-1].sum()
        assert ax.get_title(loc="left") == f"{name}: {history.solved[-1].sum()} of 4 solved"


# The panels.

PANELS = {"causal": lesson.causal_panel, "story": lesson.story_panel, "birth": lesson.birth_panel}


@pytest.fixture(params=[*PANELS, "xor"])
def panel(request, histories):
    return xor.xor_panel(histories) if request.param == "xor" else PANELS[request.param]()


@pytest.mark.filterwarnings("error")
def test_every_control_changes_the_picture_and_returning_restores_it(panel):
    check_controls(panel)


@pytest.mark.filterwarnings("error")
def test_extremes_of_all_controls(panel):
    check_extremes(panel)


def test_causal_panel_shows_which_inputs_count():
    panel = lesson.causal_panel()
    panel.set(w1=1.5, w2=-1.0, t2=8.0)
    assert panel._artists["causal"].get_xdata().tolist() == [0]
    assert sorted(panel._artists["others"].get_xdata().tolist()) == [6, 8]
    assert "5.49 ms" in panel._text
    panel.set(t2=5.0)
    assert len(panel._artists["spike"].get_xdata()) == 0
    assert "never reaches" in panel._text


def test_z_picture_crosses_where_the_membrane_does():
    panel = lesson.causal_panel()
    (z,), (height,) = panel._artists["crossing"].get_data()
    x, y = panel._artists["zU"].get_data()
    assert np.interp(z, x, y) == pytest.approx(height)
    assert numbers.TAU_SYN * math.log(z) == pytest.approx(panel._artists["spike"].get_xdata()[0])


def test_birth_panel_shows_silence_and_spike():
    panel = lesson.birth_panel()
    panel.set(w=1.4)
    assert "silent" in panel.axes[0].texts[0].get_text()
    panel.set(w=1.45)
    assert "first spike at 33." in panel.axes[0].texts[0].get_text()


def test_ladder():
    assert [lesson.ladder(x, (1, 2, 5)) for x in (0, 1, 1.5, 9)] == [1, 1, 2, 5]


def test_show_displays_with_a_text_alternative_and_closes(monkeypatch):
    check_show(lesson.show, monkeypatch)


# The exercises.

EXERCISES = {"time": lesson.time_exercise, "set": lesson.set_exercise, "jump": lesson.jump_exercise}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise)


def _strong(w, t, theta):
    return next((n for n in range(1, len(w) + 1) if w[:n].sum() > theta), 0)


def _early(w, t, theta):
    z = torch.exp(t)
    for n in range(1, len(w) + 1):
        following = z[n] if n < len(w) else math.inf
        if (w[:n] * z[:n]).sum() / (w[:n].sum() - theta) <= following:
            return n
    return 0


SLIPS = {
    "time": {
        "its logarithm": lambda w, t, theta: torch.exp(lesson.time_exercise.solution(w, t, theta)),
        "missing below": lambda w, t, theta: ((w * t.exp()).sum() / w.sum()).log(),
        "must exceed": lambda w, t, theta: ((w * t.exp()).sum() / (w.sum() + theta)).log(),
        "not above": lambda w, t, theta: (((w * t.exp()).sum() - theta) / w.sum()).log(),
        "Average z": lambda w, t, theta: (w * t).sum() / (w.sum() - theta),
    },
    "set": {
        "Counted from 0": lambda w, t, theta: lesson.set_exercise.solution(w, t, theta) - 1,
        "not enough": _strong,
        "no crossing": _early,
        "after the spike": lambda w, t, theta: len(w),
    },
    "jump": {
        "jump alone": lambda lV, error, current, theta: (theta * lV + error) / (current - theta),
        "through the reset": lambda lV, error, current, theta: lV + error / (current - theta),
        "not with I": lambda lV, error, current, theta: lV + (theta * lV + error) / current,
        "Divide by": lambda lV, error, current, theta: lV + (theta * lV + error) * (current - theta),
        "The sign": lambda lV, error, current, theta: lV - (theta * lV + error) / (current - theta),
        "not 1": lambda lV, error, current, theta: lV + (lV + error) / (current - theta),
    },
}


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_references_against_the_tutorials_own_numbers():
    w, t = torch.tensor([0.8, 0.7, 0.5]), torch.tensor([1.0, 2.0, 4.0]).log()
    assert lesson.time_exercise.solution(w, t, 1.0).item() == pytest.approx(math.log(4.2))
    assert lesson.set_exercise.solution(w, t, 1.0) == 3
    told = numbers.story(*CASE)
    last = next(m for m in told.moments if m.kind == "out")
    assert lesson.jump_exercise.solution(0.0, told.errors[1], told.current[1], 1.0) == pytest.approx(last.lV)
