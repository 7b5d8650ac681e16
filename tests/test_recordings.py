"""Flat events against a slow reference of one loop over all spikes."""

import itertools
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnlearn.datasets import Recordings

SHAPE = (2, 3)
spike = st.tuples(st.integers(0, 5000), st.integers(0, 5))
many = st.lists(st.lists(spike, max_size=6).map(sorted), max_size=6)


def flat(samples, speakers=True):
    spikes = [s for sample in samples for s in sample]
    lengths = torch.tensor([0] + [len(sample) for sample in samples])
    return Recordings(
        torch.tensor([t for t, _ in spikes], dtype=torch.int64),
        torch.tensor([u for _, u in spikes], dtype=torch.int64),
        lengths.cumsum(0),
        SHAPE,
        torch.arange(len(samples)) if speakers else None,
    )


def lists(x):
    cuts = x.pointer.tolist()
    pairs = list(zip(x.times.tolist(), x.units.tolist(), strict=True))
    return [pairs[i:j] for i, j in itertools.pairwise(cuts)]


def slow_dense(samples, steps, microseconds):
    out = torch.zeros(steps, len(samples), *SHAPE)
    for n, sample in enumerate(samples):
        for t, u in sample:
            if t // microseconds < steps:
                out[t // microseconds, n, u // 3, u % 3] = 1
    return out


@given(many, st.data())
def test_chosen_samples_are_those_of_the_lists(samples, data):
    x = flat(samples)
    chosen = data.draw(st.lists(st.integers(-len(samples), len(samples) - 1), max_size=8)) if samples else []
    part = x[torch.tensor(chosen, dtype=torch.int64)]
    assert lists(part) == [samples[n] for n in chosen]
    assert part.speakers.tolist() == [range(len(samples))[n] for n in chosen]
    cut = data.draw(st.slices(len(samples)))
    assert lists(x[cut]) == samples[cut]
    mask = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=len(samples), max_size=len(samples))), dtype=torch.bool
    )
    assert lists(x[mask]) == [sample for sample, kept in zip(samples, mask, strict=True) if kept]


@given(many, st.integers(1, 7), st.sampled_from([1, 7, 1000]))
def test_dense_is_the_loop_over_all_spikes(samples, steps, microseconds):
    x = flat(samples)
    want = slow_dense(samples, steps, microseconds)
    dense = x.dense(steps, microseconds * 1e-6)
    assert dense.dtype == torch.float32
    assert torch.equal(dense, want)
    for dtype in (torch.uint8, torch.bool, torch.float64):
        assert torch.equal(x.dense(steps, microseconds * 1e-6, dtype=dtype), want.to(dtype))
    if samples:  # bits want at least one
        assert torch.equal(x.packed(steps, microseconds * 1e-6).dense().float(), want.flatten(2))


@given(many)
def test_counts_are_those_of_the_loop(samples):
    want = torch.zeros(len(samples), *SHAPE)
    for n, sample in enumerate(samples):
        for _, u in sample:
            want[n, u // 3, u % 3] += 1
    assert torch.equal(flat(samples).counts(), want)


@given(many, st.integers(1, 7))
def test_pieces_put_together_are_the_whole(samples, size):
    pieces = flat(samples, speakers=False).split(size)
    assert [sample for piece in pieces for sample in lists(piece)] == samples
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(piece.speakers is None for piece in pieces)


def test_steps_that_are_no_whole_microseconds():
    x = Recordings(torch.tensor([0, 33, 34, 66, 67, 100]), torch.arange(6), torch.tensor([0, 6]), (6,))
    assert x.dense(3, 1e-4 / 3)[:, 0].nonzero()[:, 0].tolist() == [0, 0, 1, 1, 2]


def test_late_spikes_keep_their_step():
    """Beyond 2**24 microseconds float32 no longer counts single ones: this one would be rounded into the next step."""
    steps, width = 33_559, 1000.5
    late = torch.tensor([round(steps * width - 0.5)])
    x = Recordings(late, torch.tensor([0]), torch.tensor([0, 1]), (1,))
    assert x.dense(steps, width * 1e-6).flatten().nonzero().tolist() == [[steps - 1]]
    assert x.dense(steps - 1, width * 1e-6).sum() == 0
    last = Recordings(torch.tensor([2**31 - 1]), torch.tensor([0]), torch.tensor([0, 1]), (1,))
    assert last.dense(2148, 1.0)[2147].tolist() == [[1]]


def test_many_units_and_samples_do_not_overflow():
    n = 40
    x = Recordings(torch.zeros(n, dtype=torch.int32), torch.full((n,), 2**15 - 1), torch.arange(n + 1), (2, 128, 128))
    assert x.units.dtype == torch.int16
    assert x.counts()[:, 1, 127, 127].tolist() == [1] * n
    assert x.dense(1, dtype=torch.uint8)[0, :, 1, 127, 127].tolist() == [1] * n
    big = Recordings(torch.zeros(1, dtype=torch.int32), torch.tensor([2**15]), torch.tensor([0, 1]), (2**15 + 1,))
    assert big.units.dtype == torch.int32
    assert big.units.tolist() == [2**15]


def test_they_can_be_pickled():
    x = flat([[(1, 2)], [], [(3, 4), (5, 0)]])
    again = pickle.loads(pickle.dumps(x))
    assert lists(again) == lists(x)
    assert again.shape == x.shape
    assert repr(again) == "Recordings(3 samples, 3 spikes, shape=(2, 3))"


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"times": torch.tensor([0.0, 1.0])}, TypeError, "times must be an integer tensor, got torch.float32"),
        ({"units": [0, 1]}, TypeError, "units must be an integer tensor, got list"),
        ({"pointer": torch.tensor([True, True])}, TypeError, "pointer must be an integer tensor"),
        ({"times": torch.zeros(2, 1, dtype=torch.int64)}, ValueError, "times must have one axis"),
        ({"times": torch.tensor([1])}, ValueError, "1 times and 2 units"),
        ({"times": torch.tensor([-1, 1])}, ValueError, r"got -1\.\.1"),
        ({"times": torch.tensor([1, 2**31])}, ValueError, r"got 1\.\.2147483648"),
        ({"units": torch.tensor([0, 6])}, ValueError, r"units must lie in 0\.\.5, got 0\.\.6"),
        ({"units": torch.tensor([-1, 0])}, ValueError, r"got -1\.\.0"),
        ({"pointer": torch.tensor([0, 1])}, ValueError, "pointer must rise from 0 to 2"),
        ({"pointer": torch.tensor([1, 2])}, ValueError, "pointer must rise"),
        ({"pointer": torch.tensor([0, 2, 1, 2])}, ValueError, "pointer must rise"),
        ({"pointer": torch.tensor([], dtype=torch.int64)}, ValueError, "pointer must rise"),
        ({"shape": ()}, ValueError, "at least one axis"),
        ({"shape": (2, 0)}, ValueError, "no empty one"),
        ({"speakers": torch.tensor([1, 2])}, ValueError, r"speakers must have shape \(1,\), got \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, reason):
    right = {
        "times": torch.tensor([0, 1]),
        "units": torch.tensor([0, 5]),
        "pointer": torch.tensor([0, 2]),
        "shape": SHAPE,
    }
    assert len(Recordings(**right)) == 1
    with pytest.raises(error, match=reason):
        Recordings(**right | change)


def test_a_choice_that_makes_no_sense_is_refused():
    x = flat([[(1, 2)], []])
    for chosen in (0, [0], torch.tensor(0), torch.tensor([0.0])):
        with pytest.raises(TypeError, match="integer tensor"):
            x[chosen]
    with pytest.raises(IndexError):
        x[torch.tensor([2])]
    with pytest.raises(IndexError, match="2 samples, the mask has 1"):
        x[torch.tensor([True])]
    for wrong in (0, 1.5):
        with pytest.raises((TypeError, ValueError), match="size"):
            x.split(wrong)
        with pytest.raises((TypeError, ValueError), match="steps"):
            x.dense(wrong)
    with pytest.raises(ValueError, match="dt must be a positive"):
        x.dense(1, 0.0)
