"""Public networks as an independent reader, search and placement have them: sizes, minima and optima.

One sample, one byte per element, element-wise operators joined to their producers, the order of the file. The
values were computed apart from this project, by a search over machine states with an exact placement.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import pytest

from accel.networks import named_workload
from accel.schedule import schedule, working_set_minimum
from accel.schedule.peak import peak_minimum
from accel.workload import Workload


class Figures(NamedTuple):
    """Of one network; bytes but for the counts of operators."""

    raw_operators: int
    operators: int
    activation_bytes: int  # graph inputs among them
    parameter_bytes: int
    working_set: int
    default_peak: int
    peak: int  # of the best order


FIGURES = {
    "bvlc_alexnet": Figures(21, 14, 1325136, 60965224, 559872, 559872, 559872),
    "densenet121": Figures(668, 242, 26695656, 8146152, 1605632, 1806336, 1806336),
    "inception_v1": Figures(141, 84, 6295440, 6998552, 1161600, 1161600, 1161600),
    "inception_v2": Figures(370, 94, 6389488, 11234792, 1003520, 1003520, 1003520),
    "resnet50": Figures(175, 73, 16988624, 25610152, 2408448, 2408448, 2408448),
    "shufflenet": Figures(170, 88, 5917824, 1420152, 702464, 777728, 721280),
    "squeezenet": Figures(65, 39, 4522552, 1235496, 982144, 982144, 982144),
    "vgg19": Figures(43, 25, 16543184, 143667240, 6422528, 6422528, 6422528),
    "zfnet512": Figures(21, 14, 3315216, 87250536, 2281152, 2281152, 2281152),
}


@cache
def raw(name: str) -> Workload:
    return named_workload(f"zoo:{name}", fuse="none").with_formats("int8")


@cache
def graph(name: str) -> Workload:
    return raw(name).fused()


def default_peak(workload: Workload) -> int:
    """Bytes alive at the worst step of the file order: from production or first use to the last use."""
    steps: dict[str, list[int]] = {}
    for step, operator in enumerate(workload.operators):
        for name in (*operator.inputs, *operator.outputs):
            if not workload.tensors[name].role.is_parameter:
                steps.setdefault(name, []).append(step)
    change = [0] * (len(workload.operators) + 1)
    for name, found in steps.items():
        change[found[0]] += workload.tensors[name].bytes
        change[found[-1] + 1] -= workload.tensors[name].bytes
    alive = peak = 0
    for difference in change:
        alive += difference
        peak = max(peak, alive)
    return peak


@pytest.mark.parametrize("name", FIGURES)
def test_a_network_has_its_operators_bytes_and_minima(name):
    fused = graph(name)
    parameters = sum(t.bytes for t in fused.tensors.values() if t.role.is_parameter)
    found = Figures(
        raw_operators=len(raw(name).operators),
        operators=len(fused.operators),
        activation_bytes=sum(t.bytes for t in fused.tensors.values()) - parameters,
        parameter_bytes=parameters,
        working_set=working_set_minimum(fused),
        default_peak=default_peak(fused),
        peak=peak_minimum(fused),
    )
    assert found == FIGURES[name]


def test_the_joined_graph_has_a_name_of_its_own():
    named = named_workload("zoo:squeezenet", fuse="elementwise")
    assert named.with_formats("int8") == graph("squeezenet")


def test_minima_with_parameters_and_without_fusion():
    assert working_set_minimum(raw("densenet121")) == 1605632
    assert peak_minimum(raw("densenet121")) == 2107392
    assert working_set_minimum(graph("densenet121"), weights="tracked") == 1607168
    assert working_set_minimum(graph("resnet50"), weights="tracked") == 2486784
    assert peak_minimum(graph("resnet50"), weights="tracked") == 2587136


# Network, weights, scratchpad, and the least non-compulsory bytes in the order of the file and in any.
OPTIMA = [
    ("shufflenet", "streamed", 702464, 150528, 37632),
    ("shufflenet", "streamed", 711872, 150528, 37632),
    ("shufflenet", "streamed", 721280, 150528, 0),
    ("densenet121", "streamed", 1605632, 1404928, 1404928),
    ("densenet121", "streamed", 1705984, 1404928, 1404928),
    ("densenet121", "streamed", 1806336, 0, 0),
    ("resnet50", "tracked", 2486784, 1003520, 602112),
    ("resnet50", "tracked", 2587136, 401408, 0),
    ("densenet121", "tracked", 1607168, 2609152, 2609152),
]


@pytest.mark.parametrize("order", ["given", "free"])
@pytest.mark.parametrize(("name", "weights", "scratchpad_bytes", "given", "free"), OPTIMA)
def test_the_least_traffic_is_that_of_an_independent_search(
    name, weights, scratchpad_bytes, given, free, order
):
    plan = schedule(graph(name), scratchpad_bytes, order=order, weights=weights)
    expected = {"given": given, "free": free}[order]
    assert (plan.noncompulsory_bytes, plan.bound_bytes, plan.status) == (expected, expected, "OPTIMAL")


@pytest.mark.parametrize("order", ["given", "free"])
def test_densenet_without_fusion_moves_more(order):
    plan = schedule(raw("densenet121"), 1605632, order=order)
    assert (plan.noncompulsory_bytes, plan.status) == (2609152, "OPTIMAL")
