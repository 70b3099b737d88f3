"""The built site, and a headless Chromium to read it with."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
# A test reads the site and nothing else.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


# Playwright keeps an event loop running, in which no other test's loop can start: it ends with
# the module.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = [path for name in NAMES if (path := shutil.which(name))]
    if not found:
        pytest.skip(f"needs one of {', '.join(NAMES)}")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=found[0], args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def tab(browser: Any) -> Any:
    """A tab that a module's tests share: opening one takes longer than most of them."""
    tab = browser.new_page()
    tab.set_default_timeout(20_000)
    return tab


@pytest.fixture
def page(tab: Any) -> Iterator[Any]:
    """The tab, empty again, in which nothing may go wrong unseen."""
    tab.goto("about:blank")
    tab.set_viewport_size({"width": 1280, "height": 900})
    said: list[str] = []

    def on_error(error: Any) -> None:
        said.append(str(error))

    def on_message(message: Any) -> None:
        if message.type == "error":
            said.append(message.text)

    tab.on("pageerror", on_error)
    tab.on("console", on_message)
    yield tab
    tab.remove_listener("pageerror", on_error)
    tab.remove_listener("console", on_message)
    assert not said
