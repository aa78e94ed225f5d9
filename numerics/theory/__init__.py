"""How many bits a sum, a weight update or a training run needs."""

from numerics.theory.bits import emulated_bits, operand_noise, required_bits
from numerics.theory.emulated import Estimate, Retention, emulated_retention
from numerics.theory.retention import PAPER_CUTOFF, variance_lost, variance_retention

__all__ = [
    "PAPER_CUTOFF",
    "Estimate",
    "Retention",
    "emulated_bits",
    "emulated_retention",
    "operand_noise",
    "required_bits",
    "variance_lost",
    "variance_retention",
]
