"""What the loss does with a weight against its law, read from its trace before any training."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.tree_util as jtu
from jaxtyping import Array, PyTree

from ..._laws import WeightLaw, rate_of
from ..._parameterize import is_tie
from ..._parts import Part
from ..._uses import Path, Reader, Use, trace
from ..._weight import Tie, is_weight, path_string, rebuilt
from ...theory import Role
from ...theory._power import Size
from ._growth import sloped
from ._judge import CoordinateFinding
from ._law import Law
from ._models import Over
from ._run import Batch, inputs_of

_MODEL, _VALUE = jtu.SequenceKey(0), jtu.GetAttrKey("value")


class Conflicts(NamedTuple):
    """Uses that contradict laws: what is certain, and what isn't."""

    findings: tuple[CoordinateFinding, ...] = ()
    notices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Array:
    """A trained weight and its uses.

    **Arguments:**

    - `path`: its own.
    - `key`: that of its value in what is traced.
    - `law`: what it is meant to do.
    - `axes`: how many.
    - `growing`: the axes that grow.
    - `fan_in`: those of them that its law sums over.
    - `stack`: the axes that number members.
    - `uses`: in the order of the program.
    """

    path: str
    key: Path
    law: Law
    axes: int
    growing: frozenset[int]
    fan_in: frozenset[int]
    stack: frozenset[int]
    uses: tuple[Use, ...]

    @property
    def matrix(self) -> list[Use]:
        """The uses in which it is a matrix: products, and rows that are looked up."""
        return [use for use in self.uses if use.kind in ("sum", "lookup")]

    def is_own(self, use: Use) -> bool:
        """Whether that is the use that the law is for."""
        summed = use.axes & self.growing
        return summed == self.fan_in and (use.kind == "sum" or not summed)

    def layout(self, summed: frozenset[int] | None) -> str:
        """The entry of `layouts` by which exactly the axes `summed` are summed over."""
        names = tuple(
            "in" if axis in (summed or ()) else "out"
            for axis in range(self.axes)
            if axis not in self.stack
        )
        return f"give parameterize use=..., or layouts={{{self.path!r}: {names}}}"


class _Conflict(NamedTuple):
    array: _Array
    text: str
    is_certain: bool


_TIE = (
    "tie it with equinox.nn.Shared or with scalex_eqx.nn.Embedding and TiedReadout, which have a "
    "place for the factor 1/r, or give parameterize use=..."
)


def conflicts(
    loss: Callable[..., Array],
    batch: Batch,
    models: Sequence[PyTree],
    laws: Mapping[str, Law],
    chain: Sequence[Part],
    over: Over,
) -> Conflicts:
    """Every use in the loss that contradicts the law of its weight.

    **Arguments:**

    - `loss`, `batch`: as given to the check.
    - `models`: shapes at each width.
    - `laws`: by the weights' names.
    - `chain`: the parts of the optimizer.
    - `over`: what grows. Over the depth no axis does, and nothing is asked.
    """
    if over != "width":
        return Conflicts()
    try:
        reader = Reader(_followed(loss, batch, models))
    except Exception as error:  # The loss is anybody's code; the training says what is wrong.
        reason = str(error).partition("\n")[0].partition(": make it")[0] or type(error).__name__
        return Conflicts(
            notices=(f"what the loss does with each weight is not compared with its law: {reason}",)
        )
    arrays = _arrays(reader, models, {law.path: law for law in laws.values()})
    found = [one for array in arrays for one in _of_array(reader, array, arrays, chain)]
    return Conflicts(
        tuple(
            CoordinateFinding("use", c.array.path, None, None, c.text)
            for c in found
            if c.is_certain
        ),
        tuple(f"{c.array.path} {c.text}" for c in found if not c.is_certain),
    )


def _followed(loss: Callable[..., Array], batch: Batch, models: Sequence[PyTree]) -> Any:
    """The loss's program at the two largest widths, with one law: multipliers are no uses."""
    inputs = eqx.filter_eval_shape(lambda: inputs_of(batch, jax.random.key(0)))
    specs = {path: leaf.spec for path, leaf in _leaves(models[-1]) if is_weight(leaf)}

    def alike(model: PyTree, factor: float) -> PyTree:
        def one(path: Path, leaf: Any) -> Any:
            if is_weight(leaf):
                return rebuilt(leaf, leaf.value, specs.get(path, leaf.spec))
            if isinstance(leaf, Tie):
                return Tie(factor)
            return dataclasses.replace(leaf, factor=factor) if is_tie(leaf) else leaf

        return jtu.tree_map_with_path(one, model, is_leaf=_is_node)

    # The factor of a tie differs, so that it is seen where it is multiplied by.
    pairs = [(alike(models[-2], 0.5), inputs), (alike(models[-1], 0.25), inputs)]
    paths = {_key(path) for path in specs}
    return trace(lambda pair: loss(pair[0], *pair[1]), (pairs[0], pairs[1]), paths)


def _is_node(node: Any) -> bool:
    return is_weight(node) or is_tie(node)


def _leaves(model: PyTree) -> list[tuple[Path, Any]]:
    return jtu.tree_leaves_with_path(model, is_leaf=_is_node)


def _key(path: Path) -> Path:
    return (_MODEL, *path, _VALUE)


def _arrays(reader: Reader, models: Sequence[PyTree], laws: Mapping[str, Law]) -> list[_Array]:
    """The trained weights whose law the shapes don't contradict, and that grow at the end too."""
    first, small, large = (
        {path: leaf.value.shape for path, leaf in _leaves(model) if is_weight(leaf)}
        for model in (models[0], *models[-2:])
    )
    found = []
    for path, shape in large.items():
        law = laws.get(path_string(path))
        if law is None or law.spec.forced:
            continue
        growing, everywhere = (_grown(other[path], shape) for other in (small, first))
        spec, axes = law.spec, len(shape)
        if growing != everywhere:
            continue
        found.append(
            _Array(
                law.path,
                _key(path),
                law,
                axes,
                growing,
                growing & {axis + axes for axis in spec.fan_in},
                frozenset(spec.stack_axes(axes)),
                reader.uses(_key(path)),
            )
        )
    return found


def _grown(small: tuple[int, ...], large: tuple[int, ...]) -> frozenset[int]:
    return frozenset(
        i for i, sizes in enumerate(zip(small, large, strict=True)) if len({*sizes}) > 1
    )


def _of_array(
    reader: Reader, array: _Array, arrays: Sequence[_Array], chain: Sequence[Part]
) -> Iterator[_Conflict]:
    # What only takes its own mean off keeps its spread.
    normalised = [use for use in array.uses if use.kind == "normalise" and use.operation != "sub"]
    if normalised and array.fan_in:
        remedy = "compute with the array itself, or freeze it"
        yield _against(reader, array, normalised[0], "so that its spread is not its own", remedy)
    elif any(use.folded for use in array.uses):
        return
    elif not array.law.spec.fan_in:
        yield from _of_vector(reader, array)
    elif not array.matrix:
        yield from _of_entries(reader, array)
    else:
        found = [*_of_matrix(reader, array, arrays)]
        yield from found or _of_readout(reader, array, chain)


def _against(
    reader: Reader, array: _Array, use: Use, but: str, remedy: str, *, certain: bool = True
) -> _Conflict:
    """A use that contradicts the law, unless a number that follows the width is there too."""
    text = f"is used against its law as {array.law.spec.role}: "
    text += f"{reader.phrase(use, array.growing)}, {but}; {remedy}"
    if reader.is_among(array.key, reader.followed.record.sized):
        certain = False
        text += (
            "; but it is multiplied by a number that follows the width, which may make up for it"
        )
    return _Conflict(array, text, certain)


def _of_vector(reader: Reader, array: _Array) -> Iterator[_Conflict]:
    """A bias or gain that is summed over."""
    for use in array.matrix:
        if use.kind == "sum" and use.axes & array.growing:
            but = "and not added or multiplied entry by entry"
            yield _against(reader, array, use, but, array.layout(use.axes))
            return


def _of_entries(reader: Reader, array: _Array) -> Iterator[_Conflict]:
    """A matrix over whose fan-in nothing sums."""
    lost = any(use.kind == "lost" for use in array.uses)
    if not array.fan_in or not array.uses or lost or _may_be_weight(reader, array):
        return
    but = f"and is nowhere summed over axis {_listed(array.fan_in)}"
    yield _against(reader, array, array.uses[0], but, array.layout(None))


def _of_matrix(reader: Reader, array: _Array, arrays: Sequence[_Array]) -> Iterator[_Conflict]:
    """Uses over other axes than those that the law sums over; at most one is told."""
    own = [use for use in array.matrix if array.is_own(use)]
    for use in array.matrix:
        if array.is_own(use) or use.axes <= array.stack:
            continue
        summed = use.axes & array.growing
        if use.kind == "lookup" and summed & array.fan_in:
            found = _looked_up(reader, array, use)
        elif not summed:
            found = _unsummed(reader, array, use, own, arrays)
        elif not summed & array.fan_in:
            found = _other_way(reader, array, use, own, arrays)
        elif summed == array.growing:
            found = [_summed(reader, array, use)]
        else:
            found = []
        if found:
            yield from found
            return


def _looked_up(reader: Reader, array: _Array, use: Use) -> list[_Conflict]:
    """Rows of what is to be summed over, unless they are parts of a sum themselves."""
    if reader.is_among(array.key, reader.followed.record.chosen):
        return []
    but = f"and not summed over axis {_listed(array.fan_in)}"
    return [_against(reader, array, use, but, "look up what is declared as fan_out")]


def _unsummed(
    reader: Reader, array: _Array, use: Use, own: Sequence[Use], arrays: Sequence[_Array]
) -> list[_Conflict]:
    """A use that leaves the fan-in as it is: of an embedding, or of one that is tied."""
    if _may_be_weight(reader, array):
        return []
    but = f"and not summed over axis {_listed(array.fan_in)}"
    if not own:
        return [_against(reader, array, use, but, array.layout(use.axes))]
    if array.growing != array.fan_in or not reader.is_final(array.key):
        return []
    certain = use.kind == "lookup" or not _turned(array, arrays)
    but = f"and {reader.phrase(own[0], array.growing)} too, as in a tied readout"
    return [_against(reader, array, use, but, _TIE, certain=certain)]


def _other_way(
    reader: Reader, array: _Array, use: Use, own: Sequence[Use], arrays: Sequence[_Array]
) -> list[_Conflict]:
    """A sum over the growing axes of the fan-out alone."""
    if not array.fan_in and use.axes >= array.growing and own:
        return _tied(reader, array, use, own, arrays)
    if not array.fan_in or (not own and _differ(array.law)):
        return [_summed(reader, array, use)]
    if own:
        return []
    text = f"is {reader.phrase(use, array.growing)}, which is its fan_out; as both grow alike, its "
    return [_Conflict(array, f"{text}law is the same", False)]


def _summed(reader: Reader, array: _Array, use: Use) -> _Conflict:
    declared = f"over axis {_listed(array.fan_in)}" if array.fan_in else "over no axis that grows"
    but = f"where the law has a sum {declared}"
    return _against(reader, array, use, but, array.layout(use.axes))


def _tied(
    reader: Reader, array: _Array, use: Use, own: Sequence[Use], arrays: Sequence[_Array]
) -> list[_Conflict]:
    """An embedding that is the readout too, of which nothing carries the factor."""
    law = array.law.spec.parameterization
    assert law is not None
    if not reader.is_final(array.key):
        return []
    if law.is_tied and (
        reader.is_among(array.key, reader.followed.record.sized)
        or any(other.law.spec.carries_tie for other in arrays)
    ):
        return []
    but = f"and {reader.phrase(own[0], array.growing)} too: a tied readout, whose factor 1/r "
    but += "nothing carries"
    return [_against(reader, array, use, but, _TIE, certain=not _turned(array, arrays))]


def _of_readout(reader: Reader, array: _Array, chain: Sequence[Part]) -> Iterator[_Conflict]:
    """A readout with features behind it: an inner layer of a fixed size."""
    spec = array.law.spec
    if spec.role is not Role.readout or array.growing != array.fan_in or not array.fan_in:
        return
    if not reader.is_inside(array.key) or _may_be_weight(reader, array):
        return
    if not _laws_differ(array.law, chain):
        return
    phrase = reader.phrase(array.matrix[0], array.growing)
    if spec.declared:
        text = (
            f"is judged as readout, as it is declared, though it is {phrase}, with sums over the "
        )
        yield _Conflict(array, f"{text}width behind it, as an inner layer is", False)
        return
    but = "with sums over the width behind it, as an inner layer is"
    remedy = f"give parameterize use=... or roles={{{array.path!r}: 'hidden'}}, or 'readout' if "
    yield _against(reader, array, array.matrix[0], but, f"{remedy}it is meant to be one")


def _laws_differ(law: Law, chain: Sequence[Part]) -> bool:
    """Whether a hidden weight of this fan-in starts or is moved at another size than a readout."""
    sizes = (*law.spec.sizes, ("fan_out", Fraction(1)))
    inner = dataclasses.replace(law.spec, role=Role.hidden, sizes=sizes)
    rules = [part.rule for part in chain if part.works_on(law.path)]
    inner_law = WeightLaw(inner, law.family, rate_of(law.path, inner, rules))
    grows: dict[Size, float] = {**law.slopes, "fan_out": 0.0, "readout": 1.0}
    pairs = (
        (law.declared.size, inner_law.size),
        (law.declared.own_update, inner_law.own_update),
    )
    return any(sloped(own, law.slopes) != sloped(other, grows) for own, other in pairs)


def _may_be_weight(reader: Reader, array: _Array) -> bool:
    """Whether it may become, with data, a weight of each example, which is summed over then."""
    return reader.is_among(array.key, reader.followed.record.weights)


def _turned(array: _Array, arrays: Sequence[_Array]) -> bool:
    """Whether another weight is used in both directions, as in a derivative by hand."""
    return any(
        not (one.axes & other.axes)
        for each in arrays
        if each is not array
        for one in each.matrix
        for other in each.matrix
        if one.kind == other.kind == "sum"
    )


def _differ(law: Law) -> bool:
    """Whether fan-in and fan-out of a hidden weight grow at rates of their own."""
    return law.spec.size_ratio("fan_in") != law.spec.size_ratio("fan_out")


def _listed(axes: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(axes)))
