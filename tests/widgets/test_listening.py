"""Analysis by ear: the tables by hand, the view by clicking, and what is said when something is missing."""

import json
import shutil
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest
import soundfile
import torch
from IPython.display import Audio

from serkit.constants import LABELS
from serkit.corpora.manifest import make_manifest
from serkit.errors import CorpusError, ParameterError, RunError
from serkit.experiment import Experiment
from serkit.features.audio import read
from serkit.features.images import SpectrogramScaler
from serkit.figures import paper_style, plot_attention
from serkit.model.coattention import DEMO, create_model
from serkit.model.storage import write_model_folder
from serkit.predict.predictor import Attention, Predictor
from serkit.recipe import CORRECTED
from serkit.runs import start_run
from serkit.widgets import earview, listening
from serkit.widgets.earboard import EarBoard
from serkit.widgets.earsummary import player
from serkit.widgets.earview import Listening

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


def write_run(home, predictions, run="demo"):
    """Finished folds with these predictions."""
    for (variant, fold, seed), rows in predictions.groupby(["variant", "fold", "seed"]):
        folder = home / "runs" / run / variant / f"fold={fold}" / f"seed={seed}"
        folder.mkdir(parents=True)
        rows.to_parquet(folder / "predictions.parquet")
        parameters = {"corpus": "demo", "fold": str(fold), "seed": int(seed)}
        (folder / "experiment.json").write_text(json.dumps({"parameters": parameters}))
        (folder / "DONE").write_text("x")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder of a network that has learned nothing."""
    torch.manual_seed(1)
    network = create_model(DEMO).eval()
    limits = (np.full(200, level, np.float32) for level in (-80, -5))
    return_to = tmp_path_factory.mktemp("trained") / "model"
    write_model_folder(
        return_to, network, recipe=CORRECTED, scaler=SpectrogramScaler(*limits), experiment=Experiment(),
        metrics={"wa_pooled": 0.5, "ua_pooled": 0.5, "n_utterances": 6},
    )  # fmt: skip
    return return_to


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
def board(home):
    return EarBoard("demo", VARIANT)


def shown(board):
    """Utterances on the page that is shown."""
    lines = [button.description for button in board.table.buttons if button.layout.display != "none"]
    return [line.replace("★", " ").split()[0] for line in lines]


def press(board, truth, prediction):
    board.matrix.buttons[truth, prediction].click()


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
        part = manifest_by_hand(tmp_path).iloc[[1]]
        assert listening.utterance_table(rows_by_hand(), part)["seconds"].tolist()[:2] == pytest.approx(
            [np.nan, 2.0], nan_ok=True
        )

    def test_duration_counts_samples_at_the_rate_of_the_file(self, tmp_path):
        manifest = manifest_by_hand(tmp_path).assign(sample_rate=8_000)
        assert listening.utterance_table(rows_by_hand(), manifest)["seconds"].tolist() == [2, 4, 6, 8, 10, 12]

    @pytest.mark.parametrize(
        ("choice", "ids"),
        [
            ({}, "abcdef"),
            ({"fold": "2"}, "def"),
            ({"speaker": "1F"}, "ab"),
            ({"seed": 111, "speaker": "2M"}, "f"),
        ],
    )
    def test_choice(self, table, choice, ids):
        assert "".join(listening.choose(table, **choice)["utterance_id"]) == ids

    def test_empty_choice(self, table):
        with pytest.raises(ParameterError, match="fold 1 and speaker 2F: no tested utterance"):
            listening.choose(table, fold="1", speaker="2F")

    def test_rows_behind_all_cells_are_the_table(self, table):
        counts = listening.counts_of(table)
        assert counts.loc["sad"].to_dict() == {"angry": 2, "sad": 1, "happy": 0, "neutral": 0}
        found = []
        for truth in LABELS:
            for guess in LABELS:
                if counts.loc[truth, guess]:
                    rows = listening.behind_cell(table, truth, guess)
                    assert len(rows) == counts.loc[truth, guess]
                    found += rows["utterance_id"].tolist()
        assert sorted(found) == list("abcdef")

    def test_empty_cell(self, table):
        with pytest.raises(ParameterError, match="no happy utterance was taken for sad here"):
            listening.behind_cell(table, "happy", "sad")
        with pytest.raises(ParameterError, match="no neutral utterance was recognised here"):
            listening.behind_cell(table, "neutral", "neutral")

    @pytest.mark.parametrize(
        ("order", "ids"),
        list(zip(listening.ORDERS, ["abdcef", "fecdba", "fedcba", "abcdef", "abcdef"], strict=True)),
    )
    def test_order(self, table, order, ids):
        assert "".join(listening.in_order(table.iloc[::-1], order)["utterance_id"]) == ids

    def test_unknown_order(self, table):
        with pytest.raises(ParameterError, match="order='mood', expected one of 'confidence, highest first'"):
            listening.in_order(table, "mood")

    def test_pages_together_are_the_table_once(self):
        table = pd.DataFrame({"x": range(23)})
        pages = [listening.page_of(table, number)[0] for number in range(listening.page_of(table, 0)[2])]
        assert [len(page) for page in pages] == [10, 10, 3]
        assert pd.concat(pages)["x"].tolist() == list(range(23))
        assert listening.page_of(table, -5)[1] == 0
        assert listening.page_of(table.iloc[:0], 4)[1:] == (0, 1)

    def test_lines_stand_below_each_other(self, table):
        heading, *lines = listening.text_lines(table, {listening.key_of(table.iloc[1])})
        assert heading.split() == [
            "★",
            "utterance",
            "speaker",
            "fold",
            "duration",
            "confidence",
            "truth",
            "taken",
            "for",
        ]
        assert [line[0] for line in lines] == [" ", "★", " ", " ", " ", " "]
        assert lines[0].split() == ["a", "1F", "1", "1.00", "s", "90.0%", "sad", "sad"]
        assert {line.index(" s ") for line in lines} == {lines[0].index(" s ")}
        assert heading.index("truth") == lines[0].index("sad")

    def test_lines_name_the_seed_only_where_there_are_several(self, table):
        two = pd.concat([table, table.assign(seed=211)])
        assert (
            "seed" in listening.text_lines(two)[0]
            and "–" in listening.text_lines(two.assign(seconds=np.nan))[1]
        )

    def test_sound_of_an_unknown_utterance(self):
        with pytest.raises(CorpusError, match="utterance a: its sound file is not known"):
            listening.sound_path(listening.utterance_table(rows_by_hand()).iloc[0])

    def test_silence_can_be_played(self):
        assert not np.frombuffer(player(np.zeros(800, np.float32)).data[44:], np.int16).any()


class TestAttention:
    def test_the_same_answer_as_prediction_gives(self, model, tmp_path):
        predictor = Predictor(model, device="cpu")
        manifest_by_hand(tmp_path)
        whole = predictor.predict(tmp_path / "e.wav")
        inside = predictor.attend(read(tmp_path / "e.wav"))
        assert inside.utterance == pytest.approx(whole.utterance, abs=1e-6)
        pd.testing.assert_frame_equal(inside.segments, whole.segments, atol=1e-6)
        assert inside.weights.shape == (2, 149) and inside.spectrogram.shape == (2, 200, 300)

    def test_padding_has_no_weight(self, model, tmp_path):
        manifest_by_hand(tmp_path)
        weights = Predictor(model, device="cpu").attend(read(tmp_path / "a.wav")).weights
        assert weights[0, :49].max() > 0  # 1 s is (16000 - 400) // 320 + 1 = 49 frames
        assert not weights[0, 49:].any()

    def test_segments_are_computed_in_batches(self, model, tmp_path, monkeypatch):
        manifest_by_hand(tmp_path)
        predictor, waveform = Predictor(model, device="cpu"), read(tmp_path / "f.wav")
        together = predictor.attend(waveform)
        monkeypatch.setattr("serkit.predict.predictor.BATCH_SEGMENTS", 1)
        np.testing.assert_allclose(predictor.attend(waveform).weights, together.weights, atol=1e-6)

    def test_panels_share_their_scale(self):
        weights = np.zeros((3, 149))
        weights[0, 10], weights[2, 5] = 4.0, 1.0
        about = {"start_s": 0.0, "end_s": 3.0, "emotion": "sad", **{f"p_{label}": 0.25 for label in LABELS}}
        attention = Attention(
            {}, pd.DataFrame([about] * 3), weights, np.full((3, 200, 300), -20.0), np.full(3, 300)
        )
        with paper_style(columns=2, height=4):
            figure = plot_attention(attention, plt.figure())
        fronts = [ax for ax in figure.axes if ax.lines]
        assert [ax.get_ylim()[1] for ax in fronts] == pytest.approx([4.2] * 3)
        assert fronts[0].lines[0].get_ydata().max() == 4
        assert [ax.get_title() for ax in figure.axes[:4]] == ["0.0–3.0 s: sad 25%"] * 3 + [""]


class TestView:
    def test_matrix_shows_counts_and_shares(self, board):
        assert board.said == ""
        texts = {place: button.description for place, button in board.matrix.buttons.items()}
        assert texts["sad", "angry"] == "66.7%\n(2)"
        assert texts["sad", "happy"] == "0.0%\n(0)"
        assert texts["neutral", "sad"] == "–"
        assert board.matrix.buttons["sad", "happy"].style.text_color == "black"
        assert board.matrix.buttons["angry", "angry"].style.text_color == "white"

    def test_picking_a_cell_lists_its_utterances(self, board):
        press(board, "sad", "angry")
        assert shown(board) == ["b", "c"]
        assert board.table.place.value == "1 to 2 of 2"
        picked = [place for place, one in board.matrix.buttons.items() if "serkit-picked" in one._dom_classes]
        assert picked == [("sad", "angry")]

    def test_sorting(self, board):
        press(board, "sad", "angry")
        board.order.value = "duration, longest first"
        assert shown(board) == ["c", "b"]

    def test_choosing_narrows_the_matrix_and_keeps_the_cell(self, board):
        press(board, "sad", "angry")
        board.choices["speaker"].value = "1M"
        assert board.matrix.buttons["sad", "angry"].description == "100.0%\n(1)"
        assert shown(board) == ["c"]

    def test_empty_choice_and_empty_cell_are_a_sentence(self, board):
        board.choices["fold"].value = "1"
        board.choices["speaker"].value = "2M"
        assert "fold 1 and speaker 2M: no tested utterance" in board.message.value
        assert board.matrix.buttons["sad", "sad"].description == "–"
        board.choices["fold"].value = listening.ALL
        assert board.message.value == ""
        press(board, "angry", "sad")
        assert "no angry utterance was taken for sad" in board.message.value

    def test_selecting_without_a_model(self, board):
        press(board, "sad", "angry")
        board.table.buttons[0].click()
        pane = board.pane
        assert "<b>b</b>, speaker 1F: sad, taken for angry (80.0%)" in pane.title.value
        assert "Go &lt;home&gt;." in pane.title.value
        sound = np.frombuffer(pane.player.value[44:], np.int16)
        assert pane.player.value == Audio(read("sounds/b.wav"), rate=RATE).data and len(sound) == 2 * RATE
        assert "No co-attention to show, the spectrogram alone: model folder" in pane.note.value
        assert "<img" in pane.picture.value and pane.table.value == ""

    def test_selecting_with_a_model(self, board, model, monkeypatch):
        for fold in ("1", "2"):
            shutil.copytree(model, f"runs/demo/{VARIANT}/fold={fold}/seed=111/model")
        made = []
        monkeypatch.setattr(
            "serkit.widgets.earboard.Predictor", lambda folder: made.append(folder) or Predictor(folder)
        )
        press(board, "happy", "happy")
        board.table.buttons[0].click()
        assert board.pane.note.value == ""
        assert "0.00–3.00 s" in board.pane.table.value and "2.00–5.00 s" in board.pane.table.value
        assert "happy (true)" in board.pane.table.value and "<img" in board.pane.picture.value
        press(board, "happy", "angry")
        board.table.buttons[0].click()
        assert len(made) == 1  # the same fold: read once
        press(board, "sad", "angry")
        board.table.buttons[0].click()
        assert [folder.parts[-3] for folder in made] == ["fold=2", "fold=1"]

    def test_only_the_selected_sound_is_read(self, board, monkeypatch):
        opened = []
        monkeypatch.setattr("serkit.widgets.earboard.read", lambda path: opened.append(path) or read(path))
        press(board, "sad", "angry")
        assert opened == []
        board.table.buttons[1].click()
        assert [path.rpartition("/")[2] for path in opened] == ["c.wav"]

    def test_marking_and_exporting(self, board):
        assert board.export.disabled
        press(board, "sad", "angry")
        board.table.buttons[0].click()
        board.pane.mark.click()
        assert board.pane.mark.description == "★ marked"
        assert (
            board.table.buttons[0].description.startswith("★")
            and "serkit-picked" in board.table.buttons[0]._dom_classes
        )
        press(board, "happy", "happy")
        board.table.buttons[0].click()
        assert board.pane.mark.description == "☆ mark it"
        board.pane.mark.click()
        board.export.click()
        assert board.said == "the list is in figures/demo/marked.csv (marked: 2)"
        written = pd.read_csv("figures/demo/marked.csv")
        assert written["utterance_id"].tolist() == ["b", "e"]
        assert written["confidence"].tolist() == pytest.approx([0.8, 0.5])
        assert "path" not in written
        board.pane.mark.click()
        board.export.click()
        assert pd.read_csv("figures/demo/marked.csv")["utterance_id"].tolist() == ["b"]

    def test_marks_of_a_leaking_variant_say_so(self, home):
        row = listening.utterance_table(rows_by_hand()).iloc[0].to_dict()
        row["variant"] = VARIANT.replace("clean", "published")
        listening.save_marked("demo", [row], corpus="demo")
        assert (
            "Leak: the checkpoint was chosen"
            in json.loads((home / "figures/demo/marked.json").read_text())["caption"]
        )

    def test_nothing_to_export_or_mark(self, board):
        board.export.click()
        assert "marked list: 0 utterances" in board.said
        board.mark()
        assert "no utterance is selected" in board.said

    def test_other_run_and_variant(self, board, home):
        write_run(home, rows_by_hand().assign(prediction="neutral"), run="other")
        second = rows_by_hand()[:2].assign(variant="published_clean_session_demo")
        write_run(home, second)
        board = EarBoard("demo", VARIANT)
        assert [name for name, _ in board.choices["run"].options] == ["demo", "other"]
        board.choices["variant"].value = "published_clean_session_demo"
        assert (board.said, len(board.utterances)) == ("", 2)
        board.choices["run"].value = "other"
        assert board.matrix.buttons["sad", "neutral"].description == "100.0%\n(3)"
        assert board.variant == VARIANT


class TestMissing:
    def test_sound(self, board, home):
        (home / "sounds" / "b.wav").unlink()
        press(board, "sad", "angry")
        board.table.buttons[0].click()
        assert "No sound to play:" in board.pane.note.value and "b.wav: no such file" in board.pane.note.value
        assert board.pane.player.layout.display == "none"
        board.table.buttons[1].click()
        assert board.pane.player.layout.display == ""

    def test_sound_that_is_none(self, board, home):
        (home / "sounds" / "b.wav").write_text("no sound")
        press(board, "sad", "angry")
        board.table.buttons[0].click()
        assert "b.wav: not readable as audio" in board.pane.note.value

    def test_corpus(self, home):
        shutil.rmtree(home / "data")
        board = EarBoard("demo", VARIANT)
        assert "manifest.parquet is missing; run notebook 01_prepare_corpus" in board.said
        press(board, "sad", "angry")
        assert shown(board) == ["b", "c"] and "–" in board.table.buttons[0].description
        board.table.buttons[0].click()
        assert "utterance b: its sound file is not known" in board.pane.note.value

    def test_damaged_model(self, board, home, model):
        folder = home / "runs" / "demo" / VARIANT / "fold=1" / "seed=111" / "model"
        shutil.copytree(model, folder)
        (folder / "features.json").write_text("{")
        press(board, "sad", "angry")
        board.table.buttons[0].click()
        assert (
            "features.json: damaged or unreadable" in board.pane.note.value
            and "<img" in board.pane.picture.value
        )

    def test_run_deleted_meanwhile(self, board, home):
        press(board, "sad", "angry")
        shutil.rmtree(home / "runs")
        board.table.buttons[0].click()
        assert board.pane.player.value and "model folder" in board.pane.note.value
        press(board, "sad", "sad")
        assert shown(board) == ["a"]  # the tables were read before

    def test_run_deleted_before_it_is_chosen(self, board, home):
        write_run(home, rows_by_hand(), run="other")
        board = EarBoard("demo", VARIANT)
        shutil.rmtree(home / "runs" / "other")
        board.choices["run"].value = "other"
        assert "run 'other': no finished fold" in board.said and "no finished fold" in board.message.value
        press(board, "sad", "sad")
        assert "run 'other' could not be read" in board.said
        board.choices["run"].value = "demo"
        assert board.said == "" and board.matrix.buttons["sad", "sad"].description == "33.3%\n(1)"

    def test_predictions_of_a_fold(self, home):
        (home / "runs" / "demo" / VARIANT / "fold=1" / "seed=111" / "predictions.parquet").unlink()
        assert (
            "predictions.parquet is missing, although the fold is marked as done"
            in EarBoard("demo", VARIANT).said
        )


class TestShow:
    @pytest.fixture
    def displayed(self, monkeypatch):
        bundles = []
        monkeypatch.setattr(earview, "display", lambda bundle, raw: bundles.append(bundle))
        return bundles

    def test_without_a_page_only_the_summary(self, home, displayed):
        listen = Listening(start_run("demo", corpus="demo"), mistakes=2)
        listen.show()
        (bundle,) = displayed
        assert listen.board is None
        html = bundle["text/html"]
        assert '<details class="serkit-summary" open>' in html and "The matrix to click is left out" in html
        assert html.count("<img") == 1 and html.count("<audio") == 2
        assert "Go &lt;home&gt;." in html
        assert bundle["text/plain"].splitlines()[1:] == [
            "b: sad, taken for angry (80%)", "d: happy, taken for angry (70%)", "c: sad, taken for angry (60%)",
        ]  # fmt: skip

    def test_on_a_page_the_view_and_a_folded_summary(self, home, displayed):
        listen = Listening("demo")
        listen.show(widgets=True)
        view, summary = displayed
        assert view["text/plain"] == earview.IN_PLAIN
        assert view["application/vnd.jupyter.widget-view+json"]["model_id"] == listen.board.box.model_id
        assert (
            '<details class="serkit-summary">' in summary["text/html"]
            and "left out" not in summary["text/html"]
        )

    def test_missing_sound_is_a_sentence_in_its_row(self, home, displayed):
        (home / "sounds" / "b.wav").unlink()
        Listening("demo").show(widgets=False)
        assert (
            displayed[0]["text/html"].count("<audio") == 2
            and "b.wav: no such file" in displayed[0]["text/html"]
        )

    def test_without_a_mistake(self, home, displayed):
        shutil.rmtree(home / "runs")
        right = rows_by_hand()
        write_run(home, right[right["truth"] == right["prediction"]])
        Listening("demo").show(widgets=False)
        assert "There is no mistake." in displayed[0]["text/html"]

    def test_missing_corpus_and_missing_run(self, home, displayed):
        shutil.rmtree(home / "data")
        Listening("demo").show(widgets=False)
        assert "manifest.parquet is missing" in displayed[0]["text/plain"]
        shutil.rmtree(home / "runs")
        Listening("demo").show(widgets=True)
        assert "run 'demo': no finished fold" in displayed[2]["text/plain"]

    @pytest.mark.parametrize("mistakes", [-1, 21, 2.5, True])
    def test_refuses_a_number_of_players(self, mistakes):
        with pytest.raises(
            ParameterError, match=r"mistakes=.* players, expected a whole number from 0 to 20"
        ):
            Listening("demo", mistakes=mistakes)

    @pytest.mark.parametrize(("metadata", "live"), [({}, False), ({"cellId": "x"}, True), (None, False)])
    def test_who_runs_the_cell(self, monkeypatch, metadata, live):
        class Kernel:
            def get_parent(self):
                return {"metadata": metadata}

        shell = type("Shell", (), {"kernel": Kernel()})
        monkeypatch.setattr(earview, "get_ipython", lambda: shell)
        assert earview.is_live() == live

    def test_outside_of_a_kernel_nobody_clicks(self):
        assert not earview.is_live()


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
    board = EarBoard("large", VARIANT)
    took = []
    for action in (
        lambda: press(board, "sad", "happy"),
        lambda: board.table.next.click(),
        lambda: setattr(board.order, "value", "speaker"),
        lambda: setattr(board.choices["speaker"], "value", "3F"),
    ):
        start = time.perf_counter()
        action()
        took.append(time.perf_counter() - start)
    assert board.said == "" and len(shown(board)) == 10
    expected = table[
        (table["truth"] == "sad") & (table["prediction"] == "happy") & (table["speaker"] == "3F")
    ]
    assert len(board.table.rows) == len(expected)
    assert max(took) < 1, took


def test_runs_on_disk_are_those_with_a_finished_fold(home):
    (home / "runs" / "started" / VARIANT / "fold=1" / "seed=111").mkdir(parents=True)
    assert listening.runs_on_disk() == ["demo"]
    with pytest.raises(RunError, match="run 'started': no finished fold"):
        listening.variants_on_disk("started")
