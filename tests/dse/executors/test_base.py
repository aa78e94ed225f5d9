import os
import signal

import pytest

from dse.executors import InProcess, Measurement, SetupError
from dse.executors.base import Outcome, ended, evaluate, one_line
from dse.trial import InfrastructureError


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"loss": 1.0}, Measurement({"loss": 1.0}, {})),
        (({"loss": 1.0}, {"bytes": 4}), Measurement({"loss": 1.0}, {"bytes": 4})),
        (({"loss": 1.0}, None), Measurement({"loss": 1.0}, {})),
        (Measurement({"loss": 1.0}, {}, cached=True), Measurement({"loss": 1.0}, {}, cached=True)),
    ],
)
def test_an_evaluator_may_return_values_a_pair_or_a_measurement(result, expected):
    found = evaluate(lambda p: result, {"x": 1})
    assert (found.kind, found.measurement, found.error) == ("done", expected, "")
    assert 0 <= found.seconds < 60


@pytest.mark.parametrize("result", [None, 1.0, "loss", ({"loss": 1.0},), ({"loss": 1.0}, 3), (1, 2, 3)])
def test_anything_else_is_a_failure_of_the_design_that_shows_it(result):
    found = evaluate(lambda p: result, {})
    assert (found.kind, found.measurement) == ("design", None)
    assert found.error.startswith("TypeError: ")
    assert "must " in found.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("two\n lines"), "design"),
        (InfrastructureError("two\n lines"), "infrastructure"),
        (SetupError("two\n lines"), "setup"),
    ],
)
def test_an_exception_is_one_line_and_a_traceback(error, kind):
    def evaluator(p):
        raise error

    found = evaluate(evaluator, {})
    assert (found.kind, found.error) == (kind, f"{type(error).__name__}: two lines")
    assert "in evaluator" in found.trace


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_outcome(interrupt):
    def evaluator(p):
        raise interrupt

    with pytest.raises(interrupt):
        evaluate(evaluator, {})


def test_an_evaluator_gets_a_copy_of_the_parameters():
    parameters = {"x": 1}
    evaluate(lambda p: p.update(x=2), parameters)
    assert parameters == {"x": 1}


@pytest.mark.parametrize(
    ("exitcode", "kind", "message"),
    [
        (0, "design", "status 0"),
        (1, "design", "status 1"),
        (os.EX_TEMPFAIL, "infrastructure", "status 75"),
        (-signal.SIGKILL, "infrastructure", "SIGKILL"),
        (-signal.SIGTERM, "infrastructure", "SIGTERM"),
        (-signal.SIGHUP, "infrastructure", "SIGHUP"),
        (-signal.SIGSEGV, "design", "SIGSEGV"),
        (-signal.SIGABRT, "design", "SIGABRT"),
        (-60, "design", "signal 60"),
    ],
)
def test_the_end_of_a_process_says_whose_fault_it_is(exitcode, kind, message):
    found, reason = ended(exitcode)
    assert found == kind
    assert message in reason


def test_a_long_message_is_cut():
    assert one_line(ValueError("a" * 1000)) == f"ValueError: {'a' * 485}..."
    assert one_line(KeyError()) == "KeyError"


def test_in_process_nothing_runs_before_it_is_polled_for_and_a_cancelled_design_never():
    calls = []
    executor = InProcess()
    first, second = (executor.submit(lambda p: calls.append(p["x"]), {"x": x}) for x in (1, 2))
    assert executor.poll(0.0) == []
    executor.cancel(first)
    executor.cancel(first)
    ((handle, found),) = executor.poll(1.0)
    assert handle == second
    assert isinstance(found, Outcome)
    assert calls == [2]
    with pytest.raises(TypeError, match="an evaluator must be callable, got 3"):
        executor.prepare(3)
