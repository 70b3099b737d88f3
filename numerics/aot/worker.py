"""Compiles all programs for some targets and writes down what came out; a process of its own.

Its process has the compilers' settings in the environment before JAX is imported, and cannot
disturb the device of the process that started it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from numerics.aot.programs import FLUSHING, Program, flushing, programs
from numerics.aot.targets import TARGETS, Target, devices


def main(folder: Path, names: list[str]) -> None:
    """Writes `<target>.json` for each target into the folder.

    Looks for PTX in its folder `dump`, where the compiler was told to put it.
    """
    for name in names:
        target = TARGETS[name]
        wanted = programs()
        if target.platform == "cuda":
            wanted[FLUSHING] = flushing()
        chips = {count: devices(target, count) for count in (1, 4)}
        found = {}
        for number, (title, program) in enumerate(wanted.items()):
            function = f"{target.name}_program{number}"
            found[title] = _compiled(program, target, chips[program.chips], function)
            found[title]["ptx"] = _dumped(folder / "dump", function)
        (folder / f"{name}.json").write_text(json.dumps(found))


def _compiled(program: Program, target: Target, chips: list[Any], name: str) -> dict[str, Any]:
    def function(*arguments):
        return program.function(*arguments)

    # The compiler's dumps are named by the function.
    function.__name__ = name
    jitted = jax.jit(
        function,
        donate_argnums=program.donated,
        compiler_options=dict(program.options) or None,
    )
    lowered = jitted.trace(*_placed(program, chips)).lower(lowering_platforms=(target.platform,))
    compiled = lowered.compile()
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    assert memory is not None
    return {
        "hlo": compiled.as_text(),
        "bytes": cost.get("bytes accessed"),
        "flops": cost.get("flops"),
        "temporary": memory.temp_size_in_bytes,
        "least bytes": _least_bytes(program),
    }


def _dumped(folder: Path, function: str) -> str:
    """The PTX of all kernels of a program."""
    return "\n".join(path.read_text() for path in sorted(folder.glob(f"*jit_{function}.*ptx")))


def _placed(program: Program, chips: list[Any]) -> tuple[Any, ...]:
    """The arguments on the chips they are compiled for."""
    if program.chips == 1:
        single = SingleDeviceSharding(chips[0])
        return jax.tree.map(lambda x: _on(x, single), program.arguments)
    mesh = Mesh(np.asarray(chips), ("chips",))

    def place(x, axis):
        if axis is None or x.ndim <= axis or x.shape[axis] % len(chips):
            return _on(x, NamedSharding(mesh, PartitionSpec()))
        return _on(x, NamedSharding(mesh, PartitionSpec(*(None,) * axis, "chips")))

    return tuple(
        jax.tree.map(lambda x, axis=axis: place(x, axis), argument)
        for argument, axis in zip(program.arguments, program.split, strict=True)
    )


def _on(x: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _least_bytes(program: Program) -> int:
    """Every argument read once, every result written once."""
    results = jax.eval_shape(program.function, *program.arguments)
    leaves = jax.tree.leaves((program.arguments, results))
    return sum(x.size * x.dtype.itemsize for x in leaves)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
