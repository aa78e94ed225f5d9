"""Precision studies: a task trained under several policies beside its full-precision twin."""
