"""Tensors to pointers for the kernels of events.cu: the ops of events.cpp on a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p

import torch
from torch import Tensor
from torch.nn import functional

from snnlearn.kernels.codes import Fire, Reset, Seen, Slope
from snnlearn.kernels.launches import Driver

LANES = 64  # outputs of a block, bits of a word
CHUNK = 64  # steps between checkpoints
PARTS, PART_BYTES = 16, 64 << 20  # of the partial sums of dL/dW; whatever the GPU, so that results do not depend on it


class EventLayer(ctypes.Structure):
    """``EventLayer`` of events.cu."""

    _fields_ = (
        *((name, c_int64) for name in ("steps", "batch", "inputs", "outputs")),
        *((name, c_void_p) for name in ("spikes", "weight", "bias", "checkpoints")),
        *((name, c_float) for name in ("alpha", "beta", "theta", "within")),
        *((name, c_int32) for name in ("reset", "fire")),
    )


class EventForward(ctypes.Structure):
    """``EventForward`` of events.cu."""

    _fields_ = tuple((name, c_void_p) for name in ("spikes", "near", "U"))


class EventReverse(ctypes.Structure):
    """``EventReverse`` of events.cu."""

    _fields_ = (
        *((name, c_void_p) for name in ("error", "values", "near_U", "near", "fired")),
        *((name, c_void_p) for name in ("values_offset", "near_U_offset", "out")),
        *((name, c_float) for name in ("inverse_width", "peak", "within")),
        *((name, c_int32) for name in ("slope", "seen", "padding")),
    )


def words_of(n: int) -> int:
    """Words of 64 bits, or blocks of 64 outputs, for n neurons."""
    return -(-n // LANES)


class EventDriver(Driver):
    """All launches of a library; float32 only here, as on the CPU."""

    def events_blocks(self, weight: Tensor) -> Tensor:
        """The op ``events_blocks``: weight (outputs, inputs) as (blocks, inputs, 64), padded with zeros."""
        if weight.dim() != 2 or weight.dtype != torch.float32 or weight.numel() == 0:
            raise ValueError(f"weight must be float32 (outputs, inputs), got {weight.dtype} {tuple(weight.shape)}")
        blocks = words_of(len(weight))
        padded = functional.pad(weight, (0, 0, 0, blocks * LANES - len(weight)))
        return padded.view(blocks, LANES, -1).transpose(1, 2).contiguous()

    def events_forward(
        self,
        spikes: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        outputs: int,
        numbers: Sequence[float],
        kinds: Sequence[int],
        near: bool,
        checkpoints: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The op ``events_forward``: bits of the spikes and of near neurons, membranes of near neurons in the order of
        (b, block, t, lane), a readout's membranes (T, B, N), checkpoints; each empty where it is not wanted.

        While it runs, membranes of near neurons take a dense array (T, B, N).

        Raises:
            ValueError: an array has another device, dtype or shape than the layer needs, or the neuron is unknown.
            RuntimeError: the launch failed.
        """
        p, T, B = self._events(spikes, weight, bias, outputs, numbers, kinds)
        if len(numbers) != 4:
            raise ValueError("alpha, beta, theta and within are wanted")
        p.within, blocks = numbers[3], words_of(outputs)
        readout = kinds[1] == Fire.ANALOG
        near, checkpoints = near and not readout, checkpoints and not readout
        out = spikes.new_empty(0 if readout else (T, B, blocks))
        close = spikes.new_empty((T, B, blocks) if near else 0)
        U = weight.new_empty((T, B, outputs) if readout or near else 0)
        chunks = -(-T // CHUNK)
        saved = weight.new_empty((B, blocks, chunks, 2, LANES) if checkpoints else 0)
        p.checkpoints = saved.data_ptr() if checkpoints else None
        g = EventForward(*(x.data_ptr() if x.numel() else None for x in (out, close, U)))
        self._launch("snn_events_forward", spikes.device, ctypes.byref(p), ctypes.byref(g))
        if not near:
            return out, close, weight.new_empty(0), U, saved
        offset, total = self._offsets(close, (1, 2, 0))
        near_U = weight.new_empty(total)
        sizes = (c_int64(n) for n in (T, B, outputs))
        self._launch("snn_events_gather", spikes.device, *_pointers(close, offset, U, near_U), *sizes)
        return out, close, near_U, weight.new_empty(0), saved

    def events_backward(
        self,
        spikes: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        error: Tensor | None,
        checkpoints: Tensor | None,
        values: Tensor | None,
        near: Tensor | None,
        near_U: Tensor | None,
        fired: Tensor | None,
        below: Tensor | None,
        wanted: int,
        outputs: int,
        numbers: Sequence[float],
        kinds: Sequence[int],
        drive: bool,
        down: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The op ``events_backward``: dL/dW (outputs, inputs), dL/dbias (0 where there is none), dL/da (T, B, N) with
        ``drive`` or, with the weights ``down``, the error of every neuron below, else empty; and the errors at the
        wanted neurons below in the order of (b, t, neuron).

        While it runs, dL/da takes a dense array whether it is wanted or not.

        Raises:
            ValueError: as in `events_forward`; or errors and membranes do not belong together.
            RuntimeError: a launch failed.
        """
        p, T, B = self._events(spikes, weight, bias, outputs, numbers, kinds)
        if len(numbers) != 6 or len(kinds) != 4 or kinds[2] not in list(Slope) or kinds[3] not in list(Seen):
            raise ValueError("six numbers and four kinds of a known slope and gradient are wanted")
        if drive and down is not None:
            raise ValueError("either dL/da is wanted or what it is for the neurons below")
        if (values is None) == (error is None):
            raise ValueError("either a dense error or values at near neurons are wanted")
        blocks, readout = words_of(outputs), kinds[1] == Fire.ANALOG
        g = EventReverse(slope=int(kinds[2]), seen=int(kinds[3]))
        g.inverse_width, g.peak, g.within = numbers[3:]
        if values is None:
            assert error is not None
            error = self._array("error", error, torch.float32, (T, B, outputs), spikes)
            g.error = error.data_ptr()
            if not readout:
                if checkpoints is None:
                    raise ValueError("the membrane is made again from checkpoints")
                shape = (B, blocks, -(-T // CHUNK), 2, LANES)
                checkpoints = self._array("checkpoints", checkpoints, torch.float32, shape, spikes)
                p.checkpoints = checkpoints.data_ptr()
        else:
            if readout or near is None or near_U is None or fired is None:
                raise ValueError("values belong to near neurons, their membranes and spikes")
            if kinds[0] == Reset.TO_ZERO_WITH_INPUT and kinds[3] != Seen.IGNORED:
                raise ValueError("this reset has no sparse gradient")
            near = self._array("near", near, torch.int64, (T, B, blocks), spikes)
            fired = self._array("fired", fired, torch.int64, (T, B, blocks), spikes)
            values_offset, total = self._offsets(near, (1, 0, 2))
            near_U_offset, _ = self._offsets(near, (1, 2, 0))
            values = self._array("values", values, torch.float32, (total,), spikes)
            near_U = self._array("near_U", near_U, torch.float32, (total,), spikes)
            g.values, g.near_U, g.near, g.fired = (x.data_ptr() for x in (values, near_U, near, fired))
            g.values_offset, g.near_U_offset = values_offset.data_ptr(), near_U_offset.data_ptr()
        kap = weight.new_empty(T, B, outputs)
        g.out = kap.data_ptr()
        self._launch("snn_events_reverse", spikes.device, ctypes.byref(p), ctypes.byref(g))
        dense = kap if drive else weight.new_empty(0) if down is None else self.events_down(kap, down)
        at_wanted = weight.new_empty(0)
        if below is not None:
            below = self._array("below", below, torch.int64, spikes.shape, spikes)
            offset, total = self._offsets(below, (1, 0, 2))
            if total != wanted:
                raise ValueError(f"below has {total} bits set, and {wanted} were announced")
            at_wanted = weight.new_empty(total)
            sizes = (c_int64(n) for n in (T, B, p.inputs, outputs))
            self._launch("snn_events_below", spikes.device, *_pointers(below, offset, weight, kap, at_wanted), *sizes)
        to_bias = weight.new_zeros(outputs) if bias is None else kap.sum((0, 1))
        return self._weight(spikes, weight, kap), to_bias, dense, at_wanted

    def events_down(self, drive: Tensor, weight: Tensor) -> Tensor:
        """The op ``events_down``: the error below, (T, B, inputs), from dL/da and weight (outputs, inputs)."""
        return drive @ weight

    def pack_bits(self, x: Tensor) -> Tensor:
        """The op ``pack_bits``: 0 and 1 (T, B, N) as words (T, B, words); takes 8 bytes a neuron while it runs."""
        if x.dim() != 3 or x.numel() == 0:
            raise ValueError(f"spikes must be (T, B, N), got {tuple(x.shape)}")
        if not bool(((x == 0) | (x == 1)).all()):
            raise ValueError("spikes are 0 or 1, and the tensor holds something else")
        words = functional.pad(x.bool(), (0, -x.shape[2] % LANES)).unflatten(2, (-1, LANES)).long()
        return (words << torch.arange(LANES, device=x.device)).sum(-1)

    def unpack_bits(self, bits: Tensor, N: int) -> Tensor:
        """The op ``unpack_bits``: words (T, B, words) as 0.0 and 1.0 (T, B, N); takes 8 bytes a neuron."""
        if bits.dtype != torch.int64 or bits.dim() != 3 or bits.shape[2] != words_of(N):
            raise ValueError(f"bits must be int64 (T, B, words) for {N} neurons, got {bits.dtype} {tuple(bits.shape)}")
        return ((bits.unsqueeze(-1) >> torch.arange(LANES, device=bits.device)) & 1).flatten(2)[:, :, :N].float()

    def _weight(self, spikes: Tensor, weight: Tensor, kap: Tensor) -> Tensor:
        """dL/dW (outputs, inputs), summed in parts that depend on the sizes alone."""
        T, B, outputs = kap.shape
        blocks, inputs, _ = weight.shape
        parts = max(1, min(PARTS, T * B, PART_BYTES // (weight.numel() * weight.element_size())))
        sums = weight.new_empty(parts, blocks, inputs, LANES)
        sizes = (c_int64(n) for n in (T * B, inputs, outputs, parts))
        self._launch("snn_events_weight", spikes.device, *_pointers(spikes, kap, sums), *sizes)
        return sums.sum(0).transpose(1, 2).reshape(blocks * LANES, inputs)[:outputs].contiguous()

    def _events(
        self,
        spikes: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        outputs: int,
        numbers: Sequence[float],
        kinds: Sequence[int],
    ) -> tuple[EventLayer, int, int]:
        """What both passes are told of the layer, T and B."""
        if spikes.device.type != self._kind or spikes.dim() != 3 or weight.dim() != 3 or spikes.numel() == 0:
            raise ValueError(
                f"spikes must be (T, B, words), weights (blocks, inputs, 64), on {self._kind}, got "
                f"{tuple(spikes.shape)} and {tuple(weight.shape)} on {spikes.device}"
            )
        (T, B, _), inputs = spikes.shape, weight.shape[1]
        for name, x, dtype, shape in (
            ("spikes", spikes, torch.int64, (T, B, words_of(inputs))),
            ("weight", weight, torch.float32, (words_of(outputs), inputs, LANES)),
            ("bias", bias, torch.float32, (words_of(outputs), LANES)),
        ):
            if x is not None and not self._array(name, x, dtype, shape, spikes).is_set_to(x):
                raise ValueError(f"{name} must be contiguous")
        fires = kinds[1] in (Fire.REACH, Fire.EXCEED) and kinds[0] in list(Reset)
        if not fires and not (kinds[1] == Fire.ANALOG and kinds[0] == Reset.NONE):
            raise ValueError("a layer of events has at most one spike a step, or it is a readout without reset")
        addresses = spikes.data_ptr(), weight.data_ptr(), None if bias is None else bias.data_ptr(), None
        return EventLayer(T, B, inputs, outputs, *addresses, *numbers[:3], 0.0, int(kinds[0]), int(kinds[1])), T, B

    def _array(self, name: str, x: Tensor, dtype: torch.dtype, shape: Sequence[int], like: Tensor) -> Tensor:
        """x, contiguous, if it is what is wanted."""
        if x.dtype != dtype or x.shape != torch.Size(shape) or x.device != like.device:
            raise ValueError(
                f"{name} must be {dtype} of shape {tuple(shape)} on {like.device}, got {x.dtype} of shape "
                f"{tuple(x.shape)} on {x.device}"
            )
        return x.contiguous()

    def _offsets(self, bits: Tensor, order: Sequence[int]) -> tuple[Tensor, int]:
        """Where the numbers of each word begin when words are read in another order of axes, and how many there are."""
        counts = torch.empty_like(bits)
        self._launch("snn_events_count", bits.device, *_pointers(bits, counts), c_int64(bits.numel()))
        counts = counts.permute(*order).contiguous()
        ends = counts.view(-1).cumsum(0).view_as(counts)
        return ends - counts, int(ends.view(-1)[-1])


def _pointers(*tensors: Tensor) -> list[c_void_p]:
    return [c_void_p(x.data_ptr()) for x in tensors]
