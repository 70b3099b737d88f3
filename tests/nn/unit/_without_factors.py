"""Programs of `nn.unit` as they would be if every factor were one."""

import contextlib
import sys
from collections.abc import Iterator
from unittest import mock

from scalex_eqx.ops import scaled

_ONES = scaled.Factors(1.0, (1.0, 1.0, 1.0), (1.0,))


@contextlib.contextmanager
def without_factors() -> Iterator[None]:
    """Whatever is traced in here is traced with all factors one."""
    with contextlib.ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("scalex_eqx.ops.scaled.") and hasattr(module, "scale"):
                same = lambda x, **_: x  # noqa: E731
                stack.enter_context(mock.patch.object(module, "scale", same))
        for module, name in (("_activations", "gated_silu"), ("_attention", "attention")):
            whole = sys.modules[f"scalex_eqx.ops.scaled.{module}"]
            ones = mock.patch.object(whole, f"{name}_factors", lambda *_, **__: _ONES)
            stack.enter_context(ones)
        yield
