"""NIR files, read as what they are: HDF5 that a stranger wrote."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import nir

ENTRIES = 100_000  # more than that in one file are refused
DEPTH = 12  # groups in groups
RATIO = 1100  # deflate makes at most 1032 bytes of one
FLOOR = 1 << 20  # bytes that any file may decode to
FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32, lzf: what HDF5 and h5py have built in


def load_nir() -> ModuleType:
    """The package nir.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise ImportError('NIR needs the package nir: pip install "snnlearn[nir]"') from error
    return nir


def read_graph(path: Path) -> nir.NIRGraph:
    """The graph in a NIR file. What it takes in memory is bounded by 1100 times the file's size.

    Links to other files and data kept in other files are not followed, compression plug-ins not loaded.

    Raises:
        ValueError: there is no such file, it is no NIR file, it is damaged, or it would decode to too much.
    """
    nir = load_nir()
    import h5py

    if not path.is_file():
        raise ValueError(f"there is no NIR file {path}")
    try:
        check_heaps(path)
        with h5py.File(path, "r") as file:
            if file.userblock_size or file.id.get_create_plist().get_sizes() != (8, 8):
                raise ValueError("its addresses are not those of a file that NIR writes")
            tree = _Reader(path).group(file, DEPTH)
        node = tree.get("node")
        if not isinstance(node, dict) or node.get("type") != "NIRGraph":
            raise ValueError("it holds no NIRGraph")
        return nir.dict2NIRNode(_unchecked(node, nir))
    except Exception as error:  # h5py and nir raise errors of all kinds
        raise ValueError(f"{path} is no NIR file, or damaged: {type(error).__name__}: {error}") from error


def check_heaps(path: Path) -> None:
    """Refuse a file whose heaps of strings HDF5 would walk for ever.

    HDF5 (up to 2.0 at least) steps from object to object of a global heap by the sizes in the file, and stays where
    one is 0. Layout: "GCOL", version 1, 3 bytes, size of the heap (8 bytes), and objects of index, count (2 bytes
    each), 4 bytes, size (8 bytes) and data padded to 8 bytes; index 0 is free space and its size is of all of it.

    Raises:
        ValueError: a heap's objects do not fill it.
    """
    with open(path, "rb") as file:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            start = raw.find(b"GCOL\x01")
            while start >= 0:
                at = start + 16
                end = start + (struct.unpack_from("<Q", raw, start + 8)[0] if at <= len(raw) else 0)
                if not at <= end <= len(raw):
                    raise ValueError(f"its heap at byte {start} does not fit into it")
                while at + 16 <= end:
                    index, size = struct.unpack_from("<H6xQ", raw, at)
                    step = 16 + (size + 7) // 8 * 8 if index else size
                    if step < 16 or at + step > end:
                        raise ValueError(f"its heap at byte {start} is not made of objects")
                    at += step
                start = raw.find(b"GCOL\x01", start + 1)


def _unchecked(node: dict[str, Any], nir: ModuleType) -> dict[str, Any]:
    """The dictionary of a graph for nir, its own check of shapes switched off: it knows only square convolutions."""
    nodes = node.get("nodes")
    if not isinstance(nodes, dict) or "type_check" in node:
        raise ValueError("a graph holds no nodes, or a check of its own")
    inner = {}
    for name, part in nodes.items():
        if not isinstance(part, dict) or part.get("type") not in nir.ir.__all__:
            raise ValueError(f"node {name!r} is of no type of NIR")
        inner[name] = _unchecked(part, nir) if part["type"] == "NIRGraph" else part
    return {**node, "nodes": inner, "type_check": False}


class _Reader:
    def __init__(self, path: Path):
        self.path, self.entries = path, 0
        self.budget = max(FLOOR, RATIO * path.stat().st_size)

    def group(self, group: Any, depth: int) -> dict[str, Any]:
        """A group as a dictionary: of groups, strings, numbers and arrays."""
        import h5py

        if depth == 0:
            raise ValueError(f"its groups are nested deeper than {DEPTH}")
        out: dict[str, Any] = {}
        for name in group:
            self.entries += 1
            if self.entries > ENTRIES:
                raise ValueError(f"it has more than {ENTRIES} entries")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name!r} is a link to somewhere else")
            item = group[name]
            if isinstance(item, h5py.Group):
                out[name] = self.group(item, depth - 1)
            elif isinstance(item, h5py.Dataset):
                out[name] = self.data(name, item)
            else:
                raise ValueError(f"{name!r} is neither a group nor data")
        return out

    def data(self, name: str, data: Any) -> Any:
        """A dataset's value."""
        import h5py

        plan = data.id.get_create_plist()
        if data.is_virtual or data.external:
            raise ValueError(f"{name!r} is kept in another file")
        if any(plan.get_filter(i)[0] not in FILTERS for i in range(plan.get_nfilters())):
            raise ValueError(f"{name!r} is compressed by a plug-in")
        text = h5py.check_string_dtype(data.dtype) is not None
        if data.shape is None or not (text or data.dtype.kind in "fiub"):
            raise ValueError(f"{name!r} is of dtype {data.dtype}; numbers and strings were expected")
        self.budget -= data.size * data.dtype.itemsize
        if self.budget < 0:
            raise ValueError(f"{name!r} has shape {data.shape}, which is too much for a file of this size")
        if text and data.dtype.kind == "O":
            self._check_strings(name, data)
        value = data[()]
        return value.decode("utf8") if isinstance(value, bytes) else value

    def _check_strings(self, name: str, data: Any) -> None:
        """Count the strings of a dataset to the budget: HDF5 makes room for what the file says before it looks.

        A string is kept as its length (4 bytes) and where it is (8 and 4 bytes).
        """
        start = data.id.get_offset()
        if start is None:
            raise ValueError(f"the strings of {name!r} are not kept in one piece")
        with open(self.path, "rb") as file:
            file.seek(start)
            entries = file.read(16 * data.size)
        if len(entries) != 16 * data.size:
            raise ValueError(f"{name!r} is cut off")
        self.budget -= sum(length for (length,) in struct.iter_unpack("<I12x", entries))
        if self.budget < 0:
            raise ValueError(f"the strings of {name!r} are too much for a file of this size")
