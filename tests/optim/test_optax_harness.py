"""The tests that Optax ships for contributed optimizers, over the rules of this library.

They read which optimizers to test from lists when their class is created, so it is created again
here, from its source, with lists that name ours. Their arrays have no scaling law: the rules are
told to take them for constants.
"""

import functools
import importlib
import inspect
import unittest
from collections.abc import Callable
from typing import Any

import jax
import optax

import scalex_eqx as sx

Rules = dict[str, tuple[Callable[..., Any], dict[str, Any]]]
RULES: Rules = {
    "adam": (sx.adam, {"learning_rate": 1e-2}),
    # A schedule of the decay in their keywords would be taken for one to inject.
    "adamw": (sx.adamw, {"learning_rate": 1e-2, "weight_decay": 1e-4, "decay_mode": "coupled"}),
    "adam_atan2": (sx.adam_atan2, {"learning_rate": 1e-2}),
    "sgd": (sx.sgd, {"learning_rate": 1e-3}),
    "momentum": (sx.sgd, {"learning_rate": 1e-3, "momentum": 0.9}),
    "nesterov": (sx.sgd, {"learning_rate": 1e-3, "momentum": 0.9, "nesterov": True}),
    "lion": (sx.lion, {"learning_rate": 1e-3}),
    "sign_sgd": (sx.sign_sgd, {"learning_rate": 5e-4}),
    "adafactor": (sx.adafactor, {"learning_rate": 1e-2}),
    "adam_parameter_scaling": (sx.adam_parameter_scaling, {"learning_rate": 1e-2}),
    "skip_nonfinite": (sx.adam, {"learning_rate": 1e-2}),
    "master": (sx.adam, {"learning_rate": 1e-2}),
    "kahan": (sx.adam, {"learning_rate": 1e-2}),
}
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "skip_nonfinite": sx.optim.skip_nonfinite,
    "master": lambda tx: sx.optim.low_precision(tx, "master", unannotated="constant"),
    "kahan": lambda tx: sx.optim.low_precision(tx, "kahan", unannotated="constant"),
}
# How many variants of each test there are for a rule, and for how many rules there are none.
TESTS = {
    "test_optimizers": (4, 1),
    "test_optimizers_accept_extra_args": (2, 1),
    "test_optimizers_can_be_wrapped_in_inject_hyperparams": (1, 0),
    "test_preserve_dtype": (2, 0),
    "test_gradient_accumulation": (2, 0),
    "test_state_shape_dtype_shard_stability": (4, 1),
    "test_optimizers_accept_learning_rate_schedule_if_type_annotated_as_such": (1, 1),
}
# A step of constant size goes to and fro in the narrow valley of one of the targets.
NOT_CONVERGING = ("sign_sgd",)
# They inject every number, and a size decides shapes.
NOT_INJECTED = ("min_factored_size",)


def factory(rules: Rules, name: str) -> Callable[..., Any]:
    """A rule for arrays without a law, with the annotation that their schedule test looks for."""
    make, given = rules[name]
    wrap = WRAPPERS.get(name, lambda tx: tx)

    @functools.wraps(make)
    def wrapped(*args, **kwargs):
        return wrap(make(*args, **kwargs, unannotated="constant"))

    parameters = inspect.signature(make).parameters
    hidden = {"unannotated", *NOT_INJECTED} - set(given)
    shown = [p for key, p in parameters.items() if key not in hidden]
    shown[0] = shown[0].replace(annotation=optax.ScalarOrSchedule)
    vars(wrapped)["__signature__"] = inspect.Signature(shown)
    return wrapped


def contrib_tests(rules: Rules) -> Any:
    module = importlib.import_module("optax.contrib._common_test")
    listed = tuple(
        {"opt_name": name, "opt_kwargs": kwargs, "wrapper_name": None, "wrapper_kwargs": None}
        for name, (_, kwargs) in rules.items()
    )
    converging = tuple(rule for rule in listed if rule["opt_name"] not in NOT_CONVERGING)
    namespace = vars(module) | {
        "_MAIN_OPTIMIZERS_UNDER_TEST": listed,
        "_ALL_OPTIMIZERS_UNDER_TEST": converging,
        "_get_opt_factory": functools.partial(factory, rules),
    }
    exec(compile(inspect.getsource(module.ContribTest), str(module.__file__), "exec"), namespace)

    class Contrib(namespace["ContribTest"]):
        def setUp(self):
            super().setUp()
            # Theirs mix dtypes.
            self.enterContext(jax.numpy_dtype_promotion("standard"))

        def skipTest(self, reason):
            raise AssertionError(f"a test of the harness did not run: {reason}")

    return Contrib


class TestContrib(contrib_tests(RULES)):
    pass


def test_every_test_of_the_harness_is_there():
    found = [name.rstrip("0123456789") for name in dir(TestContrib) if name.startswith("test_")]
    assert {name: found.count(name) for name in found} == {
        name: variants * (len(RULES) - left_out) for name, (variants, left_out) in TESTS.items()
    }


def test_the_harness_rejects_a_rule_that_goes_uphill():
    def uphill(learning_rate: Any, unannotated: Any):
        return optax.chain(sx.sgd(learning_rate, unannotated=unannotated), optax.scale(-1.0))

    result = unittest.TestResult()
    contrib_tests({"uphill": (uphill, {"learning_rate": 1e-3})})("test_optimizers0").run(result)
    assert len(result.failures) == 1 and not result.errors
