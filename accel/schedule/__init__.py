"""Optimal schedules of workloads on a scratchpad: order, residency and addresses."""

from accel.schedule.allocation import Allocation, AllocationError, Lifetime, allocate, read_lifetimes
from accel.schedule.backends import resolve
from accel.schedule.baselines import Baseline, baseline, baselines
from accel.schedule.check import ScheduleError
from accel.schedule.events import Channel, Resources, Simulation, simulate
from accel.schedule.integer_program import IntegerProgram, Solution
from accel.schedule.peak import peak_minimum
from accel.schedule.plan import Run, Schedule, Transfer
from accel.schedule.replacement import replacement_minimum
from accel.schedule.scheduling import schedule, sweep
from accel.schedule.streamed import Kept, Residency, Streaming, Use, keep, streaming_of
from accel.schedule.working_set import WorkingSetError, working_set_minimum

__all__ = [
    "Allocation",
    "AllocationError",
    "Baseline",
    "Channel",
    "IntegerProgram",
    "Kept",
    "Lifetime",
    "Residency",
    "Resources",
    "Run",
    "Schedule",
    "ScheduleError",
    "Simulation",
    "Solution",
    "Streaming",
    "Transfer",
    "Use",
    "WorkingSetError",
    "allocate",
    "baseline",
    "baselines",
    "keep",
    "peak_minimum",
    "read_lifetimes",
    "replacement_minimum",
    "resolve",
    "schedule",
    "simulate",
    "streaming_of",
    "sweep",
    "working_set_minimum",
]
