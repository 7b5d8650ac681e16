"""How often a network is right, in one process or several."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from snnlearn.datasets import Split
from snnlearn.events import EventNetwork, Events
from snnlearn.losses import accuracy
from snnlearn.network import Network
from snnlearn.rule import Rule
from snnlearn.tasks import Loss, Task
from snnlearn.training.distributed import Group

ALONE = Group()


def evaluate(net: Network | EventNetwork, rule: Rule, task: Task, split: Split, batch: int = 256) -> float:
    """The share of a split that the network answers rightly."""
    return share_right(net, rule, task, split, batch)


def share_right(
    net: Network | EventNetwork, rule: Rule, task: Task, split: Split, batch: int = 256, group: Group = ALONE
) -> float:
    """The same, the batches dealt out to the processes of a group."""
    if len(split) == 0:
        raise ValueError("the split is empty; nothing to evaluate")
    right, mode = 0.0, net.training
    like = next(net.parameters(), torch.empty(0))
    net.eval()
    with torch.no_grad():
        for i, (x, y) in enumerate(zip(split.x.split(batch), split.y.split(batch), strict=True)):
            if i % group.size != group.rank:
                continue
            outputs: Any = net(like_network(task.encode(x), like), rule)
            answer = outputs[-1] if isinstance(net, EventNetwork) else rule.spatial.answer(outputs)
            right += accuracy(task.loss.scores(answer), y.to(like.device)) * len(y)
    net.train(mode)
    return group.total(right, like.device) / len(split)


def like_network(x: Any, like: Tensor) -> Any:
    """Inputs in the network's dtype and on its device."""
    if isinstance(x, Events):
        return Events(x.times.to(like), x.neurons.to(like.device), x.size)
    return x.to(like) if isinstance(x, Tensor) else x


def loss_like_network(loss: Loss, like: Tensor) -> Loss:
    """A loss whose patterns are in the network's dtype and on its device."""
    if not is_dataclass(loss):
        return loss
    held = {field.name: getattr(loss, field.name) for field in fields(loss)}
    return replace(loss, **{k: v.to(like) for k, v in held.items() if isinstance(v, Tensor)})
