"""Painting a figure quickly: the part that stays is kept as pixels, the part that moves is drawn over it.

The judge of it all is a full drawing of the same figure: the tests compare the two pixel by pixel.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def encode_png(pixels: Pixels) -> bytes:
    """A PNG of pixels (height, width, 3), packed lightly: time counts for more than size here."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _in_drawing_order(parent: Figure | Axes) -> Iterator[tuple[Artist, Axes | None]]:
    """What `parent` draws, lowest first: artists, each with the axes that draws it, None for the figure.

    The rules are those of Figure.draw and Axes.draw.
    """
    if not parent.get_visible():
        return
    axes = parent if isinstance(parent, Axes) else None
    hidden: list[Artist] = [parent.patch]
    framed = axes is None or (axes.axison and axes.get_frame_on())
    if framed:
        yield parent.patch, axes
    if axes is not None:
        hidden += [] if framed else axes.spines.values()
        hidden += [] if axes.axison else [axes.xaxis, axes.yaxis]
    for child in sorted(parent.get_children(), key=Artist.get_zorder):
        if isinstance(child, Axes):
            yield from _in_drawing_order(child)
        elif child not in hidden:
            yield child, axes


def _with_parts(artist: Artist) -> Iterator[Artist]:
    yield artist
    for part in artist.get_children():
        yield from _with_parts(part)


def _attributes(artist: Artist) -> dict[str, Any]:
    """What decides how an axis, or its label, is drawn, in a form that later changes leave alone."""
    attributes = {name: value for name, value in vars(artist).items() if name not in ("_stale", "_renderer")}
    # Drawing places labels anew, each time with another rounding.
    attributes |= {name: round(value, 6) for name, value in attributes.items() if isinstance(value, float)}
    if isinstance(artist, Text):
        attributes["_fontproperties"] = hash(artist.get_fontproperties())  # setters change it in place
    if isinstance(artist, Axis):
        major, minor = artist.get_majorticklocs().tolist(), artist.get_minorticklocs().tolist()
        formatter = artist.get_major_formatter()
        attributes["ticks"] = (
            *artist.get_view_interval(),
            *major,
            *artist.get_transform().transform(major),
            *minor,
            *formatter.format_ticks(major),
            formatter.get_offset(),
            *artist.get_minor_formatter().format_ticks(minor),
        )
    return attributes


def _equal(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Plain values are compared by value; an object is equal to itself only, since setters replace it."""

    def same(a: Any, b: Any) -> bool:
        return a is b or (type(a) is type(b) and isinstance(a, str | int | float | tuple) and a == b)

    return old.keys() == new.keys() and all(same(value, new[name]) for name, value in old.items())


class Painter:
    """Paints a figure in which some artists move often and the others seldom.

    A picture is the kept pixels of the artists that no moving one lies below, and over them, drawn anew in
    their order, the moving artists and what lies above: spines, legends, texts. So it equals a full drawing of
    the figure, except where a moving artist leaves its axes (clip_on=False).
    """

    def __init__(self, figure: Figure) -> None:
        self.canvas = FigureCanvasAgg(figure)
        self.redraws = 0
        self._figure = figure
        self._axes: list[Axes] = []
        self._background: Any = None
        self._look: tuple[Any, ...] = ()  # what the background was drawn from
        self._parts: list[Artist] = []  # of the background, which matplotlib marks when they change

        # The parser of formulas and the fonts are shared by all figures, and a front end may call from another
        # thread than the one in which a cell draws. This is the lock that Figure.draw takes.
        self._lock = Figure._render_lock  # type: ignore[attr-defined]

    def lay_out(self) -> None:
        """Give everything in the figure its place, once and for all."""
        engine = self._figure.get_layout_engine()
        with self._lock:
            if engine is not None:
                engine.execute(self._figure)
        self._figure.set_layout_engine("none")

    def paint(self, moving: Sequence[Artist]) -> Pixels:
        """The picture, (height, width, 3)."""
        with self._lock:
            below, above = self._layers(set(moving))
            if self._background is None or self._changed(below, above):
                self._redraw(below, above)
            self.canvas.restore_region(self._background)
            renderer = self.canvas.get_renderer()
            for axes in self._axes:
                if any(artist in above and _is_new_title(artist, axes) for artist in axes.get_children()):
                    axes.get_tightbbox(renderer, bbox_extra_artists=[])  # moves titles to their places
            for artist in above:
                artist.draw(renderer)
            for artist in (*self._parts, *above):
                artist.stale = False  # drawing leaves the mark on what is hidden or out of sight
            return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()

    def _layers(self, moving: set[Artist]) -> tuple[list[Artist], list[Artist]]:
        """All artists in drawing order, in two parts: those that no moving artist lies below, and the others."""
        order = list(_in_drawing_order(self._figure))
        boxes = {axes: axes.bbox.frozen() for _, axes in order if axes is not None}
        self._axes = list(boxes)
        below: list[Artist] = []
        above: list[Artist] = []
        reached: set[Axes | None] = set()  # where a moving artist lies below what follows
        for artist, axes in order:
            if artist in moving and axes not in reached:
                box = self._figure.bbox if axes is None else boxes[axes]
                reached |= {other for other in boxes if boxes[other].overlaps(box)} | {axes, None}
            (above if axes in reached else below).append(artist)
        return below, above

    def _compared(self) -> list[Artist]:
        """The artists that setters mark as changed though they are not: set_xlim does, and set_xlabel."""
        return [part for axes in self._axes for axis in (axes.xaxis, axes.yaxis) for part in (axis, axis.label)]

    def _see(self, below: list[Artist], above: list[Artist]) -> tuple[Any, ...]:
        places = [
            (tuple(axes.bbox.extents), axes.get_aspect(), axes.get_box_aspect(), axes.get_anchor())
            for axes in self._axes
        ]
        return below, above, places, [_attributes(artist) for artist in self._compared()]

    def _changed(self, below: list[Artist], above: list[Artist]) -> bool:
        """Whether the background must be drawn anew.

        An axis and its label are compared with what they were; so are, by their place and the order of their
        artists, axes and figure. For all others the mark counts that matplotlib's setters leave.
        """
        old, new = self._look, self._see(below, above)
        same = old[:3] == new[:3] and all(map(_equal, old[3], new[3]))
        return not same or any(part.stale for part in self._parts)

    def _redraw(self, below: list[Artist], above: list[Artist]) -> None:
        self._background = None  # stays so if drawing fails
        # A full drawing leaves out what is animated, except for the patch of axes.
        patches = [axes.patch for axes in self._axes if axes.patch in above and axes.patch.get_visible()]
        for artist in above:
            artist.set_animated(True)
        for patch in patches:
            patch.set_visible(False)
        try:
            self.canvas.draw()
        finally:
            for artist in above:
                artist.set_animated(False)
            for patch in patches:
                patch.set_visible(True)
        self._background = self.canvas.copy_from_bbox(self._figure.bbox)
        self._look = self._see(below, above)
        compared = set(self._compared())
        self._parts = [part for artist in below for part in _with_parts(artist) if part not in compared]
        self.redraws += 1


def _is_new_title(artist: Artist, axes: Axes) -> bool:
    return isinstance(artist, Text) and artist not in axes.texts and artist.stale and bool(artist.get_text())
