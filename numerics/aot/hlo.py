"""Reads the text of a compiled program: its computations, their instructions and shapes."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8, "f8e4m3fn": 1, "f8e5m2": 1,
}  # fmt: skip
_HEADER = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = ")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
# What moves no data by itself. A branch that is taken once in a blue moon counts as nothing.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "conditional"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


@dataclasses.dataclass(frozen=True)
class Shape:
    """**Arguments:**

    - `dtype`: as the compiler writes it.
    - `size`: how many numbers.
    - `on_chip`: whether it is kept on the chip's own die, not in the main memory.
    """

    dtype: str
    size: int
    on_chip: bool

    @property
    def bytes(self) -> int:
        """Of the main memory."""
        return 0 if self.on_chip else _BYTES[self.dtype] * self.size


@dataclasses.dataclass(frozen=True)
class Instruction:
    """**Arguments:**

    - `name`: without the percent sign.
    - `shapes`: of the result, or of each of its parts.
    - `operation`: such as `"add"`.
    - `operands`: the names of its arguments; of a parameter, its number.
    - `attributes`: all the text behind the arguments.
    - `is_root`: whether it is the computation's result.
    """

    name: str
    shapes: tuple["Shape", ...]
    operation: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def size(self) -> int:
        """The numbers in the largest part of the result."""
        return max((shape.size for shape in self.shapes), default=0)

    @property
    def bytes(self) -> int:
        """What the result takes up of the main memory."""
        # What is copied in the background is followed by the place it comes from.
        shapes = self.shapes[:1] if self.operation == "copy-start" else self.shapes
        return sum(shape.bytes for shape in shapes)

    @property
    def called(self) -> str | None:
        """The computation of a fusion."""
        found = re.search(r"calls=%([\w.\-]+)", self.attributes)
        return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Module:
    """The computations of a program by name; `entry` is where it starts."""

    computations: dict[str, tuple[Instruction, ...]]
    entry: str

    def instructions(self) -> Iterator[Instruction]:
        """Of all computations."""
        for computation in self.computations.values():
            yield from computation

    def count(self, operation: str) -> int:
        """How often an operation stands in the program; a started one counts as one."""
        names = {operation, f"{operation}-start"}
        return sum(instruction.operation in names for instruction in self.instructions())

    def fusions(self) -> int:
        """How many loops over arrays of more than one number the program makes in sequence."""
        return sum(i.operation == "fusion" and i.size > 1 for i in self.computations[self.entry])

    def converts(self) -> Counter[str]:
        """How many casts of arrays there are, by dtypes, such as `"f32 -> bf16"`.

        Those of single numbers, the step count say, are left out.
        """
        found: Counter[str] = Counter()
        for computation in self.computations.values():
            by_name = {instruction.name: instruction for instruction in computation}
            for instruction in computation:
                source = by_name.get(instruction.operands[0]) if instruction.operands else None
                if instruction.operation == "convert" and source and source.size > 1:
                    found[f"{source.shapes[0].dtype} -> {instruction.shapes[0].dtype}"] += 1
        return found

    def bytes_moved(self) -> int:
        """What the operations of the entry computation read from the main memory and write to it.

        Loops in it count once.
        """
        entry = self.computations[self.entry]
        sizes = {instruction.name: instruction.bytes for instruction in entry}
        return sum(
            instruction.bytes + sum(sizes[name] for name in instruction.operands)
            for instruction in entry
            if instruction.operation not in _FREE and not instruction.operation.endswith("-done")
        )


def parse(text: str) -> Module:
    """The module that a compiled program's `as_text` prints."""
    computations: dict[str, tuple[Instruction, ...]] = {}
    entry, name, lines = "", "", []
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            name, lines = header[2], []
            entry = name if header[1] else entry
        elif line.startswith("}"):
            computations[name] = tuple(map(_instruction, lines))
        elif _NAME.match(line):
            lines.append(line)
    return Module(computations, entry)


def _instruction(line: str) -> Instruction:
    found = _NAME.match(line)
    assert found is not None
    rest = line[found.end() :]
    # The type of several results stands in parentheses.
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    operation, _, behind = rest[end:].strip().partition("(")
    close = _closing("(" + behind, 0) - 1
    inside = behind[:close]
    operands = re.findall(r"%([\w.\-]+)", inside)
    if operation in ("parameter", "constant"):
        operands = [inside]
    return Instruction(
        name=found[2],
        shapes=tuple(_shape(*part) for part in _SHAPE.findall(rest[:end])),
        operation=operation,
        operands=tuple(operands),
        attributes=behind[close + 1 :],
        is_root=bool(found[1]),
    )


def _shape(dtype: str, dimensions: str, layout: str) -> Shape:
    sizes = [int(dimension) for dimension in dimensions.split(",") if dimension]
    return Shape(dtype, math.prod(sizes), "S(" in layout)


def _closing(text: str, opening: int) -> int:
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"no closing parenthesis in {text[:80]!r}")
