"""How many runs of a program the devices hold at a time."""

from collections.abc import Sequence
from typing import Any

import jax

from .._memory import available_on, bytes_of, check_runs
from ._program import Program


def shared_out(runs: int, at_once: int | None) -> tuple[list[Any], int]:
    """The devices that are used, and how many runs each would have at a time, memory aside."""
    devices = jax.devices()
    most = min(runs, at_once or (len(devices) if is_cpu(devices) else runs))
    used = devices[: min(len(devices), most)]
    return used, -(-most // len(used))


def is_cpu(devices: Sequence[Any]) -> bool:
    """Whether they are cores, each of which is fastest with a single run."""
    return devices[0].platform == "cpu"


def check_memory(program: Program, runs: int, at_once: int | None) -> None:
    """Refuses runs whose weights, gradients and optimizer state alone don't fit, from shapes.

    Where the number of runs is left to the memory, one on each device has to fit.

    **Raises:** `UsageError` that names what was asked for and the remedy.
    """
    devices, each = shared_out(runs, at_once)
    slots = len(devices) * (each if at_once is not None or is_cpu(devices) else 1)
    needed = slots * _least(program) + len(devices) * _shared(program)
    check_runs(needed, slots, devices, width=program.sizes["width"])


def fitting_by_shapes(program: Program, each: int, devices: Sequence[Any]) -> int:
    """How many of `each` runs on each device could fit at most, before anything is there."""
    free = available_on(devices)
    if free is None:
        return each
    room = free / len(devices) - _shared(program)
    return max(min(each, int(room / _least(program))), 1)


def fitting(compiled: Any, program: Program, each: int, devices: Sequence[Any]) -> int:
    """How many runs on each device fit of a program that is compiled for `each`, beside what is
    there already.

    **Raises:** `UsageError` if not a single one does.
    """
    needed, free = new_bytes(compiled), available_on(devices)
    if needed is None or free is None or len(devices) * needed <= free:
        return each
    found = min(int(each * free / (len(devices) * needed)), each - 1)
    if found < 1:
        check_program(compiled, program, each, devices)
    return found


def check_program(compiled: Any, program: Program, each: int, devices: Sequence[Any]) -> None:
    """Refuses a compiled program that needs more memory than is left beside its arguments."""
    needed = new_bytes(compiled)
    if needed is not None:
        runs, width = each * len(devices), program.sizes["width"]
        check_runs(len(devices) * needed, runs, devices, width=width)


def new_bytes(compiled: Any) -> int | None:
    """What a compiled program takes on a device beside its arguments, if it says so."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes


def _least(program: Program) -> int:
    """Bytes of one run: a gradient is as large as the model."""
    return bytes_of(program.state) + bytes_of(program.state.model)


def _shared(program: Program) -> int:
    """Bytes that a device has once for all runs."""
    return bytes_of(program.problem.data) + bytes_of(program.problem.held_out)
