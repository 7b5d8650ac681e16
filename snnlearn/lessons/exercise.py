"""Exercises that check themselves: the stub stands in the notebook, the reference and the cases here."""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Exercise:
    """One exercise. Calling it with the reader's function prints a verdict and never raises.

    Args:
        task: a short name for the verdict's line.
        solution: the reference; its source is what `reveal` shows.
        cases: arguments to call both with, one tuple a case.
        hints: sentences for `hint`, from gentle to plain.
        explain: function of (arguments, got, wanted) that names the likely slip, or None.
        tolerance: largest relative difference that passes (of the largest value wanted).
    """

    def __init__(
        self,
        task: str,
        solution: Callable[..., Any],
        cases: Sequence[tuple[Any, ...]],
        hints: Sequence[str] = (),
        explain: Callable[[tuple[Any, ...], Tensor, Tensor], str | None] = lambda arguments, got, wanted: None,
        tolerance: float = 1e-6,
    ):
        self.task, self.solution, self.cases, self.hints = task, solution, cases, hints
        self.explain, self.tolerance = explain, tolerance

    def verify(self, attempt: Callable[..., Any]) -> tuple[bool | None, str]:
        """(True, "correct"), (False, what is wrong) or (None, "not attempted yet"); an attempt's errors are caught."""
        for arguments in self.cases:
            wanted = _as_tensor(self.solution(*_copies(arguments)))
            try:
                answer = attempt(*_copies(arguments))
            except NotImplementedError:
                return None, "not attempted yet"
            except (Exception, SystemExit) as error:  # whatever a reader's code raises is a verdict, not a crash
                return False, f"your function raised {type(error).__name__}: {error}"
            if answer is None or answer is ...:
                return None, "not attempted yet"
            try:
                got = _as_tensor(answer)
            except (TypeError, ValueError, RuntimeError):
                return False, f"it returned a {type(answer).__name__}, wanted numbers"
            if got.shape != wanted.shape:
                return False, f"its shape is {tuple(got.shape)}, wanted {tuple(wanted.shape)}"
            wrong = ~((got - wanted).abs() <= self.tolerance * wanted.abs().max().clamp(min=1e-12))
            if bool(wrong.any()):
                return False, _first_difference(got, wanted, wrong) + self._slip(arguments, got, wanted)
        return True, "correct"

    def _slip(self, arguments: tuple[Any, ...], got: Tensor, wanted: Tensor) -> str:
        sentence = self.explain(arguments, got, wanted)
        return f". {sentence}" if sentence else ""

    def __call__(self, attempt: Callable[..., Any]) -> None:
        """Print the verdict."""
        passed, message = self.verify(attempt)
        print({True: "✔", False: "✘", None: "…"}[passed], f"{self.task}: {message}")

    def hint(self, number: int = 1) -> Any:
        """The hint of that number, from 1, for a notebook to show."""
        from IPython.display import Markdown

        if not 1 <= number <= len(self.hints):
            return Markdown(f"> There are {len(self.hints)} hints: hint(1) to hint({len(self.hints)}).")
        return Markdown(f"> **Hint {number} of {len(self.hints)}.** {self.hints[number - 1]}")

    def reveal(self) -> Any:
        """The reference solution, folded, for a notebook to show."""
        from IPython.display import HTML

        source = html.escape(inspect.getsource(self.solution))
        return HTML(f"<details><summary>Solution: {html.escape(self.task)}</summary><pre>{source}</pre></details>")


def _as_tensor(x: Any) -> Tensor:
    if isinstance(x, tuple | list):
        return torch.stack([_as_tensor(v) for v in x])
    return torch.as_tensor(x, dtype=torch.float64).detach()


def _copies(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """So that an attempt which writes into its arguments does not change what comes after."""
    return tuple(v.clone() if isinstance(v, Tensor) else v for v in arguments)


def _first_difference(got: Tensor, wanted: Tensor, wrong: Tensor) -> str:
    if wanted.dim() == 0:
        return f"got {got.item():.6g}, wanted {wanted.item():.6g}"
    index = tuple(wrong.nonzero()[0].tolist())
    place = index[0] if len(index) == 1 else index
    return f"first difference at [{place}]: got {got[index].item():.6g}, wanted {wanted[index].item():.6g}"


def first_of(got: Tensor, wanted: Tensor, slips: dict[str, Tensor]) -> str | None:
    """The sentence of the first slip that gives what we got and is not right by accident."""

    def like(a: Tensor, b: Tensor) -> bool:
        return a.shape == b.shape and torch.allclose(a, b.double(), rtol=1e-6, atol=1e-12)

    return next((text for text, value in slips.items() if like(got, value) and not like(wanted, value)), None)


def normal(*shape: int, seed: int) -> Tensor:
    """Normal numbers, in double precision, for the arguments of a check."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
