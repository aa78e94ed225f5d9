"""Mutants of the kernels; see `mutants.__main__`."""
