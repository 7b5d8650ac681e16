"""Filters against their kernels, written as sums."""

import math

import pytest
import torch
from golden import Golden, equal

from snnlearn.filters import IDENTITY, Cascade, Exponentials, filtered

X = torch.randn(30, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def convolved(kernel, x):
    return torch.stack([sum(kernel[n - m] * x[m] for m in range(n + 1)) for n in range(len(x))])


@pytest.mark.parametrize(
    ("filter", "kernel"),
    [
        (Exponentials((0.9, 0.5), (2.0, -1.0)), lambda k: 2 * 0.9**k - 0.5**k),
        (Exponentials.postsynaptic(4.0), lambda k: 0.75**k / 4),
        (IDENTITY, lambda k: float(k == 0)),
        (Cascade(0.6, 0.9), lambda k: (0.9 ** (k + 1) - 0.6 ** (k + 1)) / 0.3),
        (Cascade(0.0, 0.9), lambda k: 0.9**k),
        (Cascade(0.9, 0.9), lambda k: (k + 1) * 0.9**k),
    ],
    ids=["sum", "postsynaptic", "identity", "cascade", "leak", "equal"],
)
def test_a_filter_is_a_convolution_with_its_kernel(filter, kernel):
    equal(filtered(filter, X), convolved([kernel(k) for k in range(len(X))], X), 1e-12)


@pytest.mark.parametrize(("rise", "decay"), [(5e-3, 10e-3), (1e-3, 2e-3), (3e-3, 40e-3), (1e-4, 2e-4), (1e-6, 1e-2)])
def test_the_double_exponential_begins_at_zero_and_peaks_at_one(rise, decay):
    impulse = torch.zeros(200, 1, dtype=torch.float64)
    impulse[0] = 1
    kernel = filtered(Exponentials.double(tau_rise=rise, tau_decay=decay), impulse)[:, 0]
    assert kernel[0] == 0
    assert kernel.max().item() == pytest.approx(1)
    k = torch.arange(200)
    shape = torch.exp(-k * 1e-3 / decay) - torch.exp(-k * 1e-3 / rise)
    torch.testing.assert_close(kernel, (shape / shape.max()).double(), rtol=1e-5, atol=1e-7)


def test_superspikes_filter():
    g = Golden("07_superspike")
    impulse = torch.zeros(len(g["eps"]), 1, dtype=torch.float64)
    impulse[0] = 1
    eps = Exponentials.double(tau_rise=g["tau_rise"], tau_decay=g["tau_decay"], dt=g["dt"])
    equal(filtered(eps, impulse)[:, 0], g["eps"])


def test_a_stream_in_pieces_is_the_stream():
    filter = Exponentials.double(tau_rise=2e-3, tau_decay=9e-3)
    state, out = filter.start(X[0]), []
    for x in X:
        state = filter.step(state, x)
        out.append(filter.value(state))
    assert torch.equal(torch.stack(out), filtered(filter, X))


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Exponentials((0.9,), (1.0, 2.0)),
        lambda: Exponentials((), ()),
        lambda: Exponentials((1.0,), (1.0,)),
        lambda: Exponentials((-0.1,), (1.0,)),
        lambda: Exponentials((0.5,), (math.nan,)),
        lambda: Exponentials.double(tau_rise=10e-3, tau_decay=10e-3),
        lambda: Exponentials.double(tau_rise=0.0, tau_decay=10e-3),
        lambda: Exponentials.postsynaptic(0.5),
        lambda: Exponentials.postsynaptic(math.inf),
    ],
)
def test_bad_input_is_refused(bad):
    with pytest.raises(ValueError, match=r"got|want|must"):
        bad()
