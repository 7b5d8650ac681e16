"""Tutorial 03: the recursion against autograd and closed forms, the panels, the exercises."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_show, check_slip

from snnlearn import FastSigmoid, Neuron, Unrolled, recipes, tasks
from snnlearn.datasets import Split
from snnlearn.lessons import bptt as lesson
from snnlearn.lessons import bptt_numbers as numbers
from snnlearn.temporal import Reset

SUBTRACT, TO_ZERO = numbers.UPDATES
EXAMPLE = {"w": 0.14, "width": 0.1, "tau_mem": 20.0, "tau_syn": 5.0, "pulse": 80, "update": SUBTRACT}


def wave(seen=Reset.KEPT, **changes):
    return numbers.wave(seen=seen, **(EXAMPLE | changes))


def reach(found, pulse=80):
    """Steps before the error at which lam is still a tenth of its largest value."""
    size = np.abs(found.credit.lam)
    return pulse - int(np.flatnonzero(size > 0.1 * size.max()).min())


# The recursion.


def test_by_hand():
    run = numbers.forward([1, 1, 0], 0.8, alpha=0.5, beta=0.5)
    np.testing.assert_allclose(run.U, [0.8, 1.6, 0.4], atol=1e-12)
    assert run.s.tolist() == [0, 1, 0]
    f = 1 - np.abs(run.U - 1)
    c = numbers.carry(run, f, 0.5, 1.0, numbers.UPDATES[SUBTRACT], Reset.KEPT)
    lam, kap = numbers.backward(f, run.s - [0, 0, 1], c, 0.5)
    np.testing.assert_allclose(lam, [-0.108, 0.36, -0.4], atol=1e-12)
    np.testing.assert_allclose(kap, [-0.028, 0.16, -0.4], atol=1e-12)


@pytest.mark.parametrize("seen", Reset)
@pytest.mark.parametrize("update", numbers.UPDATES)
@pytest.mark.parametrize("theta", [1.0, 0.7])
def test_recursion_is_what_autograd_does(seen, update, theta):
    draw = torch.Generator().manual_seed(1)
    x = (torch.rand(50, generator=draw) < 0.3).double()
    e = torch.randn(50, dtype=torch.float64, generator=draw)
    alpha, beta, slope = 0.8, 0.9, FastSigmoid(width=0.3)

    w = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    a = (w * x).view(-1, 1, 1)
    a.retain_grad()
    trace = Unrolled(seen).run(Neuron(alpha, beta, theta, numbers.UPDATES[update]), slope, a)
    (trace.s.flatten() * e).sum().backward()

    run = numbers.forward(x, 0.4, alpha, beta, theta, numbers.UPDATES[update])
    np.testing.assert_array_equal(run.s, trace.s.detach().flatten().numpy())
    assert run.s.sum() > 3
    f = slope.slope(torch.from_numpy(run.U - theta)).numpy()
    c = numbers.carry(run, f, beta, theta, numbers.UPDATES[update], seen)
    credit = numbers.backward(f, e.numpy(), c, alpha)
    np.testing.assert_allclose(credit.kap, a.grad.flatten().numpy(), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(credit.kap @ x.numpy(), w.grad.numpy(), rtol=1e-11)


def test_carry_refuses_a_reset_it_does_not_know():
    run = numbers.forward([1.0], 1.0, 0.5, 0.5)
    with pytest.raises(ValueError, match="subtract and to_zero"):
        numbers.carry(run, run.U, 0.5, 1.0, lambda U, s, I, beta, theta: beta * U + I, Reset.KEPT)


def test_detached_wave_is_the_leak_run_backwards():
    found = wave(Reset.DETACHED)
    k = np.arange(81)
    np.testing.assert_allclose(found.credit.lam[80::-1], found.f[80] * np.exp(-k / 20), rtol=1e-12)
    assert not found.credit.lam[81:].any()
    psp = [found.f[80] * sum(math.exp(-(n - m) / 20 - m / 5) for m in range(n + 1)) for n in k]
    np.testing.assert_allclose(found.credit.kap[80::-1], psp, rtol=1e-12)


def test_what_the_notebook_says_of_the_wave():
    assert 2 <= reach(wave()) <= 6
    assert reach(wave(Reset.DETACHED)) == 46  # 20 ms * ln 10
    for seen in (Reset.DETACHED, Reset.IGNORED):
        np.testing.assert_array_equal(wave(seen).credit.lam, wave(Reset.IGNORED).credit.lam)
    cut, through = wave(Reset.DETACHED, update=TO_ZERO), wave(Reset.IGNORED, update=TO_ZERO)
    last = np.flatnonzero(cut.run.s[:80]).max()
    assert not cut.credit.lam[: last + 1].any()
    assert through.credit.lam[: last + 1].all()
    assert wave(update=TO_ZERO).c.min() < -0.5
    by_width = [[reach(wave(width=width, pulse=p), p) for p in range(30, 96, 5)] for width in (0.02, 0.1, 1.0)]
    narrow, middle, wide = (np.median(steps) for steps in by_width)
    assert 10 <= narrow <= 15
    assert narrow > middle > wide
    assert wide <= 2
    far, near = wave(pulse=77), wave(pulse=76)
    assert far.run.U[77] < 0.5 < 1 <= near.run.U[76]
    assert np.abs(far.credit.lam).max() < 0.5 * np.abs(near.credit.lam).max()


# The panels.


@pytest.fixture(scope="module")
def rec():
    """An untrained network on thirty digits: it makes mistakes."""
    task = tasks.digits()
    net = task.network(torch.Generator().manual_seed(0))
    test = task.load().test
    return lesson.record(net, recipes.bptt(), task, Split(test.x[:30], test.y[:30]))


@pytest.fixture(params=["wave", "reading"])
def panel(request):
    return lesson.wave_panel() if request.param == "wave" else lesson.reading_panel(request.getfixturevalue("rec"))


@pytest.mark.filterwarnings("error")
def test_every_control_changes_the_picture_and_returning_restores_it(panel):
    check_controls(panel)


@pytest.mark.filterwarnings("error")
def test_extremes_of_all_controls(panel):
    check_extremes(panel)


def test_play_shows_only_what_the_recursion_has_reached():
    panel = lesson.wave_panel()
    panel.set(back=0)
    lam, kap = (panel.axes[i].lines for i in (2, 3))
    assert max(len(line.get_xdata()) for line in lam) == 2  # the line at zero and the cursor
    panel.set(back=30)
    assert max(len(line.get_xdata()) for line in lam) == 30
    assert max(len(line.get_xdata()) for line in kap) == 30
    assert any("∂L/∂w so far" in text.get_text() for text in panel.axes[2].texts)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([0, 0.65], (-0.1, 1.1)), ([-0.3, 1.25], (-3.3, 3.3)), ([-0.05], (-0.1, 1.1)), ([0, 40], (-10, 110))],
)
def test_signed_limits(values, wanted):
    np.testing.assert_allclose(lesson.signed_limits(values), wanted)


def test_record_holds_what_the_network_did(rec):
    task = tasks.digits()
    net = task.network(torch.Generator().manual_seed(0))
    data = task.load().test
    with torch.no_grad():
        hidden, out = net(task.encode(data.x[7:8]), recipes.bptt())
    np.testing.assert_array_equal(rec.hidden[7], hidden.s[:, 0].numpy() > 0)
    np.testing.assert_allclose(rec.out[7], out.s[:, 0].numpy(), atol=1e-5)
    assert rec.answer[7] == task.loss.scores(out.s).argmax(1).item()
    assert rec.label.tolist() == data.y[:30].tolist()
    assert rec.pixels[7].ravel().tolist() == data.x[7].tolist()
    assert all(rec.answer[i] != rec.label[i] for i in rec.mistakes)
    assert 0 < len(rec.mistakes) < 31


def test_strongest_other_is_never_the_label():
    scores = np.array([1.0, 5.0, 3.0])
    assert [numbers.strongest_other(scores, i) for i in range(3)] == [1, 2, 1]


def test_mistakes_are_drawn_and_empty_axes_are_hidden(rec):
    axes = Figure().subplots(1, 40)
    lesson.draw_mistakes(axes, rec)
    titles = [ax.get_title() for ax in axes]
    first = rec.mistakes[0]
    assert titles[0] == f"{first}: {rec.label[first]} as {rec.answer[first]}"
    assert sum(map(bool, titles)) == len(rec.mistakes)
    assert not any(ax.axison for ax in axes)


def test_unrolled_graph_names_every_local_derivative():
    ax = Figure().subplots()
    f, e, lam, kap = [0.8, 0.4, 0.4], [0, 1, -1], [-0.108, 0.36, -0.4], [-0.028, 0.16, -0.4]
    lesson.draw_unrolled(ax, [1, 1, 0], f, e, lam, kap, alpha=0.5, beta=0.25, theta=1.5)
    texts = [text.get_text() for text in ax.texts]
    for wanted, times in {"α = 0.5": 2, "β = 0.25": 2, "−θ = −1.5": 2, "f = 0.4": 2, "λ = −0.108": 1}.items():
        assert texts.count(wanted) == times
    assert len(ax.patches) == 3 * 4 + 2 * 3


def test_show_displays_with_a_text_alternative_and_closes(monkeypatch):
    check_show(lesson.show, monkeypatch)


# The exercises.

EXERCISES = {
    "step": lesson.step_exercise,
    "weight": lesson.weight_exercise,
    "carry": lesson.carry_exercise,
    "mean": lesson.mean_exercise,
}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise)


def one_hot(out, y):
    return torch.eye(out.shape[2], dtype=out.dtype)[y]


SLIPS = {
    "step": {
        "same step only": lambda f, e, lam, beta, theta: f * e,
        "reset is missing": lambda f, e, lam, beta, theta: f * e + beta * lam,
        "lowers the membrane": lambda f, e, lam, beta, theta: f * e + (beta + theta * f) * lam,
        "theta, not 1": lambda f, e, lam, beta, theta: f * e + (beta - f) * lam,
        "multiplied by": lambda f, e, lam, beta, theta: e + (beta - theta * f) * lam,
    },
    "weight": {
        "last step only": lambda kap, x: kap[-1].T @ x[-1],
        "mean over the steps": lambda kap, x: torch.einsum("nbi,nbj->ij", kap, x) / len(x),
        "mean over the batch": lambda kap, x: torch.einsum("nbi,nbj->ij", kap, x) / x.shape[1],
        "mean over steps and batch": lambda kap, x: torch.einsum("nbi,nbj->ij", kap, x) / x[..., 0].numel(),
        "before the product": lambda kap, x: kap.sum((0, 1)).outer(x.sum((0, 1))),
    },
    "carry": {
        "subtraction": lambda U, s, f, beta, kept: beta - f,
        "cuts the memory": lambda U, s, f, beta, kept: beta - beta * U * f,
        "still multiplies": lambda U, s, f, beta, kept: beta - beta * U * f * kept,
        "kept=True": lambda U, s, f, beta, kept: beta * (1 - s),
        "kept=False": lambda U, s, f, beta, kept: beta * (1 - s) - beta * U * f,
        "carries beta": lambda U, s, f, beta, kept: beta * (1 - s) - U * f * kept,
        "carries U": lambda U, s, f, beta, kept: beta * (1 - s) - beta * f * kept,
    },
    "mean": {
        "1/T is": lambda out, y: len(out) * lesson.mean_exercise.solution(out, y),
        "1/B is": lambda out, y: len(y) * lesson.mean_exercise.solution(out, y),
        "1/T and 1/B": lambda out, y: len(out) * len(y) * lesson.mean_exercise.solution(out, y),
        "sign": lambda out, y: -lesson.mean_exercise.solution(out, y),
        "every step": lambda out, y: (out.softmax(2) - one_hot(out, y)) / out[..., 0].numel(),
        "label is missing": lambda out, y: (out.mean(0).softmax(1) / out[..., 0].numel()).expand(out.shape),
    },
}


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_references_against_autograd():
    draw = torch.Generator().manual_seed(2)
    out = torch.randn(6, 4, 3, dtype=torch.float64, generator=draw, requires_grad=True)
    y = torch.tensor([0, 2, 1, 1])
    torch.nn.functional.cross_entropy(out.mean(0), y).backward()
    torch.testing.assert_close(lesson.mean_exercise.solution(out.detach(), y), out.grad)

    W = torch.randn(5, 7, dtype=torch.float64, generator=draw, requires_grad=True)
    x, kap = (torch.randn(6, 4, n, dtype=torch.float64, generator=draw) for n in (7, 5))
    ((x @ W.T) * kap).sum().backward()
    torch.testing.assert_close(lesson.weight_exercise.solution(kap, x), W.grad)
