"""The spoken digits: the shipped files, the ear that made them, and the generator where espeak-ng is installed."""

import hashlib
import io
import json
import lzma
import shutil
import sys
from dataclasses import asdict, replace
from importlib.resources import files

import numpy as np
import pytest
import torch

from snnlearn.data.spoken import cochlea, make_spoken
from snnlearn.data.spoken.cochlea import Ear
from snnlearn.datasets.spoken import spoken

h5py = pytest.importorskip("h5py")
FOLDER = files("snnlearn") / "data" / "spoken"
RECORD = json.loads((FOLDER / "settings.json").read_text())
EAR = Ear(channels=12, longest=8192)


@pytest.fixture(scope="module")
def data():
    return spoken()


# the ear


def tone(frequency, seconds=0.2):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * EAR.rate)) / EAR.rate)[None]


def test_a_click_is_answered_after_it_and_later_where_the_frequencies_are_lower():
    click = np.zeros((1, 4096))
    click[0, 1000] = 1
    answer = np.abs(cochlea.basilar_membrane(click, EAR)[:, 0])  # (T, channels)
    energy = (answer**2).sum(0)
    assert ((answer[:1000] ** 2).sum(0)[1:] < 1e-4 * energy[1:]).all()
    # at the very base, where 7 kHz is near the end of the FFT's band, a click is a short wiggle on both sides
    assert (answer[:1000, 0] ** 2).sum() < 0.05 * energy[0]
    arrival = (answer > 0.1 * answer.max(0)).argmax(0)
    assert (np.diff(arrival) > 0).all()
    assert 0.002 < (arrival[-1] - 1000) / EAR.rate < 0.03


def test_arrival_is_the_travelling_time_of_the_wave():
    """Far below resonance the wave's speed is sqrt(h S / (2 rho)); to the place x it takes the integral of 1/speed."""
    ear = replace(EAR, length=1.5, channels=4)
    omega = 2 * np.pi * np.fft.rfftfreq(ear.longest, 1 / ear.rate)
    phase = np.unwrap(np.angle(cochlea.transfer(ear)[:, 1:]), axis=1)
    low = slice(20, 40)  # 50 to 110 Hz, the resonance at 1.5 cm is at 750 Hz
    delay = -np.diff(phase, axis=1)[:, low].mean(1) / (omega[2] - omega[1])
    stiffness = lambda x: ear.C0 * np.exp(-ear.alpha * x) - ear.a  # noqa: E731
    x = np.linspace(0, ear.length, 3001)
    slowness = np.sqrt(2 * ear.rho / (ear.h * stiffness(x)))
    travel = np.concatenate([[0], (slowness[1:] + slowness[:-1]).cumsum() / 2 * (x[1] - x[0])])[::1000]
    np.testing.assert_allclose((delay - delay[0])[1:], travel[1:], rtol=0.15)


@pytest.mark.parametrize("channel", [3, 5, 7, 9])
def test_a_tone_moves_its_place_the_most(channel):
    """The largest movement lies a little towards the base of the resonance, by less than a channel."""
    answer = cochlea.basilar_membrane(tone(EAR.frequencies()[channel]), EAR)[:, 0]
    assert abs(int((answer[1000:] ** 2).sum(0).argmax()) - channel) <= 1


def test_places_and_frequencies():
    ear = Ear()
    assert ear.frequencies()[0] == pytest.approx(np.sqrt((1e8 - 3500) / 0.05) / (2 * np.pi))
    assert (np.diff(ear.frequencies()) < 0).all()
    assert ear.frequencies()[-1] > 20


def test_hair_cells_at_rest_stay_and_fire_as_the_closed_form_says():
    rate = cochlea.hair_cells(np.zeros((500, 2)), EAR)
    k = EAR.g * EAR.A / (EAR.A + EAR.B)
    cleft = EAR.M * EAR.y * k / (EAR.l * k + EAR.y * (EAR.l + EAR.r))
    np.testing.assert_allclose(rate, EAR.hfire * cleft, rtol=1e-3)


def test_hair_cells_adapt_and_answer_one_direction_only():
    up = cochlea.hair_cells(np.full((4000, 1), 1000.0), EAR)[:, 0]
    assert up.max() > 3 * up[-1] > 0
    k = EAR.g * (EAR.gain * 1000 + EAR.A) / (EAR.gain * 1000 + EAR.A + EAR.B)
    cleft = EAR.M * EAR.y * k / (EAR.l * k + EAR.y * (EAR.l + EAR.r))
    end = cochlea.hair_cells(np.full((40000, 1), 1000.0), EAR)[-1, 0]
    assert end == pytest.approx(EAR.hfire * cleft, rel=0.02)
    down = cochlea.hair_cells(np.full((4000, 1), -1000.0), EAR)[:, 0]
    assert down[-1] < 1e-3


def test_fibres_fire_at_the_rate_of_a_refractory_process():
    """Rate r with rest d after each spike: in steps of dt, a spike every d + dt (1 - p) / p seconds, p = r dt."""
    rate, seconds = 400.0, 2
    fired = cochlea.nerve_fibres(np.full((seconds * EAR.rate, 5), rate), EAR, np.random.default_rng(0))
    p = rate / EAR.rate
    rests = round(EAR.tau_refractory * EAR.rate)
    expected = EAR.rate / (rests + (1 - p) / p)
    assert fired.sum() / (seconds * 5 * EAR.fibres) == pytest.approx(expected, rel=0.02)
    assert fired.sum(1).max() <= 5 * EAR.fibres


def test_no_fibre_fires_twice_within_its_rest():
    one = replace(EAR, fibres=1)
    fired = cochlea.nerve_fibres(np.full((20000, 1), 8000.0), one, np.random.default_rng(1))[:, 0]
    assert np.diff(np.flatnonzero(fired)).min() == round(EAR.tau_refractory * EAR.rate)


def test_bushy_cells_against_the_closed_form():
    """A steady current I: v after n steps is I (1 - keep^n), so a spike comes every ceil(log(1 - 1/I) / log keep)."""
    current = 1.7
    ear = replace(EAR, tau_syn=1e-9, weight=current, fibres=255)  # the synapse forgets within a step
    spikes = np.flatnonzero(cochlea.bushy_cells(np.ones((2000, 1), dtype=np.uint8), ear)[:, 0])
    keep = np.exp(-1 / (ear.rate * ear.tau_mem))
    charge = int(np.ceil(np.log(1 - 1 / current) / np.log(keep)))
    assert spikes[0] == charge - 1
    assert set(np.diff(spikes)) == {charge + round(ear.tau_refractory * ear.rate)}


def test_bushy_cells_below_threshold_are_silent():
    ear = replace(EAR, tau_syn=1e-9, weight=0.99)
    assert not cochlea.bushy_cells(np.ones((2000, 1), dtype=np.uint8), ear).any()


def test_silence_is_silent_and_a_tone_is_heard_at_its_place():
    ear = replace(Ear(), channels=12, longest=8192)
    quiet = cochlea.listen(np.zeros((1, 4410)), ear, np.random.default_rng(0))
    assert quiet.sum() <= 0.5 * 0.2 * ear.channels  # half a spike per second and channel, of the fibres' own firing
    loud = cochlea.listen(1.4 * tone(ear.frequencies()[6]), ear, np.random.default_rng(0))[:, 0].sum(0)
    assert loud[5:8].sum() > 0.5 * loud.sum() > 20


def test_a_sound_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="at most 6144"):
        cochlea.basilar_membrane(np.zeros((1, 6145)), EAR)


# the shipped files


def test_files_are_those_of_the_record():
    assert set(RECORD["files"]) == {f"spoken_{split}.h5.xz" for split in make_spoken.SPLITS}
    total = 0
    for name, said in RECORD["files"].items():
        packed = (FOLDER / name).read_bytes()
        total += len(packed)
        assert hashlib.sha256(packed).hexdigest() == said["sha256"]
        assert hashlib.sha256(lzma.decompress(packed)).hexdigest() == said["sha256 unpacked"]
    assert total < 2.5e6


def test_record_is_of_the_settings_in_the_source():
    """Who changes a constant makes the files anew."""
    assert RECORD["settings"] == json.loads(json.dumps(asdict(make_spoken.Settings())))
    assert RECORD["ear"] == asdict(Ear())
    assert RECORD["speakers"] == [voice._asdict() for voice in make_spoken.speakers(make_spoken.Settings())]


def test_splits(data):
    assert [len(split) for split in data[:3]] == [1600, 320, 480]
    assert data.classes == 20
    assert data.names == make_spoken.WORDS
    for split in data[:3]:
        assert set(split.y.bincount(minlength=20).tolist()) == {len(split) // 20}
        assert tuple(split.x.shape) == (70,)


def test_no_speaker_is_in_two_splits(data):
    groups = [set(split.x.speakers.tolist()) for split in data[:3]]
    assert [len(group) for group in groups] == [20, 4, 6]
    assert set.union(*groups) == set(range(30))
    for name, group in zip(make_spoken.SPLITS, groups, strict=True):
        assert group == {voice["number"] for voice in RECORD["speakers"] if voice["split"] == name}


def test_spikes_are_in_range_and_keep_their_millisecond(data):
    for split in data[:3]:
        times = split.x.times
        assert int(times.min()) >= 0
        assert int(times.max()) < 880_000
        assert ((times % 1000 - 500).abs() < 260).all()  # the middle of a step, as float16 has it below 1 s
        assert (split.x.counts().sum(1) > 50).all()
        assert set(split.x.dense(880).sum((0, 2)).long().tolist()) == set(split.x.pointer.diff().tolist())
    mean = torch.cat([split.x.counts().sum(1) for split in data[:3]]).mean()
    assert 500 < mean < 1000


def test_layout_is_that_of_the_heidelberg_data_sets():
    with h5py.File(io.BytesIO(lzma.decompress((FOLDER / "spoken_test.h5.xz").read_bytes()))) as file:
        assert set(file) == {"spikes", "labels", "extra"}
        assert set(file["extra"]) == {"speaker", "keys", "meta_info"}
        assert h5py.check_vlen_dtype(file["spikes/times"].dtype) == np.float16
        assert h5py.check_vlen_dtype(file["spikes/units"].dtype) == np.uint16
        assert file["labels"].dtype == np.uint16


# the generator

ESPEAK = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")


def test_without_espeak_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="apt install espeak-ng"):
        make_spoken.speak("one", "en-us", 50, 150)


@ESPEAK
def test_an_unknown_voice_is_an_error():
    known = make_spoken.speakers(make_spoken.Settings())
    make_spoken.check_voices(known)
    for wrong in ({"variant": "no-such-voice"}, {"accent": "no-such-voice"}):
        with pytest.raises(RuntimeError, match="no-such-voice"):
            make_spoken.check_voices([known[0]._replace(**wrong)])


@ESPEAK
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    settings = make_spoken.Settings(repetitions=1)
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        make_spoken.make(tmp_path / name, replace(settings, seed=seed), voices=[1, 2], words=[3, 13])
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == ["settings.json", "spoken_test.h5.xz", "spoken_train.h5.xz", "spoken_validation.h5.xz"]
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert json.loads((tmp_path / "first/settings.json").read_text())["files"]["spoken_train.h5.xz"]["samples"] == 2
    first, other = ((tmp_path / name / "spoken_train.h5.xz").read_bytes() for name in ("first", "other"))
    assert first != other


@ESPEAK
def test_speakers_and_words_sound_different():
    voices = make_spoken.speakers(make_spoken.Settings())
    sounds = [
        make_spoken.utterance(word, voices[who], make_spoken.Settings(), np.random.default_rng(0))
        for word, who in ((0, 0), (1, 0), (10, 0), (0, 1))
    ]
    assert len({sound.tobytes() for sound in sounds}) == 4
    for sound in sounds:
        tail = round(0.1 * Ear.rate)
        assert not sound[-tail:].any()
        assert 0.5 < np.sqrt(np.mean(sound[:-tail] ** 2)) < 1.6


@pytest.mark.parametrize("damage", [lambda raw: raw[:5000], lambda raw: raw[:3000] + b"\0" * 40 + raw[3040:]])
def test_a_damaged_installed_file_is_named(damage, tmp_path, monkeypatch):
    module = sys.modules["snnlearn.datasets.spoken"]
    folder = tmp_path / "data" / "spoken"
    folder.mkdir(parents=True)
    whole = (files("snnlearn") / "data" / "spoken" / "spoken_train.h5.xz").read_bytes()
    (folder / "spoken_train.h5.xz").write_bytes(damage(whole))
    monkeypatch.setattr(module, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"spoken_train\.h5\.xz: the installed file is damaged"):
        spoken()
