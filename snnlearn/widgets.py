"""Live figures: controls and one picture that follows them while they are dragged.

A :class:`LivePanel` is made of ordinary Jupyter widgets, so that it needs no JavaScript of its own:
the controls, one PNG drawn by matplotlib's Agg, and a line for errors. It is quick because it draws
anew only the artists that move and whatever lies above them; what lies below (grid, ticks, labels)
is kept as pixels until something in it changes.
"""

from __future__ import annotations

import base64
import html
import math
import struct
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from traitlets import TraitError, Unicode

Pixels = NDArray[np.uint8]
Artists = Mapping[str, Artist | Sequence[Artist]]

# The palette of Okabe and Ito, which readers with any of the common colour vision deficiencies can
# tell apart. Its yellow is left out: it is hardly visible as a line on white.
COLORS: Mapping[str, str] = MappingProxyType(
    {
        "membrane": "#0072B2",
        "spike": "#D55E00",
        "surrogate": "#009E73",
        "threshold": "#000000",
        "current": "#56B4E9",
        "reference": "#CC79A7",
        "accent": "#E69F00",
    }
)

CSS_PIXELS_PER_INCH = 100  # one picture pixel to one CSS pixel at the default dpi
PLAY_INTERVAL = 150  # ms; about twice what a picture takes from kernel to screen


def coarse_limits(low: float, high: float, step: float) -> tuple[float, float]:
    """The multiples of `step` that enclose [low, high]: axis limits that stay put while data move.

    Limits that follow the data exactly make the whole background be drawn at every picture, and hide
    growth by rescaling it. The result depends on the arguments only, so a slider that comes back brings
    the same picture back. A range without extent that lies on a multiple gets one step above it.

    Raises ValueError if a number is not finite, `step` is not positive or `low` exceeds `high`.

    >>> coarse_limits(-0.3, 2.1, 0.5)
    (-0.5, 2.5)
    """
    if not all(math.isfinite(number) for number in (low, high, step)) or step <= 0 or low > high:
        raise ValueError(
            "coarse_limits takes finite low <= high and a step above 0; "
            f"it was given low={low!r}, high={high!r}, step={step!r}"
        )
    # 0.3 / 0.1 is 2.9999999999999996: what lies on a multiple but for rounding belongs to it.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return float(f"{first * step:.12g}"), float(f"{last * step:.12g}")


def encode_png(pixels: Pixels) -> bytes:
    """A PNG of `pixels` (height, width, 3).

    Rows are not filtered and zlib works at level 1: for line drawings that is as small as what general
    encoders make at their level 1, in less than half of the time.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:].reshape(height, width, 3)[...] = pixels

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    image = zlib.compress(rows, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", image) + chunk(b"IEND", b"")


def _in_drawing_order(parent: Figure | Axes) -> Iterator[Artist]:
    """The artists that `parent` draws, those of its axes instead of the axes, lowest first.

    The rules are those of Figure.draw and Axes.draw.
    """
    if not parent.get_visible():
        return
    children = [child for child in parent.get_children() if child is not parent.patch]
    framed = True
    if isinstance(parent, Axes):
        framed = parent.axison and parent.get_frame_on()
        hidden = [] if framed else list(parent.spines.values())
        hidden += [] if parent.axison else [parent.xaxis, parent.yaxis]
        children = [child for child in children if child not in hidden]
    if framed:
        yield parent.patch
    for child in sorted(children, key=Artist.get_zorder):
        if isinstance(child, Axes):
            yield from _in_drawing_order(child)
        else:
            yield child


def _with_parts(artist: Artist) -> Iterator[Artist]:
    yield artist
    for part in artist.get_children():
        yield from _with_parts(part)


def _attributes(artist: Artist) -> dict[str, Any]:
    """What decides how an axis or its label is drawn, in a form that can be compared later."""
    attributes = {name: value for name, value in vars(artist).items() if name not in ("_stale", "_renderer")}
    if isinstance(artist, Text):
        attributes["_fontproperties"] = hash(artist.get_fontproperties())  # changed in place by setters
    if isinstance(artist, Axis):
        major, minor = artist.get_majorticklocs(), artist.get_minorticklocs()
        formatter = artist.get_major_formatter()
        attributes["ticks"] = (
            tuple(artist.get_view_interval()),
            tuple(major),
            tuple(minor),
            tuple(artist.get_transform().transform(major)),
            tuple(formatter.format_ticks(major)),
            formatter.get_offset(),
            tuple(artist.get_minor_formatter().format_ticks(minor)),
        )
    return attributes


def _equal(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Plain values are compared by value; of objects, which setters replace, only the identity counts."""
    plain = (str, int, float, tuple)
    return old.keys() == new.keys() and all(
        value is new[name] or (isinstance(value, plain) and type(value) is type(new[name]) and value == new[name])
        for name, value in old.items()
    )


class _Painter:
    """Paints a figure whose `moving` artists change often and the others seldom.

    A picture is the kept pixels of the artists below all moving ones, and over them, drawn anew in their
    order, the moving artists and everything above: spines, legends, texts. It equals a full drawing of
    the figure, except where a moving artist leaves its axes.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.canvas = FigureCanvasAgg(figure)
        self.redraws = 0
        self._background: Any = None
        self._drawn: tuple[Any, ...] | None = None  # what the background looked like

    def paint(self, moving: Sequence[Artist]) -> Pixels:
        """The picture, (height, width, 3)."""
        # Fonts are shared by all figures, and the front end may call from another thread than the one
        # in which a cell draws; matplotlib's own drawing takes this lock too.
        with self.figure._render_lock:  # type: ignore[attr-defined]
            below, above = self._layers(moving)
            if self._background is None or self._changed(below, above):
                self._redraw(below, above)
            self.canvas.restore_region(self._background)
            renderer = self.canvas.get_renderer()
            for axes in {artist.axes for artist in above if self._is_new_title(artist)}:
                axes.get_tightbbox(renderer, bbox_extra_artists=[])  # puts the titles in their place
            for artist in above:
                artist.draw(renderer)
            # Drawing marks some of what it drew as stale.
            for artist in (*(part for leaf in below for part in _with_parts(leaf)), *above):
                artist.stale = False
            return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()

    @staticmethod
    def _is_new_title(artist: Artist) -> bool:
        return isinstance(artist, Text) and artist.stale and artist.axes is not None and artist not in artist.axes.texts

    def _layers(self, moving: Sequence[Artist]) -> tuple[list[Artist], list[Artist]]:
        """All artists in drawing order, split: those that no moving artist lies below, and the others."""
        boxes = {axes: axes.bbox.frozen() for axes in self.figure.axes}
        whole = self.figure.bbox
        below: list[Artist] = []
        above: list[Artist] = []
        reached: list[Any] = []  # where moving artists lie below what follows
        for artist in _in_drawing_order(self.figure):
            box = boxes.get(artist.axes, whole)
            if artist in moving:
                reached.append(box)
                above.append(artist)
            elif any(box.overlaps(other) for other in reached):
                above.append(artist)
            else:
                below.append(artist)
        return below, above

    def _look(self, below: list[Artist], above: list[Artist]) -> tuple[Any, ...]:
        boxes = [axes.bbox.extents.tolist() for axes in self.figure.axes]
        axis = [axis for axes in self.figure.axes for axis in (axes.xaxis, axes.yaxis)]
        return below, above, boxes, [_attributes(part) for a in axis for part in (a, a.label)]

    def _changed(self, below: list[Artist], above: list[Artist]) -> bool:
        """Whether the background has to be drawn anew.

        matplotlib marks an artist that a setter was called on as stale. That decides, except for figure
        and axes (what they are is the order of their artists and the boxes) and for the axis and its
        label, which calls such as set_xlim and set_xlabel mark though nothing changes: these are compared.
        """
        old, new = self._drawn, self._look(below, above)
        if old is None or old[:3] != new[:3] or not all(map(_equal, old[3], new[3])):
            return True
        compared = {part for axes in self.figure.axes for axis in (axes.xaxis, axes.yaxis) for part in (axis, axis.label)}
        return any(part.stale for artist in below for part in _with_parts(artist) if part not in compared)

    def _redraw(self, below: list[Artist], above: list[Artist]) -> None:
        self._background = None  # stays so if drawing fails
        for artist in below:
            artist.set_animated(False)
        for artist in above:
            artist.set_animated(True)  # which full drawings leave out
        # Axes draw their patch even if it is animated.
        patches = [a.patch for a in self.figure.axes if a.patch in above and a.patch.get_visible()]
        for patch in patches:
            patch.set_visible(False)
        try:
            self.canvas.draw()
        finally:
            for patch in patches:
                patch.set_visible(True)
        self._background = self.canvas.copy_from_bbox(self.figure.bbox)
        self._drawn = self._look(below, above)
        self.redraws += 1
