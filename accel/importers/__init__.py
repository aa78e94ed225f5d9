"""Readers that turn a model into a ``Workload``; import the one you need, for PyTorch loads slowly."""
