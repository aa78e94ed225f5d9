"""Rules of the baselines: which tensors leave, and where blocks go."""
