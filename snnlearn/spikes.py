"""Spikes as bits: a sequence of layers' output in one thirty-second of the memory, with its gradient beside it.

Bits carry no gradient, so a float tensor, the carrier, does: the error of the spikes is the gradient of the carrier.
For an error of every neuron it is expanded from one number and has no memory of its own; for an error of the neurons
near their threshold only (`snnlearn.sparse.Near`) it has one number for each of them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from snnlearn import _checks, kernels

WORD = 64


def words(size: int) -> int:
    """Words of 64 bits that ``size`` neurons take."""
    return -(-size // WORD)


def _pack(x: Tensor) -> Tensor:
    """Numbers 0 and 1, (T, B, N), as bits (T, B, words)."""
    if x.device.type == "cpu" and kernels.ready(x.numel()):
        return torch.ops.snnlearn.pack_bits(x)
    if not _checks.holds((x == 0) | (x == 1)):
        raise ValueError(
            "spikes are 0 or 1 and the tensor holds something else; make spikes of it, such as (x > 0).float()"
        )
    octets = F.pad(x.to(torch.uint8), (0, -x.shape[-1] % WORD)).unflatten(-1, (-1, 8))
    powers = 2 ** torch.arange(8, dtype=torch.uint8, device=x.device)
    packed = (octets * powers).sum(-1, dtype=torch.uint8)
    return _in_order(packed).contiguous().view(torch.int64)


def _in_order(octets: Tensor) -> Tensor:
    """Octets (..., 8 * words) in the order in which this machine's integers hold them, and back."""
    return octets if sys.byteorder == "little" else octets.unflatten(-1, (-1, 8)).flip(-1).flatten(-2)


def unpack(bits: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bits (T, B, words) as zeros and ones (T, B, size)."""
    if bits.device.type == "cpu" and dtype == torch.float32 and kernels.ready(bits.numel() * WORD):
        return torch.ops.snnlearn.unpack_bits(bits, size)
    octets = _in_order(bits.contiguous().view(torch.uint8))
    shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (octets.unsqueeze(-1) >> shifts & 1).flatten(-2)[..., :size].to(dtype)


def count(bits: Tensor) -> int:
    """How many bits are set."""
    if bits.device.type == "cpu" and kernels.ready(bits.numel()):
        return int(torch.ops.snnlearn.bits_set(bits))
    return int(unpack(bits, WORD * bits.shape[-1], torch.uint8).sum())


class _Dense(torch.autograd.Function):
    """Zeros and ones whose gradient is that of the carrier."""

    @staticmethod
    def forward(carrier: Tensor, bits: Tensor, near: Tensor | None, size: int, dtype: torch.dtype) -> Tensor:
        return unpack(bits, size, dtype)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        carrier, _, near, ctx.size, _ = inputs
        ctx.dtype = carrier.dtype
        ctx.save_for_backward(near)

    @staticmethod
    @once_differentiable
    def backward(ctx, e):
        (near,) = ctx.saved_tensors
        if near is not None:
            wanted = unpack(near, ctx.size, torch.bool)
            e = e.transpose(0, 1)[wanted.transpose(0, 1)]
        return e.to(ctx.dtype), None, None, None, None


@dataclass(frozen=True, eq=False)
class Spikes:
    """A sequence of spikes of N neurons, 0 or 1 a step.

    Args:
        bits: int64, (T, B, words): bit j of word k is neuron 64 * k + j; the bits beyond N are 0.
        size: N.
        carrier: what carries the gradient, floating point: (T, B, N) for an error of every neuron, or (n,) for the
            errors of the ``near`` ones in the order of (sample, step, neuron); None for no gradient.
        near: like ``bits``, the neurons that want an error; None for all.

    Raises:
        TypeError, ValueError: these do not fit each other.

    >>> x = torch.tensor([[[1.0, 0.0, 1.0]]])
    >>> spikes = Spikes.pack(x)
    >>> spikes.bits.item(), spikes.dense().tolist()
    (5, [[[1.0, 0.0, 1.0]]])
    """

    bits: Tensor
    size: int
    carrier: Tensor | None = None
    near: Tensor | None = None

    def __post_init__(self) -> None:
        _checks.whole("size, the number of neurons,", self.size, least=1)
        self._check("bits", self.bits)
        if self.near is not None:
            self._check("near", self.near)
            if self.near.shape != self.bits.shape:
                raise ValueError(f"near has shape {tuple(self.near.shape)}, bits {tuple(self.bits.shape)}")
        if self.carrier is None:
            return
        if not isinstance(self.carrier, Tensor) or not self.carrier.is_floating_point():
            kind = getattr(self.carrier, "dtype", type(self.carrier).__name__)
            raise TypeError(f"the carrier of a gradient must be a floating-point tensor, got {kind}")
        if self.near is None and self.carrier.shape != self.shape:
            raise ValueError(
                f"the carrier of an error of every neuron must have shape {self.shape}, got "
                f"{tuple(self.carrier.shape)}; errors of some neurons need near"
            )
        if self.near is not None and self.carrier.dim() != 1:
            raise ValueError(
                f"the carrier of errors of near neurons must have one axis, got shape {tuple(self.carrier.shape)}"
            )

    def _check(self, name: str, bits: object) -> None:
        if not isinstance(bits, Tensor) or bits.dtype != torch.int64:
            kind = bits.dtype if isinstance(bits, Tensor) else type(bits).__name__
            raise TypeError(f"{name} must be an int64 tensor (T, B, words), got {kind}; Spikes.pack(x) makes one")
        if bits.dim() != 3 or 0 in bits.shape or bits.shape[-1] != words(self.size):
            raise ValueError(
                f"{name} must be (T, B, {words(self.size)}) for {self.size} neurons, 64 a word, with at least one step "
                f"and sample; got shape {tuple(bits.shape)}"
            )
        rest = self.size % WORD
        if rest and not _checks.holds(bits[..., -1] >> rest == 0):
            raise ValueError(f"{name} has bits set beyond its {self.size} neurons; Spikes.pack(x) leaves them 0")

    @classmethod
    def pack(cls, x: Tensor) -> Self:
        """Zeros and ones x (T, B, N), floating point, boolean or uint8, as bits; x carries the gradient if it has one.

        Raises:
            TypeError: another dtype.
            ValueError: other values, NaN among them, or another shape.
        """
        kinds = (torch.bool, torch.uint8)
        if not isinstance(x, Tensor) or not (x.is_floating_point() or x.dtype in kinds):
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"spikes must be a floating-point, boolean or uint8 tensor (T, B, N), got {kind}")
        if x.dim() != 3 or 0 in x.shape:
            raise ValueError(
                f"spikes must be (T, B, N), each at least 1, got shape {tuple(x.shape)}; "
                "one sample needs x.unsqueeze(1), features on several axes x.flatten(2)"
            )
        return cls(_pack(x.detach()), x.shape[-1], x if x.requires_grad and torch.is_grad_enabled() else None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, B, N)."""
        return self.bits.shape[0], self.bits.shape[1], self.size

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Zeros and ones, (T, B, N), differentiable where there is a carrier."""
        if self.carrier is None or not self.carrier.requires_grad:
            return unpack(self.bits, self.size, dtype)
        return _Dense.apply(self.carrier, self.bits, self.near, self.size, dtype)

    def density(self) -> float:
        """The share of ones among all T * B * N, in 0..1."""
        T, B, N = self.shape
        return count(self.bits) / (T * B * N)
