"""Update rules of the user's own, by a dotted name or from a file."""

import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optax

from .. import optim
from .._usage import UsageError, shown
from .._user_code import user_line
from ..optim import Rates
from ..optim._numbers import Scalar, ScalarOrSchedule
from ..theory import Budget, UpdateFamily
from ..theory._family import families
from ._call import Call

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_FILE = re.compile(r"(?P<file>.+\.py)(#(?P<digest>[0-9a-f]{8}))?:(?P<name>[A-Za-z_]\w*)", re.ASCII)
_RATE = "learning_rate"

# For one learning rate, which no family changes.
_NO_FAMILY = UpdateFamily("not named", 0, 0)

EXAMPLES = "optax.adan@adam or my_rule.py:make@adam"


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A function that makes an update rule, by its name; it is looked up when it is called.

    It stands in a recipe where an entry of the catalogue may, and has what that has.

    **Arguments:**

    - `name`: dotted, `optax.adan`; or in a file, `my_rule.py#1a2b3c4d:make` with the first digits
        of the file's SHA-256: another content is another rule.
    - `family_name`: of its updates; `None` where there is one learning rate for all weights.
    """

    name: str
    family_name: str | None

    budget = False
    decay = False
    decays = False

    @property
    def family(self) -> UpdateFamily:
        return _NO_FAMILY if self.family_name is None else families[self.family_name]

    @property
    def file(self) -> str | None:
        """The file that it is in, if it is in one."""
        named = _FILE.fullmatch(self.name)
        return None if named is None else named["file"]

    @property
    def takes(self) -> dict[str, Any]:
        """The arguments that the function takes beside the learning rate, with their defaults."""
        found = _parameters(self.made())
        return {name: p.default for name, p in found.items() if name != _RATE}

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments sorted by name; which of them it takes is seen when it is called."""
        if _RATE in arguments:
            raise ValueError(f"the sweep gives {self.name} its learning rate; leave it out")
        return {name: arguments[name] for name in sorted(arguments)}

    def rule(self, **arguments: Any) -> optax.GradientTransformation:
        """The update at a learning rate of one, upwards: `descend` turns it."""
        if self.has_rate:
            return optax.chain(self.call(**{_RATE: 1.0}, **arguments), optax.scale(-1.0))
        return self.call(**arguments)

    def decay_options(self, **arguments: Any) -> dict[str, Any]:
        """Nothing: a decay is its own affair."""
        del arguments
        return {}

    def optimizer(
        self,
        learning_rate: ScalarOrSchedule,
        rates: Rates,
        *,
        role_multipliers: Mapping[str, Scalar] | None = None,
        budget: Budget | None = None,
        shape: optax.Schedule | None = None,
        **arguments: Any,
    ) -> optax.GradientTransformation:
        """The rule with the width's factors behind it, and the learning rate in it if it takes one.

        **Raises:** `UsageError` if there is no such function, or it can't be called so.
        """
        del shape  # A decay is its own affair.
        if budget is not None:
            raise ValueError(f"{self.name} takes no budget")
        width = optim.scale_by_width(self.family, rates, role_multipliers=role_multipliers)
        if self.has_rate:
            return optax.chain(self.call(**{_RATE: learning_rate}, **arguments), width)
        step = optim.scale_by_learning_rate(learning_rate)
        return optax.chain(self.call(**arguments), width, step)

    def alone(self, call: Call) -> optax.GradientTransformation:
        """The rule as a call writes it, with a learning rate of one if it gives none."""
        if not self.has_rate:
            return optax.chain(self.call(*call.positional, **call.named), optax.scale(-1.0))
        rate = {} if call.positional or _RATE in call.named else {_RATE: 1.0}
        return self.call(*call.positional, **rate, **call.named)

    @property
    def has_rate(self) -> bool:
        """Whether the function has a parameter named `learning_rate`."""
        return _RATE in _parameters(self.made())

    def made(self) -> Callable[..., Any]:
        """The function.

        **Raises:** `UsageError` if there is none of that name.
        """
        named = _FILE.fullmatch(self.name)
        found = _dotted(self.name) if named is None else _in_file(self.name, **named.groupdict())
        if not callable(found):
            raise UsageError(
                f"{self.name} is a {type(found).__name__}; expected a function that returns an "
                "optax.GradientTransformation"
            )
        return found

    def call(self, *positional: Any, **arguments: Any) -> optax.GradientTransformation:
        """What the function makes of the arguments.

        **Raises:** `UsageError` if it doesn't take them, fails, or makes something else.
        """
        function = self.made()
        _check_arguments(self.name, function, positional, arguments)
        try:
            tx = function(*positional, **arguments)
        # Whatever it is: it is the user's code.
        except Exception as error:
            raise UsageError(f"{self.name}: {_said(error)}") from error
        if not isinstance(tx, optax.GradientTransformation):
            raise UsageError(
                f"{self.name} returns a {type(tx).__name__}; expected an "
                "optax.GradientTransformation"
            )
        return tx


def foreign(text: str, family: str | None) -> Foreign:
    """The rule called `text`, a dotted name or `file.py:name`.

    **Raises:** `UsageError` if it is neither, the family is unknown, or there is no such file.
    """
    if family is not None and family not in families:
        raise UsageError(f"{text}@{family}: unknown family {family!r}; {_families()}")
    if _DOTTED.fullmatch(text) and not text.endswith(".py"):
        return Foreign(text, family)
    named = _FILE.fullmatch(text)
    if named is None or not text.isprintable():
        raise UsageError(f"{text!r} names no update rule; examples are {EXAMPLES}")
    if named["digest"]:
        return Foreign(text, family)
    content = _content(named["file"])
    return Foreign(f"{named['file']}#{_digest(content)}:{named['name']}", family)


def needs_family(text: str) -> UsageError:
    """The error for a rule without a family where the rates are not global."""
    return UsageError(
        f"{text} has no family, from which its learning rates follow; write {text}@FAMILY, or use "
        f"the rates global. {_families()}"
    )


def _families() -> str:
    return (
        f"families are {', '.join(families)}: sgd for updates as large as the gradient, adam for "
        "updates of one size, adafactor for those relative to the weight, muon for orthogonal ones"
    )


def _dotted(name: str) -> Any:
    """The attribute of an installed module, which is imported."""
    first, *rest = name.split(".")
    found, path = _imported(first, name), first
    for part in rest:
        if not hasattr(found, part):
            below = f"{path}.{part}"
            if not hasattr(found, "__path__") or importlib.util.find_spec(below) is None:
                near = difflib.get_close_matches(part, dir(found), n=3)
                hint = f"; did you mean {', '.join(near)}" if near else ""
                raise UsageError(f"{name}: {path} has no {part!r}{hint}")
            _imported(below, name)
        found, path = getattr(found, part), f"{path}.{part}"
    return found


def _imported(module: str, name: str) -> Any:
    try:
        if "." not in module and importlib.util.find_spec(module) is None:
            raise UsageError(f"{name}: no package {module!r} is installed; install it, or {_OWN}")
        return importlib.import_module(module)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{name}: {module} can't be imported: {_said(error)}") from error


_OWN = "name a file, as my_rule.py:make@adam"


def _in_file(text: str, *, file: str, digest: str, name: str) -> Any:
    content = _content(file)
    if _digest(content) != digest:
        raise UsageError(
            f"{text}: {shown(file)} has changed since, and is another rule now; leave out "
            f"#{digest} to use it as it is"
        )
    module = _module(str(Path(file).absolute()), digest)
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, vars(module), n=3)
        hint = f"; did you mean {', '.join(near)}" if near else ""
        raise UsageError(f"{shown(file)} has no {name!r}{hint}")
    return getattr(module, name)


@functools.cache
def _module(file: str, digest: str) -> Any:
    """The file's module, run once for each content."""
    spec = importlib.util.spec_from_file_location(f"_scalex_{digest}_{Path(file).stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look for it there.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise UsageError(f"{shown(file)} can't be run: {_said(error)}") from error
    return module


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{shown(file)}: {reason}; name a file of Python") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def _said(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}{user_line(error)}"


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    # Some functions of C have none.
    except (TypeError, ValueError):
        return {}


def _check_arguments(
    name: str, function: Callable[..., Any], positional: Any, arguments: Mapping[str, Any]
) -> None:
    known = _parameters(function)
    if not known:
        return
    try:
        inspect.signature(function).bind(*positional, **arguments)
    except TypeError as error:
        takes = ", ".join(key for key in known if key != _RATE)
        raise UsageError(f"{name}: {error}; it takes {takes or 'no arguments'}") from None
