"""The sweep of language models: what it asks for can be run, and its table and picture say what the rows say."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from helpers.raw_scores import raw_scores

from benchmarks.experiments.language import report as sweep_report
from benchmarks.experiments.language import run as sweep
from pmpo_offline.benchmark.suite import expand
from pmpo_offline.benchmark.table import table
from pmpo_offline.declarations import catalog
from pmpo_offline.training.config import complete


def test_every_part_is_of_settings_that_exist() -> None:
    for part in sweep.PARTS.values():
        suite = catalog.suite(str(sweep.SUITE)).model_copy(update={"datasets": [part.dataset]})
        values = {algorithm: settings for algorithm, settings in part.settings.items() if settings}
        cells = expand(suite, {part.dataset: "language"}, algos=list(part.settings), sweep=values)
        assert {cell.algorithm.name for cell in cells} == {*part.settings, "bc"}
        for cell in cells:
            for settings in cell.settings:
                complete(cell.algorithm, settings)
        assert part.seeds >= 3


def test_rejects_are_swept_below_and_above_the_bound() -> None:
    for name in ("tiny", "sentiment"):
        multiples = [float(beta.removesuffix("x")) for beta in sweep.PARTS[name].settings["reject-bc"]["beta"]]
        assert min(multiples) < 1 < max(multiples)


def test_table_and_picture_of_rows(tmp_path: Path) -> None:
    def language(frame: pl.DataFrame, kl: float, distinct: float) -> pl.DataFrame:
        drift = {"kl": kl, "token_kl": kl / 9, "distinct": distinct, "reference_logp": -2.0, "perplexity": 9.0}
        return frame.with_columns(pl.lit(value, pl.Float64).alias(name) for name, value in drift.items())

    plain = {"algo": "bc", "settings": "{}", "beta": None, "beta_min": None, "reference": True}
    reject = {"algo": "reject-bc", "settings": '{"divergence": "forward", "order": 0.5}', "beta_min": 1.0}
    reverse = {"settings": '{"divergence": "alpha", "order": 0.5}', "beta": 1.0, "beta_min": float("inf")}
    rows = table(
        pl.concat(
            [
                language(raw_scores("b", [[10.0]] * 3, **plain), 0.0, 0.8),
                language(raw_scores("h", [[35.0]] * 3, **reject, beta=2.0), 1.5, 0.8),
                language(raw_scores("l", [[10.0]] * 3, **reject, beta=0.1), 30.0, 0.1),
                language(raw_scores("r", [[35.0]] * 3, **reverse), 0.5, 0.8),
            ]
        )
    )
    sweep_report.write(tmp_path, "part", rows)
    lines = (tmp_path / "part.md").read_text().splitlines()[2:]
    assert lines == [
        "| PMPO, both | alpha 0.5 β = 1 | inf ! | 35.000 | 50.0 | 50.0 – 50.0 | 0.50 | 0.80 | -2.00 | 9.00 |  |",
        "| PMPO, rejects | β = 0.1 | 1 ! | 10.000 | 0.0 | 0.0 – 0.0 | 30.00 | 0.10 | -2.00 | 9.00 | collapsed |",
        "| PMPO, rejects | β = 2 | 1 | 35.000 | 50.0 | 50.0 – 50.0 | 1.50 | 0.80 | -2.00 | 9.00 |  |",
        "| all responses | – | – | 10.000 | 0.0 | 0.0 – 0.0 | 0.00 | 0.80 | -2.00 | 9.00 |  |",
    ]
    assert (tmp_path / "part.png").read_bytes()[:4] == b"\x89PNG"
