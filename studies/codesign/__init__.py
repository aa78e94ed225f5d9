"""Co-design campaigns: numerics and accelerator searched together."""
