"""Where bits go: formats of tensor groups and bits of layers, under a limit on quality."""
