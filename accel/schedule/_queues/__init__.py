"""The core of the event simulator: tasks on servers, open queues, and schedules as tasks."""
