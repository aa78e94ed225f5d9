"""Number formats, rounding, accumulation and bit-true matrix products."""
