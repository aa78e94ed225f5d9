"""Accuracy of networks under numerics that nobody has trained yet."""
