"""The paper's tables: their numbers, and what is run for their cells."""

from __future__ import annotations

from daso.compose import Recipe
from daso.presets.benchmarks import PRESETS
from daso.reproduce.paper_tables import PaperTable, TableRow, Variant, paper_tables, variant


def row_of(number: int, label: str) -> TableRow:
    return next(row for row in paper_tables()[number].rows if row.label == label)


def numbers_of(table: PaperTable, label: str) -> list[tuple[float, float | None]]:
    return [table.numbers[label, column.text] for column in table.columns]


def variant_of(number: int, label: str, preset: str) -> Variant:
    return variant(row_of(number, label), PRESETS[preset])


def test_every_table_has_rows_columns_and_a_number_in_each_cell() -> None:
    sizes = {n: (len(table.rows), len(table.columns)) for n, table in paper_tables().items()}
    assert sizes == {
        **{1: (12, 8), 2: (5, 8), 3: (6, 4), 4: (6, 4), 5: (4, 2), 6: (4, 2), 7: (4, 2), 8: (4, 2)},
        **{11: (16, 6), 12: (4, 4), 13: (4, 6), 14: (3, 4), 15: (5, 2), 16: (5, 2), 17: (5, 2)},
    }
    for table in paper_tables().values():
        assert len(table.numbers) == len(table.rows) * len(table.columns)
        assert len({row.label for row in table.rows}) == len(table.rows)
        assert {column.preset for column in table.columns} <= PRESETS.keys()


def test_numbers_by_hand() -> None:
    tables = paper_tables()
    assert numbers_of(tables[1], "FixMatch + DASO") == [
        (76.0, 0.37),
        (79.1, 0.75),
        (70.1, 1.81),
        (75.1, 0.77),
        (49.8, 0.24),
        (59.2, 0.35),
        (43.6, 0.09),
        (52.9, 0.42),
    ]
    assert tables[1].numbers["FixMatch + LA + CReST+", "cifar10-n500-g150"] == (70.9, 1.18)
    assert numbers_of(tables[2], "FixMatch + CReST")[2:5] == [
        (70.7, 2.02),
        (80.8, 0.39),
        (61.7, 2.51),
    ]
    assert numbers_of(tables[3], "MixMatch") == [
        (65.7, 0.23),
        (35.7, 0.69),
        (54.2, 0.47),
        (52.7, 1.42),
    ]
    assert numbers_of(tables[4], "FixMatch + DASO") == [
        (54.5, 0.08),
        (54.6, 0.12),
        (47.9, 0.41),
        (47.9, 0.38),
    ]
    assert numbers_of(tables[7], "moving-average encoder") == [(75.01, None), (69.49, None)]
    assert numbers_of(tables[11], "USADTM")[-1] == (77.1, 0.74)
    assert tables[11].numbers["FixMatch + CReST+", "cifar100-n150-g10"] == (57.1, 0.65)
    assert tables[1].numbers["FixMatch + CReST+", "cifar100-n150-g10"] == (57.4, 0.18)
    assert numbers_of(tables[13], "ReMixMatch + DASO")[-1] == (68.5, 5.14)
    assert numbers_of(tables[14], "FixMatch + DASO, adjusted")[:2] == [(84.5, 0.55), (81.8, 0.83)]
    assert numbers_of(tables[16], "1.0") == [(46.47, None), (57.40, None)]


def test_every_row_can_be_run() -> None:
    rows = [row for t in paper_tables().values() for row in t.rows if row.method is not None]
    for row in rows:
        assert row.options.keys() <= Recipe.parse(row.method or "").hyperparameters().keys(), row


def test_rows_that_are_the_same_run_have_one_name() -> None:
    for number, label in (
        (1, "FixMatch + DASO"),
        (7, "both"),
        (8, "1.5"),
        (15, "256"),
        (16, "0.05"),
        (17, "1"),
    ):
        assert variant_of(number, label, "cifar10-n500-g100").name == "fixmatch+daso"
    assert variant_of(8, "1.5", "stl10-n150-g10").name == "fixmatch+daso,dist_temperature=1.5"
    assert variant_of(8, "0.3", "stl10-n150-g10").name == "fixmatch+daso"
    assert variant_of(5, "FixMatch, blended", "stl10-n150-g10") == variant_of(
        17, "0", "stl10-n150-g10"
    )
    half = variant_of(6, "half and half", "cifar10-n500-g100")
    assert half.name == "fixmatch+daso,blend=fixed"
    assert half.options == {"dist_temperature": 1.5, "blend": "fixed", "fixed_blend": 0.5}
    neither = variant_of(7, "neither", "cifar10-n500-g100").name
    assert neither == "fixmatch+daso,balanced_queue=False,queue_encoder=online"


def test_where_the_distributions_differ() -> None:
    for preset, temperature in (
        ("cifar10-n500-g100-uniform", 0.3),
        ("stl10-n150-g10", 0.3),
        ("semi-aves", 0.5),
    ):
        assert variant_of(2, "FixMatch + DASO", preset).options == {"dist_temperature": temperature}
    for preset, options in (("cifar10-n500-g100", {}), ("stl10-n150-g10", {"align": False})):
        found = variant_of(13, "ReMixMatch", preset)
        assert (found.name, found.options) == ("remixmatch", options)
    assert (
        variant_of(2, "FixMatch + DARP", "cifar10-n500-g100-reversed").method
        == "fixmatch+estimate+darp"
    )
    assert variant_of(1, "FixMatch + LA + DARP", "cifar10-n500-g100").method == "fixmatch+la+darp"
    assert (
        variant_of(13, "ReMixMatch + DARP", "stl10-n150-g10").method == "remixmatch+estimate+darp"
    )
    assert variant_of(4, "FixMatch + DARP", "semi-aves").method == "fixmatch+darp"


def test_adjusted_rows_are_the_plain_runs() -> None:
    row = row_of(14, "FixMatch + DASO, adjusted")
    assert row.logit_adjusted
    preset = PRESETS["cifar10-n1500-g100"]
    assert variant(row, preset) == variant(row_of(1, "FixMatch + DASO"), preset)


def test_the_columns_of_semi_aves_measure_two_things() -> None:
    columns = [(column.preset, column.measure) for column in paper_tables()[4].columns]
    assert columns == [
        ("semi-aves", "last"),
        ("semi-aves", "median_of_last"),
        ("semi-aves-open", "last"),
        ("semi-aves-open", "median_of_last"),
    ]
