"""What a candidate costs: its training step on its accelerator, with an optimal schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from accel import Cost, Design, Role, Workload, evaluate, training_step
from accel.schedule import Schedule, WorkingSetError, schedule, working_set_minimum
from numerics import BINARY32, Accumulator, FloatFormat
from studies.codesign.config import CampaignConfig
from studies.config import ConfigError
from studies.tasks import TASKS

Parameters = Mapping[str, Any]

#: Parameters that decide how a candidate trains; the others are hardware alone.
NUMERICS = ("format", "accumulator_exp_bits", "accumulator_frac_bits", "chunk", "update_rounding")


def accumulator_of(parameters: Parameters) -> Accumulator:
    """Accumulator of a candidate."""
    return Accumulator(
        FloatFormat(
            exp_bits=parameters["accumulator_exp_bits"], frac_bits=parameters["accumulator_frac_bits"]
        ),
        chunk=parameters["chunk"] or None,
    )


@dataclass(frozen=True)
class Pricing:
    """Prices candidates of a campaign; schedules and costs are computed once.

    Attributes
    ----------
    config
        The campaign.
    step
        Training step of the task's network at the campaign's batch.
    """

    config: CampaignConfig
    step: Workload
    _workloads: dict[tuple[FloatFormat, FloatFormat], Workload] = field(default_factory=dict)
    _schedules: dict[tuple[FloatFormat, FloatFormat, int], Schedule] = field(default_factory=dict)
    _costs: dict[tuple[Any, ...], Cost] = field(default_factory=dict)

    @classmethod
    def of(cls, config: CampaignConfig) -> Pricing:
        """Pricing of the configured network; imports PyTorch to read its graph."""
        return cls(config, step_workload(config.training.task, config.training.batch))

    def workload(self, operand: FloatFormat, update: FloatFormat) -> Workload:
        """The training step with tensors in these formats.

        Inputs, activations and errors are stored as operands; weights, their gradients and the
        momenta as the update has them.
        """
        key = (operand, update)
        if key not in self._workloads:
            stored = dict.fromkeys((Role.INPUT, Role.ACTIVATION, Role.ERROR), operand)
            stored |= dict.fromkeys((Role.WEIGHT, Role.WEIGHT_GRADIENT, Role.OPTIMIZER_STATE), update)
            self._workloads[key] = self.step.with_formats(stored)
        return self._workloads[key]

    def schedule(self, operand: FloatFormat, update: FloatFormat, scratchpad_bytes: int) -> Schedule:
        """Schedule with the least off-chip traffic; raises `WorkingSetError` if there is none."""
        key = (operand, update, scratchpad_bytes)
        if key not in self._schedules:
            self._schedules[key] = schedule(
                self.workload(operand, update), scratchpad_bytes, weights="tracked"
            )
        return self._schedules[key]

    def design(self, parameters: Parameters) -> Design:
        """Accelerator of a candidate."""
        return self._design(FloatFormat.parse(parameters["format"]), accumulator_of(parameters), parameters)

    def cost(self, parameters: Parameters) -> Cost:
        """Cost of one training step of a candidate."""
        key = tuple(value for name, value in parameters.items() if name != "update_rounding")
        if key not in self._costs:
            design = self.design(parameters)
            self._costs[key] = self._price(design, self._update)
        return self._costs[key]

    def why_infeasible(self, parameters: Parameters) -> str | None:
        """Reason why a candidate cannot be built or is beyond a limit, or ``None``."""
        try:
            cost = self.cost(parameters)
        except ValueError as error:  # a working set, or a memory beyond the tables
            return str(error)
        limits = self.config.limits
        area_mm2, step_ms = cost.total_area_um2 * 1e-6, cost.seconds * 1e3
        if limits.area_mm2 is not None and area_mm2 > limits.area_mm2:
            return f"area must be at most {limits.area_mm2} mm2, got {area_mm2:.3f}"
        if limits.step_ms is not None and step_ms > limits.step_ms:
            return f"a training step must take at most {limits.step_ms} ms, got {step_ms:.3f}"
        return None

    def prepare(self, on_schedule: Callable[[int, int], None] | None = None) -> None:
        """Make every schedule that a candidate may need.

        Parameters
        ----------
        on_schedule
            Called with the number of schedules made and of all.

        Raises
        ------
        ConfigError
            A scratchpad that is too small for one operator in every format.
        """
        space = self.config.space
        formats = [FloatFormat.parse(text) for text in space.format]
        smallest = min(formats, key=lambda fmt: fmt.bits)
        least = working_set_minimum(self.workload(smallest, self._update), weights="tracked")
        for index, size in enumerate(space.scratchpad_bytes):
            if size < least:
                try:
                    self.schedule(smallest, self._update, size)
                except WorkingSetError as error:
                    where = f"space.scratchpad_bytes[{index}]"
                    raise ConfigError(f"{where}: in format {smallest}, {error}") from None
        pairs = [
            (fmt, size)
            for fmt, size in product(formats, space.scratchpad_bytes)
            if size >= working_set_minimum(self.workload(fmt, self._update), weights="tracked")
        ]
        for count, (fmt, size) in enumerate(pairs, 1):
            self.schedule(fmt, self._update, size)
            if on_schedule is not None:
                on_schedule(count, len(pairs))

    def full_precision(self) -> tuple[Design, Cost]:
        """Cheapest hardware of the space for float32 arithmetic and storage, limits aside.

        Where no scratchpad of the space holds one operator's float32 tensors, the next power of two
        that does is taken.
        """
        least = working_set_minimum(self.workload(BINARY32, BINARY32), weights="tracked")
        sizes = [size for size in self.config.space.scratchpad_bytes if size >= least]
        sizes = sizes or [1 << (least - 1).bit_length()]
        best: tuple[Design, Cost] | None = None
        for hardware in self._hardware(sizes):
            design = self._design(BINARY32, Accumulator(BINARY32), hardware)
            cost = self._price(design, BINARY32)
            if best is None or cost.total_energy_pj < best[1].total_energy_pj:
                best = design, cost
        assert best is not None  # every list of choices has a value
        return best

    @property
    def _update(self) -> FloatFormat:
        return FloatFormat.parse(self.config.training.update_format)

    def _price(self, design: Design, update: FloatFormat) -> Cost:
        operand = design.operand
        assert isinstance(operand, FloatFormat)  # the space of a campaign has no other
        plan = self.schedule(operand, update, design.scratchpad_bytes)
        return evaluate(design, self.workload(operand, update), schedule=plan)

    def _design(self, operand: FloatFormat, accumulator: Accumulator, hardware: Parameters) -> Design:
        fixed = self.config.design
        return Design(
            rows=hardware["rows"],
            columns=hardware["columns"],
            dataflow=hardware["dataflow"],
            operand=operand,
            accumulator=accumulator,
            scratchpad_bytes=hardware["scratchpad_bytes"],
            accumulator_bytes=fixed.accumulator_bytes,
            offchip=fixed.offchip,
            offchip_bytes_per_cycle=hardware["offchip_bytes_per_cycle"],
            clock_mhz=fixed.clock_mhz,
            node_nm=fixed.node_nm,
        )

    def _hardware(self, scratchpads: list[int]) -> Iterator[Parameters]:
        space = self.config.space
        names = ("rows", "columns", "dataflow", "scratchpad_bytes", "offchip_bytes_per_cycle")
        lists = (space.rows, space.columns, space.dataflow, scratchpads, space.offchip_bytes_per_cycle)
        for values in product(*lists):
            yield dict(zip(names, values, strict=True))


def step_workload(task: str, batch: int) -> Workload:
    """Training step of a task's network for `batch` samples."""
    import torch

    network = TASKS[task].network().to("meta")
    inputs = torch.empty(batch, *TASKS[task].input_shape, device="meta")
    return training_step(Workload.from_torch(network, inputs, fold_parameters=False))
