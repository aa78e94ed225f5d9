"""Optimal schedules of workloads on a scratchpad: order, residency and addresses."""

from accel.schedule.bound_and_pack import WorkingSetError, schedule, working_set_minimum
from accel.schedule.check import ScheduleError
from accel.schedule.plan import Run, Schedule, Transfer

__all__ = [
    "Run",
    "Schedule",
    "ScheduleError",
    "Transfer",
    "WorkingSetError",
    "schedule",
    "working_set_minimum",
]
