"""What `--help` says of a command, from its docstring."""

import inspect
import textwrap
from typing import TypeVar

from ..experiments._foreign import EXAMPLES
from ..experiments._recipe import PARAMETERIZATIONS
from ..optim._catalogue import catalogue
from ..theory import budget_rules

_WIDTH = 79

_OPTIMIZERS = f"""Optimizers: {", ".join(catalogue)}.
They take arguments, as adam(eps=1e-8). Or one of your own:
{EXAMPLES}."""

RECIPE = f"""parameterization:optimizer:rates, as for scalex transfer.
{_OPTIMIZERS}"""

RECIPES = f"""What to compare: parameterization:optimizer:rates.
Parameterizations: {", ".join(PARAMETERIZATIONS)}.
{_OPTIMIZERS}
Rates: global, one learning rate for all weights;
full or none, the prescription under that alignment;
or exponents by role, as scalex align prints: embedding=0,hidden=9/10,readout=1,vector=0.
A fourth part multiplies learning rates by role or path: standard:adam:full:embedding=2.
Last may stand a rule for the batch size: {", ".join(budget_rules)};
or its exponents, batch(learning_rate='1/2')."""


_Command = TypeVar("_Command", bound=type)


def own_options_first(command: _Command) -> _Command:
    """A dataclass whose fields, and so its options in the help, come before those of its bases.

    Dataclasses have them the other way round.
    """
    fields = vars(command)["__dataclass_fields__"]
    names = [name for one in command.__mro__ for name in vars(one).get("__annotations__", ())]
    ordered = {name: fields[name] for name in dict.fromkeys(names) if name in fields}
    setattr(command, "__dataclass_fields__", ordered)  # noqa: B010 (a type has no such attribute)
    return command


def summary(command: type) -> str:
    """The first paragraph: what it does."""
    return _paragraphs(command)[0]


def description(command: type) -> str:
    """All paragraphs, in lines that fit a terminal; examples stay in one piece."""
    return "\n\n".join(
        text if text.startswith("Example: ") else filled(text) for text in _paragraphs(command)
    )


def filled(text: str) -> str:
    """A paragraph in lines that fit a terminal."""
    # tyro joins the lines of a paragraph again, but for those that start with a space.
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ")


def _paragraphs(command: type) -> list[str]:
    return [" ".join(text.split()) for text in (inspect.getdoc(command) or "").split("\n\n")]
