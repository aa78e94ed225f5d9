"""An outside program. Usage: simulator.py PARAMETERS METRICS; it logs its calls in $CALLS."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main():
    parameters = json.loads(Path(sys.argv[1]).read_text())
    metrics = Path(sys.argv[2])
    mode = parameters.get("mode", "good")
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(f"{json.dumps(parameters)}\n")
    sys.stdout.write(f"starting {mode}\n")
    sys.stdout.flush()
    if mode == "bytes":
        os.write(1, b"\x00\xff\x80\x1b[31m garbage \r\n")
        metrics.write_bytes(b"\x80\x81\x00")
    elif mode == "half":
        metrics.write_text('{"time": 1.0, "log')
    elif mode == "deep":
        metrics.write_text("[" * 100_000)
    elif mode == "list":
        metrics.write_text("[1, 2]")
    elif mode == "huge":
        metrics.write_text(" " * (1 << 24) + "{}")
    elif mode in ("nan", "null", "true", "text"):
        value = {"nan": float("nan"), "null": None, "true": True, "text": "0.5"}[mode]
        metrics.write_text(json.dumps({"time": value, "logic": 3}))
    elif mode == "missing":
        metrics.write_text('{"time": 1.0}')
    elif mode == "reason":
        metrics.write_text('{"error": "does not fit: 120 % of the RAM"}')
    elif mode == "silent":
        sys.stdout.write("no licence?\n")
    elif mode.startswith("status"):
        sys.stdout.write("something is wrong\n")
        sys.exit(int(mode.removeprefix("status")))
    elif mode.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, mode))
    elif mode == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN if parameters.get("stubborn") else signal.SIG_DFL)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)  # left behind"])
        time.sleep(1000)
    else:
        if mode == "daemon":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)  # left behind"])
        time.sleep(parameters.get("seconds", 0.0))
        measured = {
            "time": parameters["x"] / 8,
            "logic": 3,
            "note": [float("inf"), "kept"],
            "slack": float("nan"),
        }
        metrics.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
