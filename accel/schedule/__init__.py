"""Optimal schedules of workloads on a scratchpad: order, residency and addresses."""

from accel.schedule.bound_and_pack import WorkingSetError, schedule, working_set_minimum
from accel.schedule.check import ScheduleError
from accel.schedule.plan import Run, Schedule, Transfer
from accel.schedule.streamed import Kept, Residency, Streaming, Use, keep, streaming_of

__all__ = [
    "Kept",
    "Residency",
    "Run",
    "Schedule",
    "ScheduleError",
    "Streaming",
    "Transfer",
    "Use",
    "WorkingSetError",
    "keep",
    "schedule",
    "streaming_of",
    "working_set_minimum",
]
