"""The numbers behind the enumerators of lif.h."""

from __future__ import annotations

import enum


class Reset(enum.IntEnum):
    """What is left of the membrane after a spike."""

    SUBTRACT = 0
    SUBTRACT_DECAYED = 1
    TO_ZERO = 2
    TO_ZERO_WITH_INPUT = 3
    NONE = 4


class Bound(enum.IntEnum):
    """Where a lower bound on the membrane acts."""

    NONE = 0
    BEFORE_INPUT = 1
    AFTER_INPUT = 2


class Fire(enum.IntEnum):
    """When there is a spike."""

    REACH = 0
    EXCEED = 1
    COUNT = 2
    ANALOG = 3


class Slope(enum.IntEnum):
    """The shape of the surrogate derivative."""

    PIECEWISE_LINEAR = 0
    FAST_SIGMOID = 1
    EXPONENTIAL = 2
    BOXCAR = 3
    SIGMOID = 4
    ARC_TAN = 5
    GAUSSIAN = 6
    STRAIGHT = 7


class Seen(enum.IntEnum):
    """What a gradient sees of the reset."""

    KEPT = 0
    DETACHED = 1
    IGNORED = 2
