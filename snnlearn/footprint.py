"""How much memory a gradient takes, counted in one way for all rules.

What counts are the bytes of the tensor storages that the computation created and that are still alive, a storage once
however many tensors look at it. What existed before (inputs, weights) does not count, nor do the nodes of autograd's
graph and the scratch memory inside an operation. Counted on the reference path, without compiled kernels: to torch a
kernel is one operation, whatever it does.

    kept   backward rules: alive after the forward pass, for the sake of the backward pass
           forward rules: alive between two steps, the most of all steps
    peak   most bytes alive at once, forward and backward pass together
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from snnlearn import _checks, kernels
from snnlearn.events import EventNetwork
from snnlearn.network import Layer, Network
from snnlearn.rule import Loss, Rule
from snnlearn.temporal import Forward

Batch = tuple[Any, Tensor]


class Live(TorchDispatchMode):
    """Counts the bytes of the storages created inside its ``with`` block, as this module's docstring says.

    Attributes:
        alive: bytes alive now.
        peak: most bytes alive at once so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._seen: dict[int, weakref.ref] = {}
        self._bytes: dict[int, int] = {}  # of those seen, the ones created here

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise the first operation of a process imports torch's compiler, whose import keeps the tensors of the
        # frames around it alive until the next garbage collection.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.aten.lift_fresh.default:  # whose argument was made a moment ago, unseen
            for storage in _storages((args, tuple(kwargs.values()))):
                if id(storage) not in self._seen:
                    self._watch(storage)
        out = func(*args, **kwargs)
        for storage in _storages(out):
            if (new := id(storage) not in self._seen) or id(storage) in self._bytes:  # it may have been resized
                if new:
                    self._watch(storage)
                self.alive += storage.nbytes() - self._bytes.get(id(storage), 0)
                self._bytes[id(storage)] = storage.nbytes()
        self.peak = max(self.peak, self.alive)
        return out

    def _watch(self, storage: torch.UntypedStorage) -> None:
        self._seen[id(storage)] = weakref.ref(storage, partial(self._freed, id(storage)))

    def _freed(self, key: int, _: Any) -> None:
        del self._seen[key]
        self.alive -= self._bytes.pop(key, 0)


def _storages(x: Any) -> Iterator[torch.UntypedStorage]:
    if isinstance(x, Tensor):
        if x.layout is torch.strided:
            yield x.untyped_storage()
    elif isinstance(x, tuple | list):
        for entry in x:
            yield from _storages(entry)


class Work(TorchDispatchMode):
    """Counts the work done inside its ``with`` block.

    Attributes:
        operations: multiplications and additions of matrix products and convolutions, and one for each entry that
            any other operation makes. Views are free.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # see `Live`

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.operations += count(*args, **kwargs, out_val=out)
        elif not func.is_view:
            self.operations += sum(x.numel() for x in tree_leaves(out) if isinstance(x, Tensor))
        return out


def work(rule: Rule, net: Network | EventNetwork, x: Any, y: Tensor, loss: Loss) -> int:
    """The operations that one gradient takes, as `Work` counts them.

    Args:
        rule, net, x, y, loss: as `Rule.gradients`.
    """
    with kernels.off(), untouched(net), Work() as counted:
        rule.gradients(net, x, y, loss)
    return counted.operations


@dataclass(frozen=True)
class Memory:
    """Bytes that a gradient takes, as this module's docstring says."""

    kept: int
    peak: int


def measure(rule: Rule, net: Network | EventNetwork, x: Any, y: Tensor, loss: Loss) -> Memory:
    """The bytes that one gradient takes, by the rule's own way through time.

    Args:
        rule, net, x, y, loss: as `Rule.gradients`.
    """
    with kernels.off(), untouched(net), Live() as live:
        if isinstance(rule.temporal, Forward):
            rule.check(net, loss)
            kept, steps = 0, rule.temporal.steps(net, x, y, loss, rule)  # type: ignore[arg-type]
            while next(steps, None) is not None:  # what a step yields is used up before the next one
                kept = max(kept, live.alive)
            return Memory(kept, live.peak)
        value = rule.objective(net, x, y, loss)
        kept = live.alive
        torch.autograd.grad(value, rule.parameters(net), allow_unused=True, materialize_grads=True)
        return Memory(kept, live.peak)


def memory(
    rule: Rule, net: Network | EventNetwork, make: Callable[[int], Batch], loss: Loss, lengths: Sequence[int]
) -> dict[int, Memory]:
    """Memory against the length of a sequence.

    Args:
        rule, net, loss: as `Rule.gradients`.
        make: T -> (x, y), inputs of T steps and their targets.
        lengths: the T to try, each at least 1.
    """
    for T in lengths:
        _checks.whole("a length", T, least=1)
    return {T: measure(rule, net, *make(T), loss) for T in lengths}


def bytes_per_step(
    rule: Rule, layer: Layer, features: Sequence[int], *, stacked: bool = False, lengths: tuple[int, int] = (48, 96)
) -> float:
    """Bytes that a step of one neuron adds to what is kept for one sample: the slope of `Memory.kept` over T.

    Args:
        rule: a rule.
        layer: the layer.
        features: shape of a sample's input at one step.
        stacked: whether another layer lies on top, whose weights' gradient needs this layer's spikes kept as well.
        lengths: the two T between which the slope is taken.
    """
    short, long = lengths
    if not 1 <= short < long:
        raise ValueError(f"lengths must be two, 1 <= short < long, got {lengths}")
    net, y = Network(layer), torch.zeros(2)
    like = next(net.parameters(), y)
    x = torch.rand(long, 2, *features, generator=torch.Generator().manual_seed(0)).lt(0.3).to(like)
    with torch.no_grad(), untouched(net):
        neurons = net(x[:1], rule)[-1].U.numel()  # of both samples

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return out.square().sum() if stacked else out.sum()  # a square keeps its argument, a sum keeps nothing

    kept = [measure(rule, net, x[:T], y, loss).kept for T in lengths]
    return (kept[1] - kept[0]) / (long - short) / neurons


@contextmanager
def untouched(net: nn.Module, seed: int = 0) -> Iterator[None]:
    """Inside: random numbers from the seed, so that dropout is the same for every rule. After: all as it was before."""
    first = next(net.parameters(), None)
    cuda = [first.device] if first is not None and first.is_cuda else []
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    with torch.random.fork_rng(cuda):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds every device
        for device in cuda:
            torch.cuda.default_generators[device.index].manual_seed(seed)
        try:
            yield
        finally:
            for name, buffer in net.named_buffers():
                buffer.copy_(buffers[name])
