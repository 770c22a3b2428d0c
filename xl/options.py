"""Options that several command lines have."""

from typing import Annotated

import typer

Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        help="A running Ray cluster, which a submitted job knows by itself; by default Ray is started here for this alone.",
    ),
]
