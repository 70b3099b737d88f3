import dataclasses
import hashlib
import math
from collections import OrderedDict
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, strategies as st

from scalex_eqx._usage import UsageError
from scalex_eqx.experiments import _rows
from scalex_eqx.experiments._rows import Row, run_key

SPECIFICATION = {
    "learning_rate": 0.01,
    "seed": 3,
    "tied": False,
    "recipe": {"name": "standard", "exponents": [0.5, 1]},
    "epsilon": None,
}


def test_key_is_a_fixed_function():
    """Another value would lose every result that is stored."""
    text = (
        '{"result_version":2,"specification":{"epsilon":null,"learning_rate":0.01,'
        '"recipe":{"exponents":[0.5,1],"name":"standard"},"seed":3,"tied":false}}'
    )
    assert run_key(SPECIFICATION) == hashlib.sha256(text.encode()).hexdigest()


def test_key_does_not_depend_on_the_order_of_fields():
    recipe = OrderedDict(exponents=(0.5, 1), name="standard")
    turned = dict(reversed((SPECIFICATION | {"recipe": recipe}).items()))
    assert list(turned) != list(SPECIFICATION)
    assert run_key(turned) == run_key(SPECIFICATION)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": math.nextafter(0.01, 1)},
        {"seed": 4},
        {"seed": 3.0},
        {"seed": "3"},
        {"tied": True},
        {"tied": 0},
        {"recipe": {"name": "standard", "exponents": [1, 0.5]}},
        {"recipe": {"name": "other", "exponents": [0.5, 1]}},
        {"epsilon": 0},
        {"another": None},
    ],
)
def test_key_depends_on_every_field(change):
    assert run_key(SPECIFICATION | change) != run_key(SPECIFICATION)


@pytest.mark.parametrize("name", SPECIFICATION)
def test_key_depends_on_the_presence_of_every_field(name):
    rest = {field: value for field, value in SPECIFICATION.items() if field != name}
    assert run_key(rest) != run_key(SPECIFICATION)


def test_key_depends_on_the_version_of_results(monkeypatch):
    before = run_key(SPECIFICATION)
    monkeypatch.setattr(_rows, "RESULT_VERSION", _rows.RESULT_VERSION + 1)
    assert run_key(SPECIFICATION) != before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_key_survives_the_order_of_any_fields(fields):
    assert run_key(dict(reversed(fields.items()))) == run_key(fields)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"learning_rate": math.nan}, "specification.learning_rate is nan; expected a finite"),
        ({"a": {"b": [1, math.inf]}}, r"specification.a.b\[1\] is inf; expected a finite"),
        ({"a": {1: 2}}, "specification.a has a field named 1; expected text"),
        ({"a": {1, 2}}, "specification.a is of type set; expected what JSON holds"),
        ({"a": np.float32(1)}, "specification.a is of type float32; expected what JSON"),
    ],
)
def test_key_refuses_what_has_no_one_text(value, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        run_key(value)


def test_row_of_a_run_that_ended_now():
    row = Row.of(
        SPECIFICATION, status="ok", metrics={"held_out_loss": 2.5}, result={"seconds": 1.5}
    )
    assert row.key == run_key(SPECIFICATION)
    assert (row.specification, row.status, row.held_out_loss) == (SPECIFICATION, "ok", 2.5)
    created = datetime.fromisoformat(row.created)
    assert created.tzinfo == UTC
    assert timedelta(0) <= datetime.now(UTC) - created < timedelta(seconds=10)


def test_row_replaces_what_is_not_finite_in_its_result():
    result = {"curve": [3.0, math.nan, -math.inf], "last": {"loss": math.inf}, "step": 1}
    row = Row.of(SPECIFICATION, status="diverged", metrics={}, result=result)
    assert row.result == {"curve": [3.0, None, None], "last": {"loss": None}, "step": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "failed"}, "status 'failed'; expected one of"),
        ({"metrics": {"held_out_loss": None}}, "held_out_loss is None"),
        ({"metrics": {}}, "held_out_loss is None"),
        ({"metrics": {"held_out_loss": math.nan}}, "held_out_loss is nan; expected a finite"),
        ({"metrics": {"accuracy": math.inf}, "status": "diverged"}, "accuracy is inf"),
    ],
)
def test_row_that_contradicts_itself(change, message):
    row = Row.of(SPECIFICATION, status="ok", metrics={"held_out_loss": 2.5}, result={})
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(row, **change)
