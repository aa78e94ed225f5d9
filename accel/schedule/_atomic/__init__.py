"""Engines of atomic mode: exact search and its bounds, beams and windows, replacement in an order."""
