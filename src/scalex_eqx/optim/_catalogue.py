"""Every update rule once: what commands, recipes, stress, tests and pages read."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import optax

from ..theory import Budget
from ..theory._family import Families
from ._adafactor import adafactor, bare_adafactor
from ._adam import adam, adamw, scale_by_adam
from ._adam_atan2 import adam_atan2, scale_by_adam_atan2
from ._decay import DecayMode, is_coupled
from ._learned import learned, scale_by_learned
from ._learned._files import is_pinned, pinned
from ._lion import lion, scale_by_lion, scale_by_sign, sign_sgd
from ._micro_adam import micro_adam, scale_by_micro_adam
from ._muon import FAMILIES, bare_muon, muon
from ._numbers import Scalar, ScalarOrSchedule
from ._parameter_scaling import adam_parameter_scaling, bare_adam_parameter_scaling
from ._rates import Rates
from ._sgd import bare_sgd, sgd
from ._sign_ema import scale_by_sign_ema, sign_ema

_DECAY = {"weight_decay": None, "decay_mode": "independent", "decay_schedule": "constant"}
OF_DECAY = frozenset(_DECAY)
"""The arguments that are the decay's, and not the update's."""

DecaySchedule = Literal["constant", "rate"]
"""Whether independent decay stays, or rises and falls as the learning rate does."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An update rule by name. Two of one name are the same.

    **Arguments:**

    - `name`: of the optimizer.
    - `maker`: the public function that makes it.
    - `bare`: makes the update alone, without learning rate, width and decay.
    - `family`: that of `bare`, one or by role.
    - `presets`: the arguments that sweeps give in place of the maker's own defaults.
    - `decays`: whether it is nothing without a weight decay.
    """

    name: str
    maker: Callable[..., optax.GradientTransformation] = dataclasses.field(compare=False)
    bare: Callable[..., optax.GradientTransformation] = dataclasses.field(compare=False)
    family: Families = dataclasses.field(compare=False)
    presets: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    decays: bool = dataclasses.field(default=False, compare=False)

    @property
    def takes(self) -> dict[str, Any]:
        """The arguments that it takes, with the values that they have in a sweep if left out."""
        own = {name: p.default for name, p in inspect.signature(self.bare).parameters.items()}
        return {**own, **self.presets, **(_DECAY if self.decay else {})}

    @property
    def decay(self) -> bool:
        """Whether it takes a weight decay."""
        return "weight_decay" in inspect.signature(self.maker).parameters

    @property
    def budget(self) -> bool:
        """Whether it takes a budget: what its numbers are at another batch size is known."""
        return "budget" in inspect.signature(self.maker).parameters

    def rule(self, **arguments: Any) -> optax.GradientTransformation:
        """The update alone, which `descend` makes the optimizer of.

        **Arguments:** out of `takes`; those of the decay are not the update's.
        """
        return self.bare(**self._own(arguments))

    def decay_options(
        self, *, shape: optax.Schedule | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """What `descend` is given of the decay for the same arguments.

        **Arguments:**

        - `shape`: the learning rate's over time, with a peak of 1, which independent decay follows
            if its schedule is `"rate"`; that of a constant rate if `None`.
        """
        weight_decay = arguments.get("weight_decay")
        if weight_decay is None:
            if self.decays:
                raise ValueError(
                    f"{self.name} needs a weight_decay; write {self.name}(weight_decay=1e-4)"
                )
            for name in ("decay_mode", "decay_schedule"):
                if name in arguments:
                    raise ValueError(f"{name} is given without a weight_decay; give one too")
            return {}
        mode = arguments.get("decay_mode", _DECAY["decay_mode"])
        follows = arguments.get("decay_schedule", _DECAY["decay_schedule"]) == "rate"
        if follows and is_coupled(mode):
            raise ValueError(
                f"decay_schedule is 'rate' beside decay_mode {mode!r}, which follows the learning "
                "rate by itself; leave out one of them"
            )
        schedule = shape if follows and shape is not None else optax.constant_schedule(1.0)
        schedule = None if is_coupled(mode) else schedule
        return {
            "weight_decay": weight_decay,
            "decay_mode": mode,
            "weight_decay_schedule": schedule,
        }

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
        """What the public maker gives for the same arguments.

        **Arguments:**

        - `learning_rate`, `rates`, `role_multipliers`, `budget`: as for the maker.
        - `shape`: as for `decay_options`.
        - others: out of `takes`.

        **Raises:** `ValueError` for a budget that it doesn't take, and a missing weight decay.
        """
        if budget is not None and not self.budget:
            raise ValueError(f"{self.name} takes no budget")
        options: dict[str, Any] = {} if budget is None else {"budget": budget}
        return self.maker(
            learning_rate=learning_rate,
            rates=rates,
            role_multipliers=role_multipliers,
            **self._own(arguments),
            **self.decay_options(shape=shape, **arguments),
            **options,
        )

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the arguments that differ from what they are if left out, sorted by name.

        **Raises:** `ValueError` for an argument that it doesn't take, and a value of another kind.
        """
        takes = self.takes
        return {
            name: value
            for name, value in self.typed(arguments).items()
            if (type(value), value) != (type(takes[name]), takes[name])
        }

    def typed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments sorted by name, whole numbers as floats where it takes floats, and a file
        with the digest of what is in it.

        **Raises:** as `checked`.
        """
        takes, hints = self.takes, _hints(self.bare)
        if self.decay:
            hints |= {
                "weight_decay": float | None,
                "decay_mode": DecayMode,
                "decay_schedule": DecaySchedule,
            }
        for name in arguments:
            if name not in takes:
                known = ", ".join(takes) or "no arguments"
                raise ValueError(f"{self.name} takes no {name!r}; it takes {known}")
        typed = {
            name: _as_hinted(f"{name} of {self.name}", hints[name], arguments[name])
            for name in sorted(arguments)
        }
        # A decay of 0 would have its place in the state, and none in the text.
        decay = typed.get("weight_decay")
        if decay is not None and not 0 < decay < 1:
            raise ValueError(
                f"weight_decay of {self.name} is {decay}; expected more than 0 and less than 1"
            )
        return typed

    def _own(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in arguments.items() if name not in _DECAY}
        return {**self.presets, **own}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(inspect.unwrap(function))


def _as_hinted(what: str, hint: Any, value: Any) -> Any:
    """The value as one of those that the type `hint` allows; whole numbers as floats of floats.

    **Raises:** `ValueError` for another, which says what is expected.
    """
    allowed = list(_alternatives(hint))
    if bool in allowed and isinstance(value, bool):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if float in allowed and is_number:
        return float(value)
    if int in allowed and is_number and isinstance(value, int):
        return value
    # True is equal to 1, and would be a choice.
    choices = [x for x in allowed if not isinstance(x, type)]
    if any(type(value) is type(x) and value == x for x in choices):
        return value
    if Path in allowed:
        if isinstance(value, str) and (value.endswith(".npz") or is_pinned(value)):
            return pinned(value)
        raise ValueError(f"{what} is {value!r}; expected {choices[0]!r} or a file, as 'mine.npz'")
    words = ["True or False"] if bool in allowed else []
    if float in allowed or int in allowed:
        words = ["a number" if float in allowed else "a whole number"]
    raise ValueError(f"{what} is {value!r}; expected {' or '.join([*words, *map(repr, choices)])}")


def _alternatives(hint: Any) -> Iterator[Any]:
    """The plain types that a union consists of, and the values of its literals."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for one in typing.get_args(hint):
            yield from _alternatives(one)
    elif origin is Literal:
        yield from typing.get_args(hint)
    elif hint is types.NoneType:
        yield None
    elif hint in (bool, int, float, Path):
        yield hint


_ADAM = {"b1": 0.9, "b2": 0.95, "eps": 1e-12}
_BETAS = {"b1": 0.9, "b2": 0.95}

catalogue: Mapping[str, Entry] = types.MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Entry("adam", adam, scale_by_adam, "adam", _ADAM),
            Entry("adamw", adamw, scale_by_adam, "adam", _ADAM, decays=True),
            Entry("adam_atan2", adam_atan2, scale_by_adam_atan2, "adam", _BETAS),
            Entry(
                "adam_parameter_scaling",
                adam_parameter_scaling,
                bare_adam_parameter_scaling,
                "adafactor",
                _ADAM,
            ),
            # Without momentum, as it was published; widths from 32 on are factored.
            Entry("adafactor", adafactor, bare_adafactor, "adafactor", {"min_factored_size": 32}),
            Entry("learned", learned, scale_by_learned, "adam"),
            Entry("lion", lion, scale_by_lion, "adam"),
            Entry("micro_adam", micro_adam, scale_by_micro_adam, "adam", _ADAM),
            # With entries as large as Adam's, so that one learning rate is right for both.
            Entry("muon", muon, bare_muon, FAMILIES, {**_ADAM, "scale": "rms"}),
            Entry("sgd", sgd, bare_sgd, "sgd", {"momentum": 0.9}),
            Entry("sign_ema", sign_ema, scale_by_sign_ema, "adam"),
            Entry("sign_sgd", sign_sgd, scale_by_sign, "adam"),
        )
    }
)
"""Every optimizer of the library, by name."""
