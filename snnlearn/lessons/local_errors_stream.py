"""Tutorial 11: a stream of digits, one after the other, and a network that learns while it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from snnlearn import datasets, encoding, recipes
from snnlearn.losses import OverTime, cross_entropy
from snnlearn.network import Network, decolle_layer
from snnlearn.online import Online
from snnlearn.surrogate import FastSigmoid

DT = 2e-3  # s
HOLD = 10  # steps a digit is shown, 20 ms
STREAMS, TOLD = 64, 32  # side by side; the rest is never told a name, and shows test images
SIZES, START = (80, 60), (15.0, 6.0)
TAU = {"tau_mem": 10e-3, "tau_syn": 2e-3}  # s; short, or the digit before would be remembered
RATE, CERTAIN, STEEP = 6.0, 5.0, 3.0
DIGITS, SWAP = 200, 100  # digits shown in each stream, and from where on they have other names
SHIFT = 5  # then a digit d is called (d + SHIFT) % 10


class Shown(NamedTuple):
    """What the streams show for HOLD steps."""

    x: Tensor  # (HOLD, STREAMS, 128), spikes
    name: Tensor  # (STREAMS,), what the digits are called
    told: Tensor  # (STREAMS,), the same for the first TOLD streams, and -1
    image: Tensor  # (64,), of the first stream that is not told
    digit: int  # that it really shows


class Life(NamedTuple):
    """What a learner did, digit after digit."""

    right: np.ndarray  # (digits, layers), share of the untold that each critic names rightly in the last half of HOLD
    scores: np.ndarray  # (digits, layers, classes), softmax of the first untold stream's scores, likewise
    images: np.ndarray  # (digits, 64), of that stream
    digits: np.ndarray  # (digits,)
    names: np.ndarray  # (digits,)
    bytes: dict[int, int]  # of all that the learner remembers, after so many steps
    swap: int


def network(generator: torch.Generator) -> Network:
    """Two DECOLLE layers, float32."""
    layers, inputs = [], 128
    for n, start in zip(SIZES, START, strict=True):
        synapse = nn.utils.skip_init(nn.Linear, inputs, n, dtype=torch.float32)
        with torch.no_grad():
            synapse.bias.zero_()
            synapse.weight.normal_(0, start / math.sqrt(inputs), generator=generator)
        layers.append(decolle_layer(synapse, **TAU, dt=DT))
        inputs = n
    return Network(*layers)


def told_only(out: Tensor, name: Tensor) -> Tensor:
    """Cross-entropy (B,) of outputs (B, C), 0 where the name is -1."""
    return torch.where(name >= 0, cross_entropy(out, name.clamp(min=0)), 0.0)


def learner(seed: int = 0, rate: float = RATE) -> Online:
    """A new network that learns at every step, by plain gradient descent."""
    g = torch.Generator().manual_seed(seed)
    net = network(g)
    surrogate = FastSigmoid.from_steepness(STEEP)
    rule = recipes.decolle(net, g, classes=10, surrogate=surrogate, scale=CERTAIN)
    optimizer = torch.optim.SGD(rule.parameters(net), lr=rate)
    return rule.online(net, optimizer, OverTime(told_only, mean=True))


def shown(digits: int = DIGITS, swap: int = SWAP, seed: int = 5) -> Iterator[Shown]:
    """Images drawn at random: training images for the streams that are told, test images for the others."""
    g, data = torch.Generator().manual_seed(seed), datasets.digits()
    for k in range(digits):
        i = torch.randint(len(data.train), (TOLD,), generator=g)
        j = torch.randint(len(data.test), (STREAMS - TOLD,), generator=g)
        images, y = torch.cat([data.train.x[i], data.test.x[j]]), torch.cat([data.train.y[i], data.test.y[j]])
        name = y if k < swap else (y + SHIFT) % 10
        told = torch.cat([name[:TOLD], torch.full_like(name[TOLD:], -1)])
        yield Shown(encoding.latency(encoding.on_off(images), HOLD), name, told, images[TOLD], int(y[TOLD]))


def critics(learner: Online) -> list[Tensor]:
    """What each layer's critic says at this step, (STREAMS, classes): read from the learner's explicit state."""
    assert learner.state is not None
    spatial: Any = learner.rule.spatial
    return spatial.scores([layer.state for layer in learner.state.carry.layers])


def live(learner: Online, stream: Iterator[Shown], *, swap: int = SWAP) -> Life:
    """Let a learner live through a stream, and write down what its critics say."""
    rows: list[tuple[Any, ...]] = []
    sizes, steps = {}, 0
    for now in stream:
        said = []
        for x in now.x:
            learner.step(x.clone(), now.told)  # a view would keep all of now.x alive
            said.append(torch.stack(critics(learner)))
            steps += 1
            if steps % 100 == 0:
                sizes[steps] = remembered(learner.state)
        mean = torch.stack(said)[HOLD // 2 :].mean(0)[:, TOLD:]  # (layers, untold streams, classes)
        share = (mean.argmax(-1) == now.name[TOLD:]).double().mean(-1).numpy()
        first = mean[:, 0].softmax(-1).numpy()
        rows.append((share, first, now.image.numpy(), now.digit, int(now.name[TOLD])))
    right, scores, images, digits, names = (np.array(column) for column in zip(*rows, strict=True))
    return Life(right, scores, images, digits, names, sizes, swap)


def remembered(state: Any) -> int:
    """Bytes of all tensors in a nest of tuples, lists and dicts, a storage once."""
    found: dict[int, int] = {}

    def look(part: Any) -> None:
        if isinstance(part, Tensor):
            found[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
        elif isinstance(part, dict):
            look(tuple(part.values()))
        elif isinstance(part, tuple | list) and not isinstance(part, torch.Size):
            for inner in part:
                look(inner)

    look(state)
    return sum(found.values())


def running(right: np.ndarray, over: int = 10) -> np.ndarray:
    """Mean over the last few digits, fewer at the start; (digits, layers)."""
    total = np.cumsum(np.vstack([np.zeros_like(right[:1]), right]), 0)
    at = np.arange(1, len(total))
    low = np.maximum(at - over, 0)
    return (total[at] - total[low]) / (at - low)[:, None]
