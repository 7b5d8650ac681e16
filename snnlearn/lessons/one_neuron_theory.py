"""One neuron in closed forms and small simulations: the numbers behind tutorial 01, without pictures.

Equation numbers are those of the tutorial paper (Neftci, Mostafa & Zenke 2019, Sec. II). The resting potential is 0,
the input resistance R is 1 and potentials are in threshold units. Times are in seconds. Arrays are numpy, in double
precision: the panels call these functions at every move of a slider.

A current has two units here. `I` is that of Eq. 4: the membrane would settle at U = I. `i` is that of Eq. 8, per
step: what one step adds to the membrane. A constant I is i = (1 - beta) * I.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from snnlearn.lessons.exercise import Exercise
from snnlearn.neurons import Decay, exp_decay
from snnlearn.resets import Update, no_reset, subtract, to_zero, to_zero_with_input

Array = NDArray[np.float64]

TAU_MEM, TAU_SYN, DT, THETA = 20e-3, 5e-3, 1e-3, 1.0  # s, s, s, threshold units

# Constant current.


def charging(t: ArrayLike, I: float, tau_mem: float = TAU_MEM) -> Array:
    """U(t) for a constant current I from t = 0 on, U(0) = 0, no threshold: the solution of Eq. 4."""
    return I * -np.expm1(-np.asarray(t, float) / tau_mem)


def rate(I: ArrayLike, tau_mem: float = TAU_MEM, theta: float = THETA) -> Array:
    """Spikes per second under a constant current I, in continuous time: 1 / (tau_mem * ln(I / (I - theta)))."""
    I = np.asarray(I, float)
    above = theta < I
    return np.where(above, 1 / (-tau_mem * np.log1p(-theta / np.where(above, I, 2 * theta))), 0.0)


def steps_between_spikes(i: float, beta: float, theta: float = THETA) -> float:
    """Steps from spike to spike of a neuron that is reset to zero, i per step: the least k with i(1-beta^k)/(1-beta)
    >= theta; infinite at and below the rheobase theta * (1 - beta)."""
    left = 1 - theta * (1 - beta) / i if i > 0 else 0.0
    if left <= 0:
        return math.inf
    return max(1, math.ceil(math.log(left) / math.log(beta) - 1e-9))  # 1e-9: rounding must not cost a step


class Drive(NamedTuple):
    """Neurons under constant currents: membrane and spikes, (steps, number of currents) each."""

    U: Array
    S: Array


def constant_drive(i: ArrayLike, beta: float, theta: float, reset: Update, steps: int) -> Drive:
    """Neurons without a synapse, each with its own constant i per step, from rest; all currents at once.

    U[n+1] = reset(U[n], S[n], i) and S[n] = Theta(U[n] - theta); row 0 is after the first step.
    """
    i = np.atleast_1d(np.asarray(i, float))
    U, S = np.zeros((steps, i.size)), np.zeros((steps, i.size))
    u, s = np.zeros(i.size), np.zeros(i.size)
    update: Any = reset  # written for tensors, but arithmetic is the same for arrays
    for n in range(steps):
        u = update(u, s, i, beta, theta)
        s = (u >= theta).astype(float)
        U[n], S[n] = u, s
    return Drive(U, S)


def measured_rate(S: Array, dt: float) -> Array:
    """Spikes per second in each column of S (steps, N), from the first spike to the last; 0 for less than two."""
    count = S.sum(0)
    first, last = S.argmax(0), len(S) - 1 - S[::-1].argmax(0)
    return np.where(count >= 2, (count - 1) / (np.maximum(last - first, 1) * dt), 0.0)


# Four inputs and one neuron: the paper's Fig. 1.

SPIKE_TIMES_MS = (
    (40, 260, 425, 455, 485, 530, 590, 630, 700),
    (110, 330, 430, 470, 490, 540, 600, 660),
    (180, 440, 460, 488, 535, 560, 595, 640, 720),
    (220, 385, 445, 475, 495, 545, 605, 665),
)
DURATION_MS = 800

RESETS: dict[str, Update] = {
    "subtract θ (Eq. 8)": subtract,
    "to zero": to_zero,
    "to zero, input lost": to_zero_with_input,
    "none": no_reset,
}


def input_spikes() -> Array:
    """The four input neurons' spikes, (DURATION_MS, 4), one step a millisecond: alone at first, then together."""
    S = np.zeros((DURATION_MS, len(SPIKE_TIMES_MS)))
    for j, times in enumerate(SPIKE_TIMES_MS):
        S[list(times), j] = 1
    return S


class Run(NamedTuple):
    """One neuron over a sequence: synaptic current, membrane, spikes, (steps,) each."""

    I: Array
    U: Array
    S: Array


def dynamics(
    inputs: Array,
    *,
    weight: float,
    tau_mem: float = TAU_MEM,
    tau_syn: float = TAU_SYN,
    theta: float = THETA,
    reset: Update = subtract,
    decay: Decay = exp_decay,
    dt: float = DT,
) -> Run:
    """Eqs. 7 and 8 as they stand, every input with the same weight: an input at n reaches I at n+1 and U at n+2.

    Args:
        inputs: spikes, (steps, number of inputs).
        weight: W, threshold units per step.
        tau_mem, tau_syn, dt: seconds.
        theta: threshold.
        reset: one of `RESETS`.
        decay: `exp_decay` or `euler_decay`.
    """
    alpha, beta = float(decay(tau_syn, dt)), float(decay(tau_mem, dt))
    update: Any = reset  # the same arithmetic for floats
    I = U = S = 0.0
    states = []
    for x in (weight * inputs.sum(1)).tolist():
        states.append((I, U, S))
        U = update(U, S, I, beta, theta)  # Eq. 8, with I[n]
        I = alpha * I + x  # Eq. 7
        S = float(theta <= U)
    return Run(*np.array(states).T)


# Eqs. 7 and 8 as a graph: the paper's Fig. 2.

ROWS = ("S⁰", "I¹", "U¹", "S¹", "I²")
CAUSED_BY_SPIKES = frozenset({"reset", "V¹", "W²"})


class Node(NamedTuple):
    """A number of the simulation: its row, one of `ROWS`, and its time step."""

    row: str
    step: int


class Edge(NamedTuple):
    """A term of an equation: the number at `end` is computed from the one at `start`."""

    kind: str
    start: Node
    end: Node


_TERMS = (  # kind, from, to, steps later
    ("W¹", "S⁰", "I¹", 1),
    ("α", "I¹", "I¹", 1),
    ("1", "I¹", "U¹", 1),
    ("β", "U¹", "U¹", 1),
    ("Θ", "U¹", "S¹", 0),
    ("reset", "S¹", "U¹", 1),
    ("V¹", "S¹", "I¹", 1),
    ("W²", "S¹", "I²", 1),
    ("α", "I²", "I²", 1),
)


@lru_cache
def graph(steps: int) -> tuple[tuple[Edge, ...], tuple[Node, ...]]:
    """The edges and nodes of `steps` time steps."""
    edges = tuple(
        Edge(kind, Node(start, n), Node(end, n + later))
        for kind, start, end, later in _TERMS
        for n in range(steps - later)
    )
    return edges, tuple(Node(row, n) for row in ROWS for n in range(steps))


def reachable(start: Node, edges: Sequence[Edge]) -> frozenset[Node]:
    """What depends on `start`, itself included."""
    found, new = {start}, {start}
    while new:
        new = {edge.end for edge in edges if edge.start in new} - found
        found |= new
    return frozenset(found)


# The exercises. `reveal` shows a solution's source, so each stands by itself.


def one_step(U, I, S, x, W, alpha, beta, theta):
    """U[n+1] and I[n+1] from U[n], I[n], S[n] (N,) and the input spikes x[n] (M,), with weights W (N, M)."""
    I_next = alpha * I + W @ x  # Eq. 7
    U_next = beta * U + I - theta * S  # Eq. 8: the current of step n, not of n+1
    return U_next, I_next


def peak_time(tau_mem, tau_syn):
    """Where exp(-t/tau_mem) - exp(-t/tau_syn) is largest: there its derivative is zero."""
    return tau_mem * tau_syn / (tau_mem - tau_syn) * math.log(tau_mem / tau_syn)


def rheobase(tau_mem, dt, theta):
    """The current i per step whose fixed point, U = beta * U + i, is the threshold."""
    beta = math.exp(-dt / tau_mem)
    return theta * (1 - beta)


def spacing(i, beta, theta):
    """The least whole k with i * (1 - beta**k) / (1 - beta) >= theta."""
    return math.ceil(math.log(1 - theta * (1 - beta) / i) / math.log(beta))


def _slips(wrong: Mapping[str, Callable[..., Any]]) -> Callable[[tuple[Any, ...], Tensor, Tensor], str | None]:
    """For `Exercise(explain=...)`: the first sentence whose wrong formula gives what the reader got."""

    def explain(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
        for sentence, formula in wrong.items():
            answer = formula(*arguments)
            answer = torch.stack(answer) if isinstance(answer, tuple) else torch.tensor(answer)
            if torch.allclose(got, answer.to(got.dtype), rtol=1e-5, atol=1e-9):
                return sentence
        return None

    return explain


def _vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


_WEIGHTS = torch.tensor([[0.3, 0.2], [0.4, -0.1], [0.6, 0.25]], dtype=torch.float64)

step_exercise = Exercise(
    "one step of Eqs. 7-8",
    one_step,
    [
        (_vector(0.5, 1.2, -0.1), _vector(0.2, 0.3, 0.1), _vector(0, 1, 0), _vector(1, 1), _WEIGHTS, 0.8, 0.95, 1.1),
        (_vector(1.7, 0.0, 2.5), _vector(0.0, 0.5, 0.4), _vector(1, 0, 1), _vector(0, 1), _WEIGHTS, 0.5, 0.9, 1.5),
    ],
    hints=(
        "Two lines, one for each equation. The decays are alpha (current) and beta (membrane).",
        "Eq. 8 has I[n], the current before this step's update.",
        "The reset is - theta * S: Eq. 8 prints - S because it takes theta = 1.",
    ),
    explain=_slips(
        {
            "The membrane got I[n+1]; Eq. 8 has I[n]": lambda U, I, S, x, W, a, b, th: (
                b * U + a * I + W @ x - th * S,
                a * I + W @ x,
            ),
            "The reset is missing: - theta * S": lambda U, I, S, x, W, a, b, th: (b * U + I, a * I + W @ x),
            "The reset subtracts 1; here the threshold is theta, so it subtracts theta": (
                lambda U, I, S, x, W, a, b, th: (b * U + I - S, a * I + W @ x)
            ),
            "The two decays are exchanged: alpha is the current's, beta the membrane's": (
                lambda U, I, S, x, W, a, b, th: (a * U + I - th * S, b * I + W @ x)
            ),
            "The order is U[n+1], I[n+1]": lambda U, I, S, x, W, a, b, th: (a * I + W @ x, b * U + I - th * S),
        }
    ),
)

peak_exercise = Exercise(
    "time of the peak",
    peak_time,
    [(20e-3, 5e-3), (10e-3, 2e-3), (5e-3, 20e-3)],
    hints=(
        "Set the derivative of exp(-t/tau_mem) - exp(-t/tau_syn) to zero.",
        "exp(-t/tau_mem)/tau_mem = exp(-t/tau_syn)/tau_syn. Take the logarithm of both sides.",
    ),
    explain=_slips(
        {
            "The sign is turned around: look at which time constant stands on top": lambda m, s: (
                -m * s / (m - s) * math.log(m / s)
            ),
            "The logarithm is there; its factor tau_mem * tau_syn / (tau_mem - tau_syn) is not": lambda m, s: math.log(
                m / s
            ),
            "The logarithm ln(tau_mem/tau_syn) is missing": lambda m, s: m * s / (m - s),
            "math.log10 is the wrong logarithm; math.log is the natural one": lambda m, s: (
                m * s / (m - s) * math.log10(m / s)
            ),
        }
    ),
)

rheobase_exercise = Exercise(
    "rheobase per step",
    rheobase,
    [(20e-3, 1e-3, 1.5), (10e-3, 2e-3, 1.0), (50e-3, 0.5e-3, 0.7)],
    hints=(
        "Below the rheobase the membrane comes to rest below theta. Where does U = beta * U + i come to rest?",
        "U = i / (1 - beta). Set it to theta, and beta = exp(-dt/tau_mem).",
    ),
    explain=_slips(
        {
            "That is Euler's decay, 1 - dt/tau_mem; beta is exp(-dt/tau_mem)": lambda m, dt, th: th * dt / m,
            "That is the rheobase in the units of Eq. 4; per step it is smaller by the factor 1 - beta": (
                lambda m, dt, th: th
            ),
            "The threshold theta is missing": lambda m, dt, th: 1 - math.exp(-dt / m),
            "That is theta * beta; what leaks in a step is 1 - beta": lambda m, dt, th: th * math.exp(-dt / m),
        }
    ),
)

spacing_exercise = Exercise(
    "steps from spike to spike",
    spacing,
    [(0.075, 0.95, 1.0), (0.3, 0.9, 1.0), (0.9, 0.8, 0.7)],
    hints=(
        "From a reset to zero, k steps with the same i give i * (1 + beta + ... + beta**(k-1)): a geometric series.",
        "Solve i * (1 - beta**k) / (1 - beta) = theta for k. Steps are whole: round up with math.ceil.",
    ),
    explain=_slips(
        {
            "k is a whole number of steps: round up": lambda i, b, th: math.log(1 - th * (1 - b) / i) / math.log(b),
            "Rounded down: one step too early the membrane is still below theta": lambda i, b, th: math.floor(
                math.log(1 - th * (1 - b) / i) / math.log(b)
            ),
            "That is without the leak, theta / i rounded up": lambda i, b, th: math.ceil(th / i),
        }
    ),
)
