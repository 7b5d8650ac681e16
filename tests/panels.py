"""What the tests of every lesson check: its panels' controls, its exercises, the figures it shows."""

import inspect
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import ipywidgets
import matplotlib
import numpy as np

from snnlearn.lessons.exercise import Exercise
from snnlearn.widgets import LivePanel

RANDOM = 14  # corners drawn at random, of each kind


def stops(control: Any) -> list:
    """The values of a control at its extremes: all options of a choice, both ends of a slider."""
    if isinstance(control, ipywidgets.Checkbox):
        return [False, True]
    if hasattr(control, "options"):
        return [option[1] if isinstance(option, tuple) else option for option in control.options]
    if isinstance(control, ipywidgets.FloatLogSlider):
        return [control.base**control.min, control.base**control.max]
    return [control.min, control.max]


def other_values(control: Any) -> list:
    """Every extreme that the control does not have now, and a slider's value three steps above its lower end."""
    values = stops(control)
    if isinstance(control, ipywidgets.FloatSlider | ipywidgets.IntSlider):
        values.append(control.min + 3 * control.step)
    return [value for value in values if value != control.value]


def check_controls(panel: LivePanel, alike: Mapping[str, Collection] | None = None) -> None:
    """Each of the other values of each control changes the picture, and returning brings it back, pixel by pixel.

    To be called with warnings as errors, as `check_extremes`.

    Args:
        panel: as it is to be at the start.
        alike: values of a control, by its name, that rightly give the picture of the start.
    """
    alike = alike or {}
    first = panel.png()
    for name, control in panel._controls.items():
        before, values = panel.values[name], other_values(control)
        assert values, f"{name} has one value only"
        for value in values:
            panel.set(**{name: value})
            assert not panel.error, (name, value, panel.error)
            same = value in alike.get(name, ())
            assert (panel.png() == first) is same, f"{name} = {value} changes {'something' if same else 'nothing'}"
            panel.set(**{name: before})
            assert not panel.error, (name, before, panel.error)
            assert panel.png() == first, f"{name} does not come back from {value}"


def corners(panel: LivePanel, seed: int, pairs: bool) -> Iterator[dict[str, Any]]:
    """All controls at extremes: see `check_extremes`. With ``pairs``, also two at a time."""
    draw = np.random.default_rng(seed)
    every = {name: stops(control) for name, control in panel._controls.items()}
    ends = {name: [values[0], values[-1]] for name, values in every.items()}

    def random(choices: dict[str, list]) -> dict[str, Any]:
        return {name: values[draw.integers(len(values))] for name, values in choices.items()}

    yield {name: values[0] for name, values in ends.items()}
    yield {name: values[1] for name, values in ends.items()}
    if 2 ** len(ends) <= RANDOM + 2:
        yield from (dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values()))
    else:
        yield from (random(ends) for _ in range(RANDOM))
    if every != ends:
        yield from (random(every) for _ in range(RANDOM))
    for name, other in itertools.permutations(every, 2) if pairs else ():
        yield from ({name: value, other: end} for value in every[name] for end in ends[other])


def check_extremes(panel: LivePanel, seed: int = 0, pairs: bool = False, gaps: bool = False) -> None:
    """Nothing fails, no text has a "nan" and all that is drawn is finite, with the controls at their extremes.

    That is: all at the lower end; all at the upper; each combination of ends, or `RANDOM` of them where there are
    more; `RANDOM` combinations of ends and choices; and the start again. To be called with warnings as errors, for
    which the tests have a mark, so that it holds while the panel is made, too.

    Args:
        panel: with its controls at the start.
        seed: of the random combinations.
        pairs: besides, each extreme of each control with each end of each other one.
        gaps: lines may be interrupted, with values that are no number.
    """
    for corner in [*corners(panel, seed, pairs), panel.values]:
        panel.set(**corner)
        assert not panel.error, (corner, panel.error)
        assert "nan" not in panel._repr_mimebundle_()[0]["text/plain"].lower(), corner
        for ax in panel.axes:
            for line in ax.lines:
                points = np.asarray(line.get_xydata(), float)
                assert np.isfinite(points[~np.isnan(points)] if gaps else points).all(), corner
            heights = [patch.get_height() for patch in ax.patches if hasattr(patch, "get_height")]
            assert np.isfinite(heights).all(), corner


def check_show(show: Callable[..., None], monkeypatch: Any, alt: str = "a line that rises") -> None:
    """A lesson's ``show`` displays the figure itself, with the text alternative, and closes it."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = []
    monkeypatch.setattr("IPython.display.display", lambda figure, metadata: shown.append((figure, metadata)))
    figure = plt.figure()
    show(figure, alt)
    assert shown == [(figure, {"image/png": {"alt": alt}})]
    assert not plt.fignum_exists(figure.number)


def check_exercise(exercise: Exercise, hints: Collection[int] = (3,)) -> None:
    """The reference passes, the stub waits, one percent off fails; one of these numbers of hints."""

    def stub(*arguments: Any) -> Any:
        raise NotImplementedError

    def off(*arguments: Any) -> Any:
        answer = exercise.solution(*arguments)
        return tuple(1.01 * part for part in answer) if isinstance(answer, tuple) else 1.01 * answer

    assert exercise.verify(exercise.solution) == (True, "correct")
    assert exercise.verify(stub) == (None, "not attempted yet")
    assert exercise.verify(off)[0] is False
    assert len(exercise.hints) in hints
    assert inspect.getsource(exercise.solution).startswith("def ")  # `reveal` shows it


def check_slip(exercise: Exercise, attempt: Callable[..., Any], says: str) -> None:
    """A wrong attempt fails, and the message has these words."""
    passed, message = exercise.verify(attempt)
    assert passed is False
    assert says in message, message
