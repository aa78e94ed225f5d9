"""A campaign on a table or an outside program in its run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import tomli_w

from dse import Campaign, Event, StoreMismatch
from dse.executors import Executor, InProcess, LocalProcesses, run
from dse.transfer import Source
from studies.campaigns.figures import text_of
from studies.campaigns.problem import Problem
from studies.campaigns.runs import STORE, Run, read_run
from studies.config import ConfigError
from studies.files import write_text

EXECUTORS = ("local", "dask")  #: names; anything else is the address of a Dask scheduler


class Watcher(Protocol):
    """What a run tells while it works."""

    def begin(self, campaign: Campaign, budget: int) -> None:
        """The campaign is open."""

    def event(self, event: Event, campaign: Campaign) -> None:
        """A trial was asked, started, done, or failed."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a problem is searched: what the command line may change of a configuration.

    Attributes
    ----------
    executor
        ``local``: processes of this machine; ``dask``: a Dask cluster of this machine; otherwise the
        address of a scheduler. Rows of a table are looked up in this process whatever it is.
    workers
        Evaluations at a time; ``None`` is as many as the cluster of an address has threads for, and one
        anywhere else.
    transfer
        Earlier campaigns, by the names of their files.
    """

    seed: int
    budget: int
    method: str
    initial: int | None = None
    executor: str = "local"
    workers: int | None = None
    transfer: Sequence[Source] = ()


def run_campaign(problem: Problem, folder: Path, options: Options, watcher: Watcher) -> Run:
    """Run a campaign in `folder`, or go on with the one that is there.

    Every finished evaluation is on disk before the next begins; a killed run resumes where it was.

    Raises
    ------
    ConfigError
        What cannot run, or a folder of another campaign.
    dse.CampaignLocked, dse.StoreError
        The campaign is running elsewhere, or its file is damaged.
    dse.executors.SetupError, dse.executors.InfrastructureDown
        No design can be evaluated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        campaign = Campaign(
            problem.space,
            problem.objectives,
            seed=options.seed,
            outcome_constraints=problem.outcomes,
            method=options.method,
            initial=options.initial,
            store=folder / STORE,
            transfer=options.transfer,
            config=problem.identity,
            versions={"bitfront": version("bitfront")},
        )
    except StoreMismatch as error:
        raise ConfigError(str(error)) from None
    except (ValueError, TypeError, ModuleNotFoundError) as error:
        raise ConfigError(str(error)) from None
    with campaign:
        config = problem.config.model_copy(update={"seed": options.seed, "budget": options.budget})
        sources = [str(Path(each.name).absolute()) for each in options.transfer]
        settings = config.model_copy(
            update={"method": options.method, "initial": options.initial, "transfer": sources}
        )
        write_text(folder / "config.toml", tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)))
        watcher.begin(campaign, options.budget)
        with _executor(problem, options) as executor:
            run(
                campaign,
                problem.evaluator,
                executor,
                budget=options.budget,
                on_event=lambda event: watcher.event(event, campaign),
            )
    found = read_run(folder)
    write_evaluations(found, folder / "evaluations.csv")
    return found


@contextmanager
def _executor(problem: Problem, options: Options) -> Iterator[Executor]:
    if problem.table is not None:
        with InProcess() as here:
            yield here
    elif options.executor == "local":
        with LocalProcesses(options.workers or 1) as processes:
            yield processes
    else:
        with _dask(options) as cluster:
            yield cluster


@contextmanager
def _dask(options: Options) -> Iterator[Executor]:
    from dse.executors.cluster import Dask

    if options.executor != "dask":
        with Dask(options.executor, workers=options.workers) as executor:
            yield executor
        return
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError:
        raise ConfigError("--executor dask needs an extra: pip install 'bitfront[cluster]'") from None
    workers = options.workers or 1
    local: Any = LocalCluster
    connect: Any = Client
    with (
        local(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        connect(cluster, set_as_default=False) as client,
        Dask(client, workers=workers) as executor,
    ):
        yield executor


def write_evaluations(found: Run, path: Path) -> None:
    """Write every trial as CSV; an order is written with spaces between its items."""
    frame = found.frame.copy()
    for name in found.names:
        if frame[name].map(lambda value: isinstance(value, list | tuple)).any():
            frame[name] = frame[name].map(text_of)
    write_text(path, frame.to_csv(index=False))
