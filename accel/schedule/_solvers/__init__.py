"""Models for solvers: CP-SAT, and rows and columns for any other."""
