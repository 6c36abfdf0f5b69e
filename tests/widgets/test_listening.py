"""Analysis by ear: the tables by hand, the view by clicking, and what is said when something is missing."""

import json
import shutil
import time

import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest
import soundfile
from voices import write_model

from serkit import features
from serkit.constants import LABELS
from serkit.corpora.manifest import make_manifest
from serkit.errors import ParameterError
from serkit.experiment import Experiment
from serkit.features.audio import read
from serkit.recipe import CORRECTED
from serkit.runs import start_run
from serkit.widgets import listening
from serkit.widgets.lecture import player
from serkit.widgets.listening import ListeningView, listen

VARIANT = Experiment().variant
RATE = 16_000


def rows_by_hand():
    """Six predictions of two folds; the confidence and the truth of each can be counted on fingers."""
    guesses = [
        ("a", "1F", "1", "sad", "sad", 0.9), ("b", "1F", "1", "sad", "angry", 0.8), ("c", "1M", "1", "sad", "angry", 0.6),
        ("d", "2F", "2", "happy", "angry", 0.7), ("e", "2F", "2", "happy", "happy", 0.5), ("f", "2M", "2", "angry", "angry", 0.4),
    ]  # fmt: skip
    names = ["utterance_id", "speaker", "session", "truth", "prediction", "sure"]
    table = pd.DataFrame(guesses, columns=names).assign(seed=111, variant=VARIANT, split="test")
    table["fold"] = table["session"]
    return tables.with_probabilities(table, table["sure"]).drop(columns="sure")


def manifest_by_hand(folder):
    """Sounds of 1 to 6 s: a tone of the speaker's own pitch."""
    about = []
    for number, row in enumerate(rows_by_hand().itertuples(), start=1):
        path = folder / f"{row.utterance_id}.wav"
        time_s = np.arange(number * RATE) / RATE
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * 200 * number * time_s), RATE)
        about.append({
            "utterance_id": row.utterance_id, "path": str(path), "corpus": "demo", "speaker": row.speaker,
            "session": row.session, "gender": row.speaker[-1], "dialogue": "d", "scripted": True,
            "emotion": row.truth, "label": row.truth, "num_samples": number * RATE, "sample_rate": RATE,
            "transcript": "Go <home>." if row.utterance_id == "b" else None,
        })  # fmt: skip
    return make_manifest(about)


def write_run(home, predictions, run="demo", selection="clean"):
    """Finished folds with these predictions."""
    for (variant, fold, seed), rows in predictions.groupby(["variant", "fold", "seed"]):
        folder = home / "runs" / run / variant / f"fold={fold}" / f"seed={seed}"
        folder.mkdir(parents=True)
        rows.to_parquet(folder / "predictions.parquet")
        parameters = {"corpus": "demo", "fold": str(fold), "seed": int(seed), "selection": selection}
        (folder / "experiment.json").write_text(json.dumps({"parameters": parameters}))
        (folder / "DONE").write_text("x")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder of a network that has learned nothing."""
    return write_model(tmp_path_factory.mktemp("trained") / "model", CORRECTED)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with one run of two folds and its corpus, without models."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
    (tmp_path / "sounds").mkdir()
    (tmp_path / "data" / "processed" / "demo").mkdir(parents=True)
    manifest_by_hand(tmp_path / "sounds").to_parquet(tmp_path / "data/processed/demo/manifest.parquet")
    write_run(tmp_path, rows_by_hand())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def view(home):
    return ListeningView("demo", *listening.load_utterances("demo"))


def shown(view):
    """Utterances that are listed."""
    return view.rows["utterance_id"].tolist()


def press(view, truth, prediction, utterance=None):
    """Click a cell, and then the utterance with this number in the list, from 1 on."""
    view.cells[truth, prediction].click()
    if utterance is not None:
        view.list.index = utterance


class TestTables:
    @pytest.fixture
    def table(self, tmp_path):
        return listening.utterance_table(rows_by_hand(), manifest_by_hand(tmp_path))

    def test_only_tested_rows_count(self):
        rows = rows_by_hand()
        rows.loc[0, "split"] = "validation"
        assert listening.utterance_table(rows)["utterance_id"].tolist() == list("bcdef")

    def test_what_the_manifest_adds(self, table):
        assert table["seconds"].tolist() == [1, 2, 3, 4, 5, 6]
        assert table["confidence"].tolist() == pytest.approx([0.9, 0.8, 0.6, 0.7, 0.5, 0.4])
        assert table["transcript"].dropna().tolist() == ["Go <home>."]

    def test_without_manifest_or_with_a_smaller_one(self, tmp_path):
        assert listening.utterance_table(rows_by_hand())["seconds"].isna().all()
        part = manifest_by_hand(tmp_path).iloc[[1]].assign(sample_rate=8_000)
        assert listening.utterance_table(rows_by_hand(), part)["seconds"].tolist()[:2] == pytest.approx(
            [np.nan, 4.0], nan_ok=True
        )

    def test_lines_stand_below_each_other(self, table):
        lines = listening.text_lines(table.assign(seconds=table["seconds"].replace(2, np.nan)))
        assert lines[0].split() == ["utterance_id", "speaker", "fold", "seed", "seconds", "confidence"]
        assert lines[1].split() == ["a", "1F", "1", "111", "1.00", "90.0", "%"] and "–" in lines[2]
        assert len({len(line) for line in lines}) == 1

    def test_surest_mistakes_count_an_utterance_once(self, table):
        again = pd.concat([table, table.assign(seed=211)])
        assert listening.surest_mistakes(again, 2)["utterance_id"].tolist() == ["b", "d"]


class TestView:
    def test_matrix_shows_counts_and_shares(self, view):
        assert (
            view.message.value == "<div class='serkit-said'>Run demo, variant "
            f"{VARIANT}: 6 predictions of the test sets.</div>"
        )
        texts = {cell: button.description for cell, button in view.cells.items()}
        assert texts["sad", "angry"] == "66.7 %\n(2)"
        assert texts["sad", "happy"] == "0.0 %\n(0)"
        assert texts["neutral", "sad"] == "0.0 %\n(0)"
        assert view.cells["sad", "happy"].style.text_color == "black"
        assert view.cells["angry", "angry"].style.text_color == "white"

    def test_rows_behind_all_cells_are_the_table(self, view):
        found = []
        for truth in LABELS:
            for guess in LABELS:
                press(view, truth, guess)
                found += shown(view)
        assert sorted(found) == list("abcdef")

    def test_picking_a_cell_lists_its_utterances(self, view):
        press(view, "sad", "angry")
        assert shown(view) == ["b", "c"]
        assert [cell for cell, button in view.cells.items() if button.layout.border_top] == [("sad", "angry")]
        assert view.list.index == 0 and view.pane.layout.display == "none"
        assert [line.split()[0] for line, _ in view.list.options] == ["utterance_id", "b", "c"]

    def test_sorting(self, view):
        press(view, "sad", "angry")
        view.order.label = "duration"
        assert shown(view) == ["c", "b"]

    def test_choosing_narrows_the_matrix_and_keeps_the_cell(self, view):
        press(view, "sad", "angry")
        view.filters["speaker"].value = "1M"
        assert view.cells["sad", "angry"].description == "100.0 %\n(1)"
        assert shown(view) == ["c"]

    def test_empty_choice_and_empty_cell_list_nothing(self, view):
        press(view, "angry", "sad")
        assert shown(view) == [] and view.list.layout.display == "none"
        press(view, "sad", "sad")
        view.filters["fold"].value = "1"
        view.filters["speaker"].value = "2M"
        assert {button.description for button in view.cells.values()} == {"0.0 %\n(0)"} and shown(view) == []
        view.filters["speaker"].value = listening.ALL
        assert shown(view) == ["a"]

    def test_selecting_without_a_model(self, view):
        press(view, "sad", "angry", 1)
        assert "<b>b</b>, speaker 1F: sad, predicted angry (80.0 %)" in view.words.value
        assert "Go &lt;home&gt;." in view.words.value
        assert player(read("sounds/b.wav"), equal_peaks=True).src_attr() in view.words.value
        assert "No co-attention, the spectrogram alone: model folder" in view.seen.value
        assert "<img" in view.seen.value and "<table" not in view.seen.value

    def test_selecting_with_a_model(self, view, model):
        shutil.copytree(model, f"runs/demo/{VARIANT}/fold=2/seed=111/model")
        press(view, "happy", "happy", 1)
        seen = view.seen.value
        assert "serkit-said" not in seen and "<img" in seen and "The whole utterance: angry" in seen
        assert seen.count("<tr") == 1 + 2  # 5 s: two segments
        press(view, "sad", "angry", 1)  # of fold 1, which has none
        assert "No co-attention" in view.seen.value

    def test_only_the_selected_sound_is_read(self, view, monkeypatch):
        opened = []
        monkeypatch.setattr(features, "read", lambda path: opened.append(path) or read(path))
        press(view, "sad", "angry")
        assert opened == []
        view.list.index = 2
        assert [path.rpartition("/")[2] for path in opened] == ["c.wav"]

    def test_marking_and_exporting(self, view, monkeypatch):
        assert view.export.disabled
        press(view, "sad", "angry", 1)
        view.mark.click()
        assert view.list.index == 1 and view.mark.description == "★ marked"
        press(view, "happy", "happy", 1)
        assert view.mark.description == "☆ mark"
        view.mark.click()
        assert view.export.description == "Export 2 marked"
        view.export.click()
        assert "marked: 2, written to figures/demo/marked.csv" in view.message.value
        written = pd.read_csv("figures/demo/marked.csv")
        assert written["utterance_id"].tolist() == ["b", "e"]
        assert written["confidence"].tolist() == pytest.approx([0.8, 0.5])
        assert "path" not in written
        view.mark.click()
        view.export.click()
        assert pd.read_csv("figures/demo/marked.csv")["utterance_id"].tolist() == ["b"]

    def test_an_export_that_fails_is_a_sentence(self, view, home):
        (home / "figures").write_text("a file where the folder should be")
        press(view, "sad", "angry", 1)
        view.mark.click()
        view.export.click()
        assert "serkit-said" in view.message.value and "figures" in view.message.value

    def test_marks_of_a_leaking_variant_say_so(self, home):
        write_run(home, rows_by_hand(), run="leaking", selection="published")
        view = ListeningView("leaking", *listening.load_utterances("leaking"))
        press(view, "sad", "angry", 1)
        view.mark.click()
        view.export.click()
        caption = json.loads((home / "figures/leaking/marked.json").read_text())["caption"]
        assert "Leak: the checkpoint was chosen" in caption


class TestBlind:
    """Labels are hidden until the emotion of an utterance has been guessed."""

    @pytest.fixture
    def blind(self, view):
        press(view, "sad", "angry", 1)
        view.blind.value = True
        return view

    def hidden(self, view):
        """Whether nothing but a player, and no label beside the four buttons, is to be seen."""
        words = view.words.value.partition("<audio")
        return (
            view.listed.layout.display == "none"
            and view.mark.layout.display == "none"
            and not words[0].strip()
            and bool(words[1])
            and not view.seen.value
            and not any(button.button_style for button in view.guesses.values())
        )

    def test_nothing_but_a_player(self, blind, monkeypatch):
        assert blind.game.layout.display == "" and self.hidden(blind)
        assert blind.score.value == "6 utterances: which emotion do you hear?"
        assert blind.next.disabled and not any(button.disabled for button in blind.guesses.values())

    def test_a_round_to_its_score(self, blind):
        """Always right: six of six; the model has a, e and f right."""
        played = []
        for left in range(5, -1, -1):
            assert self.hidden(blind) and len(blind.deck) == left
            played.append(blind.row["utterance_id"])
            blind.guesses[blind.row["truth"]].click()
            assert blind.listed.layout.display == "none" and blind.mark.layout.display == ""
            if left:
                blind.next.click()
        assert sorted(played) == list("abcdef")
        assert blind.score.value == "<b>you 6 of 6, the model 3 of 6</b>"
        assert blind.next.description == "another round"
        blind.next.click()
        assert self.hidden(blind) and blind.score.value.startswith("6 utterances")

    def test_a_guess_shows_what_was_hidden(self, blind):
        blind.filters["speaker"].value = "1F"  # a and b, both sad
        blind.guesses["happy"].click()
        named = {"a": "sad, predicted sad (90.0 %)", "b": "sad, predicted angry (80.0 %)"}[
            blind.row["utterance_id"]
        ]
        assert "You guessed happy." in blind.words.value and named in blind.words.value
        assert "No co-attention, the spectrogram alone" in blind.seen.value and "<img" in blind.seen.value
        styles = {label: button.button_style for label, button in blind.guesses.items()}
        assert styles == {"angry": "", "sad": "success", "happy": "danger", "neutral": ""}
        assert all(button.disabled for button in blind.guesses.values()) and not blind.next.disabled
        right = int(blind.row["utterance_id"] == "a")
        assert blind.score.value == f"<b>you 0 of 1, the model {right} of 1</b>"

    def test_an_utterance_counts_once_and_rounds_are_short(self, home, monkeypatch):
        again = [rows_by_hand().assign(seed=seed) for seed in (111, 211)]
        monkeypatch.setattr(listening, "ROUND", 4)
        table = listening.utterance_table(pd.concat(again), manifest_by_hand(home / "sounds"))
        view = ListeningView("demo", table, {})
        for _ in range(5):
            view.blind.value = True
            drawn = [view.row, *view.deck]
            assert len({row["utterance_id"] for row in drawn}) == len(drawn) == 4
            view.blind.value = False

    def test_without_a_sound_it_goes_on(self, blind, home):
        shutil.rmtree(home / "sounds")
        blind.filters["speaker"].value = "1F"
        for last in (False, True):
            assert "No sound to play" in blind.seen.value and blind.row["truth"] not in blind.words.value
            assert all(button.disabled for button in blind.guesses.values()) and not blind.next.disabled
            assert (blind.next.description == "another round") == last
            blind.next.click()
        assert blind.heard == 0 and len(blind.deck) == 1

    def test_an_empty_choice(self, blind):
        blind.filters["fold"].value = "1"
        blind.filters["speaker"].value = "2M"
        assert blind.score.value.startswith("0 utterances") and blind.pane.layout.display == "none"
        blind.next.click()
        assert blind.row is None

    def test_back_to_the_matrix(self, blind):
        blind.guesses["sad"].click()
        blind.mark.click()
        blind.blind.value = False
        assert blind.game.layout.display == "none" and blind.listed.layout.display == ""
        assert shown(blind) == ["b", "c"] and blind.pane.layout.display == "none"
        assert blind.export.description == "Export 1 marked"


class TestMissing:
    @pytest.mark.parametrize(("content", "said"), [(None, "no such file"), ("text", "not readable as audio")])
    def test_sound(self, view, home, content, said):
        (home / "sounds" / "b.wav").unlink()
        if content:
            (home / "sounds" / "b.wav").write_text(content)
        press(view, "sad", "angry", 1)
        assert "No sound to play:" in view.seen.value and f"b.wav: {said}" in view.seen.value
        assert "<audio" not in view.words.value
        view.list.index = 2
        assert "<audio" in view.words.value

    def test_corpus(self, home):
        shutil.rmtree(home / "data")
        view = ListeningView("demo", *listening.load_utterances("demo"))
        assert "manifest.parquet is missing; run notebook 01_prepare_corpus" in view.message.value
        press(view, "sad", "angry", 1)
        assert shown(view) == ["b", "c"] and "–" in view.list.options[1][0]
        assert "utterance b: its sound file is not known" in view.seen.value

    def test_damaged_model(self, view, home, model):
        folder = home / "runs" / "demo" / VARIANT / "fold=1" / "seed=111" / "model"
        shutil.copytree(model, folder)
        (folder / "features.json").write_text("{")
        press(view, "sad", "angry", 1)
        assert (
            "features.json: damaged, or not of the files beside it" in view.seen.value
            and "<img" in view.seen.value
        )

    def test_run_deleted_meanwhile(self, view, home):
        shutil.rmtree(home / "runs")
        press(view, "sad", "angry", 1)
        assert "<audio" in view.words.value and "model folder" in view.seen.value
        press(view, "sad", "sad")
        assert shown(view) == ["a"]  # the tables were read before


class TestShow:
    @pytest.fixture
    def displayed(self, monkeypatch):
        bundles = []
        monkeypatch.setattr(listening, "display", lambda bundle, raw: bundles.append(bundle))
        return bundles

    def test_without_a_page_only_the_summary(self, home, displayed):
        assert listen(start_run("demo", corpus="demo"), mistakes=2) is None
        (bundle,) = displayed
        html = bundle["text/html"]
        assert '<details class="serkit-summary" open>' in html and "The matrix to click is left out" in html
        assert html.count("<img") == 0 and html.count("<audio") == 2
        assert "Go &lt;home&gt;." in html
        lines = [line.split() for line in bundle["text/plain"].splitlines()[2:]]
        assert lines == [["b", "1F", "sad", "angry", "0.8"], ["d", "2F", "happy", "angry", "0.7"],
                         ["c", "1M", "sad", "angry", "0.6"]]  # fmt: skip

    def test_on_a_page_the_view_and_a_folded_summary(self, home, displayed, monkeypatch):
        monkeypatch.setattr(listening, "is_live", lambda: True)
        shown_view = listen("demo")
        view, summary = displayed
        assert view["text/plain"] == listening.IN_PLAIN
        assert view["application/vnd.jupyter.widget-view+json"]["model_id"] == shown_view.box.model_id
        assert (
            '<details class="serkit-summary">' in summary["text/html"]
            and "left out" not in summary["text/html"]
        )

    def test_missing_sound_is_a_sentence_in_its_row(self, home, displayed):
        (home / "sounds" / "b.wav").unlink()
        listen("demo")
        assert (
            displayed[0]["text/html"].count("<audio") == 2
            and "b.wav: no such file" in displayed[0]["text/html"]
        )

    def test_what_is_missing_is_said(self, home, displayed):
        shutil.rmtree(home / "data")
        listen("demo")
        assert "manifest.parquet is missing" in displayed.pop()["text/plain"]
        folder = home / "runs" / "demo" / VARIANT / "fold=1" / "seed=111"
        (folder / "predictions.parquet").unlink()
        listen("demo")
        said = displayed.pop()["text/plain"]
        assert "predictions.parquet is missing, but the fold is marked as done" in said
        shutil.rmtree(home / "runs")
        listen("demo")
        assert "run 'demo': no finished fold" in displayed.pop()["text/plain"]

    @pytest.mark.parametrize("mistakes", [-1, 21, 2.5])
    def test_refuses_a_number_of_players(self, mistakes):
        with pytest.raises(ParameterError, match=r"mistakes=.*, expected a whole number from 0 to 20"):
            listen("demo", mistakes=mistakes)


def test_thousands_of_utterances_answer_within_a_second(home):
    """As many as IEMOCAP's four classes hold; the view itself takes hundredths of a second."""
    rng = np.random.default_rng(5)
    n, speakers = 5531, np.array(tables.SPEAKERS)
    speaker = speakers[rng.integers(0, 10, n)]
    table = pd.DataFrame({"utterance_id": [f"u{i:05d}" for i in range(n)], "speaker": speaker})
    table["session"] = table["fold"] = table["speaker"].str[0]
    table["truth"], table["prediction"] = (np.array(LABELS)[rng.integers(0, 4, n)] for _ in range(2))
    table = tables.with_probabilities(table, rng.uniform(0.3, 1, n)).assign(
        seed=111, variant=VARIANT, split="test"
    )
    write_run(home, table, run="large")
    view = ListeningView("large", *listening.load_utterances("large"))
    took = []
    for action in (
        lambda: press(view, "sad", "happy"),
        lambda: setattr(view.filters["fold"], "value", "3"),
        lambda: setattr(view.order, "label", "duration"),
        lambda: setattr(view.filters["speaker"], "value", "3F"),
    ):
        start = time.perf_counter()
        action()
        took.append(time.perf_counter() - start)
    expected = table[
        (table["truth"] == "sad") & (table["prediction"] == "happy") & (table["speaker"] == "3F")
    ]
    assert len(view.rows) == len(expected)
    assert max(took) < 1, took
