import subprocess
import sys

PROBE = """
import sys, time
begin = time.process_time()
import dse
print(time.process_time() - begin)
print(*(name for name in ("torch", "botorch", "gpytorch", "pandas", "scipy") if name in sys.modules))
"""


def test_importing_dse_is_quick_and_leaves_the_heavy_packages_out():
    # Seconds of the processor, the least of three: others may have the machine meanwhile.
    lines = [
        subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    assert min(float(text.split("\n")[0]) for text in lines) < 0.5
    assert {text.split("\n")[1] for text in lines} == {""}
