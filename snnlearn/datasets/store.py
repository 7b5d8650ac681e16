"""Where loaders put the events of one recording after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from snnlearn.datasets.recordings import LONGEST, Recordings

SPARE = 8  # the arrays grow by an eighth: memory stays near what is held


class Store:
    """Flat events that grow; `recordings` ends it.

    Args:
        shape: of the units, such as (2, 128, 128).
        sort: put the spikes of a sample in order of time where they are not, instead of refusing it.
    """

    def __init__(self, shape: Sequence[int], sort: bool = False):
        self.shape, self.sort = tuple(shape), sort
        self.size = int(np.prod(self.shape))
        self.times: np.ndarray = np.empty(0, dtype=np.int32)
        self.units: np.ndarray = np.empty(0, dtype=np.int16 if self.size <= 2**15 else np.int32)
        self.pointer = [0]
        self.filled = 0

    def add(self, times: np.ndarray, units: np.ndarray) -> None:
        """Spikes of the present sample: microseconds int64 from its start, and units of the flattened shape."""
        if not len(times):
            return
        low, high = int(times.min()), int(times.max())
        if low < 0 or high > LONGEST:
            raise ValueError(f"it has times {low}..{high} microseconds from its start; 0..{LONGEST} is wanted")
        last = self.filled + len(times)
        if last > len(self.times):
            room = last + last // SPARE
            self.times.resize(room, refcheck=False)
            self.units.resize(room, refcheck=False)
        self.times[self.filled : last] = times
        self.units[self.filled : last] = units
        self.filled = last

    def end(self) -> None:
        """The present sample is whole.

        Raises:
            ValueError: its times run backwards.
        """
        self.end_many(np.array([self.filled - self.pointer[-1]]))

    def end_many(self, lengths: np.ndarray) -> None:
        """Several samples at once, of these lengths in the order in which they were added."""
        for length in lengths.tolist():
            here = slice(self.pointer[-1], self.pointer[-1] + length)
            times = self.times[here]
            back = np.flatnonzero(times[1:] < times[:-1])
            if len(back) and not self.sort:
                at = int(back[0]) + 1
                raise ValueError(
                    f"its times run backwards at spike {at}, from {times[at - 1]} to {times[at]} microseconds"
                )
            if len(back):
                order = times.argsort(kind="stable")
                self.times[here], self.units[here] = times[order], self.units[here][order]
            self.pointer.append(here.stop)

    def recordings(self) -> Recordings:
        """All that was added."""
        assert self.pointer[-1] == self.filled
        self.times.resize(self.filled, refcheck=False)
        self.units.resize(self.filled, refcheck=False)
        pointer = torch.tensor(self.pointer)
        return Recordings(torch.from_numpy(self.times), torch.from_numpy(self.units), pointer, self.shape)
