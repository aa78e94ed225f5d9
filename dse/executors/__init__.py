"""Where designs are evaluated: here, in processes of this machine, on a cluster, by an outside program."""

from dse.executors.base import Evaluation, Evaluator, Executor, Measurement, Outcome, SetupError
from dse.executors.cluster import Dask
from dse.executors.inprocess import InProcess
from dse.executors.local import LocalProcesses
from dse.executors.program import Program, ProgramFailed
from dse.executors.runner import BackOff, InfrastructureDown, Searching, run

__all__ = [
    "BackOff",
    "Dask",
    "Evaluation",
    "Evaluator",
    "Executor",
    "InProcess",
    "InfrastructureDown",
    "LocalProcesses",
    "Measurement",
    "Outcome",
    "Program",
    "ProgramFailed",
    "Searching",
    "SetupError",
    "run",
]
