"""Studies: where numerics, accelerators and search meet; training, campaigns, reports, the command line."""
