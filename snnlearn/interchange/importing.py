"""From NIR to our networks. The conventions are in `snnlearn.interchange`, the formulas in `.constants`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from snnlearn import _checks
from snnlearn.interchange.constants import (
    DECAYS,
    OURS,
    RESETS,
    Scale,
    close,
    collapse,
    name_of,
    to_continuous,
    to_discrete,
)
from snnlearn.interchange.exporting import shape_after
from snnlearn.interchange.files import load_nir, read_graph
from snnlearn.interchange.walk import Piece, pieces
from snnlearn.network import Layer, Network
from snnlearn.neurons import Analog, Decay, Fire, Neuron, Threshold, exp_decay
from snnlearn.resets import Constant, Update, no_reset, to_zero

if TYPE_CHECKING:
    import nir


def from_nir(
    graph: nir.NIRGraph | str | Path,
    *,
    dt: float | None = None,
    decay: Decay | None = None,
    reset: Update | None = None,
    strict: bool | None = None,
) -> Network:
    """A network from a NIR graph or file. What is not given is taken from a graph of ours.

    Args:
        graph: a graph, or the path of a file.
        dt: time step of the network, seconds; needed for a graph that is not ours. With another dt than that of
            the export the constants follow from the graph's time constants.
        decay: `exp_decay` (what a graph not of ours gets) or `euler_decay`.
        reset: of all neurons that fire; a graph not of ours gets `to_zero`.
        strict: whether they fire only above the threshold; in a graph not of ours they do.

    Returns:
        The network, in the widest dtype of the graph's weights. Constants are numbers where all neurons have the same,
        otherwise tensors like the features; a gain that is not the same for all becomes a `Scale`.

    Raises:
        ValueError: a file is missing or damaged, or the graph is not one of those described in
            `snnlearn.interchange`; the message names the file or the node.
        TypeError: an argument is of the wrong kind.
        ImportError: the package nir is missing.
    """
    if isinstance(graph, str | Path):
        read_from = read_graph(Path(graph))
        try:
            return from_nir(read_from, dt=dt, decay=decay, reset=reset, strict=strict)
        except ValueError as error:
            raise ValueError(f"{graph}: {error}") from error
    if not isinstance(graph, load_nir().NIRGraph):
        raise TypeError(f"from_nir takes a nir.NIRGraph or the path of a file, got {type(graph).__name__}")
    if reset is not None and reset not in RESETS.values():
        raise ValueError(f"reset must be one of {', '.join(RESETS)}, got {reset!r}")
    if strict is not None:
        _checks.flag("strict", strict)
    return _Import(graph, dt, decay, reset, strict).network()


def read(
    path: str | Path,
    *,
    dt: float | None = None,
    decay: Decay | None = None,
    reset: Update | None = None,
    strict: bool | None = None,
) -> Network:
    """A network from a NIR file. Arguments and errors are those of `from_nir`."""
    return from_nir(Path(path), dt=dt, decay=decay, reset=reset, strict=strict)


class _Import:
    def __init__(
        self, graph: nir.NIRGraph, dt: float | None, decay: Decay | None, reset: Update | None, strict: bool | None
    ):
        kept = _ours(graph)
        known_dt, known = _float(kept.get("dt")), kept.get("decay")
        known_decay = DECAYS.get(known) if isinstance(known, str) else None
        dt = known_dt if dt is None else dt
        if dt is None:
            raise ValueError("the graph does not say its time step; give dt, in seconds")
        _checks.positive("dt", dt, "seconds")
        self.dt = float(dt)
        self.decay = decay or known_decay or exp_decay
        name_of(self.decay)
        self.reset, self.strict = reset, strict
        self.start, self.pieces = pieces(graph)
        self.dtype = self._dtype(kept)

    def _dtype(self, kept: dict[str, Any]) -> torch.dtype:
        dtypes = [
            _array(name, node, field).dtype
            for piece in self.pieces
            for name, node in [*piece.synapse, *piece.recurrent]
            for field in ("weight", "bias")
            if hasattr(node, field)
        ]
        dtypes = [dtype for dtype in dtypes if dtype.kind == "f"]
        names = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
        if dtypes:
            return names.get(np.result_type(*dtypes).name, torch.get_default_dtype())
        return names.get(str(kept.get("dtype")), torch.get_default_dtype())

    def network(self) -> Network:
        """The network."""
        name, node = self.start
        shape = tuple(_whole_numbers(name, "shape", (node.input_type or {}).get("input"), least=1))
        if not shape:
            raise ValueError(f"node {name!r} does not say the shape of the input")
        layers = []
        for piece in self.pieces:
            layer, shape = self._layer(piece, shape)
            layers.append(layer)
        if not layers:
            raise ValueError("the graph has nothing between its input and its output")
        return Network(*layers)

    def _layer(self, piece: Piece, shape: tuple[int, ...]) -> tuple[Layer, tuple[int, ...]]:
        delay, modules, shape = self._synapse(piece.synapse, shape)
        gain: Constant = 1.0
        if modules and isinstance(modules[-1], Scale):
            last = _numbers(*piece.synapse[-1], "scale", shape)
            if isinstance(last, float):
                gain = last
                modules.pop()
        if piece.neuron is None:
            neuron = Neuron(0.0, 0.0, 1.0, no_reset, Analog())
            return Layer(_joined(modules), neuron, delay=delay, gain=float(gain)), shape
        neuron, factor = self._neuron(*piece.neuron, shape)
        if not (isinstance(factor, float) and factor == 1):
            if isinstance(factor, float) and gain == 1:
                gain = factor
            else:
                modules.append(Scale(torch.as_tensor(factor, dtype=self.dtype)))
        recurrent, lag = None, 1
        if piece.loops:
            late, back, after = self._synapse(piece.recurrent, shape, biased=False)
            if after != shape:
                raise ValueError(f"node {piece.neuron[0]!r}: its loop makes features {after} of {shape}")
            if not (isinstance(factor, float) and factor == 1):
                back.append(Scale(torch.as_tensor(factor, dtype=self.dtype)))
            recurrent, lag = _joined(back), 1 + late
        return Layer(_joined(modules), neuron, recurrent, delay=delay, lag=lag, gain=float(gain)), shape

    def _synapse(
        self, nodes: list[tuple[str, Any]], shape: tuple[int, ...], biased: bool = True
    ) -> tuple[int, list[nn.Module], tuple[int, ...]]:
        """The delay, in steps, and the modules of a chain of nodes, and the features behind it."""
        delay, modules = 0, list[nn.Module]()
        for name, node in nodes:
            if type(node).__name__ == "Delay":
                if modules:
                    raise ValueError(f"node {name!r}: a delay is read only directly behind neurons or the input")
                delay += self._steps(name, node, shape)
                continue
            try:
                module = self._module(name, node, shape, biased)
                shape = shape_after(module, shape)
            except (ValueError, TypeError, RuntimeError, OverflowError) as error:
                message = str(error)
                raise ValueError(message if repr(name) in message else f"node {name!r}: {message}") from error
            modules.append(module)
        return delay, modules, shape

    def _steps(self, name: str, node: Any, shape: tuple[int, ...]) -> int:
        seconds = collapse(_numbers(name, node, "delay", shape))
        if not isinstance(seconds, float) or seconds < 0:
            raise ValueError(f"node {name!r}: delay must be one number of seconds, not negative, for all neurons")
        steps = seconds / self.dt
        if abs(steps - round(steps)) > 1e-6 * max(1.0, steps) or steps > 1e6:
            raise ValueError(f"node {name!r}: a delay of {seconds:g} s is no number of steps of dt = {self.dt:g} s")
        return round(steps)

    def _weight(self, name: str, node: Any, field: str) -> nn.Parameter:
        return nn.Parameter(torch.from_numpy(_array(name, node, field).copy()).to(self.dtype))

    def _module(self, name: str, node: Any, shape: tuple[int, ...], biased: bool) -> nn.Module:
        kind = type(node).__name__
        if kind in ("Linear", "Affine", "Conv1d", "Conv2d"):
            weight = self._weight(name, node, "weight")
            bias = None if kind == "Linear" else self._weight(name, node, "bias")
            if bias is not None and not (biased and _ours(node).get("bias", True)) and not bool(bias.any()):
                bias = None
            if bias is not None and not biased:
                raise ValueError(f"node {name!r}: a bias in a loop is not read; move it to the way in")
            wanted = {"Conv1d": 3, "Conv2d": 4}.get(kind, 2)
            if weight.dim() != wanted or 0 in weight.shape or (bias is not None and bias.shape != weight.shape[:1]):
                raise ValueError(
                    f"node {name!r}: weight must have {wanted} axes and bias one entry for each output, got "
                    f"{tuple(weight.shape)}{'' if bias is None else f' and {tuple(bias.shape)}'}"
                )
            if wanted == 2 and len(shape) != 1:
                raise ValueError(f"node {name!r}: a linear map takes a vector, got features {shape}")
            module = self._linear(weight) if wanted == 2 else self._convolution(name, node, weight)
            module.weight, module.bias = weight, bias
            return module
        if kind in ("SumPool2d", "AvgPool2d"):
            kernel, stride = (_pair(name, node, field, least=1) for field in ("kernel_size", "stride"))
            padding = _pair(name, node, "padding")
            return nn.AvgPool2d(kernel, stride, padding, divisor_override=1 if kind == "SumPool2d" else None)
        if kind == "Flatten":
            start, end = (_whole_numbers(name, field, getattr(node, field))[0] for field in ("start_dim", "end_dim"))
            return nn.Flatten(*(d + 1 if d >= 0 else d for d in (start, end)))
        if kind == "Scale":
            scale = torch.as_tensor(_numbers(name, node, "scale", shape))
            return Scale(scale.to(self.dtype) if scale.dim() else scale.to(self.dtype).reshape(1))
        raise ValueError(f"node {name!r} is a {kind}, which is not read")

    def _linear(self, weight: Tensor) -> nn.Linear:
        return nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # weights come from the node

    def _convolution(self, name: str, node: Any, weight: Tensor) -> nn.Conv1d | nn.Conv2d:
        groups = _whole_numbers(name, "groups", node.groups, least=1)[0]
        one = weight.dim() == 3
        options: dict[str, Any] = {}
        for field, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
            value = _plain(getattr(node, field))
            if field == "padding" and isinstance(value, str | np.str_):
                options[field] = str(value)
            else:
                pair = _pair(name, node, field, least)
                if one and pair[0] != pair[1]:
                    raise ValueError(f"node {name!r}: {field} must be one integer, got {pair}")
                options[field] = pair[0] if one else pair
        make = nn.Conv1d if one else nn.Conv2d
        kernel: Any = tuple(weight.shape[2:])
        return make(weight.shape[1] * groups, weight.shape[0], kernel, groups=groups, device="meta", **options)

    def _neuron(self, name: str, node: Any, shape: tuple[int, ...]) -> tuple[Neuron, Constant]:
        """A node's neuron, and the gain that stands before it."""
        kind = type(node).__name__
        fields = [f for f in ("tau", "tau_syn", "tau_mem", "r", "w_in") if hasattr(node, f)]
        given = {field: _numbers(name, node, field, shape) for field in fields}
        try:
            alpha, beta, gain = self._constants(kind, _ours(node), given, shape)
            reset, fire, theta = self._firing(name, node, shape)
            neuron = Neuron(self._cast(alpha), self._cast(beta), self._cast(theta), reset, fire)
        except (ValueError, TypeError) as error:
            raise ValueError(f"node {name!r}: {error}") from error
        return neuron, collapse(gain)

    def _cast(self, value: Constant) -> Constant:
        value = collapse(value)
        return value.to(self.dtype) if isinstance(value, Tensor) else value

    def _constants(
        self, kind: str, kept: dict[str, Any], given: dict[str, Constant], shape: tuple[int, ...]
    ) -> tuple[Constant, Constant, Constant]:
        """alpha, beta and gain from the node, or those that it carries where they say the same but for rounding."""
        for field, value in given.items():
            if field.startswith("tau"):
                _checks.positive(field, value, "seconds")
        alpha, beta, gain = to_discrete(kind, given, self.dt, self.decay)
        kept_constants = (_constant(kept.get(field), shape) for field in ("alpha", "beta", "gain"))
        exact = [constant for constant in kept_constants if constant is not None]
        if len(exact) == 3:
            try:
                same = to_continuous(kind, exact[0], exact[1], exact[2], self.dt, self.decay)
            except (ValueError, ArithmeticError):  # of numbers that are no decays
                return alpha, beta, gain
            if all(close(same[field], given[field]) for field in same):
                return exact[0], exact[1], exact[2]
        return alpha, beta, gain

    def _firing(self, name: str, node: Any, shape: tuple[int, ...]) -> tuple[Update, Fire, Constant]:
        leak = _numbers(name, node, "v_leak", shape) if hasattr(node, "v_leak") else 0.0
        if not hasattr(node, "v_threshold"):
            if not close(leak, 0.0):
                raise ValueError("v_leak of a readout must be 0")
            return no_reset, Analog(), 1.0
        kept = _ours(node)
        if not close(_numbers(name, node, "v_reset", shape), leak):
            raise ValueError("v_reset must be v_leak, since the membrane is measured from where it rests")
        known, most = kept.get("reset", to_zero.__name__), _float(kept.get("most", 1.0))
        if known not in RESETS or most is None:
            raise ValueError(
                f"the graph names a reset {known!r}, or {most!r} spikes a step; known are {', '.join(RESETS)}"
            )
        strict = bool(kept.get("strict", True)) if self.strict is None else self.strict
        theta = _numbers(name, node, "v_threshold", shape) - leak
        most = int(most) if math.isfinite(most) else most
        return self.reset or RESETS[known], Threshold(strict=strict, most=most), theta


def _ours(node: Any) -> dict[str, Any]:
    """What an export of ours left in a node's metadata."""
    metadata = getattr(node, "metadata", None)
    kept = metadata.get(OURS) if isinstance(metadata, dict) else None
    return kept if isinstance(kept, dict) else {}


def _joined(modules: list[nn.Module]) -> nn.Module:
    if not modules:
        return nn.Identity()
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _plain(value: Any) -> Any:
    """A tensor as an array, anything else as it is; other libraries put tensors into their nodes."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def _float(value: Any) -> float | None:
    """A number of a graph's metadata; None where it is none."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return float(value) if number else None


def _array(name: str, node: Any, field: str) -> np.ndarray:
    """A node's array of finite numbers."""
    try:
        value = np.asarray(_plain(getattr(node, field)))
    except Exception as error:  # what numpy makes of strange objects is not one kind of error
        raise ValueError(f"node {name!r}: {field} is no array of numbers") from error
    if value.dtype.kind not in "fiu":
        raise ValueError(f"node {name!r}: {field} must be numbers, got dtype {value.dtype}")
    if not np.isfinite(value).all():
        raise ValueError(f"node {name!r}: {field} holds NaN or infinity")
    return value


def _numbers(name: str, node: Any, field: str, shape: tuple[int, ...]) -> Any:
    """A node's constant: a number, or a float64 tensor like the features where its entries differ."""
    value = torch.from_numpy(_array(name, node, field).astype(np.float64))
    if value.numel() == 1:
        return float(value)
    if tuple(value.shape) != shape:
        raise ValueError(f"node {name!r}: {field} has shape {tuple(value.shape)}, its neurons have {shape}")
    return collapse(value)


def _constant(value: Any, shape: tuple[int, ...]) -> Constant | None:
    """A constant kept in metadata; None where it is none."""
    if isinstance(value, np.ndarray) and value.dtype == np.float64 and value.shape == shape:
        return collapse(torch.from_numpy(value.copy()))
    return _float(value)


def _whole_numbers(name: str, field: str, value: Any, least: int | None = None) -> list[int]:
    """Integers out of a number, a sequence or an array."""
    try:
        array = np.atleast_1d(np.asarray(_plain(value)))
    except ValueError as error:
        raise ValueError(f"node {name!r}: {field} is no list of integers") from error
    limit = 2**31
    if (
        array.ndim != 1
        or array.dtype.kind not in "iu"
        or len(array) > 8
        or (len(array) and int(abs(array).max()) >= limit)
    ):
        raise ValueError(f"node {name!r}: {field} must be integers, got {value!r}")
    if least is not None and len(array) and array.min() < least:
        raise ValueError(f"node {name!r}: {field} must be at least {least}, got {value!r}")
    return [int(x) for x in array]


def _pair(name: str, node: Any, field: str, least: int = 0) -> tuple[int, int]:
    """Two integers, where one stands for both."""
    values = _whole_numbers(name, field, getattr(node, field), least)
    if len(values) not in (1, 2):
        raise ValueError(f"node {name!r}: {field} must be one or two integers, got {values}")
    return values[0], values[-1]
