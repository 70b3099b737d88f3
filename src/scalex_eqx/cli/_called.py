"""Update rules by the call that makes them, as a command is given them."""

import optax

from ..experiments import UsageError
from ..experiments._call import Call, parse_call
from ..experiments._foreign import foreign
from ..optim._catalogue import OF_DECAY, Entry, catalogue


def called(text: str, what: str, otherwise: str) -> optax.GradientTransformation:
    """The rule that `text` writes, one of the catalogue or of the user's own.

    **Arguments:**

    - `what`: the option that has it.
    - `otherwise`: what else may stand there.

    **Raises:** `UsageError` if it names no rule, or the rule can't be made so.
    """
    call = parse_call(text)
    entry = catalogue.get(call.name)
    if entry is None and "." not in call.name:
        raise UsageError(f"{what} has {text!r}; give {otherwise}")
    return foreign(call.name, None).alone(call) if entry is None else _known(entry, call, what)


def _known(entry: Entry, call: Call, what: str) -> optax.GradientTransformation:
    if call.positional:
        raise UsageError(f"{what} has {call.name} with an argument without a name; name it")
    try:
        arguments = entry.typed(call.named)
        decay = entry.decay_options(**arguments)
        own = {name: x for name, x in arguments.items() if name not in OF_DECAY}
        return entry.maker(learning_rate=1.0, **own, **decay)
    except ValueError as error:
        raise UsageError(f"{what} has {call.name}: {error}") from None
