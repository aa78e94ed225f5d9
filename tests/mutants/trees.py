"""Runs of tests in copies of the tree, each in a fork."""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import traceback
from pathlib import Path

from mutants.sites import KERNELS, ROOT, dependents
from mutants.tables import TESTS


class _Recorder:
    """A pytest plugin that keeps the first failure."""

    def __init__(self):
        self.first = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.first is None:
            self.first = report.nodeid

    def pytest_collectreport(self, report):
        if report.failed and self.first is None:
            self.first = f"import of {report.nodeid}"


def load():
    """Import what every run needs, but nothing of this project, so that forks need not."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"  # no threads before a fork
    import gfloat  # noqa: F401
    import hypothesis
    import ml_dtypes  # noqa: F401
    import numba
    import numpy
    import pytest

    hypothesis.settings.register_profile(
        "mutants",
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # a failure need not be made small
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main(["--version"])
    numba.njit(lambda x: x[0] + 1)(numpy.zeros(2))  # the compiler itself


class Tree:
    """A copy of what the tests need, in a temporary folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.kernels = self.folder / KERNELS
        self.cache = self.kernels / "__pycache__"

    @classmethod
    def copied(cls, folder):
        ignore = shutil.ignore_patterns("*.pyc", ".hypothesis")
        for name in ("numerics", "tests"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=ignore)
        shutil.copy2(ROOT / "pyproject.toml", folder)
        return cls(folder)

    def compiled(self, modules):
        """Cached kernels of some modules."""
        return [
            path for path in self.cache.glob("*.nb[ci]") if path.name.split(".")[0].split("-")[0] in modules
        ]

    def run(self, tests, limit):
        """(seconds, first failing test, or None) of a run in a fork; seconds of the processor, as the limit.

        Neither a busy machine nor a pause makes them more.
        """
        report, log = self.folder / "report.json", self.folder / "log.txt"
        report.unlink(missing_ok=True)
        process = os.fork()
        if process == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
            signal.alarm(20 * int(limit))  # one that waits forever uses no processor
            self._test(tests, report, log)
        _, status, used = os.wait4(process, 0)
        outcome, seconds = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if outcome == _DONE and not report.exists():
            raise RuntimeError(log.read_text(encoding="utf-8"))
        if outcome in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM):
            return seconds, f"the limit of {limit:.0f} s"
        if not report.exists():
            return seconds, signal.Signals(-outcome).name if outcome < 0 else f"exit code {outcome}"
        found = json.loads(report.read_text(encoding="utf-8"))
        if found["code"] == 0:
            return seconds, None
        return seconds, found["first"] or f"pytest ended with {found['code']}"

    def _test(self, tests, report, log):
        try:
            os.setsid()
            os.chdir(self.folder)
            os.environ["PYTHONPATH"] = str(self.folder)
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            own = str(Path(__file__).parents[1])
            sys.path[:] = [str(self.folder), *(entry for entry in sys.path if entry not in (own, str(ROOT)))]
            import pytest

            recorder = _Recorder()
            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--tb=short"]
            options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
            options += ["--hypothesis-profile=mutants", "--hypothesis-seed=0"]
            code = pytest.main([*options, *(f"tests/numerics/{test}" for test in tests)], plugins=[recorder])
            import numerics

            assert Path(numerics.__file__).is_relative_to(self.folder), numerics.__file__
            report.write_text(json.dumps({"code": int(code), "first": recorder.first}), encoding="utf-8")
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(_DONE)

    def judge(self, mutant, limits):
        """(seconds, what killed it, or None) of one mutant; the copy is then as before."""
        source = self.kernels / f"{mutant.module}.py"
        affected = dependents(mutant.module)
        before, stamp = source.read_bytes(), source.stat().st_mtime_ns
        aside = self.folder / "aside"
        aside.mkdir(exist_ok=True)
        for path in self.compiled(affected):
            path.rename(aside / path.name)
        try:
            self._write(source, before[: mutant.start] + mutant.new.encode() + before[mutant.end :], stamp)
            total = 0.0
            for tests, limit in zip(TESTS[mutant.module], limits, strict=True):
                if tests:
                    seconds, killer = self.run(tests, limit)
                    total += seconds
                    if killer:
                        return total, killer
            return total, None
        finally:
            self._write(source, before, stamp)
            for path in self.compiled(affected):
                path.unlink()
            for path in aside.iterdir():
                path.rename(self.cache / path.name)

    def _write(self, source, content, stamp):
        source.write_bytes(content)
        os.utime(source, ns=(stamp, stamp))  # or the package would discard the caches of all kernels
        for path in self.cache.glob(f"{source.stem}.*.pyc"):
            path.unlink()


_DONE = 77  # exit code of a run that did not end by a crash
