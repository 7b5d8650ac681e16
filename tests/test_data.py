"""Encoders, data sets and tasks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnlearn import datasets, encoding, recipes, tasks
from snnlearn.training import evaluate


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_latency_by_hand():
    x = torch.tensor([1.0, 0.5, 0.11, 0.1, 0.0])
    spikes = encoding.latency(x, 50)
    assert spikes.shape == (50, 5)
    assert [s.nonzero().flatten().tolist() for s in spikes.T] == [[0], [20], [36], [], []]  # round((1-x) * 0.8 * 50)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), st.integers(1, 40))
def test_latency_one_spike_each_and_in_order(values, steps):
    x = torch.tensor(values)
    spikes = encoding.latency(x, steps, last=1.0, silent=0.0)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert spikes.sum(0).tolist() == [float(v > 0) for v in x.tolist()]
    when = spikes.argmax(0)[x > 0]
    order = x[x > 0].argsort(descending=True)
    assert (when[order].diff() >= 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_latency_in_half_precision_fires_once(dtype):
    x = torch.linspace(0.01, 1, 40).to(dtype)
    assert encoding.latency(x, 4000, silent=0.0).float().sum(0).tolist() == [1.0] * 40


def test_on_off():
    assert encoding.on_off(torch.tensor([[0.25, 1.0]])).tolist() == [[0.25, 1.0, 0.75, 0.0]]


def test_poisson_rates_and_seeds():
    rate = torch.tensor([0.0, 20.0, 200.0, 1000.0], dtype=torch.float64)
    spikes = encoding.poisson(rate, 20_000, dt=1e-3, generator=generator())
    p = rate * 1e-3
    spread = (p * (1 - p) / 20_000).sqrt()
    assert ((spikes.mean(0) - p).abs() <= 4 * spread).all()
    assert torch.equal(spikes, encoding.poisson(rate, 20_000, dt=1e-3, generator=generator()))
    assert not torch.equal(spikes, encoding.poisson(rate, 20_000, dt=1e-3, generator=generator(1)))
    centred = spikes[:, 2] - spikes[:, 2].mean()
    assert (centred[1:] * centred[:-1]).mean().abs() < 4 * 0.16 / math.sqrt(20_000)  # steps are independent


def test_current():
    x = torch.tensor([0.5, -1.0])
    assert encoding.current(x, 3).tolist() == [[0.5, -1.0]] * 3
    noisy = encoding.current(x, 5000, noise=0.2, generator=generator())
    assert torch.equal(noisy, encoding.current(x, 5000, noise=0.2, generator=generator()))
    torch.testing.assert_close(noisy.mean(0), x, atol=4 * 0.2 / 5000**0.5, rtol=0)
    torch.testing.assert_close(noisy.std(0), torch.full((2,), 0.2), atol=0.01, rtol=0)


GOOD = torch.tensor([0.5])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: encoding.latency(GOOD * 3, 5), ValueError, r"lie in 0\.\.1, got 1.5"),
        (lambda: encoding.latency(-GOOD, 5), ValueError, r"lie in 0\.\.1"),
        (lambda: encoding.latency(GOOD / 0, 5), ValueError, r"lie in 0\.\.1"),
        (lambda: encoding.latency(GOOD.int(), 5), TypeError, "floating-point"),
        (lambda: encoding.latency(GOOD[:0], 5), ValueError, "empty"),
        (lambda: encoding.latency(GOOD, 0), ValueError, "steps must be at least 1"),
        (lambda: encoding.latency(GOOD, 2.5), TypeError, "steps must be an integer"),
        (lambda: encoding.latency(GOOD, 5, last=0), ValueError, "last is a share"),
        (lambda: encoding.latency(GOOD, 5, silent=1.0), ValueError, "silent is a value"),
        (lambda: encoding.on_off(GOOD * 3), ValueError, r"lie in 0\.\.1"),
        (lambda: encoding.poisson(GOOD * math.nan, 5, generator=generator()), ValueError, "rates must lie"),
        (lambda: encoding.poisson(-GOOD, 5, generator=generator()), ValueError, "rates must lie"),
        (lambda: encoding.poisson(GOOD * 4000, 5, generator=generator()), ValueError, r"1/dt = 1000 Hz, got 2000"),
        (lambda: encoding.poisson(GOOD, 5, dt=0.0, generator=generator()), ValueError, "dt must be a positive"),
        (lambda: encoding.poisson(GOOD, 5, generator=0), TypeError, "torch.Generator, got int"),
        (lambda: encoding.poisson(GOOD.int(), 5, generator=generator()), TypeError, "floating-point"),
        (lambda: encoding.current(GOOD / 0, 5), ValueError, "NaN or infinity"),
        (lambda: encoding.current(GOOD, 5, noise=0.1), TypeError, "needs a generator"),
        (lambda: encoding.current(GOOD, 5, noise=-0.1), ValueError, "not negative"),
        (lambda: encoding.current(3.0, 5), TypeError, "got float"),
    ],
)
def test_bad_arguments_of_encoders(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_digits_splits_are_fixed_disjoint_and_complete():
    data, again, other = datasets.digits(), datasets.digits(), datasets.digits(1)
    parts = data.train, data.validation, data.test
    assert [len(p) for p in parts] == [1257, 180, 360]
    assert torch.equal(data.test.x, again.test.x)
    assert torch.equal(data.train.y, again.train.y)
    assert not torch.equal(data.test.y, other.test.y)
    together = torch.cat([p.x for p in parts]), torch.cat([p.x for p in (other.train, other.validation, other.test)])
    rows = [sorted(map(tuple, x.tolist())) for x in together]
    assert rows[0] == rows[1]  # the same 1797 images, whatever the split
    for p in parts:
        assert p.x.min() >= 0
        assert p.x.max() <= 1
        assert p.y.bincount(minlength=10).min() >= 0.08 * len(p)  # every class everywhere


def test_digits_task():
    task = tasks.digits(steps=30, hidden=16)
    data = task.load()
    x = task.encode(data.train.x[:3])
    assert x.shape == (30, 3, 128)
    net, same, other = (task.network(generator(s)) for s in (0, 0, 1))
    assert torch.equal(net.layers[0].synapse.weight, same.layers[0].synapse.weight)
    assert not torch.equal(net.layers[0].synapse.weight, other.layers[0].synapse.weight)
    hidden, out = net(x, recipes.bptt())
    assert hidden.s.shape == (30, 3, 16)
    assert hidden.s.sum() > 0
    assert out.s.shape == (30, 3, 10)
    state = torch.random.get_rng_state()
    task.network(generator())
    assert torch.equal(state, torch.random.get_rng_state())  # nothing is drawn from the global generator


def test_baselines_are_what_scikit_learn_says():
    shares = tasks.baselines(datasets.digits())
    assert 0.95 < shares["logistic regression"] < 0.99
    assert shares["logistic regression"] < shares["support vector machine"] < 1


def test_evaluation_is_done_in_evaluation_mode():
    task = tasks.digits(steps=10, hidden=4)
    net = task.network(generator())
    net.layers[1].synapse = torch.nn.Sequential(torch.nn.Dropout(0.9), net.layers[1].synapse)
    part = datasets.Split(*(v[:50] for v in task.load().train))
    shares = {evaluate(net, recipes.bptt(), task, part) for _ in range(4)}
    assert len(shares) == 1
    assert net.training


def test_evaluating_nothing_is_refused():
    task = tasks.digits(hidden=4)
    empty = datasets.Split(torch.zeros(0, 64), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="empty"):
        evaluate(task.network(generator()), recipes.bptt(), task, empty)
