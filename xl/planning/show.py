"""An estimate and a simulation as tables. No number stands without what it is made of."""

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from xl.planning.calibration import Figure
from xl.planning.estimate import Estimate, PassEstimate
from xl.planning.simulate import Outcome

_COUNTS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k"))
"""A unit for numbers from that size on. Thousands are written out up to 10,000."""

_TIMES = ((172_800.0, 86_400.0, " d"), (3_600.0, 3_600.0, " h"), (60.0, 60.0, " min"), (0.0, 1.0, " s"))
"""From how many seconds on, in how many, called what."""


def amount(value: float) -> str:
    """A count as a person reads it: `9,345`, `12.3 k`, `1.23 M`."""
    for size, unit in _COUNTS:
        if abs(value) >= size:
            return f"{value / min(size, 1e3) if unit == ' k' else value / size:.3g}{unit}"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"


def dollars(value: float) -> str:
    """US dollars."""
    return f"${value:,.2f}" if value < 100 else f"${value:,.0f}"


def duration(seconds: float) -> str:
    """A time with its unit: `12 s`, `5.2 min`, `20.8 h`, `3.4 d`."""
    scale, unit = next((scale, unit) for least, scale, unit in _TIMES if seconds >= least)
    return f"{seconds / scale:.3g}{unit}"


def figure(found: Figure | None, show: Callable[[float], str] = amount) -> str:
    """An estimate, and on a second line its interval; no interval for what is given, or of whose spread nothing is known."""
    if found is None:
        return "–"
    if found.low is None or found.high is None or found.low == found.high:
        return show(found.value)
    return f"{show(found.value)}\n[{show(found.low)}, {show(found.high)}]"


def print_estimate(found: Estimate, console: Console) -> None:
    """Pass by pass, then what the numbers are made of."""
    console.print(f"\npages: {figure(found.num_pages).replace(chr(10), ' ')}, {found.source}", highlight=False, markup=False)
    table = Table(title="estimate; intervals are 95 %", title_justify="left", header_style="bold")
    table.add_column("pass")
    for heading in ("rows in", "kept", "tokens in", "tokens out", "GPU hours", "CPU hours", "time", "cost"):
        table.add_column(heading, justify="right")
    for each in found.passes:
        table.add_row(*_row(each))
    if training := found.training:
        cells = (figure(training.rows), "", figure(training.tokens), "", figure(training.gpu_hours), figure(training.cpu_hours))
        table.add_row("training", *cells, figure(training.seconds, duration), figure(training.cost, dollars))
    for part in found.parts:
        table.add_row(part.name, amount(part.num_rows), "", "", "", "", "", duration(part.seconds), "")
    table.add_row("all", "", "", "", "", "", "", duration(found.seconds), dollars(found.cost) if found.cost is not None else "–")
    console.print(table, markup=False)
    for each in found.passes:
        console.print(_origin(each), highlight=False, markup=False)
    if training := found.training:
        rate = figure(training.tokens_per_second).replace("\n", " ")
        console.print(
            f"training: {rate} tokens/s, the median of {training.measured_steps} steps of the calibration", highlight=False, markup=False
        )
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def _row(each: PassEstimate) -> tuple[str, ...]:
    prompt, output = _sum(each.prompt_tokens), _sum(each.output_tokens)
    gpu_hours = figure(each.gpu_hours) if each.workers.gpus else ""
    return (
        each.name,
        figure(each.rows_in),
        figure(each.rows_out),
        figure(prompt) if prompt else "",
        figure(output) if output else "",
        gpu_hours,
        figure(each.cpu_hours) if each.workers.cpus else "",
        figure(each.seconds, duration),
        figure(each.cost, dollars),
    )


def _sum(tokens: Mapping[str, Figure]) -> Figure | None:
    figures = list(tokens.values())
    if not figures:
        return None
    lows, highs = [f.low for f in figures if f.low is not None], [f.high for f in figures if f.high is not None]
    is_whole = len(lows) == len(highs) == len(figures)
    first = figures[0]
    value = sum(f.value for f in figures)
    return Figure(value, sum(lows) if is_whole else None, sum(highs) if is_whole else None, first.num_rows, first.num_shards)


def _origin(each: PassEstimate) -> str:
    """What a pass's numbers are made of."""
    is_engine = each.kind == "engines"
    worker = "engine" if is_engine else "endpoint" if each.kind == "endpoint" else "CPU"
    prompt, output, tokens = _sum(each.prompt_tokens), _sum(each.output_tokens), ""
    if prompt and output:
        per_row = each.rows_per_second / max(1.0, each.rows_in.value)
        tokens = f", {prompt.value * per_row:,.0f} prompt and {output.value * per_row:,.0f} output tokens/s"
    plural = "" if each.measured_workers == 1 else "s"
    measured = f"{each.measured_rows:,} rows in {duration(each.measured_seconds)} on {each.measured_workers:g} {worker}{plural}"
    at_work = f"{each.workers.count:,} {worker}{'' if each.workers.count == 1 else 's'}"
    nodes = ", ".join(f"{count} × {name}" for name, count in each.workers.nodes.items() if count)
    where = f" ({nodes})" if nodes else ""
    asked = f", asks {each.model}" if each.model else ""
    return f"{each.name}{asked}: {amount(each.rows_per_second)} rows/s{tokens} for each {worker}, from {measured}; here {at_work}{where}"


def print_simulation(found: Outcome, cost: float | None, console: Console) -> None:
    """What the simulation found."""
    table = Table(title="simulation; shares are of each pass's time", title_justify="left", header_style="bold")
    table.add_column("pass")
    for heading in ("rows", "time", "executions", "workers busy", "driver busy", "sealing", "one works for all", "redone rows"):
        table.add_column(heading, justify="right")
    table.add_column("held up by")
    for each in found.passes:
        shares = (each.worker_busy_ratio, each.driver_busy_ratio, each.sealing_busy_ratio, each.alone_ratio)
        cells = (amount(each.num_rows), duration(each.seconds), f"{each.num_executions:,}", *(f"{share:.0%}" for share in shares))
        table.add_row(each.name, *cells, amount(each.num_redone_rows), each.bottleneck)
    console.print(table, markup=False)
    busy = "" if found.engine_busy_ratio is None else f", of which engines were busy {found.engine_busy_ratio:.0%}"
    hours = ", ".join(f"{name} {amount(value)}" for name, value in found.node_hours.items())
    price = dollars(cost) if cost is not None else "no cost: a price is missing"
    peaks = {change.group: max(c.num_paid for c in found.timeline if c.group == change.group) for change in found.timeline}
    nodes = ", ".join(f"{name} {count}" for name, count in peaks.items())
    lines = (
        f"pages to dataset: {duration(found.seconds)}; held up by {found.bottleneck}; {price}",
        f"node hours paid for: {hours}; GPU hours {amount(found.gpu_hours)}{busy}",
        f"most nodes at once: {nodes}; lost {found.num_lost_nodes:,}, with {amount(found.num_redone_rows)} rows done again",
        "followed in units of " + ", ".join(f"{rows} rows ({name})" for name, rows in found.rows_per_unit.items()),
    )
    for line in lines:
        console.print(line, highlight=False, markup=False)
