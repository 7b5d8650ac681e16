"""The data sets of others by name: what their files are called, where they come from, how they are split."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snnlearn.datasets import images, vision_events
from snnlearn.datasets.base import Dataset, Split
from snnlearn.datasets.files import missing, verify
from snnlearn.datasets.heidelberg import read_named

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
HEIDELBERG = "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/"
IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR_TRAIN = tuple(f"data_batch_{n}.bin" for n in range(1, 6))

Named = tuple[Any, Tensor, tuple[str, ...]]  # samples, labels, names of the classes


class Source(NamedTuple):
    """One data set: the files that are wanted, and how a published part of it is read.

    ``read`` takes the folder, the part and whether to sort. ``checksums`` are the MD5 sums that are published for the
    files, or for the archives that they come in.
    """

    wanted: tuple[str, ...]
    page: str
    read: Callable[[Path, str, bool], Named]
    classes: int
    parts: tuple[str, ...] = ("train", "test")
    folders: tuple[str, ...] = ()  # of its own, inside root
    note: str = ""
    checksums: Mapping[str, str] = {}


def _shd(folder: Path, part: str, sort: bool) -> Named:
    return read_named(folder / f"shd_{part}.h5", classes=20)


def _ssc(folder: Path, part: str, sort: bool) -> Named:
    return read_named(folder / f"ssc_{'valid' if part == 'validation' else part}.h5", classes=35)


def _n_mnist(folder: Path, part: str, sort: bool) -> Named:
    return *vision_events.n_mnist(folder / part.capitalize(), DIGITS, sort), DIGITS


def _dvs_gesture(folder: Path, part: str, sort: bool) -> Named:
    return *vision_events.dvs_gesture(folder, f"trials_to_{part}.txt"), vision_events.GESTURES


def _cifar10_dvs(folder: Path, part: str, sort: bool) -> Named:
    return *vision_events.cifar10_dvs(folder, CIFAR, sort), CIFAR


def _idx(names: tuple[str, ...]) -> Callable[[Path, str, bool], Named]:
    def read(folder: Path, part: str, sort: bool) -> Named:
        x, y = (_there(folder, name) or folder / name for name in (IDX[:2] if part == "train" else IDX[2:]))
        return *images.labelled(x, y), names

    return read


def _cifar10(folder: Path, part: str, sort: bool) -> Named:
    files = CIFAR_TRAIN if part == "train" else ("test_batch.bin",)
    return *images.cifar10([folder / name for name in files]), CIFAR


def _there(folder: Path, name: str) -> Path | None:
    """The file or folder of that name, or an idx file that is still packed."""
    names = (name, f"{name}.gz") if "-idx" in name else (name,)
    return next((folder / v for v in names if (folder / v).is_file() or (folder / v).is_dir()), None)


SOURCES = {
    "shd": Source(
        ("shd_train.h5", "shd_test.h5"),
        HEIDELBERG,
        _shd,
        20,
        note="(Cramer et al. 2020), unpack the .h5.gz files",
        checksums={
            "shd_train.h5.gz": "d47c9825dee33347913e8ce0f2be08b0",
            "shd_test.h5.gz": "3062a80ec0c5719404d5b02e166543b1",
        },
    ),
    "ssc": Source(
        ("ssc_train.h5", "ssc_valid.h5", "ssc_test.h5"),
        HEIDELBERG,
        _ssc,
        35,
        ("train", "validation", "test"),
        note="(Cramer et al. 2020), unpack the .h5.gz files",
    ),
    "n-mnist": Source(
        tuple(f"{part}/{digit}" for part in ("Train", "Test") for digit in DIGITS),
        "https://www.garrickorchard.com/datasets/n-mnist",
        _n_mnist,
        10,
        note="(Orchard et al. 2015), unpack Train.zip and Test.zip",
    ),
    "dvs-gesture": Source(
        ("trials_to_train.txt", "trials_to_test.txt"),
        "https://research.ibm.com/dvsgesture/",
        _dvs_gesture,
        11,
        folders=("DvsGesture",),
        note="(Amir et al. 2017), unpack DvsGesture.tar.gz",
    ),
    "cifar10-dvs": Source(
        CIFAR,
        "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
        _cifar10_dvs,
        10,
        ("train",),
        note="(Li et al. 2017), unpack the ten archives",
    ),
    "mnist": Source(
        IDX,
        "http://yann.lecun.com/exdb/mnist/",
        _idx(DIGITS),
        10,
        folders=("MNIST/raw",),
        note="(LeCun et al. 1998), as it is or unpacked",
        checksums={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion-mnist": Source(
        IDX,
        "https://github.com/zalandoresearch/fashion-mnist",
        _idx(FASHION),
        10,
        folders=("FashionMNIST/raw",),
        note="(Xiao et al. 2017), as it is or unpacked",
        checksums={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar10": Source(
        (*CIFAR_TRAIN, "test_batch.bin"),
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        _cifar10,
        10,
        folders=("cifar-10-batches-bin",),
        note="(Krizhevsky 2009), unpack the binary version, cifar-10-binary.tar.gz",
        checksums={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    ),
}


def load(
    name: str,
    root: str | os.PathLike[str] = "data",
    *,
    validation: float = 0.1,
    test: float = 0.1,
    split_seed: int = 0,
    checksum: bool = True,
    sort: bool = False,
) -> Dataset:
    """A data set of others, from its published files; nothing is downloaded.

    Events are `Recordings`: ``shd`` and ``ssc`` of shape (700,), ``n-mnist`` (2, 34, 34), ``dvs-gesture`` and
    ``cifar10-dvs`` (2, 128, 128), the first axis OFF, ON. Images are float32 in 0..1: ``mnist`` and ``fashion-mnist``
    (N, 1, 28, 28), ``cifar10`` (N, 3, 32, 32).

    Splits are the published ones. Where no validation is published (all but ``ssc``) a share of the training samples
    is held out, by class; for ``shd`` regardless of the speaker, though its test has two speakers that training lacks.
    ``cifar10-dvs`` has no published test either: first a share of all is held out for it. Both shares are the same for
    the same ``split_seed``.

    Args:
        name: ``shd``, ``ssc``, ``n-mnist``, ``dvs-gesture``, ``cifar10-dvs``, ``mnist``, ``fashion-mnist`` or
            ``cifar10``.
        root: the folder with the files, or with a folder of the data set's name (or its archive's) that has them.
        validation: share of the training samples that is held out; 0 leaves the validation empty.
        test: share of all samples that is held out; for ``cifar10-dvs`` only.
        split_seed: which samples are held out.
        checksum: compare MD5 sums where they are published: of the packed files of MNIST and Fashion-MNIST, and of
            the archives of SHD (``.h5.gz``) and CIFAR10 (``.tar.gz``) where they lie beside what was unpacked.
        sort: put the events of N-MNIST and CIFAR10-DVS in order where a recording is not, instead of refusing it.

    Raises:
        FileNotFoundError: a file is not there; the message names it, its source and the folder.
        ValueError: no data set has that name, a file is damaged or its checksum differs; the message names the file.
    """
    source = _source(name)
    for key, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise ValueError(f"{key} must be a share in [0, 1), got {share}")
    folders = [Path(root) / v for v in (_known(name), *source.folders)] + [Path(root)]
    folder = next((v for v in folders if all(_there(v, w) for w in source.wanted)), None)
    if folder is None:
        lacking = min(([w for w in source.wanted if not _there(v, w)] for v in folders), key=len)
        raise missing(name, lacking, folders, source.page, source.note)
    if checksum:
        verify(folder, source.checksums)
        if Path(root) != folder:  # an archive may lie beside its folder; files that two sets name alike are not meant
            alike = {f"{file}.gz" for file in IDX}
            verify(Path(root), {file: md5 for file, md5 in source.checksums.items() if file not in alike})

    def part(which: str) -> tuple[Split, tuple[str, ...]]:
        try:
            x, y, names = source.read(folder, which, sort)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; '{name}' comes from {source.page} {source.note}".rstrip()) from error
        if not len(y):  # a folder that is there and empty
            raise missing(name, [f"at least one recording of the {which} split"], [folder], source.page, source.note)
        return Split(x, y), names

    train, names = part("train")
    if "test" not in source.parts:
        train, tested = hold_out(train, test, split_seed)
    if "validation" not in source.parts:
        train, held = hold_out(train, validation, split_seed)
    else:
        held = part("validation")[0]
    if "test" in source.parts:  # read last, when what was taken apart is gone from memory
        tested = part("test")[0]
    return Dataset(_scaled(train), _scaled(held), _scaled(tested), source.classes, names)


def hold_out(part: Split, share: float, seed: int) -> tuple[Split, Split]:
    """The samples that stay, and a share of each class (rounded), picked by the seed; both in their old order."""
    (x, y), generator = part, torch.Generator().manual_seed(seed)
    out = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        where = (y == label).nonzero().squeeze(1)
        out[where[torch.randperm(len(where), generator=generator)[: round(share * len(where))]]] = True
    if not out.any():
        return part, Split(x[:0], y[:0])
    held, rest = out.nonzero().squeeze(1), (~out).nonzero().squeeze(1)
    return Split(x[rest], y[rest]), Split(x[held], y[held])


def _scaled(part: Split) -> Split:
    """Bytes of images as float32 in 0..1."""
    return Split(part.x.float().div_(255), part.y) if isinstance(part.x, Tensor) else part


def _known(name: str) -> str:
    return name.lower().replace("_", "-")


def _source(name: str) -> Source:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string such as 'shd', got {type(name).__name__}")
    if _known(name) in SOURCES:
        return SOURCES[_known(name)]
    near = difflib.get_close_matches(_known(name), SOURCES, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? There are" if near else "there are"
    raise ValueError(f"no data set is called '{name}'; {hint} {', '.join(SOURCES)}")
