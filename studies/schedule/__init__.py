"""The command ``bitfront schedule``: the best schedule of a network, and how large a scratchpad must be."""
