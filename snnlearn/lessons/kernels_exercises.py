"""The exercises of tutorial 14, with their reference solutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnlearn.lessons.exercise import Exercise, first_of, normal


def least_ms(T: int, B: int, N: int, bandwidth: float) -> float:
    """Milliseconds that forward and backward pass of a LIF take at least; bandwidth in GB/s, float32, no synapse."""
    forward = 3  # a is read, s and U are written
    backward = 3  # e and U are read, kap is written
    return 4 * (forward + backward) * T * B * N / (bandwidth * 1e9) * 1e3


def _explain_least(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    T, B, *_ = arguments
    slips = {
        "That is one pass; forward and backward both move three arrays": wanted / 2,
        "One array is missing: U makes two journeys, written forward and read backward": wanted * 5 / 6,
        "Two arrays are missing: forward a, s, U; backward e, U, κ": wanted * 4 / 6,
        "One too many: κ is λ where there is no synaptic current": wanted * 7 / 6,
        "A float32 has 4 bytes, a float64 has 8": wanted * 2,
        "Those are numbers; a float32 has 4 bytes": wanted / 4,
        "That is in seconds": wanted / 1e3,
        "A GB is 10^9 bytes": wanted / 2**30 * 1e9,
        "T is missing: all of it passes at every step": wanted / T,
        "B is missing: every sample has its own membranes": wanted / B,
        "That is what the loop moves, 166 bytes: what does one pass move?": wanted * 166 / 24,
    }
    return first_of(got, wanted, slips)


least_exercise = Exercise(
    "the least time",
    least_ms,
    [(100, 16, 64, 16.0), (500, 256, 200, 12.5)],
    [
        "List the arrays of size T · B · N that have to be read or written, forward and backward.",
        "Forward: a, s, U. Backward: e, U, κ. Four bytes a number.",
        "24 · T · B · N bytes over bandwidth · 10⁹ bytes a second, times 1000 for milliseconds.",
    ],
    _explain_least,
)


def reverse(e: Tensor, U: Tensor, beta: float, k: float) -> Tensor:
    """dL/da (T,) of one neuron, theta = 1, from the errors e of its spikes and its membranes U, in one pass."""
    kap, lam = torch.empty_like(U), torch.zeros(())
    for n in reversed(range(len(U))):
        f = 1 / (k * abs(U[n] - 1) + 1) ** 2  # made again from U: nothing else was kept
        lam = f * e[n] + (beta - f) * lam
        kap[n] = lam
    return kap


def _scan(e: Tensor, U: Tensor, beta: float, k: float, *, reset: float = 1.0, power: int = 2, shift: int = 0) -> Tensor:
    """`reverse` with something else in the place of a term; shift: of the slope in the carry."""
    f = 1 / (k * (U - 1).abs() + 1) ** power
    carry = beta - reset * f.roll(-shift)
    kap, lam = torch.empty_like(U), torch.zeros(())
    for n in reversed(range(len(U))):
        lam = f[n] * e[n] + carry[n] * lam
        kap[n] = lam
    return kap


def _explain_reverse(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    e, U, beta, k = arguments
    f = 1 / (k * (U - 1).abs() + 1) ** 2
    spiking = (U >= 1).double()
    slips = {
        "The reset is missing from the carry: beta - f[n], as a spike at n takes 1 from U[n+1]": _scan(
            *arguments, reset=0.0
        ),
        "The reset's sign: a spike takes away, so it is beta - f[n]": _scan(*arguments, reset=-1.0),
        "The carry is missing: what comes after n depends on U[n] as well": f * e,
        "The carry has f of the step itself, n, not of n + 1": _scan(*arguments, shift=1),
        "The slope's square is missing": _scan(*arguments, power=1),
        "The steepness k is missing from the slope": _scan(e, U, beta, 1.0),
        "The slope is at U - 1, the distance to the threshold": _scan(e, U + 1, beta, k),
        "The slope is no spike: silent neurons near the threshold have one, too": _at_spikes(e, spiking, beta),
        "From the last step to the first: the future has an error to send, the past has none": _scan(
            e.flip(0), U.flip(0), beta, k
        ).flip(0),
        "The order of the steps is the other way round: kap[n] belongs to step n": wanted.flip(0),
    }
    return first_of(got, wanted, slips)


def _at_spikes(e: Tensor, s: Tensor, beta: float) -> Tensor:
    kap, lam = torch.empty_like(s), torch.zeros(())
    for n in reversed(range(len(s))):
        lam = s[n] * e[n] + (beta - s[n]) * lam
        kap[n] = lam
    return kap


reverse_exercise = Exercise(
    "the backward pass in one scan",
    reverse,
    [
        (normal(12, seed=2), 1 + 0.5 * normal(12, seed=3), 0.9, 10.0),
        (normal(7, seed=4), 1 + normal(7, seed=5), 0.5, 4.0),
    ],
    [
        "Go from the last step to the first with one number, λ, in your hand; it starts at 0.",
        "At each step make the slope again, f = 1 / (k |U[n] - 1| + 1)², and then λ = f e[n] + (β - f) λ.",
        "`for n in reversed(range(len(U)))`: f, λ, and `kap[n] = λ`. Without a synaptic current κ is λ.",
    ],
    _explain_reverse,
)


def unpack(words: tuple[int, ...], size: int) -> list[int]:
    """Zeros and ones of ``size`` neurons from signed words of 64 bits: neuron j is bit j % 64 of word j // 64."""
    return [words[j // 64] >> j % 64 & 1 for j in range(size)]


def _explain_unpack(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    words, size = arguments
    top = [words[j // 64] >> (63 - j % 64) & 1 for j in range(size)]
    half = [words[j // 64] >> j % 32 & 1 for j in range(size)]
    first = [words[0] >> j % 64 & 1 for j in range(size)]
    positive = [0 if words[j // 64] < 0 else words[j // 64] >> j % 64 & 1 for j in range(size)]
    absolute = [abs(words[j // 64]) >> j % 64 & 1 for j in range(size)]
    last = [words[-1 - j // 64] >> j % 64 & 1 for j in range(size)]
    raw = [words[j // 64] & 1 << j % 64 != 0 for j in range(size)]
    slips = {
        "Bit 0 is the lowest: neuron 0 is `word & 1`": top,
        "A word has 64 bits, not 32": half,
        "Every 64 neurons have a word of their own: words[j // 64]": first,
        "A word may be negative: neuron 63 is the sign. `>>` and `& 1` do not mind": positive,
        "Without its sign it is another word; `>>` and `& 1` take it as it is": absolute,
        "Word 0 comes first": last,
        "Zeros are ones and ones are zeros": [1 - x for x in raw],
    }
    return first_of(got, wanted, {text: torch.tensor(value, dtype=torch.float64) for text, value in slips.items()})


def word(*neurons: int) -> int:
    """The signed word of 64 bits in which these are set."""
    value = sum(1 << j for j in neurons)
    return value - 2**64 if value >= 2**63 else value


unpack_exercise = Exercise(
    "from bits to spikes",
    unpack,
    [((word(0, 5, 40, 63), word(1, 2, 30)), 100), ((word(3, 33), word(62), word(7, 63)), 192), ((word(1),), 5)],
    [
        "Which word holds neuron j, and which of its bits? Both are divisions by 64.",
        "`word >> b & 1` is bit b, of negative words too: Python continues the sign without end.",
        "`[words[j // 64] >> j % 64 & 1 for j in range(size)]`.",
    ],
    _explain_unpack,
)


def whole(share: float, faster: float) -> float:
    """How many times as fast a step becomes, when a part that takes ``share`` of its time does ``faster`` as fast."""
    return 1 / (1 - share + share / faster)


def _explain_whole(arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str | None:
    p, q = arguments
    slips = {
        "That is the part's own factor; the rest of the step takes as long as before": q,
        "Times add up, factors do not: take the mean of the times": 1 - p + p * q,
        "That would be the part with no time at all: share / faster of it is left": 1 / (1 - p),
        "That is the new time; how many times as fast is its inverse": 1 - p + p / q,
        "The rest of the step is missing: 1 - share": q / p,
        "The shares are the other way round": 1 / (p + (1 - p) / q),
    }
    return first_of(got, wanted, {text: torch.tensor(value, dtype=torch.float64) for text, value in slips.items()})


whole_exercise = Exercise(
    "the whole step",
    whole,
    [(0.4, 10.0), (0.9, 3.0), (0.25, 1.5)],
    [
        "Let the whole step take 1. How long do the part and the rest take before, and after?",
        "After: 1 - share for the rest, share / faster for the part.",
        "1 / (1 - share + share / faster).",
    ],
    _explain_whole,
)
