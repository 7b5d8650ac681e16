"""A task is a data set with the settings that go with it: how it becomes spikes, on which network, trained how.

Settings were chosen on the validation split, where they were chosen at all; some of the generated tasks took the first
that worked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from snnlearn.tasks import digits as _digits
from snnlearn.tasks import generated as _generated
from snnlearn.tasks import spoken as _spoken
from snnlearn.tasks.base import Loss as Loss
from snnlearn.tasks.base import Task as Task
from snnlearn.tasks.base import linear as linear
from snnlearn.tasks.baselines import baselines as baselines
from snnlearn.tasks.baselines import readout_only as readout_only
from snnlearn.tasks.digits import digits as digits
from snnlearn.tasks.digits import digits_decolle as digits_decolle
from snnlearn.tasks.digits import digits_events as digits_events
from snnlearn.tasks.digits import digits_online as digits_online
from snnlearn.tasks.digits import digits_patterns as digits_patterns
from snnlearn.tasks.digits import digits_trains as digits_trains
from snnlearn.tasks.spoken import spoken as spoken

TASKS: dict[str, Callable[[], Task]] = {"digits": digits, "spoken": spoken, **_generated.TASKS}

# Networks that a task is offered with, as a rule needs them; the first is the one that TASKS has.
PRESETS: dict[str, dict[str, Callable[[str], Task]]] = {
    "spoken": {name: partial(_spoken.suited, preset=name) for name in _spoken.PRESETS}
}

# Rules that need other neurons or another loss than the task's own.
SUITED: dict[str, dict[str, Callable[[], Task]]] = {
    "digits": _digits.SUITED,
    "spoken": _spoken.SUITED,
    **_generated.SUITED,
}


def suited(task: str, rule: str, preset: str | None = None) -> Task:
    """The task by this name, as the rule by that name needs it.

    Args:
        task: one of TASKS.
        rule: the name of a recipe.
        preset: one of the task's PRESETS; None for the one that suits the rule.

    Raises:
        ValueError: the task has no such preset, or the rule does not work on it.
    """
    if preset is None:
        return SUITED.get(task, {}).get(rule, TASKS[task])()
    presets = PRESETS.get(task, {})
    if preset not in presets:
        known = f"it has {', '.join(presets)}" if presets else "it has none"
        raise ValueError(f"the task {task} has no preset {preset!r}; {known}")
    return presets[preset](rule)
