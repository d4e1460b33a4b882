"""Cells are kept one by one, runs go on, and results of different kinds are never mixed."""

import json

import pytest
from kinetrack.hub_scripts.experiments.experiment import Experiment, Inputs, Plot, Summary, Table, Variant
from kinetrack.hub_scripts.experiments.run import run_experiment


class Coins(Experiment):
    """Heads or tails; fails on a chosen cell."""

    name, question, claim = "coins", "Which coin is better?", "nothing."
    variants = {"copper": Variant("one cent", 0.1), "silver": Variant("ten cents", 0.1)}
    seeds = 2
    settings = {"throws": 3}

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = [], fail_at

    def protocol(self, quick):
        return self.settings

    def prepare(self, inputs):
        return {"films": ["a", "b", "c"]}

    def run_cell(self, variant, seed):
        if (variant, seed) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append((variant, seed))
        return {"hits": "110" if variant == "silver" else "000"}

    def tables(self, results):
        return [
            Table("Heads.", ["", "%"], [[n, f"{results.accuracy(n, 'hits').mean:.0f}"] for n in results.variants()])
        ]

    def conclude(self, results):
        return (
            [f"Silver has {results.accuracy('silver', 'hits').mean:.0f} %."]
            if "silver" in results.variants()
            else ["-"]
        )

    def summarise(self, results):
        return Summary("coins", "thrown")

    def draw(self, results, folder):
        (folder / "coins.png").write_bytes(b"png")
        return [Plot("coins.png", "Coins.")]


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path, None, "kinetrack-nano", tmp_path / "cache")


def read(folder):
    return json.loads((folder / "results.json").read_text())


def test_an_interrupted_run_keeps_its_cells_and_goes_on(tmp_path, inputs):
    with pytest.raises(KeyboardInterrupt):
        run_experiment(Coins(fail_at=("copper", 1)), inputs, tmp_path / "out")
    assert len(read(tmp_path / "out")["cells"]) == 2
    second = Coins()
    report, missing = run_experiment(second, inputs, tmp_path / "out")
    assert second.calls == [("copper", 1), ("silver", 1)] and missing == 0
    assert "Silver has 67 %." in report.read_text() and "| coins | thrown |" in report.read_text()
    content = read(tmp_path / "out")
    assert [cell["run"] for cell in content["cells"]] == [0, 0, 1, 1]
    assert content["runs"][1]["machine"]["torch"] and content["runs"][1]["command"].startswith("kinetrack")


def test_a_time_limit_ends_between_cells_and_more_seeds_are_added(tmp_path, inputs):
    _, missing = run_experiment(Coins(), inputs, tmp_path / "out", max_minutes=0)
    assert missing == 3
    run_experiment(Coins(), inputs, tmp_path / "out")
    more = Coins()
    run_experiment(more, inputs, tmp_path / "out", seeds=3)
    assert more.calls == [("copper", 2), ("silver", 2)]


def test_a_variant_in_which_nothing_is_drawn_is_run_once(tmp_path, inputs):
    coins = Coins()
    coins.variants = {"copper": Variant("one cent", 0.1, most_seeds=1), "silver": Variant("ten cents", 0.1)}
    run_experiment(coins, inputs, tmp_path / "out", seeds=3)
    assert coins.calls == [("copper", 0), ("silver", 0), ("silver", 1), ("silver", 2)]
    assert coins.planned_minutes(3) == pytest.approx(0.4)


def test_a_finished_experiment_only_writes_its_report_again(tmp_path, inputs):
    run_experiment(Coins(), inputs, tmp_path / "out")
    (tmp_path / "out" / "README.md").unlink()
    again = Coins()
    run_experiment(again, inputs, tmp_path / "out")
    assert not again.calls and (tmp_path / "out" / "README.md").is_file()
    assert len(read(tmp_path / "out")["runs"]) == 1


def test_cells_of_another_protocol_are_not_mixed_in(tmp_path, inputs):
    run_experiment(Coins(), inputs, tmp_path / "out")
    other = Coins()
    other.settings = {"throws": 5}
    with pytest.raises(ValueError, match=r"another protocol \(throws\).*another --output"):
        run_experiment(other, inputs, tmp_path / "out")


def test_results_of_another_experiment_are_not_overwritten(tmp_path, inputs):
    run_experiment(Coins(), inputs, tmp_path / "out")
    other = Coins()
    other.name = "dice"
    with pytest.raises(ValueError, match="holds 'coins', not 'dice'"):
        run_experiment(other, inputs, tmp_path / "out")


def test_cells_measured_on_other_data_are_not_mixed_in(tmp_path, inputs):
    run_experiment(Coins(), inputs, tmp_path / "out", seeds=1)
    other = Coins()
    other.prepare = lambda inputs: {"films": ["d", "e", "f"]}
    with pytest.raises(ValueError, match="other data"):
        run_experiment(other, inputs, tmp_path / "out")


def test_unknown_variants_and_missing_data_are_told(tmp_path, inputs):
    with pytest.raises(ValueError, match="no variant 'gold': choose from copper, silver"):
        run_experiment(Coins(), inputs, tmp_path / "out", variants=["gold"])
    nowhere = Inputs(tmp_path / "no", None, "kinetrack-nano", tmp_path)
    with pytest.raises(FileNotFoundError, match="--data is the root"):
        run_experiment(Coins(), nowhere, tmp_path / "out")
