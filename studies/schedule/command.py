"""``bitfront schedule``; heavy imports sit inside, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from studies.refusal import check_folder, refuse


@click.command()
@click.argument("model")
@click.option("--scratchpad", help="Size to look at closely: 512KiB, 2MiB, 702464.")
@click.option("--sweep", help="More sizes: FROM:TO:xFACTOR, FROM:TO:+STEP, or A,B,C.")
@click.option(
    "--mode",
    type=click.Choice(["atomic", "streamed"]),
    default="atomic",
    show_default=True,
    help="Whether operators hold all their tensors, or stream what does not stay.",
)
@click.option(
    "--order",
    type=click.Choice(["free", "given"]),
    help="Whether operators may change places; free if atomic, given if streamed.",
)
@click.option(
    "--weights",
    type=click.Choice(["streamed", "tracked", "resident"]),
    help="What becomes of parameters; streamed, and tracked with --training.",
)
@click.option(
    "--backend",
    default="search",
    show_default=True,
    help="search, cp-sat, highs, or package.module:function for another solver.",
)
@click.option(
    "--time-limit", "time_limit_s", type=float, default=60.0, show_default=True, help="Seconds per size."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--alignment", type=int, default=1, show_default=True, help="Of addresses, in bytes.")
@click.option("--tile-reserve", help="Part of the scratchpad for streamed tiles, in streamed mode.")
@click.option("--training", is_flag=True, help="A whole training step in place of an inference pass.")
@click.option(
    "--batch", type=click.IntRange(min=1), help="Samples; 256 with --training, else 1 or what the file says."
)
@click.option("--tokens", type=click.IntRange(min=1), help="New positions of a causal transformer.")
@click.option("--context", type=click.IntRange(min=1), help="Positions in its cache of keys and values.")
@click.option(
    "--fuse",
    type=click.Choice(["elementwise", "compiler", "none"]),
    help="What joins the operator before it: all element-wise ones, what a compiler joins, or nothing.",
)
@click.option("--format", "format_text", help="Of all tensors, such as int8; by default as MODEL says.")
@click.option(
    "--formats",
    "formats_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML table of formats by role, name or pattern; all others as by --format.",
)
@click.option(
    "--input-shape", "shapes", multiple=True, help="Of a module, without the batch: 3,224,224, 128:int64."
)
@click.option("--dim", "dims", multiple=True, help="Unknown size in an ONNX graph, name=size.")
@click.option("--top", type=click.IntRange(min=0), default=12, show_default=True, help="Tensors listed.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all of it.")
@click.option(
    "--html", "html_path", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with plots."
)
def schedule(
    model: str,
    scratchpad: str | None,
    sweep: str | None,
    mode: Literal["atomic", "streamed"],
    order: Literal["free", "given"] | None,
    weights: Literal["streamed", "tracked", "resident"] | None,
    backend: str,
    time_limit_s: float,
    seed: int,
    alignment: int,
    tile_reserve: str | None,
    training: bool,
    batch: int | None,
    tokens: int | None,
    context: int | None,
    fuse: Literal["elementwise", "compiler", "none"] | None,
    format_text: str | None,
    formats_path: Path | None,
    shapes: tuple[str, ...],
    dims: tuple[str, ...],
    top: int,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Find the schedule of MODEL that moves the fewest avoidable bytes on a scratchpad.

    Order of operators, what stays in the scratchpad, and every address are chosen together. MODEL is a
    name (resnet50, gpt2-small, zoo:vgg19, ...), package.module:callable, which returns a PyTorch module,
    an ONNX file, a graph in JSON or a list of matrix products in TOML.
    """
    from studies.model import Model
    from studies.predict.source import parse_dim, parse_input
    from studies.schedule.files import write_json
    from studies.schedule.report import write_report
    from studies.schedule.run import Request, answer
    from studies.schedule.sizes import parse_size, parse_sweep
    from studies.schedule.terminal import Watch, show

    for path in (json_path, html_path):
        check_folder(path)
    if json_path is not None and html_path is not None and json_path.resolve() == html_path.resolve():
        refuse(f"--json and --html must name two files, got {json_path} for both")
    try:
        request = Request(
            model=Model(
                text=model,
                training=training,
                batch=batch,
                tokens=tokens,
                context=context,
                fuse=fuse or ("compiler" if training else "elementwise"),
                inputs=tuple(parse_input(text) for text in shapes),
                dims=dict(parse_dim(text) for text in dims),
            ),
            scratchpad_bytes=None if scratchpad is None else parse_size(scratchpad),
            sweep=() if sweep is None else parse_sweep(sweep),
            mode=mode,
            order=order,
            weights=weights,
            backend=backend,
            time_limit_s=time_limit_s,
            seed=seed,
            alignment=alignment,
            tile_reserve_bytes=0 if tile_reserve is None else parse_size(tile_reserve),
            format=format_text,
            formats=formats_path,
        )
        with Watch() as watch:
            found = answer(request, watcher=watch)
        if json_path:
            write_json(found, json_path)
        if html_path:
            write_report(found, html_path)
        show(found, top=top)
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except (TypeError, ValueError) as error:
        refuse(str(error))
