"""Damaged files are read or refused with their name: never a crash, another error, a hang or a gigabyte.

The same as ``python tests/fuzz_datasets.py``, with fewer files, the same in every run.
"""

import gzip
import subprocess
import sys
from pathlib import Path

import fuzz_datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

where = st.floats(0, 1)
small = st.integers(1, 64)
words = st.sampled_from(fuzz_datasets.ODD) | st.binary(min_size=1, max_size=16)
edit = st.one_of(
    st.tuples(st.just("flip"), where, small),
    st.tuples(st.sampled_from(["put", "insert"]), where, words),
    st.tuples(st.just("cut"), where, small),
    st.tuples(st.sampled_from(["remove", "repeat"]), where, small),
)
edits = st.lists(edit, min_size=1, max_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fuzz_datasets.prepare(folder)
    return folder


@pytest.mark.parametrize("kind", [kind for kind in fuzz_datasets.FORMATS if kind != "heidelberg"])
def test_damaged_files_are_read_or_refused(kind, folder):
    @settings(max_examples=250)
    @given(edits)
    def check(edits):
        assert fuzz_datasets.attempt(kind, fuzz_datasets.damaged(kind, folder, edits), folder) in ("read", "refused")

    check()


@settings(max_examples=60)  # each is read by a process of its own
@given(edits)
def test_damaged_hdf5_files_are_read_or_refused(folder, edits):
    content = fuzz_datasets.damaged("heidelberg", folder, edits)
    assert fuzz_datasets.attempt("heidelberg", content, folder) in ("read", "refused")


@pytest.mark.parametrize("kind", fuzz_datasets.FORMATS)
def test_whole_files_are_read(kind, folder):
    """Else every damaged one would be refused too, for another reason."""
    assert fuzz_datasets.attempt(kind, (folder / fuzz_datasets.FORMATS[kind][0]).read_bytes(), folder) == "read"


@pytest.mark.parametrize("kind", fuzz_datasets.FORMATS)
def test_files_cut_at_any_length_are_read_or_refused(kind, folder):
    whole = (folder / fuzz_datasets.FORMATS[kind][0]).read_bytes()
    step = len(whole) // 20 + 1 if kind == "heidelberg" else len(whole) // 200 + 1
    outcomes = [fuzz_datasets.attempt(kind, whole[:n], folder) for n in range(0, len(whole), step)]
    assert "refused" in outcomes or kind == "trials"


def test_a_gzip_bomb_is_not_unpacked(folder):
    """A megabyte that unpacks to a gigabyte, behind a head that promises five images."""
    head = gzip.decompress((folder / "images.gz").read_bytes())
    bomb = gzip.compress(head, 1) + gzip.compress(bytes(2**20), 9) * 1000
    assert fuzz_datasets.attempt("idx-packed", bomb, folder) == "refused"
    many = head[:4] + (200_000).to_bytes(4, "big") + head[8:] + bytes(10**6)
    assert fuzz_datasets.attempt("idx-packed", gzip.compress(many), folder) == "refused"


def test_the_command_reads_what_it_is_asked_for():
    command = [sys.executable, Path(__file__).with_name("fuzz_datasets.py"), "40", "0"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "40 files, no crash" in out


def test_the_fuzzer_finds_a_reader_that_crashes(folder, monkeypatch):
    def crash(folder):
        raise IndexError

    monkeypatch.setitem(fuzz_datasets.FORMATS, "idx", ("images", crash))
    with pytest.raises(IndexError):
        fuzz_datasets.attempt("idx", b"", folder)

    def nameless(folder):
        raise ValueError("it is damaged")

    monkeypatch.setitem(fuzz_datasets.FORMATS, "idx", ("images", nameless))
    with pytest.raises(AssertionError, match="does not name images"):
        fuzz_datasets.attempt("idx", b"", folder)
