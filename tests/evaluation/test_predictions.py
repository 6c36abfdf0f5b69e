"""The check before averaging: what the kit writes passes, what was damaged is named."""

import numpy as np
import pandas as pd
import pytest
from prediction_tables import manifest, predict

from serkit.constants import CORPORA, FUSIONS
from serkit.errors import FoldError, ParameterError, RunError
from serkit.evaluation import predictions
from serkit.evaluation.predictions import check_predictions, scored_rows
from serkit.experiment import Experiment
from serkit.folds import make_folds


@pytest.fixture(scope="module")
def about():
    return manifest()


@pytest.fixture
def clean(about):
    return predict(about)


def edited(table, where, **values):
    """A copy with the rows that match ``where`` changed."""
    table = table.copy()
    chosen = np.logical_and.reduce([table[column] == value for column, value in where.items()])
    assert chosen.any()
    for column, value in values.items():
        table.loc[chosen, column] = value
    return table


class TestWhatTheKitWritesPasses:
    @pytest.mark.parametrize("by", ["speaker", "session"])
    @pytest.mark.parametrize("selection", ["published", "clean", "last"])
    def test_every_protocol(self, about, by, selection):
        table = predict(about, by, selection)
        assert check_predictions(table, folds=make_folds(about, by, selection)) is table
        assert len(scored_rows(table)) == len(about)

    @pytest.mark.parametrize("selection", ["published", "clean", "last"])
    def test_a_corpus_that_says_itself_who_is_tested(self, about, selection):
        """Who validates there is in no test, and no fold is missing for it."""
        parts = {"1": "validation", "2": "test"}
        own = about.assign(split=about["session"].map(parts).fillna("train"))
        table = predict(own, "split", selection)
        assert check_predictions(table) is check_predictions(table, folds=["test"]) is table

    def test_protocols_seeds_and_recipes_together(self, about):
        parts = [
            predict(about, by, selection)
            for by in ("speaker", "session")
            for selection in ("clean", "published")
        ]
        parts += [predict(about, recipe="published+D2", seed=seed) for seed in (111, 211)]
        check_predictions(pd.concat(parts))

    def test_rounded_probabilities(self, clean):
        columns = [column for column in clean if column.startswith("p_")]
        check_predictions(clean.assign(**clean[columns].round(3)))

    def test_one_fold_if_asked_for(self, clean):
        part = clean[clean["fold"] == "1F"]
        check_predictions(part, folds=["1F"])
        with pytest.raises(RunError, match="missing folds: 1M; found 1F"):
            check_predictions(part)

    def test_order_of_rows_does_not_matter(self, clean):
        shuffled = clean.sample(frac=1, random_state=3)
        pd.testing.assert_frame_equal(scored_rows(shuffled), scored_rows(clean))


class TestMissing:
    @pytest.mark.parametrize("table", [None, pd.DataFrame()])
    def test_no_predictions(self, table):
        with pytest.raises(RunError, match=r"has no rows.*serkit reproduce"):
            check_predictions(table)

    def test_no_test_rows(self, clean):
        with pytest.raises(RunError, match=r"missing folds: 1F, 1M, .*; found none"):
            check_predictions(clean[clean["split"] == "validation"])

    @pytest.mark.parametrize(("by", "fold"), [("speaker", "3M"), ("session", "3")])
    def test_a_fold_of_the_only_run(self, about, by, fold):
        # who validates in another fold must be tested somewhere
        table = predict(about, by)
        variant = f"corrected_clean_{by}_paper"
        with pytest.raises(RunError, match=f"variant {variant}, seed 111: missing folds: {fold}; found 1"):
            check_predictions(table[table["fold"] != fold])

    @pytest.mark.parametrize("selection", ["published", "last"])
    def test_a_fold_of_one_seed(self, about, selection):
        first, second = (predict(about, "session", selection, seed=seed) for seed in (111, 211))
        table = pd.concat([first, second[second["fold"] != "4"]])
        with pytest.raises(
            RunError, match=f"_{selection}_session_paper, seed 211: missing folds: 4; found 1, 2, 3, 5"
        ):
            check_predictions(table)

    def test_a_fold_that_only_the_manifest_knows(self, about):
        table = predict(about, "session", "last")
        folds = make_folds(about, "session", "last")
        with pytest.raises(RunError, match="missing folds: 2"):
            check_predictions(table[table["fold"] != "2"], folds=folds)
        with pytest.raises(RunError, match="fold 5 is not one of 1, 2, 3, 4"):
            check_predictions(table, folds=folds[:4])

    def test_one_utterance_of_one_variant(self, about):
        other = predict(about, recipe="published+D2")
        gone = (other["utterance_id"] == "2F_003") & (other["split"] == "test")
        with pytest.raises(
            RunError, match=r"variant published\+D2_clean_speaker_paper, seed 111: utterance 2F_003 of"
        ):
            check_predictions(pd.concat([predict(about), other[~gone]]))

    def test_column_and_value(self, clean):
        with pytest.raises(ParameterError, match=r"lacks \['speaker', 'seed'\]"):
            check_predictions(clean.drop(columns=["speaker", "seed"]))
        with pytest.raises(ParameterError, match=r"speaker=(None|nan), expected a value in every row"):
            check_predictions(edited(clean, {"utterance_id": clean["utterance_id"].iloc[0]}, speaker=None))


class TestLabels:
    def test_other_probabilities(self, about, clean):
        other = predict(about, recipe="published").rename(columns={"p_happy": "p_calm"})
        with pytest.raises(
            ParameterError,
            match=r"published_clean_speaker_paper.*: p_happy=nan, expected a probability in every row, of the same classes",
        ):
            check_predictions(pd.concat([clean, other]))

    def test_unknown_label(self, clean):
        with pytest.raises(ParameterError, match=r"utterance 1F_001 \(variant .*truth='fru'"):
            check_predictions(edited(clean, {"utterance_id": "1F_001"}, truth="fru"))

    def test_a_class_is_not_tested(self, about, clean):
        other = predict(about, recipe="published+D2")
        message = (
            r"D2_clean_speaker_paper, seed 111: utterance 1F_001 of speaker 1F has no test row.*\(20 missing"
        )
        with pytest.raises(RunError, match=message):
            check_predictions(pd.concat([clean, other[other["truth"] != "sad"]]))


class TestEdits:
    def test_rows_moved_to_another_split(self, clean):
        table = edited(clean, {"utterance_id": "2F_003", "split": "test"}, split="validation")
        message = r"clean_speaker_paper, seed 111, fold 2F: speaker 2F is in validation \(1 utterances\) and in test \(7\)"
        with pytest.raises(FoldError, match=message):
            check_predictions(table)

    def test_a_tested_speaker_in_train(self, clean):
        extra = clean[(clean["fold"] == "1F") & (clean["split"] == "test")].assign(split="train")
        with pytest.raises(
            FoldError, match=r"fold 1F: speaker 1F is in train \(8 utterances\) and in test \(8\)"
        ):
            check_predictions(pd.concat([clean, extra]))

    def test_a_training_speaker_in_published_selection(self, about):
        table = predict(about, selection="published")
        extra = table[(table["fold"] == "1F") & (table["split"] == "test")].assign(split="train")
        with pytest.raises(FoldError, match=r"speaker 1F is in train .* and in test"):
            check_predictions(pd.concat([table, extra]))

    def test_a_clean_table_called_published_without_a_name_of_a_protocol(self, about):
        # only the second part of the name excuses a shared speaker, not the recipe
        table = predict(about, selection="published").assign(variant="published")
        with pytest.raises(FoldError, match=r"variant published, .* is in validation"):
            check_predictions(table)

    @pytest.mark.parametrize("selection", ["clean", "published"])
    def test_another_speaker_in_a_cell(self, about, selection):
        table = predict(about, selection=selection)
        with pytest.raises(
            ParameterError, match=r"utterance 1F_002 .*speaker='(1F|5M)', expected the same in all rows"
        ):
            check_predictions(edited(table, {"utterance_id": "1F_002", "split": "test"}, speaker="5M"))

    def test_another_speaker_without_validation(self, about):
        table = predict(about, selection="last")
        with pytest.raises(FoldError, match="speaker 5M is tested in folds 1F and 5M"):
            check_predictions(edited(table, {"utterance_id": "1F_002"}, speaker="5M"))

    def test_another_truth_in_one_seed(self, about, clean):
        other = edited(predict(about, seed=211), {"utterance_id": "1F_002"}, truth="sad")
        with pytest.raises(
            ParameterError, match=r"utterance 1F_002 .*seed 211.*truth='sad', expected the same in all rows"
        ):
            check_predictions(pd.concat([clean, other]))

    def test_another_prediction(self, clean):
        row = clean[(clean["split"] == "test") & (clean["prediction"] == "sad")].iloc[0]
        table = edited(clean, {"utterance_id": row["utterance_id"], "split": "test"}, prediction="happy")
        with pytest.raises(
            ParameterError, match=r"prediction='happy', expected the likeliest label; rows like it: 1"
        ):
            check_predictions(table)

    def test_probabilities(self, clean):
        for value in (0.9, -0.5):
            with pytest.raises(ParameterError, match=r"fold 1M\): sum of probabilities=.*expected 1"):
                check_predictions(edited(clean, {"utterance_id": "1M_000", "split": "test"}, p_sad=value))

    def test_the_same_table_twice(self, clean):
        with pytest.raises(
            ParameterError,
            match=r"split='validation', expected one such row of this utterance; rows like it: 160",
        ):
            check_predictions(pd.concat([clean, clean]))

    def test_unknown_split(self, clean):
        with pytest.raises(ParameterError, match="split='dev', expected one of train, validation, test"):
            check_predictions(edited(clean, {"split": "validation"}, split="dev"))

    def test_variants_are_not_mixed(self, about, clean):
        with pytest.raises(ParameterError, match="mixes variants"):
            scored_rows(pd.concat([clean, predict(about, recipe="published+D2")]))


class TestProtocolInWords:
    PLANNED = ("1", "2", "3", "4", "5")

    def words(self, settings=None, folds=PLANNED, n=1200, seeds=(111,), planned=PLANNED, two=False):
        rows = pd.DataFrame({"utterance_id": range(n), "speaker": [f"{i % 10}" for i in range(n)]})
        rows = rows.assign(fold=[folds[i % len(folds)] for i in range(n)], split="test", variant="a")
        table = pd.concat(
            [rows.assign(seed=seed) for seed in seeds] + [rows.assign(seed=111, variant="b")] * two
        )
        table = pd.concat([table, table.assign(split="validation", utterance_id="v", fold="9")])
        return predictions.protocol_in_words(
            {"corpus": "demo", "by": "session"} | (settings or {}), table, planned
        )

    def test_a_whole_run(self):
        settings = vars(Experiment(recipe="corrected", selection="clean"))
        assert self.words(settings, n=400) == (
            "all five leave-one-session-out folds (400 utterances of 10 synthetic speakers; corrected features, "
            "checkpoint chosen on other speakers)"
        )

    @pytest.mark.parametrize(
        ("folds", "planned", "expected"),
        [
            (["3"], PLANNED, "fold 3 of five leave-one-session-out folds ("),
            (["1", "3"], PLANNED, "folds 1, 3 of five leave-one-session-out folds ("),
            (["1", "2"], None, "two leave-one-session-out folds ("),
            (["1", "2"], ["1", "2"], "both leave-one-session-out folds ("),
            (list("abcdef"), [*"abcdefghijkl"], "six of 12 leave-one-session-out folds ("),
        ],
    )
    def test_folds(self, folds, planned, expected):
        assert self.words(folds=folds, planned=planned).startswith(expected)

    def test_long_numbers_and_seeds(self):
        assert "(1,200 utterances of 10 synthetic speakers, 2 seeds)" in self.words(seeds=(111, 211))

    def test_a_variant_with_fewer_seeds(self):
        assert ", 1 to 3 seeds)" in self.words(seeds=(111, 211, 311), two=True)

    def test_no_setting_that_tells_variants_apart_is_left_out(self):
        """Two variants of a run would have the same caption otherwise."""
        assert set(predictions.WORDS["fusion"]) >= set(FUSIONS[1:]), "evaluation/words.toml"
        changes = [
            {}, {"recipe": "published"}, {"recipe": "published+D2"}, {"recipe": "corrected-D2"},
            {"selection": "published"}, {"selection": "last"}, {"by": "speaker"}, {"profile": "paper"},
            {"speech_encoder": "encoders/whisper-base"}, {"encoder_training": "frozen"}, {"encoder_training": "top_4"},
            {"encoder_layers": "weighted"}, {"encoder_layers": "9"}, {"views": "mfcc"}, {"views": "mfcc+speech"},
            *({"fusion": fusion} for fusion in FUSIONS[1:]),
        ]  # fmt: skip
        said = {Experiment(**change).variant: self.words(vars(Experiment(**change))) for change in changes}
        assert len(set(said.values())) == len(said) == len(changes)
        assert all(variant not in words and "_session_" not in words for variant, words in said.items())

    def test_every_corpus_has_words(self):
        assert set(predictions.WORDS["speakers"]) >= set(CORPORA), "evaluation/words.toml"
        for corpus in CORPORA:
            assert self.words({"corpus": corpus}).endswith(f"of 10 {predictions.WORDS['speakers'][corpus]})")
