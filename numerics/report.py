"""Writes what the rooms have measured: JSON for machines, Markdown and pictures for people."""

import dataclasses
from importlib import metadata
from pathlib import Path

from numerics import rooms
from numerics.capabilities import capabilities
from scalex_eqx.diagnostics import Device, Results, Table, record

FOLDER = Path(__file__).parent / "results"
COMPILERS = ("libtpu", "jax-cuda12-plugin", "jax-cuda12-pjrt")


def write_device(command: str, thorough: bool) -> Path:
    """The report of this device, under its chip's name."""
    tables = [capabilities().table()]
    for room in rooms.ROOMS:
        tables += rooms.measured(room, thorough).values()
    results = record(tables, command)
    return _write(results, results.device.slug, rooms.ROOMS, thorough)


def write_compiled(command: str, thorough: bool) -> Path:
    """The report of programs that were compiled for other devices, and executed by none."""
    tables = list(rooms.measured(rooms.COMPILED, thorough).values())
    results = record(tables, command)
    versions = {**results.versions, **{name: metadata.version(name) for name in COMPILERS}}
    device = Device("compiled for other devices, executed by none", "compiled")
    results = dataclasses.replace(results, device=device, versions=versions)
    return _write(results, "compiled", (rooms.COMPILED,), thorough)


def _write(results: Results, name: str, selected: tuple[str, ...], thorough: bool) -> Path:
    pictures = FOLDER / name
    for room in selected:
        _draw(room, list(rooms.measured(room, thorough).values()), pictures)
    target = FOLDER / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(results.to_json())
    target.with_suffix(".md").write_text(_markdown(results, pictures))
    return target


def _draw(room: str, tables: list[Table], folder: Path) -> None:
    picture = getattr(rooms.measuring(room), "picture", None)
    if picture is not None:
        folder.mkdir(parents=True, exist_ok=True)
        picture(tables, folder)


def _markdown(results: Results, pictures: Path) -> str:
    found = sorted(pictures.glob("*.png"))
    links = "\n".join(f"![{path.stem}]({path.parent.name}/{path.name})\n" for path in found)
    return f"# Measured numerics\n\n{results.to_markdown()}\n{links}"
