"""Recordings of spikes, held as flat lists of events; dense or as bits only for the batch that is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.spikes import Spikes

LONGEST = 2**31 - 1  # microseconds, 35 minutes


class Recordings:
    """Spikes of N samples, one sample's after the other's.

    Args:
        times: when each spike was, in microseconds from the start of its sample, integers (E,); in order within a
            sample.
        units: which of the units it was, integers (E,): an index into the flattened ``shape``.
        pointer: where each sample begins in the two, integers (N + 1,), the last E.
        shape: of the units, such as (700,) or (2, 34, 34).
        speakers: who made each sample, integers (N,), where it is known.

    Raises:
        TypeError, ValueError: these do not fit each other, a time is negative or beyond 35 minutes, or a unit is not
            in ``shape``.

    >>> two = Recordings(torch.tensor([0, 2500, 1000]), torch.tensor([1, 0, 1]), torch.tensor([0, 2, 3]), (2,))
    >>> two.dense(steps=3)[:, 0].tolist()
    [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    >>> len(two[torch.tensor([1])])
    1
    """

    def __init__(
        self, times: Tensor, units: Tensor, pointer: Tensor, shape: Sequence[int], speakers: Tensor | None = None
    ):
        self.shape = torch.Size(shape)
        size = self.shape.numel()
        if not self.shape or size < 1:
            raise ValueError(f"shape must have at least one axis and no empty one, got {tuple(shape)}")
        for name, value in (("times", times), ("units", units), ("pointer", pointer)):
            if not isinstance(value, Tensor) or value.is_floating_point() or value.dtype == torch.bool:
                kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"{name} must be an integer tensor, got {kind}")
            if value.dim() != 1:
                raise ValueError(f"{name} must have one axis, got shape {tuple(value.shape)}")
        if len(times) != len(units):
            raise ValueError(f"there are {len(times)} times and {len(units)} units; every spike has one of each")
        if len(pointer) < 1 or pointer[0] != 0 or pointer[-1] != len(times) or bool((pointer.diff() < 0).any()):
            raise ValueError(f"pointer must rise from 0 to {len(times)}, the number of spikes")
        if len(times):
            if int(times.min()) < 0 or int(times.max()) > LONGEST:
                raise ValueError(
                    f"times must lie in 0..{LONGEST} microseconds, got {int(times.min())}..{int(times.max())}"
                )
            if int(units.min()) < 0 or int(units.max()) >= size:
                raise ValueError(f"units must lie in 0..{size - 1}, got {int(units.min())}..{int(units.max())}")
        if speakers is not None and speakers.shape != (len(pointer) - 1,):
            raise ValueError(f"speakers must have shape ({len(pointer) - 1},), got {tuple(speakers.shape)}")
        self.speakers = speakers
        self.times = times.to(torch.int32)
        self.units = units.to(torch.int16 if size <= 2**15 else torch.int32)
        self.pointer = pointer.to(torch.int64)

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.pointer) - 1

    def __repr__(self) -> str:
        return f"Recordings({len(self)} samples, {len(self.times)} spikes, shape={tuple(self.shape)})"

    def __getitem__(self, chosen: Tensor | slice) -> Recordings:
        """The chosen samples, by integers (n,) of any order or a slice."""
        if isinstance(chosen, slice):
            which = range(len(self))[chosen]
            chosen = torch.arange(len(which)) * which.step + which.start
        if not isinstance(chosen, Tensor) or chosen.dim() != 1 or chosen.is_floating_point():
            raise TypeError("choose samples by an integer tensor (n,) or a slice")
        if chosen.dtype == torch.bool:
            if len(chosen) != len(self):
                raise IndexError(f"there are {len(self)} samples, the mask has {len(chosen)}")
            chosen = chosen.nonzero().squeeze(1)
        first, last = self.pointer[:-1][chosen], self.pointer[1:][chosen]
        pointer = torch.cat([torch.zeros(1, dtype=torch.int64), (last - first).cumsum(0)])
        cuts = list(zip(first.tolist(), last.tolist(), strict=True))  # views: an index would take more than the events
        times, units = (torch.cat([v[:0], *(v[i:j] for i, j in cuts)]) for v in (self.times, self.units))
        return self._part(times, units, pointer, chosen)

    def _part(self, times: Tensor, units: Tensor, pointer: Tensor, chosen: Tensor | slice) -> Recordings:
        part = object.__new__(Recordings)  # what was checked once is not checked again
        part.speakers = None if self.speakers is None else self.speakers[chosen]
        part.times, part.units, part.pointer, part.shape = times, units, pointer, self.shape
        return part

    def split(self, size: int) -> list[Recordings]:
        """Pieces of at most ``size`` samples, in order."""
        _checks.whole("size", size, least=1)
        ends = [(n, min(n + size, len(self))) for n in range(0, len(self), size)]
        cuts = [(int(self.pointer[n]), int(self.pointer[m])) for n, m in ends]
        return [
            self._part(self.times[i:j], self.units[i:j], self.pointer[n : m + 1] - i, slice(n, m))
            for (n, m), (i, j) in zip(ends, cuts, strict=True)
        ]

    def counts(self) -> Tensor:
        """How often each unit fired, (N, *shape), float32: all that is left without time."""
        size = self.shape.numel()
        where = self._places(size).add_(self.units)
        return where.bincount(minlength=len(self) * size).view(-1, *self.shape).float()

    def dense(self, steps: int, dt: float = 1e-3, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Zeros and ones (T, N, *shape): 1 where a unit fired at least once in the step.

        Args:
            steps: T; what comes later is left out.
            dt: length of a step, seconds.
            dtype: of the result.
        """
        _checks.whole("steps", steps, least=1)
        _checks.positive("dt", dt, "seconds")
        width, size = 1e6 * dt, self.shape.numel()
        if abs(width - round(width)) < 1e-9 * width:
            step = self.times.div(round(width), rounding_mode="floor")
        else:
            step = self.times.double().div_(width).floor_()
        where = self._places(size).add_(self.units)
        if len(step) and int(step.max()) >= steps:
            inside = step < steps
            step, where = step[inside], where[inside]
        out = torch.zeros(steps * len(self) * size, dtype=dtype)
        where.add_(step.to(torch.int64).mul_(len(self) * size))
        out[where] = 1
        return out.view(steps, len(self), *self.shape)

    def packed(self, steps: int, dt: float = 1e-3) -> Spikes:
        """The same as bits, (T, N, units), for the layers that take events (`snnlearn.LinearLIF`)."""
        return Spikes.pack(self.dense(steps, dt, dtype=torch.uint8).flatten(2))

    def _places(self, size: int) -> Tensor:
        """Where the units of the sample that each spike belongs to begin, (E,), among those of all samples."""
        return torch.arange(0, len(self) * size, size).repeat_interleave(self.pointer.diff())
