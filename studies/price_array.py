"""A systolic array priced on ResNet-50 inference: an outside program for `bitfront campaign`.

python -m studies.price_array PARAMETERS.json METRICS.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Read a design as JSON, write milliseconds, millijoules and square millimetres of one inference."""
    from accel import Design, evaluate
    from accel.networks import named_workload

    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    design = Design(
        rows=given["rows"],
        columns=given["columns"],
        dataflow=given["dataflow"],
        operand="e4m3fn",
        accumulator="e6m9",
        scratchpad_bytes=given["scratchpad_kib"] * 1024,
        accumulator_bytes=64 * 1024,
        offchip="LPDDR4",
        offchip_bytes_per_cycle=16,
        clock_mhz=500,
    )
    cost = evaluate(design, named_workload("zoo:resnet50").with_formats(design.operand))
    metrics = {
        "time_ms": cost.seconds * 1e3,
        "energy_mj": cost.total_energy_pj * 1e-9,
        "area_mm2": cost.total_area_um2 * 1e-6,
    }
    Path(sys.argv[2]).write_text(json.dumps(metrics), encoding="utf-8")


if __name__ == "__main__":
    main()
