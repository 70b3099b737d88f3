"""The site's search finds what a reader looks for, with a server and without one."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

WORDS = ("epsilon", "adafactor", "bf16")


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[str]:
    """The site's address on a local server."""
    handler = functools.partial(_Silent, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_search(page: Any, site: Path, server: str, scheme: str):
    page.goto(f"{server if scheme == 'http' else site.as_uri()}/index.html")
    box = page.get_by_role("textbox", name="Search")
    box.click()
    for word in WORDS:
        links = found(page, box, word)
        # The first few results lead to pages that hold the word.
        for link in links[:3]:
            path = site / Path(unquote(urlsplit(link).path)).relative_to(
                "/" if scheme == "http" else site
            )
            assert word in path.read_text(encoding="utf-8").lower(), f"{word}: {link}"
    box.fill("")
    box.press_sequentially("quokka")
    page.get_by_text("No matching documents").wait_for()


def found(page: Any, box: Any, word: str) -> list[str]:
    """Where the results for a word lead."""
    box.fill("")
    # Key by key: the search listens to keys.
    box.press_sequentially(word)
    links = page.locator(f'.md-search-result__item > a[href*="?h={word}"]')
    links.first.wait_for()
    return links.evaluate_all("(links) => links.map((link) => link.href)")
