"""Random networks that are alive: 10-40 % spikes in every spiking layer, so that a comparison means something."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from snnlearn import Bounded, FastSigmoid, Layer, Network, Neuron, Rule, Threshold, readout
from snnlearn import resets as _resets

F64 = {"dtype": torch.float64}
T, B, INPUTS, HIDDEN, OUTPUTS = 18, 3, 5, 4, 3  # more steps than a block of the recursion
NEURONS = {"IF": (0.0, 1.0), "LIF": (0.0, 0.85), "CuBa": (0.7, 0.85)}
RESETS = {
    "subtract": _resets.subtract,
    "subtract_decayed": _resets.subtract_decayed,
    "to_zero": _resets.to_zero,
    "to_zero_with_input": _resets.to_zero_with_input,
    "bounded": Bounded(_resets.subtract, -0.3),
}
SURROGATE = FastSigmoid(0.2)

# Arguments of `alive`, drawn at random.
seeds = st.integers(0, 10**4)
networks = st.fixed_dictionaries(
    {
        "seed": seeds,
        "kind": st.sampled_from(sorted(NEURONS)),
        "layers": st.integers(1, 3),
        "recurrent": st.booleans(),
        "reset": st.sampled_from(sorted(RESETS)),
        "lag": st.integers(1, 2),
        "delay": st.integers(0, 2),
    }
)


def linear(inputs: int, outputs: int, scale: float, generator: torch.Generator, bias: bool = False) -> nn.Linear:
    """Weights of mean scale / inputs, of both signs."""
    layer = nn.Linear(inputs, outputs, bias=bias, **F64)
    with torch.no_grad():
        layer.weight.copy_((torch.randn(outputs, inputs, generator=generator, **F64) + 0.6) * scale / inputs)
        if bias:
            layer.bias.copy_(0.1 * torch.rand(outputs, generator=generator, **F64))
    return layer


def spikes(seed: int, steps: int = T, batch: int = B) -> Tensor:
    """Inputs (T, B, INPUTS)."""
    return (torch.rand(steps, batch, INPUTS, generator=torch.Generator().manual_seed(seed), **F64) < 0.4).double()


def rates(net: Network, x: Tensor) -> list[float]:
    """The share of entries that are spikes, of every spiking layer."""
    with torch.no_grad():
        traces = net(x, Rule(SURROGATE))
    return [t.s.mean().item() for t, layer in zip(traces, net.layers, strict=True) if not layer.neuron.fire.analog]


def alive(
    seed: int,
    kind: str = "LIF",
    layers: int = 1,
    recurrent: bool = False,
    reset: str = "subtract",
    *,
    delay: int = 0,
    lag: int = 1,
    bias: bool = True,
    top: bool = True,
    fire=None,
    at_rest: bool = False,
) -> tuple[Network, Tensor]:
    """A network and its input; the weights are scaled layer by layer until the layer is alive.

    Args:
        top: a leaky readout above the spiking layers.
        fire: of the spiking layers.
        at_rest: the same network wherever it is not alive, for what has no spikes.
    """
    alpha, beta = NEURONS[kind]
    neuron = Neuron(alpha, beta, 1.0, RESETS[reset], fire or Threshold())
    x, built, inputs = spikes(seed), [], INPUTS
    for i in range(layers):
        for scale in 0.25 * 1.3 ** torch.arange(24.0):
            g = torch.Generator().manual_seed(1000 * seed + i)
            gain = float(scale) * (1 - beta if beta < 1 else 0.3) * (1 - alpha)
            synapse = linear(inputs, HIDDEN, 4 * gain, g, bias=False)
            if bias:
                synapse = _with_bias(synapse, 0.2 * gain, g)
            own = linear(HIDDEN, HIDDEN, 0.5 * gain, g) if recurrent else None
            net = Network(*built, Layer(synapse, neuron, own, delay=delay if i == 0 else 0, lag=lag))
            if at_rest or 0.1 <= rates(net, x)[-1] <= 0.4:
                break
        else:
            raise AssertionError(f"no living network for seed {seed}, {kind}, {reset}, layer {i}")
        built, inputs = list(net.layers), HIDDEN
    if top:
        g = torch.Generator().manual_seed(7 * seed + 3)
        built.append(Layer(linear(HIDDEN, OUTPUTS, 1.0, g, bias=bias), readout(tau_mem=8e-3, tau_syn=3e-3)))
    return Network(*built), x


def _with_bias(layer: nn.Linear, size: float, g: torch.Generator) -> nn.Linear:
    new = nn.Linear(layer.in_features, layer.out_features, **F64)
    with torch.no_grad():
        new.weight.copy_(layer.weight)
        new.bias.copy_(size * torch.rand(layer.out_features, generator=g, **F64))
    return new


def flat(gradients: dict[str, Tensor]) -> Tensor:
    """All gradients in one vector."""
    return torch.cat([g.flatten() for g in gradients.values()])


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest entry of b; a comparison with zeros is refused."""
    assert flat(b).abs().max() > 0, "a comparison with zeros proves nothing"
    return ((flat(a) - flat(b)).abs().max() / flat(b).abs().max()).item()
