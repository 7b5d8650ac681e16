"""Every rule finds neurons and a loss that it can train in the task that it is given."""

import pytest
import torch

from snnlearn import Rule, datasets, recipes, tasks
from snnlearn.neurons import Trace


@pytest.fixture(scope="module")
def samples():
    data = datasets.digits().train
    return data.x[:24], data.y[:24]


def scores(task, net, rule, x):
    with torch.no_grad():
        last = net(task.encode(x), rule)[-1]
        return task.loss.scores(last.s if isinstance(last, Trace) else last)


@pytest.mark.parametrize("name", recipes.listing())
def test_a_step_of_every_rule_lowers_its_loss(name, samples):
    x, y = samples
    task = tasks.suited("digits", name)
    net = task.network(torch.Generator().manual_seed(0))
    rule = recipes.make(name, net, torch.Generator().manual_seed(1))
    assert scores(task, net, rule, x).shape == (24, 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        values.append(rule.backward(net, task.encode(x), y, task.loss).item())
        assert net.layers[0].synapse.weight.grad.abs().max() > 0
        optimizer.step()
    assert values[-1] < values[0]


def test_suited_tasks_keep_the_name_and_the_samples():
    for name in recipes.listing():
        assert tasks.suited("digits", name).name == "digits"
        assert tasks.suited("digits", name).load is tasks.digits().load
    assert set(tasks.SUITED["digits"]) <= set(recipes.listing())


def test_readout_only_leaves_what_is_below(samples):
    x, y = samples
    task = tasks.readout_only(tasks.digits())
    net, free = (t.network(torch.Generator().manual_seed(0)) for t in (task, tasks.digits()))
    assert torch.equal(net.layers[0].synapse.weight, free.layers[0].synapse.weight)
    gradients = Rule().gradients(net, task.encode(x), y, task.loss)[1]
    assert list(gradients) == ["layers.1.synapse.weight"]
    wanted = Rule().gradients(free, task.encode(x), y, task.loss)[1]["layers.1.synapse.weight"]
    torch.testing.assert_close(gradients["layers.1.synapse.weight"], wanted)
    assert task.name != tasks.digits().name
