"""Traffic of tensor groups."""

import pytest

from studies.allocation.groups import TensorGroup, bits_per_value, traffic_bytes, traffic_table


def test_traffic_is_numbers_times_accesses_times_bits():
    groups = [
        TensorGroup(name="a", elements=16, accesses=2.0),
        TensorGroup(name="b", elements=8, fixed_bytes=3.0),
    ]
    assert traffic_bytes(groups, "binary32") == 16 * 2 * 4 + 8 * 4 + 3
    assert traffic_bytes(groups, {"a": "e2m1", "b": "e4m3fn"}) == 16 + 8 + 3
    assert traffic_table(groups, ["binary16", "e3m2"]).tolist() == [[64, 24], [19, 9]]


def test_scales_of_blocks_count():
    assert bits_per_value("mxfp4") == 4.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "must not be empty"),
        ({"elements": 0}, "elements of a must be at least 1, got 0"),
        ({"accesses": 0.0}, "accesses of a must be positive and finite, got 0"),
        ({"fixed_bytes": -1.0}, "fixed_bytes of a must be at least 0, got -1"),
    ],
)
def test_bad_groups_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        TensorGroup(**({"name": "a", "elements": 1} | options))
