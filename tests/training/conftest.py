import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def started(program: str, *arguments: object, devices: int = 1) -> subprocess.Popen:
    """A program beside this file, in a process with so many virtual devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, str(HERE / program), *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen) -> Any:
    """What it has printed last, as JSON."""
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="session")
def eight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program for eight devices has found."""
    return said(started("_eight.py", tmp_path_factory.mktemp("eight"), devices=8))


@pytest.fixture(scope="session")
def pair() -> Callable[..., list[Any]]:
    """Runs the program of which two processes train together, in a folder."""

    def run(folder: Path) -> list[Any]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        both = [started("_two.py", port, process, folder) for process in range(2)]
        return [said(process) for process in both]

    return run
