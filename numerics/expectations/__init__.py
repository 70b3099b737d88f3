"""What is expected of which device: every tolerance and threshold, with where it comes from.

An entry is for a backend (`jax.default_backend()`), a chip (its name, as in a report), an
operation and a dtype. The first entry that fits counts, so that exceptions stand in front. Where
none fits, nothing is expected: the value is measured and reported, and no test judges it.
"""

from fnmatch import fnmatchcase

from numerics.expectations._accuracy import ERRORS
from numerics.expectations._compiled import COMPILED
from numerics.expectations._corners import CORNERS
from numerics.expectations._entry import Expected as Expected
from numerics.expectations._products import PRODUCTS
from numerics.expectations._roundings import OVERFLOW as OVERFLOW, ROUNDINGS
from numerics.expectations._scaled import SCALED
from numerics.expectations._subnormals import SUBNORMALS
from scalex_eqx.diagnostics import Device

EXPECTATIONS = (*ERRORS, *SUBNORMALS, *CORNERS, *ROUNDINGS, *PRODUCTS, *SCALED, *COMPILED)


def expected(device: Device, operation: str, dtype: str) -> Expected | None:
    """What is expected of an operation on a device, or `None`."""
    wanted = (device.platform, device.chip, operation, dtype)
    for entry in EXPECTATIONS:
        patterns = (entry.backend, entry.chip, entry.operation, entry.dtype)
        if all(map(fnmatchcase, wanted, patterns)):
            return entry
    return None
