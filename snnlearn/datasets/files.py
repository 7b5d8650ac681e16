"""Files of others: found, checked against published checksums, and never believed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

MOST_TEXT = 2**20  # bytes of a list of names or of labels
WRONG = (OSError, EOFError, zlib.error)


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file; whatever it raises because it is damaged becomes a ValueError that begins with its name.

    Raises:
        FileNotFoundError: there is no such file, or it is none that can be read to an end, such as a pipe.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this file is wanted, and it is not there")
    try:
        with path.open("rb") as file:
            yield file
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except WRONG as error:
        raise ValueError(f"{path}: cannot be read to its end, it is damaged ({error})") from error


def text(file: IO[bytes]) -> list[str]:
    """The lines of a short text."""
    found = file.read(MOST_TEXT + 1)
    if len(found) > MOST_TEXT:
        raise ValueError(f"it is longer than {MOST_TEXT} bytes")
    return found.decode("utf-8-sig").splitlines()


def verify(folder: Path, checksums: Mapping[str, str]) -> None:
    """Compare every file of these names that lies in the folder with its published MD5.

    Raises:
        ValueError: one of them differs.
    """
    for name, wanted in checksums.items():
        path = folder / name
        if not path.is_file():
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != wanted:
            raise ValueError(
                f"{path}: its MD5 is {found}, the published one {wanted}; "
                f"fetch it again, or pass checksum=False if it is meant to differ"
            )


def missing(name: str, wanted: Iterable[str], folders: Iterable[Path], page: str, note: str = "") -> FileNotFoundError:
    """What to say where files are not there."""
    places = " or ".join(str(folder) for folder in folders)
    return FileNotFoundError(
        f"'{name}' wants {', '.join(wanted)} in {places}. Nothing is downloaded here: get it from {page}"
        f"{' ' + note if note else ''} and pass root=, the folder that it lies in"
    )
