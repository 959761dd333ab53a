"""What an ONNX file computes, read from its bytes: operators and the names between them.

No weight is read and onnx is not imported, so that it takes milliseconds whatever the file's size.
The numbers of the fields are those of ONNX's onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from convmixer import protobuf
from convmixer.errors import UserError

# A large network has some thousand nodes of a dozen fields.
MOST_FIELDS = 1_000_000
MOST_NODES = 100_000
_DEEPEST = 16  # graphs within graphs
# What keeps every value, or only its number type or place.
_PASSES_ON = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"}
# Their answer is known from a shape, before any image.
_OF_SHAPES = {"Shape", "Size"}
_REPEATING = {"Loop", "Scan", "SequenceMap"}


@dataclass(slots=True)
class Node:
    """`operator`: its name, with the domain before it where that is not ONNX's own. `inner`: nodes of its graphs."""

    operator: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    inner: list[Node] = field(default_factory=list)
    has_graph: bool = False


@dataclass
class OnnxGraph:
    """Nodes, names of the inputs, and the functions by their names, as `Node.operator` has them."""

    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    initializers: list[str] = field(default_factory=list)
    functions: dict[str, list[Node]] = field(default_factory=dict)

    def last_operator(self, output: str) -> str | None:
        """The operator that an output's values come from; None where a function or a branch hides it."""
        producers = {name: node for node in self.nodes for name in node.outputs}
        for _ in range(len(self.nodes)):
            node = producers.get(output)
            if node is None or node.operator not in _PASSES_ON or not node.inputs:
                return None if node is None else node.operator
            output = node.inputs[0]
        return None

    def computes_constants(self) -> bool:
        """Whether there is a node that no image reaches, which a runtime would run while it opens the file."""
        if self.functions:
            return True
        reached = set(self.inputs) - set(self.initializers)
        for node in self.nodes:
            if node.has_graph or node.operator in _OF_SHAPES:
                return True
            if reached.intersection(node.inputs):
                reached.update(filter(None, node.outputs))
            elif node.operator != "Constant":
                return True
        return False

    def refuse_repetition(self, path: Path) -> None:
        """Raise UserError for a loop, and for functions that stand for more nodes than any network has."""
        for node in _all_nodes([*self.nodes, *(node for nodes in self.functions.values() for node in nodes)]):
            if node.operator in _REPEATING or (node.has_graph and node.operator != "If"):
                raise UserError(
                    f"{path}: holds a {node.operator}, which repeats a part of the network; "
                    "an image classifier needs none, and it is refused"
                )
        counts: dict[str, int] = {}
        if self._count(self.nodes, counts) > MOST_NODES:
            raise UserError(f"{path}: its functions stand for more than {MOST_NODES:,} operators")

    def _count(self, nodes: list[Node], counts: dict[str, int]) -> int:
        total = 0
        for node in _all_nodes(nodes):
            name = node.operator
            if name in self.functions and name not in counts:
                counts[name] = MOST_NODES + 1  # of one that calls itself
                counts[name] = self._count(self.functions[name], counts)
            total = min(total + counts.get(name, 1), MOST_NODES + 1)
        return total


def read_graph(path: Path) -> OnnxGraph:
    """Raises UserError for a file that is no ONNX file, or has more parts than any network."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: a broken ONNX file: it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Reader(content).model()
            except (ValueError, RecursionError):
                raise UserError(f"{path}: a broken ONNX file") from None
            except OverflowError as error:
                raise UserError(f"{path}: {error}, more than any network") from None


def _all_nodes(nodes: list[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from _all_nodes(node.inner)


class _Reader:
    """Raises ValueError for bytes that are no message, OverflowError for too many."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.fields_left, self.nodes_left = content, MOST_FIELDS, MOST_NODES

    def model(self) -> OnnxGraph:
        graph = OnnxGraph()
        for number, start, end in self._fields(0, len(self.content)):
            if number == 7:
                self._graph(start, end, graph)
            elif number == 25:
                name, nodes = self._function(start, end)
                graph.functions[name] = nodes
        return graph

    def _graph(self, start: int, end: int, graph: OnnxGraph, depth: int = 0) -> None:
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        for number, first, last in self._fields(start, end):
            if number == 1:
                graph.nodes.append(self._node(first, last, depth))
            elif number == 5:
                graph.initializers += self._texts(first, last, 8)
            elif number == 11:
                graph.inputs += self._texts(first, last, 1)

    def _node(self, start: int, end: int, depth: int) -> Node:
        if self.nodes_left == 0:
            raise OverflowError(f"holds more than {MOST_NODES:,} operators")
        self.nodes_left -= 1
        node, domain = Node(), ""
        for number, first, last in self._fields(start, end):
            if number == 1:
                node.inputs.append(self._text(first, last))
            elif number == 2:
                node.outputs.append(self._text(first, last))
            elif number == 4:
                node.operator = self._text(first, last)
            elif number == 5:
                self._attribute(first, last, node, depth)
            elif number == 7:
                domain = self._text(first, last)
        node.operator = _full_name(domain, node.operator)
        return node

    def _attribute(self, start: int, end: int, node: Node, depth: int) -> None:
        for number, first, last in self._fields(start, end):
            if number in (6, 11):  # a graph, or one of several
                inner = OnnxGraph()
                self._graph(first, last, inner, depth + 1)
                node.inner += inner.nodes
                node.has_graph = True

    def _function(self, start: int, end: int) -> tuple[str, list[Node]]:
        name, domain, nodes = "", "", []
        for number, first, last in self._fields(start, end):
            if number == 1:
                name = self._text(first, last)
            elif number == 7:
                nodes.append(self._node(first, last, 0))
            elif number == 10:
                domain = self._text(first, last)
        return _full_name(domain, name), nodes

    def _texts(self, start: int, end: int, wanted: int) -> list[str]:
        return [self._text(first, last) for number, first, last in self._fields(start, end) if number == wanted]

    def _text(self, start: int, end: int) -> str:
        return self.content[start:end].decode("utf-8", "replace")

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number, first byte and end of each field of a message that is text, bytes or a message; others are passed."""
        for part in protobuf.fields(self.content, start, end):
            if self.fields_left == 0:
                raise OverflowError(f"holds more than {MOST_FIELDS:,} parts")
            self.fields_left -= 1
            if part.kind == protobuf.BYTES:
                yield part.number, part.start, part.end


def _full_name(domain: str, name: str) -> str:
    return name if domain in ("", "ai.onnx") else f"{domain}.{name}"
