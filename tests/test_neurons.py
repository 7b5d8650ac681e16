import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snnlearn import (
    Analog,
    Bounded,
    Learned,
    Neuron,
    Threshold,
    cuba_lif,
    euler_decay,
    exp_decay,
    iaf,
    lif,
    no_reset,
    readout,
    subtract,
    subtract_decayed,
    to_zero,
    to_zero_with_input,
)
from snnlearn.neurons import State

RESETS = [subtract, subtract_decayed, to_zero, to_zero_with_input, no_reset, Bounded(subtract, -0.3)]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def constant(value, steps):
    return torch.full((steps, 1, 1), value, dtype=torch.float64)


@pytest.mark.parametrize(("tau_mem", "tau_syn"), [(20e-3, 5e-3), (10e-3, 30e-3)])
def test_response_to_one_spike_is_a_difference_of_exponentials(tau_mem, tau_syn):
    """U[n] = sum_k beta^(n-k) alpha^k = (beta^(n+1) - alpha^(n+1)) / (beta - alpha), below threshold."""
    neuron = cuba_lif(tau_mem=tau_mem, tau_syn=tau_syn, dt=1e-3, theta=100.0)
    a = torch.zeros(200, 1, 1, dtype=torch.float64)
    a[0] = 1.0
    trace = neuron.simulate(a)
    n = torch.arange(200, dtype=torch.float64)
    alpha, beta = math.exp(-1e-3 / tau_syn), math.exp(-1e-3 / tau_mem)
    torch.testing.assert_close(trace.I.flatten(), alpha**n)
    torch.testing.assert_close(trace.U.flatten(), (beta ** (n + 1) - alpha ** (n + 1)) / (beta - alpha))
    assert trace.s.sum() == 0


@pytest.mark.parametrize("a", [0.06, 0.11, 0.31, 0.94])
def test_firing_rate_under_constant_current_to_zero(a):
    """From zero, U[n] = a (1 - beta^n) / (1 - beta) after n steps; the first n that reaches theta is the period."""
    neuron = lif(tau_mem=20e-3, dt=1e-3, reset=to_zero)
    beta = neuron.beta
    period = math.ceil(math.log(1 - (1 - beta) / a) / math.log(beta))
    spikes = neuron.simulate(constant(a, 50 * period)).s.flatten()
    assert spikes.nonzero().flatten().tolist() == list(range(period - 1, 50 * period, period))


def test_firing_rate_of_integrate_and_fire():
    """Nothing leaks and nothing is lost by subtraction: T steps of a give floor(T a / theta) spikes."""
    for a, theta in ((0.25, 1.0), (0.25, 2.0), (0.375, 0.5)):  # exact in binary
        assert iaf(theta=theta).simulate(constant(a, 1000)).s.sum() == math.floor(1000 * a / theta)


def test_rheobase():
    """The membrane rises to a / (1 - beta): it fires for ever above theta * (1 - beta) and never below."""
    neuron = lif(tau_mem=20e-3, dt=1e-3, theta=1.5)
    rheobase = 1.5 * (1 - neuron.beta)
    assert neuron.simulate(constant(rheobase * 1.001, 1000)).s.sum() > 0
    assert neuron.simulate(constant(rheobase * 0.999, 1000)).s.sum() == 0


def test_resets_by_hand():
    """beta 0.5, theta 1, one spike at n = 0 with U = 1.5, then an input of 0.25."""
    wanted = {
        subtract: 0.5 * 1.5 - 1 + 0.25,
        subtract_decayed: 0.5 * (1.5 - 1) + 0.25,
        to_zero: 0.25,
        to_zero_with_input: 0.0,
        no_reset: 0.5 * 1.5 + 0.25,
        Bounded(subtract, -0.1): -0.05 + 0.25,
        Bounded(subtract, -0.1, before_input=False): 0.0,
        Bounded(subtract, 0.1, before_input=False): 0.1,
    }
    a = torch.tensor([1.5, 0.25], dtype=torch.float64).view(2, 1, 1)
    for reset, U in wanted.items():
        trace = Neuron(beta=0.5, reset=reset).simulate(a)
        assert trace.s[0].item() == 1
        assert trace.U[1].item() == pytest.approx(U, abs=1e-15), reset


def test_threshold_reached_or_exceeded():
    U = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.7])
    assert Threshold()(U, 1.0).tolist() == [0, 1, 1, 1, 1]
    assert Threshold(strict=True)(U, 1.0).tolist() == [0, 0, 1, 1, 1]
    assert Threshold(most=math.inf)(U, 1.0).tolist() == [0, 1, 1, 2, 3]
    assert Threshold(most=2)(-U, 1.0).tolist() == [0, 0, 0, 0, 0]
    assert Analog()(U, 1.0) is U


@pytest.mark.parametrize("reset", RESETS)
def test_steps_are_the_sequence_and_state_goes_in_and_comes_out(reset):
    neuron = cuba_lif(tau_mem=10e-3, tau_syn=5e-3, reset=reset)
    a = noise(24, 2, 3)
    whole = neuron.simulate(a)
    assert whole.s.sum() > 0
    state = neuron.start(a[0])
    for n in range(24):
        state = neuron.step(state, a[n])
        for part, all_of_it in zip(state, whole, strict=True):
            assert torch.equal(part, all_of_it[n])
    first = neuron.simulate(a[:7])
    second = neuron.simulate(a[7:], state=first.last)
    assert torch.equal(torch.cat([first.s, second.s]), whole.s)
    assert torch.equal(torch.cat([first.U, second.U]), whole.U)


@pytest.mark.parametrize("lag", [1, 3])
def test_recurrent_spikes_arrive_after_the_lag(lag):
    V = 0.5 * noise(3, 3, seed=1)
    neuron, a = lif(tau_mem=10e-3), noise(20, 2, 3)
    whole = neuron.simulate(a, lambda s: s @ V.T, lag)
    state, spikes = neuron.start(a[0]), []
    for n in range(20):
        back = spikes[n - lag] @ V.T if n >= lag else 0.0
        state = neuron.step(state, a[n] + back)
        spikes.append(state.s)
    assert torch.equal(torch.stack(spikes), whole.s)
    assert not torch.equal(neuron.simulate(a).s, whole.s)
    first = neuron.simulate(a[:8], lambda s: s @ V.T, lag)
    sent = first.s[-lag:].unbind(0)
    second = neuron.simulate(a[8:], lambda s: s @ V.T, lag, first.last, sent)
    assert torch.equal(second.s, whole.s[8:])


def test_named_neurons_and_their_decays():
    beta, alpha = math.exp(-1 / 20), math.exp(-1 / 5)
    assert (lif().alpha, lif().beta) == (0.0, beta)
    assert (cuba_lif().alpha, cuba_lif().beta) == (alpha, beta)
    assert (iaf().alpha, iaf().beta) == (0.0, 1.0)
    assert (readout().alpha, readout(tau_syn=5e-3).alpha, readout().fire.analog) == (0.0, alpha, True)
    assert lif(decay=euler_decay).beta == pytest.approx(1 - 1 / 20)
    assert lif(tau_mem=20e-3, dt=2e-3).beta == pytest.approx(beta**2)


@given(tau=st.floats(1e-3, 1.0), ratio=st.floats(1e-3, 1.0))
def test_euler_is_never_above_exact(tau, ratio):
    dt = tau * ratio
    assert 0 <= euler_decay(tau, dt) <= exp_decay(tau, dt) < 1
    assert exp_decay(tau, dt) - euler_decay(tau, dt) <= 0.5 * ratio**2 + 1e-15  # the next term of the series


def test_learned_constants_follow_their_parameters():
    tau = torch.linspace(5e-3, 20e-3, 3, dtype=torch.float64)
    source = Learned(
        cuba_lif, tau_mem=nn.Parameter(tau), theta=nn.Parameter(torch.tensor(1.2, dtype=torch.float64)), tau_syn=5e-3
    )
    fixed = Neuron(math.exp(-0.2), torch.exp(-1e-3 / tau), 1.2)
    a = noise(30, 2, 3)
    torch.testing.assert_close(source().simulate(a).U, fixed.simulate(a).U)
    assert sorted(name for name, _ in source.named_parameters()) == ["log.tau_mem", "log.theta"]
    torch.testing.assert_close(source.constants()["tau_mem"].detach(), tau)


@pytest.mark.parametrize("reset", RESETS)
def test_gradients_of_learned_constants_without_spikes(reset):
    """Below threshold the neuron is smooth, so finite differences are the judge."""
    a = 0.02 * noise(12, 1, 2)

    def last(tau_mem, tau_syn):
        return cuba_lif(tau_mem=tau_mem, tau_syn=tau_syn, reset=reset).simulate(a).U[-1]

    taus = torch.tensor([15e-3, 4e-3], dtype=torch.float64, requires_grad=True)
    # seconds are small numbers: scale them for the finite differences
    assert torch.autograd.gradcheck(lambda t: last(t[0] / 1e3, t[1] / 1e3), (taus.detach().mul(1e3).requires_grad_(),))


@pytest.mark.parametrize("make", [lif, cuba_lif])
@pytest.mark.parametrize("value", [0.0, -1e-3, math.nan, math.inf])
@pytest.mark.parametrize("name", ["tau_mem", "dt", "theta"])
def test_constants_must_be_positive_and_finite(make, name, value):
    with pytest.raises(ValueError, match="positive, finite"):
        make(**{name: value})


def test_bad_constants_say_what_came():
    with pytest.raises(ValueError, match=r"tau.*got 0"):
        cuba_lif(tau_syn=0.0)
    with pytest.raises(TypeError, match="got str"):
        lif(tau_mem="20 ms")
    with pytest.raises(ValueError, match=r"-0.01 as its smallest"):
        lif(tau_mem=torch.tensor([0.02, -0.01]))
    with pytest.raises(ValueError, match="Euler"):
        lif(tau_mem=1e-3, dt=2e-3, decay=euler_decay)
    with pytest.raises(ValueError, match=r"0\.\.1, got 1.5"):
        Neuron(beta=1.5)
    with pytest.raises(ValueError, match=r"most.*at least 1"):
        Threshold(most=0)
    with pytest.raises(ValueError, match="strict"):
        Threshold(strict=True, most=3)
    with pytest.raises(ValueError, match="positive"):
        Learned(lif, tau_mem=nn.Parameter(torch.tensor(-1.0)))
    with pytest.raises(ValueError, match="last lag = 2 spikes, got 1"):
        lif().simulate(noise(3, 1, 1), lag=2, state=State(*noise(3, 1, 1)), sent=[torch.zeros(1, 1)])
