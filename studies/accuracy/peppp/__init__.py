"""PEPPP: the trade of memory for error, estimated from a few trained configurations."""

from studies.accuracy.peppp.completion import Completion, HeldOut, held_out, soft_impute
from studies.accuracy.peppp.design import Relaxed, greedy, relaxed
from studies.accuracy.peppp.embedding import embed, rank_of_energy, spectrum
from studies.accuracy.peppp.frontier import Frontier, convergence, frontier, hypervolume_difference
from studies.accuracy.peppp.method import Peppp, Selection

__all__ = [
    "Completion",
    "Frontier",
    "HeldOut",
    "Peppp",
    "Relaxed",
    "Selection",
    "convergence",
    "embed",
    "frontier",
    "greedy",
    "held_out",
    "hypervolume_difference",
    "rank_of_energy",
    "relaxed",
    "soft_impute",
    "spectrum",
]
