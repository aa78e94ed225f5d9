"""Make the run table: train every subject under the same numerics, and store what came out.

    python -m studies.accuracy.collect --data FOLDER [--configurations 55] [--parts FILE] [--out FILE]

`FOLDER` holds ``mnist`` and ``tiny-shakespeare``. A run is appended to the file of parts when it is finished,
so that a command that was stopped goes on. It takes a quarter of an hour on one core. More configurations go
on with the same sequence.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from studies.accuracy.policies import NumericsChoice, drawn
from studies.accuracy.runs import TABLE, frame_of, write_runs
from studies.accuracy.subjects import SUBJECTS

CONFIGURATIONS = 55  #: of the table that comes with the package
TWIN_SEEDS = (0, 1, 2)
REPEATED = 8  #: every so many configurations one is repeated with another seed


def planned(configurations: int) -> Iterator[tuple[int, NumericsChoice | None, int]]:
    """Number of a configuration (-1: the float32 twin), its choice, and the seed of a run."""
    for seed in TWIN_SEEDS:
        yield -1, None, seed
    for number, choice in enumerate(drawn(configurations)):
        yield number, choice, 0
        if number % REPEATED == 0:
            yield number, choice, 1


def collect(data: Path, configurations: int, parts: Path) -> None:
    """Train what is not in the file of parts, and append it run by run."""
    from studies.accuracy.training import measure_run

    tasks = {name: subject.build(data) for name, subject in SUBJECTS.items()}
    samples = {name: task.load() for name, task in tasks.items()}
    done = {(part["task"], part["configuration"], part["seed"]) for part in read_parts(parts)}
    with parts.open("a", encoding="utf-8") as stream:
        for number, choice, seed in planned(configurations):
            for name, subject in SUBJECTS.items():
                if (name, number, seed) in done:
                    continue
                measured = measure_run(subject, tasks[name], samples[name], choice, seed=seed)
                part = {
                    "task": name,
                    "configuration": number,
                    "seed": seed,
                    "parameters": None if choice is None else choice.parameters,
                    "measured": [asdict(one) for one in measured],
                }
                stream.write(json.dumps(part) + "\n")
                stream.flush()
                last = measured[-1]
                print(  # noqa: T201
                    f"{name} {number} seed {seed}: accuracy {last.test_accuracy:.4f}, {last.seconds:.1f} s",
                    flush=True,
                )


def read_parts(parts: Path) -> list[dict[str, object]]:
    """Finished runs of a file of parts; an incomplete last line, of a command that was killed, is cut off."""
    if not parts.exists():
        return []
    whole = parts.read_bytes()
    complete = whole[: whole.rfind(b"\n") + 1]
    if len(complete) < len(whole):
        parts.write_bytes(complete)
    return [json.loads(line) for line in complete.splitlines()]


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description="Train every subject under the same numerics.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--configurations", type=int, default=CONFIGURATIONS)
    parser.add_argument("--parts", type=Path, default=Path("runs/accuracy.jsonl"))
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    options.parts.parent.mkdir(parents=True, exist_ok=True)
    collect(options.data, options.configurations, options.parts)
    write_runs(frame_of(read_parts(options.parts)), options.out)


if __name__ == "__main__":
    main()
