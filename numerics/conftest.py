import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from numerics import report, rooms
from numerics.capabilities import Capabilities, capabilities
from scalex_eqx.diagnostics import Table

HERE = Path(__file__).parent
PLATFORMS = {"cpu", "gpu", "tpu"}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("numerics")
    group.addoption("--stress", action="store_true", help="everything, long cases included")
    group.addoption("--exhaustive", action="store_true", help="every value of 16-bit formats")
    group.addoption(
        "--write-results",
        action="store_true",
        help="write what was measured to numerics/results, named by the chip",
    )


def pytest_report_header() -> list[str]:
    found = capabilities()
    kept = [dtype for dtype, keeps in found.keeps_subnormals.items() if keeps]
    elided = [dtype for dtype, elides in found.elides_rounding.items() if elides]
    return [
        f"device: {found.device.chip} ({found.device.platform})",
        f"subnormal numbers kept in: {', '.join(kept) or 'none'}; "
        f"roundings left out to: {', '.join(elided) or 'none'}; "
        f"float32 matmul: {found.matmul_bits} bits",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for reason in _reasons_to_skip(item, config):
            item.add_marker(pytest.mark.skip(reason=reason))
    if config.getoption("--write-results"):
        _check_whole({_room(item) for item in items})


def _reasons_to_skip(item: pytest.Item, config: pytest.Config) -> list[str]:
    reasons = []
    stress = config.getoption("--stress")
    if item.get_closest_marker("stress") and not stress:
        reasons.append("takes long: run with --stress")
    if item.get_closest_marker("exhaustive") and not (stress or config.getoption("--exhaustive")):
        reasons.append("goes through every value: run with --exhaustive")
    platforms = {mark.name for mark in item.iter_markers()} & PLATFORMS
    if platforms and jax.default_backend() not in platforms:
        expected = " or ".join(sorted(platforms))
        reasons.append(f"expected of a {expected} only; this is a {jax.default_backend()}")
    return reasons


def _room(item: pytest.Item) -> str:
    parts = item.path.relative_to(HERE).parts
    return parts[0] if len(parts) > 1 else ""


def _check_whole(selected: set[str]) -> None:
    missing = set(rooms.ROOMS) - selected
    if missing and selected != {rooms.COMPILED}:
        raise pytest.UsageError(
            f"--write-results writes whole reports, and {', '.join(sorted(missing))} would be "
            f"missing; select all of numerics, or numerics/{rooms.COMPILED} alone"
        )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    if not config.getoption("--write-results") or config.getoption("--collect-only"):
        return
    # A failed test is a finding; a run that was stopped has not measured everything.
    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    selected = {_room(item) for item in session.items}
    command = shlex.join(["pytest", *config.invocation_params.args])
    stress = bool(config.getoption("--stress"))
    if selected == {rooms.COMPILED}:
        written = report.write_compiled(command, stress)
    elif selected:
        written = report.write_device(command, stress)
    else:
        return
    print(f"\nwritten: {written}", file=sys.stderr)


@pytest.fixture(scope="session")
def thorough(pytestconfig: pytest.Config) -> bool:
    """Whether everything was asked for."""
    return bool(pytestconfig.getoption("--stress"))


@pytest.fixture(scope="session")
def measured(thorough: bool) -> Callable[[str], dict[str, Table]]:
    """The tables of a room by name, measured once a session: `measured("formats")`."""
    return lambda room: rooms.measured(room, thorough)


@pytest.fixture(scope="session")
def device() -> Capabilities:
    """What this device does, found by trying."""
    return capabilities()
