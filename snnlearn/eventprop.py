"""EventProp, the exact gradient in continuous time: spikes are moments, not steps, and no surrogate is needed.

A current-based LIF between two input spikes, and at one of its own:

    tau_mem * dV/dt = -V + I,    tau_syn * dI/dt = -I      I += W[:, i] when input i spikes
    V reaches theta from below: a spike; V -> 0, I goes on

V has a closed form between events, so a spike time t is the root of V(t) = theta, and its derivative is exact as long
as no spike is born or dies. EventProp (Wunderlich & Pehle 2021) collects it by an adjoint that runs from the horizon
back to 0 and, too, only stops at events. With ' for -d/dt:

    tau_mem * lV' = -lV,    tau_syn * lI' = -lI + lV       dL/dW[:, i] = -tau_syn * sum of lI at the spikes of input i
    at a spike of n: lV += (theta * lV + dL/dt) / (I - theta)               I - theta = tau_mem * dV/dt: the jump
    error at a spike of input i: dL/dt = sum_j W[j, i] * (lV[j] - lI[j])

At the birth of a spike I = theta: there its derivative is infinite and the loss may jump, which no gradient tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Cell:
    """The neuron between its events, in closed form. All states of any one shape."""

    tau_mem: float
    tau_syn: float
    theta: float

    def over(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is left after a time d of V and of I, and what I adds to V meanwhile.

        That is exp(-d/tau_mem), exp(-d/tau_syn), and the difference of the two, times tau_syn / (tau_mem - tau_syn):
        where the time constants are near each other by expm1, where they are equal by its limit.
        """
        em, es = torch.exp(d * (-1 / self.tau_mem)), torch.exp(d * (-1 / self.tau_syn))
        apart = abs(self.tau_mem - self.tau_syn)
        if apart == 0:
            return em, es, d * (1 / self.tau_syn) * es
        slow = em if self.tau_mem > self.tau_syn else es
        gap = torch.expm1(d * (-apart / (self.tau_mem * self.tau_syn)))
        return em, es, slow * gap * (-self.tau_syn / apart)

    def after(self, V: Tensor, I: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """V and I a time d later, if nothing happens."""
        em, es, pulse = self.over(d)
        return V * em + I * pulse, I * es

    def earlier(self, lV: Tensor, lI: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """The adjoints of V and I a time d earlier, if nothing happened."""
        em, es, pulse = self.over(d)
        return lV * em, lI * es + lV * pulse * (self.tau_mem / self.tau_syn)

    def top(self, V: Tensor, I: Tensor) -> Tensor:
        """The time until V is largest, for I > max(V, 0); inf where V stays below zero and only climbs towards it."""
        rise, apart = 1 - V / I, self.tau_mem - self.tau_syn
        if apart == 0:
            return self.tau_syn * rise
        x = rise * (apart / self.tau_mem)
        top = torch.log1p(-x) * (-self.tau_mem * self.tau_syn / apart)
        return torch.where(x < 1, top, math.inf)

    def crossing(self, V: Tensor, I: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Where V rises to theta within d, and after what time; from V <= theta < I, 1-D.

        Until its top V rises, and its slope falls since I > 0. So Newton's method from the left never oversteps the
        root, and stops where the next number would not be larger: at machine precision.

        Returns:
            Whether V crosses, (M,), and the times of those which do.
        """
        end = torch.minimum(self.top(V, I), d)
        crosses = self.after(V, I, end)[0] > self.theta
        V, I, end = V[crosses], I[crosses], end[crosses]
        hit = torch.zeros_like(V)
        for _ in range(100):  # 5 or 6 are usual; where V hardly crosses, the error only halves
            v, i = self.after(V, I, hit)
            nearer = torch.minimum(hit + self.tau_mem * (self.theta - v) / (i - v), end)
            more = nearer > hit
            if not more.any():
                break
            hit = torch.where(more, nearer, hit)
        return crosses, hit


class Spikes(NamedTuple):
    """All spikes of a run, in the order in which they were found. With M spikes:"""

    who: Tensor  # (M,) sample * N + neuron
    t: Tensor  # (M,) when
    I: Tensor  # (M,) the current then
    rounds: tuple[tuple[int, int], ...]  # (k, m): m neurons spiked before input event k, each once


def simulate(cell: Cell, times: Tensor, neurons: Tensor, W: Tensor, horizon: float, most: int) -> Spikes:
    """From rest to the horizon: a loop over input events and, between two, over a neuron's spikes there.

    Args:
        times, neurons: the input, (B, K).
        W: weights, (N, pre).
        horizon: seconds; what comes later is not seen.
        most: refuse more spikes of one neuron.
    """
    (B, K), N = times.shape, len(W)
    V, I, now = times.new_zeros(3, B * N).unbind(0)
    fired = torch.zeros(B * N, dtype=torch.long, device=times.device)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    rounds: list[tuple[int, int]] = []
    for k in range(K + 1):
        t = times[:, k] if k < K else times.new_full((B,), horizon)
        until = t.clamp(max=horizon).repeat_interleave(N)
        who = (cell.theta < I).nonzero().squeeze(1)  # V follows I, which decays: the others cannot reach theta
        while len(who):
            crosses, hit = cell.crossing(V[who], I[who], until[who] - now[who])
            who = who[crosses]
            if not len(who):
                break
            now[who] = torch.minimum(now[who] + hit, until[who])
            I[who] *= torch.exp(-hit / cell.tau_syn)
            V[who] = 0
            found.append((who, now[who], I[who]))
            rounds.append((k, len(who)))
            fired[who] += 1
            if int(fired[who].max()) > most:
                sample, neuron = divmod(int(fired.argmax()), N)
                raise ValueError(
                    f"neuron {neuron} fires more than most = {most} times within {horizon:g} s (sample {sample}): its "
                    "weights have diverged, or give EventLIF a larger most"
                )
        V, I = cell.after(V, I, until - now)
        now = until
        if k < K:
            I = I + (W.T[neurons[:, k]] * (t < horizon)[:, None]).flatten()
    if not found:
        return Spikes(fired.new_empty(0), times.new_empty(0), times.new_empty(0), ())
    who, when, current = (torch.cat(x) for x in zip(*found, strict=True))
    return Spikes(who, when, current, tuple(rounds))


def collect(spikes: Spikes, B: int, N: int) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes as times and neurons (B, K), padded, and the column (M,) of each spike."""
    sample, M = spikes.who // N, len(spikes.who)
    order = spikes.t.argsort(stable=True)
    order = order[sample[order].argsort(stable=True)]  # by sample, and within a sample by time
    counts = torch.bincount(sample, minlength=B)
    column = torch.empty_like(sample)
    column[order] = torch.arange(M, device=sample.device) - (counts.cumsum(0) - counts)[sample[order]]
    times = spikes.t.new_full((B, int(counts.max())), math.inf)
    times[sample, column] = spikes.t
    neurons = torch.zeros(times.shape, dtype=torch.long, device=times.device)
    neurons[sample, column] = spikes.who % N
    return times, neurons, column


class _Run(torch.autograd.Function):
    """One node for a layer: input times and weights to output times."""

    @staticmethod
    def forward(ctx: Any, times, W, neurons, feedback, cell, horizon, most):
        spikes = simulate(cell, times, neurons, W, horizon, most)
        out, who, column = collect(spikes, len(times), len(W))
        ctx.save_for_backward(times, neurons, feedback, spikes.who, spikes.t, spikes.I, column)
        ctx.rounds, ctx.cell, ctx.horizon, ctx.shape = spikes.rounds, cell, horizon, W.shape
        ctx.mark_non_differentiable(who)
        return out, who

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dt_out, _):
        times, neurons, feedback, who, t, current, column = ctx.saved_tensors
        cell, (B, K), (N, pre) = ctx.cell, times.shape, ctx.shape
        error = dt_out[who // N, column]
        # tau_mem * dV/dt at a spike. Where V hardly reaches theta it is flat: rounding of V by eps leaves the slope
        # known to sqrt(eps), and its sign not at all
        drive = (current - cell.theta).clamp(min=torch.finfo(t.dtype).eps ** 0.5 * cell.theta)
        lV, lI = times.new_zeros(2, B * N).unbind(0)
        now = times.new_full((B * N,), ctx.horizon)
        dWT, dt_in = times.new_zeros(pre, N), torch.zeros_like(times)
        left, end = list(ctx.rounds), len(who)
        for k in reversed(range(K)):
            while left and left[-1][0] > k:  # spikes between input event k and the next
                m = slice(end - left.pop()[1], end)
                end, n = m.start, who[m]
                v, lI[n] = cell.earlier(lV[n], lI[n], now[n] - t[m])
                lV[n] = v + (cell.theta * v + error[m]) / drive[m]
                now[n] = t[m]
            # padding and what comes too late arrives at the horizon, where both adjoints are still zero
            arrival = times[:, k].clamp(max=ctx.horizon).repeat_interleave(N)
            lV, lI = cell.earlier(lV, lI, now - arrival)
            now = arrival
            dWT.index_add_(0, neurons[:, k], lI.view(B, N))
            if feedback is not None:
                dt_in[:, k] = ((lV - lI).view(B, N) * feedback.T[neurons[:, k]]).sum(1)
        return dt_in, -cell.tau_syn * dWT.T, None, None, None, None, None


def run(
    cell: Cell, times: Tensor, neurons: Tensor, W: Tensor, feedback: Tensor | None, horizon: float, most: int
) -> tuple[Tensor, Tensor]:
    """A layer's spikes, times and neurons, (B, K), padded by inf; with EventProp's gradient of the times.

    Args:
        cell: the layer's neurons.
        times, neurons: the input, (B, K), in order of time, padded by inf.
        W: weights, (N, pre).
        feedback: weights like W through which the error leaves to the input's times; None for no error.
        horizon: seconds; what comes later is not seen.
        most: refuse more spikes of one neuron.

    Raises:
        ValueError: a neuron fires more than ``most`` times.
    """
    return _Run.apply(times, W, neurons, feedback, cell, horizon, most)
