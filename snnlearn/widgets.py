"""Live figures: controls and one picture that follows them while they are dragged.

A :class:`LivePanel` is made of ordinary Jupyter widgets and needs no JavaScript of its own: the controls, one
PNG drawn by matplotlib's Agg, and a line for errors. It is quick because it draws anew only the artists that
move and what lies above them; what lies below (grid, ticks, labels) is kept as pixels until it changes.
"""

from __future__ import annotations

import base64
import html
import math
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from numpy.typing import NDArray
from traitlets import TraitError, Unicode, link

from snnlearn.painting import Painter, Pixels, encode_png

Artists = Mapping[str, Artist | Sequence[Artist]]

CSS_PIXELS_PER_INCH = 100  # at the default dpi one pixel of the picture is one CSS pixel
PLAY_INTERVAL = 150  # ms, about twice what a picture takes from kernel to screen
DIM = 0.3  # of its contrast a picture keeps while the error line says why there is no new one


def coarse_limits(low: float, high: float, step: float) -> tuple[float, float]:
    """The multiples of `step` that enclose [low, high]: limits of an axis that stay put while data move.

    Limits that follow the data exactly have the ticks drawn anew at every picture, and hide growth by rescaling
    it. The result depends on the arguments alone: a slider that comes back brings the same picture back. If
    low and high are the same multiple, high is moved to the next.

    Raises ValueError if a number is not finite, `step` is not positive or `low` exceeds `high`.

    >>> coarse_limits(-0.3, 2.1, 0.5)
    (-0.5, 2.5)
    """
    if not all(math.isfinite(number) for number in (low, high, step)) or step <= 0 or low > high:
        raise ValueError(
            "coarse_limits takes finite numbers, low <= high and step > 0; "
            f"it was given low={low!r}, high={high!r}, step={step!r}"
        )
    # 0.3 / 0.1 is 2.9999999999999996: what lies on a multiple but for rounding belongs to it.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return float(f"{first * step:.12g}"), float(f"{last * step:.12g}")


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _flat(name: str, value: Any, figure: Figure) -> Iterator[Artist]:
    """The artists in one of the values that `draw` returned, each checked."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(name, item, figure)
    elif not isinstance(value, Artist):
        raise TypeError(
            f"draw must return a dict of matplotlib artists, or of sequences of them; {name!r} holds {_kind(value)}"
        )
    elif value.get_figure() is not figure or value not in (value.axes or figure).get_children():
        raise ValueError(
            f"draw returned, as {name!r}, {_kind(value)} that neither an axes of the panel nor its figure draws: "
            "leave out what was removed, and return an artist as a whole (the legend, not a text in it)"
        )
    else:
        yield value


def _stops(control: Any) -> tuple[str, NDArray[Any]]:
    """The trait of a slider that playing it sets, and the values that it is given in turn."""
    if isinstance(control, ipywidgets.SelectionSlider):
        return "index", np.arange(len(control.options))
    if isinstance(control, ipywidgets.IntSlider):
        return "value", np.arange(control.min, control.max + 1, control.step)
    if isinstance(control, ipywidgets.FloatSlider | ipywidgets.FloatLogSlider):
        count = math.floor((control.max - control.min) / control.step + 1e-9) + 1
        stops = np.round(control.min + control.step * np.arange(count), 12)
        return "value", control.base**stops if isinstance(control, ipywidgets.FloatLogSlider) else stops
    raise TypeError(f"play must name a slider of numbers or a SelectionSlider; it names {_kind(control)}")


def _with_play(control: Any) -> ipywidgets.HBox:
    """A slider and a button that animates it, linked in both directions.

    A slow drawing skips steps instead of falling behind: of each widget the front end has one message on its
    way at most, until the kernel has done with it, and of those that wait it keeps the newest.
    """
    trait, stops = _stops(control)
    # Play has the clock, in the front end. Its own buttons have icons but no names, so a named one starts it.
    clock = ipywidgets.Play(max=len(stops) - 1, interval=PLAY_INTERVAL, layout=ipywidgets.Layout(display="none"))
    button = ipywidgets.ToggleButton(
        layout=ipywidgets.Layout(width="6.5em", flex="0 0 auto", margin="2px 12px 2px 2px")
    )

    def nearest() -> int:
        return int(np.abs(stops - getattr(control, trait)).argmin())

    def lead(change: Any) -> None:
        if change["new"] != nearest():
            setattr(control, trait, stops[change["new"]].item())

    def follow(_: Any = None) -> None:
        clock.value = nearest()

    def name(_: Any = None) -> None:
        button.description = button.icon = "pause" if button.value else "play"

    name()
    follow()
    button.observe(name, "value")
    link((button, "value"), (clock, "playing"))
    clock.observe(lead, "value")
    control.observe(follow, trait)
    return ipywidgets.HBox([button, clock, control], layout=ipywidgets.Layout(flex="1 1 400px", max_width="600px"))


class _Picture(ipywidgets.Image):
    """An image with a text alternative, in `tooltip`: it becomes the title attribute, the image's name."""

    # The front end sets the title of widgets without a description only, and fails where there is no such
    # attribute. The Image of ipywidgets has none.
    description = Unicode("").tag(sync=True)


class LivePanel(ipywidgets.VBox):
    """Controls, a picture that follows them, and a line that says what went wrong.

    Args:
        draw: ``draw(axes, artists, **values)``, given the axes (a flat array in reading order), the artists it
            returned last, and the value of each control by name. At the first call `artists` is None: it draws
            everything, labels and limits too. Later calls update. It returns the artists that change often, a
            dict of artists or sequences of artists. Whatever else it changes (limits, ticks, a background) is
            drawn as well, though more slowly: see `coarse_limits`; legends, titles and texts are quick either way.
            The layout is made once, for what the first call has drawn. In JupyterLab it runs in a thread of its
            own, so that sliders answer while a cell runs: settings that PyTorch or NumPy keep for each thread
            (``torch.no_grad``, ``numpy.errstate``) must be set inside it.
        controls: name to widget with a value: slider, dropdown, toggle buttons, checkbox ...
        rows, columns: of axes.
        figsize: in inches, each of 100 CSS pixels.
        dpi: pixels per inch; 200 for sharp pictures on dense screens, at a quarter of the speed.
        alt: what the picture shows, in words, for those who do not see it: a text, or a function of the values.
        play: the name of a slider that gets a button to animate it.

    Raises:
        TypeError: a control has no value, or `draw` did not return such a dict.
        ValueError: no controls, or `play` is none of them. What `draw` raises at its first call is passed on;
            what it raises later is shown under the picture, which is dimmed until a call succeeds.

    >>> def draw(axes, artists, tau):
    ...     t = np.arange(100.0)
    ...     if artists is None:
    ...         axes[0].set(xlabel="time (ms)", ylabel="potential", ylim=(0, 1))
    ...         artists = {"membrane": axes[0].plot(t, t)[0]}
    ...     artists["membrane"].set_ydata(np.exp(-t / tau))
    ...     return artists
    >>> LivePanel(draw, {"tau": ipywidgets.FloatSlider(20, min=5, max=50)}, alt="The potential decays.")
    LivePanel(tau=20.0)
    """

    def __init__(
        self,
        draw: Callable[..., Artists],
        controls: Mapping[str, Any],
        *,
        rows: int = 1,
        columns: int = 1,
        figsize: tuple[float, float] = (9, 3),
        dpi: float = 100,
        alt: str | Callable[..., str] = "",
        play: str | None = None,
    ) -> None:
        if not controls:
            raise ValueError("controls is empty; give at least one widget by name")
        for name, control in controls.items():
            if not isinstance(control, ipywidgets.Widget) or not control.has_trait("value"):
                raise TypeError(f"the control {name!r} must be a widget with a value, not {_kind(control)}")
        if play is not None and play not in controls:
            raise ValueError(f"play must name one of the controls {', '.join(controls)}; it is {play!r}")
        self._controls = dict(controls)
        self._draw = draw
        self._alt = alt
        self._lock = threading.RLock()
        self._held = False
        self._artists: Artists | None = None
        self._error = ""
        self._frames = 0

        self._figure = Figure(figsize=figsize, dpi=dpi, layout="constrained")
        self._axes = self._figure.subplots(rows, columns, squeeze=False).ravel()
        self._painter = Painter(self._figure)
        self._size = tuple(round(CSS_PIXELS_PER_INCH * inches) for inches in figsize)
        layout = ipywidgets.Layout(width=f"{self._size[0]}px", max_width="100%", margin="6px 0 0 0")
        self._picture = _Picture(layout=layout)
        self._error_line = ipywidgets.HTML(layout=ipywidgets.Layout(display="none"))
        moving, text = self._call()
        self._painter.lay_out()
        self._pixels = self._painter.paint(moving)
        self._show(self._pixels, text)

        for name, control in self._controls.items():
            _arrange(name, control)
        row = [_with_play(control) if name == play else control for name, control in self._controls.items()]
        box = ipywidgets.HBox(row, layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))
        super().__init__([box, self._picture, self._error_line])
        for control in self._controls.values():
            control.observe(self._follow, "value")

    @property
    def values(self) -> dict[str, Any]:
        """The value of each control."""
        return {name: control.value for name, control in self._controls.items()}

    @property
    def axes(self) -> NDArray[Any]:
        """The axes, in reading order."""
        return self._axes

    @property
    def figure(self) -> Figure:
        """The figure behind the picture."""
        return self._figure

    @property
    def error(self) -> str:
        """Type and message of the exception that keeps the picture from being drawn; empty if there is none."""
        return self._error

    @property
    def frames(self) -> int:
        """How many pictures have been drawn."""
        return self._frames

    @property
    def redraws(self) -> int:
        """For how many of them the background was drawn anew: the slow ones."""
        return self._painter.redraws

    def png(self) -> bytes:
        """The picture that is shown."""
        return bytes(self._picture.value)

    def set(self, **values: Any) -> None:
        """Give controls new values and draw once.

        Raises ValueError for a name that no control has, or a value that its control does not take as it is;
        the controls then keep their values.
        """
        unknown = [name for name in values if name not in self._controls]
        if unknown:
            raise ValueError(f"no control is called {unknown[0]!r}; there are {', '.join(self._controls)}")
        with self._lock:
            before = self.values
            self._held = True
            try:
                for name, value in values.items():
                    self._give(name, value)
            except ValueError:
                for name in values:
                    self._controls[name].value = before[name]
                raise
            finally:
                self._held = False
            self.refresh()

    def _give(self, name: str, value: Any) -> None:
        control = self._controls[name]
        try:
            control.value = value
        except TraitError as error:
            raise ValueError(f"the control {name!r} does not take {value!r}: {error}") from error
        if control.value != value:  # a bounded number is moved to the nearest bound without a word
            raise ValueError(f"the control {name!r} does not take {value!r}; the nearest is {control.value!r}")

    def refresh(self) -> None:
        """Draw again: for when something else than a control has changed, such as results that `draw` shows."""
        with self._lock:
            try:
                moving, text = self._call()
                self._pixels = self._painter.paint(moving)
            except Exception as error:
                self._show_error(error)
            else:
                self._show(self._pixels, text)

    def _follow(self, _: Any) -> None:
        if not self._held:
            self.refresh()

    def _call(self) -> tuple[list[Artist], str]:
        """Call `draw`: the artists it returned, in one list, and the text alternative."""
        artists = self._draw(self._axes, self._artists, **self.values)
        if not isinstance(artists, Mapping):
            raise TypeError(
                f"draw must return a dict of the artists that move, such as {{'membrane': line}}; "
                f"it returned {_kind(artists)}"
            )
        moving = [artist for name, value in artists.items() for artist in _flat(name, value, self._figure)]
        self._artists = artists
        text = self._alt(**self.values) if callable(self._alt) else self._alt
        if not isinstance(text, str):
            raise TypeError(f"alt must be a text or a function that returns one; it gave {_kind(text)}")
        return moving, text

    def _show(self, pixels: Pixels, text: str) -> None:
        self._frames += 1
        self._put(pixels, text)
        if self._error:
            self._error = ""
            self._error_line.value = ""
            self._error_line.layout.display = "none"

    def _show_error(self, error: Exception) -> None:
        self._error = f"{type(error).__name__}: {error}"
        origin = error.__traceback__
        while origin and origin.tb_frame.f_code.co_filename == __file__:
            origin = origin.tb_next  # how this file came to call `draw` helps nobody
        trace = "".join(traceback.format_exception(type(error), error, origin))
        self._error_line.value = (
            f'<div role="alert" style="color: #c62828; line-height: 1.4">{html.escape(self._error)}'
            f"<details><summary>Traceback</summary><pre>{html.escape(trace)}</pre></details></div>"
        )
        self._error_line.layout.display = None
        self._put((255 - (255 - self._pixels) * DIM).astype(np.uint8), f"No picture: {self._error}")

    def _put(self, pixels: Pixels, text: str) -> None:
        self._text = text
        with self._picture.hold_sync():  # one message
            self._picture.tooltip = text or repr(self)
            self._picture.value = encode_png(pixels)

    def __repr__(self) -> str:
        # A selection's value may be any object; its label is text.
        shown = {name: c.label if c.has_trait("label") else c.value for name, c in self._controls.items()}
        return f"LivePanel({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data = dict(super()._repr_mimebundle_(**kwargs))
        data["text/plain"] = f"{self!r}\n{self._text}".strip()
        data["image/png"] = base64.b64encode(self.png()).decode()  # for readers without a kernel
        width, height = self._size
        return data, {"image/png": {"width": width, "height": height, "alt": self._text}}


def _arrange(name: str, control: Any) -> None:
    """Name a control and give it room, where its author has not."""
    if control.has_trait("description") and not control.description:
        control.description = name
    if control.has_trait("style") and control.style.has_trait("description_width"):
        control.style.description_width = control.style.description_width or "initial"
    if control.has_trait("continuous_update"):
        control.continuous_update = True
    if isinstance(control, ipywidgets.ToggleButtons):
        control.style.button_width = control.style.button_width or "auto"
        control.layout.display, control.layout.align_items, control.layout.grid_gap = "flex", "center", "8px"
    if isinstance(control, ipywidgets.Checkbox):
        control.indent = False
    if control.has_trait("layout") and control.layout.width is None:
        slider = control.has_trait("readout")
        control.layout.width = "auto" if slider else "max-content"
        control.layout.flex = "1 1 300px" if slider else "0 0 auto"
        control.layout.max_width = "450px" if slider else "100%"
        control.layout.margin = control.layout.margin or "2px 16px 2px 2px"
