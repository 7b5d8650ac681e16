"""What torch wants to know of the ops for events and bits, recurrent layers and convolutions: their results' shapes.

`snnlearn.kernels.ops.register` tells it, once the library is there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snnlearn.kernels.codes import Fire

LANES = 64  # neurons in a word of bits, and outputs in a block
CHUNK = 64  # steps between checkpoints
RECURRENT_CHUNK = 16  # the same, of a recurrent layer


def _words(n: int) -> int:
    return (n + LANES - 1) // LANES


def _pack(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:2], _words(x.shape[2])), dtype=torch.int64)


def _unpack(bits: Tensor, N: int) -> Tensor:
    return bits.new_empty((*bits.shape[:2], N), dtype=torch.float32)


def _count(bits: Tensor) -> Tensor:
    return bits.new_empty(())


def _blocks(weight: Tensor) -> Tensor:
    return weight.new_empty((_words(weight.shape[0]), weight.shape[1], LANES))


def _forward(spikes, weight, bias, outputs, numbers, kinds, near, checkpoints):
    T, B, _ = spikes.shape
    blocks = weight.shape[0]
    readout = kinds[1] == Fire.ANALOG
    fires = spikes.new_empty(0 if readout else (T, B, blocks))
    close = spikes.new_empty((T, B, blocks) if near and not readout else 0)
    found = torch.library.get_ctx().new_dynamic_size() if near and not readout else 0  # so many as are near
    U = weight.new_empty((T, B, outputs) if readout else 0)
    chunks = (T + CHUNK - 1) // CHUNK
    saved = weight.new_empty((B, blocks, chunks, 2, LANES) if checkpoints and not readout else 0)
    return fires, close, weight.new_empty(found), U, saved


def _backward(
    spikes, weight, bias, error, checkpoints, values, near, near_U, fired, below, wanted, outputs, numbers, kinds,
    drive, down=None,
):  # fmt: skip
    to_weight, to_bias = weight.new_empty((outputs, weight.shape[1])), weight.new_empty(outputs)
    dense = weight.new_empty((*spikes.shape[:2], outputs) if drive else 0)
    if down is not None:
        dense = weight.new_empty((*spikes.shape[:2], weight.shape[1]))
    return to_weight, to_bias, dense, weight.new_empty(0 if below is None else wanted)


def _down(drive: Tensor, weight: Tensor) -> Tensor:
    return drive.new_empty((*drive.shape[:2], weight.shape[1]))


def _recurrent_forward(a, weight, numbers, kinds, near, keep):
    T, B, N = a.shape
    bits = a.new_empty((T, B, _words(N)), dtype=torch.int64)
    close = torch.empty_like(bits) if near else a.new_empty(0, dtype=torch.int64)
    found = torch.library.get_ctx().new_dynamic_size() if near and keep else 0  # so many as are near
    saved = a.new_empty(((T + RECURRENT_CHUNK - 1) // RECURRENT_CHUNK, B, 2, LANES * _words(N)) if keep else 0)
    return bits, close, a.new_empty(found), saved


def _recurrent_reverse(a, weight, spikes, near, saved, error, numbers, kinds, slope, seen):
    return a.new_empty(a.shape), weight.new_empty(weight.shape)


def _conv_forward(bits, weight, bias, size, padding):
    outputs, _, height, width = weight.shape
    image = (size[0] + 2 * padding - height + 1, size[1] + 2 * padding - width + 1)
    return weight.new_empty((*bits.shape[:2], *image, outputs))


def _conv_reverse(bits, kap, shape, size, padding, bias):
    return kap.new_empty(shape), kap.new_empty(shape[0] if bias else 0)


SHAPES: dict[str, Callable] = {
    "pack_bits": _pack,
    "unpack_bits": _unpack,
    "bits_set": _count,
    "events_blocks": _blocks,
    "events_forward": _forward,
    "events_backward": _backward,
    "events_down": _down,
    "recurrent_forward": _recurrent_forward,
    "recurrent_reverse": _recurrent_reverse,
    "conv_forward": _conv_forward,
    "conv_reverse": _conv_reverse,
}
"""The ops, and the shapes of their results."""
