"""Neurons with constants that are learned, and what a layer takes for a neuron."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.neurons import Fire, Neuron
from snnlearn.resets import Constant


@runtime_checkable
class Dynamics(Protocol):
    """What a layer needs of a neuron: a `Neuron`, or other dynamics such as `snnlearn.srm.SRM`."""

    @property
    def constants(self) -> tuple[Constant, ...]:
        """What may be learned."""

    @property
    def theta(self) -> Constant:
        """The threshold."""

    @property
    def fire(self) -> Fire:
        """What leaves the neuron."""

    def start(self, a: Tensor) -> Any:
        """The state at rest for currents like ``a``."""

    def simulate(self, a: Tensor, *args: Any, **kwargs: Any) -> Any:
        """All steps of a sequence, with the arguments of `Neuron.simulate`."""


class Learned(nn.Module):
    """A neuron some of whose constants are learned: what is given as `nn.Parameter` is, the rest stays.

    The logarithm is what the optimiser moves, so a constant stays positive, and a step of 0.01 means 1 % whether
    the constant is 20 ms or a threshold of 1. One value serves the layer; a tensor like the features one each.

    Args:
        make: `iaf`, `lif`, `cuba_lif`, `readout` or any function of that kind.
        arguments: its arguments.

    >>> import torch
    >>> from snnlearn import lif
    >>> neuron = Learned(lif, tau_mem=nn.Parameter(torch.full((128,), 20e-3)), dt=1e-3)
    >>> [name for name, _ in neuron.named_parameters()]
    ['log.tau_mem']
    """

    def __init__(self, make: Callable[..., Neuron], **arguments: object):
        super().__init__()
        given = {k: v for k, v in arguments.items() if isinstance(v, nn.Parameter)}
        for name, value in given.items():
            _checks.positive(name, value.detach())
        self.make = make
        self.fixed = {k: v for k, v in arguments.items() if not isinstance(v, Tensor)}
        self.log = nn.ParameterDict({k: nn.Parameter(v.detach().log(), v.requires_grad) for k, v in given.items()})
        tensors = {k: v for k, v in arguments.items() if isinstance(v, Tensor) and k not in given}
        for name, tensor in tensors.items():  # buffers, so that they follow the module to another device or dtype
            self.register_buffer(name, tensor)
        self.tensors = list(tensors)
        self()  # wrong arguments are refused here, not in the first forward pass

    def constants(self) -> dict[str, Tensor]:
        """The learned constants, in their physical units."""
        return {name: value.exp() for name, value in self.log.items()}

    def forward(self) -> Neuron:
        """The neuron at the present values."""
        return self.make(**self.fixed, **{k: getattr(self, k) for k in self.tensors}, **self.constants())


def check_source(source: object) -> None:
    """Refuse what is neither a neuron nor a module that makes one."""
    made = source() if isinstance(source, nn.Module) else source
    if isinstance(made, type) or not isinstance(made, Dynamics):
        raise TypeError(f"neuron must be a Neuron such as lif(), or Learned(lif, ...), got {type(source).__name__}")
    if made is source and any(isinstance(c, Tensor) and c.requires_grad for c in made.constants):
        raise ValueError(
            "the neuron has constants that require a gradient; make it by Learned(lif, tau_mem=nn.Parameter(...))"
        )


def check_recurrent(recurrent: object) -> None:
    """Refuse a recurrent synapse that is no module or has a bias."""
    if recurrent is None:
        return
    if not isinstance(recurrent, nn.Module):
        raise TypeError(f"recurrent must be a torch module such as nn.Linear, got {type(recurrent).__name__}")
    if any(name.endswith("bias") for name, _ in recurrent.named_parameters()):
        raise ValueError("the recurrent synapse has a bias; give bias=False there and a bias to the synapse")


def as_neuron(source: Dynamics | nn.Module) -> Neuron:
    """A `Neuron` as it is, or what a module such as `Learned` makes at its present parameters."""
    return source() if isinstance(source, nn.Module) else source  # type: ignore[return-value]
