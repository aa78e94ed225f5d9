"""The commands ``bitfront campaign``, ``bitfront runs`` and ``bitfront report``."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import click

from studies.refusal import check_folder, refuse

WORKERS = 2  #: evaluations at a time, unless a number is given


@click.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option(
    "--table", type=click.Path(path_type=Path), help="CSV file of measured designs, in place of CONFIG."
)
@click.option("--objectives", help="Of the table: time:min,throughput:max; min if nothing is said.")
@click.option(
    "--columns", help="Parameters of the table: a,b,c; those that begin with knob_ by default, or all others."
)
@click.option("--features", help="Columns of the table that are known before a design is measured: a,b.")
@click.option("--valid", metavar="COLUMN", help="Column of 0 and 1: whether a row of the table has a result.")
@click.option("--method", help="auto, qlognehvi, qlognparego, predict, nsga2, tpe, sobol or random.")
@click.option("--seed", type=int, help="Of the search.")
@click.option("--budget", type=int, help="Evaluations in all; a larger one goes on with a finished campaign.")
@click.option(
    "--transfer",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Run folder or CSV file of an earlier campaign to learn from, repeatable.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder or file of the data that a co-design campaign trains on, in place of that in CONFIG.",
)
@click.option(
    "--executor", default="local", show_default=True, help="local, dask, or the address of a Dask scheduler."
)
@click.option(
    "--run",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder; runs/<name of CONFIG> by default. An interrupted run goes on there.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Evaluations at a time: 2 if nothing is said, or as many as the Dask scheduler has threads for. In "
    "a co-design campaign, processes that train replicates.",
)
@click.option("--report/--no-report", default=True, show_default=True, help="Write report.html at the end.")
def campaign(
    config: Path | None,
    table: Path | None,
    objectives: str | None,
    columns: str | None,
    features: str | None,
    valid: str | None,
    method: str | None,
    seed: int | None,
    budget: int | None,
    transfer: tuple[Path, ...],
    data: Path | None,
    executor: str,
    folder: Path | None,
    workers: int | None,
    report: bool,
) -> None:
    """Search a design space for its Pareto front with few evaluations.

    CONFIG is a TOML file: of an outside program that evaluates designs, of a table of designs, or of formats,
    accumulator and accelerator together, such as studies/configs/digits.toml. With --table no file is needed.
    The run folder gets campaign.sqlite (every evaluation), the evaluations as a table, config.toml and
    report.html.
    """
    from studies.config import ConfigError

    if (config is None) == (table is None):
        refuse("campaign: give either CONFIG or --table FILE.csv")
    if budget is not None and budget < 1:
        refuse(f"--budget: must be at least 1, got {budget}")
    if seed is not None and not 0 <= seed < 2**31:
        refuse(f"--seed: must be in 0..{2**31 - 1}, got {seed}")
    of_table = {"--objectives": objectives, "--columns": columns, "--features": features, "--valid": valid}
    if table is None and (stray := next((name for name, value in of_table.items() if value), None)):
        refuse(f"{stray}: belongs to --table; a CONFIG says so itself")
    changes = {"method": method, "seed": seed, "budget": budget}
    changes = {key: value for key, value in changes.items() if value is not None}
    source = table if config is None else config
    assert source is not None
    folder = folder or Path("runs") / source.stem
    try:
        if config is not None and _is_codesign(config):
            if executor != "local":
                refuse(f"--executor: is for tables and outside programs, {config} is a co-design campaign")
            given = changes if data is None else {**changes, "data": data}
            _codesign(config, folder, given, transfer, workers or WORKERS)
        elif data is not None:
            refuse(f"--data: is for co-design campaigns, {source} says itself where its designs are")
        else:
            settings = _settings(config, table, of_table)
            _generic(settings, source, folder, changes, transfer, executor, workers, report)
    except ConfigError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename or folder}: {error.strerror or error}")
    except KeyboardInterrupt:
        click.echo("\ninterrupted: nothing finished is lost, the same command goes on", err=True)
        sys.exit(130)


def _is_codesign(config: Path) -> bool:
    """Whether a file is of a co-design campaign; one that cannot be read is refused when it is loaded."""
    try:
        data = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False
    return "program" not in data and "table" not in data and ("training" in data or "space" in data)


def _codesign(
    config: Path, folder: Path, changes: dict[str, Any], transfer: tuple[Path, ...], workers: int
) -> None:
    from dse import CampaignLocked, StoreError
    from studies.codesign.campaign import run
    from studies.codesign.config import CampaignConfig, changed
    from studies.codesign.progress import Progress
    from studies.codesign.report import write_report
    from studies.codesign.transfer import transfer_of
    from studies.config import ConfigError, load

    settings = changed(load(config, CampaignConfig), changes)
    sources = transfer_of(transfer, settings)
    try:
        with Progress(settings) as progress:
            try:
                result = run(settings, folder, workers=workers, watcher=progress, transfer=sources)
                progress.stage("writing the report")
                write_report(result, folder / "report.html")
            except ConfigError as error:
                raise ConfigError(f"{config}: {error}") from None
        progress.finish(result, folder)
    except (CampaignLocked, StoreError) as error:
        refuse(str(error))


def _settings(config: Path | None, table: Path | None, options: dict[str, str | None]) -> Any:
    """Configuration of a campaign on a table or a program, from its file or from the options."""
    from studies.campaigns.config import CampaignFile, SourceTable, parse_objectives
    from studies.campaigns.problem import load_problem_file
    from studies.config import ConfigError

    if config is not None:
        return load_problem_file(config)
    assert table is not None
    if not options["--objectives"]:
        raise ConfigError("--objectives: is needed with --table, such as time:min,area:min")
    try:
        wanted = parse_objectives(options["--objectives"])
    except ValueError as error:
        raise ConfigError(f"--objectives: {error}") from None
    columns = options["--columns"]
    return CampaignFile(
        table=SourceTable(
            file=str(table.absolute()),
            columns=None if columns is None else _names("--columns", columns),
            features=_names("--features", options["--features"] or ""),
            valid=options["--valid"],
        ),
        objectives=wanted,
    )


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else []
    if "" in names:
        refuse(f"{option}: must be names with commas between them, got {text!r}")
    return names


def _generic(
    settings: Any,
    source: Path,
    folder: Path,
    changes: dict[str, Any],
    transfer: tuple[Path, ...],
    executor: str,
    workers: int | None,
    report: bool,
) -> None:
    from dse import CampaignLocked, StoreError
    from dse.executors import InfrastructureDown, SetupError
    from dse.space import ConstraintError
    from studies.campaigns.config import known_method
    from studies.campaigns.expressions import ExpressionError
    from studies.campaigns.problem import problem_of, sources_of, transfer_of
    from studies.campaigns.progress import Progress
    from studies.campaigns.report import write_report
    from studies.campaigns.run import EXECUTORS, Options, run_campaign
    from studies.config import ConfigError
    from studies.console import new_console

    try:
        method = known_method(changes.get("method", settings.method))
    except ValueError as error:
        raise ConfigError(f"--method: {error}") from None
    problem = problem_of(settings, source, folder)
    options = Options(
        seed=changes.get("seed", settings.seed),
        budget=changes.get("budget", settings.budget),
        method=method,
        initial=settings.initial,
        executor=executor,
        workers=workers or (None if executor not in EXECUTORS else WORKERS),
        transfer=sources_of(transfer or transfer_of(settings, source, folder), problem),
    )
    out = new_console()
    progress = Progress(out)
    try:
        found = run_campaign(problem, folder, options, progress)
    except (ConstraintError, ExpressionError) as error:  # a design for which the file says nothing sensible
        refuse(f"{source}: {error}")
    except (CampaignLocked, StoreError, SetupError, InfrastructureDown) as error:
        refuse(str(error))
    files = [folder / name for name in ("campaign.sqlite", "evaluations.csv", "config.toml")]
    if report:
        write_report(found, folder / "report.html")
        files.insert(0, folder / "report.html")
    progress.finish(found, files)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
def runs(folder: Path) -> None:
    """List the campaigns in the run folders of FOLDER: method, trials, front, hypervolume, when."""
    from studies.campaigns.listing import show_runs
    from studies.campaigns.runs import RunError
    from studies.console import new_console

    try:
        show_runs(folder, new_console())
    except RunError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename or folder}: {error.strerror or error}")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page; report.html in RUN by default, exploration.html in that of a co-design campaign.",
)
@click.option(
    "--optuna",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a database that Optuna and its dashboard open, in place of the page.",
)
def report(run: Path, html: Path | None, optuna: Path | None) -> None:
    """Write the page of the campaign in the run folder RUN, finished or not.

    Front, hypervolume, how well a model predicts the trials, which parameters matter, parallel coordinates,
    slices, and a table in which to choose a design.
    """
    from studies.campaigns.runs import RunError, read_run

    for path in (html, optuna):
        check_folder(path)
    try:
        found = read_run(run)
        if optuna is not None:
            from studies.campaigns.optuna_export import export

            count = export(found, optuna)
            click.echo(f"{count} trials in {optuna}: optuna-dashboard sqlite:///{optuna}")
        if html is not None or optuna is None:
            from studies.campaigns.report import write_report

            # A co-design campaign has a page of its own, which stays.
            own = _is_codesign(found.folder / "config.toml")
            html = html or found.folder / ("exploration.html" if own else "report.html")
            write_report(found, html)
            click.echo(f"{html}")
    except RunError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename or run}: {error.strerror or error}")
