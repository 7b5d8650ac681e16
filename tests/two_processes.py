"""Two processes that train together, and one that does the same alone; a script whose results are files in a folder.

They are forked after torch was loaded, which spares the second its start.
"""

import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from snnlearn import (
    LIF,
    Adjoint,
    CrossEntropy,
    DirectFeedback,
    FeedbackAlignment,
    Layer,
    LocalErrors,
    Network,
    Rule,
    cuba_lif,
    readout,
    recipes,
    tasks,
    training,
)
from snnlearn.datasets import Dataset, Split
from snnlearn.losses import OverTime, cross_entropy
from snnlearn.spatial import keep_active

LEARNED = {
    "kolen_pollack": lambda net, g: Rule(temporal=Adjoint(), spatial=FeedbackAlignment.kolen_pollack(net, g)),
    "adaptive": lambda net, g: Rule(temporal=Adjoint(), spatial=DirectFeedback.adaptive(net, g)),
    "adaptive_eprop": lambda net, g: recipes.eprop(spatial=DirectFeedback.adaptive(net, g)),
    "trained_critics": lambda net, g: Rule(spatial=LocalErrors.random(net, g, trained=True)),
}
RULES = {name: partial(recipes.make, name) for name in recipes.listing()} | LEARNED
SUM = "a loss that adds samples up"


def few(task, train, others=4):
    """The task with a few of its samples."""
    data = task.load()
    first, *rest = (Split(s.x[:n], s.y[:n]) for s, n in zip(data[:3], (train, others, others), strict=True))
    return replace(task, load=lambda: Dataset(first, *rest, data.classes))


def task_for(name):
    """Six samples in batches of five: shares of three and two, then of one and none."""
    if name == SUM:
        loss = OverTime(cross_entropy, mean=False)
        return replace(few(tasks.digits_online(10, 8), 6), loss=loss, batch=5)
    task = tasks.suited("digits", "eprop" if name == "adaptive_eprop" else name)
    return replace(few(task, 6), batch=5, decay=0.1 if name in LEARNED else 0.0)


def gradients(name, **settings):
    """Losses and gradients of two steps, and the weights after them."""
    rule = RULES.get(name, RULES["bptt"])
    run = training._Run(task_for(name), rule, name, 0, 1, precision="float64", **settings)
    found = [(run.step(), [p.grad.clone() for p in run.parameters]) for _ in range(2)]
    return {"steps": found, "weights": [p.detach().clone() for p in run.parameters]}


TASK = replace(few(tasks.digits(10, 12), 43, 300), batch=11, epochs=3)  # the last batch has ten


def train(out=None, task=TASK, **settings):
    net, result = training.train(task, recipes.bptt(), name="bptt", out=out, precision="float64", **settings)
    return net, result


def interrupted(out, rank):
    """A signal reaches the second process alone; then both go on from the checkpoint."""
    plain = training._Run.step

    def step(self):
        if self.done == 5 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self)

    training._Run.step = step
    try:
        train(out)
        stopped = None
    except KeyboardInterrupt:
        stopped = training.read_checkpoint(out / training.CHECKPOINT)["done"]
    training._Run.step = plain
    return stopped, list(train(out, resume=True)[0].state_dict().values())


def refusal(action):
    try:
        action()
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def refusals(folder):
    """What makes no sense in parts, and what only the first process sees."""

    def network(*modules):
        def make(generator):
            synapse = nn.Sequential(nn.Linear(128, 8), *modules)
            return Network(Layer(synapse, cuba_lif()), Layer(nn.Linear(8, 10), readout()))

        return lambda: train(task=replace(TASK, network=make))

    def active():
        def rule(net, g):
            return Rule(spatial=LocalErrors.random(net, g, regularizer=keep_active))

        training.train(few(tasks.digits_online(10, 8), 6), rule)

    return {
        "BatchNorm1d": refusal(network(nn.BatchNorm1d(8))),
        "Dropout": refusal(network(nn.Dropout(0.5))),
        "regularizer": refusal(active),
        "folder": refusal(lambda: train(folder / "file")),
    }


def wrapped(kind, group):
    """Gradients under torch's own DistributedDataParallel, four samples in all; alone without it."""
    torch.manual_seed(3)
    x, y = (torch.rand(10, 4, 16) < 0.3).double(), torch.tensor([0, 1, 2, 1])
    x, y = (v.tensor_split(group.size, d)[group.rank] for v, d in ((x, 1), (y, 0)))
    if kind == "LIF":
        model = nn.Sequential(nn.Linear(16, 8), LIF(cuba_lif()), nn.Linear(8, 3), LIF(readout())).double()
        arguments = ()
    else:
        model = Network(Layer(nn.Linear(16, 8), cuba_lif()), Layer(nn.Linear(8, 3), readout())).double()
        arguments = (recipes.exodus(),)
    outer = nn.parallel.DistributedDataParallel(model) if group.size > 1 else model
    out = outer(x, *arguments)
    CrossEntropy()(out if kind == "LIF" else out[-1].s, y).backward()
    return [p.grad for p in model.parameters()]


def work(folder, group):
    """Everything, as one of the processes of a group."""
    own = folder / f"of {group.size}"
    found = {
        "gradients": {name: gradients(name) for name in (*RULES, SUM)},
        "accumulated": gradients("bptt", accumulate=2),
        "wrapped": {kind: wrapped(kind, group) for kind in ("LIF", "Network")},
    }
    net, result = train(own)
    found["net"], found["result"] = list(net.state_dict().values()), vars(result)
    if group.size > 1:
        found["interrupted"] = interrupted(folder / "interrupted", group.rank)
        found["refusals"] = refusals(folder)
    torch.save(found, folder / f"{group.rank} of {group.size}.pt")


def main(folder):
    torch.set_num_threads(1)
    (folder / "file").write_text("")
    work(folder, training.Group())
    child = os.fork()
    rank = int(child == 0)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    work(folder, training.Group.present())
    torch.distributed.destroy_process_group()
    if child:
        assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
