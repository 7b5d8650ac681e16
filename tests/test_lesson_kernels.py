"""Tutorial 14, from loop to kernel: what it counts, the record that it shows, its panels and exercises, its claims."""

import datetime
import itertools
import math
import time

import numpy as np
import pytest
import torch
from kernel_tools import compiled as compiled
from matplotlib.figure import Figure
from panels import check_controls, check_exercise, check_extremes, check_slip

from snnlearn import Neuron, kernels
from snnlearn.bench.naive import Spike, lif_loop
from snnlearn.lessons import kernels as lesson
from snnlearn.lessons import kernels_exercises as exercises
from snnlearn.lessons import kernels_measured as measured
from snnlearn.lessons import kernels_numbers as numbers
from snnlearn.spikes import Spikes

BETA, K = math.exp(-1 / 20), 10.0


def currents(*shape, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    return (0.3 * torch.randn(*shape, generator=draw, dtype=dtype) + 0.03).requires_grad_()


def traffic_of(loop, T, B=4, N=50):
    """Bytes for each neuron and step of forward and backward pass, and the counter of each."""
    a = currents(T, B, N)
    e = torch.ones_like(a)
    with lesson.Traffic() as forward:
        s = loop(a)
    with lesson.Traffic() as backward:
        torch.autograd.grad(s, a, e)
    return forward.bytes / a.numel(), backward.bytes / a.numel(), forward, backward


def loop(a):
    return lif_loop(a, BETA, K)


def indexing_loop(a):
    U = s = torch.zeros_like(a[0])
    spikes = []
    for n in range(len(a)):
        U = BETA * U - s + a[n]
        s = Spike.apply(U - 1.0, K, math.inf)
        spikes.append(s)
    return torch.stack(spikes)


# What is counted.


def test_traffic_counts_arguments_and_results_and_no_views():
    x, y = torch.ones(3, 5), torch.ones(3, 5, dtype=torch.float64)
    with lesson.Traffic() as traffic:
        x.view(15), x.unbind(0), x.T
        assert traffic.bytes == traffic.calls == 0
        x + x
        assert traffic.log == [("add", 2 * 60, 60)]
        torch.ge(y, 0)
    assert traffic.log[1:] == [("ge", 120, 15)]
    assert (traffic.bytes, traffic.calls) == (180 + 135, 2)


def test_the_table_by_hand_is_what_torch_does():
    forward, backward, first, second = traffic_of(loop, 100)
    one_step = [(name, read / 200, written / 200) for name, read, written in first.log[8:15]]
    assert one_step == [
        ("mul", 4, 4), ("mul", 4, 4), ("sub", 8, 4), ("add", 8, 4), ("sub", 4, 4), ("ge", 4, 1), ("to_copy", 1, 4),
    ]  # fmt: skip
    name, read, written = first.log[-1]
    assert (name, read / 20000, written / 20000) == ("stack", 4, 4)
    assert sum(r + w for _, r, w in one_step) + 8 == 37 + 29
    assert (round(forward), round(backward)) == (66, 100)
    assert (round(first.calls / 100), round(second.calls / 100)) == (7, 10)


def test_bytes_of_each_way():
    found = numbers.moved()
    assert {name: round(value) for name, value in found.items()} == {"fused": 24, "loop": 166, "scan": 419}
    assert found["fused"] == numbers.FORWARD + numbers.BACKWARD


def test_the_indexing_loop_grows_with_the_length():
    plain, indexed = ({T: sum(traffic_of(way, T)[:2]) for T in (50, 100, 200)} for way in (loop, indexing_loop))
    assert max(plain.values()) / min(plain.values()) < 1.02
    assert indexed[200] - indexed[100] == pytest.approx(2 * (indexed[100] - indexed[50]), rel=0.01)
    assert indexed[200] > 15 * plain[200]
    assert torch.equal(loop(currents(20, 2, 3)), indexing_loop(currents(20, 2, 3)))


def test_counted_counts_each_access():
    x = lesson.Counted(np.zeros((2, 3)))
    x[1, 2] = 5.0
    assert (x[1, 2], x[0, 0], x.bytes) == (5.0, 0.0, 12)
    assert x.values[1, 2] == 5


# The record.


def test_record_has_the_form_that_is_claimed():
    record = measured.load()
    assert set(record) == {"date", "machine", "roofs", "layer", "step", "bench"}
    assert datetime.date.fromisoformat(record["date"]) <= datetime.datetime.now(datetime.UTC).date()
    assert record["machine"]["cpu"]
    assert record["machine"]["threads"] == record["bench"]["machine"]["threads"] == "1"
    layer, step = record["layer"], record["step"]
    assert (layer["T"], layer["B"]) == measured.LAYER
    assert (step["T"], step["B"], step["inputs"]) == (*measured.STEP, 700)
    assert [p["N"] for p in layer["points"]] == list(measured.LAYER_SIZES)
    assert [(p["N"], p["density"]) for p in step["points"]] == [
        (N, d) for N in measured.STEP_SIZES for d in measured.DENSITIES
    ]
    for points, ways in ((layer["points"], measured.LAYER_WAYS), (step["points"], (*measured.STEP_WAYS, "pack"))):
        for point in points:
            assert set(point["ms"]) == set(ways)
            for low, median, high in point["ms"].values():
                assert 0 < low <= median <= high
    for point in step["points"]:
        assert set(point["cosine"]) == {"10", "100"}
        assert all(0 < c <= 1 for c in point["cosine"].values())
        assert 0 < point["within"] < 1
    assert min(numbers.roofs()) > 0


def test_record_names_no_place():
    """Of the machine that made it there is the processor and the software, no folder and no name."""
    text = measured.RECORD.read_text(encoding="utf-8")
    assert "/home" not in text
    assert "/tmp" not in text
    assert set(measured.load()["machine"]) <= {
        "cpu", "cores", "caches", "vectors", "compiler", "torch", "python", "snnlearn", "threads", "cpu kernels",
        "cuda kernels", "load", "date", "gpu",
    }  # fmt: skip


def test_points_of_the_record_are_measured_again(compiled):
    """The same form, and the same results as the loop: whoever disagrees is refused and not timed."""
    for found, kept in ((measured.layer(4), "layer"), (measured.step(50, 0.02), "step")):
        like = next(
            p for p in measured.load()[kept]["points"] if p["N"] == found["N"] and p.get("density", 0.02) == 0.02
        )
        assert set(found) == set(like)
        assert set(found["ms"]) == set(like["ms"])
        if kept == "step":
            assert found["within"] == pytest.approx(like["within"], rel=0.05)
            assert found["cosine"] == pytest.approx(like["cosine"], abs=0.02)


def test_timed_takes_turns_and_quartiles(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "process_time", lambda: next(clock) / 1e3)
    order = []
    found = measured.timed({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3)
    turns = [name for name, _ in itertools.groupby(order)]
    assert turns[-6:] == ["a", "b"] * 3
    assert {name: len(values) for name, values in found.items()} == {"a": 3, "b": 3}
    assert all(values == sorted(values) for values in found.values())


def point(density, fused, events):
    return numbers.StepPoint(8, density, {"fused": [0, fused, 0], "events": [0, events, 0]}, {}, 0.1)


def test_break_even_between_points(monkeypatch):
    def even(*events):
        found = tuple(point(d, 10.0, e) for d, e in zip((0.01, 0.1, 0.4), events, strict=True))
        monkeypatch.setattr(numbers, "steps", lambda: found)
        return numbers.break_even(8)

    assert even(5, 20, 40) == pytest.approx(0.01 * math.sqrt(10))
    assert even(2.5, 5, 20) == pytest.approx(0.2)
    assert even(1, 2, 3) == math.inf
    assert even(10, 20, 30) == 0


def test_roof():
    bandwidth, peak = numbers.roofs()
    assert numbers.roof(1.0) == bandwidth
    assert numbers.roof(1e6) == peak
    assert numbers.bound(24) == pytest.approx(24 / bandwidth)
    assert numbers.product_intensity(10**9, 2, 2) == pytest.approx(2 * 2 * 2 / (4 * 4))
    assert pytest.approx(numbers.product_intensity(1024, 1024, 1024)) == lesson.PRODUCT


def test_bench_text_is_that_of_the_command():
    text = lesson.bench_text()
    lines = text.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("metric"))
    assert lines[0].startswith("cpu")
    assert lines[head].split() == ["metric", "size", "value", "quartiles", "goal", "met"]
    for words in ("LIF layer, forward + backward, vs naive", "whole step, exact", "memory saved, sparse"):
        assert any(line.startswith(words) for line in lines[head:]), words
    assert len(lesson.bench_text(["memory saved"]).splitlines()) < len(lines)


# The panels.


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", [lesson.roofline_panel, lesson.step_panel], ids=["roofline", "step"])
def test_panels(make):
    check_controls(make())
    check_extremes(make(), gaps=True)


def test_panels_time_nothing(monkeypatch):
    numbers.moved()

    def refuse():
        raise AssertionError("a panel looked at the clock")

    for clock in ("process_time", "perf_counter"):
        monkeypatch.setattr(time, clock, refuse)
    lesson.roofline_panel().set(N=4096)
    panel = lesson.step_panel()
    panel.set(N=1000, density=0.4)
    assert not panel.error


def test_roofline_panel_shows_the_record():
    panel = lesson.roofline_panel()
    panel.set(N=256)
    found = {p["N"]: p["ms"] for p in measured.load()["layer"]["points"]}[256]
    marks = [line.get_xydata()[0] for line in panel.axes[0].lines if len(line.get_xdata()) == 1]
    for way in measured.LAYER_WAYS:
        speed = 15 * 100 * 16 * 256 / (found[way][1] * 1e6)
        assert any(np.allclose(m, (15 / numbers.moved()[way], speed)) for m in marks), way
    assert f"{found['loop'][1] / found['fused'][1]:.1f} times as fast" in panel.axes[1].texts[-1].get_text()


def test_step_panel_shows_the_record():
    panel = lesson.step_panel()
    panel.set(N=500, density=0.1)
    found = {p["density"]: p["ms"] for p in measured.load()["step"]["points"] if p["N"] == 500}
    lines = [line.get_xydata() for line in panel.axes[0].lines if len(line.get_xdata()) == len(measured.DENSITIES)]
    for way in measured.STEP_WAYS:
        wanted = [(100 * d, found[d][way][1]) for d in measured.DENSITIES]
        assert any(np.allclose(line, wanted) for line in lines), way
    words = panel._repr_mimebundle_()[0]["text/plain"]
    assert f"events, exact {found[0.1]['events'][1]:.3g} ms" in words


def test_bytes_picture():
    ax = Figure().subplots()
    lesson.draw_bytes(ax, {"a": (37.0, 29.0), "b": (4.0, 8.0)})
    assert [t.get_text() for t in ax.texts] == ["66", "12"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]


# The exercises.

EXERCISES = {
    "least": lesson.least_exercise,
    "reverse": lesson.reverse_exercise,
    "unpack": lesson.unpack_exercise,
    "whole": lesson.whole_exercise,
}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_knows_right_from_wrong(exercise):
    check_exercise(exercise)


def numbers_moved(count):
    return lambda T, B, N, bandwidth: 4 * count * T * B * N / bandwidth / 1e6


def slopes(U, k, power=2):
    return 1 / (k * (U - 1).abs() + 1) ** power


def with_slopes(e, f, beta, reset=1.0, shift=0, carried=1.0):
    """The recursion with these slopes; in the carry those of some steps later."""
    carry = carried * (beta - reset * f.roll(-shift))
    kap, lam = torch.empty_like(f), 0.0
    for n in reversed(range(len(f))):
        lam = f[n] * e[n] + carry[n] * lam
        kap[n] = lam
    return kap


def bit(words, size, place):
    return [place(words, j) for j in range(size)]


SLIPS = {
    "least": {
        "That is one pass": numbers_moved(3),
        "One array is missing": numbers_moved(5),
        "Two arrays": numbers_moved(4),
        "One too many": numbers_moved(7),
        "float64 has 8": numbers_moved(12),
        "Those are numbers": numbers_moved(1.5),
        "in seconds": lambda *x: numbers_moved(6)(*x) / 1e3,
        "10^9": lambda T, B, N, w: 24 * T * B * N / (w * 2**30) * 1e3,
        "T is missing": lambda T, B, N, w: numbers_moved(6)(1, B, N, w),
        "B is missing": lambda T, B, N, w: numbers_moved(6)(T, 1, N, w),
        "what the loop moves": lambda T, B, N, w: 166 * T * B * N / w / 1e6,
    },
    "reverse": {
        "reset is missing": lambda e, U, beta, k: with_slopes(e, slopes(U, k), beta, reset=0),
        "reset's sign": lambda e, U, beta, k: with_slopes(e, slopes(U, k), beta, reset=-1),
        "carry is missing": lambda e, U, beta, k: with_slopes(e, slopes(U, k), beta, carried=0),
        "square is missing": lambda e, U, beta, k: with_slopes(e, slopes(U, k, power=1), beta),
        "steepness k is missing": lambda e, U, beta, k: exercises.reverse(e, U, beta, 1.0),
        "slope is at U - 1": lambda e, U, beta, k: exercises.reverse(e, U + 1, beta, k),
        "slope is no spike": lambda e, U, beta, k: with_slopes(e, (U >= 1).double(), beta),
        "From the last step": lambda e, U, beta, k: exercises.reverse(e.flip(0), U.flip(0), beta, k).flip(0),
        "order of the steps": lambda *x: exercises.reverse(*x).flip(0),
        "f of the step itself": lambda e, U, beta, k: with_slopes(e, slopes(U, k), beta, shift=1),
    },
    "unpack": {
        "Bit 0 is the lowest": lambda w, size: bit(w, size, lambda w, j: w[j // 64] >> (63 - j % 64) & 1),
        "64 bits, not 32": lambda w, size: bit(w, size, lambda w, j: w[j // 64] >> j % 32 & 1),
        "a word of their own": lambda w, size: bit(w, size, lambda w, j: w[0] >> j % 64 & 1),
        "may be negative": lambda w, size: bit(w, size, lambda w, j: max(w[j // 64], 0) >> j % 64 & 1),
        "Without its sign": lambda w, size: bit(w, size, lambda w, j: abs(w[j // 64]) >> j % 64 & 1),
        "Word 0 comes first": lambda w, size: bit(w, size, lambda w, j: w[-1 - j // 64] >> j % 64 & 1),
        "Zeros are ones": lambda w, size: [1 - x for x in exercises.unpack(w, size)],
    },
    "whole": {
        "part's own factor": lambda p, q: q,
        "Times add up": lambda p, q: 1 - p + p * q,
        "no time at all": lambda p, q: 1 / (1 - p),
        "new time": lambda p, q: 1 - p + p / q,
        "rest of the step is missing": lambda p, q: q / p,
        "other way round": lambda p, q: 1 / (p + (1 - p) / q),
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in SLIPS.items() for slip in slips])
def test_exercise_names_the_slip(name, slip):
    check_slip(EXERCISES[name], SLIPS[name][slip], slip)


def test_reverse_is_what_autograd_finds():
    a = currents(40, 1, 3, dtype=torch.float64)
    e = torch.randn(40, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (kap,) = torch.autograd.grad(loop(a), a, e)
    U = Neuron(beta=BETA).simulate(a.detach()).U
    assert (U >= 1).any()
    for i in range(3):
        found = exercises.reverse(e[:, 0, i], U[:, 0, i], BETA, K)
        torch.testing.assert_close(found, kap[:, 0, i], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 200])
def test_unpack_is_the_way_back(size):
    x = lesson.spikes(1, 1, size, density=0.5, seed=size)
    with kernels.off():
        words = tuple(Spikes.pack(x).bits.flatten().tolist())
    assert exercises.unpack(words, size) == x.flatten().tolist()


def test_words_are_those_of_the_library():
    for neurons in ((0,), (63,), (0, 2, 5, 63), tuple(range(64))):
        x = torch.zeros(1, 1, 64)
        x[..., list(neurons)] = 1
        with kernels.off():
            assert Spikes.pack(x).bits.item() == exercises.word(*neurons)


def test_least_time_is_the_bound_of_the_panel():
    T, B, N = 100, 16, 64
    assert exercises.least_ms(T, B, N, numbers.roofs()[0]) == pytest.approx(numbers.bound() * T * B * N / 1e6)


# What the notebook says.


def test_small_layers_wait_for_python():
    by_size = {p.N: p for p in numbers.layers()}
    assert by_size[64].ms["loop"][1] < 1.3 * by_size[4].ms["loop"][1]
    assert 7 < by_size[4096].ms["loop"][1] / by_size[256].ms["loop"][1] < 14
    _, _, forward, backward = traffic_of(loop, 100)
    assert round((forward.calls + backward.calls) / 100) == 17


def test_large_layers_wait_for_memory():
    """Both near their roofs, so that their ratio is about that of the bytes."""
    shares = {way: lesson.share_of_roof(4096, way) for way in measured.LAYER_WAYS}
    assert all(0.65 < share <= 1 for share in shares.values())
    large, small = numbers.layer(4096), numbers.layer(4)
    assert round(166 / 24, 1) == 6.9
    assert 0.75 < large.times_as_fast("fused") / (166 / 24) < 1.45
    assert small.times_as_fast("fused") > 1.2 * large.times_as_fast("fused")
    assert lesson.share_of_roof(4, "fused") < 0.1  # there is room


def test_the_reference_path_is_no_faster_than_the_loop():
    assert 0.8 < numbers.layer(4).times_as_fast("scan") < 1.3
    assert numbers.layer(4096).times_as_fast("scan") < 0.7
    assert min(numbers.layer(4096).ms, key=lambda way: -numbers.layer(4096).ms[way][1]) == "scan"


def test_what_is_left_of_it_in_a_step():
    fused, events, sparse = (
        {N: numbers.step(N, 0.02).times_as_fast(way) for N in measured.STEP_SIZES}
        for way in ("fused", "events", "sparse")
    )
    assert 2.5 < fused[50] < 4
    assert fused[1000] < 1.5
    for found in (fused, events):
        assert sorted(found.values(), reverse=True) == list(found.values()), "each larger layer gains less"
    assert 2.6 < min(events.values()) < max(events.values()) < 8
    assert all(1.8 < events[N] / fused[N] < 2.8 for N in events)
    assert min(sparse.values()) > 6.5
    assert sparse[200] == pytest.approx(7.5, abs=1)
    shares = {}
    for N, near in ((50, 64), (1000, 1024)):
        layer = numbers.layer(near).times_as_fast("fused")
        shares[N] = (1 - 1 / fused[N]) / (1 - 1 / layer)
        assert exercises.whole(shares[N], layer) == pytest.approx(fused[N])
    assert shares[50] > 2 * shares[1000]


def test_where_the_dense_path_wins():
    even = [numbers.break_even(N) for N in measured.STEP_SIZES]
    assert all(0.17 < density < 0.42 for density in even)
    assert even[-1] > 1.4 * even[0]
    for N in measured.STEP_SIZES:
        assert numbers.step(N, 0.4).best == "fused"
        assert numbers.step(N, 0.1).best == "events"


def test_packing_is_dear_for_small_layers_only():
    share = {N: np.divide(*(numbers.step(N, 0.02).ms[way][1] for way in ("pack", "events"))) for N in (50, 1000)}
    assert 0.25 < share[50] < 0.45
    assert share[1000] < 0.03


def test_the_price_of_the_sparse_gradient():
    narrow, wide = ([p.cosine[k] for p in numbers.steps()] for k in ("100", "10"))
    assert 0.98 < min(narrow) <= max(narrow) < 1
    assert 0.78 < min(wide) <= max(wide) < 0.96


def test_bench_rows_are_those_that_the_text_reads():
    rows = measured.load()["bench"]["rows"]
    assert all(row["value"] is not None for row in rows)
    layer = next(row for row in rows if "at most" in row["note"])
    assert layer["value"] < float(layer["note"].split()[-4])
    sparse = next(row for row in rows if row["metric"].startswith("whole step, sparse"))
    assert "cosine to the whole one" in sparse["note"]
    assert 8.5 < sparse["value"] < 12
    assert all((row["goal"] is None) == (row["met"] is None) for row in rows)
