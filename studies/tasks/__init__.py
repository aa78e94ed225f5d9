"""What is trained: built-in tasks by name, and the values of which a task of one's own is made."""

from studies.tasks.digits import digits, digits_cnn
from studies.tasks.named import TASKS, TaskConfig, build_task, named_task, table_of, task_names, with_data
from studies.tasks.tables import TaskTable
from studies.tasks.task import (
    ACCURACY,
    Classification,
    Data,
    Metric,
    Task,
    TaskError,
    check_finite,
    cross_entropy,
)

__all__ = [
    "ACCURACY",
    "TASKS",
    "Classification",
    "Data",
    "Metric",
    "Task",
    "TaskConfig",
    "TaskError",
    "TaskTable",
    "build_task",
    "check_finite",
    "cross_entropy",
    "digits",
    "digits_cnn",
    "named_task",
    "table_of",
    "task_names",
    "with_data",
]
