"""How the gradient of every weight falls with the width, and how theory has it."""

import numpy as np

import scalex_eqx as sx
from numerics.language_model import BASE_WIDTH
from numerics.width import fit
from numerics.width.gradients import PARAMETERIZATIONS, ROLES
from numerics.width.survey import ALL, Survey, sizes
from scalex_eqx.diagnostics import Table

NAME = "width: gradient exponents"
_KEYS = ("steps", "parameterization", "role", "weight")


def table(surveys: list[Survey]) -> Table:
    r"""$\gamma$ of gradients $\sim n^{-\gamma}$ by weight, `all` for all weights of a role."""
    rows = [
        _row(found, name, role, path)
        for found in surveys
        for name in PARAMETERIZATIONS
        for role, path in _weights(found)
    ]
    columns = (*_KEYS, f"RMS at {BASE_WIDTH}", "exponent", "low", "high", "theory")
    return Table(NAME, _KEYS, columns, rows)


def _weights(found: Survey) -> list[tuple[str, str]]:
    """Role and path, by role and the role's sum in front."""
    some = next(iter(found.summaries.values())).rms
    return sorted(some, key=lambda key: (ROLES.index(key[0]), key[1] != ALL))


def _row(found: Survey, name: str, role: str, path: str) -> dict:
    by_width = sizes(found, name, role, path)
    fitted = fit.falls(found.widths, by_width)
    return {
        **dict(zip(_KEYS, (found.steps, name, role, path), strict=True)),
        f"RMS at {BASE_WIDTH}": float(np.exp(np.log(by_width[0]).mean())),
        "exponent": fitted.value,
        "low": fitted.low,
        "high": fitted.high,
        "theory": theory(name, role),
    }


def theory(name: str, role: str) -> float:
    """The exponent at initialisation, which under Adam and full alignment stays in training."""
    parameterization, _ = PARAMETERIZATIONS[name]
    return float(sx.theory.gradient_exponents(parameterization)[sx.Role(role)])


def fitted(found: Survey, name: str, role: str) -> fit.Interval:
    """The exponent of all weights of a role."""
    return fit.falls(found.widths, sizes(found, name, role, ALL))
