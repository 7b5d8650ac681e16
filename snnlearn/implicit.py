"""One neuron's gradient through time as a matrix: EXODUS Eqs. 9 to 19, for looking at.

A spike depends on the membrane and, through the reset, the membrane on earlier spikes. The implicit function theorem
differentiates this loop as it stands: with f the slopes, F = diag(f), N[n, m] = nu[n-1-m] and E[n, m] = eps[n-m],

    ds = F (dz + N ds)    so    sigma = ds/dz = (I - F N)^-1 F,    dL/da = E^T sigma^T e.

I - F N is triangular, so forward substitution solves it. Row n is the later time, column m the earlier. Layers train by
recursions that need no T x T matrix: `snnlearn.temporal.Adjoint`, and `snnlearn.srm.AdjointSRM` for any kernels.

The closed forms are for a LIF with nu[n] = -theta * beta**n (the paper's alpha is this beta). For the reset of the
authors' code, nu[n] = -theta * beta**(n+1), they hold with beta * theta in the place of theta.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from snnlearn import _checks


def toeplitz(kernel: Tensor, T: int, lag: int = 0) -> Tensor:
    """A causal filter as a matrix (T, T): M[n, m] = kernel[n-m-lag], zero before and beyond the kernel.

    Args:
        kernel: (K,).
        T: steps.
        lag: 0 for eps (Eq. 6), 1 for nu, which acts from the step after the spike (Eq. 7).
    """
    _checks.whole("T, the number of steps,", T, least=1)
    _checks.whole("lag", lag)
    _vector("the kernel", kernel)
    n = torch.arange(T, device=kernel.device)
    late = n[:, None] - n - lag
    return torch.where((late >= 0) & (late < len(kernel)), kernel[late.clamp(0, len(kernel) - 1)], 0)


def newest(kernel: Tensor, xs: Sequence[Tensor]) -> Tensor:
    """The filter's value at the last of xs: sum_k kernel[k] x[-1-k], over as many x as there are, at least one."""
    K = min(len(kernel), len(xs))
    return torch.tensordot(kernel[:K].flip(0), torch.stack(tuple(xs[-K:])), dims=1)


class Running:
    """A causal filter fed a step at a time.

    The past is put together once a BLOCK of steps: to stack it at every step would cost more than the sum over it.

    Args:
        kernel: (K,), zero beyond its end.
    """

    BLOCK = 16

    def __init__(self, kernel: Tensor):
        self.length = len(kernel)
        self.kernel = torch.cat([kernel, kernel.new_zeros(self.BLOCK)])
        self.near: list[Tensor] = []
        self.past: Tensor | None = None
        self.far: Tensor | None = None  # what the past adds after 1, 2, ... steps of a new block

    def push(self, x: Tensor) -> Tensor:
        """Take the next x and return sum_k kernel[k] x[-1-k] over all x so far, this one with kernel[0]."""
        self.near.append(x)
        value = newest(self.kernel, self.near)
        if self.far is not None:
            value = value + self.far[len(self.near) - 1]
        if len(self.near) == self.BLOCK:
            block = torch.stack(self.near)
            past = block if self.past is None else torch.cat([self.past, block])
            self.past, self.near = past[-self.length :], []
            ahead = torch.arange(1, self.BLOCK + 1, device=x.device)[:, None]
            back = torch.arange(len(self.past) - 1, -1, -1, device=x.device)
            self.far = torch.tensordot(self.kernel[ahead + back], self.past, dims=1)
        return value


def sigma(f: Tensor, nu: Tensor) -> Tensor:
    """sigma[n, m] = ds[n]/dz[m] by forward substitution, row by row (Eq. 9).

    Args:
        f: slopes of one neuron, (T,).
        nu: refractory kernel, (K,), zero beyond its end; of zeros for SLAYER, whose sigma is diag(f) (EXODUS 3.4).

    Returns:
        (T, T).
    """
    _vector("the slopes f", f)
    _vector("the kernel nu", nu)
    rows: list[Tensor] = []
    for n, unit in enumerate(torch.eye(len(f), dtype=f.dtype, device=f.device)):
        through_reset = newest(nu, rows) if rows else torch.zeros_like(unit)  # (nu * sigma_m)[n-1]
        rows.append(f[n] * (unit + through_reset))  # Eq. 9
    return torch.stack(rows)


def d_eq14(e: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
    """d[n] = dL/da[n] = sum_m>=n sum_k>=m e[k] sigma[k, m] eps[m-n] (Eq. 14).

    Args:
        e: dL/ds of one neuron, (T,).
        sigma: (T, T).
        eps: response kernel, (K,), zero beyond its end.
    """
    _vector("the error e", e)
    return e @ sigma @ toeplitz(eps, len(e))


def sigma_eq16(f: Tensor, beta: float, theta: float) -> Tensor:
    """`sigma` of a LIF in closed form (Eq. 16): f[n] on the diagonal, -theta * f[n] * f[m] * chi[n, m] below."""
    return f.diag() - theta * f[:, None] * f * chi_eq17(f, beta, theta)


def chi_eq17(f: Tensor, beta: float, theta: float) -> Tensor:
    """chi[n, m] = prod_k=m+1..n-1 (beta - theta * f[k]) for n > m, an empty product 1; 0 elsewhere (Eq. 17).

    How far the reset reaches, which SLAYER leaves out. A factor shrinks it where f < (1 + beta) / theta, and makes it
    grow with alternating sign where f is larger.
    """
    chi = torch.zeros_like(zeta := zeta_eq18(f, beta, theta))
    chi[:, :-1] = zeta[:, 1:]  # the product of Eq. 17 begins one step later than that of Eq. 18
    return chi


def zeta_eq18(f: Tensor, beta: float, theta: float) -> Tensor:
    """zeta[k, n] = prod_m=n..k-1 (beta - theta * f[m]) for k >= n, an empty product 1; 0 elsewhere (Eq. 18)."""
    _vector("the slopes f", f)
    c = beta - theta * f
    rows = list(torch.eye(len(f), dtype=f.dtype, device=f.device))
    for k in range(1, len(f)):
        rows[k] = rows[k] + c[k - 1] * rows[k - 1]  # Eq. 18
    return torch.stack(rows)


def d_eq19(e: Tensor, f: Tensor, beta: float, theta: float) -> Tensor:
    """d[n] = sum_k>=n e[k] f[k] zeta[k, n] (Eq. 19): what `snnlearn.temporal.Adjoint` finds in O(T).

    Args:
        e, f: dL/ds and slopes of one neuron, (T,).
        beta: decay of the membrane (the paper's alpha).
        theta: threshold.
    """
    _vector("the error e", e)
    return (e * f) @ zeta_eq18(f, beta, theta)


def _vector(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor of one dimension, got {getattr(x, 'dtype', type(x))}")
    if x.dim() != 1 or len(x) == 0:
        raise ValueError(
            f"{name} must have one dimension and at least one entry, got shape {tuple(x.shape)}; "
            "of a layer (T, B, N) take one neuron, x[:, b, i]"
        )
