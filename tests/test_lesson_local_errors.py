"""Tutorial 11: quick training and the watched synapse against the library, the stream, the panels, the exercises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_slip
from torch import nn

from snnlearn import (
    Analog,
    FastSigmoid,
    Layer,
    LocalErrors,
    Network,
    Neuron,
    Rule,
    Threshold,
    Transpose,
    Unrolled,
    datasets,
    losses,
    no_reset,
)
from snnlearn.lessons import local_errors as lesson
from snnlearn.lessons import local_errors_learning as learning
from snnlearn.lessons import local_errors_numbers as numbers
from snnlearn.lessons import local_errors_stream as stream
from snnlearn.lessons import local_errors_training as training
from snnlearn.network import decolle_layer
from snnlearn.temporal import Eligibility

F64 = torch.float64
CROSS_ENTROPY = losses.OverTime(losses.cross_entropy, mean=True)


def linear(W, b=None):
    layer = nn.Linear(W.shape[1], W.shape[0], bias=b is not None, dtype=F64)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(W))
        if b is not None:
            layer.bias.copy_(b.flatten())
    return layer


# By hand.


def test_by_hand_is_the_library_s():
    P, W, G, y = numbers.by_hand()
    neuron = Neuron(0.0, 0.0, 0.0, no_reset, Threshold(strict=True))
    net = Network(*(Layer(linear(w), neuron) for w in W))
    rule = Rule(FastSigmoid.from_steepness(numbers.STEEP_BY_HAND), Unrolled(), LocalErrors([linear(g) for g in G]))
    x, target = torch.tensor(P).reshape(1, 1, 2), torch.tensor(y).reshape(1, 1, 2)
    found = list(rule.gradients(net, x, target, losses.OverTime(losses.half_square))[1].values())
    np.testing.assert_allclose(found[0], [[0.25, 0.125], [-0.44, -0.22]], rtol=1e-12)  # 2.75 * 0.16 = 0.44
    np.testing.assert_allclose(found[1], [[1 / 9, 0], [0.125, 0]], rtol=1e-12)


# One synapse in time.


@pytest.mark.parametrize("rate", [0.0, 2.0])
def test_watched_layer_is_the_library_s(rate):
    """Traces, membranes and weights, step by step, while the weights change."""
    settings = {"size": 15.0, "weight_ref": 1.5, "steep": 4.0, "tau_mem": 12.0, "certain": 3.0}
    case, (x, W, G) = numbers.synapse(**settings, rate=rate), numbers.drawn()
    times = {"tau_mem": 12e-3, "tau_syn": numbers.TAU_SYN * 1e-3, "tau_ref": numbers.TAU_REF * 1e-3}
    net = Network(decolle_layer(linear(15 * W), weight_ref=1.5, **times))
    rule = Rule(FastSigmoid.from_steepness(4.0), Eligibility(adaptation=False), LocalErrors([linear(3 * G)]))
    learner = rule.online(net, torch.optim.SGD(net.parameters(), lr=rate), CROSS_ENTROPY)
    for n in range(numbers.SPAN):
        learner.step(torch.tensor(x[n : n + 1]), torch.tensor([int(n >= numbers.CHANGE)]))
        layer = learner.state.carry.layers[0]
        assert layer.state.U[0, 0].item() == pytest.approx(case.U[n], abs=1e-12)
        assert layer.state.s[0, 0].item() == case.s[n]
        assert layer.traces.q[0, 0].item() == pytest.approx(case.P[n], abs=1e-12)
        assert net.layers[0].synapse.weight[0, 0].item() == pytest.approx(case.w[n], abs=1e-12)
    assert 20 < case.s.sum() < 100
    assert (np.ptp(case.w) > 0.1) == (rate > 0)


def test_what_the_notebook_says_of_the_synapse():
    held = numbers.synapse()
    deep = numbers.synapse(weight_ref=4.0)
    np.testing.assert_array_equal(held.P, deep.P)
    assert deep.R.min() < held.R.min() - 1
    assert (deep.s != held.s).any()
    assert (deep.e != held.e).any()
    half = numbers.CHANGE
    assert held.e[:half].mean() > 0.5 > 0 > held.e[half:].mean()
    assert held.e[half - 1] > 0 > held.e[half]
    assert np.abs(np.diff(held.P))[half - 1] < 0.01
    halves = [(c.s[:half].sum(), c.s[half:].sum()) for c in (held, *(numbers.synapse(rate=r) for r in (1.0, 5.0)))]
    assert [first for first, _ in halves] == [21, 11, 2]
    assert min(second for _, second in halves) > 0.9 * half
    silent, wakes = numbers.synapse(size=0.0), numbers.synapse(size=0.0, rate=1.0)
    assert silent.s.sum() == 0
    assert (silent.f == 1).all()
    assert wakes.s[:half].sum() == 0
    assert wakes.s[half:].sum() > 10


# The quick training.


def small(seeds=(0,)):
    return training.draw_weights(seeds, sizes=(20, 14, 9), dtype=F64)


@pytest.fixture(scope="module")
def images():
    P, y, *_ = training.digits()
    x = training.encode(datasets.digits().train.x[:16]).double()
    torch.testing.assert_close(training.traces(x), P[:, :16].double(), rtol=1e-4, atol=1e-6)
    return x, training.traces(x), y[:16]


def library(weights, run=0):
    times = {f"tau_{k}": v * 1e-3 for k, v in zip(("mem", "syn", "ref"), (20.0, 5.0, 2.0), strict=True)}
    layers = [
        decolle_layer(linear(W[run], b[run]), **times, dt=training.DT * 1e-3)
        for W, b in zip(weights.W, weights.b, strict=True)
    ]
    return layers, [linear(G[run]) for G in weights.G]


@pytest.mark.parametrize("kind", ["cross-entropy", "smooth L1"])
def test_gradient_of_fit_is_the_library_s(images, kind):
    x, P, y = images
    weights = small()
    for b in weights.b:
        b += 0.05 * torch.randn(b.shape, dtype=F64, generator=torch.Generator().manual_seed(9))
    layers, critics = library(weights)
    patterns = torch.eye(10, dtype=F64).expand(len(x), 10, 10)
    loss = CROSS_ENTROPY if kind == "cross-entropy" else losses.OverTime(losses.smooth_l1, mean=True, patterns=patterns)
    rule = Rule(
        FastSigmoid.from_steepness(training.STEEP), Eligibility(adaptation=False), LocalErrors(critics, trained=True)
    )
    wanted = rule.gradients(Network(*layers), x, y, loss)[1]
    found = training.gradients(weights, P, y, loss=kind)
    for i in range(3):
        for part, name in (
            (found.W, f"layers.{i}.synapse.weight"),
            (found.b, f"layers.{i}.synapse.bias"),
            (found.G, f"spatial.readouts.{i}.weight"),
        ):
            assert wanted[name].abs().max() > 1e-6
            torch.testing.assert_close(part[i].reshape(wanted[name].shape), wanted[name], rtol=1e-9, atol=1e-12)
    other = training.gradients(weights, P, y, loss=kind, steep=2 * training.STEEP)
    assert not torch.allclose(other.W[1], found.W[1], rtol=0.05)


def test_backprop_is_the_library_s(images):
    x, P, y = images
    weights = small()
    layers, critics = library(weights)
    net = Network(*layers, Layer(critics[-1], Neuron(0.0, 0.0, 1.0, no_reset, Analog())))
    rule = Rule(FastSigmoid.from_steepness(training.STEEP), Unrolled(), Transpose())
    value, wanted = rule.gradients(net, x, y, CROSS_ENTROPY)
    trained = [p.requires_grad_() for p in (*weights.W, weights.G[-1])]
    found, _ = training.backprop(weights, P, y)
    assert found.item() == pytest.approx(value.item(), rel=1e-10)
    names = [f"layers.{i}.synapse.weight" for i in range(4)]
    for g, name in zip(torch.autograd.grad(found, trained), names, strict=True):
        torch.testing.assert_close(g[0], wanted[name], rtol=1e-8, atol=1e-11)
        assert g.abs().max() > 1e-6


def test_runs_side_by_side_do_not_touch_each_other(images):
    _, P, y = images
    both, alone = training.gradients(small((3, 5)), P, y), training.gradients(small((5,)), P, y)
    for pair in zip(both[:3], alone[:3], strict=True):
        for many, one in zip(*pair, strict=True):
            torch.testing.assert_close(many[1:], one, rtol=1e-10, atol=1e-14)
    assert not torch.allclose(both.W[0][0], both.W[0][1])


def test_training_moves_what_it_should():
    start = training.draw_weights([0])
    kept = lesson.fit([0], epochs=1, watch=False)
    learned = lesson.fit([0], epochs=1, readouts=True, watch=False)
    assert kept.accuracy.shape == (2, 3, 1)
    for i in range(3):
        assert torch.equal(kept.weights.G[i], start.G[i])
        assert not torch.equal(learned.weights.G[i], start.G[i])
        assert not torch.equal(kept.weights.W[i], start.W[i])
        assert not torch.equal(kept.weights.b[i], start.b[i])


@pytest.fixture(scope="module")
def history():
    return lesson.fit()


def percent(accuracy):
    return 100 * accuracy.mean(1)


def test_what_the_notebook_says_of_local_errors(history):
    assert (percent(history.accuracy[0]) < 30).all()
    np.testing.assert_allclose(percent(history.accuracy[-1]), [91, 93, 91], atol=2)
    untrained = lesson.fit_readouts()
    np.testing.assert_allclose(percent(untrained), [84, 76, 63], atol=3)
    assert untrained[2].max() < 0.7
    assert (history.accuracy[-1].min(1) > untrained.max(1)).all()
    first, second, third = history.accuracy[-1].mean(1)
    assert second > max(first, third)
    early = history.accuracy[1].mean(1)
    assert (np.diff(early) < -0.1).all()  # the lowest understands first


def test_what_the_notebook_says_of_the_relatives():
    seeds = range(2)
    learned = percent(lesson.fit(seeds, readouts=True, watch=False).accuracy[-1])
    np.testing.assert_allclose(learned, [93, 95, 95], atol=2)
    slow = percent(lesson.fit(seeds, code="slow", watch=False).accuracy[-1])
    np.testing.assert_allclose(slow, [92, 93, 93], atol=2)
    assert slow[1] - slow[0] < 1.2
    steady = percent(lesson.fit(seeds, code="steady", rate=0.02, watch=False).accuracy[-1])
    assert 95 > steady[0] > steady[2] > 88
    smooth = percent(lesson.fit(seeds, loss="smooth L1", certain=1.0, watch=False).accuracy[-1])
    assert 91 > smooth[0] > smooth[1] > smooth[2]
    backprop = percent(lesson.fit_backprop(seeds))
    assert backprop[0] < 30
    assert backprop[-1] == pytest.approx(95, abs=2)


def test_a_slow_first_layer_is_a_leak_with_another_time_constant():
    usual, slow = (training.digits(code)[0] for code in ("latency", "slow"))
    assert torch.equal(training.digits("steady")[0][0], training.digits("steady")[0][-1])
    x = training.encode(datasets.digits().train.x[:3])
    alpha, beta = np.exp(-training.DT / training.SLOW), np.exp(-training.DT / training.TAU_SYN)
    P = Q = torch.zeros_like(x[0])
    for n in range(training.STEPS):
        P, Q = alpha * P + (1 - alpha) * Q, beta * Q + (1 - beta) * x[n]
        torch.testing.assert_close(slow[n, :3], P * training.SLOW / training.TAU_MEM, rtol=1e-4, atol=1e-6)
    assert (usual[-1] / slow[-1].clamp(min=1e-6)).median() < 0.8


def test_the_first_layer_forgets_within_an_image(history):
    alone = lesson.over_time(history.weights)
    _, _, P, y = training.digits()
    scores, _ = training.critics(history.weights, P)
    np.testing.assert_allclose(alone[1, 3, 7], (scores[1][3, 7].argmax(-1) == y).double().mean())
    assert alone[0, :, -1].max() < 0.6 < 0.85 < alone[1:, :, -1].mean(1).min()
    assert alone[0].max() < alone[1:].max(2).min()


# The stream.


@pytest.fixture(scope="module")
def life():
    return lesson.live(lesson.learner(), lesson.shown())


def test_what_the_notebook_says_of_the_stream(life):
    recent = lesson.running(life.right)
    before, after, end = recent[life.swap - 1], recent[life.swap : life.swap + 30].min(0), recent[-1]
    assert (before > (0.65, 0.55)).all()
    assert after.max() < 0.3
    assert (end > (0.6, 0.35)).all()
    np.testing.assert_allclose(recent[49], [0.6, 0.35], atol=0.12)
    assert len(set(life.bytes.values())) == 1
    assert max(life.bytes) == 2000


def test_a_stream_has_new_names_after_the_swap():
    data = list(lesson.shown(4, swap=2))
    for k, now in enumerate(data):
        digit = now.digit if k < 2 else (now.digit + stream.SHIFT) % 10
        assert now.name[stream.TOLD] == digit
        assert (now.told[: stream.TOLD] == now.name[: stream.TOLD]).all()
        assert (now.told[stream.TOLD :] == -1).all()
        assert now.x.shape == (stream.HOLD, stream.STREAMS, 128)
    again = list(lesson.shown(4, swap=4))
    assert torch.equal(again[3].x, data[3].x)
    assert (again[3].name != data[3].name).all()


def test_what_is_not_told_is_not_learned():
    now = next(lesson.shown())
    learners = [lesson.learner() for _ in range(3)]
    for i, learner in enumerate(learners):
        for x in now.x:
            x = x.clone()
            x[stream.TOLD :] *= float(i != 1)  # other images in the streams that are not told
            learner.step(x, now.told if i < 2 else torch.full_like(now.told, -1))
    W = [learner.net.layers[1].synapse.weight for learner in learners]
    torch.testing.assert_close(W[0], W[1], rtol=1e-5, atol=1e-6)
    start = lesson.learner().net.layers[1].synapse.weight
    assert torch.equal(W[2], start)
    assert (W[0] - start).abs().max() > 1e-3


def test_critics_are_read_from_the_state():
    learner, now = lesson.learner(), next(lesson.shown())
    output = learner.step(now.x[3], now.told).output
    lower, upper = lesson.critics(learner)
    assert torch.equal(upper, output)
    s = learner.state.carry.layers[0].state.s
    torch.testing.assert_close(lower, learner.rule.spatial.readouts[0](s))


def test_bytes_and_running_means():
    x = torch.zeros(10, 4, dtype=F64)
    assert lesson.remembered(({"a": x}, [x[2:3], (torch.zeros(3, dtype=torch.float32), None, 5)])) == 320 + 12
    right = np.array([[1.0, 0], [0, 0], [1, 1], [1, 1]])
    np.testing.assert_allclose(lesson.running(right, over=2), [[1, 0], [0.5, 0], [0.5, 0.5], [1, 1]])


# The panels.


@pytest.fixture(params=["synapse", "critics", "stream"])
def panel(request, history, life):
    made = {
        "synapse": lesson.synapse_panel,
        "critics": lambda: lesson.critics_panel(history),
        "stream": lambda: lesson.stream_panel(life),
    }
    return made[request.param]()


@pytest.mark.filterwarnings("error")
def test_every_control_changes_the_picture_and_returning_restores_it(panel):
    check_controls(panel)


@pytest.mark.filterwarnings("error")
def test_extremes_of_all_controls(panel):
    check_extremes(panel)


def test_play_shows_only_what_has_happened(life):
    panel = lesson.synapse_panel()
    panel.set(step=30)
    assert max(len(line.get_xdata()) for line in panel.axes[1].lines) == 31
    panel = lesson.stream_panel(life)
    panel.set(digit=17)
    assert len(panel.axes[0].lines[2].get_xdata()) == 17


def test_critics_panel_shows_the_epoch(history):
    panel = lesson.critics_panel(history)
    panel.set(epoch=3, layer=1)
    shown = panel.axes[1].images[0].get_array()
    y = training.digits()[3].numpy()
    right = [(history.answers[3, 1][y == c] == c).mean() for c in range(10)]
    np.testing.assert_allclose(np.diag(shown), right)
    np.testing.assert_allclose(shown.sum(1), 1)


def test_figures(history):
    ax = Figure().subplots()
    lesson.draw_accuracies(ax, {"some": history.accuracy[-1], "top": history.accuracy[-1][2:]}, tops=("top",))
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 100 * history.accuracy[-1][1])
    assert ax.lines[2].get_color() == ax.lines[3].get_color()
    ax = Figure().subplots()
    alone = lesson.over_time(history.weights)
    lesson.draw_over_time(ax, alone)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * alone[0].mean(0))
    found = learning.confusion(np.array([1, *range(1, 10), 0, 0]), np.array([*range(10), 0, 1]))
    np.testing.assert_allclose(found[:2, :2], [[0.5, 0.5], [0.5, 0.5]])
    assert (np.diag(found)[2:] == 1).all()


# The exercises.

EXERCISES = {
    "trace": lesson.trace_exercise,
    "error": lesson.error_exercise,
    "reached": lesson.reached_exercise,
}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise)


def error(G, s, U, y, k, of=None):
    return (G.T @ (G @ (s if of is None else of) - y)) / (1 + k * U.abs()) ** 2


SLIPS = {
    "trace": {
        "update P first": lambda P, Q, x, a, b: (a * P + (1 - a) * (b * Q + (1 - b) * x), b * Q + (1 - b) * x),
        "are missing": lambda P, Q, x, a, b: (a * P + Q, b * Q + x),
        "not the spikes": lambda P, Q, x, a, b: (a * P + (1 - a) * x, b * Q + (1 - b) * x),
        "other way round": lambda P, Q, x, a, b: (b * P + (1 - b) * Q, a * Q + (1 - a) * x),
        "then Q": lambda P, Q, x, a, b: (b * Q + (1 - b) * x, a * P + (1 - a) * Q),
    },
    "error": {
        "sign is turned": lambda *args: -error(*args),
        "slope is missing": lambda G, s, U, y, k: G.T @ (G @ s - y),
        "target is missing": lambda G, s, U, y, k: error(G, s, U, 0 * y, k),
        "silent layers": lambda G, s, U, y, k: error(G, s, U, y, k, of=0 * s),
        "not the membranes": lambda G, s, U, y, k: error(G, s, U, y, k, of=U),
        "do not multiply by s": lambda G, s, U, y, k: s * error(G, s, U, y, k),
        "abs(U)": lambda G, s, U, y, k: (G.T @ (G @ s - y)) / (1 + k * U) ** 2,
    },
    "reached": {
        "layers above": lambda local, critic, layers: (torch.arange(layers) >= critic).double(),
        "are not told": lambda local, critic, layers: (torch.arange(layers) <= critic).double(),
        "all the layers below": lambda local, critic, layers: (torch.arange(layers) == critic).double(),
        "layer of the critic itself": lambda local, critic, layers: (torch.arange(layers) < critic).double(),
        "Not everybody": lambda local, critic, layers: torch.ones(layers),
    },
}


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_references_are_the_library_s():
    x = torch.rand(9, 1, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    layer = decolle_layer(linear(np.eye(3)), dt=1e-3, weight_ref=0.0)
    U = layer.run(0, [x], Rule())[0].U
    P = Q = torch.zeros(3, dtype=F64)
    for n in range(9):
        P, Q = lesson.trace_exercise.solution(P, Q, x[n, 0], np.exp(-1 / 20), np.exp(-1 / 5))
        torch.testing.assert_close(U[n, 0].detach(), P)
    for local, spatial in ((True, None), (False, Transpose())):
        np.testing.assert_array_equal(changed(spatial), lesson.reached_exercise.solution(local, 2, 3))


def changed(spatial):
    """Which of three layers' weights the top critic's loss changes."""
    g = torch.Generator().manual_seed(1)
    net = Network(*(decolle_layer(linear(4 * torch.randn(5, 5, dtype=F64, generator=g))) for _ in range(3)))
    local = LocalErrors.random(net, g, classes=3)
    with torch.no_grad():
        for critic in local.readouts[:-1]:
            critic.weight.zero_()
    rule = Rule(FastSigmoid.from_steepness(3.0), Unrolled(), local)
    if spatial is not None:
        net = Network(*net.layers, Layer(local.readouts[-1], Neuron(0.0, 0.0, 1.0, no_reset, Analog())))
        rule = replace(rule, spatial=spatial)
    x = (torch.rand(30, 4, 5, dtype=F64, generator=g) < 0.4).double()
    found = rule.gradients(net, x, torch.tensor([0, 1, 2, 0]), CROSS_ENTROPY)[1]
    return [float(found[f"layers.{i}.synapse.weight"].abs().max() > 0) for i in range(3)]
