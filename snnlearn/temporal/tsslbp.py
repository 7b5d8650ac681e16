"""TSSL-BP: credit through the times at which spikes are fired (Zhang & Li 2020), as a reverse recursion in O(T).

A spike at t_m moves when the membrane changes, dt_m/du[t_m] = -1/u'(t_m) (Eq. 12), and with it the postsynaptic
current a[t_k] that it causes. The paper writes dE/du[t_m] as a double sum over pairs of times (Eqs. 8-14):

    inter-neuron (Eqs. 11-12)   phi1(t_k, t_m) = eps[t_k - t_m] / u'(t_m)
    intra-neuron (Eqs. 13-14)   phi2(t_k, t_m) = phi(t_k, t_p) * du[t_p]/dt_m * dt_m/du[t_m], t_p the next spike

With an exponential eps both are sums that run along in time. Layers here pass spikes; the current a is the synaptic
current I of the neuron that receives them (alpha = 1 - 1/tau_s, the layer's gain 1/tau_s), whose own recursion
kap[n] = lam[n] + alpha * kap[n+1] is the sum over k of Eq. 8. What is left, for a neuron that is reset to zero:

    lam[n] = f[n] * e[n] + c[n] * lam[n+1],   f = s / u',   c = beta * (1 - s) + f * U * (1 - beta)

The paper prints Eqs. 11-12 with a sign that its code does not have; the code's is meant (see the golden vectors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from snnlearn import _checks
from snnlearn.filters import Exponentials, filtered
from snnlearn.neurons import Neuron, Rest, State, Trace, before
from snnlearn.resets import to_zero
from snnlearn.surrogate import Surrogate
from snnlearn.temporal import fused
from snnlearn.temporal.recursion import Credit, Method

if TYPE_CHECKING:
    from snnlearn.network import Network
    from snnlearn.rule import Rule


@dataclass(frozen=True)
class Fallback:
    """Found in the authors' code, not in the paper: a surrogate slope wherever a neuron has hardly fired of late.

    There dL/dI is the slope of a sigmoid times the error, and the time-based credit does not enter; the intra-neuron
    recursion goes on as if nothing had happened.

    Args:
        width: of the sigmoid, in units of the membrane: exp(z) / ((1 + exp(z))**2 * width), z = (theta - U) / width.
        limit: z is clamped to this on both sides.
        share: where the neuron's own postsynaptic current is below share / tau_s, it counts as silent.
    """

    width: float = 0.2
    limit: float = 8.0
    share: float = 0.25

    def __post_init__(self) -> None:
        for name in ("width", "limit", "share"):
            _checks.positive(name, getattr(self, name))

    def slope(self, x: Tensor) -> Tensor:
        """At x = U - theta."""
        z = torch.exp((-x / self.width).clamp(-self.limit, self.limit))
        return z / ((1 + z) ** 2 * self.width)


@dataclass(frozen=True)
class TSSLBP(Method):
    """TSSL-BP. `paper` has what the paper describes, `authors_code` every heuristic of the code; this is the code's.

    Args:
        largest: upper limit of 1 / u', so that a spike fired at a slow ramp does not blow up (code: 8).
        intra: whether the credit of a spike includes its reset's effect on the next spike (Eqs. 13-14), and the decay
            of that credit over silent steps.
        leak: whether silent steps receive credit too, through the membrane's leak (code; not in the paper).
        fallback: what happens where a neuron hardly fires (code); None: no credit there.
        tau_s: time constant, in steps, of the currents that this neuron's spikes cause, for ``fallback`` alone; by
            default that of the neuron's own synapse, 1 / (1 - alpha).

    The slope u' is taken over one step, from the membrane after the reset, as in the code. The reset must be `to_zero`,
    which is the code's; the paper's text subtracts the threshold.
    """

    largest: float = 8.0
    intra: bool = True
    leak: bool = True
    fallback: Fallback | None = Fallback()
    tau_s: float | None = None

    lean = False

    def __post_init__(self) -> None:
        if not self.largest > 0:
            raise ValueError(
                f"largest, the upper limit of 1/u', must be positive, math.inf for none; got {self.largest}"
            )
        if self.fallback is not None and not isinstance(self.fallback, Fallback):
            raise TypeError(f"fallback must be Fallback() or None, got {self.fallback!r}")
        if self.tau_s is not None:
            Exponentials.postsynaptic(self.tau_s)

    @classmethod
    def paper(cls) -> Self:
        """Eqs. 8-14 and nothing else: no limit, no fallback, no credit at silent steps."""
        return cls(largest=math.inf, leak=False, fallback=None)

    @classmethod
    def authors_code(cls, tau_s: float | None = None) -> Self:
        """With every heuristic of the authors' code."""
        return cls(tau_s=tau_s)

    def check(self, net: Network, loss: object, rule: Rule) -> None:
        """See `Method.check`, and `run` for the errors."""
        super().check(net, loss, rule)
        for layer in net.layers:
            if isinstance(layer.neuron, Neuron) and not layer.neuron.fire.analog:
                self._refuse(layer.neuron)

    def look(self, neuron: Neuron, trace: Trace) -> Tensor | None:
        """The postsynaptic current of the neuron's own spikes, which only the fallback needs."""
        if self.fallback is None:
            return None
        return filtered(Exponentials.postsynaptic(self._tau_s(neuron)), trace.s)

    def credit(self, neuron: Neuron, surrogate: Surrogate, trace: Trace, state: State, *extra: Tensor) -> Credit:
        """f = s / u', and the carry c; p and q where the fallback takes over."""
        _, U, s = trace
        after_reset = before(U, state.U) * (1 - before(s, state.s))
        rise = torch.where(s > 0, U - after_reset, 1.0)  # a membrane that stands still is no 0/0 where nothing fires
        f = s * (1 / rise).clamp(0, self.largest)  # Eq. 12, with the sign of the code
        leak = neuron.beta * (1 - s)
        c = leak + f * U * (1 - neuron.beta) if self.intra else torch.zeros_like(U)  # Eqs. 13-14; 1 - beta = 1/tau_m
        q = None if self.leak else s
        if self.fallback is None:
            return Credit(f, c, q=q)
        weak = (extra[0] < self.fallback.share / self._tau_s(neuron)).to(U.dtype)
        strong = 1 - weak
        return Credit(f, c, p=weak * self.fallback.slope(U - neuron.theta), q=strong if q is None else strong * q)

    def compiled(self, neuron: Neuron, surrogate: Surrogate, trace: Trace) -> fused.Compiled:
        """The same in the kernels' terms."""
        fallback = self.fallback or Fallback()
        tau = self._tau_s(neuron)
        return fused.Compiled(
            fused.SEEN[self.reset],
            times=(self.largest, fallback.width, fallback.limit, fallback.share / tau),
            intra=self.intra,
            leak=self.leak,
            psc=self.look(neuron, trace._replace(s=neuron.fire(trace.U, neuron.theta))),
        )

    def _tau_s(self, neuron: Neuron) -> float:
        return 1 / (1 - float(neuron.alpha)) if self.tau_s is None else self.tau_s

    def run(
        self,
        neuron: Neuron,
        surrogate: Surrogate,
        a: Tensor,
        recurrent: Callable[[Tensor], Tensor] | None = None,
        lag: int = 1,
        state: State | None = None,
        sent: Sequence[Tensor] | None = None,
    ) -> Trace:
        """See `Backward.run`.

        Raises:
            ValueError: the reset is not `to_zero`, a constant is learned, several spikes may be fired in a step, or,
                with a fallback, the sequence goes on from an earlier piece.
        """
        if isinstance(neuron, Neuron) and not neuron.fire.analog:
            self._refuse(neuron)
            if self.fallback is not None and state is not None and not isinstance(state, Rest):
                raise ValueError(
                    "TSSL-BP's fallback looks at all spikes since rest, so a sequence cannot be given in pieces; "
                    "give it whole, or use fallback=None"
                )
        return super().run(neuron, surrogate, a, recurrent, lag, state, sent)

    def _refuse(self, neuron: Neuron) -> None:
        """Refuse neurons for which the formula runs and means nothing."""
        if neuron.reset is not to_zero:
            name = getattr(neuron.reset, "__name__", neuron.reset)
            raise ValueError(
                f"TSSL-BP's credit is derived for a neuron that is reset to zero, got {name}; use reset=to_zero, or "
                "the method Adjoint()"
            )
        if any(isinstance(c, Tensor) for c in neuron.constants):
            raise ValueError(
                "TSSL-BP has no gradient of time constants and thresholds; give them as numbers, or use Adjoint()"
            )
        if getattr(neuron.fire, "most", 1) != 1:
            raise ValueError("TSSL-BP knows one spike a step; use Threshold(most=1), or Adjoint()")
        if self.fallback is not None and self.tau_s is None and neuron.alpha == 1:
            raise ValueError(
                "the fallback takes its time constant from the neuron's synapse, whose alpha = 1 never decays; give "
                "tau_s"
            )
