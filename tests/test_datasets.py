"""The loaders of real files, on small files that `writers` makes in the published formats."""

import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import writers
from torch.utils.data import DataLoader

from snnlearn import datasets
from snnlearn.datasets import Recordings, Samples, Split, catalogue, collate, hdf5, heidelberg, images, vision_events

NAMES = list(catalogue.SOURCES)
EVENTS = ["shd", "ssc", "n-mnist", "dvs-gesture", "cifar10-dvs"]


def rng(seed=0):
    return np.random.default_rng(seed)


def events(x: Recordings, n: int):
    """The spikes of a sample: (microseconds, *index)."""
    here = slice(int(x.pointer[n]), int(x.pointer[n + 1]))
    index = np.unravel_index(x.units[here].numpy().astype(int), tuple(x.shape))
    return [(int(t), *(int(v) for v in at)) for t, *at in zip(x.times[here], *index, strict=True)]


# ---- each format holds what was written


def test_heidelberg_files_hold_what_was_written(tmp_path):
    samples = [[(0.0, 699), (0.0005, 3)], [], [(0.25, 0), (0.5, 1), (1.0, 2)]]
    writers.heidelberg(tmp_path / "a.h5", samples, [19, 0, 7], [4, 5, 6], [f"word {n}" for n in range(20)])
    x, y, names = heidelberg.read_named(tmp_path / "a.h5")
    half = int(np.float64(np.float16(0.0005)) * 1e6 + 0.5)
    assert [events(x, n) for n in range(3)] == [[(0, 699), (half, 3)], [], [(250_000, 0), (500_000, 1), (10**6, 2)]]
    assert y.tolist() == [19, 0, 7]
    assert x.speakers.tolist() == [4, 5, 6]
    assert names[19] == "word 19"
    assert x.times.dtype == torch.int32
    assert x.units.dtype == torch.int16
    again, labels = datasets.read_heidelberg(tmp_path / "a.h5")
    assert torch.equal(again.times, x.times)
    assert torch.equal(labels, y)


def test_seconds_are_cast_before_they_are_scaled(tmp_path):
    """In float16 a million microseconds would be infinite, and 65 ms would be the last time."""
    writers.heidelberg(tmp_path / "a.h5", [[(1.3447265625, 5)]], [0])
    assert events(datasets.read_heidelberg(tmp_path / "a.h5")[0], 0) == [(1_344_727, 5)]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_wider_floats_are_read_too(tmp_path, kind):
    writers.heidelberg(tmp_path / "a.h5", [[(0.123457, 5)]], [0], kind=kind)
    assert events(datasets.read_heidelberg(tmp_path / "a.h5")[0], 0) == [(123_457, 5)]


def test_spikes_out_of_order_are_sorted_within_their_sample(tmp_path):
    samples = [[(0.5, 1)], [(0.5, 2), (0.25, 3), (0.25, 4)], [(0.0, 5)]]
    writers.heidelberg(tmp_path / "a.h5", samples, [0, 1, 2])
    x, _ = datasets.read_heidelberg(tmp_path / "a.h5")
    assert events(x, 1) == [(250_000, 3), (250_000, 4), (500_000, 2)]
    assert events(x, 2) == [(0, 5)]


def test_heidelberg_files_are_read_in_pieces_of_any_size(tmp_path, monkeypatch):
    samples = [[(0.001 * k, (n * k) % 70) for k in range(n)] for n in range(9)]
    writers.heidelberg(tmp_path / "a.h5", samples, range(9))
    want, _ = heidelberg.read_heidelberg(tmp_path / "a.h5", units=70)
    for together, most in ((1, 1), (2, 3), (64, 7)):
        monkeypatch.setattr(hdf5, "TOGETHER", together)
        monkeypatch.setattr(hdf5, "EVENTS", most)
        with h5py.File(tmp_path / "a.h5") as file:
            found = hdf5.contents(file, 10**6, 70)
            pieces = list(found.pieces)
        assert np.concatenate([t for t, _ in pieces]).tolist() == want.times.tolist()
        assert np.concatenate([u for _, u in pieces]).tolist() == want.units.tolist()


def test_a_unit_or_label_that_is_too_large_is_refused(tmp_path):
    writers.heidelberg(tmp_path / "a.h5", [[(0.1, 70)]], [3])
    with pytest.raises(ValueError, match=r"a\.h5: sample 0 has a spike of unit 70; there are 70"):
        datasets.read_heidelberg(tmp_path / "a.h5", units=70)
    with pytest.raises(ValueError, match=r"a\.h5: label 3 is beyond the 3 classes"):
        datasets.read_heidelberg(tmp_path / "a.h5", classes=3)
    with pytest.raises(FileNotFoundError, match=r"b\.h5"):
        datasets.read_heidelberg(tmp_path / "b.h5")


def _replace(name, value):
    def change(file):
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value

    return change


def _virtual(file):
    layout = h5py.VirtualLayout(shape=(2,), dtype=np.int64)
    layout[:] = h5py.VirtualSource("other.h5", "labels", shape=(2,))
    del file["labels"]
    file.create_virtual_dataset("labels", layout)


def _raw_bytes_of_another_file(file):
    del file["labels"]
    file.create_dataset("labels", (2,), dtype=np.int64, external=[("/etc/passwd", 0, 16)])


def _many(file):
    for name in ("spikes/times", "spikes/units"):
        kind = file[name].dtype
        del file[name]
        file.create_dataset(name, (2**40,), dtype=kind, chunks=(2**10,))


def _numbers(file):
    del file["spikes/times"]
    file["spikes/times"] = np.zeros(2)


def _times(values):
    def change(file):
        file["spikes/times"][0] = np.array(values, dtype=np.float16)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_replace("labels", None), "has no data set 'labels'"),
        (_replace("spikes", None), "has no data set 'spikes/times'"),
        (_replace("spikes", np.zeros(3)), "has no data set 'spikes/times'"),
        (_replace("labels", np.zeros(2)), "'labels' must be integers, got float64"),
        (_replace("labels", np.zeros((2, 1), int)), "must have one axis"),
        (_replace("labels", np.zeros(3, int)), "3 entries for 2 samples"),
        (_replace("labels", np.array([-1, 0])), r"must lie in 0\.\."),
        (_replace("labels", h5py.SoftLink("/extra/speaker")), "'labels' is a SoftLink"),
        (_replace("labels", h5py.ExternalLink("other.h5", "/labels")), "'labels' is a ExternalLink"),
        (_replace("extra", h5py.ExternalLink("other.h5", "/extra")), "'extra/speaker' is a ExternalLink"),
        (_virtual, "from another file"),
        (_raw_bytes_of_another_file, "from another file"),
        (_replace("labels", np.dtype(float)), "'labels' is a Datatype"),
        (_numbers, "variable length of floating-point seconds"),
        (_replace("spikes/units", np.zeros(2, int)), "variable length of integers"),
        (_replace("extra/keys", np.zeros(2, int)), "must be strings"),
        (_replace("extra/keys", [b"x"] * 1001), "1001 names"),
        (_replace("extra/keys", [b"x"]), "label 1 is beyond the 1 classes"),
        (_many, "1099511627776 samples are claimed"),
        (_times([0.1]), "sample 0 has 1 times and 2 units"),
        (_times([0.1, np.nan]), "sample 0 has a spike at nan s"),
        (_times([-0.1, 0.1]), "sample 0 has a spike at -0.0"),
        (_times([0.1, np.inf]), "sample 0 has a spike at inf s"),
        (_times([0.1, 3000]), "sample 0 has a spike at 3000"),
    ],
)
def test_hdf5_files_of_another_kind_are_refused(tmp_path, change, reason):
    writers.heidelberg(tmp_path / "a.h5", [[(0.1, 1), (0.2, 2)], []], [0, 1], [2, 3], ["a", "b"])
    with h5py.File(tmp_path / "a.h5", "a") as file:
        change(file)
    with pytest.raises(ValueError, match=rf"a\.h5: .*{reason}"):
        datasets.read_heidelberg(tmp_path / "a.h5")


def test_references_to_objects_are_no_labels(tmp_path):
    writers.heidelberg(tmp_path / "a.h5", [[]], [0])
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["labels"]
        file.create_dataset("labels", data=[file["spikes"].ref], dtype=h5py.ref_dtype)
    with pytest.raises(ValueError, match=r"a\.h5: 'labels' must be integers"):
        datasets.read_heidelberg(tmp_path / "a.h5")


def test_many_samples_that_name_the_same_bytes_are_refused(tmp_path):
    """A small file whose samples all point to one long entry would unpack to gigabytes."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, kind in (("times", np.float16), ("units", np.uint16)):
            data = file.create_dataset(f"spikes/{name}", (2000,), dtype=h5py.vlen_dtype(kind))
            data[0] = np.zeros(30_000, dtype=kind)
        file["labels"] = np.zeros(2000, dtype=int)
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    at = -1
    for _ in ("times", "units"):  # each sample is a length (4 bytes), an address (8) and an index (4)
        at = next(k for k in range(at + 1, len(raw)) if raw[k : k + 4] == LONG and not any(raw[k + 16 : k + 16 * 2000]))
        raw[at : at + 16 * 2000] = bytes(raw[at : at + 16]) * 2000
    (tmp_path / "a.h5").write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.h5: a file of \d+ bytes claims more than \d+ spikes"):
        datasets.read_heidelberg(tmp_path / "a.h5")


LONG = (30_000).to_bytes(4, "little")


@pytest.mark.parametrize("body", ["os.kill(os.getpid(), 11)", "while True: pass", "bytearray(2**40)"])
def test_a_reading_process_that_crashes_hangs_or_swells_is_reported(tmp_path, monkeypatch, body):
    """What the HDF5 library does on some damaged files, done on purpose."""
    writers.heidelberg(tmp_path / "a.h5", [[]], [0])
    source = Path(hdf5.__file__).read_text().replace("SECONDS = 5", "SECONDS = 1")
    broken = tmp_path / "broken.py"
    broken.write_text(
        source.replace("    found = contents(", f"    {body}\n    found = contents(").replace(
            "        found = contents(", f"        {body}\n        found = contents("
        )
    )
    monkeypatch.setattr(hdf5, "__file__", str(broken))
    with pytest.raises(ValueError, match=r"a\.h5: (the HDF5 library fails on it|it asks for more memory)"):
        datasets.read_heidelberg(tmp_path / "a.h5")


def test_n_mnist_files_hold_what_was_written(tmp_path):
    want = [(0, 1, 0, 33), (5, 0, 33, 0), (5, 1, 2, 3), (2**23 - 1, 0, 7, 9)]
    writers.n_mnist(tmp_path / "7" / "00001.bin", want)
    x, y = vision_events.n_mnist(tmp_path, tuple("0123456789"), False)
    assert events(x, 0) == want
    assert y.tolist() == [7]
    assert x.shape == (2, 34, 34)


def test_n_mnist_bytes_by_hand(tmp_path):
    """Column 3, row 5, ON, 0x010203 microseconds."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.bin").write_bytes(bytes([3, 5, 0x80 | 1, 2, 3]))
    x, _ = vision_events.n_mnist(tmp_path, ("0",), False)
    assert events(x, 0) == [(0x010203, 1, 5, 3)]


def test_n_mnist_overflow_marks_add_to_the_time(tmp_path, monkeypatch):
    raw = [(10, 0, 1, 1), (0, 0, 240, 0), (10, 1, 2, 2), (0, 0, 240, 0), (3, 1, 3, 3)]
    writers.n_mnist(tmp_path / "0" / "a.bin", raw)
    want = [(10, 0, 1, 1), (10 + 2**13, 1, 2, 2), (3 + 2**14, 1, 3, 3)]
    for most in (1, 2, 100):
        monkeypatch.setattr(vision_events, "EVENTS", most)
        assert events(vision_events.n_mnist(tmp_path, ("0",), False)[0], 0) == want


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (bytes(7), "2 of 5 bytes"),
        (bytes([34, 0, 0, 0, 0]), "row 0, column 34"),
        (bytes([0, 34, 0, 0, 0]), "row 34, column 0"),
        (bytes([0, 0, 0, 0, 9, 0, 0, 0, 0, 8]), "run backwards at spike 1, from 9 to 8"),
    ],
)
def test_damaged_n_mnist_files_are_refused(tmp_path, raw, reason):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.bin").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"a\.bin: .*{reason}"):
        vision_events.n_mnist(tmp_path, ("0",), False)


def test_events_out_of_order_are_sorted_where_that_is_asked_for(tmp_path):
    raw = [(9, 0, 1, 1), (3, 1, 2, 2), (3, 0, 3, 3)]
    writers.n_mnist(tmp_path / "0" / "a.bin", raw[:1])
    writers.n_mnist(tmp_path / "0" / "b.bin", raw)
    x, _ = vision_events.n_mnist(tmp_path, ("0",), True)
    assert [events(x, n) for n in range(2)] == [raw[:1], [(3, 1, 2, 2), (3, 0, 3, 3), (9, 0, 1, 1)]]


def test_aedat2_files_hold_what_was_written(tmp_path, monkeypatch):
    want = [(1000, 1, 0, 127), (1003, 0, 127, 0), (2000, 1, 2, 3)]
    writers.aedat2(tmp_path / "bird" / "a.aedat", want)
    for most in (1, 2, 100):
        monkeypatch.setattr(vision_events, "EVENTS", most)
        x, y = vision_events.cifar10_dvs(tmp_path, writers.CIFAR, False)
        assert events(x, 0) == [(t - 1000, *at) for t, *at in want]
    assert y.tolist() == [2]
    assert x.shape == (2, 128, 128)


def test_aedat2_bytes_by_hand(tmp_path):
    """Address 0x0302: bit 0 is 0, so ON; bits 1-7 are 1, row 126; bits 8-14 are 3, column 124."""
    (tmp_path / "dog").mkdir()
    special = bytes([0, 0, 0x80, 0, 0, 0, 0, 8])
    (tmp_path / "dog" / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + bytes([0, 0, 3, 2, 0, 0, 0, 7]) + special)
    x, _ = vision_events.cifar10_dvs(tmp_path, writers.CIFAR, False)
    assert events(x, 0) == [(0, 1, 126, 124)]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "first line is not"),
        (b"#!AER-DAT3.1\r\n", "first line is not"),
        (b"#!AER-DAT2.0\r\n" + bytes(9), "1 of 8 bytes"),
        (b"#!AER-DAT2.0\r\n\0\1\0\0" + bytes(4), "beyond 16 bits"),
        (b"#!AER-DAT2.0\r\n" + b"\0" * 7 + b"\2" + b"\0" * 7 + b"\1", "times -1"),
        (b"#!AER-DAT2.0\r\n" + b"\0" * 8 + b"\0" * 7 + b"\3" + b"\0" * 7 + b"\1", "run backwards"),
        (b"#!AER-DAT2.0\r\n" + b"\0" * 8 + b"\0" * 4 + b"\xff" * 4, "times 0..4294967295"),
        (b"#!AER-DAT2.0\r\n" + b"#\n" * 10**5, "header is longer"),
        (b"#!AER-DAT2.0\r\n" + b"#" * 10**6, "header is longer"),
    ],
)
def test_damaged_aedat2_files_are_refused(tmp_path, raw, reason):
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "a.aedat").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"a\.aedat: .*{reason}"):
        vision_events.cifar10_dvs(tmp_path, writers.CIFAR, False)


def gesture_files(root, packets, windows, trial="user01_led"):
    (root / "trials.txt").write_text(f"{trial}.aedat\n\n")
    writers.aedat3(root / f"{trial}.aedat", *packets)
    writers.gestures(root / f"{trial}_labels.csv", windows)
    return lambda: vision_events.dvs_gesture(root, "trials.txt")


def test_gestures_are_cut_out_of_their_recording(tmp_path, monkeypatch):
    raw = [(t, t % 2, 127 - t, t) for t in range(0, 100, 5)]
    packets = [writers.packet(raw[:7]), writers.packet([(0, 0, 0, 0)] * 3, kind=0), writers.packet(raw[7:])]
    read = gesture_files(tmp_path, packets, [(11, 60, 80), (1, 10, 20), (3, 90, 95), (4, 96, 97)])
    want = {0: [(0, *raw[2][1:]), (5, *raw[3][1:])], 10: [(t - 60, *at) for t, *at in raw if 60 <= t < 80]}
    for most in (1, 3, 100):
        monkeypatch.setattr(vision_events, "EVENTS", most)
        x, y = read()
        assert y.tolist() == [0, 10, 2, 3]  # in order of time
        assert [events(x, n) for n in range(4)] == [want[0], want[10], [(0, *raw[18][1:])], []]


def test_gestures_that_overlap_are_whole(tmp_path):
    raw = [(t, 1, 3, 4) for t in range(10)]
    x, y = gesture_files(tmp_path, [writers.packet(raw)], [(1, 0, 6), (2, 4, 9), (3, 6, 10)])()
    found = {int(label): [t for t, *_ in events(x, n)] for n, label in enumerate(y)}
    assert found == {0: [0, 1, 2, 3, 4, 5], 1: [0, 1, 2, 3, 4], 2: [0, 1, 2, 3]}


def test_aedat3_bytes_by_hand(tmp_path):
    """ON (bit 1), valid (bit 0), row 5 from bit 2 on, column 3 from bit 17 on; one overflow of 31 bits."""
    head = bytes([1, 0, 1, 0, 8, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    event = (3 << 17 | 5 << 2 | 0b11).to_bytes(4, "little") + bytes([7, 0, 0, 0])
    x, _ = gesture_files(tmp_path, [head + event], [(1, 2**31, 2**31 + 100)])()
    assert events(x, 0) == [(7, 1, 5, 3)]


def test_events_that_are_marked_as_not_valid_are_left_out(tmp_path):
    raw = [(1, 0, 1, 1, 1), (2, 1, 200, 200, 0), (3, 1, 2, 2, 1)]
    x, _ = gesture_files(tmp_path, [writers.packet(raw)], [(1, 0, 10)])()
    assert events(x, 0) == [(1, 0, 1, 1), (3, 1, 2, 2)]
    unmarked = [(*e[:4], 0) for e in raw[::2]]  # some writers set no mark and count all as valid
    x, _ = gesture_files(tmp_path, [writers.packet(unmarked, valid=2)], [(1, 0, 10)])()
    assert len(events(x, 0)) == 2


ONE = [(5, 1, 3, 4)]


@pytest.mark.parametrize(
    ("packets", "reason"),
    [
        ([writers.packet(ONE)[:20]], "head of its last packet is cut off"),
        ([writers.packet(ONE)[:-1]], "1 events are promised"),
        ([writers.packet(ONE).replace(bytes([1, 0, 0, 0]), b"\xff\xff\xff\x7f", 2)], "counts that cannot be|promised"),
        ([writers.packet(ONE, overflow=-1)], "counts that cannot be"),
        ([writers.packet(ONE, valid=2)], "counts that cannot be"),
        ([writers.packet([(*ONE[0], 1), (*ONE[0], 0), (*ONE[0], 0)], valid=2)], "promises 2 valid events and has 1"),
        ([writers.packet([(2**31, 1, 3, 4)])], "negative time"),
        ([writers.packet([(5, 1, 128, 4)])], "row 128"),
        ([writers.packet([(5, 1, 4, 128)])], "column 128"),
        ([writers.packet([(5, 1, 4, 4), (4, 1, 4, 4)])], "run backwards"),
        ([writers.packet(ONE), writers.packet([(4, 1, 4, 4)])], "run backwards after 5"),
        ([writers.packet(ONE).replace(bytes([8, 0, 0, 0]), bytes([4, 0, 0, 0]))], "events of 4 bytes"),
    ],
)
def test_damaged_aedat3_files_are_refused(tmp_path, packets, reason):
    with pytest.raises(ValueError, match=rf"user01_led\.aedat: .*({reason})"):
        gesture_files(tmp_path, packets, [(1, 0, 10)])()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "first line is not"),
        ("class;start;end\n", "first line is not"),
        ("class,startTime_usec,endTime_usec\n1,2\n", "'1,2' is not a class, a start and an end"),
        ("class,startTime_usec,endTime_usec\n1,2,x\n", "is not a class"),
        ("class,startTime_usec,endTime_usec\n1,-2,5\n", "is not a class"),
        ("class,startTime_usec,endTime_usec\n1,2,1e9\n", "is not a class"),
        ("class,startTime_usec,endTime_usec\n1,2," + "9" * 30 + "\n", "is not a class"),
        ("class,startTime_usec,endTime_usec\n0,2,5\n", r"class 0 is not in 1\.\.11"),
        ("class,startTime_usec,endTime_usec\n12,2,5\n", r"class 12 is not in 1\.\.11"),
        ("class,startTime_usec,endTime_usec\n1,5,5\n", "from 5 to 5 microseconds is none"),
        ("class,startTime_usec,endTime_usec\n1,0,3000000000\n", "is none"),
        ("class,startTime_usec,endTime_usec\n" + "1,0,5\n" * 1001, "1001 gestures"),
        ("class,startTime_usec,endTime_usec\n" + "1,0,5\n" * 5, "more than 4 gestures"),
        ("class,startTime_usec,endTime_usec\n" + " " * 2**20, "longer than"),
    ],
)
def test_labels_of_gestures_that_make_no_sense_are_refused(tmp_path, text, reason):
    read = gesture_files(tmp_path, [writers.packet(ONE)], [(1, 0, 10)])
    (tmp_path / "user01_led_labels.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"user01_led_labels\.csv: .*{reason}"):
        read()


@pytest.mark.parametrize("name", ["../a.aedat", "/etc/passwd", "a.bin", "a b.aedat"])
def test_a_list_of_trials_names_files_of_its_own_folder_only(tmp_path, name):
    (tmp_path / "trials.txt").write_text(name)
    with pytest.raises(ValueError, match=r"trials\.txt: '.*' is not the name of a recording"):
        vision_events.dvs_gesture(tmp_path, "trials.txt")


def test_a_pipe_is_no_file(tmp_path):
    """Opened, it would be waited for without end."""
    read = gesture_files(tmp_path, [writers.packet(ONE)], [(1, 0, 10)])
    (tmp_path / "user01_led.aedat").unlink()
    os.mkfifo(tmp_path / "user01_led.aedat")
    with pytest.raises(FileNotFoundError, match=r"user01_led\.aedat"):
        read()


def test_a_recording_that_is_listed_and_missing_is_named(tmp_path):
    read = gesture_files(tmp_path, [writers.packet(ONE)], [(1, 0, 10)])
    (tmp_path / "user01_led.aedat").unlink()
    with pytest.raises(FileNotFoundError, match=r"user01_led\.aedat"):
        read()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_hold_what_was_written(tmp_path, suffix):
    want = rng().integers(256, size=(7, 28, 28))
    writers.idx(tmp_path / f"a{suffix}", want)
    writers.idx(tmp_path / "labels", range(7))
    x, y = images.labelled(tmp_path / f"a{suffix}", tmp_path / "labels")
    assert x.squeeze(1).tolist() == want.tolist()
    assert y.tolist() == list(range(7))


def _idx(count, shape=(28, 28), kind=8, extra=b""):
    head = bytes([0, 0, kind, 1 + len(shape)]) + b"".join(v.to_bytes(4, "big") for v in (count, *shape))
    return head + bytes(784) + extra


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "an idx file of 3 axes is wanted"),
        (_idx(1, kind=9), "begins with 00 00 09 03"),
        (_idx(1, (28,)), "idx file of 3 axes is wanted"),
        (_idx(1, (27, 28)), r"shape \(27, 28\)"),
        (_idx(1)[:10], "head is cut off"),
        (_idx(2), "2 entries are promised|ends after 784"),
        (_idx(2**32 - 1), "4294967295 entries are promised"),
        (_idx(1)[:-1], "1 entries are promised|ends after 783"),
        (_idx(1, extra=b"\0"), "goes on after"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_idx_files_are_refused(tmp_path, raw, reason, suffix):
    if suffix:
        raw = gzip.compress(raw)
    elif "promised" in reason and len(raw) < 700:
        reason = "promised"
    (tmp_path / f"a{suffix}").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"a{suffix}: .*({reason})"):
        images.idx(tmp_path / f"a{suffix}", (28, 28))


def test_a_packed_file_that_is_cut_or_changed_is_refused(tmp_path):
    whole = gzip.compress(_idx(1)[:-784] + rng().bytes(784))
    changed = bytearray(whole)
    changed[-8] ^= 1  # the checksum at the end
    for raw in (whole[:-1], whole[:200], bytes(changed), b"\x1f\x8b", b"no gzip", whole + b"more"):
        (tmp_path / "a.gz").write_bytes(raw)
        with pytest.raises(ValueError, match=r"a\.gz: .*"):
            images.idx(tmp_path / "a.gz", (28, 28))


def test_labels_must_fit_their_images(tmp_path):
    writers.idx(tmp_path / "images", np.zeros((3, 28, 28)))
    for labels, reason in (([0, 1], "2 labels for the 3 images"), ([0, 1, 10], "label 10 is not in")):
        writers.idx(tmp_path / "labels", labels)
        with pytest.raises(ValueError, match=f"labels: {reason}"):
            images.labelled(tmp_path / "images", tmp_path / "labels")


def test_cifar10_files_hold_what_was_written(tmp_path):
    first, second = rng().integers(256, size=(2, 3, 32, 32)), rng(1).integers(256, size=(1, 3, 32, 32))
    writers.cifar10(tmp_path / "a.bin", first, [9, 0])
    writers.cifar10(tmp_path / "b.bin", second, [5])
    x, y = images.cifar10([tmp_path / "a.bin", tmp_path / "b.bin"])
    assert x.tolist() == np.concatenate([first, second]).tolist()
    assert y.tolist() == [9, 0, 5]


@pytest.mark.parametrize(
    ("raw", "reason"), [(b"", "0 bytes"), (bytes(3072), "3072 bytes"), (b"\n" + bytes(3072), "label 10")]
)
def test_damaged_cifar10_files_are_refused(tmp_path, raw, reason):
    (tmp_path / "a.bin").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"a\.bin: {reason}"):
        images.cifar10([tmp_path / "a.bin"])


# ---- data sets by name


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_is_loaded_by_name(tmp_path, name):
    writers.whole(name, tmp_path / name, rng(), n=30)
    how = {"checksum": False, "validation": 0.4, "test": 0.4}
    data = datasets.load(name, tmp_path, **how)
    again = datasets.load(name.replace("-", "_").upper(), tmp_path / name, **how)
    assert data.classes == catalogue.SOURCES[name].classes
    assert name == "ssc" or len(data.names) == data.classes
    for one, other in zip(data[:3], again[:3], strict=True):
        assert one.y.dtype == torch.int64
        assert len(one.x) == len(one.y) == len(one) > 0
        assert torch.equal(one.y, other.y)
        if name in EVENTS:
            assert isinstance(one.x, Recordings)
            assert torch.equal(one.x.times, other.x.times)
        else:
            assert one.x.shape[1:] == ((3, 32, 32) if name == "cifar10" else (1, 28, 28))
            assert one.x.dtype == torch.float32
            assert torch.equal(one.x, other.x)
            assert 0 <= one.x.min() < 0.1
            assert 0.9 < one.x.max() <= 1


def test_splits_are_the_published_ones(tmp_path):
    writers.whole("shd", tmp_path, rng(), n=40)
    data = datasets.load("shd", tmp_path)
    train, labels, names = heidelberg.read_named(tmp_path / "shd_train.h5")
    test, _ = datasets.read_heidelberg(tmp_path / "shd_test.h5")
    assert torch.equal(data.test.x.times, test.times)
    assert torch.equal(data.test.x.speakers, test.speakers)
    assert data.names == names
    kept, held = catalogue.hold_out(Split(train, labels), 0.1, 0)
    assert torch.equal(data.train.x.times, kept[0].times)
    assert torch.equal(data.validation.x.speakers, held[0].speakers)
    writers.whole("ssc", tmp_path, rng(), n=10)
    data, valid = datasets.load("ssc", tmp_path), datasets.read_heidelberg(tmp_path / "ssc_valid.h5")[0]
    assert torch.equal(data.validation.x.units, valid.units)


def test_what_is_held_out_is_a_share_of_each_class_and_depends_on_the_seed():
    y = torch.arange(300) % 3
    x = torch.arange(300)
    kept, held = catalogue.hold_out(Split(x, y), 0.1, 0)
    assert held[1].bincount().tolist() == [10, 10, 10]
    assert sorted([*kept[0].tolist(), *held[0].tolist()]) == list(range(300))
    assert held[0].tolist() == sorted(held[0].tolist())
    assert torch.equal(held[0] % 3, held[1])
    assert torch.equal(catalogue.hold_out(Split(x, y), 0.1, 0)[1][0], held[0])
    assert not torch.equal(catalogue.hold_out(Split(x, y), 0.1, 1)[1][0], held[0])
    assert len(catalogue.hold_out(Split(x, y), 0.0, 0)[1][0]) == 0


def test_cifar10_dvs_gets_a_test_of_its_own(tmp_path):
    writers.whole("cifar10-dvs", tmp_path, rng(), n=100)
    data = datasets.load("cifar10-dvs", tmp_path, test=0.2, validation=0.25)
    assert [part.y.bincount().tolist() for part in data[:3]] == [[6] * 10, [2] * 10, [2] * 10]
    other = datasets.load("cifar10-dvs", tmp_path, test=0.2, validation=0.25, split_seed=1)
    assert not torch.equal(data.test.x.times, other.test.x.times)
    assert len(datasets.load("cifar10-dvs", tmp_path, test=0, validation=0).train) == 100


def test_an_unknown_name_gets_near_ones():
    with pytest.raises(ValueError, match="no data set is called 'fashion'; did you mean fashion-mnist"):
        datasets.load("fashion")
    with pytest.raises(ValueError, match="no data set is called 'xyz'; there are shd, ssc"):
        datasets.load("xyz")
    with pytest.raises(ValueError, match=r"validation must be a share in \[0, 1\), got 1"):
        datasets.load("shd", validation=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_missing_is_named_with_its_source_and_folder(tmp_path, name):
    source = catalogue.SOURCES[name]
    writers.whole(name, tmp_path / name, rng(), n=10)
    lost = tmp_path / name / source.wanted[-1]
    for path in (lost, Path(f"{lost}.gz")):
        if path.exists():
            path.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError) as error:
        datasets.load(name, tmp_path, checksum=False)
    message = str(error.value)
    assert source.wanted[-1] in message
    assert source.wanted[0] not in message
    assert source.page in message
    assert str(tmp_path / name) in message
    assert "Nothing is downloaded" in message


@pytest.mark.parametrize("name", ["n-mnist", "cifar10-dvs", "dvs-gesture"])
def test_folders_without_a_recording_are_no_data_set(tmp_path, name):
    for wanted in catalogue.SOURCES[name].wanted:
        if name == "dvs-gesture":
            (tmp_path / wanted).write_text("")
        else:
            (tmp_path / wanted).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="at least one recording"):
        datasets.load(name, tmp_path)


def test_a_checksum_that_differs_is_refused_with_the_files_name(tmp_path, monkeypatch):
    writers.whole("mnist", tmp_path, rng())
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz: its MD5 is .*checksum=False"):
        datasets.load("mnist", tmp_path)
    assert len(datasets.load("mnist", tmp_path, checksum=False).test) == 20
    name = "t10k-images-idx3-ubyte.gz"
    sums = {name: hashlib.md5((tmp_path / name).read_bytes()).hexdigest()}
    monkeypatch.setitem(catalogue.SOURCES, "mnist", catalogue.SOURCES["mnist"]._replace(checksums=sums))
    assert len(datasets.load("mnist", tmp_path).test) == 20


def test_an_archive_beside_its_files_is_checked(tmp_path):
    writers.whole("cifar10", tmp_path / "cifar-10-batches-bin", rng())
    assert len(datasets.load("cifar10", tmp_path).test) == 4
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz: its MD5"):
        datasets.load("cifar10", tmp_path)


def test_checksums_are_md5_sums_of_files_that_are_wanted_or_of_archives():
    for source in catalogue.SOURCES.values():
        for name, value in source.checksums.items():
            assert name.endswith(".gz")
            assert len(value) == 32
            assert int(value, 16) >= 0


def test_the_library_is_imported_without_h5py():
    code = "import sys, snnlearn, snnlearn.datasets; print([m for m in ('h5py', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- batches


def some(n=23):
    generator = rng()
    lengths = generator.integers(0, 9, n)
    pointer = torch.tensor([0, *lengths.cumsum()])
    total = int(pointer[-1])
    times = torch.cat([torch.arange(int(k)) * 1000 for k in lengths])
    units = torch.from_numpy(generator.integers(0, 6, total))
    return Split(Recordings(times, units, pointer, (2, 3), torch.arange(n)), torch.arange(n) % 4)


def encode(x):
    return x.dense(4)


def order(loader):
    return [(x, y.tolist()) for x, y in loader]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_batches_in_the_same_order(context):
    split = some()

    def loader(workers, encode=None, **more):
        generator = torch.Generator().manual_seed(3)
        return datasets.loader(split, 5, generator=generator, encode=encode, num_workers=workers, **more)

    more = {"multiprocessing_context": context, "persistent_workers": True}
    alone, together = loader(0), loader(2, **more)
    seen = []
    for _ in range(2):  # epochs
        for (x, y), (other, labels) in zip(order(alone), order(together), strict=True):
            assert y == labels
            assert x.speakers.tolist() == other.speakers.tolist()
            assert torch.equal(x.dense(9), other.dense(9))
            assert x.speakers.remainder(4).tolist() == y
            seen += x.speakers.tolist()
    assert sorted(seen[:23]) == list(range(23)) == sorted(seen[23:])
    assert seen[:23] != seen[23:]
    if context == "fork":
        for (x, _), (other, _) in zip(order(loader(0, encode)), order(loader(2, encode, **more)), strict=True):
            assert x.shape == (4, x.shape[1], 2, 3)
            assert torch.equal(x, other)


def test_samples_of_images_and_one_by_one():
    split = Split(torch.arange(10.0).view(5, 2), torch.arange(5))
    samples = Samples(split)
    x, y = samples[3]
    assert (x.tolist(), y.tolist()) == ([[6.0, 7.0]], [3])
    assert [y.tolist() for _, y in DataLoader(samples, 2, collate_fn=collate)] == [[0, 1], [2, 3], [4]]
    with pytest.raises(IndexError, match="5 samples, got 5"):
        samples[5]
    with pytest.raises(ValueError, match="4 samples and 5 labels"):
        Samples(Split(split.x[:4], split.y))


# ---- memory

MEASURE = """
import sys, torch
from snnlearn import datasets
torch.set_num_threads(1)
def peak(): return int(next(v for v in open("/proc/self/status") if v.startswith("VmHWM")).split()[1]) * 1024
def held(x): return x.nbytes if isinstance(x, torch.Tensor) else x.times.nbytes + x.units.nbytes + x.pointer.nbytes
before = peak()
data = datasets.load(sys.argv[1], sys.argv[2], checksum=False)
grown = peak() - before
print(grown, sum(held(part.x) for part in data[:3]))
"""


def large(name, root):
    """A data set of that name, of some 100 MB when it is decoded."""
    generator = rng()
    if name == "shd":
        for part, n in (("train", 1600), ("test", 400)):
            with h5py.File(root / f"shd_{part}.h5", "w") as file:
                for key, kind in (("times", np.float16), ("units", np.uint16)):
                    data = file.create_dataset(f"spikes/{key}", (n,), dtype=h5py.vlen_dtype(kind))
                    values = (
                        (np.arange(9000) / 9000).astype(kind) if key == "times" else np.arange(9000, dtype=kind) % 700
                    )
                    for i in range(n):
                        data[i] = values
                file["labels"] = np.arange(n) % 20
    elif name == "n-mnist":
        raw = np.zeros((90_000, 5), np.uint8)
        for part in ("Train", "Test"):
            for digit in range(10):
                (root / part / str(digit)).mkdir(parents=True)
                for i in range(15 if part == "Train" else 5):
                    raw.tofile(root / part / str(digit) / f"{i}.bin")
    elif name == "dvs-gesture":
        for part, windows in (("train", 9), ("test", 2)):
            (root / f"trials_to_{part}.txt").write_text(f"{part}.aedat\n")
            packets = []
            for k in range(windows * 150):
                raw = np.zeros((10_000, 2), "<u4")
                raw[:, 0] = 1
                raw[:, 1] = 10_000 * k + np.arange(10_000)
                packets.append(
                    writers.packet([(0, 0, 0, 0)] * 0, valid=0)[:16]
                    + np.array([10_000] * 3, "<i4").tobytes()
                    + raw.tobytes()
                )
            writers.aedat3(root / f"{part}.aedat", *packets)
            writers.gestures(
                root / f"{part}_labels.csv", [(1, 1_500_000 * k, 1_500_000 * (k + 1)) for k in range(windows)]
            )
    else:
        for part, n in (("train", 30_000), ("t10k", 5_000)):
            writers.idx(root / f"{part}-images-idx3-ubyte", generator.integers(256, size=(n, 28, 28), dtype=np.uint8))
            writers.idx(root / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)


@pytest.mark.parametrize("name", ["shd", "n-mnist", "dvs-gesture", "mnist"])
def test_loading_takes_at_most_twice_the_decoded_size(tmp_path, name):
    large(name, tmp_path)
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, name, tmp_path], capture_output=True, text=True, check=True
    ).stdout
    grown, decoded = (int(v) for v in out.split())
    print(f"{name}: {decoded / 1e6:.0f} MB decoded, memory grew by {grown / 1e6:.0f} MB, {grown / decoded:.2f} times")
    assert decoded > 90e6
    assert grown < 2 * decoded


def test_a_name_that_is_no_string_is_refused(tmp_path):
    with pytest.raises(TypeError, match="such as 'shd', got int"):
        datasets.load(3, tmp_path)
