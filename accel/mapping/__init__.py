"""Mappings: how a product runs through the memories, loop by loop.

``tiling`` and ``search`` cut one product for a :class:`accel.Design` and find the best cut. ``problem``
and ``nest`` analyse loop nests of any depth, with any number of memories, of one's own.
"""

from accel.mapping.latency import Overlap, overlapped
from accel.mapping.many_nests import ManyCounts, analyse_many
from accel.mapping.nest import Counts, Level, Nest, TensorCounts, analyse
from accel.mapping.problem import Access, Problem
from accel.mapping.search import (
    OBJECTIVES,
    Engine,
    Objective,
    Tiled,
    best_tiling,
    best_tilings,
    measure_tiling,
)
from accel.mapping.tiling import Axis, Geometry, Layer, Tiling, layer_of

__all__ = [
    "OBJECTIVES",
    "Access",
    "Axis",
    "Counts",
    "Engine",
    "Geometry",
    "Layer",
    "Level",
    "ManyCounts",
    "Nest",
    "Objective",
    "Overlap",
    "Problem",
    "TensorCounts",
    "Tiled",
    "Tiling",
    "analyse",
    "analyse_many",
    "best_tiling",
    "best_tilings",
    "layer_of",
    "measure_tiling",
    "overlapped",
]
