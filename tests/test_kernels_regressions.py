"""Cases at the edges of the kernels: nobody near the threshold, second derivatives, numbers that are flushed."""

import warnings

import pytest
import torch
from kernel_tools import compiled as compiled

from snnlearn import kernels, lif, readout, resets
from snnlearn.eventconv import ConvLIF
from snnlearn.eventlayers import LinearLIF, Path
from snnlearn.eventpath import Events, known
from snnlearn.eventrecurrent import RecurrentLIF
from snnlearn.neurons import Neuron, Threshold
from snnlearn.sparse import Near
from snnlearn.spikes import Spikes
from snnlearn.surrogate import Boxcar, FastSigmoid
from snnlearn.temporal import Adjoint

pytestmark = pytest.mark.usefixtures("compiled")


def spikes_in(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(40, 3, 30, generator=generator) < 0.2).float()


def test_a_recurrent_layer_without_a_near_neuron_has_no_gradient():
    """The list of near membranes is then empty and has no address."""
    layer = RecurrentLIF(5, surrogate=Near(FastSigmoid(0.1), within=0.01))
    a = torch.zeros(20, 2, 5, requires_grad=True)
    y = layer(a)
    assert y.carrier is not None
    assert y.carrier.shape == (0,)
    y.dense().sum().backward()
    for gradient in (a.grad, layer.weight.grad):
        assert gradient is not None
        assert (gradient == 0).all()


def penalised(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The gradient of a loss that is linear in the spikes, and of a penalty on its gradient."""
    y = layer(x)
    y = y.dense() if isinstance(y, Spikes) else y
    loss = (y * torch.linspace(-1, 1, y[0].numel()).view(y.shape[1:])).sum()
    (g,) = torch.autograd.grad(loss, layer.weight, create_graph=True)
    return torch.autograd.grad(loss + (g**2).sum(), layer.weight)[0]


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_second_derivative_through_events_is_refused(recurrent):
    """Left out without a word, a penalty on the gradient would have none itself."""
    generator = torch.Generator().manual_seed(0)
    layer = LinearLIF(30, 8, path=Path.EVENTS, recurrent=recurrent, generator=generator)
    layer.weight.data *= 5
    with pytest.raises(RuntimeError):
        penalised(layer, spikes_in())
    layer.path = Path.DENSE  # control: there it is something
    with_penalty = penalised(layer, spikes_in())
    assert with_penalty.norm() > 0


def test_a_second_derivative_through_a_recurrent_layer_is_refused():
    layer = RecurrentLIF(30, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError):
        penalised(layer, 2 * spikes_in())


@pytest.mark.parametrize(("theta", "strict"), [(0.0, True), (1e-39, False)])
def test_spikes_at_thresholds_of_denormal_size(theta, strict):
    """Where the smallest numbers decide, flushing them to zero changes spikes."""
    neuron = Neuron(0.0, 0.5, theta, resets.no_reset, Threshold(strict=strict))
    a = torch.zeros(200, 1, 2)
    a[10, 0, 0] = 1.0
    s = Adjoint().run(neuron, FastSigmoid(), a).s
    with kernels.off():
        wanted = Adjoint().run(neuron, FastSigmoid(), a).s
    assert 100 < wanted.sum() < 160  # a membrane that halves fires until it has no number left
    assert torch.equal(s, wanted)
    if theta:
        assert LinearLIF(2, 3, neuron, bias=False)(torch.zeros(3, 1, 2)).density() == 0
        assert RecurrentLIF(2, neuron)(torch.zeros(3, 1, 2)).density() == 0


@pytest.mark.parametrize("width", [0.85, 1.15, 1.7, 1.95, 2.15])
def test_a_boxcar_ends_where_the_reference_ends_it(width):
    """In float32 |x| * (1 / width) is more than 1 where |x| / width is 1."""
    a = torch.tensor([1 + width, 1 - width, 1 + width / 2]).view(1, 1, 3).requires_grad_()

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(Adjoint().run(lif(), Boxcar(width), a).s.sum(), a)[0]

    found = gradient()
    with kernels.off():
        wanted = gradient()
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("recurrent", "neuron", "within"),
    [(True, lif(), 0.7), (False, lif(reset=resets.to_zero_with_input), 0.1)],
    ids=["many near", "reset that loses the input"],
)
@pytest.mark.parametrize("path", [Path.EVENTS, Path.DENSE])
def test_the_price_of_near_is_told_on_every_path(recurrent, neuron, within, path):
    """Also where the error is dense after all: the slopes are cut off all the same."""
    generator = torch.Generator().manual_seed(0)
    surrogate = Near(FastSigmoid(10.0), within=within)
    layer = LinearLIF(30, 64, neuron, surrogate=surrogate, recurrent=recurrent, path=path, generator=generator)
    with pytest.warns(UserWarning, match="cosine"):
        layer(spikes_in())
    assert layer.report is not None
    assert layer.report.cosine is not None
    assert layer.report.activity is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # control: a narrow slope costs nothing
        LinearLIF(30, 64, neuron, surrogate=Near(FastSigmoid(0.01), within=2.0), recurrent=recurrent, path=path)(
            spikes_in()
        )


def test_bits_made_without_gradients_carry_none():
    """As every other operation inside torch.no_grad."""
    x = spikes_in().requires_grad_()
    with torch.no_grad():
        assert Spikes.pack(x).carrier is None
    assert Spikes.pack(x).carrier is x  # control


@pytest.mark.parametrize("over", [0, 1, 2], ids=["steps", "samples", "neurons"])
def test_an_error_that_is_the_same_along_one_axis(over):
    """Autograd expands it without memory; only along the steps is it read as one row."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(9, 4, 70, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(a.sum(over).shape, dtype=torch.float64, generator=generator)

    def gradient() -> torch.Tensor:
        s = Adjoint().run(lif(), FastSigmoid(0.5), a).s
        return torch.autograd.grad((s.sum(over) * weight).sum(), a)[0]

    found = gradient()
    with kernels.off():
        wanted = gradient()
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("inner", "outer"), [(0.5, 0.1), (0.1, 0.5)])
def test_the_narrower_of_two_limits_holds(inner, outer):
    layer = known(lif(), Near(Near(FastSigmoid(), within=inner), within=outer), Adjoint())
    assert isinstance(layer, Events)
    assert layer.credit.within == 0.1


@pytest.mark.parametrize("kind", ["recurrent", "convolution"])
def test_every_layer_of_events_tells_what_near_costs(kind):
    a = torch.randn(20, 2, 18, generator=torch.Generator().manual_seed(3))
    x = (a.unflatten(2, (2, 3, 3)) > 0.5).float()

    def make(surrogate):
        if kind == "recurrent":
            return RecurrentLIF(18, lif(), surrogate=surrogate, generator=torch.Generator().manual_seed(0)), a
        return ConvLIF(2, 4, neuron=lif(), surrogate=surrogate, generator=torch.Generator().manual_seed(0)), x

    wide, given = make(Near(FastSigmoid.from_steepness(5.0), within=0.05))
    with pytest.warns(UserWarning, match=r"cosine .* 0\.\d\d on the first batch.*B_th = 0.05"):
        wide(given.clone().requires_grad_())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide(given.clone().requires_grad_())  # said once
        narrow, given = make(Near(FastSigmoid.from_steepness(100.0), within=0.3))
        narrow(given.clone().requires_grad_())
    told = wide if kind == "recurrent" else wide.report
    assert 0 < told.cosine < 0.95
    assert 0 < told.activity < 0.5


def test_a_recurrent_layer_refuses_neurons_without_single_spikes():
    wrong = ((readout(), ValueError), (lif(fire=Threshold(most=3)), ValueError), (torch.nn.Linear(2, 2), TypeError))
    for neuron, error in wrong:
        with pytest.raises(error, match=r"neuron|spikes"):
            RecurrentLIF(3, neuron)


def test_more_inputs_than_the_kernels_count_take_the_dense_path():
    layer = LinearLIF(2048, 1)
    found = layer._missing(Spikes(torch.zeros(1, 1, 32, dtype=torch.int64), 2048))
    assert found is None or "2**31" not in found

    class Long:
        shape = (2**20, 1, 2048)

    assert "2**31" in layer._missing(Long())
