import dataclasses

import tyro
from rich.console import Console
from rich.markdown import Markdown

from .._explain import explanation, listing, topics, unknown
from ..experiments import UsageError


@dataclasses.dataclass(frozen=True)
class Explain:
    """Print what the documentation says of an error. Without a name, list what can be explained.

    Errors end with the name to give. It needs no network, and python -m scalex_eqx explain works
    without the extra that the other commands need.

    Example: scalex explain no-law
    """

    name: tyro.conf.Positional[str] = ""
    """What the error named."""

    def run(self, console: Console) -> None:
        if self.name and self.name not in topics():
            raise UsageError(unknown(self.name))
        text = explanation(topics()[self.name]) if self.name else listing()
        if self.name and console.is_terminal:
            console.print(Markdown(text))
        else:
            console.print(text.rstrip("\n"), soft_wrap=True, markup=False, highlight=False)
