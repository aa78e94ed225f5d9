"""Methods by name: how a campaign chooses what to evaluate next.

Every method is made from the same things and proposes from the same history, so that any campaign can be
run again with another one by one word. A method's module, and what it needs, is imported when it is made.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from dse.fidelity import Fidelity
from dse.history import History
from dse.methods.base import Method, Proposal, check
from dse.objective import Objective
from dse.space import Space
from dse.transfer import Source

__all__ = ["METHODS", "Method", "Proposal", "make"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a method lives: a class in a module, made with `method=name`; `needs` is (package, extra)."""

    module: str
    name: str
    needs: tuple[str, str] | None = None
    transfers: bool = False
    weighs_cost: bool = False
    with_fidelity: tuple[str, str] | None = None  #: module and class where there is a choice of fidelities


_SEARCH = _Entry(
    "dse.methods.bayesian",
    "BayesianSearch",
    transfers=True,
    weighs_cost=True,
    with_fidelity=("dse.methods.fidelity", "FidelitySearch"),
)
_ENTRIES = {
    "random": _Entry("dse.methods.sequence", "SequenceSearch"),
    "sobol": _Entry("dse.methods.sequence", "SequenceSearch"),
    "nsga2": _Entry("dse.methods.evolutionary", "EvolutionarySearch"),
    "tpe": _Entry("dse.methods.tpe", "TreeParzenSearch", ("optuna", "optuna")),
    "qlognehvi": _SEARCH,
    "qlognparego": _SEARCH,
    "predict": _Entry("dse.methods.active", "ActiveLearning", transfers=True),
    "auto": _SEARCH,
}

METHODS = tuple(_ENTRIES)  #: names that `make` takes


def make(
    name: str,
    space: Space,
    objectives: Sequence[Objective],
    outcome_constraints: Sequence[Any] = (),
    *,
    seed: int,
    initial: int | None = None,
    transfer: Sequence[Any] = (),
    cost_aware: bool = False,
    fidelity: Fidelity | None = None,
) -> Method:
    """Method of a name, ready to propose.

    Parameters
    ----------
    name
        One of `METHODS`.
    outcome_constraints
        Bounds on measured quantities, in the order of the columns of `History.constraints`.
    seed
        Equal seeds and histories give equal proposals.
    initial
        Trials of a Sobol sequence with which the methods that learn begin, attached ones included; by
        default 5 for a Bayesian search, for others twice the number of parameters plus two, within 5..20.
    transfer
        Earlier campaigns to learn from. A method that learns no model says in a note that it does not.
    cost_aware
        Improvement per second of evaluation, for the methods that know improvements.
    fidelity
        Of the evaluations; methods that know no improvements propose full ones alone, and say so in a note.

    Raises
    ------
    ValueError
        An unknown name, no objective, a seed or `initial` out of range, or a transfer source that has
        nothing in common with the problem or contradicts it.
    ModuleNotFoundError
        The method needs an extra that is not installed; the message says which.

    Examples
    --------
    >>> from dse import Objective, Ordinal, Space
    >>> from dse.history import History
    >>> method = make("random", Space([Ordinal("x", range(10))]), [Objective("loss")], seed=0)
    >>> len(method.propose(0, History.empty(1), 3).designs)
    3
    """
    if name not in _ENTRIES:
        close = difflib.get_close_matches(str(name), METHODS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}{hint}")
    check(objectives, seed=seed, initial=initial)
    entry = _ENTRIES[name]
    sources = [Source.of(given, f"source {i}") for i, given in enumerate(transfer, 1) if entry.transfers]
    for source in sources:
        source.check(space, objectives)
    try:
        chooses = fidelity is not None and entry.with_fidelity is not None
        module, kind = entry.with_fidelity if chooses and entry.with_fidelity else (entry.module, entry.name)
        factory = getattr(import_module(module), kind)
        method: Method = factory(
            space,
            tuple(objectives),
            tuple(outcome_constraints),
            method=name,
            seed=seed,
            initial=initial,
            **({"transfer": tuple(sources)} if entry.transfers else {}),
            **({"cost_aware": cost_aware} if entry.weighs_cost else {}),
            **({"fidelity": fidelity} if chooses else {}),
        )
    except ModuleNotFoundError as error:
        if entry.needs is None or error.name is None or error.name.partition(".")[0] != entry.needs[0]:
            raise
        package, extra = entry.needs
        raise ModuleNotFoundError(
            f"method {name} needs {package}, which is not installed: pip install 'bitfront[{extra}]'",
            name=package,
        ) from None
    if transfer and not entry.transfers:
        note = f"{name} learns no model, so nothing is transferred from other campaigns"
        method = _WithoutTransfer(method, note)
    if fidelity is not None and not chooses:
        note = (
            f"{name} does not choose fidelities: every design is evaluated at {fidelity.name} {fidelity.full}"
        )
        method = _AtFullFidelity(method, note, fidelity)
    return method


class _WithoutTransfer:
    """A method that cannot learn from earlier campaigns, and says so once."""

    def __init__(self, method: Method, note: str) -> None:
        self._method, self._note = method, note

    def propose(self, number: int, history: History, n: int) -> Proposal:
        proposal = self._method.propose(number, history, n)
        if number > 0 and history.asked:
            return proposal
        return replace(proposal, notes=(self._note, *proposal.notes))


class _AtFullFidelity:
    """A method that chooses no fidelity: it sees full evaluations and proposes them, and says so once."""

    def __init__(self, method: Method, note: str, fidelity: Fidelity) -> None:
        self._method, self._note, self._full = method, note, fidelity.full

    def propose(self, number: int, history: History, n: int) -> Proposal:
        proposal = self._method.propose(number, history.at(self._full), n)
        return replace(proposal, once=(self._note,))
