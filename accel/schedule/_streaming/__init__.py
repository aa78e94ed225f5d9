"""Streamed mode: the problem, its exact engines, placement and orders."""
