"""The command line. Heavy imports sit inside the commands, so that help is instant."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("bitfront"), prog_name="bitfront")
def main() -> None:
    """From bits to Pareto fronts: low-precision training, accelerator cost, schedules and search."""


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--run",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder; runs/<name of CONFIG> by default. An interrupted run goes on there.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Processes that train replicates in parallel; results do not depend on it.",
)
def campaign(config: Path, folder: Path | None, workers: int) -> None:
    """Search formats, accumulator and accelerator together.

    CONFIG is a TOML file such as studies/configs/digits.toml. The run folder gets campaign.sqlite
    (every evaluation), evaluations.parquet, config.toml and report.html.
    """
    from dse import CampaignLocked, StoreError
    from studies.codesign.campaign import run
    from studies.codesign.config import CampaignConfig
    from studies.codesign.progress import Progress
    from studies.codesign.report import write_report
    from studies.config import ConfigError, load

    folder = folder or Path("runs") / config.stem
    try:
        settings = load(config, CampaignConfig)
        with Progress(settings) as progress:
            try:
                result = run(settings, folder, workers=workers, watcher=progress)
                progress.stage("writing the report")
                write_report(result, folder / "report.html")
            except ConfigError as error:
                raise ConfigError(f"{config}: {error}") from None
        progress.finish(result, folder)
    except (ConfigError, CampaignLocked, StoreError) as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"{folder}: {error.strerror or error}")
    except KeyboardInterrupt:
        click.echo("\ninterrupted: nothing finished is lost, the same command goes on", err=True)
        sys.exit(130)


@main.command()
def doctor() -> None:
    """Print versions, cores, vector width and threading, and warn of packages in the way."""
    from studies.doctor import findings, warnings

    for name, value in findings().items():
        click.echo(f"{name:<18} {value}")
    for line in warnings():
        click.secho(f"warning: {line}", fg="yellow", err=True)


@main.command()
def formats() -> None:
    """Print the named formats with their limits."""
    from studies.explain import format_table

    click.echo("\n".join(format_table()))


@main.command(context_settings={"ignore_unknown_options": True})  # -3 is a value
@click.argument("value")
@click.option("--format", "format_text", required=True, help="Such as e4m3fn, e6m9, s3.4, binary8p4.")
@click.option("--rounding", default="nearest-even", show_default=True)
@click.option("--seed", type=int, help="Of stochastic rounding.")
def explain(value: str, format_text: str, rounding: str, seed: int | None) -> None:
    """Show how VALUE is rounded: neighbours, codes, tie, result, errors."""
    from studies.explain import explain as explained

    try:
        number = float(value)
    except ValueError:
        _refuse(f"value must be a number, got {value!r}")
    try:
        click.echo("\n".join(explained(number, format_text, rounding=rounding, seed=seed).lines()))
    except ValueError as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    """End with one line per error and exit code 2, as for a wrong option."""
    for line in message.splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
