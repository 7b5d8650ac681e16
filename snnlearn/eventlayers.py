"""Linear and the neurons behind it in one layer that takes spikes as events: silence costs nothing.

    model = nn.Sequential(LinearLIF(700, 200), LinearLIF(200, 200), LinearLIF(200, 20, readout()))
    loss(model(Spikes.pack(x)), y).backward()

Forward each input spike adds one row of weights, and the gradient of the weights is summed the same way; only the order
of additions differs from a matrix product. The error of the layer below stays a matrix product, unless its surrogate is
`Near(inner, within)`: then it is needed, and made, only where a neuron below is near its threshold
(`snnlearn.sparse`). Every dL/dW is that of the dense path with the same `Near`.

At high densities, and wherever the kernels do not know what they are given, the layer is ``nn.Linear`` and
``temporal.run``; `Report` says which way the last sequence went, and why.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnlearn import _checks, kernels
from snnlearn.eventpath import FIRST, HIDDEN, Events, Path, Report, check_layer, few, known, near_share, price
from snnlearn.eventrecurrent import recurrent_lif, synapse
from snnlearn.learned import Dynamics, as_neuron
from snnlearn.neurons import Neuron, Threshold, lif
from snnlearn.sparse import Near
from snnlearn.spikes import WORD, Spikes, count
from snnlearn.surrogate import FastSigmoid, Surrogate
from snnlearn.temporal import Adjoint, Backward, fused

_ADJOINT = Adjoint()


class LinearLIF(nn.Module):
    """``nn.Linear`` and neurons as one module, from spikes to spikes; parameters are those of ``nn.Linear``.

    Args:
        inputs, outputs: numbers of neurons below and here.
        neuron: a `Neuron` with at most one spike a step such as ``lif()``, or a module such as `Learned`; lif() if not
            given.
        surrogate: what replaces the derivative of the step; `Near(inner, within)` for sparse gradients.
        temporal: how credit travels through time.
        recurrent: whether the layer's spikes come back to it one step later, through ``recurrent_weight``.
        bias: whether there is a bias.
        path: which way the layer computes.
        generator: what draws the weights, as ``nn.Linear`` draws them.

    Attributes:
        report: `Report` of the last sequence.

    Raises:
        TypeError, ValueError: an argument is not what it must be.

    >>> layer = LinearLIF(3, 2)
    >>> layer(torch.ones(5, 1, 3)).shape
    (5, 1, 2)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        neuron: Dynamics | nn.Module | None = None,
        *,
        surrogate: Surrogate = FastSigmoid(),
        temporal: Backward = _ADJOINT,
        recurrent: bool = False,
        bias: bool = True,
        path: Path = Path.AUTO,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _checks.whole("inputs", inputs, least=1)
        _checks.whole("outputs", outputs, least=1)
        _checks.flag("recurrent", recurrent)
        _checks.flag("bias", bias)
        neuron = lif() if neuron is None else neuron
        check_layer(neuron, surrogate, temporal, path)
        fire = as_neuron(neuron).fire
        if isinstance(fire, Threshold) and fire.most != 1:
            raise ValueError(f"spikes leave this layer as bits, one a step; got {fire}; use nn.Linear and LIF")
        if recurrent and fire.analog:
            raise ValueError("a readout has no spikes that could come back to it; use recurrent=False")
        self.inputs, self.outputs = inputs, outputs
        self.source, self.surrogate, self.temporal, self.path = neuron, surrogate, temporal, path
        self.report: Report | None = None
        self._cosine: float | None = None
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator))
        drawn = torch.empty(outputs).uniform_(-bound, bound, generator=generator) if bias else None
        self.bias = nn.Parameter(drawn) if drawn is not None else None
        own = 1 / math.sqrt(outputs)
        drawn = torch.empty(outputs, outputs).uniform_(-own, own, generator=generator) if recurrent else None
        self.recurrent_weight = nn.Parameter(drawn) if drawn is not None else None

    def extra_repr(self) -> str:
        """What is not a submodule."""
        neuron = "" if isinstance(self.source, nn.Module) else f", {self.source}"
        return (
            f"{self.inputs}, {self.outputs}{neuron}, surrogate={self.surrogate}, temporal={self.temporal}, "
            f"recurrent={self.recurrent_weight is not None}, bias={self.bias is not None}, path={self.path}"
        )

    def forward(self, x: Tensor | Spikes) -> Spikes | Tensor:
        """Spikes of N neurons for a sequence of spikes, from rest; membranes (T, B, N) where the neuron is a readout.

        Args:
            x: `Spikes` of ``inputs`` neurons, or zeros and ones (T, B, inputs).

        Raises:
            TypeError, ValueError: x is neither, the weights hold NaN or infinity, or events were asked for and cannot
                be had.
        """
        self._check(x)
        neuron, found = as_neuron(self.source), self._found()
        reason = found if isinstance(found, str) else self._missing(x)
        if reason is not None and self.path is Path.EVENTS:
            raise ValueError(f"path=Path.EVENTS cannot be had: {reason}; Path.AUTO takes the dense path then")
        if reason is not None or self.path is Path.DENSE:
            return self._dense(x, neuron, Report(Path.DENSE, math.nan, None, reason or "asked for"))
        assert isinstance(found, Events)
        spikes = x if isinstance(x, Spikes) else Spikes.pack(x)
        below = torch.is_grad_enabled() and spikes.carrier is not None and spikes.carrier.requires_grad
        density, threshold = spikes.density(), (HIDDEN if below else FIRST).at(self.outputs, found.sparse)
        if self.path is Path.EVENTS:
            return self._by_events(spikes, neuron, found, Report(Path.EVENTS, density, threshold, "asked for"))
        if density <= threshold:
            why = f"at a density of {density:.2g} events are faster, up to {threshold:.2g}"
            return self._by_events(spikes, neuron, found, Report(Path.EVENTS, density, threshold, why))
        why = f"at a density of {density:.2g} the matrix product is faster, from {threshold:.2g}"
        return self._dense(x, neuron, Report(Path.DENSE, density, threshold, why))

    def _check(self, x: object) -> None:
        """Refuse what is no sequence of spikes for this layer, and weights whose trouble silence would hide."""
        if not isinstance(x, Tensor | Spikes):
            raise TypeError(f"the input must be Spikes or a tensor (T, B, {self.inputs}), got {type(x).__name__}")
        if isinstance(x, Tensor):
            _checks.sequence("the input", x)
            _checks.same_kind("the input", x, "the weights", self.weight)
        elif x.bits.device != self.weight.device:
            raise ValueError(f"the input is on {x.bits.device}, the weights on {self.weight.device}; move one of them")
        if len(x.shape) != 3 or x.shape[-1] != self.inputs:
            raise ValueError(f"the layer wants an input (T, B, {self.inputs}), got shape {tuple(x.shape)}")
        for name, p in self.named_parameters(recurse=False):
            if not _checks.finite(p):
                raise ValueError(f"the layer's {name} holds NaN or infinity: its weights have diverged; train slower")

    def _found(self) -> Events | str:
        """The layer as the kernels take it, or why they do not."""
        found = known(as_neuron(self.source), self.surrogate, self.temporal)
        # a recurrent layer's own kernel takes the neuron: events deliver its current
        return Events.current() if self.recurrent_weight is not None and isinstance(found, Events) else found

    def _missing(self, x: Tensor | Spikes) -> str | None:
        """What stands in the way of events but for the neuron and the rule, or None."""
        W = self.weight
        if W.device.type not in ("cpu", "cuda") or W.dtype != torch.float32:
            return f"events are computed in float32 on a CPU or with CUDA, the weights are {W.dtype} on {W.device}"
        if x.shape[0] * -(-self.inputs // WORD) * WORD >= 2**31:
            return f"{x.shape[0]} steps of {self.inputs} inputs are more than the kernels count, 2**31 in a sample"
        work = kernels.WORTH if self.path is Path.EVENTS else x.shape[0] * x.shape[1] * self.outputs
        if not fused.ready(W.device, work):
            return "the compiled kernels are not in use; kernels.status() says what there is of them"
        return None

    def _learns(self, x: Tensor | Spikes) -> bool:
        carrier = x.carrier if isinstance(x, Spikes) else x
        below = carrier is not None and carrier.requires_grad
        return torch.is_grad_enabled() and (below or any(p.requires_grad for p in self.parameters()))

    def _by_events(self, x: Spikes, neuron: Neuron, layer: Events, report: Report) -> Spikes | Tensor:
        learns, near = self._learns(x), None
        out: Spikes | Tensor
        if self.recurrent_weight is None:
            out, near = layer.run(self.weight, self.bias, x, learns)
        else:
            a, _ = layer.run(self.weight, self.bias, x, learns)
            assert isinstance(a, Tensor)
            out = recurrent_lif(a, self.recurrent_weight, neuron, self.surrogate, self.temporal)
            near = None if out.near is None else count(out.near)
        if isinstance(self.surrogate, Near) and not neuron.fire.analog and learns:
            activity = math.nan if near is None else near / (x.shape[0] * x.shape[1] * self.outputs)
            if self._cosine is None or near is None:  # a dense error has slopes that are cut off, too
                with torch.no_grad():
                    few = Spikes(x.bits[:, : self._few(x)].contiguous(), x.size).dense()
                    a = F.linear(few, self.weight, self.bias)
                    own = None if self.recurrent_weight is None else synapse(self.recurrent_weight)
                    U = self.temporal.run(neuron, self.surrogate, a, own).U
                if self._cosine is None:
                    self._measure(U, neuron)
                if near is None:
                    activity = near_share(U, neuron, self.surrogate)
            sparse = isinstance(out, Spikes) and out.near is not None
            report = replace(report, sparse=sparse, activity=activity, cosine=self._cosine)
        self.report = report
        return out

    def _dense(self, x: Tensor | Spikes, neuron: Neuron, report: Report) -> Spikes | Tensor:
        learns = self._learns(x)
        if isinstance(x, Spikes):
            x = x.dense(self.weight.dtype)
        elif not _checks.holds((x == 0) | (x == 1)):
            raise ValueError("the input must be spikes, 0 or 1; use nn.Linear and LIF for anything else")
        own = None if self.recurrent_weight is None else synapse(self.recurrent_weight)
        trace = self.temporal.run(neuron, self.surrogate, F.linear(x, self.weight, self.bias), own)
        if math.isnan(report.density):
            report = replace(report, density=x.detach().mean().item())
        if isinstance(self.surrogate, Near) and not neuron.fire.analog and learns:
            U = trace.U[:, : self._few(x)].detach()
            if self._cosine is None:
                self._measure(U, neuron)
            near = near_share(U, neuron, self.surrogate)
            report = replace(report, activity=near, cosine=self._cosine)
        self.report = report
        return trace.s if neuron.fire.analog else Spikes.pack(trace.s)

    def _few(self, x: Tensor | Spikes) -> int:
        return few(x.shape[0] * self.outputs)

    def _measure(self, U: Tensor, neuron: Neuron) -> None:
        assert isinstance(self.surrogate, Near)
        self._cosine = price(U, neuron, self.surrogate, stacklevel=7)
