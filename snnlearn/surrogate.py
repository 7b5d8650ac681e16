"""What replaces the derivative of the step: surrogate derivatives (tutorial Sec. IV-B, Fig. 3).

Every shape is measured with the same three numbers, at x = U - theta, in units of the membrane:

    peak    the slope at the threshold, slope(0)
    width   the half width at half maximum: slope(width) = peak / 2
    area    the integral of the slope over all x; 1 for the derivative of a step from 0 to 1

Two of them fix the third, area = A * peak * width, where A belongs to the shape. So two shapes can be laid side by
side at equal width and peak, or at equal width and area (`with_area`). The primitive is the integral of the slope
from minus infinity: the smooth step that the surrogate is the true derivative of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.neurons import Fire, Neuron
from snnlearn.resets import Constant


@dataclass(frozen=True)
class Surrogate:
    """A slope and its primitive. Subclasses give the shape at width 1 and peak 1.

    Args:
        width: half width at half maximum, in units of the membrane.
        peak: slope at the threshold.

    For a shape of your own, subclass and write `slope` and `primitive`; nothing needs to be registered.
    """

    width: float = 0.1
    peak: float = 1.0

    A: ClassVar[float]
    """Area of the shape at width 1 and peak 1."""

    def __post_init__(self) -> None:
        _checks.positive("width", self.width, "the membrane's unit")
        _checks.positive("peak", self.peak)

    @property
    def area(self) -> float:
        """Integral of the slope over all x."""
        return self.A * self.peak * self.width

    def with_area(self, area: float) -> Self:
        """The same shape and width, its peak chosen so that the slope integrates to ``area``."""
        _checks.positive("area", area)
        return replace(self, peak=area / (self.A * self.width))

    def slope(self, x: Tensor) -> Tensor:
        """sigma'(x), elementwise, at x = U - theta."""
        return self.peak * self._slope(x / self.width)

    def primitive(self, x: Tensor) -> Tensor:
        """sigma(x), elementwise: the slope integrated from minus infinity to x."""
        return self.peak * self.width * (self._integral(x / self.width) + self.A / 2)

    def _slope(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _integral(self, z: Tensor) -> Tensor:
        raise NotImplementedError


class PiecewiseLinear(Surrogate):
    """A triangle (tutorial Fig. 3, green; Bohte 2011; Esser et al. 2016; Bellec et al. 2018): zero beyond 2 * width."""

    A = 2.0

    def _slope(self, z: Tensor) -> Tensor:
        return (1 - z.abs() / 2).clamp(min=0)

    def _integral(self, z: Tensor) -> Tensor:
        z = z.clamp(-2, 2)
        return z - z * z.abs() / 4


class FastSigmoid(Surrogate):
    """Derivative of a fast sigmoid, 1 / (1 + k|x|)**2 (tutorial Fig. 3, blue; Zenke & Ganguli 2018, SuperSpike).

    The steepness is k = (sqrt(2) - 1) / width.
    """

    _k = math.sqrt(2) - 1
    A = 2 / _k

    @classmethod
    def from_steepness(cls, k: float, peak: float = 1.0) -> Self:
        """The paper's form: peak / (1 + k|x|)**2."""
        _checks.positive("the steepness k", k)
        return cls(cls._k / k, peak)

    def _slope(self, z: Tensor) -> Tensor:
        return 1 / (1 + self._k * z.abs()) ** 2

    def _integral(self, z: Tensor) -> Tensor:
        return z / (1 + self._k * z.abs())


class Exponential(Surrogate):
    """Two-sided exponential (tutorial Fig. 3, yellow; Shrestha & Orchard 2018, SLAYER; EXODUS)."""

    A = 2 / math.log(2)

    @classmethod
    def from_scale(cls, scale: float, decay: float) -> Self:
        """EXODUS's and SLAYER's form: scale / decay * exp(-|x| / decay)."""
        _checks.positive("scale", scale)
        _checks.positive("decay", decay)
        return cls(decay * math.log(2), scale / decay)

    def _slope(self, z: Tensor) -> Tensor:
        return torch.exp2(-z.abs())

    def _integral(self, z: Tensor) -> Tensor:
        ln2 = math.log(2)  # in two halves, so that autograd finds the slope at 0 too
        above, below = -torch.expm1(-ln2 * z.clamp(min=0)), torch.expm1(ln2 * z.clamp(max=0))
        return torch.where(z >= 0, above, below) / ln2


class Boxcar(Surrogate):
    """Constant within the width, zero beyond (tutorial Sec. V-A; Neftci et al. 2017)."""

    A = 2.0

    def _slope(self, z: Tensor) -> Tensor:
        return (z.abs() <= 1).to(z.dtype)

    def _integral(self, z: Tensor) -> Tensor:
        return z.clamp(-1, 1)


class Sigmoid(Surrogate):
    """Derivative of the logistic function of k x, with k = 2 * arccosh(sqrt(2)) / width."""

    _c = math.acosh(math.sqrt(2))
    A = 2 / _c

    @classmethod
    def from_steepness(cls, k: float) -> Self:
        """The derivative of 1 / (1 + exp(-k x)): peak k / 4, area 1."""
        _checks.positive("the steepness k", k)
        return cls(2 * cls._c / k, k / 4)

    def _slope(self, z: Tensor) -> Tensor:
        return 1 - torch.tanh(self._c * z) ** 2

    def _integral(self, z: Tensor) -> Tensor:
        return torch.tanh(self._c * z) / self._c


class ArcTan(Surrogate):
    """Derivative of the arctangent, 1 / (1 + (x / width)**2) (Fang et al. 2021)."""

    A = math.pi

    def _slope(self, z: Tensor) -> Tensor:
        return 1 / (1 + z * z)

    def _integral(self, z: Tensor) -> Tensor:
        return torch.atan(z)


class Gaussian(Surrogate):
    """A Gaussian, the derivative of the error function; its standard deviation is width / sqrt(2 ln 2)."""

    _c = math.sqrt(math.log(2))
    A = math.sqrt(math.pi) / _c

    def _slope(self, z: Tensor) -> Tensor:
        return torch.exp(-((self._c * z) ** 2))

    def _integral(self, z: Tensor) -> Tensor:
        return math.sqrt(math.pi) / (2 * self._c) * torch.erf(self._c * z)


@dataclass(frozen=True)
class StraightThrough(Surrogate):
    """The same slope everywhere (Bengio et al. 2013): width and area are infinite, the primitive a straight line.

    Args:
        peak: the slope.
    """

    width: float = math.inf

    def __post_init__(self) -> None:
        _checks.positive("peak", self.peak)
        if self.width != math.inf:
            raise ValueError(f"a straight-through slope has no width, got {self.width}; a Boxcar has one")

    @property
    def area(self) -> float:
        """Infinite."""
        return math.inf

    def with_area(self, area: float) -> Self:
        """Refused: the slope never ends."""
        raise ValueError("a straight-through slope has no finite area; choose its peak instead")

    def slope(self, x: Tensor) -> Tensor:
        """Peak, wherever the membrane is."""
        return torch.full_like(x, self.peak)

    def primitive(self, x: Tensor) -> Tensor:
        """peak * x + 1/2, a line through 1/2 at the threshold."""
        return self.peak * x + 0.5


SHAPES: tuple[type[Surrogate], ...] = (
    PiecewiseLinear,
    FastSigmoid,
    Exponential,
    Boxcar,
    Sigmoid,
    ArcTan,
    Gaussian,
    StraightThrough,
)


# The defaults of other libraries, so that a network moves over with the same gradient. Arguments have the names and
# defaults that they have there; x = U - theta. Measured against snnTorch 1.0, Norse 1.1 and its main branch,
# SpikingJelly 2.0 and Sinabs 3.1: the slopes agree to a few rounding errors.


def snntorch_fast_sigmoid(slope: float = 25.0) -> FastSigmoid:
    """snnTorch's ``surrogate.fast_sigmoid``: 1 / (1 + slope*|x|)**2, area 2 / slope."""
    return FastSigmoid.from_steepness(slope)


def snntorch_sigmoid(slope: float = 25.0) -> Sigmoid:
    """snnTorch's ``surrogate.sigmoid``, peak slope / 4. Theirs is NaN far below threshold, where exp overflows."""
    return Sigmoid.from_steepness(slope)


def snntorch_atan(alpha: float = 2.0) -> ArcTan:
    """snnTorch's ``surrogate.atan``, its neurons' default; the slope its documentation prints lacks pi*alpha/2."""
    _checks.positive("alpha", alpha)
    return ArcTan(2 / (math.pi * alpha), alpha / 2)


def norse_superspike(alpha: float = 100.0) -> FastSigmoid:
    """Norse's ``super``: 1 / (1 + alpha*|x|)**2. alpha is a steepness; release 1.1.0 ignores it and has 1 there."""
    return FastSigmoid.from_steepness(alpha)


def norse_triangle(alpha: float = 0.3) -> PiecewiseLinear:
    """Norse's ``triangle``: alpha * max(0, 1 - |x|). alpha is a gain."""
    return PiecewiseLinear(0.5, alpha)


def norse_tanh(alpha: float = 100.0) -> Sigmoid:
    """Norse's ``tanh``: sech(alpha*x)**2. It is 2 / alpha times the derivative of the step that Norse names."""
    _checks.positive("alpha", alpha)
    return Sigmoid(math.acosh(math.sqrt(2)) / alpha, 1.0)


def norse_heavi_erfc(alpha: float = 100.0) -> Gaussian:
    """Norse's ``heavi_erfc``: 2/sqrt(pi) * exp(-(alpha*x)**2), not scaled as the step it names."""
    _checks.positive("alpha", alpha)
    return Gaussian(math.sqrt(math.log(2)) / alpha, 2 / math.sqrt(math.pi))


def spikingjelly_sigmoid(alpha: float = 4.0) -> Sigmoid:
    """SpikingJelly's ``Sigmoid``, its neurons' default: area 1."""
    return Sigmoid.from_steepness(alpha)


def spikingjelly_atan(alpha: float = 2.0) -> ArcTan:
    """SpikingJelly's ``ATan``: area 1, the same as snnTorch's."""
    return snntorch_atan(alpha)


def spikingjelly_superspike(alpha: float = 1.0) -> FastSigmoid:
    """SpikingJelly's ``SuperSpike``: alpha / (1 + |x|)**2. alpha is a gain, where Norse's is a steepness."""
    return FastSigmoid.from_steepness(1.0, alpha)


def spikingjelly_soft_sign(alpha: float = 2.0) -> FastSigmoid:
    """SpikingJelly's ``SoftSign``: alpha / 2 / (1 + alpha*|x|)**2, area 1."""
    return FastSigmoid.from_steepness(alpha, alpha / 2)


def spikingjelly_piecewise_quadratic(alpha: float = 1.0) -> PiecewiseLinear:
    """SpikingJelly's ``PiecewiseQuadratic``: max(0, alpha - alpha**2 * |x|), area 1."""
    _checks.positive("alpha", alpha)
    return PiecewiseLinear(0.5 / alpha, alpha)


def spikingjelly_piecewise_exp(alpha: float = 1.0) -> Exponential:
    """SpikingJelly's ``PiecewiseExp``: alpha / 2 * exp(-alpha*|x|), area 1."""
    _checks.positive("alpha", alpha)
    return Exponential.from_scale(0.5, 1 / alpha)


def spikingjelly_erf(alpha: float = 2.0) -> Gaussian:
    """SpikingJelly's ``Erf``: alpha / sqrt(pi) * exp(-(alpha*x)**2), area 1."""
    _checks.positive("alpha", alpha)
    return Gaussian(math.sqrt(math.log(2)) / alpha, alpha / math.sqrt(math.pi))


def spikingjelly_rect(alpha: float = 1.0) -> Boxcar:
    """SpikingJelly's ``Rect``: alpha within 0.5 / alpha, area 1. Theirs excludes the very edge."""
    _checks.positive("alpha", alpha)
    return Boxcar(0.5 / alpha, alpha)


def sinabs_single_exponential(grad_width: float = 0.5, grad_scale: float = 1.0, theta: float = 1.0) -> Exponential:
    """Sinabs's ``SingleExponential``, its layers' default, at threshold theta: area 2 * grad_scale at any width."""
    _checks.positive("theta", theta)
    return Exponential.from_scale(grad_scale, grad_width * theta)


def sinabs_gaussian(sigma: float = 0.5, grad_scale: float = 1.0) -> Gaussian:
    """Sinabs's ``Gaussian`` with mu = 0: area grad_scale; its width does not follow the threshold."""
    _checks.positive("sigma", sigma)
    return Gaussian(sigma * math.sqrt(2 * math.log(2)), grad_scale / (sigma * math.sqrt(2 * math.pi)))


# Firing with a surrogate in place of the derivative.


class _Fire(torch.autograd.Function):
    """fire(U, theta) forward; sigma'(U - theta) backward, whatever the number of spikes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(U: Tensor, theta: Constant, fire: Fire, surrogate: Surrogate) -> Tensor:
        return fire(U, theta)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        U, theta, _, ctx.surrogate = inputs
        ctx.learned = isinstance(theta, Tensor)
        ctx.number = None if ctx.learned else theta
        ctx.save_for_backward(U, *((theta,) if ctx.learned else ()))

    @staticmethod
    def backward(ctx, e):
        U, *rest = ctx.saved_tensors
        theta = rest[0] if ctx.learned else ctx.number
        g = e * ctx.surrogate.slope(U - theta)
        return g, (-g).sum_to_size(theta.shape) if ctx.learned else None, None, None


def firing(neuron: Neuron, surrogate: Surrogate) -> Fire:
    """The neuron's fire with the surrogate for its derivative; an analog readout is differentiable as it stands."""
    if neuron.fire.analog:
        return neuron.fire
    return _Differentiable(neuron.fire, surrogate)


@dataclass(frozen=True)
class _Differentiable:
    fire: Fire
    surrogate: Surrogate

    analog = False

    def __call__(self, U: Tensor, theta: Constant) -> Tensor:
        return _Fire.apply(U, theta, self.fire, self.surrogate)
