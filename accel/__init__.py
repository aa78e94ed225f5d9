"""Accelerators: workloads, hardware costs and schedules."""
