"""Damaged files for the loaders: ``python tests/fuzz_datasets.py N SEED`` reads N of them, over all formats.

Each file must be read, or refused by a ValueError that names it. A process of its own reads them, whose memory is
bounded to a gigabyte more than it has at its start (HDF5 is read by another, with a bound of its own). A crash, another
error or a read of more than a minute ends the run with the case that did it. Prints what came out, the time and the
most memory that was in use.
"""

import argparse
import gzip
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import writers

from snnlearn.datasets import heidelberg, images, vision_events

AIRPLANE = ("airplane",)
WINDOWS = [(3, 0, 30_000), (11, 40_000, 80_000), (1, 80_000, 10**6)]
# name of a format: the file that is damaged, and how it is read in its folder
FORMATS = {
    "heidelberg": ("shd_train.h5", lambda folder: heidelberg.read_named(folder / "shd_train.h5")),
    "n-mnist": ("7/00001.bin", lambda folder: vision_events.n_mnist(folder, tuple("0123456789"), False)),
    "aedat2": ("airplane/a.aedat", lambda folder: vision_events.cifar10_dvs(folder, AIRPLANE, True)),
    "aedat3": ("user01_led.aedat", lambda folder: vision_events.dvs_gesture(folder, "trials.txt")),
    "gestures": ("user01_led_labels.csv", lambda folder: vision_events.dvs_gesture(folder, "trials.txt")),
    "trials": ("trials.txt", lambda folder: vision_events.dvs_gesture(folder, "trials.txt")),
    "idx": ("images", lambda folder: images.labelled(folder / "images", folder / "labels")),
    "idx-labels": ("labels", lambda folder: images.labelled(folder / "images", folder / "labels")),
    "idx-packed": ("images.gz", lambda folder: images.labelled(folder / "images.gz", folder / "labels")),
    "cifar10": ("data_batch_1.bin", lambda folder: images.cifar10([folder / "data_batch_1.bin"])),
}
ODD = [
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0" * 8,
    b"\x80\0\0\0",
    b"\0\0\0\x80",
    b"-1",
    b"1e9",
    b",",
    b"\n",
]


def prepare(folder):
    """One undamaged file of each format, with what else its reader wants."""
    rng = np.random.default_rng(1)
    words = [sorted((float(rng.random()), int(rng.integers(700))) for _ in range(k)) for k in (5, 0, 40, 12)]
    writers.heidelberg(folder / "shd_train.h5", words, [0, 19, 3, 3], [1, 2, 3, 4], [f"word {i}" for i in range(20)])
    writers.n_mnist(folder / "7" / "00001.bin", writers.random_events(rng, 40, 34, 34))
    writers.aedat2(folder / "airplane" / "a.aedat", writers.random_events(rng, 40, 128, 128))
    events = writers.random_events(rng, 60, 128, 128, 100_000)
    other = writers.packet(events[20:22], kind=0)
    writers.aedat3(folder / "user01_led.aedat", writers.packet(events[:20]), other, writers.packet(events[20:]))
    writers.gestures(folder / "user01_led_labels.csv", WINDOWS)
    (folder / "trials.txt").write_text("user01_led.aedat\n")
    for name in ("images", "images.gz"):
        writers.idx(folder / name, rng.integers(256, size=(5, 28, 28)))
    writers.idx(folder / "labels", [3, 1, 4, 1, 5])
    writers.cifar10(folder / "data_batch_1.bin", rng.integers(256, size=(3, 3, 32, 32)), [3, 1, 4])


def mutate(raw, edits):
    """Edits are (what, where in 0..1, an integer or bytes)."""
    raw = bytearray(raw)
    for what, where, value in edits:
        at = min(int(where * len(raw)), max(0, len(raw) - 1))
        if what == "cut":
            del raw[at:]
        elif what == "flip" and raw:
            raw[at] ^= 1 << value % 8
        elif what == "put":
            raw[at : at + len(value)] = value
        elif what == "insert":
            raw[at:at] = value
        elif what == "remove":
            del raw[at : at + value]
        elif what == "repeat":
            raw[at:at] = raw[at : at + 64] * (value % 50)
    return bytes(raw)


def random_edits(rng):
    def one():
        where = float(rng.random()) ** (1 if rng.random() < 0.5 else 6)  # half of them near the head
        what = ("flip", "flip", "put", "put", "cut", "insert", "remove", "repeat")[rng.integers(8)]
        if what in ("put", "insert"):
            return (
                what,
                where,
                ODD[rng.integers(len(ODD))] if rng.random() < 0.7 else rng.bytes(int(rng.integers(1, 16))),
            )
        return what, where, int(rng.integers(1, 64))

    return [one() for _ in range(int(rng.choice([1, 1, 1, 2, 4])))]


def attempt(kind, raw, folder):
    """Read the damaged file: "read" or "refused"; raises AssertionError where neither is so."""
    name, read = FORMATS[kind]
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(raw)
    try:
        found = read(folder)
    except FileNotFoundError as error:
        if kind != "trials":  # a damaged list may name another recording
            raise AssertionError(kind) from error
        return "refused"
    except ValueError as error:
        if path.name not in str(error):
            raise AssertionError(f"the error does not name {path.name}: {error}") from error
        return "refused"
    finally:
        path.write_bytes(whole)
    held = found[0] if isinstance(found[0], torch.Tensor) else found[0].times
    assert held.nbytes <= 20 * len(whole) + 1032 * len(raw)
    return "read"


def damaged(kind, folder, edits):
    name = FORMATS[kind][0]
    whole = (folder / name).read_bytes()
    if kind == "idx-packed" and len(edits) % 2:  # else the checksum of gzip finds nearly all
        return gzip.compress(mutate(gzip.decompress(whole), edits))
    return mutate(whole, edits)


def work(first, count, seed, now, counts):
    """Read ``count`` files; ``now`` says which one it is at."""
    torch.set_num_threads(1)
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30,) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for n in range(first, first + count):
            now.value = n
            kind = list(FORMATS)[n % len(FORMATS)]
            edits = random_edits(np.random.default_rng([seed, n]))
            signal.alarm(60)
            found[kind, attempt(kind, damaged(kind, Path(folder), edits), Path(folder))] += 1
            signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    counts.put((found, grown))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("n", type=int)
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    start, total, grown = time.time(), Counter(), 0
    context = multiprocessing.get_context("fork")
    for first in range(0, arguments.n, 500):
        now, counts = context.Value("q", 0), context.SimpleQueue()
        count = min(500, arguments.n - first)
        process = context.Process(target=work, args=(first, count, arguments.seed, now, counts))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"file {now.value} of seed {arguments.seed} ended the process with {process.exitcode}")
        found, more = counts.get()
        total, grown = total + found, max(grown, more)
        print(f"{first + count} of {arguments.n}, {time.time() - start:.0f} s", file=sys.stderr, flush=True)
    for kind in FORMATS:
        print(f"{kind:12} {total[kind, 'read']:6} read {total[kind, 'refused']:6} refused")
    print(f"{sum(total.values())} files, no crash, {time.time() - start:.0f} s")
    print(f"the memory of the process that reads grew by {grown / 1024:.0f} MB at most")


if __name__ == "__main__":
    main()
