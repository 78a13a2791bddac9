"""The figures as a table for the terminal and as the page that is committed."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("trainer", "run-updates/s", "min to max", "on the clock", "GFLOP/s", "of peak", "× plain", "× d3rlpy")


def cells(row: dict[str, Any]) -> list[str]:
    """Return a trainer's row of the table."""
    beside = "—" if row["times_d3rlpy"] is None else f"{row['times_d3rlpy']:.2f}"
    return [
        row["name"],
        f"{row['rate']:.0f}",
        f"{row['min']:.0f} to {row['max']:.0f}",
        f"{row['wall_rate']:.0f}",
        f"{row['gflops']:.1f}",
        f"{row['of_peak']:.1%}",
        f"{row['times_plain']:.2f}",
        beside,
    ]


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title=f"Updates of a run, a second of {found['clock']} time; peak {found['peak_gflops']:.1f} GFLOP/s")
    for i, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in found["trainers"]:
        table.add_row(*cells(row))
    Console(width=120).print(table)


def goals(found: dict[str, Any]) -> list[str]:
    """Return what was aimed at beside what was found, and how much the matrix products alone would allow."""
    rows = {row["name"]: row for row in found["trainers"]}
    if found["machine"]["gpu"]:
        return [f"Goal: 20 times the plain loop with 20 runs; found {rows['ours, 20 runs']['times_plain']:.1f}."]
    stack, loop = rows[f"ours, {found['stacked']} runs"], rows["plain loop, 1 run"]
    peer, limit = rows.get("d3rlpy BC, 1 run"), found["products_alone"]["rate"]
    aims = [
        ("of the peak", 0.6, stack["of_peak"], found["products_alone"]["of_peak"]),
        ("times the plain loop", 2, stack["times_plain"], limit / loop["rate"]),
    ]
    if peer:
        aims.append(("times d3rlpy", 5, stack["times_d3rlpy"], limit / peer["rate"]))
    return [
        f"| with {found['stacked']} stacked runs | goal | found | with the products alone |",
        "|---|---:|---:|---:|",
        *(f"| {what} | {aim:g} | {got:#.3g} | {most:#.3g} |" for what, aim, got, most in aims),
    ]


def markdown(found: dict[str, Any]) -> str:
    """Return the page that is committed."""
    here, alone = found["machine"], found["products_alone"]
    where = here["gpu"] or f"{here['processor']}, {here['vectors']}, one thread of {here['cores']} cores"
    lines = [
        "# Speed of small networks",
        "",
        f"{where}; load {here['load']} at the end; Python {here['python']}, torch {here['torch']}, NumPy "
        f"{here['numpy']}, d3rlpy {here['d3rlpy']}. Written by `python benchmarks/speed/mlp.py`.",
        "",
        f"Rates are medians a second of {found['clock']} time, of slots in turns. One update of one run of our network "
        f"takes {found['trainers'][-1]['flops_per_update'] / 1e6:.1f} MFLOP (`timing.flops`). The peak is the "
        f"fastest large product, {found['peak_gflops']:.1f} GFLOP/s. The matrix products of {found['stacked']} runs "
        f"alone, with nothing between them, would make {alone['rate']:.0f} run-updates a second.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" + "|---:" * (len(COLUMNS) - 1) + "|",
        *("| " + " | ".join(cells(row)) + " |" for row in found["trainers"]),
        "",
        *goals(found),
        "",
        "| matrix product | GFLOP/s | of peak |",
        "|---|---:|---:|",
        *(
            f"| {row['name']} | {row['gflops']:.1f} | {row['gflops'] / found['peak_gflops']:.0%} |"
            for row in found["products"]
        ),
    ]
    return "\n".join(lines) + "\n"
