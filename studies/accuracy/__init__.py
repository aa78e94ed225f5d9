"""Accuracy of a network under any numerics, predicted before it is trained."""
