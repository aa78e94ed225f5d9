"""A small design and a list of two products, as a user writes them."""

import pytest

DESIGN = """\
rows = 16
columns = 16
dataflow = "ws"
operand = "e4m3"
accumulator = "e6m9"
scratchpad_bytes = 65536
accumulator_bytes = 16384
offchip = "LPDDR4"
offchip_bytes_per_cycle = 16
clock_mhz = 250
"""

LAYERS = """\
name = "two layers"

[[gemm]]
name = "fc1"
m = 256
n = 128
k = 512

[[gemm]]
name = "fc2"
m = 256
n = 16
k = 128
"""


@pytest.fixture
def design(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text(DESIGN)
    return path


@pytest.fixture
def layers(tmp_path):
    path = tmp_path / "layers.toml"
    path.write_text(LAYERS)
    return path


@pytest.fixture
def changed(tmp_path):
    """Writes the design with other lines in place of its own."""

    def write(name, **settings):
        lines = [line for line in DESIGN.splitlines() if line.split(" =")[0] not in settings]
        lines += [f"{key} = {value!r}" for key, value in settings.items()]
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
