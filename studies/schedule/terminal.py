"""Schedules on the terminal, and progress while they are made."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from accel.schedule import Schedule
from studies.console import count, new_console, paragraph, plain_table, section
from studies.schedule.run import Answer
from studies.schedule.sizes import size_text
from studies.schedule.tables import moved_tensors, savings, traffic_by_size
from studies.units import share, si


class Watch:
    """Shows on a terminal what is being done."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Watch:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `stage` has done so many of so many."""
        self._bar.update(self._task, description=stage, completed=done, total=total or None)


def show(answer: Answer, *, top: int = 12, console: Console | None = None) -> None:
    """Print sizes, traffic, baselines, savings, spilled tensors and the sweep.

    Parameters
    ----------
    top
        How many spilled tensors are listed, those that move most first.
    """
    out = console or new_console()
    for line in header(answer):
        paragraph(out, line)
    section(out, f"optimum on {size_text(answer.plan.scratchpad_bytes)}", _traffic(answer.plan))
    if answer.baselines is not None:
        _baselines(out, answer)
    if answer.saving is not None:
        table = plain_table("", "bytes", "share")
        for name, bytes_ in savings(answer):
            table.add_row(name, si(bytes_, "B"), share(bytes_, answer.saving.reference_bytes))
        section(out, "what the optimum saves of LRU in file order with online placement, and by what", table)
    _moved(out, answer, top)
    if answer.sweep:
        _sweep(out, answer)


def header(answer: Answer) -> list[str]:
    """Network, pass, how large a scratchpad it asks for, and how the plan was found."""
    workload, plan = answer.workload, answer.plan
    kind = "training step" if answer.request.model.training else "inference"
    network = (
        f"{answer.network}, {kind}, batch {workload.batch}: {count(len(workload.operators), 'operator')}, "
        f"activations {si(workload.activation_bytes, 'B')}, "
        f"weights {si(workload.weight_bytes, 'B')} ({plan.weights})"
    )
    limits = (
        f"working-set minimum M_R {answer.working_set_bytes:,} bytes, of {answer.working_set_operator}; "
        f"peak minimum M_P {answer.peak_bytes:,} bytes"
    )
    size = f", {plan.model_size}" if plan.model_size else ""
    found = (
        f"{plan.mode} mode, {answer.order} order: {plan.status}, gap {100 * plan.gap:.3g} %; "
        f"{plan.method}, {plan.solver}{size}, {plan.seconds:.2f} s"
    )
    return [network, limits, found]


def _traffic(plan: Schedule) -> Table:
    table = plain_table("", "bytes", "")
    rows = (
        ("compulsory, activations", plan.compulsory_activation_bytes),
        ("compulsory, weights", plan.compulsory_weight_bytes),
        ("non-compulsory, spills", plan.spilled_bytes),
        ("non-compulsory, refetches", plan.refetched_bytes),
        ("non-compulsory", plan.noncompulsory_bytes),
        ("its lower bound", plan.bound_bytes),
        ("all off-chip traffic", plan.offchip_bytes),
        ("highest address", plan.peak_bytes),
    )
    for name, bytes_ in rows:
        table.add_row(name, f"{bytes_:,}", si(bytes_, "B"))
    return table


def _baselines(out: Console, answer: Answer) -> None:
    assert answer.baselines is not None
    table = plain_table(
        "order",
        "replacement",
        "allocation",
        "non-compulsory",
        "",
        "relocations",
        "optimum saves",
        text=(0, 1, 2),
    )
    optimum = answer.plan.noncompulsory_bytes
    for row in answer.baselines.to_dict("records"):
        moved = int(row["noncompulsory_bytes"])
        table.add_row(
            str(row["order"]),
            str(row["replacement"]).replace("-", " "),
            str(row["allocation"]),
            f"{moved:,}",
            si(moved, "B"),
            str(int(row["relocations"])),
            share(moved - optimum, moved) if moved else "-",
        )
    section(out, "baselines", table)


def _moved(out: Console, answer: Answer, top: int) -> None:
    found = moved_tensors(answer.plan)
    if not len(found) or not top:
        return
    table = plain_table("tensor", "bytes", "moved", "spilled after", "fetched again before", text=(0, 3, 4))
    for row in found.head(top).to_dict("records"):
        table.add_row(
            row["tensor"], f"{row['bytes']:,}", f"{row['moved_bytes']:,}", row["spilled_after"] or "-",
            ", ".join(row["fetched_before"]),
        )  # fmt: skip
    rest = len(found) - top
    section(
        out,
        f"tensors that come back{f'; {rest} more are in the page and in --json' if rest > 0 else ''}",
        table,
    )


def _sweep(out: Console, answer: Answer) -> None:
    rows = traffic_by_size(answer)
    names = [name for name in rows.columns if name not in ("scratchpad_bytes", "status")]
    heads = (name.removesuffix("_bytes") for name in names)
    table = plain_table("scratchpad", "status", *heads, text=(0, 1))
    for row in rows.to_dict("records"):
        cells = [si(row[name], "B") for name in names]
        table.add_row(size_text(row["scratchpad_bytes"]), row["status"], *cells)
    section(out, "non-compulsory traffic by scratchpad size", table)
    if answer.too_small:
        paragraph(out, too_small(answer))


def too_small(answer: Answer) -> str:
    """Which sizes of the sweep have no schedule, and why."""
    sizes = ", ".join(size_text(size) for size in answer.too_small)
    if answer.plan.mode == "streamed":
        return f"below the alignment or the tile reserve: {sizes}"
    return f"below the working-set minimum, which --mode streamed can use: {sizes}"
