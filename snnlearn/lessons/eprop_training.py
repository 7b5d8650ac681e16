"""Learning across a delay, quickly: the training of tutorial 12, many seeds side by side.

One hidden layer of LIF neurons, adaptive or not, recurrent or not, under a leaky readout (dt = 1 ms):

    I[n] = alpha * I[n-1] + W x[n] + V s[n-1]
    U[n] = beta * U[n-1] - s[n-1] + I[n]  (- strength * a[n], a[n] = rho * a[n-1] + s[n-1]),   s[n] = 1 where U[n] >= 1
    y[n] = kappa * y[n-1] + W_out s[n]

The sum over time of e-prop's products, sum_n L_j[n] (kappa * (f_j q_i))[n], is the same number as
sum_n (kappa' L_j)[n] f_j[n] q_i[n] with the filter kappa' that runs backwards, which needs no trace for each synapse.
So a whole sequence is quick; the result is that of the library's `Eligibility`, to rounding. All arrays are
(T, runs, batch, neurons): a run has weights of its own, and all runs see the same trials.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from snnlearn.lessons.eprop_tasks import SILENT, Constants, Task, Weights, accuracy
from snnlearn.surrogate import FastSigmoid


class Activity(NamedTuple):
    """What the network did."""

    U: Tensor  # (T, runs, B, H)
    s: Tensor
    y: Tensor  # (T, runs, B, C)


def simulate(weights: Weights, x: Tensor, constants: Constants, cut: range = range(0)) -> Activity:
    """The network on spikes x (T, B, N), from rest; at the steps of ``cut`` the recurrent synapses deliver nothing."""
    (runs, H, N), (T, B, _) = weights["W"].shape, x.shape
    alpha, beta, kappa, rho = constants.decays
    a = (x.reshape(1, T * B, N) @ weights["W"].mT).view(runs, T, B, H).transpose(0, 1).contiguous()
    V = weights["V"].mT.contiguous() if "V" in weights else None
    I = v = s = slow = torch.zeros(runs, B, H, dtype=x.dtype)
    U, spikes = torch.empty_like(a), torch.empty_like(a)
    for n in range(T):
        I = alpha * I + (a[n] if V is None or n in cut else torch.baddbmm(a[n], s, V))
        v = beta * v - s + I
        if constants.strength:
            slow = rho * slow + s
        torch.sub(v, slow, alpha=constants.strength, out=U[n])
        s = (U[n] >= 1).to(x.dtype)
        spikes[n] = s
    return Activity(U, spikes, leaky(kappa, spikes @ weights["W_out"].mT))


def leaky(decay: float, x: Tensor) -> Tensor:
    """v[n] = decay * v[n-1] + x[n] along the first axis."""
    v, out = torch.zeros_like(x[0]), torch.empty_like(x)
    for n, x_n in enumerate(x):
        v = decay * v + x_n
        out[n] = v
    return out


# The rules.


class Broadcast(enum.Enum):
    """Through what the error reaches the hidden neurons: the readout's weights, random ones, or ones that learn."""

    SYMMETRIC = "symmetric"
    RANDOM = "random"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True)
class Credit:
    """Which of the ways from a weight to the loss a rule follows.

    Args:
        hidden: whether the hidden layer learns at all.
        others: through other neurons of the layer; with ``reset`` this is BPTT, without either e-prop.
        reset: through the neuron's own reset.
        adaptation: through its moving threshold (the slow eligibility).
        broadcast: where the learning signal comes from.
        memory: steps after which a presynaptic trace is cut off (1: it knows the present step alone), or None.
    """

    hidden: bool = True
    others: bool = False
    reset: bool = False
    adaptation: bool = True
    broadcast: Broadcast = Broadcast.SYMMETRIC
    memory: int | None = None


EPROP = Credit()
BPTT = Credit(others=True, reset=True)
READOUT = Credit(hidden=False)
RANDOM = Credit(broadcast=Broadcast.RANDOM)
ADAPTIVE = Credit(broadcast=Broadcast.ADAPTIVE)
FAST_ONLY = Credit(adaptation=False)


class Gradient(NamedTuple):
    """Of the mean over steps and trials of the cross-entropy."""

    loss: Tensor  # (runs,)
    of: Weights
    activity: Activity


def gradient(weights: Weights, x: Tensor, labels: Tensor, constants: Constants, credit: Credit) -> Gradient:
    """Loss and gradients for trials x (T, B, N) and labels (T, B)."""
    now = simulate(weights, x, constants)
    (T, runs, B, H), (alpha, beta, kappa, _) = now.s.shape, constants.decays
    asked = (labels != SILENT)[:, None, :, None].to(x.dtype)
    wanted = functional.one_hot(labels.clamp(min=0), now.y.shape[-1])[:, None].to(x.dtype) * asked
    log = functional.log_softmax(now.y, -1)
    loss = -(log * wanted).sum((0, 2, 3)) / (T * B)
    error = (log.exp() * asked - wanted) / (T * B)  # y - y*, Eq. 4
    told = leaky(kappa, error.flip(0)).flip(0)  # kappa' error: what a spike of step n does to all later outputs
    found = {"W_out": torch.einsum("trbc,trbh->rch", told, now.s)}
    if credit.broadcast is Broadcast.ADAPTIVE:
        found["B"] = found["W_out"].clone()
    if not credit.hidden:
        return Gradient(loss, found, now)
    L = told @ (weights["W_out"] if credit.broadcast is Broadcast.SYMMETRIC else weights["B"])
    f = FastSigmoid(width=constants.width).slope(now.U - 1)
    before = torch.cat([torch.zeros_like(now.s[:1]), now.s[:-1]])  # the layer's own spikes arrive a step later
    if credit.others:
        factor, q, q_own = _backwards(L, f, weights.get("V"), constants, credit), x, before
    else:
        factor = _own_threshold(L, f, constants) if constants.strength and credit.adaptation else f * L
        q, q_own = (_trace(v, alpha, beta, credit.memory) for v in (x, before))
    factor = factor.permute(1, 3, 0, 2).reshape(runs, H, T * B)
    found["W"] = factor @ q.reshape(T * B, -1)
    if "V" in weights:
        found["V"] = factor @ q_own.transpose(0, 1).reshape(runs, T * B, H)
    return Gradient(loss, found, now)


def _trace(x: Tensor, alpha: float, beta: float, memory: int | None) -> Tensor:
    """The presynaptic trace q of spikes x (T, ...); cut off after so many steps."""
    if memory is None:
        return leaky(beta, leaky(alpha, x))
    kernel = leaky(beta, alpha ** torch.arange(memory, dtype=x.dtype))
    out = torch.zeros_like(x)
    for k, weight in enumerate(kernel.tolist()[: len(x)]):
        out[k:] += weight * x[: len(x) - k]
    return out


def _own_threshold(L: Tensor, f: Tensor, constants: Constants) -> Tensor:
    """What multiplies q where a neuron's threshold is its own doing: the slow eligibility (Eqs. 24-25), summed up."""
    rho, out, later = constants.decays[3], torch.empty_like(L), torch.zeros_like(L[0])
    for n in reversed(range(len(L))):
        out[n] = f[n] * (L[n] + later)
        later = rho * later - constants.strength * out[n]
    return out


def _backwards(L: Tensor, f: Tensor, V: Tensor | None, constants: Constants, credit: Credit) -> Tensor:
    """dL/d(current) of BPTT, which follows all ways that the credit allows."""
    alpha, beta, _, rho = constants.decays
    out = torch.empty_like(L)
    lam = slow = kap = torch.zeros_like(L[0])
    for n in reversed(range(len(L))):
        e = L[n] + slow - lam if credit.reset else L[n] + slow
        if V is not None:
            e = torch.baddbmm(e, kap, V)
        here = f[n] * e
        if constants.strength and credit.adaptation:
            slow = rho * slow - constants.strength * here
        lam = here + beta * lam
        kap = lam + alpha * kap
        out[n] = kap
    return out


# Training.


class Run(NamedTuple):
    """What some runs side by side did."""

    accuracy: Tensor  # (runs,), on 512 new trials
    rate: Tensor  # (runs,), spikes a step and neuron, there
    history: Tensor  # (updates, runs), accuracy of each update's own trials, before it
    angles: Tensor  # (updates, runs), between B and W_out, degrees
    weights: Weights
    kept: list[Weights]  # before the updates that were asked for


def train(
    task: Task, credit: Credit, seeds: Sequence[int], *, decay: float = 0.0, keep: Sequence[int] = (), data: int = 7
) -> Run:
    """Adam, 64 new trials an update; all runs see the same. In single precision.

    Args:
        task, credit: what and how.
        seeds: of the weights, one a run.
        decay: of W_out and B, a step and unit of the rate (AdamW).
        keep: updates before which the weights are kept.
        data: seed of the trials.
    """
    weights = {name: w.float() for name, w in task.weights(seeds).items()}
    masks, g = task.masks(), torch.Generator().manual_seed(data)
    moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
    history, angles, kept = [], [], []
    for update in range(task.updates):
        if update in keep:
            kept.append(dict(weights))
        x, y = task.trials(g, 64)
        _, found, now = gradient(weights, x.float(), y, task.constants, credit)
        history.append(accuracy(now.y, y))
        angles.append(angle(weights["B"], weights["W_out"]))
        rate = 0.5 * task.rate * (1 + math.cos(math.pi * update / task.updates))
        for name, value in found.items():
            value = value * masks[name].to(value.dtype) if name in masks else value
            m, v = moments[name] = (0.9 * moments[name][0] + 0.1 * value, 0.999 * moments[name][1] + 0.001 * value**2)
            step = m / (1 - 0.9 ** (update + 1)) / ((v / (1 - 0.999 ** (update + 1))).sqrt() + 1e-8)
            shrink = 1 - rate * decay if name in ("W_out", "B") else 1.0
            weights[name] = shrink * weights[name] - rate * step
    x, y = task.trials(torch.Generator().manual_seed(data + 1000), 512)
    now = simulate(weights, x.float(), task.constants)
    found_rate = now.s.double().mean((0, 2, 3))
    return Run(accuracy(now.y, y), found_rate, torch.stack(history), torch.stack(angles), weights, kept)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Degrees between the matrices of each run, (runs, ...)."""
    cosine = (a * b).flatten(1).sum(1) / (a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1))
    return torch.rad2deg(torch.acos(cosine.double().clamp(-1, 1)))
