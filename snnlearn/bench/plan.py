"""Which rows there are, at which sizes, and the goals for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from snnlearn.bench.rows import (
    Measurement,
    Row,
    Shape,
    forward_rows,
    gpu_rows,
    gpu_step_rows,
    layer_rows,
    memory_rows,
    recurrent_rows,
    scan_rows,
    sized,
    step_rows,
)

LAYERS: dict[Shape, tuple[float, float]] = {
    (500, 256, 200): (10, 12),
    (1000, 64, 1000): (10, 12),
    (100, 64, 128): (8, 10),
    (250, 128, 256): (8, 10),
}
"""Goals against the naive loop and the best peer."""
STEPS: dict[Shape, tuple[float, float, float, float]] = {
    (500, 128, 200): (5, 10, 75, 93),
    (500, 32, 1000): (4, 12, 85, 96),
}
"""Goals of a whole step: exact, sparse; and of its memory saved: exact, sparse."""
NO_GOALS = (None, None, None, None)
GPU: dict[Shape, tuple[float | None, float | None]] = {
    (500, 256, 200): (40, None),
    (500, 256, 1000): (40, 75),
    (100, 64, 128): (None, None),
    (1000, 64, 1000): (40, None),
}
"""Goals on an H200, against the naive loop and of the share of its copy. Fewer than 50 000 neurons leave it waiting."""


def measurements(quick: bool, device: str = "cpu") -> list[Measurement]:
    """All measurements, or the same at sizes that take seconds. On a GPU, those of the GPU alone."""
    if device == "cuda":
        return list(_gpu(quick))
    return [*_layers(quick), *_steps(quick), *_memory(quick), *_gpu(quick)]


def _layers(quick: bool) -> Iterator[Measurement]:
    scan: Shape = (100, 64, 200) if quick else (500, 256, 200)
    names = [f"LIF kernel, {way}, share of our streaming copy" for way in ("forward", "backward")]
    goals = (None, None) if quick else (95.0, 85.0)
    rows = tuple(Row(name, sized(scan), "%", goal) for name, goal in zip(names, goals, strict=True))
    yield Measurement(rows, partial(scan_rows, scan))
    for shape in ((100, 16, 64), (50, 8, 100)) if quick else LAYERS:
        naive, peer = LAYERS.get(shape, (None, None))
        yield Measurement(
            (
                Row("LIF layer, forward + backward, vs naive", sized(shape), "x", naive),
                Row("LIF layer, forward + backward, vs the best peer", sized(shape), "x", peer),
            ),
            partial(layer_rows, shape),
        )
    recurrent: Shape = (50, 16, 64) if quick else (250, 128, 256)
    row = Row("recurrent layer, forward + backward, vs naive", sized(recurrent), "x", None if quick else 4)
    yield Measurement((row,), partial(recurrent_rows, recurrent))


def _steps(quick: bool) -> Iterator[Measurement]:
    for shape in _step_shapes(quick):
        exact, sparse, *_ = STEPS.get(shape, NO_GOALS)
        yield Measurement(
            (
                Row("whole step, exact, vs naive", sized(shape), "x", exact),
                Row("whole step, fused neurons and dense products, vs naive", sized(shape), "x"),
            ),
            partial(step_rows, shape, False),
        )
        row = Row("whole step, sparse gradient, vs naive", sized(shape), "x", sparse)
        yield Measurement((row,), partial(step_rows, shape, True))


def _memory(quick: bool) -> Iterator[Measurement]:
    for shape in _step_shapes(quick):
        *_, exact, sparse = STEPS.get(shape, NO_GOALS)
        rows = (
            Row("memory saved, exact", sized(shape), "%", exact),
            Row("memory saved, sparse gradient", sized(shape), "%", sparse),
        )
        yield Measurement(rows, partial(memory_rows, shape))
    lengths = (100, 400) if quick else (100, 4000)
    row = Row("forward in time, growth of memory", f"T {lengths[0]} to {lengths[1]}", "MB", None if quick else 1)
    yield Measurement((row,), partial(forward_rows, lengths))


def _gpu(quick: bool) -> Iterator[Measurement]:
    for shape in ((100, 16, 64),) if quick else GPU:
        naive, share = GPU.get(shape, (None, None))
        rows = (
            Row("GPU, LIF layer, forward + backward, vs naive", sized(shape), "x", naive),
            Row("GPU, LIF layer, forward + backward, vs the best peer", sized(shape), "x"),
            Row("GPU, LIF layer, share of copy bandwidth", sized(shape), "%", share),
        )
        yield Measurement(rows, partial(gpu_rows, shape))
    for shape in _step_shapes(quick):
        steps = (
            Row("GPU, whole step, exact, vs naive", sized(shape), "x"),
            Row("GPU, whole step, fused neurons and dense products, vs naive", sized(shape), "x"),
        )
        yield Measurement(steps, partial(gpu_step_rows, shape, False))
        row = Row("GPU, whole step, sparse gradient, vs naive", sized(shape), "x")
        yield Measurement((row,), partial(gpu_step_rows, shape, True))


def _step_shapes(quick: bool) -> Sequence[Shape]:
    return ((100, 8, 100),) if quick else tuple(STEPS)
