"""What a candidate costs: its training step on its accelerator, with an optimal schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from accel import Cost, Design, Role, Workload, evaluate, training_step
from accel.schedule import Schedule, WorkingSetError, working_set_minimum
from numerics import BINARY32, Accumulator, FloatFormat
from studies.cache import Kept, cache_folder
from studies.codesign.config import CampaignConfig, SpaceTable
from studies.codesign.schedules import Schedules
from studies.config import ConfigError
from studies.tasks import Data, Task, build_task

if TYPE_CHECKING:
    import torch

Parameters = Mapping[str, Any]

#: Parameters that decide how a candidate trains; the others are hardware alone.
NUMERICS = (
    "format",
    "backward_format",
    "accumulator_exp_bits",
    "accumulator_frac_bits",
    "chunk",
    "update_rounding",
)

#: Parameters of the accelerator alone.
HARDWARE = ("rows", "columns", "dataflow", "scratchpad_bytes", "offchip_bytes_per_cycle")


def numerics_names(space: SpaceTable) -> tuple[str, ...]:
    """Parameters of `NUMERICS` that a space has."""
    return tuple(name for name in NUMERICS if getattr(space, name) is not None)


@dataclass(frozen=True, slots=True)
class Storage:
    """Formats in which the tensors of a training step are stored.

    Attributes
    ----------
    operand
        Inputs and activations.
    error
        Errors of the backward pass.
    update
        Weights and their gradients.
    state
        What the optimizer keeps.
    """

    operand: FloatFormat
    error: FloatFormat
    update: FloatFormat
    state: FloatFormat

    @classmethod
    def uniform(cls, fmt: FloatFormat) -> Storage:
        """One format for everything."""
        return cls(fmt, fmt, fmt, fmt)

    @property
    def bits(self) -> int:
        """Width of the operands, for ordering: the wider of both."""
        return max(self.operand.bits, self.error.bits)


def covering(a: FloatFormat, b: FloatFormat) -> FloatFormat:
    """Smallest format of the family that holds every value of both.

    A port of the array that takes either format is that wide: e4m3fn and e5m2 share one of e5m3.

    Raises
    ------
    ValueError
        None of up to 8 exponent bits does.

    Examples
    --------
    >>> print(covering(FloatFormat.parse("e4m3fn"), FloatFormat.parse("e5m2")))
    e5m3
    """
    for fmt in (a, b):
        if _holds(fmt, a) and _holds(fmt, b):
            return fmt
    frac = max(a.frac_bits, b.frac_bits)
    for exp in range(max(a.exp_bits, b.exp_bits), 9):
        for specials in ("ieee", "fn"):
            fmt = FloatFormat(exp_bits=exp, frac_bits=frac, specials=specials)
            if _holds(fmt, a) and _holds(fmt, b):
                return fmt
    raise ValueError(f"no format of at most 8 exponent bits holds all values of {a} and {b}")


def _holds(wide: FloatFormat, fmt: FloatFormat) -> bool:
    return (
        wide.max >= fmt.max
        and wide.frac_bits >= fmt.frac_bits
        and wide.min_normal <= fmt.min_normal
        and wide.min_subnormal <= fmt.min_subnormal
    )


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
    schedules: Schedules
    _workloads: dict[Storage, Workload] = field(default_factory=dict)
    _schedules: dict[tuple[Storage, int], Schedule] = field(default_factory=dict)
    _costs: dict[tuple[Any, ...], Cost] = field(default_factory=dict)

    @classmethod
    def of(cls, config: CampaignConfig, task: Task | None = None, data: Data | None = None) -> Pricing:
        """Pricing of the configured network; imports PyTorch to read its graph.

        Parameters
        ----------
        task, data
            Those of the configuration, where they are read already.
        """
        task = build_task(config.training.table) if task is None else task
        inputs = (task.load() if data is None else data).train_inputs.dtype
        step = step_workload(task, config.training.batch, inputs, optimizer=config.training.rule.kind)
        kept, limit = Kept(cache_folder(), "schedules"), config.design.schedule_seconds
        schedules = Schedules(kept) if limit is None else Schedules(kept, time_limit_s=limit)
        return cls(config, step, schedules)

    def storage(self, parameters: Parameters) -> Storage:
        """Formats in which a candidate's tensors are stored."""
        operand = FloatFormat.parse(parameters["format"])
        backward = parameters.get("backward_format")
        state = self.config.training.state_format
        return Storage(
            operand=operand,
            error=operand if backward is None else FloatFormat.parse(backward),
            update=self.update_format,
            state=self.update_format if state is None else FloatFormat.parse(state),
        )

    def workload(self, storage: Storage) -> Workload:
        """The training step with tensors in these formats."""
        if storage not in self._workloads:
            stored = dict.fromkeys((Role.INPUT, Role.ACTIVATION), storage.operand)
            stored[Role.ERROR] = storage.error
            stored |= dict.fromkeys((Role.WEIGHT, Role.WEIGHT_GRADIENT), storage.update)
            stored[Role.OPTIMIZER_STATE] = storage.state
            self._workloads[storage] = self.step.with_formats(stored)
        return self._workloads[storage]

    def schedule(self, storage: Storage, scratchpad_bytes: int) -> Schedule:
        """Schedule with the least off-chip traffic; raises `WorkingSetError` if there is none."""
        key = (storage, scratchpad_bytes)
        if key not in self._schedules:
            self._schedules[key] = self.schedules.best(self.workload(storage), scratchpad_bytes)
        return self._schedules[key]

    def design(self, parameters: Parameters) -> Design:
        """Accelerator of a candidate."""
        return self.design_of(self.storage(parameters), accumulator_of(parameters), parameters)

    def cost(self, parameters: Parameters) -> Cost:
        """Cost of one training step of a candidate."""
        key = tuple(value for name, value in parameters.items() if name != "update_rounding")
        if key not in self._costs:
            self._costs[key] = self.price(self.design(parameters), self.storage(parameters))
        return self._costs[key]

    def price(self, design: Design, storage: Storage, *, plan: Schedule | None = None) -> Cost:
        """Cost of a training step on a design, with the best schedule or with another one."""
        if plan is None:
            plan = self.schedule(storage, design.scratchpad_bytes)
        return evaluate(design, self.workload(storage), schedule=plan)

    def working_set(self, storage: Storage) -> int:
        """Bytes of the smallest scratchpad that holds the tensors of every operator."""
        return working_set_minimum(self.workload(storage), weights="tracked")

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
        backward: list[str | None] = [None] if space.backward_format is None else [*space.backward_format]
        pairs = product(space.format, backward)
        stored = [self.storage({"format": fmt, "backward_format": error}) for fmt, error in pairs]
        smallest = min(stored, key=lambda storage: storage.bits)
        least = self.working_set(smallest)
        for index, size in enumerate(space.scratchpad_bytes):
            if size < least:
                try:
                    self.schedule(smallest, size)
                except WorkingSetError as error:
                    where = f"space.scratchpad_bytes[{index}]"
                    raise ConfigError(f"{where}: in format {smallest.operand}, {error}") from None
        wanted = [
            (storage, size)
            for storage, size in product(stored, space.scratchpad_bytes)
            if size >= self.working_set(storage)
        ]
        for count, (storage, size) in enumerate(wanted, 1):
            self.schedule(storage, size)
            if on_schedule is not None:
                on_schedule(count, len(wanted))

    def full_precision(self) -> tuple[Design, Cost]:
        """Cheapest hardware of the space for float32 arithmetic and storage, limits aside.

        Where no scratchpad of the space holds one operator's float32 tensors, the next power of two
        that does is taken.
        """
        storage = Storage.uniform(BINARY32)
        least = self.working_set(storage)
        sizes = [size for size in self.config.space.scratchpad_bytes if size >= least]
        sizes = sizes or [1 << (least - 1).bit_length()]
        best: tuple[Design, Cost] | None = None
        for hardware in self._hardware(sizes):
            design = self.design_of(storage, Accumulator(BINARY32), hardware)
            cost = self.price(design, storage)
            if best is None or cost.total_energy_pj < best[1].total_energy_pj:
                best = design, cost
        assert best is not None  # every list of choices has a value
        return best

    @property
    def update_format(self) -> FloatFormat:
        """Format of weights and their gradients."""
        return FloatFormat.parse(self.config.training.update_format)

    def design_of(self, storage: Storage, accumulator: Accumulator, hardware: Parameters) -> Design:
        """Accelerator of these numerics on this hardware, parameters of `HARDWARE`.

        One port of a cell takes weights, and activations where errors meet them; the other one takes
        activations and errors, and so must hold the values of both formats.
        """
        fixed = self.config.design
        return Design(
            rows=hardware["rows"],
            columns=hardware["columns"],
            dataflow=hardware["dataflow"],
            operand=covering(storage.operand, storage.error),
            weight=storage.operand,
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
        lists = (space.rows, space.columns, space.dataflow, scratchpads, space.offchip_bytes_per_cycle)
        for values in product(*lists):
            yield dict(zip(HARDWARE, values, strict=True))


def step_workload(
    task: Task, batch: int, inputs: torch.dtype | None = None, *, optimizer: str = "sgd"
) -> Workload:
    """Training step of a task's network for `batch` samples.

    Parameters
    ----------
    inputs
        Type of the network's inputs, float32 if not given; indices have another one.
    optimizer
        ``"sgd"`` with momentum, ``"adam"`` or ``"adamw"``.
    """
    import torch

    network = task.network().eval().to("meta")
    samples = torch.empty(batch, *task.input_shape, dtype=inputs, device="meta")
    forward = Workload.from_torch(network, samples, fold_parameters=False)
    return training_step(forward, optimizer="sgd" if optimizer == "sgd" else "adam")
