"""NIR: round trips to the bit, closed forms, other libraries that read and write it, broken graphs and files."""

import copy
import struct
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from snnlearn import LIF, SRM, Bounded, Layer, Learned, Network, Neuron, PerStep, Threshold, alif, interchange, recipes
from snnlearn.interchange import RESETS, Scale, from_nir, read, to_nir, write
from snnlearn.interchange.files import check_heaps, read_graph
from snnlearn.network import decolle_layer
from snnlearn.neurons import cuba_lif, euler_decay, exp_decay, iaf, lif, readout
from snnlearn.resets import no_reset, subtract, subtract_decayed, to_zero
from snnlearn.surrogate import FastSigmoid

nir = pytest.importorskip("nir", reason="NIR needs the package nir")
RULE = recipes.bptt()
STRICT = Threshold(strict=True)


@pytest.fixture(autouse=True, params=[torch.float64], ids=["f64"])
def dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    torch.manual_seed(0)
    yield request.param
    torch.set_default_dtype(before)


BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"], indirect=True)


def linear(inputs, outputs, scale=1.0, bias=True):
    module = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        module.weight.mul_(scale)
    return module


def spikes(*features, steps=40, batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(steps, batch, *features, generator=generator) < 0.4).to(torch.get_default_dtype())


def chain(*nodes):
    """A graph of nodes in a row, the shapes unchecked."""
    names = [f"n{i}" for i in range(len(nodes))]
    edges = list(pairwise(names))
    return nir.NIRGraph(dict(zip(names, nodes, strict=True)), edges, type_check=False)


def source(*shape):
    return nir.Input(input_type={"input": np.array(shape)})


def sink(*shape):
    return nir.Output(output_type={"output": np.array(shape)})


def full(value, size=3):
    return np.full(size, float(value))


def affine(inputs=2, outputs=3):
    return nir.Affine(weight=np.ones((outputs, inputs)), bias=np.zeros(outputs))


def lif_node(**changes):
    given = {"tau": full(0.02), "r": full(1), "v_leak": full(0), "v_threshold": full(1), "v_reset": full(0)}
    return nir.LIF(**(given | changes))


def simple(**changes):
    return chain(source(2), affine(), lif_node(**changes), sink(3))


# Our own round trip.


def variety():
    """Networks with every kind of node, by name: network and shape of the input."""
    several = torch.tensor([0.01, 0.02, 0.03, 0.04])
    recurrent = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    with torch.no_grad():
        recurrent.weight.mul_(0.3)
    return {
        "lif": (Network(Layer(linear(5, 4, 2), lif(), gain=0.7)), (5,)),
        "lif each its own": (
            Network(Layer(linear(5, 4, 3), Learned(lif, tau_mem=nn.Parameter(several), theta=several * 30))),
            (5,),
        ),
        "cuba_lif": (Network(Layer(linear(5, 4), cuba_lif(tau_mem=several, reset=subtract_decayed))), (5,)),
        "cuba_lif euler": (Network(Layer(linear(5, 4), cuba_lif(decay=euler_decay, reset=to_zero))), (5,)),
        "if": (Network(Layer(linear(5, 4), iaf(theta=0.9, fire=STRICT), gain=0.3)), (5,)),
        "several spikes": (Network(Layer(linear(5, 4, 9), iaf(fire=Threshold(most=3)))), (5,)),
        "no reset": (Network(Layer(linear(5, 4), lif(reset=no_reset))), (5,)),
        "readout": (Network(Layer(linear(5, 4, 3), lif()), Layer(linear(4, 2, bias=False), readout())), (5,)),
        "readout with synapse": (Network(Layer(linear(5, 4), readout(tau_syn=5e-3), gain=2.0)), (5,)),
        "integrator": (Network(Layer(linear(5, 4), Neuron(0.0, 1.0, 1.0, no_reset, readout().fire))), (5,)),
        "no memory": (Network(Layer(linear(5, 4), Neuron(0.0, 0.0, 1.0, no_reset, readout().fire), gain=3.0)), (5,)),
        "recurrent": (
            Network(
                Layer(linear(5, 4, 2), lif(), linear(4, 4, 2, bias=False), lag=3, gain=0.6, delay=2),
                Layer(linear(4, 4, 4), cuba_lif(), linear(4, 4, 2, bias=False)),
            ),
            (5,),
        ),
        "conv": (
            Network(
                Layer(nn.Conv2d(2, 3, 3, padding=1, bias=False), lif(theta=0.3), recurrent, delay=1),
                Layer(nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 6, (3, 2), stride=(1, 2), groups=3)), iaf(theta=0.2)),
                Layer(nn.Sequential(nn.AvgPool2d(2, divisor_override=1), nn.Flatten()), lif(theta=0.5)),
                Layer(linear(6, 2), readout()),
            ),
            (2, 8, 8),
        ),
        "conv1d": (
            Network(
                Layer(nn.Conv1d(2, 3, 3, stride=2, padding="valid", dilation=2), lif(theta=0.2)),
                Layer(nn.Flatten(), lif(theta=0.4)),
            ),
            (2, 11),
        ),
        "scale": (
            Network(Layer(nn.Sequential(linear(5, 4), Scale(several * 100)), lif()), Layer(nn.Identity(), iaf())),
            (5,),
        ),
        "nothing before": (Network(Layer(nn.Identity(), lif(theta=0.7))), (5,)),
    }


KINDS = [
    "lif", "lif each its own", "cuba_lif", "cuba_lif euler", "if", "several spikes", "no reset", "readout",
    "readout with synapse", "integrator", "no memory", "recurrent", "conv", "conv1d", "scale", "nothing before",
]  # fmt: skip


def same(net, other, x):
    for mine, its in zip(net(x, RULE), other(x, RULE), strict=True):
        assert its.U.dtype == mine.U.dtype
        assert torch.equal(mine.U, its.U)
        assert torch.equal(mine.s, its.s)


@BOTH
@pytest.mark.parametrize("decay", [exp_decay, euler_decay], ids=["exp", "euler"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_keeps_every_bit(kind, decay, dtype, tmp_path):
    net, shape = variety()[kind]
    x = spikes(*shape)
    out = net(x, RULE)[-1].s
    assert out.any()
    assert out.dtype == dtype
    write(net, tmp_path / "net.nir", dt=1e-3, decay=decay, input_shape=shape)
    same(net, read(tmp_path / "net.nir"), x)
    same(net, from_nir(to_nir(net, decay=decay, input_shape=shape)), x)


def test_every_kind_is_listed():
    assert list(variety()) == KINDS


@pytest.mark.parametrize("reset", RESETS.values(), ids=RESETS)
def test_every_reset_comes_back(reset):
    net = Network(Layer(linear(5, 4, 2), lif(reset=reset)))
    assert from_nir(to_nir(net)).layers[0].neuron.reset is reset


def test_layers_come_back_as_they_were():
    net = variety()["recurrent"][0]
    back = from_nir(to_nir(net))
    assert list(back.state_dict()) == list(net.state_dict())
    for layer, other in zip(net.layers, back.layers, strict=True):
        assert (layer.delay, layer.lag, layer.gain) == (other.delay, other.lag, other.gain)
        assert repr(layer.neuron) == repr(other.neuron)


def test_a_sequential_of_lif_modules():
    model = nn.Sequential(
        PerStep(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())),
        LIF(lif(theta=0.2)),
        linear(32, 3),
        LIF(),
        linear(3, 2),
    )
    x = spikes(1, 6, 6)
    net = from_nir(to_nir(model, input_shape=(1, 6, 6)))
    assert torch.equal(net(x, RULE)[-1].s, model(x))


def test_a_node_that_was_changed_is_read_as_it_is_now():
    net = Network(Layer(linear(5, 4), lif(tau_mem=20e-3), gain=0.5))
    graph = to_nir(net)
    graph.nodes["lif_0"].tau[:] = 10e-3
    layer = from_nir(graph).layers[0]
    assert layer.neuron.beta == pytest.approx(exp_decay(10e-3, 1e-3), rel=1e-14)
    assert layer.gain == pytest.approx(0.5 / (1 - exp_decay(20e-3, 1e-3)) * (1 - exp_decay(10e-3, 1e-3)), rel=1e-14)


def test_a_bias_that_was_added_later_is_read():
    graph = to_nir(Network(Layer(nn.Conv1d(1, 2, 3, bias=False), lif())), input_shape=(1, 5))
    graph.nodes["conv1d_0"].bias[:] = 2.0
    assert from_nir(graph).layers[0].synapse.bias.tolist() == [2.0, 2.0]


def test_arguments_prevail_over_what_the_graph_says():
    graph = to_nir(Network(Layer(linear(5, 4), lif(tau_mem=20e-3))))
    neuron = from_nir(graph, reset=to_zero, strict=True, decay=euler_decay).layers[0].neuron
    assert neuron.reset is to_zero
    assert neuron.fire == STRICT
    assert neuron.beta == pytest.approx(0.95, rel=1e-12)


# What the graph says, by another's arithmetic.


def integrate(graph, x, duration, step):
    """NIR's equations of one row of nodes by Euler in steps of ``step``, the new current used for the voltage.

    No metadata, nothing of the package: x is held, and nothing spikes. Returns the output at the end.
    """
    order, at = [], "input"
    while at != "output":
        (at,) = (b for a, b in graph.edges if a == at)
        order.append(graph.nodes[at])
    state = {}
    for _ in range(round(duration / step)):
        y = x
        for i, node in enumerate(order):
            kind = type(node).__name__
            if kind == "Affine":
                y = node.weight @ y + node.bias
            elif kind in ("LI", "LIF"):
                v = state.get(i, 0.0)
                y = state[i] = v + step / node.tau * (-v + node.r * y)
            elif kind in ("I", "IF"):
                y = state[i] = state.get(i, 0.0) + step * node.r * y
            elif kind in ("CubaLI", "CubaLIF"):
                current, v = state.get(i, (0.0, 0.0))
                current = current + step / node.tau_syn * (-current + node.w_in * y)
                v = v + step / node.tau_mem * (-v + node.r * current)
                state[i], y = (current, v), v
            else:
                assert kind == "Output"
    return y


HELD = {
    "LI": readout(),
    "CubaLI": readout(tau_syn=5e-3),
    "I": Neuron(0.0, 1.0, 1.0, no_reset, readout().fire),
    "LIF": lif(theta=1e6),
    "CubaLIF": cuba_lif(theta=1e6),
    "IF": iaf(theta=1e6),
}


def held(kind, steps, dt=1e-3, decay=exp_decay):
    """Membranes of a layer under a held input, its export, and that input."""
    neuron = HELD[kind]
    net = Network(Layer(linear(3, 2), neuron, gain=0.8))
    x = torch.tensor([0.3, 1.0, -0.5])
    return net(x.expand(steps, 1, 3), RULE)[0].U[:, 0].detach().numpy(), to_nir(net, dt=dt, decay=decay), x.numpy()


@pytest.mark.parametrize("kind", HELD)
def test_euler_of_our_export_is_our_recursion(kind):
    U, graph, x = held(kind, 30, decay=euler_decay)
    for n in (1, 2, 30):
        np.testing.assert_allclose(integrate(graph, x, n * 1e-3, 1e-3), U[n - 1], rtol=1e-12)


@pytest.mark.parametrize("kind", ["LI", "LIF", "I", "IF"])
def test_the_continuous_neuron_goes_through_our_membrane(kind):
    U, graph, x = held(kind, 15)
    node = graph.nodes[f"{kind.lower()}_0"]
    a = graph.nodes["affine_0"].weight @ x + graph.nodes["affine_0"].bias
    t = (np.arange(15) + 1)[:, None] * 1e-3
    exact = node.r * a * ((1 - np.exp(-t / node.tau)) if hasattr(node, "tau") else t)
    np.testing.assert_allclose(U, exact, rtol=1e-12)
    if hasattr(node, "tau"):
        np.testing.assert_allclose(node.tau, 20e-3, rtol=1e-12)
    np.testing.assert_allclose(integrate(graph, x, 15e-3, 1e-6), U[-1], rtol=1e-4)  # the equations, not our formula


def test_the_membrane_behind_a_synapse_is_of_first_order_and_exact_at_rest():
    U, graph, x = held("CubaLI", 2000)
    limit = integrate(graph, x, 15e-3, 1e-6)
    drive = torch.from_numpy(x)
    errors = []
    for k in (1, 2, 4, 8):
        finer = from_nir(graph, dt=1e-3 / k)
        errors.append(np.abs(finer(drive.expand(15 * k, 1, 3), RULE)[0].U[-1, 0].detach().numpy() - limit).max())
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert ((ratios > 1.8) & (ratios < 2.2)).all(), ratios
    node = graph.nodes["cubali_0"]
    a = graph.nodes["affine_0"].weight @ x + graph.nodes["affine_0"].bias
    np.testing.assert_allclose(U[-1], node.r * node.w_in * a, rtol=1e-12)


def test_delays_and_loops_are_nodes():
    graph = to_nir(variety()["recurrent"][0], dt=2e-3)
    np.testing.assert_allclose(graph.nodes["delay_0"].delay, 4e-3)
    np.testing.assert_allclose(graph.nodes["lag_0"].delay, 4e-3)  # lag 3; a loop alone takes one step
    assert {("lif_0", "lag_0"), ("lag_0", "recurrent_linear_0"), ("recurrent_linear_0", "lif_0")} <= set(graph.edges)
    assert {("cubalif_1", "recurrent_linear_1"), ("recurrent_linear_1", "cubalif_1")} <= set(graph.edges)
    assert graph.nodes["lif_0"].r == pytest.approx(1 / (1 - exp_decay(20e-3, 1e-3)))  # the gain is a node of its own
    finer = from_nir(graph, dt=1e-3).layers[0]
    assert (finer.delay, finer.lag) == (4, 5)


# Other libraries.


def alike(make, gain, scales, sizes=(10, 20, 5)):
    """Two layers in float32, which is what the other libraries compute in."""
    layers = [
        Layer(linear(a, b, scale), make(), gain=gain) for (a, b), scale in zip(pairwise(sizes), scales, strict=True)
    ]
    return Network(*layers)


def by_norse(graph, x, **options):
    norse = pytest.importorskip("norse.torch", reason="norse is not installed")
    model = norse.from_nir(copy.deepcopy(graph), ignore_warnings=True, **options)
    return stepped(model, x)


def stepped(model, x):
    """Spikes of a norse model that takes one step and its state at a time."""
    state, out = None, []
    with torch.no_grad():
        for x_n in x:
            y, state = model(x_n, state)
            out.append(y)
    return torch.stack(out)


def closest(traces):
    """How near a membrane comes to its threshold of 1; above rounding in float32 no spike hangs on that."""
    return min((trace.U - 1).abs().min().item() for trace in traces)


EULER = {"decay": euler_decay, "fire": STRICT}
# Threshold on, reset to zero, Euler: what norse does. Without r in its LIF the gain must be 1 - beta.
NORSE = {
    "LIF": (lambda **k: lif(**(EULER | {"reset": to_zero} | k)), 1 - euler_decay(20e-3, 1e-3), (40, 60)),
    "IF": (
        lambda **k: iaf(**({"reset": to_zero, "fire": STRICT} | {n: v for n, v in k.items() if n != "decay"})),
        1.0,
        (1.5, 3),
    ),
    "CubaLIF": (lambda **k: cuba_lif(**(EULER | {"reset": to_zero} | k)), 0.3, (2, 2)),
}


@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["f32"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", NORSE)
def test_norse_spikes_as_we_do(kind, seed, dtype):
    make, gain, scales = NORSE[kind]
    torch.manual_seed(seed)
    net = alike(make, gain, scales)
    x = spikes(10, steps=100, batch=4, seed=seed)
    traces = net(x, RULE)
    assert all(0.005 < trace.s.mean().item() < 0.6 for trace in traces)
    assert closest(traces) > 1e-6  # so that the other order of its additions changes no spike
    graph = to_nir(net, dt=1e-3, decay=euler_decay, portable=True)
    assert torch.equal(by_norse(graph, x, dt=1e-3), traces[-1].s)


@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["f32"])
def test_norse_subtracts_in_the_step_of_the_spike(dtype):
    reset = pytest.importorskip("norse.torch.functional.reset", reason="norse is not installed")
    make, gain, scales = NORSE["CubaLIF"]
    net = alike(lambda: make(reset=subtract_decayed), gain, scales)
    x = spikes(10, steps=100, batch=4)
    traces = net(x, RULE)
    assert closest(traces) > 1e-6
    out = by_norse(to_nir(net, decay=euler_decay), x, dt=1e-3, reset_method=reset.reset_subtract)
    assert torch.equal(out, traces[-1].s)
    late = alike(lambda: make(reset=subtract), gain, scales)  # one step later it is another neuron
    late.load_state_dict(net.state_dict())
    assert not torch.equal(out, late(x, RULE)[-1].s)


@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["f32"])
@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"reset": subtract}, {"decay": euler_decay}),
        ({"decay": exp_decay}, {"decay": exp_decay}),
        ({}, {"decay": exp_decay}),
    ],
    ids=["reset", "decay of both", "decay of the export"],
)
def test_unreconciled_norse_spikes_otherwise(change, options, dtype):
    make, gain, scales = NORSE["CubaLIF"]
    net = alike(lambda: make(**change), gain, scales)
    x = spikes(10, steps=100, batch=4)
    assert not torch.equal(by_norse(to_nir(net, **options), x, dt=1e-3), net(x, RULE)[-1].s)


@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["f32"])
@pytest.mark.parametrize("strict", [True, False])
def test_norse_stays_silent_on_the_threshold_itself(strict, dtype):
    net = Network(Layer(linear(1, 1, bias=False), iaf(reset=to_zero, fire=Threshold(strict=strict))))
    with torch.no_grad():
        net.layers[0].synapse.weight.fill_(0.5)  # U = 0.5, 1.0, 1.5: no rounding
    x = torch.ones(3, 1, 1)
    assert net(x, RULE)[0].s.flatten().tolist() == ([0, 0, 1] if strict else [0, 1, 0])
    assert by_norse(to_nir(net), x, dt=1e-3).flatten().tolist() == [0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["f32"])
def test_norse_ignores_the_resistance_of_a_lif(dtype):
    make, gain, scales = NORSE["LIF"]
    net = alike(make, 2 * gain, scales)
    x = spikes(10, steps=100, batch=4)
    assert not torch.equal(by_norse(to_nir(net, decay=euler_decay), x, dt=1e-3), net(x, RULE)[-1].s)


@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["f32"])
@pytest.mark.parametrize("seed", range(3))
def test_we_spike_as_norse_whose_graph_we_read(seed, dtype, tmp_path):
    norse = pytest.importorskip("norse.torch", reason="norse is not installed")
    torch.manual_seed(seed)
    inverse = torch.tensor(1 / 20e-3)
    cells = [norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=inverse), dt=1e-3) for _ in range(2)]
    model = norse.SequentialState(linear(10, 20, 40), cells[0], linear(20, 5, 60), cells[1])
    x = spikes(10, steps=100, batch=4, seed=seed)
    graph = norse.to_nir(model, x[0, 0], dt=1.0)  # it multiplies the time constants by this dt
    net = from_nir(graph, dt=1e-3, decay=euler_decay)
    traces = net(x, RULE)
    assert closest(traces) > 1e-6
    out = stepped(model, x)
    assert out.any()
    assert torch.equal(traces[-1].s, out)
    assert not torch.equal(from_nir(graph, dt=1e-3, decay=euler_decay, reset=subtract)(x, RULE)[-1].s, out)


@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["f32"])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_snntorch_spikes_as_we_do(kind, dtype, capsys):
    importer = pytest.importorskip("snntorch.import_nir", reason="snntorch is not installed")
    dt = 1e-4  # the only one that it knows
    make = NORSE[kind][0]
    times = {"tau_mem": 2e-3, "dt": dt} | ({"tau_syn": 1e-3} if kind == "CubaLIF" else {})
    net = alike(lambda: make(**times), 1.0, (1.5, 2))
    x = spikes(10, steps=100, batch=4)
    traces = net(x, RULE)
    assert all(0.005 < trace.s.mean().item() < 0.6 for trace in traces)
    assert closest(traces) > 1e-6
    model = importer.import_from_nir(to_nir(net, dt=dt, decay=euler_decay, portable=True))
    with torch.no_grad():
        out = torch.stack([y[0] if isinstance(y := model(x_n), tuple) else y for x_n in x])
    assert torch.equal(out, traces[-1].s)


# Graphs by hand, as others write them.


def test_a_graph_without_metadata_is_read_by_nirs_own_conventions():
    net = from_nir(simple(r=full(2)), dt=1e-3)
    (layer,) = net.layers
    assert layer.neuron.reset is to_zero
    assert layer.neuron.fire == STRICT
    assert layer.neuron.beta == exp_decay(0.02, 1e-3)
    assert layer.gain == pytest.approx(2 * (1 - exp_decay(0.02, 1e-3)))
    assert layer.neuron.alpha == 0


def test_v_leak_moves_the_origin_of_a_spiking_neuron():
    net = from_nir(simple(v_leak=full(-65e-3), v_reset=full(-65e-3), v_threshold=full(-50e-3)), dt=1e-3)
    assert net.layers[0].neuron.theta == pytest.approx(15e-3)


def test_a_gain_for_each_neuron_becomes_a_scale():
    net = from_nir(simple(tau=np.array([0.01, 0.02, 0.03])), dt=1e-3)
    beta = torch.exp(-1e-3 / torch.tensor([0.01, 0.02, 0.03]))
    torch.testing.assert_close(net.layers[0].neuron.beta, beta)
    torch.testing.assert_close(net.layers[0].synapse[1].scale, 1 - beta)


def test_the_resistance_scales_the_way_back_too():
    nodes = {"in": source(2), "w": affine(), "lif": lif_node(r=full(4)), "rec": nir.Linear(np.eye(3)), "out": sink(3)}
    edges = [("in", "w"), ("w", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "out")]
    layer = from_nir(nir.NIRGraph(nodes, edges, type_check=False), dt=1e-3).layers[0]
    g = 4 * (1 - exp_decay(0.02, 1e-3))
    assert layer.gain == pytest.approx(g)
    torch.testing.assert_close(layer.recurrent(torch.eye(3)), g * torch.eye(3))


def test_graphs_inside_a_graph_are_dissolved():
    inner = nir.NIRGraph(
        {"input": source(3), "lif": lif_node(), "w_rec": nir.Linear(np.eye(3)), "output": sink(3)},
        [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
        type_check=False,
    )
    net = from_nir(chain(source(2), affine(), inner, affine(3, 2), sink(2)), dt=1e-3)
    assert len(net.layers) == 2
    assert isinstance(net.layers[0].recurrent, nn.Sequential)
    x = spikes(2)
    torch.testing.assert_close(net(x, RULE)[1].s, net(x, RULE)[0].s @ torch.ones(3, 2))


def test_tensors_and_single_numbers_are_taken():
    one = torch.tensor(1.0)
    node = nir.LIF(tau=one * 0.02, r=one, v_leak=one * 0, v_threshold=one, v_reset=one * 0)
    weights = nir.Affine(weight=torch.ones(3, 2).float(), bias=torch.zeros(3).float())
    net = from_nir(chain(source(2), weights, node, sink(3)), dt=1e-3)
    assert net.layers[0].synapse.weight.dtype == torch.float32


def without(graph, *edges):
    graph.edges = [edge for edge in graph.edges if edge not in edges]
    return graph


def plus(graph, edges=(), **nodes):
    graph.nodes.update(nodes)
    graph.edges = [*graph.edges, *edges]
    return graph


BAD = {
    "NaN": (lambda: simple(tau=np.array([0.02, np.nan, 0.02])), "node 'n2': tau holds NaN"),
    "negative tau": (lambda: simple(tau=full(-0.02)), "node 'n2': tau must be a positive"),
    "tau 0": (lambda: simple(tau=full(0)), "node 'n2': tau"),
    "threshold 0": (lambda: simple(v_threshold=full(-1)), "node 'n2': the threshold"),
    "reset": (lambda: simple(v_reset=full(0.5)), "node 'n2': v_reset must be v_leak"),
    "too many": (lambda: chain(source(3), nir.IF(full(1, 4), full(1, 4)), sink(3)), r"node 'n1': r has shape \(4,\)"),
    "weight": (lambda: chain(source(2), affine(5), lif_node(), sink(3)), "node 'n1': Linear does not take"),
    "weight NaN": (lambda: chain(source(1), nir.Linear(np.array([[np.inf]])), sink(1)), "node 'n1': weight holds NaN"),
    "weight text": (lambda: chain(source(1), nir.Linear(np.array([["a"]])), sink(1)), "'n1': weight must be numbers"),
    "bias": (lambda: chain(source(2), nir.Affine(np.ones((3, 2)), np.zeros(2)), sink(3)), "'n1': weight must have 2"),
    "bias text": (lambda: chain(source(2), nir.Affine(np.ones((3, 2)), np.array(["a"])), sink(3)), "'n1': bias must"),
    "strides": (
        lambda: chain(source(1, 9), nir.Conv1d(9, np.ones((1, 1, 3)), np.array([1, 2]), 0, 1, 1, np.zeros(1)), sink(1)),
        "node 'n1': stride must be one integer",
    ),
    "axes": (lambda: chain(source(2), nir.Linear(np.ones((2, 3, 2))), sink(3)), "node 'n1': weight must have 2 axes"),
    "leak": (lambda: chain(source(3), nir.LI(full(0.02), full(1), full(1)), sink(3)), "node 'n1': v_leak"),
    "unknown": (lambda: chain(source(3), nir.Threshold(full(1)), sink(3)), "node 'n1' is a Threshold"),
    "late delay": (lambda: chain(source(2), affine(), nir.Delay(full(1e-3)), lif_node(), sink(3)), "'n2': a delay"),
    "odd delay": (lambda: chain(source(3), nir.Delay(full(1.5e-3)), lif_node(), sink(3)), "'n1': a delay of 0.0015"),
    "delays": (lambda: chain(source(3), nir.Delay(np.arange(3.0)), lif_node(), sink(3)), "'n1': delay must be one"),
    "no input": (lambda: chain(affine(), lif_node(), sink(3)), "0 and 1"),
    "two inputs": (lambda: plus(simple(), [("more", "n1")], more=source(2)), "2 and 1"),
    "no output": (lambda: chain(source(2), affine(), lif_node()), "1 and 0"),
    "nothing": (lambda: chain(source(2), sink(2)), "nothing between"),
    "gap": (lambda: without(simple(), ("n1", "n2")), "node 'n1' has 1 inputs and 0 outputs"),
    "gap behind": (lambda: without(simple(), ("n2", "n3")), "node 'n2' leads to 0"),
    "branch": (lambda: plus(simple(), [("n2", "b"), ("b", "n3")], b=affine(3, 3)), "node 'n2' leads to 2"),
    "skip": (lambda: plus(simple(), [("n1", "n3")]), "node 'n1' has 1 inputs and 2 outputs"),
    "two loops": (
        lambda: plus(simple(), [("n2", "a"), ("a", "n2"), ("n2", "b"), ("b", "n2")], a=affine(3, 3), b=affine(3, 3)),
        "node 'n2' has 3 inputs",
    ),
    "long loop": (
        lambda: plus(chain(source(3), lif_node(), affine(3, 3), lif_node(), sink(3)), [("n3", "n1")]),
        "node 'n1'",
    ),
    "synapses in a ring": (lambda: plus(simple(), [("n1", "n1")]), "node 'n1' has 2 inputs"),
    "lost": (lambda: plus(simple(), more=affine()), "node 'more' is not connected"),
    "edge": (lambda: plus(simple(), [("n2", "nowhere")]), "'nowhere', but no such node"),
    "edge twice": (lambda: plus(simple(), [("n0", "n1")]), "two edges from 'n0' to 'n1'"),
    "loop with bias": (
        lambda: plus(simple(), [("n2", "a"), ("a", "n2")], a=nir.Affine(np.eye(3), np.ones(3))),
        "node 'a': a bias in a loop",
    ),
    "loop of another shape": (lambda: plus(simple(), [("n2", "a"), ("a", "n2")], a=affine(3, 2)), "'n2': its loop"),
    "stride": (
        lambda: chain(source(1, 4, 4), nir.SumPool2d(np.array([2, 2]), np.array([0, 2]), np.array([0, 0])), sink(1)),
        "node 'n1': stride must be at least 1",
    ),
    "image": (lambda: chain(source(1, 4, 4), affine(4, 3), sink(3)), "node 'n1': a linear map takes a vector"),
    "no time": (lambda: nir.NIRGraph(simple().nodes, simple().edges, type_check=False), "dt, in seconds"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_graph_that_cannot_be_read_is_refused_by_name(what):
    make, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        from_nir(make(), **({} if what == "no time" else {"dt": 1e-3}))


def test_euler_of_a_short_time_constant_is_refused():
    with pytest.raises(ValueError, match=r"node 'n2'.*dt"):
        from_nir(simple(tau=full(1e-4)), dt=1e-3, decay=euler_decay)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reset": Bounded(subtract, -1.0)}, ValueError, "reset must be one of"),
        ({"decay": abs}, ValueError, "decay must be"),
        ({"dt": -1.0}, ValueError, "dt"),
        ({"dt": "1 ms"}, TypeError, "dt"),
        ({"strict": 1}, TypeError, "strict"),
    ],
)
def test_wrong_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        from_nir(simple(), **({"dt": 1e-3} | options))
    with pytest.raises(TypeError, match="NIRGraph"):
        from_nir(Network(Layer(linear(1, 1), lif())), dt=1e-3)


class Squared(nn.Module):
    def forward(self, x):
        return x * x


def own_reset(U, s, I, beta, theta):
    return beta * U + I


REFUSED = {
    "bounded": (lambda: Layer(linear(2, 2), lif(reset=Bounded(subtract, -1.0))), "no reset like"),
    "own reset": (lambda: Layer(linear(2, 2), lif(reset=own_reset)), "no reset like"),
    "adaptive": (lambda: Layer(linear(2, 2), alif()), "Adaptive, for which NIR has no node"),
    "srm": (lambda: Layer(linear(2, 2), SRM(torch.ones(3), -torch.ones(3))), "SRM, for which NIR has no node"),
    "decolle": (lambda: decolle_layer(linear(2, 2)), "for which NIR has no node"),
    "cuba without leak": (lambda: Layer(linear(2, 2), Neuron(0.5, 1.0)), "does not leak"),
    "some leak": (lambda: Layer(linear(2, 2), Neuron(0.0, torch.tensor([0.5, 1.0]))), "does not leak"),
    "no time constant": (lambda: Layer(linear(2, 2), Neuron(0.0, 0.0)), "beta = 0 has no time constant"),
    "module": (lambda: Layer(nn.Sequential(linear(2, 2), Squared()), lif()), "no NIR node for Squared"),
    "unflatten": (lambda: Layer(nn.Sequential(linear(2, 2), nn.Unflatten(1, (1, 2))), lif()), "Unflatten"),
    "weights": (lambda: Layer(nn.Sequential(linear(2, 2), linear(3, 2)), lif()), "Linear does not take features"),
    "shape of tau": (lambda: Layer(linear(2, 2), lif(tau_mem=torch.full((3,), 0.02))), "expand"),
    "half": (lambda: Layer(linear(2, 2).bfloat16(), lif()), "hold no torch.bfloat16"),
    "readout that resets": (lambda: Layer(linear(2, 2), lif(fire=readout().fire)), "never reset"),
    "memoryless loop": (
        lambda: Layer(linear(2, 2), Neuron(0.0, 0.0, 1.0, no_reset, readout().fire), linear(2, 2, bias=False)),
        "remember nothing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_nir_cannot_say_is_refused_by_layer(what):
    make, message = REFUSED[what]
    with pytest.raises(ValueError, match=f"layer 1 cannot be written as NIR: .*{message}"):
        to_nir(Network(Layer(linear(2, 2), lif()), make()))


@pytest.mark.parametrize("neuron", [lif(fire=STRICT), lif(reset=to_zero), iaf(reset=to_zero, fire=Threshold(most=2))])
def test_portable_refuses_what_only_metadata_says(neuron):
    net = Network(Layer(linear(2, 2), neuron))
    to_nir(net)
    with pytest.raises(ValueError, match=r"layer 0 .*only NIR"):
        to_nir(net, portable=True)
    to_nir(Network(Layer(linear(2, 2), lif(reset=to_zero, fire=STRICT))), portable=True)


def test_the_shape_of_an_image_has_to_be_given():
    net = variety()["conv"][0]
    with pytest.raises(ValueError, match="give input_shape"):
        to_nir(net)
    with pytest.raises(ValueError, match=r"layer 0 .*Conv2d does not take features"):
        to_nir(net, input_shape=(3, 8, 8))
    with pytest.raises(TypeError, match="Sequential"):
        to_nir(linear(1, 1))


def test_weights_of_the_graph_are_copies():
    net = Network(Layer(linear(5, 4), lif()))
    graph = to_nir(net)
    before = net.layers[0].synapse.weight.detach().clone()
    graph.nodes["affine_0"].weight[:] = 0
    assert torch.equal(net.layers[0].synapse.weight, before)
    from_nir(graph).layers[0].synapse.weight.data.add_(1)
    assert not graph.nodes["affine_0"].weight.any()


def test_reading_draws_no_random_numbers():
    graph = to_nir(variety()["recurrent"][0])
    before = torch.get_rng_state()
    from_nir(graph)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_network_learns_on():
    net = from_nir(to_nir(Network(Layer(linear(5, 4, 3), lif()), Layer(linear(4, 2), readout()))))
    net(spikes(5), RULE)[-1].s.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    model = nn.Sequential(net.layers[0].synapse, LIF(net.layers[0].neuron, surrogate=FastSigmoid()))
    assert model(spikes(5)).shape == (40, 3, 4)


# Files.


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("nir") / "net.nir"
    torch.manual_seed(0)
    first = Layer(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), cuba_lif(), delay=1)
    write(Network(first, Layer(linear(8, 3), lif(), linear(3, 3, bias=False))), path, input_shape=(1, 4, 4))
    return path.read_bytes()


def test_nir_reads_our_file_with_its_check_of_shapes(raw, tmp_path):
    (tmp_path / "net.nir").write_bytes(raw)
    graph = nir.read(tmp_path / "net.nir", type_check=True)
    assert list(graph.inputs) == ["input"]
    assert len(from_nir(graph).layers) == 2
    assert len(from_nir(str(tmp_path / "net.nir"), dt=1e-3).layers) == 2


def refused(path):
    """A file gives a network or a ValueError with its name."""
    try:
        net, message = read(path), ""
    except ValueError as error:
        net, message = None, str(error)
    assert isinstance(net, Network) or str(path) in message
    return net is None


FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@FUZZ
@given(keep=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(keep, raw, tmp_path):
    (tmp_path / "cut.nir").write_bytes(raw[: int(keep * len(raw))])
    assert refused(tmp_path / "cut.nir")


@FUZZ
@given(data=st.data())
def test_flipped_bits_are_refused_or_read(data, raw, tmp_path):
    broken = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "flipped.nir").write_bytes(broken)
    refused(tmp_path / "flipped.nir")


@FUZZ
@given(data=st.data())
def test_huge_and_zero_numbers_are_refused_or_read(data, raw, tmp_path):
    broken, at = bytearray(raw), data.draw(st.integers(0, len(raw) // 8 - 1)) * 8
    broken[at : at + 8] = struct.pack("<Q", data.draw(st.sampled_from([0, 1, 2**31, 2**40, 2**63, 2**64 - 1])))
    (tmp_path / "huge.nir").write_bytes(broken)
    refused(tmp_path / "huge.nir")


def test_a_heap_that_hdf5_would_walk_for_ever_is_refused(raw, tmp_path):
    start = raw.index(b"GCOL\x01")
    broken = bytearray(raw)
    broken[start + 16 : start + 32] = struct.pack("<H6xQ", 0, 0)  # free space of no size
    path = tmp_path / "heap.nir"
    path.write_bytes(broken)
    with pytest.raises(ValueError, match="heap at byte"):
        check_heaps(path)
    assert refused(path)


def test_a_string_of_gigabytes_is_refused_before_hdf5_makes_room_for_it(raw, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "long.nir"
    path.write_bytes(raw)
    with h5py.File(path) as file:
        at = file["node/type"].id.get_offset()
    broken = bytearray(raw)
    broken[at : at + 4] = b"\xff" * 4
    path.write_bytes(broken)
    with pytest.raises(ValueError, match="strings of 'type' are too much"):
        read(path)


def test_other_files_are_refused(raw, tmp_path):
    path = tmp_path / "other.nir"
    with pytest.raises(ValueError, match=r"there is no NIR file .*other\.nir"):
        read(path)
    for content in (b"", b"not HDF5 at all", raw[:8]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.nir is no NIR file"):
            read(path)


def test_a_file_may_not_point_elsewhere_or_grow_without_bound(raw, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "evil.nir"

    def link(file):
        file["node/metadata/elsewhere"] = h5py.ExternalLink("other.h5", "/secret")

    def outside(file):
        file.create_dataset("node/more", (4,), "u1", external=[(str(tmp_path / "secret"), 0, 4)])

    def bomb(file):
        file.create_dataset("node/more", (1 << 40,), "f8", chunks=(1024,), compression="gzip")

    def cycle(file):
        file["node/metadata/again"] = file["node"]

    def types(file):
        file["node/nodes/lif_1/type"][()] = "Popen"

    for spoil, message in (
        (link, "link to somewhere else"), (outside, "kept in another file"), (bomb, "too much"),
        (cycle, "nested deeper"), (types, "no type of NIR"),
    ):  # fmt: skip
        path.write_bytes(raw)
        with h5py.File(path, "r+") as file:
            spoil(file)
        with pytest.raises(ValueError, match=rf"evil\.nir is no NIR file, or damaged: .*{message}"):
            read_graph(path)


def test_nodes_of_a_file_are_named_with_it(raw, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.nir"
    path.write_bytes(raw)
    with h5py.File(path, "r+") as file:
        file["node/nodes/lif_1/tau"][0] = -1.0
    with pytest.raises(ValueError, match=r"net\.nir: node 'lif_1': tau must be a positive"):
        read(path)


def test_writing_leaves_whole_files_only(tmp_path):
    path = tmp_path / "net.nir"
    write(Network(Layer(linear(2, 2), lif())), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="layer 0"):
        write(Network(Layer(linear(2, 2), alif())), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.nir"]


def test_without_nir_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nir", None)
    with pytest.raises(ImportError, match=r'pip install "snnlearn\[nir\]"'):
        interchange.to_nir(Network(Layer(linear(2, 2), lif())))
