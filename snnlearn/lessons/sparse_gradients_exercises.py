"""The exercises of tutorial 09, with their reference solutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise, first_of


def percent_active(V: Tensor, theta: float, B_th: float) -> Tensor:
    """Eq. 13 of membranes V, (T, B, N), in percent."""
    active = (V - theta).abs() < B_th  # Eq. 7
    return 100 * active.double().mean()  # the mean divides by B * T * N


def _explain_activity(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    V, theta, B_th = arguments
    x, size = V - theta, V.numel()

    def percent(mask: Tensor) -> Tensor:
        return 100 * mask.double().mean()

    slips = {
        "Eq. 7 is strict: a membrane on the edge is not active": percent(x.abs() <= B_th),
        "The band has two sides: take |V - theta|": percent((x >= 0) & (x < B_th)),
        "Without the absolute value every membrane far below counts": percent(x < B_th),
        "Spikes are not what is counted; many active neurons are silent": percent(x > 0),
        "That is the code's b_th: it counts b_th < V < 2 theta - b_th": percent(x.abs() < theta - B_th),
        "The distance is from theta, and theta is not 1 here": percent((V - 1).abs() < B_th),
        "Eq. 13 is in percent": wanted / 100,
        "Divide by B T N": wanted * size / 100,
        "Divide by all of B T N, not by T alone": wanted * size / len(V),
        "Divide by all of B T N, not by N alone": wanted * size / V.shape[-1],
        "Divide by all of B T N; the batch is missing": wanted * V.shape[1],
    }
    return first_of(got, wanted, slips)


def _rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# in quarters, so that some membranes lie exactly on an edge
_V = (16 * _rand(6, 3, 5, seed=0)).round() / 4
activity_exercise = Exercise(
    "activity (Eq. 13)",
    percent_active,
    [(_V, 2.0, 0.5), (_V, 1.5, 0.25)],
    [
        "Make a tensor of booleans first: where is a neuron active (Eq. 7)?",
        "abs() of the distance to theta, and a strict <. The mean of ones and zeros is the share.",
        "100 * ((V - theta).abs() < B_th).double().mean()",
    ],
    _explain_activity,
)


def survivors(S: Tensor, active: Tensor) -> Tensor:
    """Which entries of dW, (I, N), the paper's sparse gradient can make different from zero; spikes (T, I)."""
    came_before = S.cumsum(0) - S > 0  # at t: has input i fired at some k < t? Then its trace is not zero
    return came_before.T.double() @ active.double() > 0  # at some t: input trace and active


def _explain_survivors(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    S, active = arguments
    ever, on = S.sum(0) > 0, active.double()
    trace = S.cumsum(0) > 0
    slips = {
        "The input trace at t holds spikes k < t (Eq. 5); a spike at t itself comes too late": trace.T.double() @ on
        > 0,
        "The spike and the active step need not coincide: the trace remembers": S.T.double() @ on > 0,
        "One step's memory is too short: the trace holds all earlier spikes": S[:-1].T.double() @ on[1:] > 0,
        "An input that fires after the last active step has no part in it: look at the order": ever[:, None]
        & (on.sum(0) > 0),
        "Only the inputs are looked at; the neuron behind the weight has to be active": ever[:, None].expand_as(wanted),
        "Only the neurons are looked at; an input that never fired changes nothing": (on.sum(0) > 0).expand_as(wanted),
        "The shape is (inputs, neurons), and the answer the other way round: True where it survives": ~wanted.bool(),
    }
    return first_of(got, wanted, slips)


survivors_exercise = Exercise(
    "which entries of ∇W survive",
    survivors,
    [((_rand(8, 6, seed=s) < 0.15).double(), _rand(8, 5, seed=s + 1) < 0.12) for s in (4, 10)],
    [
        "Eq. 9: at a step t two factors have to be there, an active neuron j and an input trace of i that is not zero.",
        "The trace of i at t is not zero where i has fired at some k < t: S.cumsum(0) - S > 0.",
        "came_before = S.cumsum(0) - S > 0; then (came_before.T.double() @ active.double()) > 0.",
    ],
    _explain_survivors,
)


def smallest_band(V: Tensor, fe: Tensor, tr: Tensor, bands: Tensor, wanted: float) -> Tensor:
    """The smallest of the bands, in rising order, whose dW has at least the wanted cosine to the dense dW; theta = 1.

    V and fe = f * e, without a band, are (T, N), tr is (T, I).
    """
    dense = tr.T @ fe  # Eq. 5
    for B_th in bands:
        sparse = tr.T @ torch.where((V - 1).abs() < B_th, fe, 0.0)  # Eqs. 9, 10
        cosine = (sparse * dense).sum() / (sparse.norm() * dense.norm())
        if cosine >= wanted:
            return B_th
    return torch.tensor(torch.inf)


def _explain_band(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    V, fe, tr, bands, target = arguments
    dense = tr.T @ fe

    def first(score: Any) -> Tensor:
        good = [B for B in bands if score(torch.where((V - 1).abs() < B, fe, 0.0)) >= target]
        return good[0] if good else torch.tensor(torch.inf)

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum() / (a.norm() * b.norm())

    slips = {
        "That is the widest band; which is the smallest that is good enough?": bands[-1],
        "Compare dW, the sum over steps, not the factors f e: in the sum much cancels": first(lambda m: cosine(m, fe)),
        "A ratio of lengths is no cosine": first(lambda m: (tr.T @ m).norm() / dense.norm()),
        "A small relative error is more than a good cosine": first(
            lambda m: 1 - (tr.T @ m - dense).norm() / dense.norm()
        ),
    }
    return first_of(got, wanted, slips)


def _band_case(seed: int, target: float) -> tuple[Any, ...]:
    V, e = 2 * _rand(30, 12, seed=seed), _rand(30, 12, seed=seed + 1) - 0.5
    fe = e / (20 * (V - 1).abs() + 1) ** 2
    return V, fe, _rand(30, 8, seed=seed + 2), torch.linspace(0.01, 1.0, 100, dtype=torch.float64), target


band_exercise = Exercise(
    "the smallest band for a cosine",
    smallest_band,
    [_band_case(20, 0.99), _band_case(30, 0.9)],
    [
        "The dense dW is tr.T @ fe. The sparse one has zeros in fe where |V - 1| is not below B_th.",
        "Go through the bands from the smallest; the cosine is (a * b).sum() / (a.norm() * b.norm()).",
        "torch.where((V - 1).abs() < B_th, fe, 0.0), times tr.T from the left; return the first B_th that suffices.",
    ],
    _explain_band,
)
