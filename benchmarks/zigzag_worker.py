"""Best mappings of layers by ZigZag; runs in an environment of its own, which has ``zigzag-dse``.

Reads a JSON object with ``accelerator`` (as ZigZag's YAML files hold it), ``mapping`` and ``layers``
from standard input, and writes one with ``version``, ``seconds`` in all, and for each layer its
``seconds``, ``energy_pj`` by ZigZag's accounting, ``mappings`` tried, the ``spatial`` loops and the
``temporal`` ones of each operand: innermost memory level first, innermost loop first.

Each layer goes through ZigZag's own stages with their defaults: its loop-order search with at most 6
factors and uneven splits of operands, best energy wins. Two switches differ from its interface: an
operand that several cycles in a row read is charged each time, as an array reads it; and nothing is
written to files.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zigzag.mapping.temporal_mapping import TemporalMappingType
from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
from zigzag.stages.main import MainStage
from zigzag.stages.mapping.spatial_mapping_generation import SpatialMappingGeneratorStage
from zigzag.stages.mapping.temporal_mapping_generator_stage import TemporalMappingGeneratorStage
from zigzag.stages.parser.accelerator_parser import AcceleratorParserStage
from zigzag.stages.parser.workload_parser import WorkloadParserStage
from zigzag.stages.results.reduce_stages import MinimalEnergyStage
from zigzag.stages.workload_iterator import WorkloadStage


class Counting(CostModelStage):
    """ZigZag's cost model, which tells how often it ran."""

    tried = 0

    def run(self) -> Any:
        """Evaluate one mapping."""
        Counting.tried += 1
        yield from super().run()


def best_mapping(layer: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
    """Best mapping of one layer, with the time its search took."""
    Counting.tried = 0
    start = time.perf_counter()
    stage = MainStage(
        list_of_callables=[
            WorkloadParserStage,
            AcceleratorParserStage,
            WorkloadStage,
            MinimalEnergyStage,
            SpatialMappingGeneratorStage,
            MinimalEnergyStage,
            TemporalMappingGeneratorStage,
            Counting,
        ],
        workload=[layer],
        **files,
        loma_lpf_limit=6,
        loma_show_progress_bar=False,
        nb_mappings_generated=3,
        enable_mix_spatial_mapping_generation=False,
        access_same_data_considered_as_no_access=False,
        temporal_mapping_type=TemporalMappingType.UNEVEN,
    )
    ((found, _),) = stage.run()
    seconds = time.perf_counter() - start
    temporal = found.mapping.temporal_mapping.mapping_dic_origin
    spatial = found.mapping.spatial_mapping.spatial_loop_dim_size
    return {
        "name": layer["name"],
        "seconds": seconds,
        "mappings": Counting.tried,
        "energy_pj": float(found.energy_total),
        "cycles": float(found.latency_total2),
        "energy_by_operand": {
            str(op): [float(e) for e in energies] for op, energies in found.mem_energy_breakdown.items()
        },
        "spatial": [[str(loop), int(turns)] for loop, turns in spatial],
        "temporal": {
            str(operand): [[[str(loop), int(turns)] for loop, turns in level] for level in levels]
            for operand, levels in temporal.items()
        },
    }


def main() -> None:
    logging.disable(logging.CRITICAL)
    task = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name in ("accelerator", "mapping"):
            path = Path(folder) / f"{name}.yaml"
            path.write_text(json.dumps(task[name]), encoding="utf-8")  # JSON is YAML
            files[name] = str(path)
        best_mapping(task["layers"][0], files)  # warm, as ours is
        found = []
        for layer in task["layers"]:
            found.append(best_mapping(layer, files))
            print(layer["name"], f"{found[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    total = sum(layer["seconds"] for layer in found)
    json.dump({"version": version("zigzag-dse"), "seconds": total, "layers": found}, sys.stdout)


if __name__ == "__main__":
    main()
