"""The generated tasks: their definitions, what a model without time makes of them, and that networks learn them."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from snnlearn import Adjoint, FastSigmoid, Layer, Network, Rule, recipes, training
from snnlearn.datasets import Dataset, Recordings, Split
from snnlearn.datasets import generated as data
from snnlearn.lessons import eprop_tasks, spike_times_training
from snnlearn.losses import van_rossum
from snnlearn.neurons import cuba_lif
from snnlearn.tasks import generated as tasks

FAST = {"cue": 15, "gap": 5, "delay": (20, 60), "recall": 10}


def small_cues(samples=(40, 20, 30), **changed):
    return data.cue_accumulation(samples, **(FAST | changed))


MADE = {
    "temporal_xor": lambda **more: data.temporal_xor((40, 20, 30), **more),
    "delayed_xor": lambda **more: data.delayed_xor((40, 20, 30), **more),
    "yin_yang": lambda **more: data.yin_yang((40, 20, 30), **more),
    "randman": lambda **more: data.randman((40, 20, 30), **more),
    "cue_accumulation": small_cues,
}


def content(x):
    return [x.times, x.units, x.pointer] if isinstance(x, Recordings) else [x]


def same(a, b):
    pairs = zip(content(a), content(b), strict=True)
    return all(p.shape == q.shape and torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("name", MADE)
def test_the_seed_decides_and_splits_differ(name):
    first, again, other = MADE[name](), MADE[name](), MADE[name](seed=1)
    for a, b, c in zip(first[:3], again[:3], other[:3], strict=True):
        assert same(a.x, b.x)
        assert torch.equal(a.y, b.y)
        assert not same(a.x, c.x)
    assert [len(split.x) for split in first[:3]] == [len(split) for split in first[:3]] == [40, 20, 30]
    assert not same(first.train.x[:20], first.validation.x)
    assert set(first.train.y.tolist()) == set(range(first.classes))
    assert len(first.names) in (0, first.classes)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("samples", [(40, 20), (40, 0, 30), (40, 2.5, 30), 40])
def test_samples_that_are_none_are_refused(name, samples):
    with pytest.raises((TypeError, ValueError), match="samples"):
        getattr(data, name)(samples)
    with pytest.raises(ValueError, match="seed"):
        MADE[name](seed=-1)


# Temporal XOR.


def test_temporal_xor_without_jitter_is_the_four_patterns_of_the_lesson():
    x, y = data.temporal_xor((40, 4, 4), jitter=0.0).train
    table = {tuple(row): int(label) for row, label in zip(x.tolist(), y, strict=True)}
    late = spike_times_training.LATE
    patterns = (spike_times_training.PATTERNS / late).tolist()
    assert table == {tuple(row): int(label) for row, label in zip(patterns, spike_times_training.LABELS, strict=True)}


def test_temporal_xor_has_early_and_late_spikes_equally_often():
    x, y = data.temporal_xor((400, 4, 4), jitter=0.2).train
    early, late = x <= 0.2, x >= 0.8
    assert (early | late).all()
    assert torch.equal((late[:, 0] != late[:, 1]).long(), y)
    assert [int(((late[:, 0] == a) & (late[:, 1] == b)).sum()) for a in (0, 1) for b in (0, 1)] == [100] * 4
    assert x[early].max() > 0.19
    assert x[late].min() < 0.81
    assert 0 <= x.min() < 0.01 < 0.99 < x.max() <= 1


def test_temporal_xor_refuses_times_that_overlap():
    with pytest.raises(ValueError, match=r"jitter .* got 0\.5"):
        data.temporal_xor(jitter=0.5)


def linear_share(dataset, see=lambda x: x):
    model = LogisticRegression(max_iter=2000, C=100.0)
    (x, y), (test_x, test_y) = ((see(split.x).flatten(1).numpy(), split.y) for split in (dataset.train, dataset.test))
    return model.fit(x, y).score(test_x, test_y)


def test_no_line_parts_temporal_xor():
    assert abs(linear_share(data.temporal_xor((800, 4, 800))) - 0.5) < 0.06


# Delayed XOR.


@pytest.mark.parametrize("delay", [0, 40])
def test_delayed_xor_is_that_of_the_lesson(delay):
    made = data.delayed_xor((50, 1, 1), delay=delay, seed=3).train
    x, y = eprop_tasks.delayed_xor(torch.Generator().manual_seed(3), 50, delay)
    assert torch.equal(made.x.dense(delay + 30).double(), x)
    assert torch.equal(made.y, y[-1])


def test_delayed_xor_is_told_by_which_groups_fired():
    made = data.delayed_xor((300, 1, 1), delay=15).train
    spikes = made.x.dense(45)
    first, second = spikes[:10].sum(0), spikes[25:35].sum(0)
    bits = [part[:, 5:].sum(1) > part[:, :5].sum(1) for part in (first, second)]
    assert torch.equal(bits[0] ^ bits[1], made.y.bool())
    assert spikes[10:25].sum() == spikes[35:].sum() == 0
    for part in (first, second):
        assert torch.equal(part[:, 5:].sum(1) > 0, part[:, :5].sum(1) == 0)
        assert abs(part.sum() / (300 * 50) - 0.3) < 0.02


def test_a_linear_model_of_counts_does_not_solve_delayed_xor():
    made = data.delayed_xor((1000, 1, 1000))
    assert abs(linear_share(made, Recordings.counts) - 0.5) < 0.06
    assert abs(linear_share(made, lambda x: x.dense(70).transpose(0, 1)) - 0.5) < 0.06


# Yin-Yang.


def drawn_with_a_pen(x, y):
    """The class from circles and half-planes, in coordinates centred on the disc and scaled by its radius."""
    u, v = 2 * x - 1, 2 * y - 1
    in_left, in_right = (u + 0.5) ** 2 + v**2, (u - 0.5) ** 2 + v**2
    if min(in_left, in_right) < 0.2**2:
        return 2
    if in_left <= 0.25:  # the left lobe is yin, the right one yang
        return 0
    if in_right <= 0.25:
        return 1
    return 0 if v > 0 else 1


def test_yin_yang_regions():
    x, y = data.yin_yang((2000, 1, 1)).train
    assert [drawn_with_a_pen(*point[:2]) for point in x.double().tolist()] == y.tolist()
    assert ((x[:, :2] - 0.5).square().sum(1) <= 0.25).all()
    assert torch.equal(x[:, 2:], 1 - x[:, :2])
    assert sorted(y.bincount().tolist()) == [666, 667, 667]


def test_yin_yang_is_its_own_opposite_turned_by_half():
    points = torch.rand(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = points[(points - 0.5).square().sum(1) < 0.25]
    here, there = data.yin_yang_class(points), data.yin_yang_class(1 - points)
    assert torch.equal(torch.tensor([1, 0, 2])[here], there)


def test_yin_yang_points_are_uniform_within_a_class():
    x, y = data.yin_yang((12000, 1, 1)).train
    dots = x[y == 2, :2]
    left = dots[:, 0] < 0.5
    assert abs(left.double().mean() - 0.5) < 0.03
    distance = (dots[left] - torch.tensor([0.25, 0.5])).norm(dim=1)
    assert abs((distance < 0.1 / math.sqrt(2)).double().mean() - 0.5) < 0.04  # half of the area
    yin = x[y == 0, :2]
    lobe = (yin - torch.tensor([0.25, 0.5])).norm(dim=1) < 0.25
    area = math.pi * (0.5**2 / 2 - 0.1**2)  # of yin: half of what the two dots leave
    assert abs(lobe.double().mean() - math.pi * (0.25**2 - 0.1**2) / area) < 0.03


def test_a_linear_model_gets_two_thirds_of_yin_yang():
    assert 0.60 < linear_share(data.yin_yang()) < 0.69  # the authors: 0.638


def test_yin_yang_refuses_dots_that_do_not_fit():
    with pytest.raises(ValueError, match="dot"):
        data.yin_yang(dot=0.3)
    with pytest.raises(ValueError, match="radius"):
        data.yin_yang(radius=0.6)


# Randman.


def test_a_manifold_is_the_formula():
    manifold = data.random_manifold(2, 2, 1.5, torch.Generator().manual_seed(0), waves=3)
    A, F, P = manifold.theta.tolist()
    z = [0.3, 0.8]
    for i in range(2):
        wanted = 1.0
        for d in range(2):
            wanted *= sum(
                A[i][d][k - 1] / k**1.5 * math.sin(2 * math.pi * (k * F[i][d][k - 1] * z[d] + P[i][d][k - 1]))
                for k in (1, 2, 3)
            )
        assert manifold(torch.tensor([z], dtype=torch.float64))[0, i].item() == pytest.approx(wanted, rel=1e-12)


def test_manifolds_are_smooth_and_smoother_with_alpha():
    z = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    rough = []
    for alpha in (1.1, 2.0, 4.0):
        f = data.random_manifold(20, 1, alpha, torch.Generator().manual_seed(0))(z)
        f = (f - f.amin(0)) / (f.amax(0) - f.amin(0))
        rough.append(float(f.diff(dim=0).abs().sum(0).mean()))  # the path's length
    assert rough[0] > 2 * rough[1] > 2 * rough[2]
    coarse = f[::10].diff(dim=0).abs().max()
    assert f.diff(dim=0).abs().max() < 0.2 * coarse  # a tenth of the step, about a tenth of the change


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_a_manifold_has_its_dimension(dimension):
    manifold = data.random_manifold(10, dimension, 3.0, torch.Generator().manual_seed(1))
    z = torch.full((1, dimension), 0.4, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(lambda z: manifold(z)[0], z)[:, 0]
    assert torch.linalg.matrix_rank(J) == dimension
    near = manifold(z + 1e-4 * torch.randn(200, dimension, dtype=torch.float64))
    values = torch.linalg.svdvals(near - near.mean(0))
    assert values[dimension - 1] > 50 * values[dimension]


def test_randman_splits_lie_on_the_same_manifolds():
    made = data.randman((2000, 10, 200), units=8)
    x, y = made.train
    distance = torch.cdist(made.test.x, x)
    assert torch.equal(y[distance.argmin(1)], made.test.y)  # the nearest neighbour knows the class
    assert made.train.x.min() == 0
    assert made.train.x.max() == 1
    more = data.randman((2000, 10, 400), units=8)
    assert torch.cdist(more.train.x, x).min(1).values.max() < 0.1  # other points, the same manifolds


def test_randman_counts_tell_nothing_and_times_are_not_linear():
    made = data.randman((1000, 10, 1000))
    counts = lambda x: tasks.at_times(x, 30, 50).sum(0)  # noqa: E731
    assert (counts(made.train.x) == 1).all()
    assert linear_share(made, counts) < 0.15
    assert linear_share(made) < 0.85


@pytest.mark.parametrize(
    ("wrong", "said"), [({"alpha": 1.0}, "alpha"), ({"classes": 1}, "classes"), ({"dimension": 0}, "dimension")]
)
def test_randman_refuses(wrong, said):
    with pytest.raises(ValueError, match=said):
        data.randman(**wrong)


def test_randman_needs_two_samples_of_a_class():
    with pytest.raises(ValueError, match="two samples"):
        data.randman((3, 2, 1))


# Poisson targets.


def test_poisson_targets_are_poisson():
    x, y = data.poisson_targets(20, outputs=3, input_rate=10.0, target_rate=20.0)
    assert x.shape == (500, 20, 100)
    assert y.shape == (500, 20, 3)
    assert set(x.unique().tolist()) == set(y.unique().tolist()) == {0.0, 1.0}
    assert abs(x.mean() / 0.010 - 1) < 0.02
    assert y[:50].sum() == 0
    assert abs(y[50:].mean() / 0.020 - 1) < 0.12
    counts = x.sum(0)
    assert abs(counts.var() / counts.mean() - 1) < 0.1  # its variance is its mean
    same_seed = data.poisson_targets(20, outputs=3, input_rate=10.0, target_rate=20.0)
    assert torch.equal(same_seed.x, x)
    assert torch.equal(same_seed.y, y)
    assert not torch.equal(data.poisson_targets(20, outputs=3, seed=1).x, x)


def test_poisson_targets_refuse_a_rate_beyond_a_spike_a_step():
    with pytest.raises(ValueError, match="1000 Hz"):
        data.poisson_targets(target_rate=2000.0)


def test_superspike_approaches_poisson_targets():
    x, y = data.poisson_targets(steps=100, outputs=2, quiet=20, target_rate=40.0)
    draw = torch.Generator().manual_seed(0)
    net = Network(Layer(tasks.linear(100, 2, 0.05, draw), cuba_lif(tau_mem=10e-3, tau_syn=5e-3)))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append(recipes.superspike().backward(net, x, y, van_rossum()).item())
        optimizer.step()
    assert y.sum() > 2
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0]


# Cue accumulation.


def test_the_side_of_most_cues_is_the_label():
    made = small_cues((200, 1, 1), lean=0.7, rate=300.0, noise=0.0).train
    x = made.x.dense(7 * 20 + 60 + 10)
    assert torch.equal(x[:-10, :, 20:30], torch.zeros_like(x[:-10, :, 20:30]))
    assert (x[-10:, :, 20:30].sum((0, 2)) > 0).all()
    right, begins = torch.zeros(200), []
    for b in range(200):
        left, other = x[:-10, b, :10].sum(1), x[:-10, b, 10:20].sum(1)
        begin = int((left + other).nonzero()[0])
        begins.append(begin)
        for m in range(7):
            cue = slice(begin + 20 * m, begin + 20 * m + 15)
            a, b_ = left[cue].sum(), other[cue].sum()
            assert min(a, b_) == 0  # at 300 Hz ten inputs fire at once: the first spike is where the cue begins
            right[b] += b_ > a
        assert left[begin + 140 :].sum() == other[begin + 140 :].sum() == 0
    assert torch.equal((right > 3.5).long(), made.y)
    assert min(begins) < 5
    assert max(begins) > 35  # delays of 60 and of 20 ms
    assert 0.6 < made.y.double().mean() / (1 - made.y.double().mean()) < 1.6
    share = torch.maximum(right, 7 - right).mean() / 7
    assert 0.68 < share < 0.78  # 0.74 at a lean of 0.7


def test_cues_fire_at_their_rates():
    made = data.cue_accumulation((64, 1, 1)).train
    x = made.x.dense(7 * 150 + 1500 + 150)
    assert x.shape == (2700, 64, 40)
    assert abs(1000 * x[:, :, 30:].mean() - 10) < 0.3
    assert abs(1000 * x[-150:, :, 20:30].mean() - 40) < 1.5
    sides = x[:, :, :20].sum() / (64 * 10 * 7 * 0.1)  # spikes a second of ten inputs, 0.1 s a cue
    assert abs(sides - 40) < 1.5


def test_cue_counts_decide():
    made = data.cue_accumulation((400, 1, 400), **FAST)
    assert linear_share(made, Recordings.counts) > 0.75


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"cues": 6}, "odd"), ({"delay": (9, 3)}, "order"), ({"rate": 1e4}, "rate"), ({"lean": 2}, "lean")],
)
def test_cue_accumulation_refuses(wrong, said):
    with pytest.raises(ValueError, match=said):
        data.cue_accumulation(**wrong)


# The tasks.


def fewer(task, train=300, test=200):
    """The same with fewer samples."""
    made = task.load()
    cut = [Split(split.x[:n], split.y[:n]) for split, n in zip(made[:3], (train, test, test), strict=True)]
    return replace(task, load=lambda: Dataset(cut[0], cut[1], cut[2], made.classes))


def learned(task, rule=None, **changed):
    """Test accuracy after a short training, by the adjoint unless another rule is given."""
    rule = Rule(FastSigmoid(width=0.5), Adjoint()) if rule is None else rule
    return training.train(replace(task, **changed), rule)[1].test_accuracy


SHORT = {
    "yinyang": (lambda: fewer(tasks.yinyang(40), 1000, 400), {"epochs": 6}, 0.72),  # beyond what a linear model can do
    "temporal-xor": (tasks.temporal_xor, {"epochs": 20}, 0.9),
    "randman": (lambda: fewer(tasks.randman(), 1000, 300), {"epochs": 12}, 0.45),
    "delayed-xor": (lambda: fewer(tasks.delayed_xor(), 1500, 400), {"epochs": 8, "rate": 4e-3}, 0.9),
    "cue-accumulation": (
        lambda: fewer(tasks.cue_accumulation(20, adaptive=False), 400, 200),
        {"epochs": 5, "batch": 32},
        0.75,
    ),
}


@pytest.mark.parametrize("name", tasks.TASKS)
def test_a_short_training_beats_chance_clearly(name):
    make, settings, wanted = SHORT[name]
    assert learned(make(), **settings) > wanted


def test_delayed_xor_needs_recurrence():
    settings = {"epochs": 8, "rate": 4e-3}
    assert learned(fewer(tasks.delayed_xor(recurrent=False), 1500, 400), **settings) < 0.6
    assert learned(fewer(tasks.delayed_xor(delay=0, recurrent=False), 1500, 400), **settings) > 0.9


def test_shuffled_labels_are_not_learned():
    task = tasks.temporal_xor()
    made = task.load()
    y = made.train.y[torch.randperm(len(made.train), generator=torch.Generator().manual_seed(0))]
    wrong = made._replace(train=Split(made.train.x, y))
    assert learned(replace(task, load=lambda: wrong), epochs=5) < 0.7


def test_adaptive_neurons_accumulate_by_eprop():
    task = fewer(tasks.cue_accumulation(16), 128, 200)
    assert learned(task, recipes.eprop(), epochs=4, batch=16) > 0.7


@pytest.mark.parametrize("name", tasks.TASKS)
@pytest.mark.parametrize("rule", recipes.listing())
def test_a_rule_works_on_a_task_or_says_why_not(name, rule):
    make = tasks.SUITED[name].get(rule, tasks.TASKS[name])
    task = make()
    assert task.name == name
    draw = torch.Generator().manual_seed(0)
    net = task.network(draw)
    if rule not in tasks.SUITED[name] and rule in ("eventprop", "tssl_bp"):
        with pytest.raises((TypeError, ValueError), match=r"EventNetwork|reset to zero|Adaptive"):
            recipes.make(rule, net, draw).check(net, task.loss)
        return
    found = recipes.make(rule, net, draw)
    found.check(net, task.loss)
    if rule in ("rtrl", "superspike", "eprop", "ottt", "decolle"):  # forward in time, and slow: a few steps are enough
        return
    x, y = (part[:4] for part in LOAD[name]().train)
    found.backward(net, task.encode(x), y, task.loss)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert any(p.grad.any() for p in net.parameters())


SMALL = (20, 10, 10)
LOAD = {
    "temporal-xor": partial(data.temporal_xor, SMALL),
    "delayed-xor": partial(data.delayed_xor, SMALL),
    "yinyang": partial(data.yin_yang, SMALL),
    "randman": partial(data.randman, SMALL),
    "cue-accumulation": partial(data.cue_accumulation, SMALL, **(FAST | {"delay": (50, 100), "recall": 20})),
}


def test_what_is_asked_at_the_end_only():
    loss = tasks.asked(5, 3, last=2, scale=2.0)
    out = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 2, 1, 1])
    value = loss(out, y)
    wanted = sum(torch.nn.functional.cross_entropy(2 * out[n], y) for n in (3, 4)) / 2
    assert value.item() == pytest.approx(wanted.item(), rel=1e-6)
    value.backward()
    assert (out.grad[:3] == 0).all()
    assert (out.grad[3:] != 0).all()
    assert torch.allclose(loss.scores(out), 2 * out[3:].mean(0))
    with pytest.raises(ValueError, match="shape"):
        loss.scores(out[:4])


def test_spikes_come_at_their_times():
    x = tasks.at_times(torch.tensor([[0.0, 0.5, 1.0]]), last=30, steps=50)
    assert x.shape == (50, 1, 3)
    assert x.nonzero()[:, 0].tolist() == [0, 15, 30]
    assert x.sum() == 3
