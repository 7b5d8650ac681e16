"""A NIR graph as the chain of layers that it must be."""

from __future__ import annotations

from typing import Any, NamedTuple

from snnlearn.interchange.constants import NEURONS

Named = tuple[str, Any]  # a node by its name
DEPTH = 12  # graphs in graphs


class Piece(NamedTuple):
    """A layer: the nodes before the neurons, the neurons, and the nodes of the way back to them."""

    synapse: list[Named]
    neuron: Named | None
    loops: bool
    recurrent: list[Named]


def pieces(graph: Any) -> tuple[Named, list[Piece]]:
    """The input of a graph and its layers; the last has no neurons where synapses come last.

    Raises:
        ValueError: the graph has not one input and one output, branches, or loops over several layers.
    """
    nodes, edges = flat(graph)
    after: dict[str, list[str]] = {name: [] for name in nodes}
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for a, b in edges:
        if a not in nodes or b not in nodes:
            raise ValueError(f"there is an edge from {a!r} to {b!r}, but no such node")
        if b in after[a]:
            raise ValueError(f"there are two edges from {a!r} to {b!r}")
        after[a].append(b)
        before[b].append(a)
    kinds = {name: type(node).__name__ for name, node in nodes.items()}
    ends = {kind: [name for name in nodes if kinds[name] == kind] for kind in ("Input", "Output")}
    if len(ends["Input"]) != 1 or len(ends["Output"]) != 1:
        raise ValueError(
            f"a network has one input and one output, the graph has {len(ends['Input'])} and {len(ends['Output'])}"
        )

    def path(name: str) -> tuple[list[str], str]:
        """The synapse nodes from one node on, and the neurons or the output behind them."""
        passed: list[str] = []
        while kinds[name] not in NEURONS and kinds[name] != "Output":
            if name in passed or len(before[name]) != 1 or len(after[name]) != 1:
                raise ValueError(
                    f"node {name!r} has {len(before[name])} inputs and {len(after[name])} outputs; a {kinds[name]} "
                    "must have one of each, and only neurons may have a loop"
                )
            passed.append(name)
            name = after[name][0]
        return passed, name

    start = at = ends["Input"][0]
    seen = {start}
    if before[start]:
        raise ValueError(f"node {start!r} is the input and cannot have an edge to it")
    way: list[str] = []
    out: list[Piece] = []
    while True:
        paths = [path(name) for name in after[at]]
        back = [passed for passed, end in paths if end == at]
        ahead = [one for one in paths if one[1] != at]
        if at != start:
            if len(back) > 1 or len(before[at]) != 1 + len(back):
                raise ValueError(f"node {at!r} has {len(before[at])} inputs; one and at most one loop are read")
            loop = back[0] if back else []
            seen.update(loop)
            out.append(Piece([(n, nodes[n]) for n in way], (at, nodes[at]), bool(back), [(n, nodes[n]) for n in loop]))
        if len(ahead) != 1:
            raise ValueError(f"node {at!r} leads to {len(ahead)} others; exactly one is read")
        way, at = ahead[0]
        if at in seen:
            raise ValueError(f"node {at!r} is part of a loop over several layers")
        seen.update([*way, at])
        if kinds[at] == "Output":
            break
    if way:
        out.append(Piece([(n, nodes[n]) for n in way], None, False, []))
    if len(before[at]) != 1 or after[at]:
        raise ValueError(f"node {at!r} is the output: it has one edge to it and none from it")
    lost = sorted(set(nodes) - seen)
    if lost:
        raise ValueError(f"node {lost[0]!r} is not connected to the input")
    return (start, nodes[start]), out


def flat(graph: Any, depth: int = DEPTH) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The nodes and edges of a graph, graphs inside it dissolved; their nodes are called graph.node."""
    if depth == 0:
        raise ValueError(f"graphs are nested deeper than {DEPTH}")
    if not isinstance(graph.nodes, dict):
        raise ValueError("a graph's nodes must be a dictionary")
    nodes: dict[str, Any] = {}
    edges = [(str(a), str(b)) for a, b in graph.edges]
    for name, node in graph.nodes.items():
        if type(node).__name__ != "NIRGraph":
            nodes[name] = node
            continue
        inner, inside = flat(node, depth - 1)
        ports: dict[str, list[str]] = {"Input": [], "Output": []}
        for part, value in inner.items():
            ports.get(type(value).__name__, []).append(part)
        if len(ports["Input"]) != 1 or len(ports["Output"]) != 1:
            raise ValueError(f"node {name!r} is a graph without exactly one input and one output")
        entry, leave = ports["Input"][0], ports["Output"][0]
        nodes.update({f"{name}.{part}": value for part, value in inner.items() if part not in (entry, leave)})
        inside = [(f"{name}.{a}", f"{name}.{b}") for a, b in inside]
        first = [b for a, b in inside if a == f"{name}.{entry}"]
        last = [a for a, b in inside if b == f"{name}.{leave}"]
        middle = [(a, b) for a, b in inside if a != f"{name}.{entry}" and b != f"{name}.{leave}"]
        into = [(a, n) for a, b in edges if b == name for n in first]
        edges = [(a, b) for a, b in edges if b != name] + into
        out_of = [(n, b) for a, b in edges if a == name for n in last]
        edges = [(a, b) for a, b in edges if a != name] + out_of + middle
    return nodes, edges
