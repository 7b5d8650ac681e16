"""Reads the HDF5 layout of the Heidelberg data sets, in a process of its own.

The HDF5 library is written in C and has faults that a damaged file can reach. Of 3000 files with one to three bits or
words changed, h5py 3.16 with HDF5 2.0 crashed on 2 and ran without end on 7; others ask for far more memory than the
file is long. Run as a program this module reads one file under limits on memory and time and writes flat arrays to its
standard output; whatever happens to it, the process that asked lives on. It imports neither torch nor the rest of this
library, so that such a process starts at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

LONGEST = 2**31 - 1  # microseconds, as in `Recordings`
TOGETHER = 64  # samples whose lengths are read at once
EVENTS = 2**18  # spikes that are converted at once
MOST_NAMES = 1000  # classes
MEMORY = 2**28  # bytes that a reading process may take beside twice the file's size
SECONDS = 5  # of CPU time that it may take, and one more for each 8 MB

Piece = tuple[np.ndarray, np.ndarray]


class Contents(NamedTuple):
    """What a file holds; the spikes follow in pieces of (times int32, units int32), sample after sample."""

    lengths: np.ndarray  # spikes of each sample, int64 (N,)
    labels: np.ndarray  # int64 (N,)
    speakers: np.ndarray | None  # int64 (N,)
    names: tuple[str, ...]
    pieces: Iterator[Piece]


def contents(file: Any, size: int, units: int) -> Contents:
    """Check an open `h5py.File` of ``size`` bytes and start to read it.

    Raises:
        ValueError: the file does not hold what the layout asks for.
    """
    times, fired = _dataset(file, "spikes/times"), _dataset(file, "spikes/units")
    _variable(times, "spikes/times", "f", "floating-point seconds")
    _variable(fired, "spikes/units", "iu", "integers")
    samples = times.shape[0]
    if samples > size:
        raise ValueError(f"{samples} samples are claimed by a file of {size} bytes")
    labels = _integers(_dataset(file, "labels"), "labels", samples)
    speaker, keys = _found(file, "extra/speaker"), _found(file, "extra/keys")
    speakers = None if speaker is None else _integers(speaker, "extra/speaker", samples)
    names = () if keys is None else _names(keys)
    if fired.shape[0] != samples:
        raise ValueError(f"spikes/times has {samples} samples and spikes/units {fired.shape[0]}")
    lengths = np.zeros(samples, dtype=np.int64)
    width = _kind(fired).itemsize
    for n in range(0, samples, TOGETHER):
        lengths[n : n + TOGETHER] = [len(one) for one in fired[n : n + TOGETHER]]
        if int(lengths.sum()) * width > size:  # many samples may name the same bytes
            raise ValueError(f"a file of {size} bytes claims more than {lengths.sum()} spikes")
    return Contents(lengths, labels, speakers, names, _pieces(times, fired, lengths, units))


def _pieces(times: Any, fired: Any, lengths: np.ndarray, units: int) -> Iterator[Piece]:
    n = 0
    while n < len(lengths):
        together = max(1, int(np.searchsorted(lengths[n : n + TOGETHER].cumsum(), EVENTS)))
        part = lengths[n : n + together]
        if part.sum():
            seconds = _joined(times[n : n + together], part, n)
            which = _joined(fired[n : n + together], part, n)
            yield _checked(seconds, which, part, n, units)
        n += together


def _joined(rows: Any, lengths: np.ndarray, first: int) -> np.ndarray:
    for n, (row, length) in enumerate(zip(rows, lengths.tolist(), strict=True)):
        if len(row) != length:
            raise ValueError(f"sample {first + n} has {len(row)} times and {length} units")
    return np.concatenate(list(rows))


def _checked(seconds: np.ndarray, which: np.ndarray, lengths: np.ndarray, first: int, units: int) -> Piece:
    with np.errstate(invalid="ignore", over="ignore"):
        time = np.rint(seconds.astype(np.float64) * 1e6)  # float16 ends at 65504: cast, then scale
    sample = np.arange(len(lengths)).repeat(lengths)
    wrong = ~((time >= 0) & (time <= LONGEST))  # NaN too
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(
            f"sample {first + sample[at]} has a spike at {seconds[at]} s; 0..{LONGEST / 1e6:.0f} s is wanted"
        )
    wrong = (which < 0) | (which >= units)
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"sample {first + sample[at]} has a spike of unit {which[at]}; there are {units} units")
    time, which = time.astype(np.int32), which.astype(np.int32)
    if bool(((np.diff(time) < 0) & (np.diff(sample) == 0)).any()):
        order = np.lexsort((time, sample))
        time, which = time[order], which[order]
    return time, which


def _dataset(file: Any, name: str) -> Any:
    """A data set whose values are in this file itself: no link to others, no raw bytes from elsewhere."""
    found = _found(file, name)
    if found is None:
        raise ValueError(f"it has no data set '{name}'")
    return found


def _found(file: Any, name: str) -> Any:
    """As `_dataset`, None where there is no such name."""
    import h5py

    found = file
    for part in name.split("/"):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"'{name}' is a {type(link).__name__}; links are not followed")
        found = found[part]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"'{name}' is a {type(found).__name__}, not a data set")
    if found.is_virtual or found.external:
        raise ValueError(f"'{name}' takes its values from another file; that is not followed")
    if found.ndim != 1:
        raise ValueError(f"'{name}' must have one axis, got shape {found.shape}")
    return found


def _kind(data: Any) -> Any:
    """The dtype of one entry of a data set of variable length, else None."""
    import h5py

    return h5py.check_vlen_dtype(data.dtype)


def _variable(data: Any, name: str, kinds: str, wanted: str) -> None:
    kind = _kind(data)
    if not isinstance(kind, np.dtype) or kind.kind not in kinds:
        raise ValueError(f"'{name}' must have samples of variable length of {wanted}, got {kind or data.dtype}")


def _integers(data: Any, name: str, samples: int) -> np.ndarray:
    if data.dtype.kind not in "iu":
        raise ValueError(f"'{name}' must be integers, got {data.dtype}")
    if data.shape[0] != samples:
        raise ValueError(f"'{name}' has {data.shape[0]} entries for {samples} samples")
    values = data[:]
    if samples and (values.min() < 0 or values.max() > LONGEST):
        raise ValueError(f"'{name}' must lie in 0..{LONGEST}, got {values.min()}..{values.max()}")
    return values.astype(np.int64)


def _names(data: Any) -> tuple[str, ...]:
    import h5py

    if data.shape[0] > MOST_NAMES:
        raise ValueError(f"'extra/keys' has {data.shape[0]} names; at most {MOST_NAMES} are read")
    if h5py.check_string_dtype(data.dtype) is None:
        raise ValueError(f"'extra/keys' must be strings, got {data.dtype}")
    return tuple(v.decode("utf-8", "replace")[:200] if isinstance(v, bytes) else str(v)[:200] for v in data[:])


def _limit(size: int) -> None:
    """Bound this process: an allocation beyond the bound fails, and time beyond the bound ends it."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    wanted = {
        resource.RLIMIT_AS: now + MEMORY + 2 * size,
        resource.RLIMIT_CPU: SECONDS + size // 2**23,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        least = resource.getrlimit(kind)[1]  # a bound that is there already cannot be raised
        resource.setrlimit(kind, (value if least == resource.RLIM_INFINITY else min(value, least),) * 2)


def _write(path: str, units: int) -> None:
    """One line of JSON, then lengths, labels and speakers (int64), then pieces: count (int64), times, units (int32)."""
    import h5py

    size = os.path.getsize(path)
    _limit(size)
    out = sys.stdout.buffer
    with h5py.File(path, "r") as file:
        found = contents(file, size, units)
        head = {"samples": len(found.lengths), "speakers": found.speakers is not None, "names": found.names}
        out.write(json.dumps(head).encode() + b"\n")
        for values in (found.lengths, found.labels, found.speakers):
            if values is not None:
                out.write(values.tobytes())
        for times, which in found.pieces:
            out.write(len(times).to_bytes(8, "little"))
            out.write(times.tobytes())
            out.write(which.tobytes())
    out.flush()


if __name__ == "__main__":
    try:
        _write(sys.argv[1], int(sys.argv[2]))
    except Exception as error:
        reason = "it asks for more memory than a file of its size needs" if isinstance(error, MemoryError) else error
        sys.stderr.write(f"{reason}"[:1000])
        sys.stderr.flush()
        os._exit(3)  # closing a damaged file may fail once more
