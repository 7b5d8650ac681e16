"""Spoken digits as tasks: the networks, the forms that the rules need, and the shifts along the ear."""

import pytest
import torch

from snnlearn import datasets, recipes, tasks
from snnlearn.datasets import Recordings, Split
from snnlearn.tasks import PRESETS
from snnlearn.training import evaluate, train


@pytest.fixture(scope="module")
def data():
    return datasets.spoken()


def test_inputs_are_the_spikes_of_a_second_and_no_word_is_cut(data):
    task = tasks.spoken()
    x = task.encode(data.test.x[:50])
    assert x.shape == (75, 50, 70)
    for split in data[:3]:
        assert split.x.times.max() < 75 * 10_000
    assert (x.sum(0) <= data.test.x[:50].counts()).all()


@pytest.mark.parametrize("preset", PRESETS["spoken"])
def test_presets_answer_for_twenty_classes(data, preset):
    task = tasks.suited("spoken", "exodus", preset)
    net = task.network(torch.Generator().manual_seed(0))
    rule = recipes.make("exodus", net, torch.Generator())
    traces = net(task.encode(data.train.x[:3]), rule)
    assert traces[-1].s.shape == (75, 3, 20)
    assert all(0.01 < trace.s.mean() < 0.5 for trace in traces[:-1])  # neither silent nor always on
    assert (net.layers[0].recurrent is not None) == (preset == "recurrent")


@pytest.mark.parametrize("name", [name for name in recipes.listing() if name != "rtrl"])
def test_a_few_steps_of_every_rule_lower_its_loss(data, name):
    x, y = data.train.x[:12], data.train.y[:12]
    task = tasks.suited("spoken", name)
    net = task.network(torch.Generator().manual_seed(0))
    rule = recipes.make(name, net, torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(rule.parameters(net), lr=1e-3)
    values = []
    for _ in range(6):
        optimizer.zero_grad()
        values.append(rule.backward(net, task.encode(x), y, task.loss).item())
        assert net.layers[0].synapse.weight.grad.abs().max() > 0
        optimizer.step()
    assert values[-1] < values[0]


def test_rtrl_has_a_form_small_enough_for_it(data):
    task = tasks.suited("spoken", "rtrl")
    net = task.network(torch.Generator().manual_seed(0))
    assert net.layers[0].synapse.out_features == 8
    recipes.rtrl().check(net, task.loss)


def test_rules_forward_in_time_take_the_recurrent_network_too():
    for name in ("eprop", "ottt"):
        task = tasks.suited("spoken", name, "recurrent")
        net = task.network(torch.Generator().manual_seed(0))
        recipes.make(name, net, torch.Generator()).check(net, task.loss)
        assert net.layers[0].recurrent is not None


@pytest.mark.parametrize("name", ["superspike", "tssl_bp", "eventprop", "decolle"])
def test_rules_with_neurons_of_their_own_refuse_another_network(name):
    with pytest.raises(ValueError, match="leave the preset out"):
        tasks.suited("spoken", name, "recurrent")


def test_direct_feedback_to_convolutions_is_drawn_in_python():
    with pytest.raises(ValueError, match=r"features=\(70,\)"):
        tasks.suited("spoken", "direct_feedback_alignment", "conv")
    net = tasks.spoken("conv").network(torch.Generator().manual_seed(0))
    rule = recipes.direct_feedback_alignment(net, torch.Generator(), features=(70,))
    rule.check(net, tasks.spoken("conv").loss)


def test_a_preset_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="feedforward, recurrent, conv"):
        tasks.suited("spoken", "bptt", "convolutional")
    with pytest.raises(ValueError, match="feedforward, recurrent, conv"):
        tasks.spoken("deep")
    with pytest.raises(ValueError, match="it has none"):
        tasks.suited("digits", "bptt", "recurrent")


def test_a_shift_moves_all_spikes_of_a_sample_alike_and_loses_those_that_leave_the_ear():
    shifted = tasks.spoken().augment
    units = torch.tensor([0, 35, 69])
    x = Recordings(torch.tensor([5, 6, 7]).repeat(200), units.repeat(200), torch.arange(0, 601, 3), (70,), None)
    moved = shifted(x, torch.Generator().manual_seed(0))
    assert len(moved) == 200
    seen = set()
    for n in range(200):
        one = moved[torch.tensor([n])]
        (by,) = {int(unit) - 35 for unit in one.units if 30 < unit < 40}
        assert one.units.tolist() == [u + by for u in units.tolist() if 0 <= u + by < 70]
        assert one.times.tolist() == [t for t, u in ((5, 0), (6, 35), (7, 69)) if 0 <= u + by < 70]
        seen.add(by)
    assert seen == {-2, -1, 0, 1, 2}
    again = shifted(x, torch.Generator().manual_seed(0))
    assert torch.equal(moved.units, again.units)


def few(data, n):
    return data._replace(**{name: Split(s.x[:n], s.y[:n]) for name, s in zip(data._fields[:3], data[:3], strict=True)})


def test_shifts_are_drawn_for_training_alone_and_from_the_seed(data, monkeypatch):
    from dataclasses import replace

    drawn = []

    def augment(x, generator):
        drawn.append(len(x))
        return tasks.spoken().augment(x, generator)

    part = few(data, 40)
    task = replace(tasks.spoken(hidden=8), load=lambda: part, batch=16, augment=augment)
    net, result = train(task, recipes.exodus(), seed=3, epochs=2)
    assert drawn == [16, 16, 8] * 2
    weights = net.layers[0].synapse.weight.clone()
    assert torch.equal(train(task, recipes.exodus(), seed=3, epochs=2)[0].layers[0].synapse.weight, weights)
    still = replace(task, augment=None)
    assert not torch.equal(train(still, recipes.exodus(), seed=3, epochs=2)[0].layers[0].synapse.weight, weights)
    assert evaluate(net, recipes.exodus(), task, part.test) == result.test_accuracy
    halves, _ = train(task, recipes.exodus(), seed=3, epochs=2, accumulate=2)
    torch.testing.assert_close(halves.layers[0].synapse.weight, weights, atol=1e-4, rtol=0)


def test_baselines_of_recordings_know_the_time_or_do_not(data):
    by_time = few(data, 300)
    shares = tasks.baselines(by_time)
    assert list(shares) == ["linear, on counts", "RBF machine, on counts", "linear, on time bins"]
    assert all(0 <= share <= 1 for share in shares.values())
    shares_again = tasks.baselines(few(data, 300))
    assert shares == shares_again
    assert shares["linear, on time bins"] > shares["linear, on counts"] + 0.1
