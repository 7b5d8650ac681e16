"""What a task can be compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from snnlearn.datasets import Dataset, Recordings
from snnlearn.events import EventNetwork
from snnlearn.network import Network
from snnlearn.tasks.base import Task


def readout_only(task: Task) -> Task:
    """The same task with all layers but the last left as they were drawn: what a rule for hidden layers has to beat."""

    def network(generator: torch.Generator) -> Network | EventNetwork:
        net = task.network(generator)
        for layer in net.layers[:-1]:
            layer.requires_grad_(False)
        return net

    return replace(task, name=f"{task.name}-readout-only", network=network)


BINS = 20  # of a second


def baselines(data: Dataset) -> dict[str, float]:
    """Test accuracy of models that are not spiking networks.

    Of images: logistic regression and a support vector machine (RBF) on the pixels. Of `Recordings`: the same two on
    how often each unit fired, which knows nothing of time, and logistic regression on the counts in bins of 50 ms of
    the first second, which knows all of it. Counts are divided by their standard deviation.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    def shares(see: Callable[[Any], Tensor], models: dict[str, Any]) -> dict[str, float]:
        (x, y), (test_x, test_y) = (
            (see(split.x).flatten(1).double().numpy(), split.y.numpy()) for split in (data.train, data.test)
        )
        return {name: float(model.fit(x, y).score(test_x, test_y)) for name, model in models.items()}

    if not isinstance(data.train.x, Recordings):
        pixels = {"logistic regression": LogisticRegression(max_iter=1000), "support vector machine": SVC()}
        return shares(lambda x: x, pixels)

    def linear() -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))

    def binned(x: Recordings) -> Tensor:
        parts = [part.dense(1000).unflatten(0, (BINS, -1)).sum(1) for part in x.split(128)]
        return torch.cat(parts, 1).transpose(0, 1)

    counts = {"linear, on counts": linear(), "RBF machine, on counts": make_pipeline(StandardScaler(), SVC(C=10.0))}
    return shares(Recordings.counts, counts) | shares(binned, {"linear, on time bins": linear()})
