"""The command line. Heavy imports sit inside the commands, so that help is instant."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import click

from studies.allocation.command import allocate
from studies.campaigns.command import campaign, report, runs
from studies.refusal import check_folder, refuse
from studies.schedule.command import schedule


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("bitfront"), prog_name="bitfront")
def main() -> None:
    """From bits to Pareto fronts: low-precision training, accelerator cost, schedules and search."""


for command in (allocate, campaign, runs, report, schedule):
    main.add_command(command)


@main.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option(
    "--run",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder; runs/<name of STUDY> by default. An interrupted study goes on there.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Processes that train in parallel; results do not depend on it.",
)
@click.option("--force", is_flag=True, help="Replace another study that the run folder holds.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder or file of the data, in place of that in STUDY."
)
def train(study: Path, folder: Path | None, workers: int, force: bool, data: Path | None) -> None:
    """Train a network under several policies, beside its full-precision twin.

    STUDY is a TOML file such as studies/configs/digits-precision.toml: a task, policies or sweeps of
    them, and seeds. The run folder gets every run's curve, outcome and weights, table.parquet,
    table.csv, config.toml and report.html.
    """
    from studies.config import ConfigError
    from studies.precision.files import FolderError
    from studies.precision.progress import Progress
    from studies.precision.run import run
    from studies.precision.study import Study
    from studies.replicas import WorkerLostError

    folder = folder or Path("runs") / study.stem
    try:
        settings = Study.from_toml(study, data=data)
        with Progress(settings.steps, settings.task.metric.name) as progress:
            try:
                result = run(settings, folder, workers=workers, force=force, watcher=progress)
            except ConfigError as error:
                raise ConfigError("\n".join(f"{study}: {line}" for line in str(error).splitlines())) from None
            progress.stage("writing the report")
            _write_study_report(folder)
        progress.finish(result)
    except (ConfigError, FolderError, WorkerLostError) as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename or folder}: {error.strerror or error}")
    except KeyboardInterrupt:
        click.echo("\ninterrupted: nothing saved is lost, the same command goes on", err=True)
        with suppress(FolderError, OSError, KeyboardInterrupt):  # if there is anything to show by now
            click.echo(f"what is finished so far: {_write_study_report(folder)}", err=True)
        sys.exit(130)


def _write_study_report(folder: Path) -> Path:
    from studies.precision.report import write_report

    return write_report(folder)


@main.command()
@click.argument("design", type=click.Path(path_type=Path))
@click.argument("model")
@click.option("--training", is_flag=True, help="A whole training step in place of an inference pass.")
@click.option(
    "--batch", type=click.IntRange(min=1), help="Samples; 256 with --training, else 1 or what the file says."
)
@click.option("--tokens", type=click.IntRange(min=1), help="New positions of a causal transformer.")
@click.option(
    "--context", type=click.IntRange(min=1), help="Positions in its cache of keys and values: decoding."
)
@click.option(
    "--format",
    "format_text",
    help="Of all stored tensors; that of the design's operands if not given, 'own' for those of the file.",
)
@click.option(
    "--formats",
    "formats_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML table of formats of stored tensors by role, name or pattern; all others as by --format.",
)
@click.option(
    "--objective",
    type=click.Choice(["balanced", "offchip", "energy", "cycles", "edp"]),
    default="balanced",
    show_default=True,
    help="What the mapping of each layer is best in.",
)
@click.option("--compare", type=click.Path(path_type=Path), multiple=True, help="Another design, repeatable.")
@click.option(
    "--by",
    type=click.Choice(["component", "level", "operand", "operator", "phase", "kind"]),
    multiple=True,
    help="Print these tables alone, repeatable.",
)
@click.option(
    "--top", type=click.IntRange(min=0), default=12, show_default=True, help="Layers that are listed."
)
@click.option(
    "--sensitivity/--no-sensitivity",
    default=True,
    show_default=True,
    help="Change each parameter of DESIGN in turn.",
)
@click.option(
    "--input-shape", "shapes", multiple=True, help="Of a module, without the batch: 3,224,224, 128:int64."
)
@click.option("--dim", "dims", multiple=True, help="Unknown size in an ONNX graph, name=size.")
@click.option("--csv", "csv_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the layers.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all tables."
)
@click.option(
    "--html", "html_path", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with plots."
)
def cost(
    design: Path,
    model: str,
    training: bool,
    batch: int | None,
    tokens: int | None,
    context: int | None,
    format_text: str | None,
    formats_path: Path | None,
    objective: Literal["balanced", "offchip", "energy", "cycles", "edp"],
    compare: tuple[Path, ...],
    by: tuple[Literal["component", "level", "operand", "operator", "phase", "kind"], ...],
    top: int,
    sensitivity: bool,
    shapes: tuple[str, ...],
    dims: tuple[str, ...],
    csv_path: Path | None,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Compute energy, time, traffic and area of MODEL on the accelerator in DESIGN.

    DESIGN is a TOML file such as studies/configs/designs/edge-fp8.toml. MODEL is a name (resnet50,
    gpt2-small, zoo:vgg19, ...), package.module:callable, which returns a PyTorch module, an ONNX file, a
    graph in JSON or a list of matrix products in TOML. Every layer gets the best mapping that there is.
    """
    from studies.cost.files import write_csv, write_json
    from studies.cost.report import write_report
    from studies.cost.run import Request, answer
    from studies.cost.terminal import show
    from studies.model import Model
    from studies.predict.source import parse_dim, parse_input

    for path in (csv_path, json_path, html_path):
        check_folder(path)
    try:
        found = answer(
            Request(
                designs=(design, *compare),
                model=Model(
                    text=model,
                    training=training,
                    batch=batch,
                    tokens=tokens,
                    context=context,
                    inputs=tuple(parse_input(text) for text in shapes),
                    dims=dict(parse_dim(text) for text in dims),
                ),
                format=format_text,
                formats=formats_path,
                objective=objective,
                sensitivity=sensitivity and (not by or bool(json_path or html_path)),
            )
        )
        if found.designs[0].cost.feasible:
            if csv_path:
                write_csv(found, csv_path)
            if json_path:
                write_json(found, json_path)
            if html_path:
                write_report(found, html_path)
            show(found, by=by, top=top)
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ValueError as error:
        refuse(str(error))
    if found.infeasible:
        refuse("\n".join(found.infeasible))


@main.command()
@click.argument("cell", nargs=-1, required=True)
@click.option("--node", "node_nm", type=int, default=45, show_default=True, help="Technology node in nm.")
@click.option(
    "--library", "tables", type=click.Path(path_type=Path), help="TOML file of constants in place of ours."
)
def mac(cell: tuple[str, ...], node_nm: int, tables: Path | None) -> None:
    """Area, energy and delay of a multiply-accumulate cell.

    CELL is two operands and an accumulator, such as e4m3xe4m3+e6m9, int8xint8+int32, mxfp4xmxfp4+fp32 or
    e4m3 x e4m3 + hopper-fp8.
    """
    from accel.hardware.library import DEFAULT, Library
    from studies.mac import describe

    try:
        library = DEFAULT if tables is None else Library.from_toml(tables)
        click.echo("\n".join(describe(" ".join(cell), node_nm, library=library)))
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{tables}: {error.strerror or error}")


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
        refuse(f"value must be a number, got {value!r}")
    try:
        click.echo("\n".join(explained(number, format_text, rounding=rounding, seed=seed).lines()))
    except ValueError as error:
        refuse(str(error))


@main.command()
@click.argument("model")
@click.option("--batch", type=click.IntRange(min=1), default=256, show_default=True, help="Samples per step.")
@click.option(
    "--input", "operands", default="e5m2", show_default=True, help="Operands: e5m2, 'e4m3fn x e5m2'."
)
@click.option("--chunk", type=int, default=64, show_default=True, help="Products summed first.")
@click.option("--rounding", default="nearest-even", show_default=True, help="Of the accumulators.")
@click.option(
    "--tolerance", type=float, help="Relative square error; what rounding the operands adds, if not given."
)
@click.option("--density", help="'measured', a number in (0, 1], or a CSV file: layer, gemm, density.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Samples of a module: .npz (inputs, labels) or .npy."
)
@click.option(
    "--input-shape", "shapes", multiple=True, help="Of a module, without the batch: 3,224,224, 128:int64."
)
@click.option("--dim", "dims", multiple=True, help="Unknown size in an ONNX graph, name=size.")
@click.option(
    "--verify", type=click.IntRange(min=0), default=0, help="Emulate the N most demanding products."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is sampled.")
@click.option("--csv", "csv_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the table.")
@click.option(
    "--html", "html_path", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with plots."
)
def predict(
    model: str,
    batch: int,
    operands: str,
    chunk: int,
    rounding: str,
    tolerance: float | None,
    density: str | None,
    data: Path | None,
    shapes: tuple[str, ...],
    dims: tuple[str, ...],
    verify: int,
    seed: int,
    csv_path: Path | None,
    html_path: Path | None,
) -> None:
    """Predict how many bits the accumulators of a network need to train it.

    MODEL is an ONNX file, a name (digits-cnn, resnet18, gpt2-small, zoo:resnet50, ...) or
    package.module:callable, which returns a PyTorch module. For each product of each layer: the sum's
    length, and fraction bits by theory and by calibrated emulation, plain and in chunks.
    """
    from studies.predict.bits import Arithmetic, parse_operands
    from studies.predict.report import show, write_report
    from studies.predict.run import Request, answer, write_csv
    from studies.predict.source import parse_dim, parse_input

    for path in (csv_path, html_path):
        check_folder(path)
    try:
        request = Request(
            model=model,
            arithmetic=Arithmetic(
                operands=parse_operands(operands), chunk=chunk, rounding=rounding, tolerance=tolerance
            ),
            batch=batch,
            inputs=tuple(parse_input(text) for text in shapes),
            dims=dict(parse_dim(text) for text in dims),
            density=density,
            data=data,
            verify=verify,
            seed=seed,
        )
        prediction = answer(request)
        show(prediction)
        if csv_path:
            write_csv(prediction.table, csv_path)
        if html_path:
            write_report(prediction, html_path)
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ValueError as error:
        refuse(str(error))


@main.command()
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with plots.")
@click.option("--csv", type=click.Path(dir_okay=False, path_type=Path), help="Write the table.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the order of samples."
)
def svm(html: Path | None, csv: Path | None, seed: int) -> None:
    """Sweep the bits of a support vector machine that learns online, and price each design.

    Trains every design bit-true on scikit-learn's breast cancer data, beside the bounds of arXiv
    1607.00669. About ten seconds.
    """
    from studies.online_svm import Config, run, write_report

    for path in (csv, html):
        check_folder(path)
    result = run(Config(seed=seed))
    click.echo("\n".join(result.lines()))
    try:
        if csv is not None:
            result.table.to_csv(csv, index=False)
        if html is not None:
            write_report(result, html)
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror or error}")


@main.command()
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with plots.")
@click.option("--csv", type=click.Path(dir_okay=False, path_type=Path), help="Write the table.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of terms and rounding."
)
def swamping(html: Path | None, csv: Path | None, seed: int) -> None:
    """Show where a long sum in (1,6,9) stands still, and what chunks and stochastic rounding do about it.

    Sums up to 131072 terms of mean 1 bit-true, plain, in chunks of 32, stochastically and in float32, and
    the error of sums of 16384 terms for every size of a chunk. About ten seconds.
    """
    from studies.swamping import Config, lines, run, write_report

    for path in (csv, html):
        check_folder(path)
    config = Config(seed=seed)
    table = run(config)
    click.echo("\n".join(lines(table)))
    try:
        if csv is not None:
            table.to_csv(csv, index=False)
        if html is not None:
            write_report(table, config, html)
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror or error}")


if __name__ == "__main__":
    main()
