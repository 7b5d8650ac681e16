"""A convolution and the neurons behind it that takes spikes as events: for first layers, whose inputs are sparse.

    layer = ConvLIF(2, 32, neuron=cuba_lif())
    y = layer(x)                        # x 0 or 1, (T, B, 2, H, W); y spikes (T, B, 32, H, W)

Forward an input spike adds its kernel to the outputs around it, and the gradient of the weights is summed the same way;
only the order of additions differs from a convolution. The neurons, any of this library's, are ``temporal.run``. The
error of the layer below, where there is one, is the dense convolution's: that is why events pay off in a first layer.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from snnlearn import _checks, kernels
from snnlearn.eventpath import Path, Report, check_layer, few, first_derivative, near_share, price
from snnlearn.learned import Dynamics, as_neuron
from snnlearn.neurons import Neuron, Trace, lif
from snnlearn.sparse import Near
from snnlearn.spikes import Spikes
from snnlearn.surrogate import FastSigmoid, Surrogate
from snnlearn.temporal import Adjoint, Backward

BREAK_EVEN = ((1, 0.7), (4, 0.4), (8, 0.25))
DEEP = 0.2
"""Densities of the input up to which events are faster, by the number of input channels: up to so many channels, and
for more. Measured forward and backward for kernels of 3 x 3, 16 to 128 outputs, images of 8 x 8 to 28 x 28."""

_ADJOINT = Adjoint()


def break_even(channels: int) -> float:
    """The density of the input, in 0..1, up to which events are faster than a dense convolution."""
    return next((density for most, density in BREAK_EVEN if channels <= most), DEEP)


class _Current(torch.autograd.Function):
    """The convolution (T, B, rows, columns, outputs) of spikes; ``carrier`` (T, B, C, H, W) gets their gradient."""

    @staticmethod
    def forward(weight, bias, carrier, bits, size, padding):
        return torch.ops.snnlearn.conv_forward(bits, weight, bias, size, padding)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        weight, bias, _, bits, ctx.size, ctx.padding = inputs
        ctx.bias = bias is not None
        ctx.save_for_backward(weight, bits)

    @staticmethod
    @first_derivative
    def backward(ctx, kap):
        weight, bits = ctx.saved_tensors
        to_weight = to_bias = to_carrier = None
        wants = ctx.needs_input_grad
        if wants[0] or wants[1]:
            to_weight, to_bias = torch.ops.snnlearn.conv_reverse(
                bits, kap, weight.shape, ctx.size, ctx.padding, ctx.bias
            )
        if wants[2]:
            error = kap.permute(0, 1, 4, 2, 3).flatten(0, 1)
            below = (len(error), weight.shape[1], *ctx.size)
            to_carrier = conv2d_input(below, weight, error, padding=ctx.padding).unflatten(0, kap.shape[:2])
        return to_weight if wants[0] else None, to_bias if wants[1] else None, to_carrier, None, None, None


class ConvLIF(nn.Module):
    """``nn.Conv2d`` of stride 1 and neurons as one module; parameters are those of ``nn.Conv2d``.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size: rows and columns of the kernel, one number or two.
        padding: zeros around the image, 0 to kernel_size - 1.
        neuron: a `Neuron`, a readout among them, or a module such as `Learned`; lif() if not given.
        surrogate: what replaces the derivative of the step.
        temporal: how credit travels through time.
        bias: whether there is a bias.
        path: which way the layer computes.
        size: rows and columns of the image; needed where the input is `Spikes`, which has lost them.
        generator: what draws the weights, as ``nn.Conv2d`` draws them.

    Attributes:
        report: `Report` of the last sequence.

    Raises:
        TypeError, ValueError: an argument is not what it must be.

    >>> layer = ConvLIF(2, 4)
    >>> layer(torch.ones(5, 1, 2, 6, 7)).shape
    torch.Size([5, 1, 4, 6, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        padding: int = 1,
        neuron: Dynamics | nn.Module | None = None,
        *,
        surrogate: Surrogate = FastSigmoid(),
        temporal: Backward = _ADJOINT,
        bias: bool = True,
        path: Path = Path.AUTO,
        size: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _checks.whole("in_channels", in_channels, least=1)
        _checks.whole("out_channels", out_channels, least=1)
        self.kernel_size = _pair("kernel_size", kernel_size)
        _checks.whole("padding", padding)
        if padding >= min(self.kernel_size):
            raise ValueError(f"padding must be less than the kernel, {self.kernel_size}, got {padding}")
        _checks.flag("bias", bias)
        neuron = lif() if neuron is None else neuron
        check_layer(neuron, surrogate, temporal, path)
        self.in_channels, self.out_channels, self.padding = in_channels, out_channels, padding
        self.size = None if size is None else _pair("size", size)
        self.source, self.surrogate, self.temporal, self.path = neuron, surrogate, temporal, path
        self.report: Report | None = None
        self._cosine: float | None = None
        bound = 1 / math.sqrt(in_channels * math.prod(self.kernel_size))
        drawn = torch.empty(out_channels, in_channels, *self.kernel_size).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(drawn)
        drawn_bias = torch.empty(out_channels).uniform_(-bound, bound, generator=generator) if bias else None
        self.bias = nn.Parameter(drawn_bias) if drawn_bias is not None else None

    def extra_repr(self) -> str:
        """What is not a submodule."""
        neuron = "" if isinstance(self.source, nn.Module) else f", {self.source}"
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, padding={self.padding}{neuron}, "
            f"surrogate={self.surrogate}, temporal={self.temporal}, bias={self.bias is not None}, path={self.path}"
        )

    def forward(self, x: Tensor | Spikes) -> Tensor:
        """Spikes (T, B, out_channels, rows, columns) of a sequence of spikes, from rest; a readout's membranes.

        Args:
            x: zeros and ones (T, B, in_channels, H, W), or `Spikes` of in_channels * H * W neurons in that order.

        Raises:
            TypeError, ValueError: x is neither, the weights hold NaN or infinity, or events were asked for and cannot
                be had.
        """
        size = self._check(x)
        neuron, reason = as_neuron(self.source), self._missing(x)
        if reason is not None and self.path is Path.EVENTS:
            raise ValueError(f"path=Path.EVENTS cannot be had: {reason}; Path.AUTO takes the dense path then")
        if reason is not None or self.path is Path.DENSE:
            return self._dense(x, size, neuron, Report(Path.DENSE, math.nan, None, reason or "asked for"))
        spikes = x if isinstance(x, Spikes) else Spikes.pack(x.flatten(2))
        density, threshold = spikes.density(), break_even(self.in_channels)
        report = Report(Path.EVENTS, density, threshold, "asked for")
        if self.path is Path.AUTO and density > threshold:
            why = f"at a density of {density:.2g} the dense convolution is faster, from {threshold:.2g}"
            return self._dense(x, size, neuron, replace(report, path=Path.DENSE, why=why))
        if self.path is Path.AUTO:
            why = f"at a density of {density:.2g} events are faster, up to {threshold:.2g}"
            report = replace(report, why=why)
        carrier = None
        if spikes.carrier is not None and spikes.carrier.requires_grad and torch.is_grad_enabled():
            carrier = x.dense().unflatten(2, (self.in_channels, *size)) if isinstance(x, Spikes) else x
        a = _Current.apply(self.weight, self.bias, carrier, spikes.bits, size, self.padding)
        self.report = report
        return self._neurons(neuron, a)

    def _check(self, x: object) -> tuple[int, int]:
        """The rows and columns of the image; refuses what is no sequence of spikes, and weights that are no numbers."""
        C = self.in_channels
        if not isinstance(x, Tensor | Spikes):
            raise TypeError(f"the input must be Spikes or a tensor (T, B, {C}, H, W), got {type(x).__name__}")
        for name, p in self.named_parameters(recurse=False):
            if not _checks.finite(p):  # silent inputs would hide it
                raise ValueError(f"the layer's {name} holds NaN or infinity: its weights have diverged; train slower")
        if isinstance(x, Spikes):
            if self.size is None:
                raise ValueError("Spikes do not say how many rows and columns their image has; give the layer size=")
            if x.size != C * math.prod(self.size):
                raise ValueError(f"{C} channels of {self.size} are {C * math.prod(self.size)} neurons, got {x.size}")
            size = self.size
        else:
            _checks.sequence("the input", x)
            _checks.same_kind("the input", x, "the weights", self.weight)
            if x.dim() != 5 or x.shape[2] != C or (self.size is not None and tuple(x.shape[3:]) != self.size):
                wanted = "H, W" if self.size is None else f"{self.size[0]}, {self.size[1]}"
                raise ValueError(f"the layer wants an input (T, B, {C}, {wanted}), got shape {tuple(x.shape)}")
            size = x.shape[3], x.shape[4]
        if any(n + 2 * self.padding < k for n, k in zip(size, self.kernel_size, strict=True)):
            raise ValueError(f"an image of {size} is smaller than the kernel {self.kernel_size}; use more padding")
        return size

    def _missing(self, x: Tensor | Spikes) -> str | None:
        """What stands in the way of events, or None."""
        W = self.weight
        if W.device.type != "cpu" or W.dtype != torch.float32:
            return f"events are computed in float32 on the CPU, the weights are {W.dtype} on {W.device}"
        if not kernels.ready(kernels.WORTH if self.path is Path.EVENTS else math.prod(x.shape)):
            return f"the compiled kernels are not in use ({kernels.status()['cpu kernels']})"
        return None

    def _dense(self, x: Tensor | Spikes, size: tuple[int, int], neuron: Neuron, report: Report) -> Tensor:
        if isinstance(x, Spikes):
            image = x.dense(self.weight.dtype).unflatten(2, (self.in_channels, *size))  # with its gradient, if any
        else:
            image = x
            if not _checks.holds((x == 0) | (x == 1)):
                raise ValueError("the input must be spikes, 0 or 1; use nn.Conv2d and LIF for anything else")
        if math.isnan(report.density):
            report = replace(report, density=image.detach().mean().item())
        a = F.conv2d(image.flatten(0, 1), self.weight, self.bias, padding=self.padding).unflatten(0, image.shape[:2])
        self.report = report
        return self._told(neuron, self.temporal.run(neuron, self.surrogate, a, None))

    def _neurons(self, neuron: Neuron, a: Tensor) -> Tensor:
        """The neurons' output for currents (T, B, rows, columns, outputs), with the channels in their place."""
        if type(neuron) is Neuron and not any(isinstance(c, Tensor) for c in neuron.constants):
            return self._told(neuron, self.temporal.run(neuron, self.surrogate, a, None)).permute(0, 1, 4, 2, 3)
        return self._told(neuron, self.temporal.run(neuron, self.surrogate, a.permute(0, 1, 4, 2, 3), None))

    def _told(self, neuron: Neuron, trace: Trace) -> Tensor:
        """The spikes of a trace; where `Near` has a price, the report says it, and a warning where it is high."""
        if isinstance(self.surrogate, Near) and not neuron.fire.analog and trace.s.requires_grad:
            U = trace.U[:, : few(trace.U[:, 0].numel())].detach()
            if self._cosine is None:
                self._cosine = price(U, neuron, self.surrogate, stacklevel=6)
            assert self.report is not None
            activity = near_share(U, neuron, self.surrogate)
            self.report = replace(self.report, activity=activity, cosine=self._cosine)
        return trace.s


def _pair(name: str, value: Any) -> tuple[int, int]:
    rows, columns = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
    _checks.whole(f"{name}, one number or two,", rows, least=1)
    _checks.whole(f"{name}, one number or two,", columns, least=1)
    return rows, columns
