"""Several processes that train one network, each on its share of every batch.

All processes draw the same weights and the same order of the data, and each takes its share of the samples of a batch,
sizes that differ by one at most, or none where there are fewer samples than processes. After each gradient one
all-reduce adds up what they found, weighted by their shares, and all take the same step.

torch's DistributedDataParallel is right for models of `snnlearn.LIF`, and for a `Network` under rules backward in
time. It is not used here, because its hooks hang on one backward pass through one module's forward, where rules
forward in time have none and feedback that learns lies outside the module; and because it averages processes as equals,
which shares of different size are not. One mechanism that is right for every rule is also the smaller one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn

from snnlearn.events import EventNetwork
from snnlearn.losses import OverTime
from snnlearn.network import Network
from snnlearn.rule import Rule
from snnlearn.spatial import LocalErrors
from snnlearn.tasks import Loss
from snnlearn.training.precision import place


@dataclass(frozen=True)
class Group:
    """This process among those that train together.

    Args:
        rank: its number, from 0; the first one writes and prints.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def present(cls) -> Group:
        """The processes of torch's default group; this one alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def parts(self, chosen: Tensor, accumulate: int = 1) -> list[Tensor]:
        """The samples (n,) of a batch that this process has to look at, in at most ``accumulate`` pieces."""
        own = chosen.tensor_split(self.size)[self.rank]
        return [part for part in own.tensor_split(accumulate) if len(part)]

    def add_up(
        self, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], numbers: Sequence[float]
    ) -> tuple[list[Tensor | None], list[float]]:
        """Sums over all processes, in one exchange.

        Args:
            gradients: of each parameter; None where none was found. It stays None if no process has found one.
            parameters: what they are gradients of, all of one dtype and device.
            numbers: anything else.
        """
        if self.size == 1:
            return list(gradients), list(numbers)
        like = parameters[0]
        found = [float(g is not None) for g in gradients]
        parts = [(torch.zeros_like(p) if g is None else g) for g, p in zip(gradients, parameters, strict=True)]
        flat = torch.cat([*(part.flatten() for part in parts), like.new_tensor([*found, *numbers])])
        dist.all_reduce(flat)
        *sums, rest = flat.split([*(p.numel() for p in parameters), len(found) + len(numbers)])
        several = rest.tolist()
        whole = [
            part.view_as(p) if reached else None for part, p, reached in zip(sums, parameters, several, strict=False)
        ]
        return whole, several[len(found) :]

    def total(self, number: float, device: torch.device) -> float:
        """A number added up over all processes."""
        if self.size == 1:
            return number
        sums = torch.tensor([number], dtype=torch.float64, device=device)
        dist.all_reduce(sums)
        return sums.item()

    def alike(self, *modules: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.size > 1:
            for tensor in chain.from_iterable(module.state_dict().values() for module in modules):
                dist.broadcast(tensor, 0)

    def first(self, action: Callable[[], None]) -> None:
        """Do something in the first process alone. All wait for it, and raise what it raises."""
        error: Exception | None = None
        if self.rank == 0:
            try:
                action()
            except (ValueError, OSError) as raised:
                error = raised
        if self.size > 1:
            box = [error]
            dist.broadcast_object_list(box, 0)
            error = box[0]
        if error is not None:
            raise error


@contextmanager
def launched(device: str = "cpu") -> Iterator[Group]:
    """Join the processes that torchrun has started, by gloo on the CPU and nccl on GPUs; alone, do nothing.

    Args:
        device: "cpu", or "cuda" for the GPU whose number is this process' on its machine.

    Raises:
        ValueError: there is no GPU.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched() or dist.is_initialized():
        yield Group.present()
        return
    cuda = place(device).type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield Group.present()
    finally:
        dist.destroy_process_group()


def is_sum(loss: Loss) -> bool:
    """Whether a loss adds samples up; all others of this library average them, and one of your own has to."""
    return isinstance(loss, OverTime) and not loss.mean


def check_parts(net: Network | EventNetwork, rule: Rule) -> None:
    """Refuse what a part of a batch cannot know: then the parts' gradients do not add up to the batch's.

    Raises:
        ValueError: a module takes statistics of the batch or draws at random, or a regulariser looks at the batch.
    """
    advice = "use one process without accumulation"
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"{name} ({type(module).__name__}) takes its statistics over the whole batch, of which a process or "
                f"micro batch sees a part; {advice}, or another normalisation"
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training:
            raise ValueError(
                f"{name} ({type(module).__name__}) draws at random, and parts of a batch draw otherwise than the "
                f"whole; {advice}"
            )
    if isinstance(rule.spatial, LocalErrors) and rule.spatial.regularizer is not None:
        raise ValueError(
            "the regularizer of LocalErrors looks at the activity of the whole batch, of which a process or micro "
            f"batch sees a part; {advice}, or leave it out"
        )
