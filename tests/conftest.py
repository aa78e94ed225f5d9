"""Settings of the whole suite."""

from hypothesis import HealthCheck, settings

# Numba compiles inside the first example, which no deadline can allow for.
settings.register_profile("bitfront", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bitfront")
