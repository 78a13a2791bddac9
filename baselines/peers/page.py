"""The leaderboard's rows of other libraries beside ours on the same data: benchmarks/results/peers/leaderboard.md.

python -m baselines.peers.page
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import polars as pl

from benchmarks.experiments import shared
from pmpo_offline.benchmark.leaderboard import Leaderboard
from pmpo_offline.benchmark.results import CONDITION, Results
from pmpo_offline.benchmark.table import runs
from pmpo_offline.evaluation.statistics import estimate

PAGE = shared.RESULTS / "peers" / "leaderboard.md"
UNLABELLED = ("iql-256", "td3-bc-256")
HEADER = ("dataset", "accepted", "learner", "runs", "ours", "theirs", "theirs − ours", "")


def main() -> None:
    """Write the page from the submissions alone."""
    board = runs(Leaderboard(shared.ROOT / "benchmarks" / "leaderboard").read())
    long = runs(Results(shared.RESULTS / "control-long").read())
    lines = [
        "# Rows of other libraries on the leaderboard",
        "",
        "Normalized score, IQM over runs with its 95 % t interval; the difference, with that of two independent",
        "estimates, may be none where its interval holds 0. What differs in the trainings is on",
        "[the peers' page](../../../baselines/peers/README.md#rows-on-the-leaderboard).",
        "",
        *shared.table(HEADER, sorted(rows(board, long)), "lrlr"),
        "",
        "By `python -m baselines.peers.page`, from `benchmarks/leaderboard` alone.",
        "",
    ]
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


def rows(board: pl.DataFrame, long: pl.DataFrame) -> Iterator[list[str]]:
    """Yield the cells of each row of another library; its algorithm is named after ours, as in `dpo (TRL)`."""
    for theirs in board.filter(pl.col("training").str.contains('"library"')).partition_by("key"):
        first = theirs.row(0, named=True)
        same = [pl.col(name).eq_missing(pl.lit(first[name])) for name in CONDITION]
        name, updates = first["algo"].partition(" (")[0], f'"updates": {json.loads(first["training"]).get("updates")},'
        unlabelled = long.filter(pl.col("training").str.contains(updates, literal=True), dataset=first["dataset"])
        ours = pl.concat([board.filter(*same), unlabelled.filter(pl.col("algo").is_in(UNLABELLED))])
        ours = ours.filter(algo=name, shuffled=False)
        ours = ours.filter(key=ours["key"].first())
        both = [estimate([part["score"]]) for part in (ours, theirs)]
        difference = (both[1] - both[0]).interval
        yield [
            f"`{first['dataset']}`",
            f"{first['share']:.2f}",
            first["algo"],
            f"{len(theirs)}",
            *(shared.spread(each.interval, 1) for each in both),
            shared.spread(difference, 1),
            "within" if difference.low <= 0 <= difference.high else "differs",
        ]


if __name__ == "__main__":
    main()
