"""Small files in the published formats of the data sets, written independently of the readers.

Each writer takes events or images as plain lists and packs them bit by bit as the format's description says.
"""

import gzip
import struct
from pathlib import Path

import h5py
import numpy as np

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def heidelberg(path, samples, labels, speakers=None, names=None, kind=np.float16):
    """SHD and SSC: samples are lists of (seconds, unit)."""
    with h5py.File(path, "w") as file:
        spikes = file.create_group("spikes")
        times = spikes.create_dataset("times", (len(samples),), dtype=h5py.vlen_dtype(kind))
        units = spikes.create_dataset("units", (len(samples),), dtype=h5py.vlen_dtype(np.uint16))
        for n, sample in enumerate(samples):
            times[n] = np.array([t for t, _ in sample], dtype=kind)
            units[n] = np.array([u for _, u in sample], dtype=np.uint16)
        file["labels"] = np.array(labels, dtype=np.uint16)
        if speakers is not None:
            file["extra/speaker"] = np.array(speakers, dtype=np.uint16)
        if names is not None:
            file.create_dataset("extra/keys", data=[name.encode() for name in names])


def n_mnist(path, events):
    """Events (microseconds, on, row, column): 40 bits, x, y, polarity, time in 23 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(((x << 32) | (y << 24) | (p << 23) | t).to_bytes(5, "big") for t, p, y, x in events))


def aedat2(path, events):
    """CIFAR10-DVS: events (microseconds, on, row, column)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = b""
    for t, p, row, column in events:
        body += struct.pack(">II", (127 - column) << 8 | (127 - row) << 1 | (1 - p), t)
    path.write_bytes(b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n# Data format is int32 address\r\n" + body)


def packet(events, kind=1, overflow=0, valid=None):
    """One packet of AEDAT 3.1: events (microseconds, on, row, column) or (..., valid)."""
    marks = [e[4] if len(e) > 4 else 1 for e in events]
    head = struct.pack(
        "<hhiiiiii", kind, 1, 8, 4, overflow, len(events), len(events), sum(marks) if valid is None else valid
    )
    return head + b"".join(
        struct.pack("<II", e[3] << 17 | e[2] << 2 | e[1] << 1 | mark, e[0])
        for e, mark in zip(events, marks, strict=True)
    )


def aedat3(path, *packets):
    """DVS Gesture: packets as `packet` makes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = (
        b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-09-01 12:00:00\r\n#!END-HEADER\r\n"
    )
    path.write_bytes(header + b"".join(packets))


def gestures(path, windows):
    """The csv beside a recording: windows (class from 1, start, end)."""
    path.write_text("class,startTime_usec,endTime_usec\n" + "".join(f"{c},{s},{e}\n" for c, s, e in windows))


def idx(path, array):
    """MNIST and Fashion-MNIST: an array of bytes, packed if the name ends with .gz."""
    array = np.asarray(array, dtype=np.uint8)
    raw = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)


def cifar10(path, images, labels):
    """The binary version: images (N, 3, 32, 32)."""
    path.write_bytes(
        b"".join(bytes([label]) + np.asarray(x, np.uint8).tobytes() for x, label in zip(images, labels, strict=True))
    )


def random_events(rng, n, height, width, last=300_000):
    times = np.sort(rng.integers(0, last, n)).tolist()
    return [(t, int(rng.integers(2)), int(rng.integers(height)), int(rng.integers(width))) for t in times]


def whole(name: str, root: Path, rng, n=20):
    """A small data set of that name with all its files; ``n`` samples in each part where one may choose."""
    root.mkdir(parents=True, exist_ok=True)
    if name in ("shd", "ssc"):
        classes = {"shd": 20, "ssc": 35}[name]
        for part in ("train", "test") if name == "shd" else ("train", "valid", "test"):
            samples = [
                sorted((float(rng.random()), int(rng.integers(700))) for _ in range(rng.integers(40))) for _ in range(n)
            ]
            extra = {"speakers": rng.integers(12, size=n), "names": [f"word {i}" for i in range(20)]}
            labels = np.arange(n) % classes
            heidelberg(root / f"{name}_{part}.h5", samples, labels, **(extra if name == "shd" else {}))
    elif name == "n-mnist":
        for part in ("Train", "Test"):
            for digit in range(10):
                for i in range(max(1, n // 10)):
                    n_mnist(root / part / str(digit) / f"{i:05}.bin", random_events(rng, 30, 34, 34))
    elif name == "dvs-gesture":
        for part, users in (("train", ("user01_led", "user02_lab")), ("test", ("user03_led",))):
            (root / f"trials_to_{part}.txt").write_text("".join(f"{user}.aedat\n" for user in users))
            for user in users:
                events = random_events(rng, 200, 128, 128, 60_000)
                aedat3(root / f"{user}.aedat", packet(events[:90]), packet(events[90:91], kind=0), packet(events[91:]))
                gestures(root / f"{user}_labels.csv", [(c, 5000 * c, 5000 * c + 4000) for c in range(1, 12)])
    elif name == "cifar10-dvs":
        for label in CIFAR:
            for i in range(max(1, n // 10)):
                aedat2(root / label / f"cifar10_{label}_{i}.aedat", random_events(rng, 30, 128, 128))
    elif name in ("mnist", "fashion-mnist"):
        for part, packed in (("train", ""), ("t10k", ".gz")):
            idx(root / f"{part}-images-idx3-ubyte{packed}", rng.integers(256, size=(n, 28, 28)))
            idx(root / f"{part}-labels-idx1-ubyte{packed}", np.arange(n) % 10)
    elif name == "cifar10":
        for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            cifar10(
                root / f"{file}.bin",
                rng.integers(256, size=(max(1, n // 5), 3, 32, 32)),
                rng.integers(10, size=max(1, n // 5)),
            )
