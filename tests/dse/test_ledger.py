import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dse
from dse.ledger import Ledger
from dse.store import Record
from dse.trial import FINISHED, MEASURED, OPEN, State


def ledger(path=None):
    space = dse.Space([dse.Ordinal("x", range(100))])
    return Ledger(space, path, identity={"seed": 0}, versions=None)


def ask(trial, **extra):
    return Record(trial, "ask", {"parameters": {"x": trial}, **extra})


def tell(trial, **extra):
    return Record(trial, "tell", {"values": {"loss": 1.5}, "metrics": {}, "seconds": 2.0, **extra})


def lose(trial, attempts):
    return Record(trial, "fail", {"state": "lost", "error": "no licence", "attempts": attempts})


def as_data(trials):
    return [dataclasses.asdict(trial) for trial in trials]


def test_every_state_is_open_or_finished_or_abandoned():
    assert {*OPEN, *FINISHED, State.ABANDONED} == set(State)
    assert not set(OPEN) & set(FINISHED)
    assert set(MEASURED) < set(FINISHED)


def test_a_measured_trial_that_breaks_a_constraint_keeps_its_values():
    book = ledger()
    book.record(ask(0, row=7), tell(0, state="infeasible", constraints={"area": 9.0}, cached=True))
    (trial,) = book.trials
    assert (trial.state, trial.values, trial.constraints) == ("infeasible", {"loss": 1.5}, {"area": 9.0})
    assert (trial.row, trial.cached, trial.attached, trial.seconds) == (7, True, False, 2.0)


@pytest.mark.parametrize("state", ["done", "infeasible", "failed"])
def test_an_attached_row_is_a_trial_that_was_never_asked(tmp_path, state):
    payload = {"parameters": {"x": 3}, "row": 3, "state": state}
    if state == "failed":
        payload["error"] = "does not fit"
    else:
        payload.update(values={"loss": 0.5}, metrics={"bytes": 4}, constraints={"area": 1.0})
    book = ledger(tmp_path / "c.sqlite")
    book.record(Record(0, "attach", payload))
    book.close()
    again = ledger(tmp_path / "c.sqlite")
    again.close()
    assert as_data(again.trials) == as_data(book.trials)
    (trial,) = again.trials
    assert (trial.state, trial.row, trial.attached, trial.attempts) == (state, 3, True, 0)
    assert trial.error == ("does not fit" if state == "failed" else None)
    assert trial.values == ({} if state == "failed" else {"loss": 0.5})
    assert not again.again
    with pytest.raises(ValueError, match=f"trial 0 must be pending or running, got {state}"):
        again.open(trial)


def test_a_lost_trial_is_handed_out_again_after_a_resume_and_remembers_its_attempts(tmp_path):
    book = ledger(tmp_path / "c.sqlite")
    book.record(ask(0), ask(1), ask(2), Record(1, "start", {}), lose(1, 1), ask(1), lose(1, 2), tell(2))
    book.close()
    again = ledger(tmp_path / "c.sqlite")
    assert [trial.state for trial in again.trials] == ["pending", "lost", "done"]
    assert [trial.id for trial in again.again] == [0, 1]
    assert (again.trials[1].attempts, again.trials[1].error) == (2, "no licence")
    again.record(ask(1), tell(1))
    assert (again.trials[1].state, again.trials[1].attempts, again.trials[1].error) == ("done", 2, None)
    again.close()


def test_a_late_result_of_a_lost_trial_counts_and_it_is_not_handed_out_again():
    book = ledger()
    book.record(ask(0), lose(0, 1))
    book.again.append(book.trials[0])
    book.record(tell(book.open(book.trials[0]).id))
    assert book.trials[0].state == "done"
    assert not book.again


def test_released_trials_come_in_the_order_of_their_numbers_and_once():
    book = ledger()
    book.record(*(ask(trial) for trial in range(4)), Record(2, "start", {}), tell(3))
    for id_ in (2, 0, 2):
        book.release(book.trials[id_])
    assert [trial.id for trial in book.again] == [0, 2]
    with pytest.raises(ValueError, match="trial 3 must be pending or running, got done"):
        book.release(book.trials[3])


class Permutations:
    """A space with one permutation, as far as the ledger needs one."""

    def design(self, parameters):
        assert isinstance(parameters["order"], tuple)
        return (parameters["order"],)


def test_a_permutation_comes_back_as_a_tuple(tmp_path):
    for _ in range(2):
        book = Ledger(Permutations(), tmp_path / "c.sqlite", identity={}, versions=None)
        if not book.trials:
            book.record(Record(0, "ask", {"parameters": {"order": (2, 0, 1)}}))
        book.close()
        assert book.trials[0].parameters == {"order": (2, 0, 1)}
        assert book.designs == [((2, 0, 1),)]


@st.composite
def histories(draw):
    """Events as a campaign may write them, in any order that its trials allow."""
    records, states = [], {}
    for _ in range(draw(st.integers(1, 25))):
        waiting = sorted(id_ for id_, state in states.items() if state == "open")
        kind = draw(
            st.sampled_from(["ask", "attach", *(["start", "tell", "fail", "lose"] if waiting else [])])
        )
        if kind in ("ask", "attach"):
            id_ = len(states)
            states[id_] = "open" if kind == "ask" else "closed"
            extra = {} if kind == "ask" else {"values": {"loss": 2.0}, "state": "done"}
            records.append(Record(id_, kind, {"parameters": {"x": id_}, "row": id_, **extra}))
            continue
        id_ = draw(st.sampled_from(waiting))
        if kind == "start":
            records.append(Record(id_, "start", {}))
        elif kind == "lose":
            records += [lose(id_, draw(st.integers(1, 3))), *draw(st.sampled_from([[], [ask(id_)]]))]
        else:
            states[id_] = "closed"
            if kind == "tell":
                records.append(tell(id_, state=draw(st.sampled_from(["done", "infeasible"]))))
            else:
                records.append(Record(id_, "fail", {"state": "failed", "error": "no", "attempts": 0}))
    return records


@settings(max_examples=30)
@given(history=histories(), cut=st.integers(0, 30))
def test_a_reopened_ledger_is_the_one_that_was_closed(tmp_path_factory, history, cut):
    path = tmp_path_factory.mktemp("ledger") / "c.sqlite"
    book = ledger(path)
    book.record(*history[:cut])
    book.close()
    reopened = ledger(path)
    reopened.record(*history[cut:])
    reopened.close()
    straight = ledger()
    straight.record(*history)
    # Only what was running when the first process left is no longer so.
    for trial, other in zip(reopened.trials, straight.trials, strict=True):
        if other.state is State.RUNNING and trial.state is State.PENDING:
            trial.state = State.RUNNING
    assert as_data(reopened.trials) == as_data(straight.trials)
    assert reopened.designs == straight.designs
