"""Predictions of every epoch: kept whole, through interruptions, and the rule that training used among them."""

import pandas as pd
import pytest
from tones import make_tones, train

from serkit import runs
from serkit.constants import VIEW_SETS
from serkit.errors import RunError
from serkit.evaluation.comparison import apply_rule, epoch_scores, load_epochs
from serkit.runs import EPOCHS


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return make_tones(tmp_path_factory.mktemp("tones"))


class TestKept:
    @pytest.fixture(scope="class")
    @staticmethod
    def project(tones, tmp_path_factory):
        """A project with one finished fold of three epochs."""
        home = tmp_path_factory.mktemp("home")
        (home / "notebooks").mkdir()
        (home / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
        folder = runs.Experiment(epochs=3, batch_size=8, fold="1", keep_epochs=True).folder("trial", home)
        return home, train(tones, folder, keep_epochs=True)

    def test_one_table_with_all_of_them(self, project, monkeypatch):
        home, result = project
        monkeypatch.chdir(home)
        epochs = load_epochs("trial")
        n = len(result.predictions)
        assert epochs.groupby("epoch").size().to_dict() == {1: n, 2: n, 3: n}

    def test_the_rule_that_training_used_gives_its_result(self, project):
        """What is kept of the chosen epoch is what the saved model says of the same utterances."""
        _, result = project
        again = apply_rule(pd.read_parquet(result.folder / EPOCHS), "clean")
        pd.testing.assert_frame_equal(again, result.predictions, atol=1e-5)

    def test_validation_scores_are_those_of_the_history(self, project):
        _, result = project
        scores = epoch_scores(pd.read_parquet(result.folder / EPOCHS)).query("split == 'validation'")
        assert scores["ua"].tolist() == pytest.approx(result.history["validation_ua"].tolist())

    def test_without_it_nothing_is_kept_and_that_is_said(self, tones, tmp_path, monkeypatch):
        (tmp_path / "notebooks").mkdir()
        (tmp_path / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
        monkeypatch.chdir(tmp_path)
        folder = runs.Experiment(epochs=1, batch_size=8, views="mfcc", keep_epochs=False).folder(
            "trial", tmp_path
        )
        train(tones, folder, epochs=1, views="mfcc", keep_epochs=False)
        with pytest.raises(RunError, match=r"fold=1/seed=111 kept no predictions of its epochs; train with"):
            load_epochs("trial")

    def test_selection_last_keeps_the_test_speakers_only(self, tones, tmp_path):
        result = train(tones, tmp_path / "last", keep_epochs=True, selection="last", epochs=2, views="mfcc")
        epochs = pd.read_parquet(result.folder / EPOCHS)
        assert set(epochs["split"]) == {"test"}
        assert set(apply_rule(epochs, "last")["utterance_id"]) == set(result.predictions["utterance_id"])


@pytest.mark.parametrize("views", [name for name in VIEW_SETS if name != "all"])
def test_every_choice_of_views_trains(tones, tmp_path, views):
    """From the store to predictions, with a frozen encoder too: without speech there is nothing to freeze."""
    lines = []
    result = train(tones, tmp_path / "run", lines, views=views, epochs=1, encoder_training="frozen")
    assert len(result.predictions) == 16
    assert any(line.startswith("speech encoder:") for line in lines) == ("speech" in views)
    assert (tmp_path / "run" / "model" / "README.md").read_text().count("| views |") == 1
