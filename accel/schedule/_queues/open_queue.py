"""Open queues: tasks of several kinds that arrive at random and take random times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite

import numpy as np

from accel._given import whole
from accel.schedule._queues.tasks import Policy, Server, Trace, check_servers, run_arrays


def open_queue(
    servers: Sequence[Server],
    *,
    arrival_rate: float,
    mean_service: Mapping[str, Mapping[str, float]],
    tasks: int,
    seed: int,
    shares: Mapping[str, float] | None = None,
    policy: Policy = "fifo",
) -> Trace:
    """Run tasks with Poisson arrivals and exponential service times: M/M/c for one kind on one server.

    Random numbers are those of Philox, keyed by `seed`, one stream each for arrivals, kinds and
    service times, so that more tasks begin with the same ones, and all policies see the same.

    Parameters
    ----------
    arrival_rate
        Tasks in a unit of time.
    mean_service
        By kind of task and kind of server. A task that is long on one server is as much longer on all.
    tasks
        How many; long queues (a load near 1) need many for a steady mean.
    shares
        Relative frequency of each kind of task; all the same if not given.

    Raises
    ------
    ValueError
        A rate, time, share or count is out of range, a kind of task has no server, or shares are of other
        kinds of tasks.

    Examples
    --------
    Two units at a load of one half: a mean response of 4 / 3 by Erlang's formula.

    >>> trace = open_queue(
    ...     [Server(name="unit", count=2)], arrival_rate=1.0, mean_service={"task": {"unit": 1.0}},
    ...     tasks=1_000_000, seed=0,
    ... )
    >>> round(trace.mean_response, 2)
    1.33
    """
    check_servers(servers, policy)
    count = whole("tasks", tasks, least=0)
    whole("seed", seed, least=0)
    if not (isfinite(arrival_rate) and arrival_rate > 0):
        raise ValueError(f"arrival_rate must be above 0 and finite, got {arrival_rate}")
    kinds = tuple(mean_service)
    means = np.full((len(kinds), len(servers)), inf)
    for k, (kind, by_server) in enumerate(mean_service.items()):
        for name, given in by_server.items():
            if not (isfinite(given) and given >= 0):
                raise ValueError(
                    f"mean_service of {kind} on {name} must be at least 0 and finite, got {given}"
                )
        means[k] = [by_server.get(server.kind, inf) for server in servers]
        if not (means[k] < inf).any():
            offered = ", ".join(server.kind for server in servers)
            raise ValueError(f"mean_service of {kind} must name one of the servers {offered}")
    if not kinds:
        raise ValueError("mean_service must name at least 1 kind of task, got none")
    shares = dict.fromkeys(kinds, 1.0) if shares is None else shares
    if set(shares) != set(kinds):
        raise ValueError(f"shares must be of the kinds {', '.join(kinds)}; got {', '.join(shares)}")
    weights = np.array([shares[kind] for kind in kinds], dtype=np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError(f"shares must be at least 0 and not all 0, got {dict(shares)}")
    arrivals, services, choices = (
        np.random.Generator(np.random.Philox(seed).jumped(stream)) for stream in range(3)
    )
    kind_of = np.searchsorted(np.cumsum(weights / weights.sum())[:-1], choices.random(count), side="right")
    arrival = np.cumsum(arrivals.standard_exponential(count)) / arrival_rate
    mean = means[kind_of]
    times = np.where(mean < inf, mean, 0.0) * services.standard_exponential(count)[:, None]
    times[mean == inf] = inf
    shortest = times.min(axis=1, initial=inf)
    return run_arrays(
        range(count),
        np.array(kinds, dtype=object)[kind_of],
        arrival,
        times,
        servers,
        policy=policy,
        missing=np.ones(count, dtype=np.int64),
        successors=(),
        next_start=np.full(count, -1, dtype=np.int64),
        priority=-shortest,
        path=float((arrival + shortest).max(initial=0.0)),
    )
