"""What a run tells on its way: a row an epoch, in a CSV file and for TensorBoard.

The rows are part of the checkpoint, and the file is written anew from them, whole, with each. So there is no row too
many or too few after a run was killed and resumed, and no half line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from snnlearn.training.checkpoints import write


class Row(NamedTuple):
    """The state of a run at the end of an epoch."""

    epoch: int  # from 1
    step: int  # all so far
    loss: float  # a sample, over the epoch, while it was learned
    val_accuracy: float  # share of 1
    rate: float  # of the epoch's last step
    seconds: float  # so far, those before an interruption included


def write_metrics(path: Path, rows: Sequence[Row]) -> None:
    """A CSV file with a header; numbers are written so that reading gives them back exactly."""
    lines = [",".join(Row._fields), *(",".join(map(repr, row)) for row in rows)]
    write(path, ("\n".join(lines) + "\n").encode())


@contextmanager
def board(folder: Path, done: int) -> Iterator[Callable[[Row], None]]:
    """A function that shows a row in TensorBoard.

    Args:
        folder: of its event files.
        done: steps of the run so far; what an earlier, killed process has shown of later ones is taken back.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError('tensorboard is not installed; pip install "snnlearn[scale]"') from error
    writer = SummaryWriter(str(folder), purge_step=done + 1)

    def show(row: Row) -> None:
        for name in ("loss", "val_accuracy", "rate"):
            writer.add_scalar(name, getattr(row, name), row.step)
        writer.flush()

    try:
        yield show
    finally:
        writer.close()
