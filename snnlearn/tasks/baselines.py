"""What a task can be compared with."""

from __future__ import annotations

from dataclasses import replace

import torch

from snnlearn.datasets import Dataset, Split
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


def baselines(data: Dataset) -> dict[str, float]:
    """Test accuracy of two models that know no time: logistic regression and a support vector machine (RBF)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    def arrays(split: Split):
        return split.x.flatten(1).double().numpy(), split.y.numpy()

    models = {"logistic regression": LogisticRegression(max_iter=1000), "support vector machine": SVC()}
    return {name: float(m.fit(*arrays(data.train)).score(*arrays(data.test))) for name, m in models.items()}
