import polars as pl
from helpers.raw_scores import raw_scores

from pmpo_offline.benchmark.html.headline import headline
from pmpo_offline.benchmark.methods import methods, role, shared
from pmpo_offline.benchmark.table import table

PLAIN = {"settings": "{}", "beta": None, "beta_min": None}


def condition(number: int, **algorithms: float) -> list[pl.DataFrame]:
    """Return the raw scores of algorithms on a dataset of its own: three runs a point apart, around these scores."""
    return [
        raw_scores(
            f"{name}-{number}",
            [[10 + (score + away) / 2] for away in (-1, 0, 1)],
            **{"algo": name.replace("_", "-"), "dataset": f"test/line{number}-v0", **PLAIN},
            reference=name == "bc",
            filtered=name.startswith("bc_"),
        )
        for name, score in algorithms.items()
    ]


def test_roles():
    raw = pl.concat([*condition(0, bc=1, bc_accepted=2, pmpo=3), raw_scores("s", [[1.0]], shuffled=True)])
    assert {row["algo"]: role(row) for row in table(raw)} == {
        **{"bc": "clone", "bc-accepted": "clone", "pmpo": "method", "pmpo (shuffled)": "control"}
    }


def test_methods_are_compared_where_most_of_them_have_scores():
    raw = pl.concat([*condition(0, pmpo=10, dpo=30), *condition(1, pmpo=20, dpo=40), *condition(2, kto=99)])
    conditions, compared = shared(raw, table(raw))
    assert conditions == ["test/line0-v0, 0.1 accepted", "test/line1-v0, 0.1 accepted"]
    assert {name: [task.tolist() for task in tasks] for name, tasks in compared.items()} == {
        "dpo": [[29.0, 30.0, 31.0], [39.0, 40.0, 41.0]],
        "pmpo": [[9.0, 10.0, 11.0], [19.0, 20.0, 21.0]],
    }
    assert [*compared] == ["dpo", "pmpo"], "the best first"


def test_settings_tell_methods_apart_and_returns_are_not_compared():
    sweep = [raw_scores(str(beta), [[10.0]], settings=f'{{"beta": {beta}}}', beta=beta) for beta in (0.5, 2.0)]
    raw = pl.concat(sweep)
    assert methods(table(raw)) == ["pmpo beta=0.5", "pmpo beta=2"]
    returns = raw_scores("r", [[1.0]], reference_min=None, reference_max=None)
    assert shared(returns, table(returns)) == ([], {})


def test_headline_of_one_condition_by_hand():
    raw = pl.concat([*condition(0, bc=40, bc_accepted=60, bc_unrejected=90, pmpo=80, dpo=50)])
    (sentence,) = headline(raw, table(raw))
    assert sentence.startswith("The best method is pmpo with 80.0 (")
    assert ": 10.0 below the better filtered clone, bc-unrejected with 90.0 (" in sentence
    control = raw_scores("s", [[20.0]], shuffled=True, dataset="test/line0-v0")
    assert headline(pl.concat([raw, control]), table(pl.concat([raw, control])))[1] == (
        "Control: pmpo (shuffled) with 20.0."
    )


def test_headline_of_several_conditions_counts_where_methods_beat_the_clones():
    learned = (80, 60.5, 50)
    raw = pl.concat(
        [part for data, score in enumerate(learned) for part in condition(data, bc_accepted=60, pmpo=score)]
    )
    first, second = headline(raw, table(raw))
    assert first.startswith(
        "In 2 of 3 conditions the best method scores above the better filtered clone, in 1 of them "
    )
    assert second.startswith("Of 2 methods with scores in 3 conditions, pmpo has the best IQM, ")
