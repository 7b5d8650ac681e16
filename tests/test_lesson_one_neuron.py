import math

import numpy as np
import pytest
import torch
from panels import check_controls, check_exercise, check_extremes, check_slip

import snnlearn as snn
from snnlearn.lessons import one_neuron as lesson
from snnlearn.lessons import one_neuron_theory as theory

PANELS = {"dynamics": lesson.dynamics_panel, "rate": lesson.rate_panel, "graph": lesson.graph_panel}
SLOW, FAST = 20e-3, 5e-3


# Closed forms.


def test_charging_solves_the_membrane_equation():
    t, h = np.linspace(1e-3, 0.1, 50), 1e-6
    slope = (theory.charging(t + h, 1.5, SLOW) - theory.charging(t - h, 1.5, SLOW)) / (2 * h)
    assert theory.charging(0, 1.5, SLOW) == 0
    np.testing.assert_allclose(SLOW * slope, 1.5 - theory.charging(t, 1.5, SLOW), rtol=1e-6)


@pytest.mark.parametrize(("tau_mem", "tau_syn"), [(SLOW, FAST), (FAST, SLOW), (7e-3, 6e-3)])
def test_peak_time_is_where_the_library_s_psp_is_largest(tau_mem, tau_syn):
    dt = 1e-5
    neuron = snn.cuba_lif(tau_mem=tau_mem, tau_syn=tau_syn, dt=dt, theta=1e9)
    a = torch.zeros(6000, 1, 1, dtype=torch.float64)
    a[1] = 1.0  # so that U at step n belongs to the time n * dt: delay=1
    peak = neuron.simulate(a).U.argmax().item() * dt
    assert abs(peak - theory.peak_time(tau_mem, tau_syn)) <= dt


# Rates.


def test_rate_is_the_inverse_of_the_time_to_threshold():
    for I in (1.05, 2.0, 7.0):
        assert math.isclose(float(theory.charging(1 / theory.rate(I, SLOW, 1.0), I, SLOW)), 1.0, rel_tol=1e-9)
    assert theory.rate([0.0, 0.5, 1.0], SLOW, 1.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("theta", [0.5, 1.0, 1.7])
def test_reset_to_zero_fires_every_k_steps(theta):
    beta = math.exp(-1 / 20)
    i = np.linspace(1.013, 5, 37) * theta * (1 - beta)
    S = theory.constant_drive(i, beta, theta, snn.to_zero, 2000).S
    k = [theory.steps_between_spikes(x, beta, theta) for x in i]
    np.testing.assert_allclose(theory.measured_rate(S, 1e-3), 1e3 / np.array(k), rtol=1e-12)
    assert theory.steps_between_spikes(theta * (1 - beta) * 0.999, beta, theta) == math.inf
    assert theory.steps_between_spikes(0.0, beta, theta) == math.inf
    assert theory.steps_between_spikes(theta, beta, theta) == 1


def test_subtraction_obeys_the_balance_of_currents():
    beta, theta, steps = 0.9, 1.3, 20_000
    i = np.array([0.15, 0.3, 0.6])
    drive = theory.constant_drive(i, beta, theta, snn.subtract, steps)
    np.testing.assert_allclose(drive.S.mean(0), (i - (1 - beta) * drive.U.mean(0)) / theta, atol=3 / steps)


def test_rates_approach_continuous_time_as_dt_shrinks():
    for reset in lesson.RATE_RESETS:
        far, near = (np.abs(r.measured[19:-1] - r.continuous[19:]).mean() for r in _rates_at(reset, 2.0, 0.5))
        assert near < 0.4 * far


def _rates_at(reset, *dts):
    return [lesson.rates(20.0, 1.0, dt, 2.0, reset) for dt in dts]


@pytest.mark.parametrize("reset", [snn.subtract, snn.subtract_decayed, snn.to_zero])
def test_constant_drive_is_the_library_s_neuron(reset):
    i = np.array([0.02, 0.07, 0.3])
    drive = theory.constant_drive(i, 0.95, 1.2, reset, 300)
    a = torch.from_numpy(i).expand(300, 1, 3)
    trace = snn.Neuron(beta=0.95, theta=1.2, reset=reset).simulate(a)
    np.testing.assert_array_equal(drive.S, trace.s[:, 0])
    np.testing.assert_allclose(drive.U, trace.U[:, 0], rtol=0, atol=1e-12)


def test_measured_rate_needs_two_spikes():
    S = np.zeros((10, 3))
    S[4, 1] = S[2, 2] = S[8, 2] = 1
    np.testing.assert_allclose(theory.measured_rate(S, 1e-3), [0, 0, 1 / 6e-3])


# The four inputs.


@pytest.mark.parametrize("decay", [snn.exp_decay, snn.euler_decay])
@pytest.mark.parametrize("reset", theory.RESETS)
def test_dynamics_are_the_library_s_layer_two_steps_late(reset, decay):
    inputs = theory.input_spikes()
    run = theory.dynamics(inputs, weight=0.17, theta=0.9, reset=theory.RESETS[reset], decay=decay)
    synapse = torch.nn.Linear(4, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(synapse.weight, 0.17)
    neuron = snn.cuba_lif(theta=0.9, reset=theory.RESETS[reset], decay=decay)
    (trace,) = snn.Network(snn.Layer(synapse, neuron, delay=2))(torch.from_numpy(inputs)[:, None], snn.recipes.bptt())
    assert run.S.sum() > 5
    np.testing.assert_array_equal(run.S, trace.s.detach().flatten())
    np.testing.assert_allclose(run.U, trace.U.detach().flatten(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.I[:-1], trace.I.detach().flatten()[1:], rtol=0, atol=1e-12)


def test_inputs_are_alone_first_and_do_not_fire_the_neuron():
    inputs = theory.input_spikes()
    assert inputs.shape == (800, 4)
    assert set(np.unique(inputs)) == {0, 1}
    run = theory.dynamics(inputs, weight=0.1)
    assert run.S[:400].sum() == 0
    assert run.S.sum() == 6


def test_what_the_notebook_says_one_should_have_seen():
    def seen(**changed):
        run = theory.dynamics(theory.input_spikes(), **{"weight": 0.1, **changed})
        return int(run.S.sum()), round(float(run.U[:110].max()), 3), int(run.U[:110].argmax()) - 40

    assert seen() == (6, 0.356, 10)
    assert seen(weight=0.28)[1] == 0.998
    assert theory.dynamics(theory.input_spikes(), weight=0.29).S[40:60].sum() == 1
    assert (seen(tau_syn=20e-3)[0], round(seen(tau_syn=20e-3)[1], 2), seen(tau_syn=20e-3)[2]) == (46, 0.77, 21)
    assert seen(reset=snn.no_reset)[0] == 131
    assert seen(decay=snn.euler_decay)[:2] == (5, 0.331)
    far = {r: lesson.rates(20.0, 1.0, 2.0, 2.0, r) for r in lesson.RATE_RESETS}
    below = [round(float((f.continuous - f.measured[:-1])[11:].mean())) for f in far.values()]
    assert below == [10, 11, 4]
    assert round(lesson.rates(20.0, 1.0, 5.0, 4.0, "to zero").measured[-1]) == 100


# The graph.


def test_graph_has_the_delays_of_eqs_7_and_8():
    edges, nodes = theory.graph(5)
    reached = theory.reachable(theory.Node("S⁰", 0), edges)
    first = {row: min((node.step for node in reached if node.row == row), default=None) for row in theory.ROWS}
    assert first == {"S⁰": 0, "I¹": 1, "U¹": 2, "S¹": 2, "I²": 3}
    assert sum(node.row == "S⁰" for node in reached) == 1
    assert {e.start for e in edges} | {e.end for e in edges} <= set(nodes)


def test_graph_is_what_the_layers_do():
    """Change one input spike of a recurrent network: the numbers that change are the nodes that are reached."""
    torch.manual_seed(0)
    neuron = snn.Neuron(alpha=0.8, beta=0.9, theta=0.3)
    first = snn.Layer(torch.nn.Linear(1, 4, bias=False), neuron, torch.nn.Linear(4, 4, bias=False), delay=2, lag=2)
    second = snn.Layer(torch.nn.Linear(4, 4, bias=False), neuron, delay=2)
    x = torch.zeros(5, 1, 1)
    x[0] = 4.0
    below, above = snn.Network(first, second)(x, snn.recipes.bptt())
    arrived = {"I¹": below.I, "U¹": below.U, "S¹": below.s, "I²": above.I}
    edges, _ = theory.graph(5)
    reached = theory.reachable(theory.Node("S⁰", 0), edges)
    for row, values in arrived.items():
        late = int(row.startswith("I"))  # the library's I[n] is I[n-1] of Eq. 7
        start = min(node.step for node in reached if node.row == row) + late
        changed = values.detach().abs().sum((1, 2)) > 0
        assert changed[start], row
        assert not changed[:start].any(), row


# The panels.


@pytest.fixture(params=PANELS)
def panel(request):
    return PANELS[request.param]()


@pytest.mark.filterwarnings("error")
def test_every_control_moves_the_picture_and_back(panel):
    check_controls(panel)


@pytest.mark.filterwarnings("error")
def test_extremes_of_all_controls_are_drawn(panel):
    check_extremes(panel)


def test_the_cursor_divides_past_and_future():
    panel = lesson.dynamics_panel()
    panel.set(time=480)
    artists = panel._artists
    past, future = artists["U"].get_xdata(), artists["U to come"].get_xdata()
    assert past[0] == 0
    assert past[-1] == future[0] == 480
    assert future[-1] == 799
    run = theory.dynamics(theory.input_spikes(), weight=0.1)
    assert artists["S"].get_xdata().tolist() == [n for n in np.flatnonzero(run.S) if n <= 480]
    assert f"U = {run.U[480]:.3f}" in artists["numbers"].get_text()
    assert len(artists["inputs"].get_segments()) == theory.input_spikes().sum()


def test_text_alternatives_follow_the_values():
    values = {**lesson.dynamics_panel().values, "weight": 0.0}
    assert "0 output spikes." in lesson.describe_dynamics(**values)
    assert "6 output spikes at 447, 472" in lesson.describe_dynamics(**{**values, "weight": 0.1})
    values = lesson.rate_panel().values
    assert "formula gives 72 and the measurement 71" in lesson.describe_rates(**values)


def test_the_continuous_trace_is_reset_at_the_threshold():
    T = 1e3 / float(theory.rate(2.0, SLOW, 1.0))  # ms
    U = lesson.continuous_trace(np.array([0.999 * T, 1.001 * T, 2.5 * T]), 2.0, 20.0, 1.0)
    assert U[0] == pytest.approx(1, abs=2e-3)
    assert U[1] < 0.01
    assert U[2] == pytest.approx(float(theory.charging(T / 2, 2.0, 20.0)))
    assert lesson.continuous_trace(np.array([1e4]), 0.9, 20.0, 1.0) == pytest.approx(0.9)


# The exercises.

EXERCISES = {
    "step": lesson.step_exercise,
    "peak": lesson.peak_exercise,
    "rheobase": lesson.rheobase_exercise,
    "spacing": lesson.spacing_exercise,
}


@pytest.mark.parametrize("name", EXERCISES)
def test_reference_passes_stub_waits_and_one_percent_fails(name):
    check_exercise(EXERCISES[name], hints=(2, 3))


def _next(U, I, S, x, W, alpha, beta, theta):
    return alpha * I + W @ x


SLIPS = [
    (
        "step",
        lambda U, I, S, x, W, a, b, th: (b * U + _next(U, I, S, x, W, a, b, th) - th * S, a * I + W @ x),
        "I[n+1]",
    ),
    ("step", lambda U, I, S, x, W, a, b, th: (b * U + I, a * I + W @ x), "reset is missing"),
    ("step", lambda U, I, S, x, W, a, b, th: (b * U + I - S, a * I + W @ x), "subtracts theta"),
    ("step", lambda U, I, S, x, W, a, b, th: (a * U + I - th * S, b * I + W @ x), "exchanged"),
    ("step", lambda U, I, S, x, W, a, b, th: (a * I + W @ x, b * U + I - th * S), "order"),
    ("peak", lambda m, s: m * s / (m - s) * math.log(s / m), "sign"),
    ("peak", lambda m, s: math.log(m / s), "factor"),
    ("peak", lambda m, s: m * s / (m - s), "missing"),
    ("peak", lambda m, s: m * s / (m - s) * math.log10(m / s), "natural"),
    ("rheobase", lambda m, dt, th: th * dt / m, "Euler"),
    ("rheobase", lambda m, dt, th: th, "Eq. 4"),
    ("rheobase", lambda m, dt, th: 1 - math.exp(-dt / m), "theta is missing"),
    ("rheobase", lambda m, dt, th: th * math.exp(-dt / m), "1 - beta"),
    ("spacing", lambda i, b, th: math.log(1 - th * (1 - b) / i) / math.log(b), "round up"),
    ("spacing", lambda i, b, th: math.floor(math.log(1 - th * (1 - b) / i) / math.log(b)), "Rounded down"),
    ("spacing", lambda i, b, th: math.ceil(th / i), "without the leak"),
]


@pytest.mark.parametrize(("name", "wrong", "says"), SLIPS)
def test_slips_are_named(name, wrong, says):
    check_slip(EXERCISES[name], wrong, says)


def test_references_agree_with_the_simulations():
    for i, beta, theta in EXERCISES["spacing"].cases:
        assert theory.spacing(i, beta, theta) == theory.steps_between_spikes(i, beta, theta)
    for tau_mem, dt, theta in EXERCISES["rheobase"].cases:
        i = theory.rheobase(tau_mem, dt, theta)
        S = theory.constant_drive([0.999 * i, 1.001 * i], math.exp(-dt / tau_mem), theta, snn.subtract, 5000).S
        assert S[:, 0].sum() == 0
        assert S[:, 1].sum() > 0
    # One step of the reference, by the library: I is shifted by one step there.
    U, I, S, x, W, alpha, beta, theta = EXERCISES["step"].cases[0]
    U_next, I_next = theory.one_step(U, I, S, x, W, alpha, beta, theta)
    torch.testing.assert_close(snn.subtract(U, S, I, beta, theta), U_next)
    state = snn.Neuron(alpha, beta, theta).step(snn.State(I, U, S), W @ x)
    torch.testing.assert_close(state.I, I_next)
