"""The one reverse recursion that every backward method shares, and the autograd node around it.

With e[n] = dL/ds[n], for a layer, lam, del and kap being the tutorial's deltas at U, I and a:

    lam[n] = f[n] * e[n] + c[n] * lam[n+1]          dL/dU
    del[n] = p[n] * e[n] + q[n] * lam[n]            dL/dI at this step
    kap[n] = del[n] + alpha * kap[n+1]              dL/da;  dL/dW = sum_n kap[n] x[n]^T,  error below = W^T kap

A method is what it puts in for f, c, p and q: `Method.credit`. Recurrent weights V add V^T kap[n+lag] to e[n]: block
forward substitution in reversed time, exact, and without a T x T matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnlearn.neurons import Neuron, State, Trace, before
from snnlearn.resets import Constant, Update, no_reset, subtract, subtract_decayed, to_zero
from snnlearn.spatial.base import Rerouted
from snnlearn.surrogate import Surrogate
from snnlearn.temporal import fused
from snnlearn.temporal.base import Reset, call
from snnlearn.temporal.fused import Compiled, Found

if TYPE_CHECKING:  # a network lies floors above
    from snnlearn.network import Network
    from snnlearn.rule import Rule

BLOCK = 16  # steps whose slopes are made at a time, so that memory stays near the trace's


class Credit(NamedTuple):
    """A method's factors in the recursion, for a block of steps; p = 0 and q = 1 where they are None."""

    f: Tensor
    c: Tensor
    p: Tensor | None = None
    q: Tensor | None = None


class Method:
    """A method that fits the recursion. A subclass with `credit` is complete, and needs no registration.

    Attributes:
        reset: what the gradient sees of the reset.
        lean: whether ``credit`` looks at I and s through the reset's derivatives only, so that they need not be kept.
        linked: whether the reset's derivatives are also the method's way from the first step to the state before it,
            so that credit passes from one piece of a sequence to the one before.
    """

    reset: Reset = Reset.KEPT
    lean: bool = False
    linked: bool = False

    def credit(self, neuron: Neuron, surrogate: Surrogate, trace: Trace, state: State, *extra: Tensor) -> Credit:
        """The factors for the steps of ``trace``, which begins after ``state``; c[n] looks ahead to n+1.

        Not asked of a readout, which has no spikes: there every method is `exact`. ``extra`` is these steps of what
        `look` returned, if that was not None.
        """
        raise NotImplementedError

    def check(self, net: Network, loss: object, rule: Rule) -> None:
        """Refuse, with ValueError or TypeError, a network, loss or rule that makes no sense with this method."""
        for layer in net.layers:
            self._refuse_other_dynamics(layer.neuron)

    def _refuse_other_dynamics(self, neuron: object) -> None:
        if not isinstance(neuron, Neuron):
            raise TypeError(
                f"{type(self).__name__} is a recursion for a Neuron, got {type(neuron).__name__}; use AdjointSRM for "
                "an SRM, or Unrolled for any neuron"
            )

    def look(self, neuron: Neuron, trace: Trace) -> Tensor | None:
        """What ``credit`` wants to know of the whole sequence, (T, B, *features)."""
        return None

    def compiled(self, neuron: Neuron, surrogate: Surrogate, trace: Trace) -> Compiled | None:
        """The same credit in the terms of the compiled kernels, for those that have it there; None: only `credit` has.

        Looked at only where it stands in the same class as ``credit``, so that a subclass with another ``credit`` need
        not think of it.
        """
        return None

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
            TypeError: the neuron is no `Neuron`, such as an SRM, whose past is more than a state.
            ValueError: credit would have to pass to an earlier piece, and the method does not say how.
        """
        self._refuse_other_dynamics(neuron)
        if not self.linked and not neuron.fire.analog and state is not None and any(x.requires_grad for x in state):
            raise ValueError(
                f"{type(self).__name__} does not say how credit passes to an earlier piece of the sequence; give it "
                "whole, or detach the state"
            )
        return run(self, neuron, surrogate, a, recurrent, lag, state, sent)


def differentiated(reset: Update, choice: Reset) -> Update:
    """The membrane update whose partial derivatives the method takes."""
    return no_reset if choice is Reset.IGNORED else reset


def after(x: Tensor) -> Tensor:
    """x[n+1] in place n, and 0 in the last."""
    return torch.cat([x[1:], torch.zeros_like(x[:1])])


def exact(reset: Reset, neuron: Neuron, surrogate: Surrogate, trace: Trace, state: State) -> Credit:
    """The derivative of the neuron, with as much of its reset as ``reset`` says: f and c of `Adjoint`."""
    U = trace.U
    f = torch.ones_like(U) if neuron.fire.analog else surrogate.slope(U - neuron.theta)
    dU, ds, dI, *_ = neuron.pull(differentiated(neuron.reset, reset), trace, state, torch.ones_like(U))
    c = after(dU) + after(ds) * f if reset is Reset.KEPT else after(dU)
    return Credit(f, c, q=dI)


def reverse(
    method: Method,
    neuron: Neuron,
    surrogate: Surrogate,
    trace: Trace,
    state: State,
    errors: tuple[Tensor | None, Tensor | None, Tensor | None],
    back: Callable[[Tensor], Tensor] | None = None,
    lag: int = 1,
    constants: bool = False,
) -> Found:
    """Run the recursion from the last step to the first.

    Args:
        method, neuron, surrogate: whose factors.
        trace, state: the forward pass and the state before it.
        errors: dL/dI, dL/dU, dL/ds from outside, each (T, B, *features) or None.
        back: V^T applied to one step's kap.
        lag: steps by which recurrent spikes are late.
        constants: whether the gradients of alpha, beta and theta are wanted.
    """
    e_I, e_U, e_s = errors
    T = len(trace.U)
    lam = kap = torch.zeros_like(trace.U[0])
    kaps: list[Tensor] = [lam] * T
    kept: list[tuple[Tensor, Tensor, Tensor]] = []  # lam, f and e of every step, for the constants
    seen = None if neuron.fire.analog else method.look(neuron, trace)
    for end in range(T, 0, -BLOCK):
        start = max(0, end - BLOCK)
        first = state if start == 0 else State(*(x[start - 1] for x in trace))
        # one step more than the block, since c looks ahead
        extra = () if seen is None else (seen[start : end + 1],)
        block = Trace(*(x[start : end + 1] for x in trace))
        if neuron.fire.analog:
            f, c, p, q = exact(method.reset, neuron, surrogate, block, first)
        else:
            f, c, p, q = method.credit(neuron, surrogate, block, first, *extra)
        for n in reversed(range(start, end)):
            k = n - start
            e = torch.zeros_like(lam) if e_s is None else e_s[n]
            if back is not None and n + lag < T:
                e = e + back(kaps[n + lag])
            lam = f[k] * e + c[k] * lam
            if e_U is not None:
                lam = lam + e_U[n]
            delta = lam if q is None else q[k] * lam
            if p is not None:
                delta = delta + p[k] * e
            kap = delta + neuron.alpha * kap
            if e_I is not None:
                kap = kap + e_I[n]
            kaps[n] = kap
            if constants:
                kept.append((lam, f[k], e))
    all_kap, update = torch.stack(kaps), differentiated(neuron.reset, method.reset)
    opening = Trace(*(x[:1] for x in trace))
    to_U, to_s = (x[0] for x in neuron.pull(update, opening, state, lam[None])[:2])
    to_state = State(neuron.alpha * kap, to_U, to_s if method.reset is Reset.KEPT else torch.zeros_like(to_s))
    if not constants:
        return Found(all_kap, to_state, None)
    # theta acts where the neuron fires and where it resets; both through the reset that the credit saw
    lams, f, e = (torch.stack(x[::-1]) for x in zip(*kept, strict=True))
    each = replace(neuron, beta=_spread(neuron.beta, trace.U), theta=_spread(neuron.theta, trace.U))
    _, to_s, _, to_beta, to_theta = each.pull(update, trace, state, lams)
    e = e + after(to_s) if method.reset is Reset.KEPT else e
    if not neuron.fire.analog:
        to_theta = to_theta - f * e
    return Found(all_kap, to_state, tuple(x.sum(0) for x in (all_kap * before(trace.I, state.I), to_beta, to_theta)))


def _spread(constant: Constant, like: Tensor) -> Tensor:
    """A constant as one value for every step and neuron."""
    return torch.as_tensor(constant, dtype=like.dtype, device=like.device).expand_as(like)


class _Layer(NamedTuple):
    """What a node needs besides tensors."""

    method: Method
    neuron: Neuron
    surrogate: Surrogate
    recurrent: nn.Module | None
    parameters: tuple[Tensor, ...]  # of recurrent
    lag: int

    @property
    def current(self) -> bool:
        """Whether I is another tensor than a."""
        return self.recurrent is not None or isinstance(self.neuron.alpha, Tensor) or self.neuron.alpha != 0

    def compiled(self, neuron: Neuron, trace: Trace) -> Compiled | None:
        """The method's credit in the kernels' terms; every method is exact in a readout.

        None where a class nearer to the method's own than the one with ``compiled`` has another ``credit`` or ``look``.
        """
        if neuron.fire.analog:
            return Compiled(fused.SEEN[self.method.reset])
        for kind in type(self.method).__mro__:
            own = vars(kind)
            if "credit" in own or "look" in own or "compiled" in own:
                return self.method.compiled(neuron, self.surrogate, trace) if "compiled" in own else None
        return None

    @property
    def _is_a_matrix(self) -> bool:
        V = self.recurrent
        return type(V) is nn.Linear and V.bias is None and not (V._forward_hooks or V._forward_pre_hooks)

    def through(self, weights: Sequence[Tensor], s: Tensor) -> Tensor:
        """V s, with these weights."""
        assert self.recurrent is not None
        if self._is_a_matrix:  # without what finding its parameters costs
            return functional.linear(s, weights[0])
        return call(self.recurrent, self.parameters, weights, s)

    def transpose(self, weights: Sequence[Tensor], like: Tensor) -> Callable[[Tensor], Tensor]:
        """V^T, applied to one step's kap."""
        if self._is_a_matrix:
            return lambda kap: kap @ weights[0]
        transposed = torch.func.vjp(lambda s: self.through(weights, s), like)[1]
        return lambda kap: transposed(kap)[0]

    def at(self, constants: Sequence[Any]) -> Neuron:
        """The neuron with these constants."""
        return replace(self.neuron, **dict(zip(("alpha", "beta", "theta"), constants, strict=True)))


def _simulate(neuron: Neuron, *arguments: Any) -> Trace:
    trace = fused.simulate(neuron, *arguments)
    return neuron.simulate(*arguments) if trace is None else trace


# Resets whose partial derivatives do not look at the current, and those that do not look at the spikes either.
_BLIND_TO_I = (subtract, subtract_decayed, to_zero, no_reset)
_BLIND_TO_S = (subtract, subtract_decayed, no_reset)


class _Run(torch.autograd.Function):
    """One node for a layer's whole sequence. I, U and s are all outputs, so that any of them can carry a loss, and
    their last entries the state of the next piece of the sequence."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a, alpha, beta, theta, I0, U0, s0, sent, layer, *weights):
        recurrent = (lambda s: layer.through(weights, s)) if layer.recurrent is not None else None
        trace = _simulate(layer.at((alpha, beta, theta)), a, recurrent, layer.lag, State(I0, U0, s0), sent.unbind(0))
        return tuple(trace) if layer.current else tuple(trace[1:])

    @staticmethod
    def setup_context(ctx, inputs, output):
        a, alpha, beta, theta, I0, U0, s0, sent, layer, *weights = inputs
        ctx.layer, ctx.constants = layer, [None if isinstance(c, Tensor) else c for c in (alpha, beta, theta)]
        learned = [c if isinstance(c, Tensor) else None for c in (alpha, beta, theta)]
        I, U = output[:2] if layer.current else (a, output[0])
        neuron = layer.neuron
        everything = any(c is not None for c in learned) or not layer.method.lean
        needs_I = everything or neuron.reset not in _BLIND_TO_I
        needs_U = everything or not neuron.fire.analog or neuron.reset is not no_reset
        ctx.needs_s = everything or neuron.reset not in _BLIND_TO_S or layer.recurrent is not None
        ctx.shape = U.shape
        kept = (I if needs_I else None, U if needs_U or ctx.needs_s else None)
        ctx.save_for_backward(*kept, I0, U0, s0, sent, *learned, *weights)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *errors):
        layer: _Layer = ctx.layer
        errors = errors if layer.current else (None, *errors)
        I, U, I0, U0, s0, sent, alpha, beta, theta, *weights = ctx.saved_tensors
        learned = (alpha, beta, theta)
        constants = [c if t is None else t for c, t in zip(ctx.constants, learned, strict=True)]
        neuron, state = layer.at(constants), State(I0, U0, s0)
        if U is None:
            U = U0.expand(ctx.shape)  # nothing looks at its values, nor at those in the place of I and s below
        trace = Trace(U if I is None else I, U, U)
        back, wanted = None, any(t is not None for t in learned)
        if layer.recurrent is not None:
            back = layer.transpose(weights, s0)
            trace = trace._replace(s=neuron.fire(U, neuron.theta))
        arguments, found = (errors, back, layer.lag, wanted), None
        if not torch.is_grad_enabled():  # the kernels have no second derivative
            found = fused.reverse(neuron, layer.compiled(neuron, trace), trace, state, *arguments)
        if found is None:
            trace = trace._replace(s=neuron.fire(U, neuron.theta)) if ctx.needs_s else trace
            found = reverse(layer.method, neuron, layer.surrogate, trace, state, *arguments)
        kap = found.kap
        to_sent, to_weights = torch.zeros_like(sent), ()
        if back is not None:
            early = min(layer.lag, len(kap))
            to_sent = torch.cat([torch.stack([back(kap[n]) for n in range(early)]), to_sent[early:]])
            arrived = torch.cat([sent, trace.s])[: len(kap)]
            to_weights = torch.func.vjp(lambda *w: layer.through(w, arrived.flatten(0, 1)), *weights)[1](
                kap.flatten(0, 1)
            )
        to_constants: list[Tensor | None] = [None, None, None]
        if found.to_constants is not None:
            to_constants = [
                None if t is None else g.sum_to_size(t.shape) for g, t in zip(found.to_constants, learned, strict=True)
            ]
        return kap, *to_constants, *found.to_state, to_sent, None, *to_weights


_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Identity, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


def affine(module: nn.Module) -> bool:
    """Whether a module is linear but for a bias, so that its transpose is the same at every input."""
    if isinstance(module, nn.Sequential):
        return all(map(affine, module))
    if isinstance(module, Rerouted):
        return affine(module.synapse)
    return isinstance(module, (*_LINEAR, nn.Flatten, nn.Unflatten))


def run(
    method: Method,
    neuron: Neuron,
    surrogate: Surrogate,
    a: Tensor,
    recurrent: Callable[[Tensor], Tensor] | None = None,
    lag: int = 1,
    state: State | None = None,
    sent: Sequence[Tensor] | None = None,
) -> Trace:
    """`Backward.run` for a method that fits the recursion."""
    if recurrent is not None and not isinstance(recurrent, nn.Module):
        raise TypeError(
            f"recurrent must be a torch module, got {type(recurrent).__name__}; its weights are differentiated"
        )
    if recurrent is not None and not affine(recurrent):
        raise ValueError(
            f"the adjoint needs a linear recurrent synapse, got {recurrent}; use Linear, Conv or AvgPool without "
            "bias, or the method Unrolled, which takes any"
        )
    state = neuron.start(a[0]) if state is None else state
    if recurrent is None:
        sent, lag = (state.s,), 1  # not looked at
    elif sent is None:
        sent = (*(torch.zeros_like(state.s) for _ in range(lag - 1)), state.s)
    weights = () if recurrent is None else tuple(recurrent.parameters())
    inputs = (a, *neuron.constants, *state, *sent, *weights)
    if not (torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)):
        return _simulate(neuron, a, recurrent, lag, state, tuple(sent))
    layer = _Layer(method, neuron, surrogate, recurrent, weights, lag)
    out = _Run.apply(a, *neuron.constants, *state, torch.stack(tuple(sent)), layer, *weights)
    return Trace(*out) if layer.current else Trace(a, *out)
