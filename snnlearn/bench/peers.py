"""Other libraries, where they are installed: the same layer by their own neurons.

Each is run the fastest way that its public interface has on the device. Where that is a step at a time, the steps come
from ``unbind``, as in our baseline: fed a whole sequence, Norse and Sinabs index it, which makes their backward pass
O(T**2). No two libraries have quite the same neuron, so each is checked against this library's neuron with its reset
and its surrogate, in double precision, before it is timed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnlearn.bench.contenders import BETA, STEEPNESS, Contender, LayerProblem, Outcome, agree
from snnlearn.neurons import Neuron, Threshold, lif
from snnlearn.nn import LIF
from snnlearn.resets import subtract_decayed
from snnlearn.surrogate import (
    Surrogate,
    norse_superspike,
    sinabs_single_exponential,
    snntorch_fast_sigmoid,
    spikingjelly_soft_sign,
)
from snnlearn.temporal import Reset, Unrolled

Layer = Callable[[Tensor], Tensor]
"""Spikes (T, B, N) for currents (T, B, N), from rest."""


@dataclass(frozen=True)
class Peer:
    """Another library.

    Args:
        name: of its package.
        make: (device, dtype) -> its layer.
        neuron, surrogate, reset: what its layer is here.
        note: what is different from our neuron.
    """

    name: str
    make: Callable[[torch.device, torch.dtype], Layer]
    neuron: Neuron
    surrogate: Surrogate
    reset: Reset
    note: str

    def contender(self, problem: LayerProblem) -> Contender:
        """Its layer on a problem."""
        layer = self.make(problem.a.device, problem.a.dtype)
        return Contender(self.name, lambda: problem.differentiate(layer(problem.a)), note=lambda: self.note)

    def check(self, device: torch.device) -> None:
        """Compare it with our reference path, on a small problem in double precision.

        Raises:
            Disagreement: they differ by more than rounding.
        """
        problem = LayerProblem.make(40, 3, 50, device, dtype=torch.float64)
        reference = LIF(self.neuron, surrogate=self.surrogate, temporal=Unrolled(self.reset))
        wanted = Outcome(*problem.differentiate(reference(problem.a)))
        found = self.contender(problem).outcome()
        agree(self.name, Outcome(tuple(s.to(torch.float64) for s in found.spikes), found.gradients), wanted, 1e-6)


def _snntorch(device: torch.device, dtype: torch.dtype) -> Layer:
    snn, surrogate = importlib.import_module("snntorch"), importlib.import_module("snntorch.surrogate")
    cell = snn.Leaky(beta=BETA, threshold=1.0, spike_grad=surrogate.fast_sigmoid(slope=STEEPNESS))
    cell = cell.to(device, dtype)
    cell.beta.fill_(BETA)  # it was made in single precision

    def layer(a: Tensor) -> Tensor:
        membrane, spikes = torch.zeros_like(a[0]), []
        for a_n in a.unbind(0):
            s, membrane = cell(a_n, membrane)
            spikes.append(s)
        return torch.stack(spikes)

    return layer


def _norse(device: torch.device, dtype: torch.dtype) -> Layer:
    norse = importlib.import_module("norse.torch")
    functional: Any = importlib.import_module("norse.torch.functional.lif_box")
    resets = importlib.import_module("norse.torch.functional.reset")
    leak = 1 - BETA

    def constant(x: float) -> Tensor:
        return torch.tensor(x, device=device, dtype=dtype)

    p = functional.LIFBoxParameters(
        tau_mem_inv=constant(leak / 1e-3),
        v_leak=constant(0.0),
        v_th=constant(1.0),
        v_reset=constant(0.0),
        alpha=constant(100.0),
        reset_method=resets.reset_subtract,
    )
    cell = norse.LIFBoxCell(p, dt=1e-3)

    def layer(a: Tensor) -> Tensor:
        state, spikes = functional.LIFBoxFeedForwardState(torch.zeros_like(a[0])), []
        for a_n in (a / leak).unbind(0):  # it has 1 - beta before its input
            s, state = cell(a_n, state)
            spikes.append(s)
        return torch.stack(spikes)

    return layer


def _spikingjelly(device: torch.device, dtype: torch.dtype) -> Layer:
    neuron: Any = importlib.import_module("spikingjelly.activation_based.neuron")
    surrogate: Any = importlib.import_module("spikingjelly.activation_based.surrogate")
    node = neuron.LIFNode(
        tau=1 / (1 - BETA),
        decay_input=False,
        v_reset=None,
        surrogate_function=surrogate.SoftSign(alpha=STEEPNESS),
        step_mode="m",
    ).to(device)

    def layer(a: Tensor) -> Tensor:
        node.reset()
        return node(a)

    return layer


def _sinabs(device: torch.device, dtype: torch.dtype) -> Layer:
    layers: Any = importlib.import_module("sinabs.layers")
    activation: Any = importlib.import_module("sinabs.activation")
    lif = layers.LIF(
        tau_mem=1.0,
        spike_fn=activation.SingleSpike,
        reset_fn=activation.MembraneSubtract(),
        surrogate_grad_fn=activation.SingleExponential(),
        train_alphas=True,  # so that the decay is a number and not computed from a time constant at every step
        norm_input=False,
    ).to(device, dtype)
    lif.alpha_mem = torch.nn.Parameter(torch.tensor(BETA, device=device, dtype=dtype), requires_grad=False)

    def layer(a: Tensor) -> Tensor:
        lif.reset_states()
        return torch.cat([lif(a_n.unsqueeze(1)) for a_n in a.unbind(0)], 1).transpose(0, 1)  # theirs is (B, T, N)

    return layer


def _decayed(strict: bool = False) -> Neuron:
    return lif(tau_mem=20e-3, dt=1e-3, reset=subtract_decayed, fire=Threshold(strict=strict))


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "snntorch",
            _snntorch,
            lif(tau_mem=20e-3, dt=1e-3, fire=Threshold(strict=True)),
            snntorch_fast_sigmoid(STEEPNESS),
            Reset.DETACHED,
            "its reset is not differentiated, which is less work",
        ),
        Peer("norse", _norse, _decayed(), norse_superspike(1.0), Reset.KEPT, "steepness 1, whatever it is told"),
        Peer(
            "spikingjelly",
            _spikingjelly,
            _decayed(),
            spikingjelly_soft_sign(STEEPNESS),
            Reset.KEPT,
            "its multi-step mode",
        ),
        Peer(
            "sinabs",
            _sinabs,
            _decayed(),
            sinabs_single_exponential(),
            Reset.KEPT,
            "an exponential surrogate; a step at a time",
        ),
    )
}


def installed(name: str) -> bool:
    """Whether a peer can be imported; imports nothing."""
    return importlib.util.find_spec(name) is not None


def version(name: str) -> str:
    """Of an installed peer."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def chosen(names: Sequence[str]) -> tuple[list[Peer], list[str]]:
    """The peers of these names that are installed, and a sentence for each that is not.

    Raises:
        ValueError: a name is unknown; says which there are.
    """
    for name in names:
        if name not in PEERS:
            raise ValueError(f"--against knows no library {name!r}; there are: {', '.join(PEERS)}")
    names = list(dict.fromkeys(names))
    missing = [f'{name} is not installed; pip install {name}, or "snnlearn[bench]" for all' for name in names]
    return (
        [PEERS[name] for name in names if installed(name)],
        [sentence for name, sentence in zip(names, missing, strict=True) if not installed(name)],
    )
