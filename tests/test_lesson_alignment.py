"""Tutorial 10: the quick training against the library, identities, what the notebook says, panels, exercises."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_slip

from snnlearn import (
    Adjoint,
    DirectFeedback,
    FeedbackAlignment,
    Layer,
    Network,
    Neuron,
    PiecewiseLinear,
    Rule,
    Transpose,
)
from snnlearn.lessons import alignment as lesson
from snnlearn.lessons import alignment_numbers as numbers
from snnlearn.lessons import alignment_training as training
from snnlearn.lessons.alignment_training import Way
from snnlearn.neurons import Analog
from snnlearn.resets import no_reset

TAUGHT = [Way.TRANSPOSE, Way.RANDOM, Way.DIRECT, Way.SIGNS, Way.LEARNED]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The quick training against the library's rules.


@pytest.fixture(scope="module")
def small():
    weights = training.draw([3, 4], 3, hidden=12).to(torch.float64)
    x, y, *_ = training.digits()
    return weights, x[:20].double(), y[:20]


@pytest.mark.parametrize("way", TAUGHT, ids=lambda way: way.name.lower())
def test_gradients_are_the_library_s(small, way):
    weights, x, y = small
    found = training.gradients(way, weights, x, y)
    for run in range(2):
        rule = training.library_rule(way, weights, run)
        net = training.network(weights, run)
        value, grads = rule.gradients(net, x.expand(training.STEPS, -1, -1), y, training.LOSS)
        assert len(grads) == (7 if way is Way.LEARNED else 4)
        assert found.losses[run].item() == pytest.approx(value.item(), rel=1e-12)
        for layer in range(4):
            wanted = grads[f"layers.{layer}.synapse.weight"]
            assert wanted.abs().max() > 1e-6
            torch.testing.assert_close(found.W[layer][run], wanted, rtol=1e-9, atol=1e-12)


def test_the_ways_differ(small):
    weights, x, y = small
    first = [training.gradients(way, weights, x, y).W[0] for way in TAUGHT[:4]]
    for i, a in enumerate(first):
        for b in first[:i]:
            assert (a - b).abs().max() > 0.1 * b.abs().max()


def test_activity_is_the_library_s(small):
    weights, x, _ = small
    found = training.forward(weights.W, x)
    for run in range(2):
        traces = training.network(weights, run)(x.expand(training.STEPS, -1, -1), Rule())
        for layer in range(3):
            assert torch.equal(found.s[layer][run], traces[layer].s)
            assert 0.01 < traces[layer].s.mean() < 0.6
        torch.testing.assert_close(found.scores[run], training.LOSS.scores(traces[-1].s))


def test_readout_only_trains_the_readout_alone(small):
    weights, x, y = small
    found = training.gradients(Way.NONE, weights, x, y)
    assert found.W[:3] == [None] * 3
    assert found.errors == []
    torch.testing.assert_close(found.W[3], training.gradients(Way.TRANSPOSE, weights, x, y).W[3])


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_adam_is_torch_s(decay):
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.randn(3, 4, generator=generator))
    mine, m, v = w.detach().clone(), torch.zeros(3, 4), torch.zeros(3, 4)
    optimizer = torch.optim.AdamW([w], lr=0.03, weight_decay=decay)
    for k in range(1, 5):
        w.grad = torch.randn(3, 4, generator=generator)
        optimizer.step()
        mine.mul_(1 - 0.03 * decay).sub_(0.03 * training._adam(w.grad, m, v, k))
    torch.testing.assert_close(mine, w.detach(), rtol=1e-5, atol=1e-6)


def test_runs_side_by_side_do_not_touch_each_other():
    settings = {"epochs": 1, "hidden": 16}
    both = training.fit(Way.RANDOM, 2, seeds=(5, 6), **settings)
    alone = training.fit(Way.RANDOM, 2, seeds=(6,), **settings)
    np.testing.assert_allclose(both.moments[-1].weights[:, 1], alone.moments[-1].weights[:, 0], atol=0.5)
    assert abs(both.moments[-1].accuracy[1] - alone.moments[-1].accuracy[0]) < 0.1
    assert [m.epoch for m in both.moments] == [0, 1]
    assert [m.epoch for m in training.fit(Way.NONE, 1, seeds=(0,), looks=2, **settings).moments] == [0, 0.5, 1]


def test_rounding_does_not_move_a_training(monkeypatch):
    settings = {"seeds": (0, 1), "epochs": 4}
    found = training.fit(Way.LEARNED, 3, **settings).moments[-1]
    draw = training.draw

    def disturbed(*arguments, **keywords):
        weights = draw(*arguments, **keywords)
        generator = torch.Generator().manual_seed(9)
        for w in (*weights.W, *weights.G):
            w.mul_(1 + 1e-13 * torch.randn(w.shape, generator=generator, dtype=w.dtype))
        return weights

    monkeypatch.setattr(training, "draw", disturbed)
    again = training.fit(Way.LEARNED, 3, **settings).moments[-1]
    np.testing.assert_array_equal(found.accuracy, again.accuracy)
    np.testing.assert_allclose(found.errors, again.errors, atol=1e-6)
    assert (found.weights != again.weights).any()


def test_angle_is_the_exercise_s():
    a, b = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = [lesson.angle_exercise.solution(*pair) for pair in zip(a, b, strict=True)]
    torch.testing.assert_close(training.angle(a, b), torch.stack(wanted))
    assert numbers.degrees(a[0], b[0]) == pytest.approx(wanted[0].item())
    assert numbers.degrees([1, 0], [0, 2]) == 90
    assert training.angle(a, 0 * b).tolist() == [90] * 3


# The case by hand.


def hand_rule(spatial):
    return Rule(PiecewiseLinear(width=0.5), Adjoint(), spatial)


def hand_network():
    hidden = Neuron(numbers.ALPHA, numbers.BETA, numbers.THETA)
    top = Neuron(numbers.ALPHA, numbers.BETA, 1.0, no_reset, Analog())
    return Network(
        Layer(training.linear(hand_matrix(numbers.HAND_W1)), hidden),
        Layer(training.linear(hand_matrix(numbers.HAND_W2)), top),
    )


def half_squares(out, target):
    return 0.5 * (out - target).square().sum()


def hand_gradient(spatial):
    x, target = (hand_matrix(v)[:, None] for v in (numbers.HAND_X, numbers.HAND_TARGET))
    return hand_rule(spatial).gradients(hand_network(), x, target, half_squares)[1]["layers.0.synapse.weight"].numpy()


def hand_matrix(values):
    return torch.tensor(values, dtype=torch.float64)


def hand_spatial(name):
    G, H = hand_matrix(numbers.HAND_G), hand_matrix(numbers.HAND_H)
    return {
        "transpose": Transpose(),
        "alignment": FeedbackAlignment([training.linear(G)]),
        "direct": DirectFeedback([H]),
        "direct, behind the memory": DirectFeedback([H], through_readout=True),
    }[name]


def hand_error(name):
    case = lesson.by_hand()
    return {
        "transpose": case.kap @ np.array(numbers.HAND_W2),
        "alignment": case.kap @ np.array(numbers.HAND_G),
        "direct": case.wrong @ np.array(numbers.HAND_H),
        "direct, behind the memory": case.kap @ np.array(numbers.HAND_H),
    }[name]


@pytest.mark.parametrize("name", ["transpose", "alignment", "direct", "direct, behind the memory"])
def test_by_hand(name):
    found = numbers.first_gradient(hand_error(name))
    np.testing.assert_allclose(found, hand_gradient(hand_spatial(name)), atol=1e-12)
    assert np.abs(found).max() > 0.1


def test_numbers_of_the_case_by_hand():
    case = lesson.by_hand()
    np.testing.assert_array_equal(case.s, [[1, 0], [0, 1], [0, 0]])
    np.testing.assert_allclose(case.wrong, [[0, 0.5], [-1, 1.25], [-1, 0.625]])
    np.testing.assert_allclose(case.kap, [[-0.75, 1.28125], [-1.5, 1.5625], [-1, 0.625]])
    assert numbers.degrees(numbers.HAND_W2, numbers.HAND_G) == pytest.approx(90)


def test_feedback_that_is_the_weights_is_backpropagation():
    W2 = hand_matrix(numbers.HAND_W2)
    exact = hand_gradient(Transpose())
    np.testing.assert_allclose(hand_gradient(FeedbackAlignment([training.linear(W2)])), exact, atol=1e-13)
    np.testing.assert_allclose(hand_gradient(DirectFeedback([W2], through_readout=True)), exact, atol=1e-13)
    for other in (DirectFeedback([W2]), hand_spatial("alignment"), hand_spatial("direct, behind the memory")):
        assert np.abs(hand_gradient(other) - exact).max() > 0.1


# Feedback turned away from the weights.


def test_turned_feedback_has_the_angle_and_the_length():
    weights = training.draw([0], 2)
    found = numbers.turn(weights, numbers.PHI)
    for w, g in zip(found.W, found.G, strict=True):
        np.testing.assert_allclose(training.angle(w, g), numbers.PHI, atol=0.1)
        torch.testing.assert_close(w.flatten(1).norm(dim=1), g.flatten(1).norm(dim=1))


@pytest.mark.parametrize("depth", numbers.DEPTHS)
def test_what_the_notebook_says_of_turned_feedback(depth):
    found = numbers.turned(depth)
    at = {phi: i for i, phi in enumerate(numbers.PHI)}
    np.testing.assert_allclose(found.errors[0], 0, atol=0.1)
    assert found.slopes[0] == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(found.errors[:, -1], numbers.PHI, atol=6)  # right below the readout: about that of G
    for layer in range(depth - 1):  # further down the angles multiply like cosines
        wanted = np.degrees(np.arccos(np.cos(np.radians([30, 60])) ** (depth - layer)))
        np.testing.assert_allclose(found.errors[[at[30], at[60]], layer], wanted, atol=8)
    flipped = [180 if (depth - layer) % 2 else 0 for layer in range(depth)]
    np.testing.assert_allclose(found.errors[at[180]], flipped, atol=0.5)  # every second layer is right again
    before, after = found.losses[:, 0], found.losses[:, 1]
    assert (after < before - 0.02)[: at[40] + 1].all()  # a small step helps at 40 degrees and below
    if depth == 1:
        assert (after < before - 0.02)[: at[80] + 1].all()
        assert (after > before + 0.02)[at[100] :].all()


def test_random_matrices_stand_at_right_angles():
    mean, deviation = numbers.random_angle(4096)
    assert abs(mean - 90) < 0.1
    assert deviation == pytest.approx(math.degrees(1 / 64), rel=0.05)


# What the trainings come to: five seeds, ranges that do not overlap.


@pytest.fixture(scope="module")
def trained():
    torch.set_num_threads(1)
    ways = (Way.TRANSPOSE, Way.RANDOM, Way.DIRECT, Way.SIGNS)
    return {way: training.fit(way, 3) for way in ways}


def ends(found):
    return found.moments[-1].accuracy


def test_feedback_beats_the_untrained_hidden_layers(trained):
    baselines = [
        training.fit(Way.NONE, 3, decay=0.0, rate=5e-2),
        training.fit(Way.NONE, 3, decay=0.0, scale=7.0),
        training.fit(Way.NONE, 3),
    ]
    best = max(ends(found).max() for found in baselines)
    assert best > 0.7  # it is not a straw man
    for way, found in trained.items():
        assert ends(found).min() > best + 0.02, way
    assert ends(trained[Way.TRANSPOSE]).min() > ends(trained[Way.RANDOM]).max()


def test_the_angles_fall(trained):
    for way, found in trained.items():
        before, after = found.moments[0], found.moments[-1]
        if way in (Way.RANDOM, Way.DIRECT):
            assert (before.errors > 75).all()
            assert (after.errors < 72).all()
        if way is Way.RANDOM:  # every layer of every seed, by more than four standard deviations of random matrices
            assert (before.weights > 80).all()
            assert (after.weights[:-1] < 90 - 4 * 0.9).all()
            assert (after.weights[-1] < 75).all()
        if way in (Way.TRANSPOSE, Way.DIRECT):  # they do not use G, so nothing turns to it
            assert (np.abs(after.weights - 90) < 8).all()
    undecayed, aligned = (found.moments[-1] for found in (training.fit(Way.RANDOM, 3, decay=0.0), trained[Way.RANDOM]))
    assert (undecayed.weights > aligned.weights + 2).all()
    assert undecayed.errors.mean() > aligned.errors.mean() + 10
    assert undecayed.accuracy.mean() < aligned.accuracy.mean()
    signs = trained[Way.SIGNS]
    assert np.abs(signs.moments[0].weights - 50.5).max() < 4  # arccos(2 / pi)
    assert ends(signs).mean() > ends(trained[Way.RANDOM]).mean()


def test_kolen_pollack_differences_shrink_by_the_decay():
    W, G = [], []
    for way in (Way.LEARNED,):
        found = training.fit(way, 2, seeds=(0,), epochs=2, hidden=16)
        for moment in found.moments:
            W.append(moment.pairs[0, 0]), G.append(moment.pairs[0, 1])
    rates = [0.5 * 2e-2 * (1 + math.cos(math.pi * k / 40)) for k in range(40)]
    np.testing.assert_allclose(W[2] - G[2], np.prod([1 - r for r in rates]) * (W[0] - G[0]), atol=1e-4)
    assert np.abs(W[2] - W[0]).max() > 0.1
    assert (found.moments[-1].errors < 85).all()


def test_depth_costs_feedback_alignment_more_than_backpropagation(trained):
    exact = training.fit(Way.TRANSPOSE, 5, seeds=range(3), decay=0.0)
    aligned, direct = (training.fit(way, 5, seeds=range(3)) for way in (Way.RANDOM, Way.DIRECT))
    assert ends(exact).min() > 0.93
    assert ends(direct).max() < ends(exact).min() - 0.05
    assert ends(aligned).max() < ends(direct).min() - 0.05
    assert ends(aligned).max() < ends(trained[Way.RANDOM]).min() - 0.05
    lowest, *_ = aligned.moments[-1].errors.mean(1)
    assert lowest > trained[Way.RANDOM].moments[-1].errors[0].mean() + 5
    assert np.ptp(aligned.moments[-1].errors.mean(1)) < 8  # all layers are about as badly off
    for way, found, least in ((Way.RANDOM, aligned, 0.02), (Way.DIRECT, direct, 0.03)):
        gentle = training.fit(way, 5, seeds=range(3), decay=0.3)
        assert ends(gentle).mean() > ends(found).mean() + least


# The panels.


@pytest.fixture(scope="module")
def fits():
    torch.set_num_threads(1)
    settings = {"seeds": (0, 1), "hidden": 16}
    shown = {name: training.fit(way, 3, epochs=2, looks=2, **settings) for name, way in
             (("random", Way.RANDOM), ("signs", Way.SIGNS), ("backpropagation", Way.TRANSPOSE))}  # fmt: skip
    ways = (Way.TRANSPOSE, Way.RANDOM, Way.DIRECT, Way.NONE)
    sweep = {depth: {way: training.fit(way, depth, epochs=1, **settings) for way in ways} for depth in (1, 2, 3)}
    return shown, sweep


@pytest.fixture(params=["turn", "training", "depth"])
def panel(request, fits):
    made = {
        "turn": lesson.turn_panel,
        "training": lambda: lesson.training_panel(fits[0], "random"),
        "depth": lambda: lesson.depth_panel(fits[1]),
    }
    return made[request.param]()


@pytest.mark.filterwarnings("error")
def test_every_control_changes_the_picture_and_returning_restores_it(panel):
    check_controls(panel)


@pytest.mark.filterwarnings("error")
def test_extremes_of_all_controls(panel):
    check_extremes(panel)


def test_training_panel_shows_the_moment(fits):
    panel = lesson.training_panel(fits[0], "random")
    panel.set(epoch=0.5)
    moment = fits[0]["random"].moments[1]
    texts = [text.get_text() for ax in panel.axes for text in ax.texts]
    assert f"layer 1 to 2: {moment.weights[0, 0]:.0f}°" in texts
    np.testing.assert_allclose(panel.axes[0].lines[-1].get_xydata().T, moment.pairs[0], rtol=1e-6)


def test_depth_panel_shows_the_depth(fits):
    panel = lesson.depth_panel(fits[1])
    panel.set(depth=2)
    np.testing.assert_allclose(panel.axes[2].lines[-2].get_ydata(), fits[1][2][Way.RANDOM].moments[-1].errors.mean(1))


def test_angles_are_drawn(fits):
    axes = Figure().subplots(2, 3).ravel()
    lesson.draw_angles(axes, fits[0])
    assert [len(ax.lines) for ax in axes] == [3 * 2 + 1] * 6
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), fits[0]["random"].over("weights")[:, 0, 0])
    assert lesson.span(np.array([0.881, 0.9])) == "88 to 90 %"


# The exercises.

EXERCISES = {
    "error": lesson.error_exercise,
    "angle": lesson.angle_exercise,
    "kolen-pollack": lesson.kolen_pollack_exercise,
}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise)


def change(k, s):
    return torch.einsum("nbi,nbj->ij", k, s)


def cosine(W, G):
    return (W * G).sum() / (W.norm() * G.norm())


SLIPS = {
    "error": {
        "slope is missing": lambda k, G, f: k @ G,
        "sign is turned": lambda k, G, f: -f * (k @ G),
        "step before": lambda k, G, f: f * (k.roll(1, 0) @ G),
        "added up over time": lambda k, G, f: f * (k.sum(0, keepdim=True) @ G),
        "turned round": lambda k, G, f: f * (k @ G.T),
    },
    "angle": {
        "That is the cosine": cosine,
        "radians": lambda W, G: cosine(W, G).acos(),
        "mean over rows": lambda W, G: torch.rad2deg(torch.cosine_similarity(W, G, dim=1).acos()).mean(),
        "rows' cosines": lambda W, G: torch.rad2deg(torch.cosine_similarity(W, G, dim=1).mean().acos()),
        "absolute value": lambda W, G: torch.rad2deg(cosine(W, G).abs().acos()),
        "norms are squared": lambda W, G: torch.rad2deg(((W * G).sum() / (W.norm() * G.norm()) ** 2).acos()),
        "norms of both": lambda W, G: torch.rad2deg(((W * G).sum() / W.norm() ** 2).clamp(-1, 1).acos()),
        "transposed": lambda W, G: torch.rad2deg(cosine(W, G.T if len(G) == len(G.T) else G).acos()),
    },
    "kolen-pollack": {
        "did not learn": lambda W, G, k, s, r, d: ((1 - r * d) * W - r * change(k, s), G),
        "did not decay": lambda W, G, k, s, r, d: ((1 - r * d) * W - r * change(k, s), G - r * change(k, s)),
        "Nothing decayed": lambda W, G, k, s, r, d: (W - r * change(k, s), G - r * change(k, s)),
        "copied": lambda W, G, k, s, r, d: ((1 - r * d) * W - r * change(k, s),) * 2,
        "The sign": lambda W, G, k, s, r, d: tuple((1 - r * d) * v + r * change(k, s) for v in (W, G)),
        "do not average": lambda W, G, k, s, r, d: tuple(
            (1 - r * d) * v - r * change(k, s) / k.shape[1] for v in (W, G)
        ),
        "goes with the rate": lambda W, G, k, s, r, d: tuple((1 - d) * v - r * change(k, s) for v in (W, G)),
        "turned round": lambda W, G, k, s, r, d: tuple((1 - r * d) * v - r * change(s, k) for v in (W, G)),
    },
}


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_references_are_the_library_s(small):
    weights, x, y = small
    for way in (Way.RANDOM, Way.LEARNED):
        rule = training.library_rule(way, weights)
        net = training.network(weights)
        inputs = x.expand(training.STEPS, -1, -1)
        grads = rule.gradients(net, inputs, y, training.LOSS)[1]
        if way is Way.RANDOM:
            found = training.gradients(way, weights, x, y)
            kap = training.SCALE / len(y) * training._readout_weights(x) * _wrong(weights, x, y)
            f = torch.ones(training.STEPS, len(y), 12, dtype=torch.float64)
            torch.testing.assert_close(lesson.error_exercise.solution(kap, weights.G[3][0], f), found.errors[2][0])
        else:
            s, last = net(inputs, rule)[2].s, weights.G[3][0]
            kap = training.SCALE / len(y) * training._readout_weights(x) * _wrong(weights, x, y)
            W, G = lesson.kolen_pollack_exercise.solution(weights.W[3][0], last, kap, s, 0.1, 0.5)
            torch.testing.assert_close(W, 0.95 * weights.W[3][0] - 0.1 * grads["layers.3.synapse.weight"])
            torch.testing.assert_close(G, 0.95 * last - 0.1 * grads["spatial.backs.2.weight"])


def _wrong(weights, x, y):
    """dL/dscores of the first run, times the size of the batch."""
    scores = training.forward(weights.W, x).scores[0]
    return scores.softmax(-1) - torch.nn.functional.one_hot(y, training.CLASSES)
