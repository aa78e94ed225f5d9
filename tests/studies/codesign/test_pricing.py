"""Candidates are priced on the network that is trained, with the schedule of their scratchpad."""

import pytest

from accel import Role
from numerics import BINARY32, E5M2, E6M9, FloatFormat
from studies.codesign.config import CampaignConfig
from studies.codesign.pricing import Pricing, Storage, covering, step_workload
from studies.config import load
from studies.tasks import TASKS

PARAMETERS = {
    "format": "e5m2",
    "accumulator_exp_bits": 6,
    "accumulator_frac_bits": 6,
    "chunk": 64,
    "update_rounding": "stochastic",
    "rows": 16,
    "columns": 16,
    "dataflow": "os",
    "scratchpad_bytes": 131072,
    "offchip_bytes_per_cycle": 8,
}


@pytest.fixture
def pricing(tiny_file):
    return Pricing.of(load(tiny_file, CampaignConfig))


def test_the_priced_graph_has_the_parameters_and_products_of_the_trained_network():
    step = step_workload(TASKS["digits-cnn"], 32)
    network = TASKS["digits-cnn"].network()
    weights = [step.tensors[name] for name in step.inputs if step.tensors[name].role is Role.WEIGHT]
    assert sum(tensor.elements for tensor in weights) == sum(p.numel() for p in network.parameters())
    # By hand: outputs x window x channels of both convolutions, and the linear layer, per image. The
    # first layer has no input gradient.
    conv1, conv2, fc = 64 * 9 * 8, 16 * 72 * 16, 64 * 10
    assert step.macs == 32 * (2 * conv1 + 3 * conv2 + 3 * fc)


def test_tensors_are_stored_as_operands_and_weights_as_the_update_has_them(pricing):
    workload = pricing.workload(Storage(E5M2, E5M2, E6M9, E6M9))
    stored = {tensor.role: tensor.format for tensor in workload.tensors.values()}
    assert stored[Role.ACTIVATION] == stored[Role.ERROR] == stored[Role.INPUT] == E5M2
    assert stored[Role.WEIGHT] == stored[Role.WEIGHT_GRADIENT] == stored[Role.OPTIMIZER_STATE] == E6M9


def test_numerics_and_hardware_move_the_cost_where_they_should(pricing):
    base = pricing.cost(PARAMETERS)
    wider = pricing.cost({**PARAMETERS, "accumulator_frac_bits": 9})
    assert wider.energy_pj["mac"] > base.energy_pj["mac"]
    assert wider.cycles == base.cycles
    larger = pricing.cost({**PARAMETERS, "rows": 8})
    assert larger.area_um2["array"] < base.area_um2["array"]
    assert larger.cycles > base.cycles
    # The rounding of the update is not part of the accelerator model.
    assert pricing.cost({**PARAMETERS, "update_rounding": "nearest-even"}) is base


def test_off_chip_bytes_are_those_of_a_proven_optimal_schedule(pricing):
    plan = pricing.schedule(Storage(E5M2, E5M2, E6M9, E6M9), 131072)
    assert plan.status == "OPTIMAL"
    assert pricing.cost(PARAMETERS).offchip_bytes == plan.offchip_bytes


def test_infeasible_candidates_come_with_a_reason(pricing):
    assert pricing.why_infeasible(PARAMETERS) is None
    reason = pricing.why_infeasible({**PARAMETERS, "scratchpad_bytes": 65536})
    assert reason.startswith("scratchpad_bytes must be at least 81920")


def test_limits_reject_with_both_numbers(tmp_path, tiny_text):
    path = tmp_path / "limited.toml"
    path.write_text(tiny_text + "\n[limits]\narea_mm2 = 0.1\nstep_ms = 0.01\n")
    pricing = Pricing.of(load(path, CampaignConfig))
    assert "area must be at most 0.1 mm2, got " in pricing.why_infeasible(PARAMETERS)
    path.write_text(tiny_text + "\n[limits]\nstep_ms = 0.01\n")
    pricing = Pricing.of(load(path, CampaignConfig))
    assert "a training step must take at most 0.01 ms, got " in pricing.why_infeasible(PARAMETERS)


def test_the_full_precision_twin_gets_the_cheapest_hardware_that_holds_it(pricing):
    design, cost = pricing.full_precision()
    assert design.operand == BINARY32
    assert design.accumulator.format == BINARY32
    assert design.scratchpad_bytes >= 4 * 81920  # float32 tensors of what needs 81920 bytes in 8 bits
    assert cost.total_energy_pj > pricing.cost(PARAMETERS).total_energy_pj


def test_errors_in_a_format_of_their_own_are_stored_in_it_and_widen_one_port(pricing):
    own = {**PARAMETERS, "format": "e3m2", "backward_format": "e5m2"}
    stored = {
        tensor.role: tensor.format for tensor in pricing.workload(pricing.storage(own)).tensors.values()
    }
    assert stored[Role.ERROR] == E5M2
    assert stored[Role.ACTIVATION] == stored[Role.INPUT] == FloatFormat.parse("e3m2")
    design = pricing.design(own)
    assert (str(design.operand), str(design.weight)) == ("e5m2", "e3m2")
    # A cell of one narrow port costs less than one of two wide ones, and more than one of none.
    mac = [pricing.cost({**own, **change}).energy_pj["mac"] for change in (
        {"backward_format": "e3m2"}, {}, {"format": "e5m2"})]  # fmt: skip
    assert mac[0] < mac[1] < mac[2]
    assert pricing.cost({**own, "backward_format": "e3m2"}).total_energy_pj == (
        pricing.cost({**PARAMETERS, "format": "e3m2"}).total_energy_pj
    )


@pytest.mark.parametrize(
    ("a", "b", "cover"),
    [
        ("e4m3fn", "e5m2", "e5m3"),
        ("e5m2", "e5m2", "e5m2"),
        ("e3m1", "e5m2", "e5m2"),
        ("e8m23", "e4m3", "e8m23"),
    ],
)
def test_a_port_of_two_formats_holds_every_value_of_both(a, b, cover):
    """By the codes of every format that is small enough."""
    found = covering(FloatFormat.parse(a), FloatFormat.parse(b))
    assert str(found) == cover
    assert found == covering(FloatFormat.parse(b), FloatFormat.parse(a))


def test_adam_keeps_two_values_for_each_weight_and_sgd_one():
    task = TASKS["digits-cnn"]
    states = {
        name: sum(t.elements for t in step_workload(task, 8, optimizer=name).tensors.values()
                  if t.role is Role.OPTIMIZER_STATE)
        for name in ("sgd", "adamw")
    }  # fmt: skip
    weights = sum(p.numel() for p in task.network().parameters())
    assert states == {"sgd": 2 * weights, "adamw": 4 * weights}  # before the step and after it
