"""Models and acquisition functions of Bayesian search and active learning, on plain arrays.

Private: knows no space and no campaign.
"""
