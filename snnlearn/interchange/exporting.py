"""From our networks to NIR. The formulas are in `snnlearn.interchange.constants`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.interchange.constants import OURS, RESETS, Scale, name_of, to_continuous
from snnlearn.interchange.files import load_nir
from snnlearn.network import Layer, Network
from snnlearn.neurons import Analog, Decay, Neuron, Threshold, exp_decay
from snnlearn.nn import LIF, PerStep
from snnlearn.resets import Constant, no_reset, to_zero
from snnlearn.training import write as write_whole

if TYPE_CHECKING:
    import nir


def to_nir(
    net: Network | nn.Sequential,
    *,
    dt: float = 1e-3,
    decay: Decay = exp_decay,
    input_shape: Sequence[int] | None = None,
    portable: bool = False,
) -> nir.NIRGraph:
    """A network as a NIR graph. Learned constants are taken at their present values.

    Args:
        net: a `Network` of `Layer`s, or an `nn.Sequential` of synapses and `snnlearn.LIF`s.
        dt: the network's time step, seconds.
        decay: how the reader integrates a leak, `exp_decay` (exactly) or `euler_decay`. It chooses the time constants:
            tau = -dt/ln(beta) or dt/(1 - beta); the same argument of `lif` gives its tau_mem back.
        input_shape: features of the input, needed where the first synapse is not linear: (channels, height, width).
        portable: refuse what a reader that knows no more than NIR would run differently: a reset other than
            `to_zero`, a threshold that is not strict, several spikes a step.

    Raises:
        ValueError: NIR cannot say what a layer is; the message says which layer and why.
        TypeError: net is something else.
        ImportError: the package nir is missing.
    """
    load_nir()
    _checks.positive("dt", dt, "seconds")
    name_of(decay)
    if input_shape is not None:
        for size in input_shape:
            _checks.whole("a size in input_shape", size, least=1)
    layers = layers_of(net)
    shape = _first_shape(layers[0], input_shape)
    graph = _Graph(shape, dt, decay)
    with torch.no_grad():
        for i, layer in enumerate(layers):
            try:
                graph.add(i, layer, portable)
            except (ValueError, TypeError, RuntimeError) as error:
                raise ValueError(f"layer {i} cannot be written as NIR: {error}") from error
    return graph.finished()


def write(
    net: Network | nn.Sequential,
    path: str | Path,
    *,
    dt: float = 1e-3,
    decay: Decay = exp_decay,
    input_shape: Sequence[int] | None = None,
    portable: bool = False,
) -> None:
    """Write a network to a NIR file (HDF5), there whole or not at all. Arguments and errors are those of `to_nir`."""
    graph = to_nir(net, dt=dt, decay=decay, input_shape=input_shape, portable=portable)
    buffer = io.BytesIO()
    load_nir().write(buffer, graph)
    write_whole(Path(path), buffer.getvalue())


def layers_of(net: Network | nn.Sequential) -> list[Layer]:
    """The layers of a network, or what stands before each `LIF` of a Sequential as that LIF's synapse.

    Synapses behind the last LIF become a layer whose neurons remember nothing and whose output is the current.
    """
    if isinstance(net, Network):
        return list(net.layers)
    if not isinstance(net, nn.Sequential) or not len(net):
        raise TypeError(f"NIR is written from a Network or an nn.Sequential of LIFs, got {type(net).__name__}")
    layers, waiting = [], list[nn.Module]()
    for module in net:
        if isinstance(module, LIF):
            layers.append(Layer(nn.Sequential(*waiting), module.source, module.recurrent))
            waiting = []
        else:
            waiting.append(module)
    if waiting:
        layers.append(Layer(nn.Sequential(*waiting), Neuron(0.0, 0.0, 1.0, no_reset, Analog())))
    return layers


def _parts(synapse: nn.Module) -> Iterator[nn.Module]:
    """The modules of a synapse, in order, that do something."""
    if isinstance(synapse, nn.Sequential | PerStep):
        for part in synapse.children():
            yield from _parts(part)
    elif not isinstance(synapse, nn.Identity):
        yield synapse


def _first_shape(layer: Layer, given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        return tuple(int(size) for size in given)
    first = next(_parts(layer.synapse), None)
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    kind = "neurons" if first is None else type(first).__name__
    raise ValueError(f"the network begins with {kind}, which does not tell the input's features; give input_shape")


class _Graph:
    """Nodes in the order in which they are added; each is connected to the last."""

    def __init__(self, shape: tuple[int, ...], dt: float, decay: Decay):
        self.nir = load_nir()
        self.shape, self.dt, self.decay = shape, dt, decay
        self.nodes: dict[str, Any] = {"input": self.nir.Input(input_type={"input": np.array(shape)})}
        self.edges: list[tuple[str, str]] = []
        self.last = "input"
        self.dtype: torch.dtype | None = None

    def finished(self) -> nir.NIRGraph:
        """The graph with its output."""
        self._append("output", self.nir.Output(output_type={"output": np.array(self.shape)}), self.shape)
        dtype = str(self.dtype or torch.get_default_dtype()).removeprefix("torch.")
        metadata = {OURS: {"dt": float(self.dt), "decay": name_of(self.decay), "dtype": dtype}}
        # Its type check takes every convolution for one of a square kernel and one group; ours was of the tensors.
        return self.nir.NIRGraph(nodes=self.nodes, edges=self.edges, metadata=metadata, type_check=False)

    def add(self, i: int, layer: Layer, portable: bool) -> None:
        """One layer: delay, synapse, neurons and the way back to them."""
        neuron = layer.neuron
        if not isinstance(neuron, Neuron):
            raise ValueError(f"its neurons are of kind {type(neuron).__name__}, for which NIR has no node")
        if layer.filter is not None:
            raise ValueError("NIR has no filter before the synapse, which this layer has")
        if layer.delay:
            self._append(f"delay_{i}", self._delay(layer.delay, self.shape), self.shape)
        for part in _parts(layer.synapse):
            self._module(part, i)
        gain = layer.gain
        kind = kind_of(neuron)
        if gain != 1 and (layer.recurrent is not None or kind is None):  # r would scale the way back too
            scale = self.nir.Scale(scale=np.full(self.shape, gain))
            self._append(f"gain_{i}", scale, self.shape)
            gain = 1.0
        if kind is None:
            if layer.recurrent is not None:
                raise ValueError("its neurons remember nothing, but are connected to each other")
            return
        name = f"{kind.lower()}_{i}"
        self._append(name, self._neuron(kind, neuron, gain, portable), self.shape)
        if layer.recurrent is not None:
            shape, self.last = self.shape, name
            if layer.lag > 1:
                self._append(f"lag_{i}", self._delay(layer.lag - 1, shape), shape)
            for part in _parts(layer.recurrent):
                self._module(part, i, "recurrent_")
            if self.shape != shape:
                raise ValueError(f"its recurrent synapse makes {self.shape} of {shape}")
            self.edges.append((self.last, name))
            self.last = name

    def _append(self, name: str, node: Any, after: tuple[int, ...]) -> None:
        node.input_type, node.output_type = {"input": np.array(self.shape)}, {"output": np.array(after)}
        while name in self.nodes:
            name += "_"
        self.nodes[name] = node
        if name != "input":
            self.edges.append((self.last, name))
        self.last, self.shape = name, after

    def _delay(self, steps: int, shape: tuple[int, ...]) -> Any:
        return self.nir.Delay(delay=np.full(shape, steps * self.dt))

    def _array(self, weight: Tensor) -> np.ndarray:
        if weight.dtype not in (torch.float16, torch.float32, torch.float64):
            raise ValueError(f"NIR files hold no {weight.dtype}; convert the network, as by .float()")
        if not _checks.finite(weight):
            raise ValueError("a weight is NaN or infinite")
        self.dtype = weight.dtype if self.dtype is None else torch.promote_types(self.dtype, weight.dtype)
        return weight.detach().cpu().numpy().copy()

    def _module(self, module: nn.Module, i: int, prefix: str = "") -> None:
        """One module of a synapse as a node."""
        after = shape_after(module, self.shape)
        kind, node = self._node(module)
        self._append(f"{prefix}{kind}_{i}", node, after)

    def _node(self, module: nn.Module) -> tuple[str, Any]:
        nir = self.nir
        if type(module) is nn.Linear:
            if len(self.shape) != 1:
                raise ValueError(f"NIR's linear maps take vectors, its Linear gets features {self.shape}; flatten them")
            weight = self._array(module.weight)
            if module.bias is None:
                return "linear", nir.Linear(weight=weight)
            return "affine", nir.Affine(weight=weight, bias=self._array(module.bias))
        if type(module) is nn.Conv1d or type(module) is nn.Conv2d:
            return type(module).__name__.lower(), self._convolution(module)
        if type(module) is nn.AvgPool2d:
            if module.ceil_mode or (not module.count_include_pad and _pair(module.padding) != (0, 0)):
                raise ValueError("NIR's pooling has neither ceil_mode nor count_include_pad=False")
            if module.divisor_override not in (None, 1):
                raise ValueError("NIR's pooling means or sums; divisor_override must be None or 1")
            pool = nir.AvgPool2d if module.divisor_override is None else nir.SumPool2d
            sizes = {name: np.array(_pair(getattr(module, name))) for name in ("kernel_size", "stride", "padding")}
            return pool.__name__.lower(), pool(**sizes)
        if type(module) is nn.Flatten:
            start, end = (d - 1 if d > 0 else d for d in (module.start_dim, module.end_dim))
            if module.start_dim == 0 or module.end_dim == 0:
                raise ValueError("its Flatten would join the batch with the features")
            return "flatten", nir.Flatten(input_type={"input": np.array(self.shape)}, start_dim=start, end_dim=end)
        if type(module) is Scale:
            scale = module.scale.double().cpu().expand(1, *self.shape)[0]
            return "scale", nir.Scale(scale=scale.numpy().astype(_numpy_dtype(module.scale)))
        raise ValueError(
            f"there is no NIR node for {type(module).__name__}, only for Linear, Conv, AvgPool2d, Flatten and Scale"
        )

    def _convolution(self, module: nn.Conv1d | nn.Conv2d) -> Any:
        if module.padding_mode != "zeros":
            raise ValueError(f"NIR's convolutions pad by zeros, not by {module.padding_mode}")
        weight = self._array(module.weight)
        bias = np.zeros(len(weight), weight.dtype) if module.bias is None else self._array(module.bias)
        ours = {OURS: {"bias": module.bias is not None}}
        common: dict[str, Any] = {"weight": weight, "groups": module.groups, "bias": bias, "metadata": ours}
        if isinstance(module, nn.Conv1d):
            padding: Any = module.padding if isinstance(module.padding, str) else module.padding[0]
            stride, dilation = module.stride[0], module.dilation[0]
            return self.nir.Conv1d(
                input_shape=self.shape[1], stride=stride, padding=padding, dilation=dilation, **common
            )
        return self.nir.Conv2d(
            input_shape=self.shape[1:],
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
            **common,
        )

    def _neuron(self, kind: str, neuron: Neuron, gain: float, portable: bool) -> Any:
        alpha, beta, theta = (self._constant(value) for value in neuron.constants)
        leaks = {"beta": beta} if kind in ("LIF", "LI") else {"alpha": alpha, "beta": beta} if "Cuba" in kind else {}
        for name, value in leaks.items():
            if self.decay is exp_decay and _holds(value, 0):
                raise ValueError(f"{name} = 0 has no time constant under exp_decay; give decay=euler_decay")
        given = to_continuous(kind, alpha, beta, gain, self.dt, self.decay)
        ours: dict[str, Any] = {"alpha": alpha, "beta": beta, "gain": float(gain)}
        ours = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in ours.items()}
        if kind not in ("IF", "I"):
            given["v_leak"] = 0.0
        if not neuron.fire.analog:
            given |= {"v_threshold": theta, "v_reset": 0.0}
            ours |= _firing(neuron, portable)
        arrays = {name: np.array(np.broadcast_to(value, self.shape), dtype=float) for name, value in given.items()}
        return getattr(self.nir, kind)(**arrays, metadata={OURS: ours})

    def _constant(self, value: Constant) -> Constant:
        if isinstance(value, Tensor):
            return value.detach().cpu().double().expand(1, *self.shape)[0].contiguous()
        return float(value)


def _firing(neuron: Neuron, portable: bool) -> dict[str, Any]:
    """What NIR does not say of a spike and the reset."""
    reset = next((name for name, known in RESETS.items() if known is neuron.reset), None)
    if reset is None:
        raise ValueError(f"NIR has no reset like {neuron!r} has it; the resets it may have are {', '.join(RESETS)}")
    if type(neuron.fire) is not Threshold:
        raise ValueError(f"NIR has no way to fire like {neuron.fire!r}")
    fire = neuron.fire
    if portable and (neuron.reset is not to_zero or not fire.strict):
        raise ValueError(
            f"it has the reset {reset} and {fire}, but a reader that knows only NIR would take to_zero and "
            "Threshold(strict=True); train with these, or give portable=False"
        )
    return {"reset": reset, "strict": fire.strict, "most": fire.most}


def kind_of(neuron: Neuron) -> str | None:
    """The type of NIR's node for a neuron; None where it has no memory and hands its current on.

    Raises:
        ValueError: there is none.
    """
    alpha, beta = neuron.alpha, neuron.beta
    analog = neuron.fire.analog
    if analog and (type(neuron.fire) is not Analog or neuron.reset is not no_reset):
        raise ValueError(f"NIR's readouts hand on their membrane and never reset; got {neuron!r}")
    if analog and _all(alpha, 0) and _all(beta, 0):
        return None
    if _holds(alpha, 1) or (_holds(beta, 1) and not (_all(alpha, 0) and _all(beta, 1))):
        raise ValueError(
            f"NIR has no neuron in which a current, or a membrane behind a synapse, does not leak: {neuron!r}"
        )
    if not _all(alpha, 0):
        return "CubaLI" if analog else "CubaLIF"
    if _all(beta, 1):
        return "I" if analog else "IF"
    return "LI" if analog else "LIF"


def _all(value: Constant, number: float) -> bool:
    return bool((value == number).all()) if isinstance(value, Tensor) else value == number


def _holds(value: Constant, number: float) -> bool:
    return bool((value == number).any()) if isinstance(value, Tensor) else value == number


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _numpy_dtype(x: Tensor) -> Any:
    return torch.empty(0, dtype=x.dtype).numpy().dtype


def shape_after(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The features that a module makes of features ``shape``; nothing of their size is made.

    Raises:
        ValueError: it does not take them.
    """
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    there = {name: torch.empty_like(value, device="meta") for name, value in held.items()}
    dtype = next((value.dtype for value in held.values()), torch.get_default_dtype())
    try:
        out = torch.func.functional_call(module, there, (torch.empty(1, *shape, dtype=dtype, device="meta"),))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{type(module).__name__} does not take features {shape}: {error}") from error
    if out.dim() < 2 or out.shape[0] != 1 or 0 in out.shape:
        raise ValueError(f"{type(module).__name__} makes {tuple(out.shape)} of a batch of one with features {shape}")
    return tuple(out.shape[1:])
