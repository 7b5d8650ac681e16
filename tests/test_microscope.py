"""Rules beside each other: gradients against brute force, memory against a count by hand, nothing left changed."""

import copy
import json
import subprocess
import sys
import weakref

import pytest
import torch
from matplotlib.figure import Figure
from test_network import F64, LOSS, B, T, data
from test_network import build as build_by_seed
from torch import nn

from snnlearn import (
    Adjoint,
    FastSigmoid,
    Layer,
    Network,
    Reset,
    Rule,
    Unrolled,
    cuba_lif,
    losses,
    readout,
    recipes,
    to_zero,
)
from snnlearn.events import EventLIF, EventNetwork, EventProp
from snnlearn.footprint import Live, bytes_per_step, measure, memory
from snnlearn.losses import van_rossum
from snnlearn.microscope import compare
from snnlearn.plots import draw_comparison
from snnlearn.temporal import RTRL, Eligibility, Forward
from snnlearn.temporal.forward import Step, trainable

S = FastSigmoid(0.2)
RULES = {"bptt": Rule(S, Unrolled()), "exodus": Rule(S, Adjoint()), "slayer": Rule(S, Adjoint(Reset.IGNORED))}
OVER_TIME = losses.OverTime(losses.cross_entropy, mean=True)


def build(**settings):
    """The usual three layers, with weights that make 10 to 40 % of the steps spikes when they are recurrent."""
    return build_by_seed(seed=9, **settings)


def look(rules=RULES, net=None, loss=LOSS, **settings):
    """A comparison on the usual trial, without times."""
    net = build(recurrent=True) if net is None else net
    return compare(rules, net, *data(), loss, **{"repeats": 0, **settings})


def like(row):
    return [*row.weights.values(), row.whole]


# Gradients.


def test_exodus_is_bptt_and_slayer_is_not():
    net, (x, _) = build(recurrent=True), data()
    rates = [trace.s.mean().item() for trace in net(x, RULES["bptt"])[:-1]]
    assert all(0.1 < rate < 0.4 for rate in rates), rates
    found = look(net=net)
    assert list(found.rows) == list(RULES)
    assert list(found.rows["bptt"].weights) == [name for name, _ in net.named_parameters()]
    for row in found.rows.values():
        assert row.loss == found.rows["bptt"].loss
    for one in like(found.rows["exodus"]):
        assert one.cosine > 1 - 1e-12
        assert abs(one.ratio - 1) < 1e-12
        assert one.signs == 1
        assert one.bias < 1e-12
    assert found.rows["slayer"].whole.cosine < 0.99
    assert found.rows["slayer"].weights["layers.0.synapse.weight"].bias > 0.1


@pytest.mark.parametrize("reference", RULES)
def test_the_reference_is_exactly_1(reference):
    found = look(reference=reference, trials=4)
    assert found.reference == reference
    for one in like(found.rows[reference]):
        assert (one.cosine, one.ratio, one.signs, one.bias, one.noise) == (1, 1, 1, 0, 0)


class Made(Rule):
    """A rule with the gradients that a test gives it: ``table[k]`` for the trial whose first label is k."""

    def __init__(self, table):
        super().__init__(S)
        object.__setattr__(self, "table", table)

    def gradients(self, net, x, y, loss):
        return torch.zeros(()), self.table[y[0].item()]


def made(seed, trials=3, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    shapes = {"layers.0.synapse.weight": (3, 6), "layers.0.synapse.bias": (3,)}
    return [{k: scale * torch.randn(s, generator=g, **F64).round(decimals=1) for k, s in shapes.items()}] + [
        {k: torch.randn(s, generator=g, **F64) for k, s in shapes.items()} for _ in range(trials - 1)
    ]


def small(dtype=torch.float64):
    torch.manual_seed(0)
    return Network(Layer(nn.Linear(6, 3, dtype=dtype), readout()))


def labels(k):
    return torch.tensor([k] * B)


def tried(tables, trials=3):
    x = data()[0]
    more = [(x, labels(k)) for k in range(1, trials)]
    rules = {name: Made(table) for name, table in tables.items()}
    return compare(rules, small(), x, labels(0), LOSS, trials=more, repeats=0)


def test_every_number_against_brute_force():
    tables = {"ref": made(0), "other": made(1, scale=3.0)}
    assert (tables["ref"][0]["layers.0.synapse.weight"] == 0).sum() >= 1  # an entry that has no sign
    tables["other"][0]["layers.0.synapse.weight"].view(-1)[3] = 0.0
    found = tried(tables)
    row = found.rows["other"]
    assert found.trials == 3
    for name in [*tables["ref"][0], None]:
        flat = {
            rule: [[v for k, g in trial.items() if name in (k, None) for v in g.flatten().tolist()] for trial in table]
            for rule, table in tables.items()
        }
        g, r = flat["other"][0], flat["ref"][0]
        dot = sum(a * b for a, b in zip(g, r, strict=True))
        size = {k: sum(a * a for a in v) ** 0.5 for k, v in (("g", g), ("r", r))}
        same = [(a > 0) == (b > 0) and a != 0 for a, b in zip(g, r, strict=True) if b != 0]
        entries = range(len(r))
        d = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(flat["other"], flat["ref"], strict=True)]
        mean = [sum(d[k][i] for k in range(3)) / 3 for i in entries]
        mean_r = [sum(flat["ref"][k][i] for k in range(3)) / 3 for i in entries]
        variance = sum(sum((d[k][i] - mean[i]) ** 2 for k in range(3)) / 2 for i in entries)
        size_r = sum(a * a for a in mean_r) ** 0.5
        one = row.whole if name is None else row.weights[name]
        wanted = (
            dot / size["g"] / size["r"],
            size["g"] / size["r"],
            sum(same) / len(same),
            sum(a * a for a in mean) ** 0.5 / size_r,
            (variance / 3) ** 0.5 / size_r,
        )
        got = (one.cosine, one.ratio, one.signs, one.bias, one.noise)
        assert got == pytest.approx(wanted, rel=1e-12)
    assert 0 < row.whole.signs < 1


def test_huge_and_tiny_gradients_have_a_direction():
    ref = made(0, trials=1)
    times = lambda c: [{k: c * g for k, g in ref[0].items()}]  # noqa: E731
    found = tried({"ref": ref, "huge": times(1e200), "tiny": times(1e-200), "minus": times(-2.0)}, trials=1)
    for name, cosine, ratio in (("huge", 1, 1e200), ("tiny", 1, 1e-200), ("minus", -1, 2)):
        assert found.rows[name].whole.cosine == pytest.approx(cosine, abs=1e-12)
        assert found.rows[name].whole.ratio == pytest.approx(ratio)
    assert found.rows["minus"].whole.signs == 0
    assert found.rows["ref"].whole.noise is None


def test_what_is_not_defined_is_none_and_not_a_number():
    ref, zero = made(0, trials=1), [{k: torch.zeros_like(g) for k, g in made(0)[0].items()}]
    exploded = [{k: g * float("inf") for k, g in ref[0].items()}]
    found = tried({"ref": ref, "zero": zero, "exploded": exploded}, trials=1)
    whole = {name: row.whole for name, row in found.rows.items()}
    assert (whole["zero"].cosine, whole["zero"].ratio, whole["zero"].signs, whole["zero"].bias) == (None, 0, 0, 1)
    assert (whole["exploded"].cosine, whole["exploded"].ratio, whole["exploded"].bias) == (None, None, None)
    swapped = tried({"zero": zero, "ref": ref}, trials=1).rows["ref"].whole
    assert (swapped.cosine, swapped.ratio, swapped.signs, swapped.bias) == (None, None, None, None)
    json.dumps([found.record(), tried({"zero": zero, "ref": ref}, trials=1).record()], allow_nan=False)
    assert " nan" not in str(found)


class Noisy(Rule):
    """BPTT's gradient, and noise or a constant on top."""

    def __init__(self, noise, constant):
        super().__init__(S)
        object.__setattr__(self, "added", (noise, constant))

    def gradients(self, net, x, y, loss):
        value, found = super().gradients(net, x, y, loss)
        noise, constant = self.added
        return value, {k: g + noise * torch.randn(g.shape, **F64) + constant for k, g in found.items()}


def test_noise_is_not_mistaken_for_bias():
    net, (x, y) = build(), data()
    size = look({"bptt": RULES["bptt"]}, net).gradients["bptt"]["layers.0.synapse.weight"].norm().item()
    each = size / 30**0.5  # 30 weights: noise as large as the gradient itself
    rules = {"bptt": RULES["bptt"], "noisy": Noisy(each, 0.0), "biased": Noisy(each, 2 * each)}
    few, many = (
        {
            name: row.weights["layers.0.synapse.weight"]
            for name, row in compare(rules, net, x, y, LOSS, trials=[(x, y)] * (K - 1), repeats=0).rows.items()
        }
        for K in (4, 64)
    )
    assert many["noisy"].bias < 0.4 * few["noisy"].bias  # 1/4 is expected
    assert many["biased"].bias == pytest.approx(2, rel=0.1)
    assert few["biased"].bias == pytest.approx(2, rel=0.5)
    for found, wanted in ((few, 1 / 2), (many, 1 / 8)):
        for name in ("noisy", "biased"):
            assert found[name].noise == pytest.approx(wanted, rel=0.3)
        assert found["noisy"].bias < 2 * found["noisy"].noise
    assert many["biased"].bias > 10 * many["biased"].noise


def test_a_batch_split_by_sample():
    """The mean over equal parts is the whole batch, so the bias is that of one trial, with a noise of its own."""
    one, four, two = (look(trials=k).rows["slayer"].whole for k in (1, B, 2))
    assert one.noise is None
    for split in (four, two):
        assert split.bias == pytest.approx(one.bias, rel=1e-9)
        assert split.noise > 0
        assert (split.cosine, split.ratio) == (one.cosine, one.ratio)
    net, (x, y) = build(recurrent=True), data()
    by_hand = [(x[:, i : i + 1], y[i : i + 1]) for i in range(B)]
    listed = compare(RULES, net, *by_hand[0], LOSS, trials=by_hand[1:], repeats=0).rows["slayer"].whole
    assert (listed.bias, listed.noise) == pytest.approx((four.bias, four.noise), rel=1e-9)


def test_targets_in_time_are_split_by_sample_too():
    x = data()[0]
    wanted = torch.randn(T, B, 3, generator=torch.Generator().manual_seed(5), **F64)
    loss = losses.OverTime(losses.half_square, mean=True)
    one, four = (compare(RULES, build(), x, wanted, loss, trials=k, repeats=0).rows["slayer"].whole for k in (1, 4))
    assert four.bias == pytest.approx(one.bias, rel=1e-9)


# Memory.


def test_live_counts_a_storage_once_and_only_while_it_lives():
    old = torch.zeros(100)
    with Live() as live:
        view = old[3:]
        assert live.alive == 0
        made = view + 1  # 97 numbers
        assert live.alive == 4 * 97
        views = [made.view(97, 1), made[:5], made.detach()]
        assert live.alive == 4 * 97
        made.mul_(2)
        del made
        assert live.alive == 4 * 97
        del views
        assert live.alive == 0
        assert live.peak == 4 * 97
        literal = torch.tensor([1.0, 2.0])
        assert live.alive == 8
        del literal
        grown = torch.zeros(10)
        grown.resize_(50)
        assert live.alive == 200
        old.add_(1)
        split = torch.ones(6).split(2)
        assert live.alive == 224
    del grown, split
    assert live.alive == 0  # what dies later is counted off too


def test_live_inside_a_function_of_ones_own_and_under_func():
    class Keeps(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x * 2, x * 3

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(output[1])

        @staticmethod
        def backward(ctx, e, _):
            return e * ctx.saved_tensors[0]

    x = torch.ones(1000, requires_grad=True)
    with Live() as live:
        out = Keeps.apply(x)[0]
        assert live.alive == 8000  # the output, and the other, which only the node still holds
        del out
        assert live.alive == 0
        value, back = torch.func.vjp(lambda x: Keeps.apply(x)[0], x)
        assert live.alive == 8000
        del value, back
        assert live.alive == 0
        torch.func.vmap(torch.func.grad(lambda x: Keeps.apply(x)[0].sum()))(x.detach().view(10, 100))
        assert live.alive == 0
        assert live.peak >= 8000


def plain(out, y):
    return out.sum()


def test_bytes_by_hand():
    """BPTT keeps the membrane of each step and nothing else, where the reset subtracts; and there is the loss."""
    for dtype, size in ((torch.float32, 4), (torch.float64, 8)):
        net = Network(Layer(nn.Linear(6, 5, dtype=dtype), cuba_lif()))
        x, y = torch.ones(T, B, 6, dtype=dtype), torch.zeros(B)
        found = measure(Rule(S), net, x, y, plain)
        assert found.kept == T * B * 5 * size + size
        currents, traces = T * B * 5 * size, 3 * T * B * 5 * size
        assert found.peak > currents + traces
    recurrent = Network(Layer(nn.Linear(6, 5), cuba_lif(), nn.Linear(5, 5, bias=False)))
    assert measure(Rule(S), recurrent, torch.ones(T, B, 6), y, plain).kept == 2 * T * B * 5 * 4 + 4  # and its spikes


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("reset", [None, to_zero])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_kept_is_what_autograd_saves(rule, reset, recurrent):
    net, (x, y) = build(recurrent=recurrent, reset=reset), data()
    old = {t.untyped_storage().data_ptr() for t in (x, y, *net.parameters())}
    packed = weakref.WeakSet()  # a node that leads to no loss dies, and what it saved with it

    class Packed:
        def __init__(self, t):
            self.t = t
            packed.add(self)

    with torch.autograd.graph.saved_tensors_hooks(Packed, lambda p: p.t):
        value = rule.objective(net, x, y, LOSS)
    storages = {p.t.untyped_storage().data_ptr(): p.t.untyped_storage().nbytes() for p in packed}
    by_hooks = sum(n for pointer, n in storages.items() if pointer not in old)
    assert by_hooks > T * B * 13 * 8  # a membrane for each neuron and step
    assert measure(rule, net, x, y, LOSS).kept == by_hooks + value.element_size()


def test_the_first_measurement_of_a_process_is_as_the_second():
    """The first use of a dispatch mode may import torch's compiler, and an import can hold on to tensors."""
    code = (
        "import gc, torch\nfrom torch import nn\nfrom snnlearn import *\nfrom snnlearn.footprint import measure\n"
        "gc.disable()\n"  # which may come to the rescue
        "net = Network(Layer(nn.Linear(6, 5), cuba_lif()))\n"
        "run = lambda: measure(Rule(), net, torch.ones(9, 2, 6), torch.zeros(2), lambda out, y: out.sum())\n"
        "print(run() == run())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "True"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
@pytest.mark.parametrize("reset", ["subtract", "to_zero"])
def test_bytes_per_step(reset, recurrent, dtype):
    """In tensors of the layer's size. Under another layer its spikes are kept as well, for the weights above."""
    neuron = cuba_lif(reset=to_zero) if reset == "to_zero" else cuba_lif()
    back = nn.Linear(7, 7, bias=False, dtype=dtype) if recurrent else None
    layer, size = Layer(nn.Linear(6, 7, dtype=dtype), neuron, back), torch.finfo(dtype).bits // 8
    kept = {
        (name, stacked): bytes_per_step(rule, layer, (6,), stacked=stacked) / size
        for name, rule in RULES.items()
        for stacked in (False, True)
    }
    # autograd: U for the slope, for the reset U and s and their product's other factor, s for V and for the next W
    alone = (1 if reset == "subtract" else 3) + recurrent
    assert (kept["bptt", False], kept["bptt", True]) == (alone, alone + 1)
    for name in ("exodus", "slayer"):
        assert 1 <= kept[name, False] <= kept[name, True] <= 2
        assert kept[name, False] <= kept["bptt", False]
        assert kept[name, True] <= kept["bptt", True]
        if recurrent or reset == "to_zero":
            assert kept[name, True] < kept["bptt", True]


class Flat(Forward):
    """A method forward in time that carries a number of its own; with ``hoards``, one more for each step."""

    def __init__(self, hoards=False):
        self.hoards = hoards

    def start(self, net, x, loss, rule):
        return [x.new_zeros(1000)]

    def step(self, net, carry, x, target, loss, rule):
        carry = [*carry, x.new_ones(1000)] if self.hoards else [carry[0] + 1]
        return Step(carry, carry[0].sum(), {k: torch.zeros_like(p) for k, p in trainable(net).items()})


def trial(T, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (torch.rand(T, B, 6, generator=g) < 0.3).double(), torch.randint(3, (B,), generator=g)


def test_forward_methods_by_hand():
    net, step = small(), 8000  # bytes of what is carried
    gradients = sum(8 * p.numel() for p in net.parameters())
    flat = memory(Rule(S, Flat()), net, trial, OVER_TIME, (10, 4000))
    # between two steps: what is carried, and the loss and gradients of the step, which the method still holds
    assert flat[10].kept == flat[4000].kept
    assert step + gradients <= flat[10].kept <= step + 2 * gradients + 100
    assert flat[10].peak == flat[4000].peak
    hoarded = memory(Rule(S, Flat(hoards=True)), net, trial, OVER_TIME, (10, 20))
    assert hoarded[20].kept - hoarded[10].kept == 10 * step


@pytest.mark.parametrize(("method", "long"), [(Eligibility(), 600), (RTRL(), 60)], ids=["eligibility", "rtrl"])
def test_forward_methods_do_not_grow_and_backward_methods_do(method, long):
    net = small()
    short = memory(Rule(S, method), net, trial, OVER_TIME, (20, long))
    assert short[20] == short[long]  # to the byte
    for rule in RULES.values():
        found = memory(rule, net, trial, OVER_TIME, (20, 40, 60))
        assert found[60].kept - found[40].kept == found[40].kept - found[20].kept > 20 * B * 3 * 8 - 1


@pytest.mark.parametrize("name", ["rtrl", "ottt", "eprop", "superspike"])
def test_forward_rules_are_flat_from_100_to_4000_steps(name):
    hidden, top = Layer(nn.Linear(6, 4, **F64), cuba_lif()), Layer(nn.Linear(4, 3, **F64), readout())
    net = Network(hidden, top)
    wanted = torch.rand(4000, 1, 3, generator=torch.Generator().manual_seed(0)).double()

    def make(T):
        x, y = trial(T)
        return x[:, :1], wanted[:T] if name == "superspike" else y[:1]

    loss = van_rossum() if name == "superspike" else OVER_TIME
    found = memory(recipes.listing()[name](), net, make, loss, (100, 4000))
    assert found[4000].peak - found[100].peak < 1e6
    assert found[4000].kept == found[100].kept
    bptt = memory(recipes.bptt(), net, make, loss, (100, 400))
    assert bptt[400].kept > 3 * bptt[100].kept


def test_forward_rules_have_their_place_in_a_comparison():
    rules = {**RULES, "rtrl": Rule(S, RTRL()), "traces": Rule(S, Eligibility())}
    found = compare(rules, small(), *trial(12), OVER_TIME, repeats=0)
    assert found.refused == {}
    assert found.rows["rtrl"].whole.cosine > 1 - 1e-12
    assert found.rows["rtrl"].memory == measure(rules["rtrl"], small(), *trial(12), OVER_TIME)
    with_another_loss = compare(rules, small(), *trial(12), LOSS, repeats=0)
    assert list(with_another_loss.rows) == list(RULES)
    assert "needs a loss that is a sum over time" in with_another_loss.refused["rtrl"]
    assert "rtrl: left out, since RTRL learns forward in time" in str(with_another_loss)


def test_a_network_of_events_has_its_place_too():
    torch.manual_seed(0)
    layers = [EventLIF(nn.Linear(n, m, bias=False, **F64), horizon=0.1) for n, m in ((6, 12), (12, 2))]
    with torch.no_grad():
        for layer in layers:
            layer.synapse.weight.abs_().mul_(8)
    net, t = EventNetwork(*layers), 0.05 * torch.rand(3, 6, **F64)

    def loss(events, y):
        return (events.first().clamp(max=0.1) - y).square().sum()

    rules, y = {"eventprop": Rule(temporal=EventProp()), **RULES}, torch.zeros(3, 2, **F64)
    found = compare(rules, net, t, y, loss, trials=[(t / 2, y)], repeats=0)
    assert (list(found.rows), list(found.refused)) == (["eventprop"], list(RULES))
    assert found.rows["eventprop"].whole.cosine == 1
    assert found.rows["eventprop"].memory.kept > 0
    with pytest.raises(TypeError, match=r"only inputs \(T, B, \*features\) can be split by sample"):
        compare(rules, net, t, y, loss, trials=3)


# What a comparison leaves behind.


def test_the_network_and_random_numbers_are_left_as_they_were():
    torch.manual_seed(3)
    first = nn.Sequential(nn.Linear(6, 5, **F64), nn.BatchNorm1d(5, **F64), nn.Dropout(0.4))
    net = Network(Layer(first, cuba_lif(tau_mem=8e-3, theta=0.4)), Layer(nn.Linear(5, 3, **F64), readout()))
    net.layers[1].synapse.weight.grad = torch.ones(3, 5, **F64)
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    found = look(net=net, trials=2, repeats=1)
    assert found.rows["exodus"].whole.cosine > 1 - 1e-12  # the same neurons were dropped
    assert found.rows["slayer"].whole.cosine < 1 - 1e-6
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert list(grads) == ["layers.1.synapse.weight"]
    assert torch.equal(grads["layers.1.synapse.weight"], torch.ones(3, 5, **F64))
    assert net.training
    assert torch.equal(torch.get_rng_state(), random)
    assert look(net=net, trials=2).record() != look(net=net, trials=2, seed=1).record()
    net.eval()
    look(net=net)
    assert not net.training
    assert not net.layers[0].synapse.training


def test_twice_the_same_and_through_json():
    one, two = look(trials=2), look(trials=2)
    assert one.record() == two.record()
    assert json.loads(json.dumps(one.record(), allow_nan=False)) == one.record()
    assert "gradients" not in one.record()
    assert set(one.gradients) == set(RULES)
    for name, g in RULES["slayer"].gradients(build(recurrent=True), *data(), LOSS)[1].items():
        assert torch.equal(one.gradients["slayer"][name], g)
    assert one.record()["rows"]["bptt"]["memory"]["kept"] == one.rows["bptt"].memory.kept > 0
    assert (one.rows["bptt"].seconds, one.rows["bptt"].spread) == (None, None)


def test_rules_take_turns_when_time_is_taken():
    calls = []

    class Logged(Rule):
        def gradients(self, *arguments):
            calls.append(id(self))
            return super().gradients(*arguments)

    rules = {"a": Logged(S), "b": Logged(S)}
    found = look(rules, small(), repeats=3)
    assert calls == [id(rule) for rule in rules.values()] * 4  # once for the gradients
    for row in found.rows.values():
        assert row.seconds > 0
        assert row.spread >= 0
    once = look(rules, small(), repeats=1).rows["a"]
    assert once.seconds > 0
    assert once.spread is None


def test_the_table_says_what_was_found():
    found = look(trials=2)
    lines = str(found).splitlines()
    assert lines[0].split() == [
        "rule",
        "weights",
        *"cosine|norm ratio|same sign|bias ± standard error".replace("|", " ").split(),
    ]
    one = found.rows["slayer"].weights["layers.0.synapse.weight"]
    (line,) = [x.split() for x in lines if x.startswith("slayer  layers.0.synapse.weight ")]
    wanted = f"{one.cosine:.4f} {one.ratio:.4g} {one.signs:.1%} {one.bias:.2g} ± {one.noise:.2g}"
    assert line[2:] == wanted.split()
    kept = found.rows["slayer"].memory.kept
    assert any(x.split()[0] == "slayer" and f"{kept / 1e3:.1f}" in x.split() for x in lines if x)
    assert max(map(len, lines)) <= 110
    assert "g_ref that of bptt" in str(found)


# Bad input.


def test_refusals():
    x, y = data()
    net = build()
    with pytest.raises(TypeError, match="rules must be a dict of rules by name"):
        compare([RULES["bptt"]], net, x, y, LOSS)
    with pytest.raises(TypeError, match="rules must be a dict"):
        compare({}, net, x, y, LOSS)
    with pytest.raises(TypeError, match=r"'bptt' must be a Rule such as .*, got function"):
        compare({"bptt": look}, net, x, y, LOSS)
    with pytest.raises(ValueError, match="reference 'sllayer' is none of the rules bptt, exodus, slayer"):
        look(reference="sllayer")
    with pytest.raises(
        TypeError, match="the reference 'bptt' gives no gradient: a rule works on a Network, got Linear"
    ):
        look(net=nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"the reference 'bptt' gives no gradient: .*NaN"):
        compare(RULES, net, x * float("nan"), y, LOSS)
    with pytest.raises(TypeError, match="the reference 'traces' gives no gradient"):
        look({"traces": Rule(S, Eligibility()), **RULES})
    with pytest.raises(ValueError, match="trials must be at least 1, got 0"):
        look(trials=0)
    with pytest.raises(ValueError, match="4 samples cannot be split into 9 trials"):
        look(trials=9)
    with pytest.raises(TypeError, match=r"trials must be a number or a list of batches \(x, y\), got list"):
        look(trials=[x])
    with pytest.raises(TypeError, match="got float"):
        look(trials=2.5)
    with pytest.raises(ValueError, match=r"targets \(3,\) do not belong to 4 samples"):
        compare(RULES, net, x, y[:3], lambda out, y: out.sum(), trials=2)
    with pytest.raises(ValueError, match="repeats must be at least 0"):
        look(repeats=-1)
    with pytest.raises(ValueError, match="no parameter of the network requires a gradient"):
        look(net=build().requires_grad_(False), rules={"made": Made([{}] * 3)})
    with pytest.raises(ValueError, match="a length must be at least 1, got 0"):
        memory(RULES["bptt"], net, trial, LOSS, [0])
    with pytest.raises(ValueError, match="lengths must be two, 1 <= short < long"):
        bytes_per_step(RULES["bptt"], net.layers[0], (6,), lengths=(9, 9))


# The picture.


def test_the_picture_shows_the_numbers():
    rules = {**RULES, "traces": Rule(S, Eligibility())}
    found = look(rules, build())
    figure = Figure(figsize=(10, 3), layout="constrained")
    cosine, ratio, kept = draw_comparison(figure, found)
    figure.draw_without_rendering()
    names = [text.get_text() for text in cosine.get_yticklabels()]
    assert names == [*RULES, "traces"]
    weights = list(found.rows["bptt"].weights)
    for ax, what in ((cosine, "cosine"), (ratio, "ratio")):
        marks = {line.get_label(): line.get_xdata() for line in ax.get_lines() if line.get_label() in weights}
        assert list(marks) == weights
        for weight, x in marks.items():
            assert list(x) == [getattr(row.weights[weight], what) for row in found.rows.values()]
        low, high = ax.get_xlim()
        assert all(low < value < high for x in marks.values() for value in x)
    assert ratio.get_xscale() == "log"
    assert [bar.get_width() for bar in kept.patches] == [row.memory.kept / 1e3 for row in found.rows.values()]
    assert kept.get_xlim()[0] == 0
    assert "kB" in kept.get_xlabel()
    assert "bptt" in cosine.get_xlabel()
    assert "left out" in [text.get_text() for text in cosine.texts]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == weights


def test_a_picture_of_what_is_not_defined():
    ref, zero = made(0, trials=1), [{k: torch.zeros_like(g) for k, g in made(0)[0].items()}]
    found = tried({"ref": ref, "zero": zero}, trials=1)
    figure = Figure(layout="constrained")
    cosine, *_ = draw_comparison(figure, found)
    figure.draw_without_rendering()
    assert [len(line.get_xdata()) for line in cosine.get_lines() if line.get_label() in ref[0]] == [1, 1]


def test_feedback_that_learns_is_compared_by_the_weights_that_all_rules_have():
    from trials import SURROGATE, alive

    from snnlearn import Adjoint, FeedbackAlignment
    from snnlearn.losses import OverTime, cross_entropy

    net, x = alive(1, "CuBa", layers=2)
    learned = FeedbackAlignment.kolen_pollack(net, torch.Generator().manual_seed(0))
    rules = {"bptt": Rule(SURROGATE), "kolen pollack": Rule(SURROGATE, Adjoint(), learned)}
    found = compare(rules, net, x, torch.arange(3), OverTime(cross_entropy, mean=True), repeats=0)
    assert found.rows["kolen pollack"].weights.keys() == found.rows["bptt"].weights.keys()
    assert found.rows["kolen pollack"].whole.cosine < 0.999
