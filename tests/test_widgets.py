"""The live panel without a browser: its pictures are compared, pixel by pixel, with full drawings by matplotlib."""

import base64
import doctest
import io
import threading
import time
from collections.abc import Callable
from typing import Any

import ipywidgets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from PIL import Image

from snnlearn import widgets
from snnlearn.painting import encode_png
from snnlearn.widgets import LivePanel, coarse_limits

T = np.arange(50.0)


def decode(png: bytes) -> np.ndarray:
    """Pixels (height, width, 3) of 0..255."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def shown(panel: LivePanel) -> np.ndarray:
    return decode(panel.png())


def drawn_fully(panel: LivePanel) -> np.ndarray:
    """The panel's figure as matplotlib saves it: all artists, in order, nothing kept from before."""
    file = io.BytesIO()
    panel.figure.savefig(file, format="png", dpi=panel.figure.dpi)
    return decode(file.getvalue())


def assert_right(panel: LivePanel) -> None:
    assert panel.error == ""
    # The picture first: saving clears matplotlib's marks of what has changed.
    np.testing.assert_array_equal(shown(panel), drawn_fully(panel))


def waves(axes: Any, artists: Any, phase: float) -> dict[str, Any]:
    """A half-transparent line (drawn twice it would be darker) in each axes, beneath a legend."""
    if artists is None:
        artists = {"wave": [ax.plot(T, T, lw=3, alpha=0.5, label="wave")[0] for ax in axes]}
        for ax in axes:
            ax.set(xlim=(0, 49), ylim=(-1, 1), xlabel="time (ms)", ylabel="potential", title="wave")
            ax.legend(loc="upper right")
    for i, line in enumerate(artists["wave"]):
        line.set_ydata(np.sin(T / 5 + phase + i))
    return artists


def make(draw: Callable[..., Any] = waves, **kwargs: Any) -> LivePanel:
    controls = {"phase": ipywidgets.FloatSlider(0, min=0, max=6, step=0.1)}
    return LivePanel(draw, **{"controls": controls, "columns": 2, "figsize": (5, 2.2), "dpi": 60, **kwargs})


# The picture follows the controls.


def test_a_slider_changes_the_picture_and_brings_it_back() -> None:
    panel = make()
    assert_right(panel)
    before = panel.png()
    panel.set(phase=1.3)
    assert_right(panel)
    assert panel.png() != before
    panel.set(phase=0)
    assert panel.png() == before


def test_a_control_moved_by_the_reader_draws() -> None:
    control = ipywidgets.FloatSlider(0, min=0, max=6)
    panel = make(controls={"phase": control})
    moved = make()
    moved.set(phase=2)
    control.value = 2
    assert panel.png() == moved.png()
    assert panel.values == {"phase": 2}


def test_set_draws_once_for_several_controls() -> None:
    calls = []

    def draw(axes: Any, artists: Any, **values: float) -> dict[str, Any]:
        calls.append(values)
        return artists or {"line": axes[0].plot(T, T)[0]}

    panel = make(draw, controls={name: ipywidgets.IntSlider(0) for name in "ab"})
    panel.set(a=3, b=4)
    assert calls == [{"a": 0, "b": 0}, {"a": 3, "b": 4}]
    assert panel.frames == 2


def test_refresh_shows_what_changed_elsewhere() -> None:
    height = [0.0]

    def draw(axes: Any, artists: Any, phase: float) -> dict[str, Any]:
        artists = waves(axes, artists, phase)
        artists["wave"][0].set_ydata(np.full(50, height[0]))
        return artists

    panel = make(draw)
    before = panel.png()
    height[0] = 0.5
    panel.refresh()
    assert_right(panel)
    assert panel.png() != before


def test_one_message_per_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = make(alt=lambda phase: f"A wave of phase {phase:g}.")
    messages: list[Any] = []
    monkeypatch.setattr(widgets._Picture, "_send", lambda self, msg, buffers=None: messages.append(msg["state"]))
    panel.set(phase=1)
    assert [set(state) for state in messages] == [{"tooltip"}]  # value travels as a buffer beside it


def test_callbacks_from_two_threads_do_not_overlap() -> None:
    """JupyterLab runs the callbacks of widgets in another thread than the cells."""
    inside, overlaps = [0], [0]

    def draw(axes: Any, artists: Any, a: int, b: int) -> dict[str, Any]:
        inside[0] += 1
        overlaps[0] += inside[0] > 1
        time.sleep(0.01)
        inside[0] -= 1
        artists = artists or {"line": axes[0].plot([0, 1], [0, 1])[0]}
        artists["line"].set_ydata([a, b])
        return artists

    controls = {name: ipywidgets.IntSlider(0) for name in "ab"}
    panel = make(draw, controls=controls)

    def drag(control: ipywidgets.IntSlider) -> None:
        for value in range(1, 8):
            control.value = value

    threads = [threading.Thread(target=drag, args=[control]) for control in controls.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [0]
    assert_right(panel)
    assert panel.frames == 15


# Whatever changes, the picture is what a full drawing shows.


def tick_label(axes: Any, on: bool) -> None:
    axes[0].get_xticklabels()[1].set_color("red" if on else "black")


def scale(axes: Any, on: bool) -> None:
    axes[0].set_xscale("symlog" if on else "linear")
    axes[0].set_xlim(0, 49)


def linear_threshold(axes: Any, on: bool) -> None:
    axes[0].set_xscale("symlog", linthresh=5 if on else 1)
    axes[0].set_xlim(0, 49)


def ticks(axes: Any, on: bool) -> None:
    axes[0].set_xticks([10, 30] if on else [0, 20, 40])


def tick_texts(axes: Any, on: bool) -> None:
    axes[0].set_xticks([0, 20, 40], labels=["a", "b", "c"] if on else ["0", "20", "40"])


def minor_ticks(axes: Any, on: bool) -> None:
    (axes[0].minorticks_on if on else axes[0].minorticks_off)()


def locator_in_place(axes: Any, on: bool) -> None:
    axes[0].yaxis.get_major_locator().set_params(nbins=3 if on else 9)


def formatter_that_looks_elsewhere(axes: Any, on: bool) -> None:
    unit = axes[0].__dict__.setdefault("test_unit", [""])
    if not unit[0] and not isinstance(axes[0].yaxis.get_major_formatter(), FuncFormatter):
        axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}{unit[0]}")
    unit[0] = "m" if on else ""


def offset_text(axes: Any, on: bool) -> None:
    axes[0].set_ylim(-1, 1e6 if on else 1)


def axis_label_font(axes: Any, on: bool) -> None:
    axes[0].xaxis.label.set_fontsize(14 if on else 10)


def label_pad(axes: Any, on: bool) -> None:
    axes[0].yaxis.labelpad = -8 if on else 4


def off(axes: Any, on: bool) -> None:
    (axes[0].set_axis_off if on else axes[0].set_axis_on)()


def legend_entry(axes: Any, on: bool) -> None:
    axes[0].get_legend().get_texts()[0].set_text("changed" if on else "wave")


def legend_comes_and_goes(axes: Any, on: bool) -> None:
    legend = axes[0].get_legend()
    if on and legend is not None:
        legend.remove()
    elif not on and legend is None:
        axes[0].legend(loc="upper right")


def legend_where_it_fits(axes: Any, on: bool) -> None:
    axes[0].legend(loc="best" if on else "upper right")


def text_in_axes(axes: Any, on: bool) -> None:
    if not axes[0].texts:
        axes[0].text(5, 0, "")
    axes[0].texts[0].set_text("here" if on else "")


def annotation(axes: Any, on: bool) -> None:
    if not axes[0].texts:
        axes[0].annotate("x", (5, 0), (20, 0.5), arrowprops={"arrowstyle": "->"})
    axes[0].texts[0].xy = (5, 0) if not on else (30, -0.5)


def text_below(axes: Any, on: bool) -> None:
    if not axes[0].texts:
        axes[0].text(5, 0, "", zorder=1)
    axes[0].texts[0].set_text("below" if on else "")


def span_below(axes: Any, on: bool) -> None:
    if not axes[0].patches:
        axes[0].axhspan(0, 0.5, color="orange", zorder=1)
    axes[0].patches[0].set_visible(on)


def background_line(axes: Any, on: bool) -> None:
    lines = [line for line in axes[0].lines if line.get_gid() == "below"] or axes[0].plot(T, T, zorder=1.9, gid="below")
    lines[0].set_ydata(np.full(50, 0.5 if on else -0.5))


def image_below(axes: Any, on: bool) -> None:
    if not axes[0].images:
        axes[0].imshow([[0, 1], [2, 3]], extent=(0, 49, -1, 1), aspect="auto")
    axes[0].images[0].set_clim(0, 3 if on else 9)


def add_background_artist(axes: Any, on: bool) -> None:
    if on:
        axes[0].axvspan(10, 20, color="yellow", zorder=0.5)
    for patch in [] if on else list(axes[0].patches):
        patch.remove()


def box(axes: Any, on: bool) -> None:
    x0, _, width, height = axes[1].get_position().bounds
    axes[1].set_position((x0, 0.3 if on else 0.2, width, height))


def suptitle(axes: Any, on: bool) -> None:
    axes[0].figure.suptitle("all of them" if on else "", y=0.6)


def figure_text(axes: Any, on: bool) -> None:
    if not axes[0].figure.texts:
        axes[0].figure.text(0.3, 0.5, "")
    axes[0].figure.texts[0].set_text("note" if on else "")


def figure_legend(axes: Any, on: bool) -> None:
    if not axes[0].figure.legends:
        axes[0].figure.legend([Line2D([], [])], ["all"], loc="center")
    axes[0].figure.legends[0].set_visible(on)


def ticks_on_top(axes: Any, on: bool) -> None:
    (axes[0].xaxis.tick_top if on else axes[0].xaxis.tick_bottom)()


def title_over_ticks_on_top(axes: Any, on: bool) -> None:
    if axes[0].xaxis.get_ticks_position() != "top":
        axes[0].xaxis.tick_top()
    axes[0].set_title("another" if on else "wave")


def change(name: str, off: Any, on: Any) -> Any:
    """Call the setter of the first axes."""

    def act(axes: Any, is_on: bool) -> None:
        getattr(axes[0], name)(**(on if is_on else off))

    act.__name__ = name + "_" + "_".join(on)
    return act


# Each with whether the change is in the background, and hence has to draw it anew.
CHANGES = [
    (change("set_xlim", {"left": 0}, {"left": -20}), True),
    (change("set_ylim", {"bottom": -1, "top": 1}, {"bottom": 1, "top": -1}), True),
    (scale, True),
    (linear_threshold, True),
    (ticks, True),
    (tick_texts, True),
    (tick_label, True),
    (change("tick_params", {"colors": "black"}, {"colors": "red"}), True),
    (change("tick_params", {"pad": 3}, {"pad": 9}), True),
    (change("tick_params", {"labelleft": True}, {"labelleft": False}), True),
    (minor_ticks, True),
    (locator_in_place, True),
    (formatter_that_looks_elsewhere, True),
    (offset_text, True),
    (change("grid", {"visible": False}, {"visible": True}), True),
    (change("set_axisbelow", {"b": "line"}, {"b": False}), True),
    (change("set_xlabel", {"xlabel": "time (ms)"}, {"xlabel": "step"}), True),
    (change("set_ylabel", {"ylabel": "potential", "color": "black"}, {"ylabel": "potential", "color": "blue"}), True),
    (axis_label_font, True),
    (label_pad, True),
    (off, True),
    (change("set_visible", {"b": True}, {"b": False}), True),
    (change("set_frame_on", {"b": True}, {"b": False}), True),
    (change("set_facecolor", {"color": "white"}, {"color": "lightgrey"}), True),
    (change("set_aspect", {"aspect": "auto"}, {"aspect": 10}), True),
    (change("set_anchor", {"anchor": "C"}, {"anchor": "C"}), False),
    (text_below, True),
    (span_below, True),
    (background_line, True),
    (image_below, True),
    (add_background_artist, True),
    (box, True),
    (ticks_on_top, True),
    (change("set_title", {"label": "wave"}, {"label": "another"}), False),
    (change("set_title", {"label": "wave"}, {"label": r"$\frac{\frac{a}{b}}{\frac{c}{d}}$"}), False),
    (title_over_ticks_on_top, False),
    (legend_entry, False),
    (legend_comes_and_goes, True),
    (legend_where_it_fits, True),
    (text_in_axes, False),
    (annotation, False),
    (suptitle, False),
    (figure_text, False),
    (figure_legend, False),
]


@pytest.mark.parametrize(("act", "in_background"), CHANGES, ids=lambda value: getattr(value, "__name__", None))
def test_a_change_beside_the_moving_artists_is_drawn(act: Callable[[Any, bool], None], in_background: bool) -> None:
    def draw(axes: Any, artists: Any, phase: float, on: bool) -> dict[str, Any]:
        artists = waves(axes, artists, phase)
        act(axes, on)
        return artists

    controls = {"phase": ipywidgets.FloatSlider(0, min=0, max=6), "on": ipywidgets.Checkbox(False)}
    panel = make(draw, controls=controls)
    assert_right(panel)
    panel.refresh()  # saving has marked artists as changed
    before, redraws = panel.png(), panel.redraws
    panel.set(on=True)
    assert (panel.redraws > redraws) == in_background
    assert_right(panel)
    if act.__name__ != "set_anchor_anchor":  # the control: a setter that changes nothing
        assert panel.png() != before
    panel.set(phase=1)
    assert_right(panel)
    panel.set(phase=0, on=False)
    assert_right(panel)
    assert panel.png() == before


def test_setters_that_change_nothing_do_not_redraw() -> None:
    def draw(axes: Any, artists: Any, phase: float) -> dict[str, Any]:
        artists = waves(axes, artists, phase)
        for ax in axes:
            ax.set(xlim=(0, 49), ylim=coarse_limits(-0.9 - phase / 100, 0.9, 1), xlabel="time (ms)", title="wave")
            ax.set_xscale(ax.get_xscale()) if phase > 5 else None  # a new scale is taken for another
        return artists

    panel = make(draw)
    for phase in (1, 2, 3):
        panel.set(phase=phase)
    assert (panel.frames, panel.redraws) == (4, 1)
    panel.set(phase=5.5)
    assert panel.redraws == 2


def test_the_background_is_drawn_again_after_a_picture_that_failed() -> None:
    def draw(axes: Any, artists: Any, phase: float) -> dict[str, Any]:
        artists = waves(axes, artists, phase)
        if phase == 1:  # half of the background is drawn before the formula fails
            axes[0].figure.set_facecolor("lightgrey")
        axes[0].set_xlabel("$\\nonsense$" if phase == 1 else "time (ms)")
        return artists

    panel = make(draw)
    panel.set(phase=1)
    assert "nonsense" in panel.error
    panel.set(phase=0)
    assert_right(panel)


# Layers and places.


def test_a_moving_line_passes_beneath_the_legend_unless_its_zorder_is_higher() -> None:
    def draw(axes: Any, artists: Any, on: bool) -> dict[str, Any]:
        if artists is None:
            artists = {"line": axes[0].plot(T, T, lw=4, color="red", label="line")[0]}
            axes[0].legend(loc="center", framealpha=1)
        artists["line"].set_zorder(9 if on else 2)
        return artists

    panel = make(draw, controls={"on": ipywidgets.Checkbox(False)}, columns=1)
    assert_right(panel)
    beneath = (shown(panel) == (255, 0, 0)).all(-1).sum()
    panel.set(on=True)
    assert_right(panel)
    assert (shown(panel) == (255, 0, 0)).all(-1).sum() > beneath


def twins(axes: Any) -> list[Line2D]:
    other = axes[0].twinx()
    other.set_ylim(0, 50)
    other.grid(True, color="black", lw=3)
    other.patch.set(visible=True, alpha=0.3)
    return [axes[0].plot(T, T)[0], other.plot(T, T)[0]]


def inset(axes: Any) -> list[Line2D]:
    inner = axes[0].inset_axes((0.2, 0.3, 0.5, 0.5), alpha=0.5)
    inner.patch.set_alpha(0.5)
    axes[0].set_title("outer")
    return [axes[0].plot(T, T, lw=3)[0], inner.plot(T, T)[0]]


def added_axes(axes: Any) -> list[Line2D]:
    over = axes[0].figure.add_axes((0.3, 0.3, 0.5, 0.5))
    over.set_title("over")
    return [axes[0].plot(T, T, lw=3)[0], over.plot(T, T)[0]]


def touching(axes: Any) -> list[Line2D]:
    axes[0].figure.get_layout_engine().set(wspace=0, hspace=0, w_pad=0)
    axes[1].set_yticks([])
    return [ax.plot(T, T, lw=9)[0] for ax in axes]


def patches_beneath_the_axis(axes: Any) -> list[Any]:
    axes[0].grid(True, lw=3)
    return [axes[0].plot(T, T)[0], axes[1].plot(T, T)[0], axes[1].fill_between(T, T), axes[0].bar([0, 9], [30, 30])]


@pytest.mark.parametrize("place", [twins, inset, added_axes, touching, patches_beneath_the_axis])
def test_axes_over_others_are_drawn_in_order(place: Callable[[Any], list[Any]]) -> None:
    def draw(axes: Any, artists: Any, phase: float) -> dict[str, Any]:
        artists = artists or {"lines": place(axes)}
        for line in artists["lines"][:2]:
            line.set_ydata(25 + 20 * np.sin(T / 5 + phase))
        return artists

    panel = make(draw)
    assert_right(panel)
    before = panel.png()
    panel.set(phase=2)
    assert_right(panel)
    assert panel.png() != before


def test_an_image_moves_beneath_the_axis() -> None:
    x = np.linspace(-1, 1, 20)

    def draw(axes: Any, artists: Any, phase: float) -> dict[str, Any]:
        artists = artists or {"image": axes[0].imshow(np.zeros((20, 20)), vmin=-1, vmax=1)}
        artists["image"].set_data(np.sin(5 * x[:, None] + x + phase))
        if phase > 1:
            axes[0].set_axis_off()
        return artists

    panel = make(draw, columns=1)
    panel.set(phase=1)
    assert_right(panel)
    panel.set(phase=2)
    assert_right(panel)


def test_texts_titles_and_legends_may_be_among_the_moving() -> None:
    def draw(axes: Any, artists: Any, phase: float) -> dict[str, Any]:
        if artists is None:
            artists = waves(axes, None, phase)
            title = axes[0].figure.suptitle("0")
            artists |= {"title": axes[0].title, "all": title, "legend": axes[0].get_legend(), "bars": axes[1].bar(T, T)}
        waves(axes, artists, phase)
        artists["title"].set_text(f"phase {phase:g}")
        artists["all"].set_text(f"{phase:g}")
        artists["bars"][3].set_height(phase)
        return artists

    panel = make(draw)
    panel.set(phase=2)
    assert_right(panel)
    assert panel.redraws == 1


def test_an_artist_returned_later_or_no_more_changes_its_layer() -> None:
    def draw(axes: Any, artists: Any, count: int) -> dict[str, Any]:
        lines = list(artists["lines"]) if artists else []
        for i in range(len(lines), count):
            lines.append(axes[0].plot(T, T + 9 * i, color="red", alpha=0.5)[0])
        for line in lines[count:]:
            line.remove()
        axes[0].set(xlim=(0, 50), ylim=(0, 90))  # limits found by themselves would remember what was removed
        return {"lines": lines[:count]}

    panel = make(draw, controls={"count": ipywidgets.IntSlider(1, min=0, max=4)})
    pictures = {1: panel.png()}
    for count in (3, 2, 4, 0, 1):
        panel.set(count=count)
        assert_right(panel)
        assert pictures.setdefault(count, panel.png()) == panel.png()
    assert len(set(pictures.values())) == 5


def test_an_artist_no_longer_returned_stays_in_the_background() -> None:
    def draw(axes: Any, artists: Any, on: bool) -> dict[str, Any]:
        lines = axes[0].lines or axes[0].plot(T, T, T, -T, alpha=0.5)
        return {"lines": list(lines)[: 1 + on]}

    panel = make(draw, controls={"on": ipywidgets.Checkbox(True)})
    before = panel.png()
    panel.set(on=False)
    assert_right(panel)
    assert panel.png() == before


# The strongest test: no sequence of changes leaves a trace.


def many(axes: Any, artists: Any, phase: float, top: int, words: str, log: bool, extra: bool) -> dict[str, Any]:
    """Changes a bit of everything, in ways that leave the layout of the first call as it is."""
    artists = dict(waves(axes, artists, phase))
    axes[1].set_title("$2^2$", fontsize="xx-large")  # makes room for the other titles too
    axes[0].set_ylim(-1, top)
    axes[0].set_yticks([-1, 0, 1])
    axes[1].set_xscale("symlog" if log else "linear")
    axes[1].set_xticks([0, 10, 40], labels=["0", "10", ""])
    axes[1].set_xlim(0, 49)
    axes[0].set_title(words)
    axes[1].get_legend().get_texts()[0].set_text(words)
    for line in artists.pop("extra", []):
        line.remove()
    if extra:
        artists["extra"] = axes[1].plot(T, np.cos(T), color="black")
    axes[0].grid(extra)
    return artists


def fresh(**values: Any) -> LivePanel:
    selection = ipywidgets.Dropdown(options=["one", "two", "$x^2$"], value=values.get("words", "one"))
    numbers = {
        "phase": ipywidgets.FloatSlider(values.get("phase", 0)),
        "top": ipywidgets.IntSlider(values.get("top", 1)),
    }
    switches = {name: ipywidgets.Checkbox(values.get(name, False)) for name in ("log", "extra")}
    return LivePanel(many, numbers | {"words": selection} | switches, columns=2, figsize=(4, 2), dpi=50)


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.integers(0, 6).map(float),
        "top": st.integers(1, 3),
        "words": st.sampled_from(["one", "two", "$x^2$"]),
        "log": st.booleans(),
        "extra": st.booleans(),
    },
)


@settings(max_examples=8, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=5))
def test_after_any_changes_the_picture_is_that_of_a_fresh_panel(sequence: list[dict[str, Any]]) -> None:
    panel = fresh()
    for values in sequence:
        panel.set(**values)
    expected = fresh(**panel.values)
    assert panel.png() == expected.png()
    assert_right(panel)


# Errors are shown in place.


def fails_above_2(axes: Any, artists: Any, phase: float) -> dict[str, Any]:
    if phase > 2:
        raise ArithmeticError(f"<b>{phase}</b> is too much")
    return waves(axes, artists, phase)


def test_an_error_dims_the_picture_and_the_next_good_value_brings_it_back() -> None:
    panel = make(fails_above_2, alt="waves")
    good = shown(panel).astype(int)
    before = panel.png()
    panel.set(phase=3)
    assert panel.error == "ArithmeticError: <b>3.0</b> is too much"
    line = panel.children[2]
    assert line.layout.display is None
    assert "ArithmeticError: &lt;b&gt;3.0&lt;/b&gt;" in line.value
    assert "<b>" not in line.value
    assert "fails_above_2" in line.value.split("<details>")[1]
    assert "in _call" not in line.value
    dimmed = shown(panel)
    np.testing.assert_allclose(255 - dimmed.astype(float), 0.3 * (255 - good), atol=1)
    assert "too much" in panel._repr_mimebundle_()[0]["text/plain"]

    panel.set(phase=5)
    np.testing.assert_array_equal(shown(panel), dimmed)
    panel.set(phase=0)
    assert panel.error == ""
    assert line.value == ""
    assert line.layout.display == "none"
    assert panel.png() == before


def test_an_error_at_the_first_call_is_raised() -> None:
    with pytest.raises(ArithmeticError, match="too much"):
        make(fails_above_2, controls={"phase": ipywidgets.FloatSlider(3)})


def returns(what: Callable[[Any], Any]) -> Callable[..., Any]:
    """A draw function that returns something else once the slider has moved."""

    def draw(axes: Any, artists: Any, phase: float) -> Any:
        return waves(axes, artists, 0) if phase == 0 else what(axes)

    return draw


def a_removed_line(axes: Any) -> dict[str, Any]:
    line = axes[0].plot(T, T)[0]
    line.remove()
    return {"line": line}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda axes: None, "TypeError: draw must return a dict .* returned a NoneType"),
        (lambda axes: axes[0].lines[0], "TypeError: draw must return a dict .* returned a Line2D"),
        (lambda axes: {"line": 3}, "TypeError: .* 'line' holds an int"),
        (lambda axes: {"lines": [[axes[0].lines[0], None]]}, "TypeError: .* 'lines' holds a NoneType"),
        (lambda axes: {"text": axes[0].get_legend().get_texts()[0]}, "ValueError: .* 'text', a Text that neither"),
        (a_removed_line, "ValueError: .* 'line', a Line2D .* leave out what was removed"),
        (lambda axes: {"line": waves(make().axes, None, 0)["wave"]}, "ValueError: .* 'line'"),
    ],
)
def test_what_draw_must_not_return(what: Callable[[Any], Any], message: str) -> None:
    panel = make(returns(what))
    good = panel.png()
    panel.set(phase=1)
    with pytest.raises(AssertionError, match=message):
        assert not panel.error, panel.error
    panel.set(phase=0)
    assert panel.error == ""
    assert panel.png() == good or what is a_removed_line


# In words.


def test_the_text_alternative_is_the_title_of_the_image_and_follows_the_values() -> None:
    panel = make(alt=lambda phase: f"A wave of phase {phase:g}.")
    image = panel.children[1]
    assert image.tooltip == "A wave of phase 0."
    panel.set(phase=2)
    assert image.tooltip == "A wave of phase 2."
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == "LivePanel(phase=2.0)\nA wave of phase 2."
    assert metadata["image/png"]["alt"] == "A wave of phase 2."


def test_the_front_end_finds_the_description_without_which_it_refuses_titles() -> None:
    assert make().children[1].get_state()["description"] == ""


def test_without_words_the_image_is_named_after_the_values() -> None:
    assert make().children[1].tooltip == "LivePanel(phase=0.0)"


def test_an_error_in_the_words_is_shown() -> None:
    panel = make(alt=lambda phase: "no" if phase == 0 else f"{1 / (phase - 1)}" if phase < 2 else phase)
    panel.set(phase=1)
    assert panel.error == "ZeroDivisionError: float division by zero"
    panel.set(phase=2)
    assert panel.error == "TypeError: alt must be a text or a function that returns one; it gave a float"
    panel.set(phase=0)
    assert panel.error == ""


def test_the_bundle_is_a_widget_a_picture_and_a_text_that_two_runs_share() -> None:
    class Kind:
        """Its repr has an address."""

    def build() -> LivePanel:
        controls = {"phase": ipywidgets.FloatSlider(1.5), "kind": ipywidgets.Dropdown(options=[("one", Kind())])}
        return make(lambda axes, artists, phase, kind: waves(axes, artists, phase), controls=controls, alt="waves")

    (data, metadata), (again, _) = build()._repr_mimebundle_(), build()._repr_mimebundle_()
    view = "application/vnd.jupyter.widget-view+json"
    assert data.pop(view) != again.pop(view)
    assert data == again
    assert data["text/plain"] == "LivePanel(phase=1.5, kind='one')\nwaves"
    assert decode(base64.b64decode(data["image/png"])).shape == (132, 300, 3)
    assert metadata["image/png"] == {"width": 500, "height": 220, "alt": "waves"}


# Controls.


def test_names_of_controls() -> None:
    controls = {"phase": ipywidgets.FloatSlider(0), "gain": ipywidgets.FloatSlider(1, description="gain (mV)")}
    panel = make(lambda axes, artists, phase, gain: waves(axes, artists, phase), controls=controls)
    assert [control.description for control in controls.values()] == ["phase", "gain (mV)"]
    with pytest.raises(ValueError, match=r"'phse'.*phase, gain"):
        panel.set(phse=1)


@pytest.mark.parametrize(("kind", "word"), [(9, "nearest is 6"), ("much", "does not take 'much'")])
def test_set_refuses_what_a_control_does_not_take(kind: Any, word: str) -> None:
    controls = {"phase": ipywidgets.FloatSlider(1, max=6), "other": ipywidgets.IntSlider(0)}
    panel = make(lambda axes, artists, phase, other: waves(axes, artists, phase), controls=controls)
    before = panel.png()
    with pytest.raises(ValueError, match=word):
        panel.set(other=3, phase=kind)
    assert panel.values == {"phase": 1, "other": 0}
    assert (panel.png(), panel.frames) == (before, 1)
    panel.set(phase=2)
    assert panel.frames == 2


def test_controls_that_are_none() -> None:
    with pytest.raises(ValueError, match="controls is empty"):
        make(controls={})
    with pytest.raises(TypeError, match="'phase' must be a widget with a value, not an int"):
        make(controls={"phase": 3})
    with pytest.raises(TypeError, match="not a VBox"):
        make(controls={"phase": ipywidgets.VBox()})


def test_sliders_answer_while_dragged_and_keep_the_width_their_author_gave() -> None:
    narrow = ipywidgets.IntSlider(0, continuous_update=False, layout={"width": "99px"})
    wide = ipywidgets.IntSlider(0)
    make(lambda axes, artists, a, b: waves(axes, artists, a), controls={"a": narrow, "b": wide})
    assert narrow.continuous_update
    assert (narrow.layout.width, wide.layout.width) == ("99px", "auto")


@pytest.mark.parametrize(
    ("control", "step", "value"),
    [
        (ipywidgets.IntSlider(4, min=0, max=10, step=2), 3, 6),
        (ipywidgets.FloatSlider(0.1, min=0, max=1, step=0.1), 3, 0.3),
        (ipywidgets.FloatLogSlider(1, base=10, min=-2, max=2, step=1), 3, 10.0),
        (ipywidgets.SelectionSlider(options=[("a", 1), ("b", 5), ("c", 3), ("d", 4)]), 2, 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_play_steps_through_the_slider_and_follows_it(control: Any, step: int, value: Any) -> None:
    first = control.value
    panel = make(controls={"phase": control}, play="phase")
    button, clock, slider = panel.children[0].children[0].children
    assert slider is control
    assert type(clock) is ipywidgets.Play
    at_first = clock.value
    clock.value = step
    assert control.value == value
    assert panel.values == {"phase": value}
    assert panel.frames == 2
    clock.value = clock.max
    assert panel.frames == 3
    control.value = first
    assert clock.value == at_first
    assert clock.interval >= 100  # ms: the front end draws at 10 pictures a second at most

    button.value = True
    assert clock.playing
    assert button.description == "pause"
    clock.playing = False  # as the front end does at the end
    assert (button.value, button.description) == (False, "play")


def test_play_does_not_move_a_slider_that_stands_between_two_stops() -> None:
    control = ipywidgets.FloatSlider(0.14, min=0, max=1, step=0.1)
    panel = make(controls={"phase": control}, play="phase")
    control.value = 0.26
    assert panel.values == {"phase": 0.26}


def test_play_names_a_slider() -> None:
    with pytest.raises(ValueError, match="one of the controls phase; it is 'time'"):
        make(play="time")
    with pytest.raises(TypeError, match="names a Dropdown"):
        make(controls={"phase": ipywidgets.Dropdown(options=[1, 2])}, play="phase")


# Helpers.


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (64, 48)])
def test_png(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode_png(pixels)), pixels)


def test_a_picture_is_no_larger_than_a_general_encoder_makes_it() -> None:
    png = make(figsize=(9, 3), dpi=100, columns=3).png()
    file = io.BytesIO()
    Image.fromarray(decode(png)).save(file, "png", compress_level=1)
    assert len(png) < 1.1 * file.tell()


def test_the_size_on_screen_does_not_depend_on_the_resolution() -> None:
    sharp = make(figsize=(4, 2), dpi=200)
    assert shown(sharp).shape == (400, 800, 3)
    assert sharp.children[1].layout.width == "400px"


numbers = st.floats(-1e6, 1e6)
steps = st.sampled_from([0.001, 0.1, 0.3, 0.5, 1, 2, 25])


@given(numbers, numbers, steps)
def test_coarse_limits_enclose_the_data_closely(a: float, b: float, step: float) -> None:
    low, high = coarse_limits(min(a, b), max(a, b), step)
    slack = 1e-6 * step + 1e-11 * max(abs(low), abs(high))
    assert low - slack <= min(a, b) < low + step + slack
    assert high - step - slack <= max(a, b) <= high + slack
    assert high - low >= step - slack
    for limit in (low, high):
        assert limit == pytest.approx(round(limit / step) * step, rel=1e-9, abs=1e-12)


def test_coarse_limits_by_hand() -> None:
    assert coarse_limits(0.3, 0.6, 0.1) == (0.3, 0.6)
    assert coarse_limits(0.31, 0.61, 0.1) == (0.3, 0.7)
    assert coarse_limits(2, 2, 1) == (2, 3)
    assert coarse_limits(-0.2, -0.1, 5) == (-5, 0)


@pytest.mark.parametrize("arguments", [(1, 0, 1), (0, 1, 0), (0, 1, -1), (0, float("nan"), 1), (0, float("inf"), 1)])
def test_coarse_limits_refuse(arguments: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="low <= high and step > 0"):
        coarse_limits(*arguments)


def test_examples_in_the_docstrings() -> None:
    result = doctest.testmod(widgets)
    assert result.attempted >= 3
    assert result.failed == 0
