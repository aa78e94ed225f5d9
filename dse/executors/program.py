"""Evaluation by an outside program, which reads a design as JSON and writes metrics as JSON.

How a program ends, and what that says of the design:

=========================================  ==================================================
status 0 and usable metrics                done
status 0, metrics ``{"error": "reason"}``  design failure, with the program's own reason
status 0 otherwise                         design failure: no metrics, not JSON, an output missing or NaN
status 75 (``EX_TEMPFAIL``)                infrastructure: tried again
126, 127 (a shell's "cannot run")          infrastructure
SIGKILL, SIGTERM, SIGINT, SIGHUP           infrastructure: ended from outside; also as status 128 + n
any other status or signal                 design failure
time limit                                 design failure, or infrastructure where so asked
=========================================  ==================================================
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Literal

from filelock import FileLock

from dse.executors._logs import last_line
from dse.executors._results import Result, find, keep
from dse.executors.base import OUTSIDE, Measurement, SetupError
from dse.space import Value
from dse.trial import InfrastructureError, Json

_GRACE_S = 5.0  # between asking a program to end and killing it: it may have a licence to return
_LONGEST_METRICS = 1 << 24  # bytes; more is not a set of metrics
_CANNOT_RUN = (126, 127)
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_.-]*)\}")


class ProgramFailed(Exception):  # noqa: N818  what happened, not what is wrong in our code
    """A program could not evaluate the design."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """An evaluator that runs a command once for every design.

    Every attempt has a working folder of its own, ``folder/KEY/attempt-N``, with ``parameters.json``,
    ``metrics.json``, which the program writes, and ``log.txt``, its output. KEY is a hash of the
    command, `versions` and the parameters; files named in the command enter it by their content. A
    result is kept in ``folder/KEY/result.json`` and in the cache, and never computed again; failures
    are not kept.

    Attributes
    ----------
    command
        Program and arguments. ``{parameters}`` and ``{metrics}`` stand for the two files, ``{folder}``
        for the working folder, ``{NAME}`` for the value of a parameter, ``{{`` and ``}}`` for braces.
        An argument that names a file in the present folder is made absolute. The environment variables
        ``DSE_PARAMETERS`` and ``DSE_METRICS`` hold the two paths too.
    outputs
        Names of the objectives and outcome constraints that the program must write as finite numbers.
        Whatever else it writes becomes a metric.
    folder
        Of the evaluations of this campaign.
    time_limit_s
        Of one evaluation. SIGTERM comes first, and SIGKILL 5 s later, both to all it started.
    cache
        Folder of results that several campaigns share, also at the same time.
    versions
        JSON that names what the command does not show, as the release of a tool.
    timeout
        What exceeding the limit means: ``"design"`` or ``"infrastructure"``.

    Raises
    ------
    ValueError
        An empty command, a program that is not found, no outputs, or an option out of range.
    """

    command: Sequence[str]
    outputs: Sequence[str]
    folder: str | Path
    time_limit_s: float | None = None
    cache: str | Path | None = None
    versions: Json = None
    timeout: Literal["design", "infrastructure"] = "design"
    _identity: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        if isinstance(self.command, str) or not self.command:
            raise ValueError(f"command must be a list of program and arguments, got {self.command!r}")
        for argument in self.command:
            if not isinstance(argument, str):
                raise ValueError(f"command must hold text only, got {argument!r}")
        if isinstance(self.outputs, str) or not self.outputs:
            raise ValueError(f"outputs must be a list of at least one name, got {self.outputs!r}")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise ValueError(f"time_limit_s must be positive, got {self.time_limit_s}")
        if self.timeout not in ("design", "infrastructure"):
            raise ValueError(f"timeout must be design or infrastructure, got {self.timeout!r}")
        command = [str(Path(text).absolute()) if _is_file(text) else text for text in self.command]
        # A program on the search path is meant where both exist, as a shell does it.
        if os.sep not in self.command[0] and shutil.which(self.command[0]):
            command[0] = self.command[0]
        if not _PLACEHOLDER.search(command[0]) and shutil.which(command[0]) is None:
            raise ValueError(f"command must name a program that can be run, got {command[0]!r}")
        contents = [f"sha256:{_digest(text)}" if Path(text).is_absolute() and _is_file(text) else text
                    for text in command]  # fmt: skip
        try:
            identity = json.dumps([contents, self.versions], sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"versions must be JSON without NaN or infinity: {error}") from None
        changes = {"command": tuple(command), "outputs": tuple(self.outputs), "_identity": identity,
                   "folder": Path(self.folder).absolute(),
                   "cache": None if self.cache is None else Path(self.cache).absolute()}  # fmt: skip
        for name, value in changes.items():
            object.__setattr__(self, name, value)

    def key(self, parameters: Mapping[str, Value]) -> str:
        """Name of a design's folder: 32 hexadecimal digits, equal for equal evaluations."""
        design = json.dumps(dict(parameters), sort_keys=True, allow_nan=False)
        return sha256(f"{self._identity}\n{design}".encode()).hexdigest()[:32]

    def __call__(self, parameters: Mapping[str, Value]) -> Measurement:
        """Look the result up, or run the program.

        Raises
        ------
        ProgramFailed
            The design cannot be evaluated.
        InfrastructureError
            The attempt failed for another reason.
        SetupError
            A placeholder of the command is unknown.
        """
        folder, cache = Path(self.folder), None if self.cache is None else Path(self.cache)
        key = self.key(parameters)
        work = folder / key
        kept = [work / "result.json"]
        if cache is not None:
            kept.append(cache / key[:2] / f"{key}.json")
        if (known := self._known(kept, key)) is not None:
            return known
        try:
            for path in kept:
                path.parent.mkdir(parents=True, exist_ok=True)
            # Who shares the cache and wants the same result waits for it.
            with FileLock(kept[-1].with_suffix(".lock")):
                if (known := self._known(kept, key)) is not None:
                    return known
                attempt = _new_folder(work)
                begin = time.perf_counter()
                measured = self._attempt(attempt, parameters)
                seconds = time.perf_counter() - begin
                result = Result(key, list(self.command), self.versions, dict(parameters), measured, seconds)
                for path in kept:
                    keep(result, path)
        except (OSError, NotImplementedError) as error:
            raise InfrastructureError(f"{type(error).__name__}: {error}") from error
        return self._measurement(measured, seconds, cached=False)

    def _known(self, kept: Sequence[Path], key: str) -> Measurement | None:
        for path in kept:
            found = find(path, key)
            if found is not None and not _why_unusable(found.measured, self.outputs):
                for other in kept:  # a result of the cache is this campaign's too, and the reverse
                    if not other.exists():
                        with suppress(OSError):
                            other.parent.mkdir(parents=True, exist_ok=True)
                            keep(found, other)
                return self._measurement(found.measured, found.seconds, cached=True)
        return None

    def _measurement(self, measured: dict[str, Json], seconds: float, *, cached: bool) -> Measurement:
        values = {name: float(measured[name]) for name in self.outputs}
        metrics = {name: _finite(value) for name, value in measured.items() if name not in values}
        return Measurement(values, metrics, cached=cached, seconds=seconds)

    def _attempt(self, folder: Path, parameters: Mapping[str, Value]) -> dict[str, Json]:
        files = {"parameters": folder / "parameters.json", "metrics": folder / "metrics.json"}
        arguments = [_fill(text, parameters, {**files, "folder": folder}) for text in self.command]
        files["parameters"].write_text(f"{json.dumps(dict(parameters), indent=2)}\n", encoding="utf-8")
        environment = {f"DSE_{name.upper()}": str(path) for name, path in files.items()}
        log = folder / "log.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  the user's own command, without a shell
                arguments,
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        try:
            status = process.wait(self.time_limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            message = f"the program exceeded its time limit of {self.time_limit_s:g} s{last_line(log)}"
            raise self._timeout_error(message) from None
        finally:
            _kill_group(process)  # whatever it left behind, or itself after an interrupt
            process.wait()
        _check_status(status, log)
        measured = _read_metrics(files["metrics"], log)
        if reason := _why_unusable(measured, self.outputs):
            raise ProgramFailed(reason)
        return measured

    @property
    def _timeout_error(self) -> Callable[[str], Exception]:
        return InfrastructureError if self.timeout == "infrastructure" else ProgramFailed


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _new_folder(work: Path) -> Path:
    """Next free ``attempt-N``: nothing of an earlier attempt, dead or alive, can be taken for a result."""
    number = 1
    while True:
        attempt = work / f"attempt-{number}"
        try:
            attempt.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return attempt


def _fill(text: str, parameters: Mapping[str, Value], paths: Mapping[str, Path]) -> str:
    def replacement(match: re.Match[str]) -> str:
        if (name := match[1]) is None:
            return match[0][0]
        if name in paths:
            return str(paths[name])
        if name not in parameters:
            known = ", ".join(f"{{{each}}}" for each in [*paths, *parameters])
            raise SetupError(f"a placeholder of the command must be one of {known}, got {{{name}}}")
        value = parameters[name]
        return value if isinstance(value, str) else json.dumps(value)

    return _PLACEHOLDER.sub(replacement, text)


def _kill_group(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill_group(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)


def _check_status(status: int, log: Path) -> None:
    if status == 0:
        return
    number = -status if status < 0 else status - 128  # a shell reports a signal so
    how = f"was ended by signal {-status}" if status < 0 else f"left with status {status}"
    is_outside = status in (os.EX_TEMPFAIL, *_CANNOT_RUN) or number in OUTSIDE
    error: Callable[[str], Exception] = InfrastructureError if is_outside else ProgramFailed
    raise error(f"the program {how}{last_line(log)}")


def _read_metrics(path: Path, log: Path) -> dict[str, Json]:
    if not path.is_file():
        raise ProgramFailed(f"the program wrote no {path.name}{last_line(log)}")
    if (size := path.stat().st_size) > _LONGEST_METRICS:
        raise ProgramFailed(f"{path.name} must be at most {_LONGEST_METRICS} bytes, got {size}")
    try:
        measured = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ProgramFailed(f"{path.name} must be JSON: {error}") from None
    if not isinstance(measured, dict):
        raise ProgramFailed(f"{path.name} must be an object of metrics by name, got {str(measured)[:200]}")
    if "error" in measured:
        raise ProgramFailed(str(measured["error"]))
    return measured


def _why_unusable(measured: Mapping[str, Json], outputs: Sequence[str]) -> str | None:
    for name in outputs:
        if name not in measured:
            return f"the metrics lack {name}; they have {', '.join(measured) or 'nothing'}"
        value = measured[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            return f"{name} must be a finite number, got {str(value)[:200]}"
    return None


def _finite(value: Json) -> Json:
    """Metrics with ``None`` for what JSON has no number for."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value
