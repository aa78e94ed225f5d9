"""A campaign small enough to run in a test."""

import pytest

TINY = """\
seed = 3
evaluations = 5

[training]
task = "digits-cnn"
batch = 64
steps = 3
learning_rate = 0.05
replicates = 1

[space]
format = ["e5m2", "e3m2"]
accumulator_exp_bits = 6
accumulator_frac_bits = [3, 6, 9]
chunk = [0, 64]
update_rounding = ["nearest-even", "stochastic"]
rows = [8, 16]
columns = 16
dataflow = ["os", "ws"]
scratchpad_bytes = [81920, 131072]
offchip_bytes_per_cycle = 8

[design]
accumulator_bytes = 16384
offchip = "LPDDR4"
clock_mhz = 200

[search]
initial = 3
"""


@pytest.fixture(scope="session")
def tiny_text():
    return TINY


@pytest.fixture
def tiny_file(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session", autouse=True)
def kept_results(tmp_path_factory):
    """What is kept across campaigns is kept for this session alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITFRONT_CACHE", str(tmp_path_factory.mktemp("kept")))
        yield
