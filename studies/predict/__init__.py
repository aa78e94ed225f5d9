"""How many bits the accumulators of a network's training products need."""
