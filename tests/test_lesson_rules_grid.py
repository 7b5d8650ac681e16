"""Tutorial 13, the grid: its record, its costs, its panels and exercises, and what it says."""

import math
import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_slip
from torch import nn

from snnlearn import Adjoint, DirectFeedback, FastSigmoid, Rule, Transpose, grid, recipes
from snnlearn.lessons import rules_grid as lesson
from snnlearn.lessons import rules_grid_numbers as numbers
from snnlearn.lessons import rules_grid_training as training
from snnlearn.spatial import Spatial
from snnlearn.temporal import Credit, Method

ALL = {"epoch": training.EPOCHS, "steps": training.STEPS, "width": training.WIDTH}
RAN = [(row, column) for row in training.ROWS for column in training.COLUMNS if not training.runs(row, column)]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The record.


def test_record_has_every_pair_that_runs_and_no_other():
    record = training.load()
    assert set(record) == {f"{row} x {column}" for row, column in RAN} | {"readout only"}
    assert len(RAN) == 18
    for row, column in RAN:
        field = record[f"{row} x {column}"]
        assert np.shape(field["accuracy"]) == (training.SEEDS, training.EPOCHS + 1)
        assert field["rate"] in training.RATES
        for width in training.WIDTHS:
            cosine = np.array(field["cosine"][str(width)])
            assert cosine.shape == (training.SEEDS, training.EPOCHS + 1, 3)
            assert np.abs(cosine).max() <= 1
        assert len(field["kept"]) == len(field["work"]) == len(field["seconds"]) == len(training.LENGTHS)


@pytest.mark.parametrize(("row", "column"), [("slayer", "direct_feedback"), ("eligibility", "local_errors")])
def test_a_field_of_the_record_is_made_again(row, column):
    """Two epochs, one seed: what the notebook does for another row."""
    found = training.load()[f"{row} x {column}"]
    history = training.fit(training.named(row, column), 1, found["rate"], epochs=2)
    np.testing.assert_allclose(history.accuracy, found["accuracy"][1][:3], atol=0.06)
    cosine = training.along(history, 1)
    np.testing.assert_allclose(cosine[0], found["cosine"][str(training.WIDTH)][1][0], atol=1e-3)
    wide = training.along(history, 1, width=1.0)
    np.testing.assert_allclose(wide[0], found["cosine"]["1.0"][1][0], atol=1e-3)
    assert np.abs(np.array(wide[0]) - cosine[0]).max() > 0.01
    other = training.fit(training.named(row, column), 0, found["rate"], epochs=1)
    assert other.accuracy[1] != history.accuracy[1]


@pytest.mark.parametrize(("row", "column"), [("exodus", "feedback_alignment"), ("eligibility", "transpose")])
def test_costs_of_the_record_are_measured_again(row, column):
    found = training.load()[f"{row} x {column}"]
    kept, work, seconds = training.cost(row, column, 20)
    assert kept == pytest.approx(found["kept"][1], rel=0.02)
    assert work == pytest.approx(found["work"][1], rel=0.02)
    assert seconds > 0


def test_exodus_may_share_the_record_of_bptt():
    """Its gradient is BPTT's, on this network, at start and after some learning, with every column."""
    x, y = training.batch()
    for column in training.COLUMNS:
        history = training.fit(training.named("bptt", column), 0, 0.02, epochs=1)
        for weights in history.weights:
            net = training.network(0)
            net.load_state_dict(weights)
            net = net.double()
            rules = [grid.pair(row, column).rule(net, torch.Generator().manual_seed(5)) for row in ("bptt", "exodus")]
            a, b = (r.gradients(net, x.double(), y, training.LOSS)[1] for r in rules)
            for name in a:
                torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-12)
            assert a["layers.0.synapse.weight"].abs().max() > 1e-6


def test_network_is_alive_and_the_default_dtype_does_not_matter():
    x, _ = training.batch()
    before = training.network(1)
    torch.set_default_dtype(torch.float64)
    try:
        net = training.network(1)
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b)
    rates = [trace.s.mean().item() for trace in net(x, recipes.bptt())[:-1]]
    assert all(0.01 < r < 0.4 for r in rates)


def test_only_the_readout_learns_where_that_is_meant():
    history = training.fit(training.named("bptt", "transpose"), 0, 0.02, epochs=1, readout_only=True)
    first, last = history.weights[0], history.weights[-1]
    moved = {name: not torch.equal(first[name], last[name]) for name in first}
    assert [moved[f"layers.{i}.synapse.weight"] for i in range(3)] == [False, False, True]


def test_which_pairs_run_on_the_network():
    assert "e-prop has one layer" in training.runs("eprop", "transpose")
    assert training.runs("eprop", "direct_feedback") == ""
    assert "reset to zero" in training.runs("tssl_bp", "transpose")
    assert training.runs("eventprop", "local_errors") == grid.pair("eventprop", "local_errors").refused
    assert set(training.NEEDS) == {t.name for t in grid.TIMES} - set(training.ROWS)


def test_spread_sees_rows_and_columns(monkeypatch):
    """On tables made by hand: only columns differ; only rows; neither."""

    def fake(per_row, per_column):
        def values(quantity, row, column, **_):
            base = per_row * numbers.COMPARED.index(row) + per_column * training.COLUMNS.index(column)
            return base + np.array([-0.01, 0.01])

        return values

    monkeypatch.setattr(numbers, "values", fake(0, 0.1))
    assert numbers.spread() == pytest.approx((0, 0.3, 0.01 * math.sqrt(2), 0.01 * math.sqrt(2) / math.sqrt(8)))
    monkeypatch.setattr(numbers, "values", fake(0.05, 0))
    assert numbers.spread()[:2] == pytest.approx((0.1, 0))


# What the notebook says.


def mean(row, column, quantity="accuracy", **changes):
    return numbers.values(quantity, row, column, **{**ALL, **changes}).mean()


def test_accuracy_claims():
    for row in numbers.COMPARED:
        assert 0.925 < mean(row, "transpose") < 0.955
        for column in training.COLUMNS[1:]:
            assert 0.845 < mean(row, column) < 0.915
            assert 0.02 < mean(row, "transpose") - mean(row, column) < 0.085
    best = max(mean(row, "direct_feedback") for row in numbers.COMPARED)
    assert mean("eprop", "direct_feedback") > best
    assert max(mean("eprop", column) for column in ("direct_feedback", "local_errors")) < mean("slayer", "transpose")
    assert 0.63 < lesson.baseline(training.EPOCHS) < 0.69
    assert 0 < mean("bptt", "transpose") - mean("eligibility", "transpose") < 0.02


def test_cosine_claims():
    for q in ("cosine 1", "cosine 2"):
        assert abs(mean("bptt", "direct_feedback", q, epoch=0)) < 0.1
        assert all(mean("slayer", "transpose", q, epoch=e) > 0.9 for e in range(training.EPOCHS + 1))
        assert all(mean("eligibility", "transpose", q, epoch=e) > 0.85 for e in range(training.EPOCHS + 1))
        for width in training.WIDTHS:
            assert mean("slayer", "transpose", q, width=width) > 0.9
            assert mean("eligibility", "transpose", q, width=width) > 0.9
    random = [(row, column) for row in numbers.COMPARED for column in training.COLUMNS[1:]]
    ends = [mean(row, column, "cosine") for row, column in random]
    assert min(ends) > 0.15
    assert max(ends) < 0.55
    starts = [mean(row, column, "cosine", epoch=0) for row, column in random]
    assert max(map(abs, starts)) < 0.2
    second, first = ([mean(row, column, q) for row, column in random] for q in ("cosine 2", "cosine 1"))
    assert np.mean(second) > np.mean(first) + 0.1


def test_one_rule_in_two_runs():
    found = {row: mean(row, "direct_feedback", "cosine") for row in ("slayer", "eligibility")}
    assert {row: f"{value:.2f}" for row, value in found.items()} == {"slayer": "0.53", "eligibility": "0.36"}
    assert all(f"{mean(row, 'direct_feedback'):.2f}" == "0.90" for row in found)
    early = [mean(row, "direct_feedback", "cosine", epoch=0) for row in found]
    assert early[0] == pytest.approx(early[1], abs=1e-4)


def test_lengths_of_eligibility():
    net, (x, y) = training.network(0).double(), training.batch()
    lengths = []
    for row in ("eligibility", "bptt"):
        rule = grid.pair(row, "transpose").rule(net, torch.Generator(), FastSigmoid(training.WIDTH))
        found = rule.gradients(net, x.double(), y, training.LOSS)[1]
        lengths.append([found[name].norm().item() for name in training.LAYERS])
    first, second = np.divide(*lengths)
    assert first == pytest.approx(1 / 80, rel=0.1)
    assert second == pytest.approx(1 / 6, rel=0.1)


def test_spoils_before_it_helps():
    below = [mean(r, c, epoch=1) < lesson.baseline(1) for r in numbers.COMPARED for c in training.COLUMNS[1:]]
    assert sum(below) > len(below) / 2
    late = [mean(r, c) > lesson.baseline(8) + 0.15 for r in numbers.COMPARED for c in training.COLUMNS[1:]]
    assert all(late)


@pytest.mark.parametrize("seed", [0, 1])
def test_own_columns(seed):
    """One number for all is no better than hidden layers that do not learn; the signs are nearly the weights."""

    def one(net, draw, surrogate):
        full = DirectFeedback.random(net, draw)
        return Rule(surrogate, Adjoint(), DirectFeedback([(h[:, :1] @ h[:1].sign()).detach() for h in full.H]))

    class Signs(Spatial):
        def down(self, i, synapse):
            if i == 0:
                return synapse
            back = nn.Linear(synapse.in_features, synapse.out_features, bias=False)
            weight = lesson.signs_exercise.solution(synapse.weight.detach())
            back.weight = nn.Parameter(weight, requires_grad=False)
            return back

    assert training.fit(one, seed, 0.02).accuracy[-1] < 0.78
    assert training.fit(lambda net, draw, s: Rule(s, Adjoint(), Signs()), seed, 0.02).accuracy[-1] > 0.91


def test_credit_at_spikes_alone_does_not_bear_the_larger_rate():
    class OnlyAtSpikes(Method):
        def credit(self, neuron, surrogate, trace, state, *extra):
            f = trace.s * surrogate.slope(trace.U - neuron.theta)
            return Credit(f, c=neuron.beta * (1 - trace.s))

    def make(net, draw, surrogate):
        return Rule(surrogate, OnlyAtSpikes(), Transpose())

    assert training.fit(make, 0, 0.02).accuracy[-1] > 0.9
    assert sum(training.fit(make, seed, 0.05).accuracy[-1] < 0.85 for seed in range(3)) == 2
    assert training.fit(training.named("bptt", "transpose"), 0, 0.05).accuracy[-1] > 0.9


def test_kept_claims():
    assert mean("bptt", "transpose", "kept", steps=80) / mean("bptt", "transpose", "kept") > 3.9
    for row, column in (("eligibility", "transpose"), ("eprop", "direct_feedback")):
        assert mean(row, column, "kept", steps=80) == mean(row, column, "kept", steps=10)
    assert 3.5 < mean("eprop", "direct_feedback", "kept") / mean("bptt", "transpose", "kept") < 4.5
    for column in training.COLUMNS[1:]:
        assert mean("bptt", column, "kept") / mean("bptt", "transpose", "kept") < 1.25


def test_spread_and_correlation_claims():
    early, late = numbers.spread(1), numbers.spread(training.EPOCHS)
    assert 0.2 < early.columns < 0.26
    assert early.rows < 0.06
    assert 0.05 < late.columns < 0.075
    assert late.rows < 0.015
    assert 0.003 < late.error < 0.008
    assert all(numbers.correlation(e) > 0.6 for e in (1, 2, 4, 8))
    assert all(abs(numbers.correlation(e, training.COLUMNS[1:])) < 0.5 for e in (1, 2, 4, 8))


def test_slayer_is_eligibility_where_no_error_comes_through_a_layer():
    net, (x, y) = training.network(0).double(), training.batch()

    def gradient(row, column):
        rule = grid.pair(row, column).rule(net, torch.Generator().manual_seed(1), FastSigmoid(0.3))
        return torch.cat([g.flatten() for g in rule.gradients(net, x.double(), y, training.LOSS)[1].values()])

    for column in ("direct_feedback", "local_errors"):
        torch.testing.assert_close(gradient("eligibility", column), gradient("slayer", column), rtol=1e-8, atol=1e-12)
        assert not torch.allclose(gradient("bptt", column), gradient("slayer", column), rtol=1e-2)
    assert not torch.allclose(gradient("eligibility", "transpose"), gradient("slayer", "transpose"), rtol=1e-2)


def test_cost_claims():
    found = {g.row: g for g in numbers.growth()}
    assert set(found) == {t.name for t in grid.TIMES} - {"eventprop"}
    for g in found.values():
        for measured, claim in zip((g.by_steps, g.by_neurons, g.work_by_neurons), g.claimed, strict=True):
            assert abs(math.log2(measured) - math.log2(claim)) < 0.5
    assert found["rtrl"].claimed == (1, 8, 16)
    assert found["bptt"].claimed == (2, 2, 4)


def test_rows_elsewhere():
    found = numbers.elsewhere()
    exact = {row for row, e in found.items() if e.cosines[0] is not None and abs(e.cosines[0] - 1) < 1e-5}
    assert exact == {"exodus_srm", "rtrl", "eventprop"}
    assert 0.85 < found["eprop"].cosines[0] < 0.99
    assert 0.4 < found["tssl_bp"].cosines[0] < 0.7
    assert 0.8 < found["eligibility_filtered"].cosines[0] < 0.95
    assert set(found["eventprop"].refused) == {"direct_feedback", "local_errors"}
    random = [c for e in found.values() for c in e.cosines[1:3] if c is not None]
    assert max(map(abs, random)) < 0.33
    local = [e.cosines[3] for e in found.values() if e.cosines[3] is not None]
    assert len(local) == 5
    assert min(local) > 0.15
    assert max(local) < 0.45
    assert found["eprop"].cosines[1] == pytest.approx(found["eprop"].cosines[2], abs=1e-4)


def test_landing_counts_the_fields_below():
    class Same(Spatial):
        """Backpropagation by another name."""

    found = numbers.land(lambda net, draw, surrogate: Rule(surrogate, Adjoint(), Same()), rate=0.02, epochs=2)
    plain = training.fit(lambda net, draw, s: Rule(s, Adjoint(), Transpose()), 0, 0.02, epochs=2)
    assert found.accuracy == plain.accuracy[-1]
    assert found.cosine == pytest.approx((1, 1), abs=1e-4)
    below = sum(f["accuracy"][0][2] < found.accuracy for k, f in training.load().items() if " x " in k)
    assert found.among == (below, 18)
    assert below > 6


# The panels.


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("make", "alike"), [(lesson.grid_panel, {}), (lesson.scatter_panel, {})], ids=["grid", "scatter"]
)
def test_panels(make, alike):
    check_controls(make(), alike)
    check_extremes(make())


def test_grid_panel_shows_what_was_measured():
    panel = lesson.grid_panel()
    panel.set(quantity="kept", steps=80, row="slayer", column="direct_feedback", epoch=2)
    texts = [t.get_text() for t in panel.axes[0].texts]
    kept = training.load()["slayer x direct_feedback"]["kept"][-1]
    assert texts.count("another network") == 20
    assert texts.count("refused") == 2
    assert lesson.shown("kept", kept) in texts
    assert any("leaves out the reset" in t for t in texts)
    accuracy = np.array(training.load()["slayer x direct_feedback"]["accuracy"])[:, 2].mean()
    assert any(f"after 2 epochs: accuracy {100 * accuracy:.0f} %" in t for t in texts)
    words = panel._repr_mimebundle_()[0]["text/plain"]
    assert "tssl_bp needs a reset to zero" in words
    panel.set(row="rtrl", column="transpose")
    assert "O(N³)" in panel._repr_mimebundle_()[0]["text/plain"]


def test_scatter_panel_shows_the_epoch():
    panel = lesson.scatter_panel()
    panel.set(epoch=5, layer="cosine 2")
    x, y = (mean("eligibility", "local_errors", q, epoch=5) for q in ("cosine 2", "accuracy"))
    points = [line.get_xydata()[0] for line in panel.axes[0].lines if len(line.get_xdata()) == 1]
    assert any(np.allclose(p, (x, 100 * y)) for p in points)
    assert f"columns {100 * numbers.spread(5).columns:.0f} points" in panel.axes[1].texts[-1].get_text()


def test_map_names_and_refuses():
    ax = Figure().subplots()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lesson.draw_map(ax)
    texts = [t.get_text() for t in ax.texts]
    assert texts.count("refused") == len(grid.REFUSED)
    assert set(lesson.SHORT) <= set(grid.NAMES)
    words = lesson.describe_map()
    assert "bptt x transpose" in words.split("Refused")[0]
    assert "slayer" not in words.split("Refused")[0]


def test_values_are_printed_with_their_units():
    shown = [lesson.shown(q, v) for q, v in (("accuracy", 0.951), ("kept", 2.5e6), ("seconds", 0.02), ("cosine", -0.1))]
    assert shown == ["95 %", "2.50 MB", "20 ms", "−0.10"]


# The exercises.

EXERCISES = {
    "exact": lesson.exact_exercise,
    "even": lesson.break_even_exercise,
    "signs": lesson.signs_exercise,
}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise)


def slope(kept):
    (T1, k1), (T2, k2) = sorted(kept.items())
    return (k2 - k1) / (T2 - T1)


SLIPS = {
    "exact": {
        "Look at the readout": lambda left, changed, top: float(not (left or changed)),
        "One bias is enough": lambda left, changed, top: float(top or not (left and changed)),
        "only if the row": lambda left, changed, top: float(top or not left),
        "and the column both are": lambda left, changed, top: float(top or not changed),
    },
    "even": {
        "does not go through 0": lambda kept, forward: forward / slope(kept),
        "for each step": lambda kept, forward: slope(kept),
        "not added": lambda kept, forward: (forward + kept[min(kept)] - slope(kept) * min(kept)) / slope(kept),
        "not how many steps": lambda kept, forward: forward / kept[min(kept)],
    },
    "signs": {
        "magnitude is missing": lambda W: W.sign(),
        "mean of the absolute": lambda W: W.sign() * W.abs().mean(),
        "root is missing": lambda W: W.sign() * W.square().mean(),
        "That is the norm": lambda W: W.sign() * W.norm(),
        "weights themselves": lambda W: W,
    },
}


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_exact_is_what_is_measured():
    """The reference of exercise 1 against gradients, for all pairs that run and each layer."""
    net = training.network(0).double()
    x, y = training.batch()
    x = x[:, :16].double()
    true = Rule(FastSigmoid(training.WIDTH)).gradients(net, x, y[:16], training.LOSS)[1]
    for row, column in RAN:
        pair = grid.pair(row, column)
        rule = pair.rule(net, torch.Generator().manual_seed(3), FastSigmoid(training.WIDTH))
        found = rule.gradients(net, x, y[:16], training.LOSS)[1]
        for name, g in found.items():
            top = name.startswith("layers.2")
            same = torch.allclose(g, true[name], rtol=1e-8, atol=1e-10 * true[name].abs().max().item())
            assert same == bool(lesson.exact_exercise.solution(pair.time.left_out, pair.space.changed, top)), (
                row,
                name,
            )


def test_signs_are_a_column():
    W = nn.Linear(4, 3).weight.detach()
    G = lesson.signs_exercise.solution(W)
    assert torch.equal(G.sign(), W.sign())
    torch.testing.assert_close(G.norm(), W.norm())
