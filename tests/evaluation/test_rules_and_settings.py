"""Families of variants and rules of choosing an epoch, on tables made by hand."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from serkit import figures
from serkit.constants import LABELS
from serkit.errors import ParameterError, RunError
from serkit.evaluation import comparison
from serkit.evaluation.comparison import choose_epochs
from serkit.evaluation.predictions import check_predictions
from serkit.experiment import Experiment

SPEAKERS = ("1F", "1M", "2F", "2M", "3F", "3M")


def predictions(variant, right, split="test", n=8):
    """Eight utterances of each speaker, of which the first ``right`` are recognised; a fold a session."""
    rows = []
    for speaker in SPEAKERS:
        for i in range(n):
            truth = LABELS[i % 4]
            guess = truth if i < right else LABELS[(i + 1) % 4]
            fold = speaker[0] if split == "test" else {"1": "3", "2": "1", "3": "2"}[speaker[0]]
            rows.append({
                "utterance_id": f"{speaker}_{i}", "speaker": speaker, "session": speaker[0], "truth": truth,
                "prediction": guess, **{f"p_{label}": 0.7 if label == guess else 0.1 for label in LABELS},
                "fold": fold, "seed": 111, "variant": variant, "split": split,
            })  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose folders say with which settings they were made; returns what writes one."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path)

    def write(**settings):
        experiment = Experiment(**settings)
        folder = experiment.folder("trial", tmp_path)
        folder.mkdir(parents=True)
        record = {"key": experiment.key, "parameters": asdict(experiment)}
        (folder / "experiment.json").write_text(json.dumps(record))
        (folder / "DONE").write_text(experiment.key)
        return experiment.variant

    return write


class TestFamilies:
    def test_differ_in_one_setting_only(self, run):
        """Of four variants three differ in views alone; the fourth has another recipe as well."""
        names = {views: run(views=views) for views in ("mfcc", "all", "speech")}
        run(views="mfcc", recipe="published")
        found = comparison.families("trial", "views")
        assert found == [{value: names[value] for value in ("speech", "mfcc", "all")}]
        assert list(found[0]) == ["speech", "mfcc", "all"]

    def test_two_groups(self, run):
        for recipe in ("corrected", "published"):
            for fusion in ("mean", "coattention"):
                run(recipe=recipe, fusion=fusion)
        assert [list(group) for group in comparison.families("trial", "fusion")] == [
            ["coattention", "mean"]
        ] * 2
        assert len(comparison.families("trial", "recipe")) == 2

    def test_what_an_older_version_did_not_have_has_its_default(self, run):
        names = {views: run(views=views) for views in ("mfcc", "all")}
        (path,) = Path("runs/trial", names["all"]).rglob("experiment.json")
        record = json.loads(path.read_text())
        del record["parameters"]["views"]
        path.write_text(json.dumps(record))
        assert comparison.families("trial", "views") == [names]

    def test_one_variant_is_no_family(self, run):
        run()
        assert comparison.families("trial", "views") == []

    @pytest.mark.parametrize("setting", comparison.AXES)
    @pytest.mark.parametrize(("name", "advised"), [("trial", "trial"), ("example", "demo")])
    def test_the_command_that_is_advised_makes_a_family(self, run, capsys, name, advised, setting):
        """For the kit's own example, whose sounds nobody has, a variant of the run demo."""
        run()
        Path("runs/trial").rename(f"runs/{name}")
        assert comparison.compare_settings(name, pd.DataFrame(), setting) == []
        command = re.search("`serkit reproduce --run (.*) --(.*) (.*)`", capsys.readouterr().out)
        assert command[1] == advised and command[2].replace("-", "_") == setting
        Path(f"runs/{name}").rename("runs/trial")
        run(**{setting: command[3]})
        assert len(comparison.families("trial", setting)) == 1

    def test_nothing_finished(self, run):
        with pytest.raises(RunError, match=r"no finished fold"):
            comparison.families("trial", "views")

    @pytest.mark.parametrize(
        ("value", "reference"),
        [
            ("corrected", ""),
            ("published", "corrected"),
            ("published+D1", "published"),
            ("corrected-D4", "corrected"),
        ],
    )
    def test_reference_of_a_recipe(self, value, reference):
        values = ["corrected", "corrected-D4", "published", "published+D1"]
        assert comparison.reference_of("recipe", value, values) == reference

    def test_without_its_own_recipe_a_deviation_is_compared_with_the_default(self):
        assert comparison.reference_of("recipe", "published+D1", ["corrected", "published+D1"]) == "corrected"


class TestTable:
    FAMILY = {"mfcc": "b", "all": "a"}  # noqa: RUF012
    TABLE = pd.concat([predictions("a", 6), predictions("b", 4)], ignore_index=True)

    def test_by_hand(self):
        """6 of 8 and 4 of 8 right in every speaker alike: 75 and 50 %, no spread at all."""
        table = comparison.ablation_table(self.TABLE, self.FAMILY, "views").set_index("views")
        assert table["ua"].round(6).to_dict() == {"mfcc": 50.0, "all": 75.0}
        assert table.loc[
            "mfcc", ["difference", "difference_low", "difference_high"]
        ].tolist() == pytest.approx([-25.0] * 3)
        assert table["against"].to_dict() == {"mfcc": "all", "all": ""}
        assert np.isnan(table.loc["all", "difference"])
        assert table.loc["mfcc", "p_holm"] == pytest.approx(2 / 2**6)  # all six speakers point one way

    def test_what_is_read_from_it(self):
        table = comparison.ablation_table(self.TABLE, self.FAMILY, "views")
        said = "mfcc against all: −25.0 points [−25.0, −25.0], p = 0.031 (Holm): lower"
        assert comparison.read_differences(table, "views") == said
        assert comparison.read_differences(table.iloc[1:].drop(columns="difference"), "views") == ""

    @pytest.mark.parametrize(
        ("low", "high", "p", "verdict"),
        [
            (1, 3, 0.05, "higher"),
            (1, 3, 0.051, "no difference is shown"),
            (0, 3, 0.01, "no difference is shown"),
            (-3, -1, 0.01, "lower"),
        ],
    )
    def test_a_difference_needs_interval_and_p(self, low, high, p, verdict):
        row = {"rule": "a", "against": "b", "difference": 2.0, "low": low, "high": high, "p_holm": p}
        assert comparison.read_differences(pd.DataFrame([row])).endswith(f"(Holm): {verdict}")

    def test_figure_shows_every_variant(self):
        table = comparison.ablation_table(self.TABLE, self.FAMILY, "views")
        _, ax = plt.subplots()
        figures.plot_ablation(table, "views", ax)
        assert [label.get_text() for label in ax.get_yticklabels()] == ["mfcc", "all"]
        assert sorted(ax.collections[0].get_offsets()[:, 0]) == pytest.approx([50, 75])
        plt.close()


def fold_scores(*rows):
    """Scores of one fold: (epoch, split, wa, ua)."""
    table = pd.DataFrame(rows, columns=["epoch", "split", "wa", "ua"])
    return table.assign(variant="corrected_clean_session_demo", seed=1, fold="1")


class TestChoosing:
    SCORES = fold_scores(
        (1, "validation", 0.5, 0.5), (1, "test", 0.1, 0.1),
        (2, "validation", 0.6, 0.4), (2, "test", 0.9, 0.2),
        (3, "validation", 0.2, 0.2), (3, "test", 0.4, 0.6),
    )  # fmt: skip

    @pytest.mark.parametrize(("rule", "epoch"), [("clean", 1), ("published", 2), ("last", 3)])
    def test_by_hand(self, rule, epoch):
        """Validation: 1.0, 1.0, 0.4, the first of equals. Test: 0.2, 1.1, 1.0."""
        assert choose_epochs(self.SCORES, rule).tolist() == [epoch]

    def test_unknown_rule(self):
        with pytest.raises(
            ParameterError,
            match=r"rule='best', expected one of published, published_loss, clean, clean_loss, last",
        ):
            choose_epochs(self.SCORES, "best")

    def test_no_validation_speakers(self):
        only_test = self.SCORES[self.SCORES["split"] == "test"]
        with pytest.raises(
            ParameterError, match=r"rule='clean' needs predictions of the validation speakers"
        ):
            choose_epochs(only_test, "clean")

    def test_a_fold_that_kept_no_epochs_is_named(self, run):
        run()
        with pytest.raises(RunError, match=r"fold=1/seed=111 kept no predictions of its epochs; train with"):
            comparison.load_epochs("trial")

    def test_epochs_of_the_variants_that_kept_them(self, run, capsys):
        def keep(**settings):
            variant = run(**settings)
            (folder,) = Path("runs/trial").rglob(f"{variant}/fold={settings.get('fold', 1)}/seed=111")
            rows = predictions(variant, 4).query(f"fold == '{settings.get('fold', 1)}'")
            rows.assign(epoch=1).to_parquet(folder / "epochs.parquet")

        run(fusion="gated")
        assert comparison.kept_epochs("trial") == [] and "keep_epochs" in capsys.readouterr().out
        keep(fusion="mean")
        for fold in "12":
            keep(fold=fold)
        first, second = comparison.kept_epochs("trial")
        assert set(first["fold"]) == {"1", "2"} and second["variant"].iloc[0].endswith("_mean")
        assert capsys.readouterr().out == ""


class TestRules:
    @pytest.fixture
    def epochs(self):
        """Validation is best in epoch 2 of 3; the test speakers have 2, 4, 6 and 5 of 8 right."""
        parts = []
        for epoch, valid, right in ((1, 4, 2), (2, 8, 4), (3, 6, 6), (4, 6, 5)):
            for split, n in (("validation", valid), ("test", right)):
                parts.append(predictions("corrected_clean_session_demo", n, split).assign(epoch=epoch))
        return pd.concat(parts, ignore_index=True)

    def test_by_hand(self, epochs):
        scores, differences = comparison.rule_table(epochs)
        assert dict(zip(scores["rule"], scores["ua"].round(6), strict=True)) == {
            "published": 75.0, "published_loss": 75.0, "clean": 50.0, "clean_loss": 50.0, "last": 62.5,
        }  # fmt: skip
        assert differences["difference"].tolist() == pytest.approx([25.0, 12.5, -12.5, 0.0, 0.0])

    def test_the_lowest_loss_may_be_another_epoch(self, epochs):
        """Epoch 3 is best on the test speakers; made very sure of its mistakes there, it has a high loss."""
        columns = [name for name in epochs if name.startswith("p_")]
        sure = (epochs["epoch"] == 3) & (epochs["split"] == "test")
        guess = pd.get_dummies(epochs["prediction"])[[name[2:] for name in columns]].to_numpy(float)
        epochs.loc[sure, columns] = (0.996 * guess + 0.001)[sure]
        chosen = {
            rule: choose_epochs(comparison.epoch_scores(epochs), rule).unique().tolist()
            for rule in comparison.RULES
        }
        assert chosen["published"] == [3] and chosen["published_loss"] == [4]
        names = comparison.apply_rule(epochs, "published_loss")["variant"].unique().tolist()
        assert names == ["corrected_published_session_demo_loss"]

    def test_figure_names_what_each_rule_reports(self, epochs):
        _, ax = plt.subplots()
        figures.plot_rules(epochs, ax)
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        rules = ["highest WA + UA on the test speakers: 75.0 %", "lowest loss on the test speakers: 75.0 %"]
        assert labels[:2] == rules and labels[4] == "last epoch: 62.5 %" and "95 % interval" in labels
        course = next(line for line in ax.lines if line.get_label() == "mean by epoch")
        assert course.get_ydata().tolist() == pytest.approx([25, 50, 75, 62.5])
        assert max(ax.get_xticks()) == 4  # what the rules report stands beside the epochs
        plt.close()

    def test_the_rule_stands_in_the_name_of_the_variant(self, epochs):
        chosen = comparison.apply_rule(epochs, "published")
        assert set(chosen["variant"]) == {"corrected_published_session_demo"}
        assert "epoch" not in chosen
        check_predictions(chosen)

    def test_scores_of_every_rule(self, epochs):
        """The best of the test speakers is epoch 3, of the validation speakers epoch 2, the last is 4."""
        scores = comparison.rule_scores(epochs)
        assert scores.groupby("rule")["wa"].mean().to_dict() == {
            "published": 0.75, "published_loss": 0.75, "clean": 0.5, "clean_loss": 0.5, "last": 0.625,
        }  # fmt: skip

    def test_without_validation_speakers_theirs_are_left(self, epochs):
        scores = comparison.rule_scores(epochs[epochs["split"] == "test"])
        assert set(scores["rule"]) == {"published", "published_loss", "last"}

    def test_the_published_rule_can_lose_in_ua_but_not_in_the_sum(self):
        """Eight sad, one happy, one angry. Epoch 1 has all sad right, epoch 2 two of them and the happy one."""
        truth = np.array(["sad"] * 8 + ["happy", "angry"])
        parts = []
        for epoch, right in ((1, range(8)), (2, (0, 1, 8))):
            guess = np.where(np.isin(np.arange(10), right), truth, "neutral")
            rows = {"utterance_id": [f"u{i}" for i in range(10)], "truth": truth, "prediction": guess}
            rows |= {f"p_{label}": np.where(guess == label, 0.7, 0.1) for label in LABELS}
            parts.append(pd.DataFrame(rows).assign(epoch=epoch, split="test", seed=1, fold="1", variant="v"))
        scores = comparison.rule_scores(pd.concat(parts)).set_index("rule")
        scores = scores.drop(index="published_loss")
        assert scores["wa"].tolist() == pytest.approx([0.8, 0.3])
        assert scores["ua"].tolist() == pytest.approx([1 / 3, (2 / 8 + 1) / 3])
