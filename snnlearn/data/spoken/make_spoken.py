"""Makes the spoken digits: espeak-ng speaks, a model of the inner ear listens, its spikes are kept.

    python -m snnlearn.data.spoken.make_spoken --out DIR

writes spoken_train.h5.xz, spoken_validation.h5.xz, spoken_test.h5.xz and settings.json into DIR; the same seed, the
same espeak-ng and the same numerical libraries give the same bytes. It needs the program espeak-ng and the package
h5py.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snnlearn.data.spoken.cochlea import Ear, listen
from snnlearn.training import write

ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GERMAN = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
WORDS = ENGLISH + GERMAN
MEN: tuple[str, ...] = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Alex", "Andy", "Denis", "Diogo", "Hugo")
MEN += ("Michael", "Mike", "paul", "victor", "robert")
WOMEN = ("f1", "f2", "f3", "f4", "f5", "Alicia", "Andrea", "Annie", "aunty", "belinda", "linda", "grandma")
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
MISSING = "the program espeak-ng is missing: install it, on Debian with `apt install espeak-ng`"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is chosen; the defaults make the shipped files."""

    seed: int = 0
    repetitions: int = 4
    pitch: tuple[int, int] = (35, 65)  # espeak-ng's -p, a speaker's own
    speed: tuple[int, int] = (140, 190)  # espeak-ng's -s, words per minute, a speaker's own
    pitch_jitter: int = 5  # at most, of a repetition
    speed_jitter: int = 10
    level_jitter: float = 3.0  # dB, at most
    noise: float = 25.0  # dB that white noise lies below the word
    silence: float = 0.02  # of the peak; what is below it at either end is cut off
    ramp: float = 0.01  # s, over which the sound rises and falls
    tail: float = 0.1  # s of silence after the word
    resolution: float = 1e-3  # s, of the spikes' times


class Speaker(NamedTuple):
    """One voice: it speaks English with its accent and German, at its pitch and speed."""

    number: int
    variant: str  # of espeak-ng
    gender: str
    accent: str
    pitch: int
    speed: int
    split: str


def speakers(settings: Settings) -> list[Speaker]:
    """The thirty voices. Four men and two women are held out for the test, two and two for validation."""
    generator = np.random.default_rng(settings.seed)
    out: list[Speaker] = []
    for gender, variants, test in (("M", MEN, 4), ("F", WOMEN, 2)):
        order = generator.permutation(len(variants))
        for at, variant in enumerate(variants):
            split = "test" if order[at] < test else "validation" if order[at] < test + 2 else "train"
            accent = ACCENTS[len(out) % len(ACCENTS)]
            pitch, speed = (
                int(generator.integers(*bounds, endpoint=True)) for bounds in (settings.pitch, settings.speed)
            )
            out.append(Speaker(len(out), variant, gender, accent, pitch, speed, split))
    return out


def speak(word: str, voice: str, pitch: int, speed: int) -> NDArray[np.float64]:
    """The sound (T,) of a word in -1..1, 22050 samples per second.

    Raises:
        RuntimeError: espeak-ng is not there, or it made no sound.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise RuntimeError(MISSING)
    command = [program, "-v", voice, "-p", str(pitch), "-s", str(speed), "-z", "--stdout", word]
    done = subprocess.run(command, capture_output=True, timeout=60)
    wave = done.stdout
    rate = int.from_bytes(wave[24:28], "little")
    if done.returncode or wave[:4] != b"RIFF" or rate != Ear.rate or len(wave) < 1000:
        reason = done.stderr.decode("utf-8", "replace").strip()
        raise RuntimeError(f"espeak-ng made no sound of {Ear.rate} Hz of '{word}' with voice '{voice}': {reason}")
    return np.frombuffer(wave[44 : 44 + (len(wave) - 44) // 2 * 2], dtype="<i2") / 2**15  # its length field is unset


def utterance(word: int, speaker: Speaker, settings: Settings, generator: np.random.Generator) -> NDArray[np.float64]:
    """One repetition of a word, cut, levelled to a root mean square near 1, with noise and silence after it, (T,)."""
    pitch = speaker.pitch + int(generator.integers(-settings.pitch_jitter, settings.pitch_jitter, endpoint=True))
    speed = speaker.speed + int(generator.integers(-settings.speed_jitter, settings.speed_jitter, endpoint=True))
    language = speaker.accent if word < len(ENGLISH) else "de"
    sound = speak(WORDS[word], f"{language}+{speaker.variant}", pitch, speed)
    loud = np.flatnonzero(np.abs(sound) > settings.silence * np.abs(sound).max())
    sound = sound[loud[0] : loud[-1] + 1]
    sound = sound / np.sqrt(np.mean(sound**2))
    sound = sound + 10 ** (-settings.noise / 20) * generator.standard_normal(len(sound))
    slope = np.sin(np.linspace(0, np.pi / 2, round(settings.ramp * Ear.rate))) ** 2
    sound[: len(slope)] *= slope
    sound[-len(slope) :] *= slope[::-1]
    level = 10 ** (generator.uniform(-settings.level_jitter, settings.level_jitter) / 20)
    return np.concatenate([level * sound, np.zeros(round(settings.tail * Ear.rate))])


class Sample(NamedTuple):
    """Spikes of one utterance, in steps of the resolution."""

    steps: NDArray[np.int64]
    units: NDArray[np.int64]
    label: int
    speaker: int


def samples(speaker: Speaker, settings: Settings, ear: Ear, words: Sequence[int]) -> list[Sample]:
    """All that a speaker says, each repetition of all words after the other."""
    out = []
    per_step = ear.rate * settings.resolution
    for repetition in range(settings.repetitions):
        generator = np.random.default_rng([settings.seed, speaker.number, repetition])
        sounds = [utterance(word, speaker, settings, generator) for word in words]
        together = np.zeros((len(sounds), max(map(len, sounds))))
        for n, sound in enumerate(sounds):
            together[n, : len(sound)] = sound
        spikes = listen(together, ear, generator)
        for n, word in enumerate(words):
            at, unit = np.nonzero(spikes[: len(sounds[n]), n])
            steps = (at / per_step).astype(np.int64)
            once = np.unique(steps * ear.channels + unit)
            out.append(Sample(once // ear.channels, once % ear.channels, word, speaker.number))
    return out


def hdf5(content: Sequence[Sample], voices: Sequence[Speaker], settings: Settings) -> bytes:
    """A file in the layout of the Heidelberg spiking data sets; no date is in it.

    A spike's time is the middle of its step, so that float16, whose steps are 0.5 ms from 0.5 s on, leaves it inside.
    """
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v108")) as file:
        times = file.create_dataset("spikes/times", (len(content),), h5py.vlen_dtype(np.float16), track_times=False)
        units = file.create_dataset("spikes/units", (len(content),), h5py.vlen_dtype(np.uint16), track_times=False)
        for n, sample in enumerate(content):
            times[n] = ((sample.steps + 0.5) * settings.resolution).astype(np.float16)
            units[n] = sample.units.astype(np.uint16)
        number = np.array([sample.speaker for sample in content], dtype=np.uint16)
        for name, value in (
            ("labels", np.array([sample.label for sample in content], dtype=np.uint16)),
            ("extra/speaker", number),
            ("extra/keys", np.array([word.encode() for word in WORDS])),
            ("extra/meta_info/gender", np.array([voice.gender.encode() for voice in voices])),
        ):
            file.create_dataset(name, data=value, track_times=False)
    return buffer.getvalue()


def check_voices(voices: Sequence[Speaker]) -> None:
    """See that espeak-ng has them; one that it lacks it would replace by another without a word.

    Raises:
        RuntimeError: espeak-ng or one of the voices is missing.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise RuntimeError(MISSING)

    def listed(kind: str, column: int) -> set[str]:
        said = subprocess.run([program, f"--voices={kind}"], capture_output=True, text=True, timeout=60).stdout
        return {line.split()[column] for line in said.splitlines()[1:]}

    variants = {file for file in listed("variant", 4) if file.startswith("!v/")}
    wanted = {f"!v/{voice.variant}" for voice in voices} - variants
    wanted |= ({voice.accent for voice in voices} | {"de"}) - listed("en", 1) - listed("de", 1)
    if wanted:
        raise RuntimeError(f"espeak-ng ({version()}) lacks the voices {', '.join(sorted(wanted))}; install another one")


def version() -> str:
    """What espeak-ng says of itself, without the path of its data."""
    if shutil.which("espeak-ng") is None:
        return "none"
    said = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, timeout=60).stdout
    return said.split("Data at")[0].strip()


def make(
    out: Path,
    settings: Settings | None = None,
    ear: Ear | None = None,
    *,
    voices: Sequence[int] | None = None,
    words: Sequence[int] = range(len(WORDS)),
) -> None:
    """Write the three files and settings.json into the folder ``out``.

    Args:
        out: a folder; it is made where it is not there.
        settings, ear: the defaults make the shipped files.
        voices, words: which of the thirty speakers and twenty words; by default all.

    Raises:
        RuntimeError: espeak-ng or one of its voices is missing, or it fails.
    """
    settings, ear = settings or Settings(), ear or Ear()
    chosen = [voice for voice in speakers(settings) if voices is None or voice.number in voices]
    check_voices(chosen)
    content = []
    for voice in chosen:
        content += samples(voice, settings, ear, words)
        print(f"speaker {voice.number}: {voice.variant}, {voice.accent}, {voice.split}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    save(out, content, chosen, settings, ear)


def save(out: Path, content: Sequence[Sample], voices: Sequence[Speaker], settings: Settings, ear: Ear) -> None:
    """Write what the voices said into the files of their splits, and the record of it into settings.json."""
    files = {}
    for split in SPLITS:
        numbers = {voice.number for voice in voices if voice.split == split}
        part = [sample for sample in content if sample.speaker in numbers]
        plain = hdf5(part, speakers(settings), settings)
        packed = lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME)
        write(out / f"spoken_{split}.h5.xz", packed)
        files[f"spoken_{split}.h5.xz"] = {
            "sha256": hashlib.sha256(packed).hexdigest(),
            "sha256 unpacked": hashlib.sha256(plain).hexdigest(),
            "bytes": len(packed),
            "samples": len(part),
            "spikes": sum(len(sample.steps) for sample in part),
        }
    versions = {"espeak-ng": version(), "python": platform.python_version(), "machine": platform.machine()}
    versions |= {package: metadata.version(package) for package in ("numpy", "scipy", "h5py")}
    record = {
        "files": files,
        "settings": asdict(settings),
        "ear": asdict(ear),
        "words": WORDS,
        "speakers": [voice._asdict() for voice in voices],
        "versions": versions,
    }
    write(out / "settings.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def main() -> None:
    """Read the command line and make the files."""
    parser = argparse.ArgumentParser(description="Make the spoken digits; it takes some minutes.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0, the shipped files)")
    arguments = parser.parse_args()
    make(arguments.out, Settings(seed=arguments.seed))


if __name__ == "__main__":
    main()
