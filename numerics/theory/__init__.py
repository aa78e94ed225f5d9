"""How many bits a sum, a weight update or a training run needs."""
