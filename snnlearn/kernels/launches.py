"""Tensors to pointers: the arguments of the CUDA kernels' launches.

A `Driver` checks tensors, makes those of the results, and hands their addresses to the compiled library on the current
stream of their GPU. It does not ask for a GPU itself: tests hand it a library that runs the same kernels on the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_double, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor


class Layer(ctypes.Structure):
    """``Layer`` of scan.cu."""

    _fields_ = (
        *((name, c_int64) for name in ("steps", "M")),
        *((name, c_void_p) for name in ("I0", "U0", "s0", "alpha", "beta", "theta")),
        *((name, c_double) for name in ("alpha_all", "beta_all", "theta_all", "low", "most")),
        *((name, c_int32) for name in ("reset", "bound", "fire", "synapse", "is_double", "padding")),
    )


class Forward(ctypes.Structure):
    """``Forward`` of scan.cu."""

    _fields_ = tuple((name, c_void_p) for name in ("a", "I", "U", "s"))


class Reverse(ctypes.Structure):
    """``Reverse`` of scan.cu."""

    _fields_ = (
        *((name, c_void_p) for name in ("e_I", "e_U", "e_s")),
        *((name, c_int64) for name in ("stride_I", "stride_U", "stride_s")),
        *((name, c_void_p) for name in ("I", "U", "lam", "kap", "I_next", "out", "to_I", "to_U", "to_s", "first_lam")),
        *((name, c_void_p) for name in ("to_alpha", "to_beta", "to_theta", "psc")),
        *((name, c_double) for name in ("inverse_width", "peak", "within", "largest", "width", "limit", "weak")),
        *((name, c_int32) for name in ("slope", "seen", "by_times", "intra", "leak", "padding")),
    )


class Driver:
    """The launches of one compiled library.

    Args:
        library: of the kernels.
        kind: type of the device whose tensors it takes, "cuda"; "cpu" for a library that imitates one.
    """

    def __init__(self, library: ctypes.CDLL, kind: str) -> None:
        self._library, self._kind = library, kind
        library.snn_error.restype = ctypes.c_char_p

    def scan_forward(
        self,
        a: Tensor,
        I0: Tensor,
        U0: Tensor,
        s0: Tensor,
        each: Sequence[Tensor],
        numbers: Sequence[float],
        kinds: Sequence[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The op ``scan_forward`` (scan.cpp): I, U and s like a (T, ...); I is empty where there is no synapse.

        Raises:
            ValueError: a tensor has another device, dtype or shape than a and its steps.
            RuntimeError: the launch failed.
        """
        self._floating(a)
        a = a.contiguous()
        alive, layer = self._layer(a, (I0, U0, s0), each, numbers, kinds)
        I = torch.empty_like(a) if kinds[3] else a.new_empty(0)
        U, s = torch.empty_like(a), torch.empty_like(a)
        g = Forward(a.data_ptr(), I.data_ptr() if kinds[3] else None, U.data_ptr(), s.data_ptr())
        self._launch("snn_scan_forward", a.device, ctypes.byref(layer), ctypes.byref(g))
        del alive
        return I, U, s

    def scan_reverse(
        self,
        e_I: Tensor | None,
        e_U: Tensor | None,
        e_s: Tensor | None,
        I: Tensor | None,
        U: Tensor,
        I0: Tensor,
        U0: Tensor,
        s0: Tensor,
        lam: Tensor | None,
        kap: Tensor | None,
        I_next: Tensor | None,
        psc: Tensor | None,
        each: Sequence[Tensor],
        numbers: Sequence[float],
        kinds: Sequence[int],
        slope: Sequence[float],
        times: Sequence[float],
        seen: Sequence[int],
        constants: bool,
    ) -> list[Tensor]:
        """The op ``scan_reverse`` (scan.cpp): kap like U; the first lam and the gradients of I0, U0, s0 like a step;
        those of alpha, beta, theta like a step, or empty where not wanted.

        Raises:
            ValueError: as in `scan_forward`; or this gradient looks at I, which was not given.
            RuntimeError: the launch failed.
        """
        self._floating(U)
        if U.numel() == 0:
            raise ValueError("there is no step, or no neuron, to go back through")
        if len(slope) != 3 or len(seen) != 4 or len(times) not in (0, 4):
            raise ValueError("expected 3 numbers of the slope, 4 of what is seen, and 4 or none of the spike times")
        if times and each:
            raise ValueError("TSSL-BP takes constants that are numbers")
        looks_at_I = constants or ((kinds[0] == 3 or kinds[1] == 2) and seen[0] != 2)
        if looks_at_I and I is None:
            raise ValueError("this gradient looks at the current I")
        U = U.contiguous()
        alive, layer = self._layer(U, (I0, U0, s0), each, numbers, kinds)

        def address(name: str, x: Tensor | None, shape: torch.Size) -> int | None:
            if x is None:
                return None
            self._fits(name, x, shape, U)
            alive.append(x.contiguous())
            return alive[-1].data_ptr()

        def error(name: str, e: Tensor | None) -> tuple[int | None, int]:
            if e is not None and len(U) > 1 and e.shape == U.shape and e.stride(0) == 0:  # the same at every step
                return address(name, e[0], U[0].shape), 0
            return address(name, e, U.shape), U[0].numel()

        step = U[0].shape
        result = [torch.empty_like(U), *(U.new_empty(step) for _ in range(4))]
        result += [U.new_empty(step if constants else 0) for _ in range(3)]
        g = Reverse(I=address("I", I, U.shape), U=U.data_ptr(), psc=address("psc", psc, U.shape))
        for name, letter, e in (
            ("the error of I", "I", e_I),
            ("the error of U", "U", e_U),
            ("the error of s", "s", e_s),
        ):
            pointer, stride = error(name, e)
            setattr(g, f"e_{letter}", pointer)
            setattr(g, f"stride_{letter}", stride)
        for name, x in (("lam", lam), ("kap", kap), ("I_next", I_next)):
            setattr(g, name, address(name, x, step))
        names = ("out", "first_lam", "to_I", "to_U", "to_s", "to_alpha", "to_beta", "to_theta")
        for name, x in zip(names, result, strict=True):
            setattr(g, name, x.data_ptr() if x.numel() else None)
        g.inverse_width, g.peak, g.within = slope
        g.seen, g.slope, g.intra, g.leak = seen
        g.by_times = bool(times)
        if times:
            g.largest, g.width, g.limit, g.weak = times
        self._launch("snn_scan_reverse", U.device, ctypes.byref(layer), ctypes.byref(g))
        return result

    def _layer(
        self,
        like: Tensor,
        state: Sequence[Tensor],
        each: Sequence[Tensor],
        numbers: Sequence[float],
        kinds: Sequence[int],
    ) -> tuple[list[Tensor], Layer]:
        """What both passes are told of the layer, and the tensors whose addresses that holds."""
        if len(numbers) != 5 or len(kinds) != 4 or len(each) not in (0, 3):
            raise ValueError("expected 5 numbers, 4 kinds, and alpha, beta and theta or none of them")
        step = like.shape[1:]
        names = ("I before the first step", "U before the first step", "s before the first step")
        for name, x in zip((*names, *("a constant" for _ in each)), (*state, *each), strict=True):
            self._fits(name, x, step, like)
        alive = [x.contiguous() for x in (*state, *each)]
        addresses = [x.data_ptr() for x in alive] + [None] * (6 - len(alive))
        M = like[0].numel() if len(like) else 0
        return alive, Layer(len(like), M, *addresses, *numbers, *map(int, kinds), like.dtype == torch.float64)

    def _floating(self, x: Tensor) -> None:
        if x.device.type != self._kind or x.dtype not in (torch.float32, torch.float64) or x.dim() == 0:
            raise ValueError(
                f"expected a {self._kind} tensor (T, ...) of float32 or float64, got {x.dtype} of shape "
                f"{tuple(x.shape)} on {x.device}"
            )

    def _fits(self, name: str, x: Tensor, shape: torch.Size, like: Tensor) -> None:
        if x.device != like.device or x.dtype != like.dtype or x.shape != shape:
            raise ValueError(
                f"{name} must be {like.dtype} of shape {tuple(shape)} on {like.device}, got {x.dtype} of shape "
                f"{tuple(x.shape)} on {x.device}"
            )

    def _launch(self, name: str, device: torch.device, *arguments: Any) -> None:
        """Launch on the current stream of a tensor's device, whatever device is the current one."""
        function: Callable[..., int] = getattr(self._library, name)
        guard = torch.cuda.device(device) if self._kind == "cuda" else contextlib.nullcontext()
        with guard:
            stream = torch.cuda.current_stream(device).cuda_stream if self._kind == "cuda" else 0
            code = function(*arguments, c_void_p(stream))
        if code != 0:
            raise RuntimeError(f"{name}: the kernel was not launched: {self._library.snn_error(code).decode()}")
