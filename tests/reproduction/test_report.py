"""The report: verdicts beside the paper, what may stand there, what is refused, and one page of it all."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest
import soundfile

from serkit import runs
from serkit.constants import LABELS
from serkit.errors import FoldError, ParameterError, RunError
from serkit.evaluation import claims
from serkit.figures import DIGEST, confusion_difference
from serkit.reproduction import page, report

PUBLISHED = "published_published_session_paper"
CLEAN = "corrected_clean_session_paper"


@pytest.fixture
def no_figures(monkeypatch):
    """A report of tables: figures take seconds to draw."""
    monkeypatch.setattr(report, "run_figures", lambda *_: [])


def write_folds(project, table, corpus, run="trial", planned=(), **changes):
    """A finished run with these predictions, one folder for each fold and seed; ``planned`` may name more."""
    for (variant, fold, seed), rows in table.groupby(["variant", "fold", "seed"]):
        folder = project / "runs" / run / variant / f"fold={fold}" / f"seed={seed}"
        folder.mkdir(parents=True)
        rows.to_parquet(folder / "predictions.parquet")
        recipe, selection, by, profile = variant.split("_")
        parameters = {
            "corpus": corpus,
            "recipe": recipe,
            "selection": selection,
            "by": by,
            "profile": profile,
        }
        parameters |= {"fold": fold, "seed": int(seed)} | changes
        record = {"parameters": parameters} | ({"folds": planned} if planned else {})
        (folder / "experiment.json").write_text(json.dumps(record))
        history = {
            "epoch": [1, 2],
            "train_loss": [1.3, 1.0],
            "train_ua": [0.3, 0.5],
            "validation_ua": [0.3, 0.4],
        }
        history["learning_rate"] = [1e-3, 1e-3]
        pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
        (folder / "metrics.json").write_text('{"best_epoch": 2}')
        (folder / "DONE").write_text("x")


def write_run(
    project,
    corpus,
    selection,
    folds,
    by="session",
    recipe="corrected",
    profile="paper",
    run="trial",
    **changes,
):
    """In every fold each class twice, angry always right, the rest taken for angry."""
    parts = [
        pd.DataFrame({
            "utterance_id": [f"{fold}_{i}" for i in range(8)], "speaker": f"{fold}F", "session": str(fold),
            "truth": np.repeat(LABELS, 2), "prediction": "angry", "fold": str(fold), "seed": 1,
            "variant": f"{recipe}_{selection}_{by}_{profile}", "split": "test", **{f"p_{label}": 0.25 for label in LABELS},
        }) for fold in folds
    ]  # fmt: skip
    write_folds(project, pd.concat(parts), corpus, run, **changes)


def both_protocols(right=0.7, seeds=(111, 211), per_speaker=8):
    """Predictions under the published and the clean protocol, by session."""
    about = tables.manifest(per_speaker)
    names = (("published", "published"), ("clean", "corrected"))
    return pd.concat([
        tables.predict(about, "session", selection, recipe, seed, right) for selection, recipe in names for seed in seeds
    ])  # fmt: skip


class TestVerdict:
    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (66.05, 76.05, "reproduced"),  # both ends just within 5 points
            (66.0, 75.0, "can't tell: interval too wide"),
            (70.0, 76.1, "can't tell: interval too wide"),
            (71.1, 76.0, "not reproduced"),
            (60.0, 71.0, "not reproduced"),
            (25.0, 100.0, "can't tell: interval too wide"),
        ],
    )
    def test_by_hand(self, low, high, expected):
        assert claims.verdict(71.05, low, high) == expected

    def test_the_printed_rule_names_the_margin(self):
        assert f"more than {claims.MARGIN:g} points" in claims.RULE


class TestPaper:
    def row(self, *names, claim="leave one session out, UA"):
        return claims.paper_comparison(*names or ["trial"]).set_index("claim").loc[claim]

    def test_the_papers_numbers(self, project):
        write_run(project, "demo", "clean", [1])
        table = claims.paper_comparison("trial")
        assert table["paper"].tolist() == [69.80, 71.05, 71.64, 72.70]

    def test_iemocap_with_all_folds_and_the_papers_model_stands_beside_the_paper(self, project):
        write_run(project, "iemocap", "clean", range(1, 6))
        row = self.row()
        assert (
            row["clean protocol"].value == 25
            and 10 < row["clean protocol"].low < 25 < row["clean protocol"].high
        )
        assert np.isnan(row["published protocol"].value) and row["verdict"] == "can't tell: not run"
        assert row["verdict, clean protocol"] == "can't tell: 40 of 5,531 utterances"

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"corpus": "ravdess"}, "not IEMOCAP"),
            ({"folds": range(1, 5)}, "4 of 5 folds"),
            ({"profile": "demo"}, "not run"),
            ({"by": "speaker"}, "not run"),
            ({"epochs": 2}, "epochs=2, published 100"),
            ({"class_weights": True}, "class_weights=True, published False"),
        ],
    )
    def test_anything_less_leaves_the_cell_empty_and_says_why(self, project, changes, why):
        write_run(project, **({"corpus": "iemocap", "selection": "clean", "folds": range(1, 6)} | changes))
        row = self.row()
        assert np.isnan(row["clean protocol"].value)
        assert row["verdict, clean protocol"] == f"can't tell: {why}"

    def test_how_fast_it_was_computed_does_not_matter(self, project):
        write_run(project, "iemocap", "clean", range(1, 6), precision="bf16", micro_batch=8)
        assert self.row()["clean protocol"].value == 25

    def test_two_protocols_two_seeds_and_all_utterances_get_a_verdict(self, project, monkeypatch):
        predictions = both_protocols(right=0.4, per_speaker=40)
        # fewer of one class in one session, or the mean over folds would be the pooled score
        number = predictions["utterance_id"].str[-3:].astype(int)
        predictions = predictions[
            (predictions["session"] != "1") | (predictions["truth"] != "sad") | (number < 8)
        ]
        monkeypatch.setattr(claims, "IEMOCAP_UTTERANCES", predictions["utterance_id"].nunique())
        write_folds(
            project,
            predictions[predictions["variant"] == PUBLISHED],
            "iemocap",
            run="as_published",
            precision="float32",
        )
        write_folds(project, predictions[predictions["variant"] == CLEAN], "iemocap", run="cleaned")
        row = self.row("as_published", "cleaned")
        assert (row["verdict"], row["verdict, clean protocol"]) == ("not reproduced", "not reproduced")
        cell, test = row["clean protocol"], predictions[predictions["split"] == "test"]
        test = test[test["variant"] == CLEAN]
        folds = [
            (rows["truth"] == rows["prediction"]).groupby(rows["truth"]).mean().mean()
            for _, rows in test.groupby(["fold", "seed"])
        ]
        assert np.isclose(cell.value, 100 * np.mean(folds)) and cell.low < cell.value < cell.high < 71.05

    def test_one_seed_is_not_the_papers_protocol(self, project, monkeypatch):
        monkeypatch.setattr(claims, "IEMOCAP_UTTERANCES", 80)
        write_folds(project, both_protocols(seeds=(111,)), "iemocap", precision="float32")
        assert self.row()["verdict"] == "can't tell: one seed"


class TestRefused:
    def test_a_run_without_predictions(self, project):
        with pytest.raises(RunError, match="run 'trial': no finished fold"):
            report.write_report("trial")
        write_run(project, "demo", "clean", [1])
        next((project / "runs").rglob("predictions.parquet")).unlink()
        with pytest.raises(
            RunError, match=r"predictions\.parquet is missing, but the fold is marked as done"
        ):
            report.write_report("trial")

    def test_a_missing_fold_named_by_who_validates(self, project):
        predictions = both_protocols()
        write_folds(project, predictions[predictions["fold"] != "3"], "demo")
        with pytest.raises(RunError, match="missing folds: 3; found 1, 2, 4, 5"):
            report.write_report("trial")
        assert not (project / "figures").exists()

    def test_a_fold_that_only_another_variant_has(self, project):
        write_run(project, "demo", "last", [1, 2, 3])
        write_run(project, "demo", "last", [1, 2], recipe="published")
        with pytest.raises(
            RunError, match="published_last_session_paper, seed 1: missing folds: 3; found 1, 2"
        ):
            report.checked_predictions("trial")
        (alone,) = report.checked_predictions("trial", variant="corrected_last_session_paper")[1].values()
        assert alone == ["1", "2", "3"]

    def test_a_missing_fold_named_by_the_record_of_the_run(self, project):
        write_run(project, "demo", "last", [1, 2], by="speaker")
        for path in (project / "runs").rglob("experiment.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"folds": [1, 2, 3]}))
        with pytest.raises(
            RunError, match=r"missing folds: 3; found 1, 2; .*partial = True in notebook 06.*--partial"
        ):
            report.checked_predictions("trial")
        assert report.checked_predictions("trial", partial=True)[1] == {
            "corrected_last_speaker_paper": ["1", "2"]
        }

    def test_a_part_is_reported_only_if_asked_for_and_says_so(self, project, capsys, no_figures):
        predictions = both_protocols(seeds=(111,))
        predictions = predictions[(predictions["variant"] == CLEAN) & (predictions["fold"] != "3")]
        write_folds(project, predictions, "demo")
        html = report.write_report("trial", partial=True).read_text()
        assert f"{CLEAN}: scores are of folds 1, 2, 4, 5 only" in capsys.readouterr().out
        assert f"{CLEAN}: scores are of folds 1, 2, 4, 5 only" in html
        caption = (project / "figures/trial/scores_by_variant.md").read_text()
        assert "Four leave-one-session-out folds (64 utterances of 8 synthetic speakers" in caption

    def test_a_speaker_in_two_splits(self, project):
        predictions = both_protocols(seeds=(111,))
        predictions = predictions[predictions["variant"] == CLEAN].reset_index(drop=True)
        row = predictions.index[(predictions["fold"] == "2") & (predictions["split"] == "validation")][0]
        predictions.loc[row, "split"] = "test"
        write_folds(project, predictions, "demo")
        for use in (report.write_report, report.checked_predictions):
            with pytest.raises(FoldError, match=r"fold 2: speaker 3F is in validation .* and in test"):
                use("trial")

    def test_runs_with_other_corpora_and_a_run_given_twice(self, project):
        write_run(project, "demo", "clean", range(1, 6), run="one")
        write_run(project, "ravdess", "last", range(1, 6), run="three")
        predictions = runs.load_predictions("one")
        across, beside = report._across("one", predictions, "demo", ["three"])
        assert [item.stem for item in across] == ["across_corpora_table", "across_corpora"] and beside == []
        assert across[0].numbers()["tested_on"].tolist() == ["demo", "ravdess"]
        own = report.digests_of(predictions)
        assert all(item.parameters[DIGEST] in own for item in across)  # not out of date at once
        with pytest.raises(ParameterError, match="stands in two runs of"):
            report.write_report("one", ["one"])

    def test_folds_trained_in_different_ways_are_not_averaged(self, project):
        write_run(project, "demo", "clean", [1, 2], epochs=10)
        write_run(project, "demo", "clean", [3], epochs=5)
        with pytest.raises(RunError, match=r"fold=3/seed=1 was made with epochs=5, .*fold=1/seed=1 with 10"):
            runs.shared_parameters("trial")
        with pytest.raises(RunError, match="epochs=5"):
            report.write_report("trial", partial=True)


def test_scores_of_a_variant_are_there_though_another_one_is_damaged(project):
    write_run(project, "demo", "clean", [1, 2])
    write_run(project, "demo", "last", [1])
    next((project / "runs").rglob("corrected_last*/**/predictions.parquet")).unlink()
    assert list(report.checked_predictions("trial", partial=True, variant=CLEAN)[1]) == [CLEAN]
    with pytest.raises(RunError, match=r"predictions\.parquet is missing"):
        report.checked_predictions("trial", partial=True)


def test_scores_by_hand(project):
    write_run(project, "demo", "clean", [1, 2])
    scores = report.score_intervals(runs.load_predictions("trial"), {CLEAN: ["1", "2"]}).set_index("score")
    assert scores.loc["WA", "fold mean"].value == scores.loc["UA", "pooled"].value == 25
    assert np.isnan(scores.loc["UA", "pooled"].low)  # 2 speakers


def test_a_damaged_variant_leaves_the_others_alone(project):
    for selection in ("clean", "published"):
        write_run(project, "demo", selection, [1, 2])
    (project / "runs/trial/corrected_published_session_paper/fold=1/seed=1/predictions.parquet").write_text(
        "cut"
    )
    assert list(report.checked_predictions("trial", partial=True, variant=CLEAN)[1]) == [CLEAN]
    with pytest.raises(RunError, match=r"predictions.parquet can't be read"):
        report.checked_predictions("trial", partial=True)


class TestPrintedAtTheEndOfARun:
    """In every fold a class right and three wrong: 25 %."""

    def test_a_whole_run(self, project, capsys):
        write_run(project, "demo", "clean", range(1, 6))
        report.print_scores("trial")
        printed = capsys.readouterr().out
        assert printed.startswith("\ndemo is not IEMOCAP: this run can't speak about the paper's numbers.\n")
        assert re.search(
            rf"{CLEAN} \| UA +\| 25\.0 \[\S+, \S+\] \| 25\.0 \[\S+, \S+\] \| +0\.0 \| +–", printed
        )
        assert "only" not in printed
        assert not (project / "figures").exists()

    def test_a_training_that_hardly_learned_is_named(self, project, capsys):
        write_run(project, "demo", "clean", range(1, 6))
        report.print_scores("trial")
        assert "hardly learned" not in capsys.readouterr().out
        path = project / "runs/trial" / CLEAN / "fold=3/seed=1/history.csv"
        pd.read_csv(path).assign(train_loss=1.38).to_csv(path, index=False)
        report.print_scores("trial")
        said = f"WARNING: {CLEAN}: 1 of 5 trainings hardly learned; fold 3, seed 1: it hardly learned: last training loss 1.380"
        assert said in capsys.readouterr().out
        path.write_text("epoch,train_lo\n1,1.4\n")  # cut short
        report.print_scores("trial")
        assert "hardly learned" not in capsys.readouterr().out

    def test_a_part_of_one(self, project, capsys):
        write_run(project, "iemocap", "published", [1, 2], recipe="published", planned=[1, 2, 3])
        report.print_scores("trial")
        printed = capsys.readouterr().out
        assert "scores are of folds 1, 2 only; missing: 3." in printed and "test speakers" in printed
        assert re.search(
            rf"{PUBLISHED} \| UA +\| +25\.0 \| +25\.0 \| +0\.0 \| +–", printed
        )  # two speakers: no interval


def test_baselines_stand_beside_a_variant_and_if_it_lies_below_it_is_told(project, capsys, no_figures):
    about = tables.manifest()
    write_folds(project, tables.predict(about, "session", right=0.5), "demo")
    predictions, folds = report.checked_predictions("trial")
    items = report.run_tables("trial", predictions, folds, *report.made_with("trial", predictions)[:1])
    assert "baselines" not in [item.stem for item in items]
    for fold, rows in tables.predict(about, "session", right=0.9).groupby("fold"):
        path = project / "runs/trial" / CLEAN / f"fold={fold}/seed=111/baseline_probe.parquet"
        rows[rows["split"] == "test"].assign(variant=f"{CLEAN}_probe").to_parquet(path)
    page = report.write_report("trial")
    printed = capsys.readouterr().out
    warning = re.search(
        rf"WARNING: {CLEAN}: UA (\S+) is below its baseline probe, (\S+): (\S+) points \[", printed
    )
    own, other, difference = (float(number.replace("−", "-")) for number in warning.groups())
    assert own < 60 and other > 80 and difference == pytest.approx(own - other, abs=0.11)
    assert warning[0] in page.read_text()
    table = pd.read_csv(project / "figures/trial/baselines.csv")
    assert table["variant"].tolist() == [CLEAN] and f"{table['UA of baseline'][0]:.1f}" == warning[2]
    assert table["difference_high"][0] < 0


def test_a_leaking_variant_is_marked_in_print_and_in_the_files(project, capsys, no_figures):
    write_run(project, "iemocap", "published", [1], recipe="published")
    report.write_report("trial")
    assert "test speakers" in capsys.readouterr().out
    for stem in ("scores_by_variant", "paper_comparison"):
        assert "test speakers" in (project / "figures/trial" / f"{stem}.md").read_text()


def test_a_clean_run_is_not_marked_and_other_corpora_say_so(project, capsys, no_figures):
    write_run(project, "demo", "clean", [1])
    report.write_report("trial")
    printed = capsys.readouterr().out
    assert "can't speak about the paper" in printed and "test speakers" not in printed
    assert (
        claims.RULE in printed
        and claims.RULE in (project / "figures/trial/paper_comparison.json").read_text()
    )


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A whole run with both protocols, one executed notebook, and its report."""
    home = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        (home / "notebooks").mkdir()
        (home / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
        sound = {"num_samples": 40_000, "sample_rate": 16_000}
        about = tables.manifest().assign(**sound, gender="F", scripted=True, agreement=float("nan"))
        processed = home / "data" / "processed" / "demo"
        processed.mkdir(parents=True)
        about.to_parquet(processed / "manifest.parquet")
        write_folds(home, both_protocols(seeds=(111,)), "demo")
        text = "[the paper](https://arxiv.org/abs/2203.15326) ![far](https://a.org/b.png)"
        hostile = (
            "<script>run()</script><style>@import 'x.css'</style><iframe src='x'></iframe><a href='https://a.org'>"
            "there</a><img src=x onerror=run()><audio controls src='https://a.org/b.wav'></audio>"
        )
        cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("print('a' + 'b')")]
        cells[1].outputs = [
            nbformat.v4.new_output("display_data", data={"text/html": hostile}),
            nbformat.v4.new_output("error", ename="E", evalue="e", traceback=["stopped here"]),
        ]
        (home / "runs" / "trial" / "notebooks").mkdir()
        notebook = nbformat.v4.new_notebook(cells=cells)
        nbformat.write(notebook, home / "runs" / "trial" / "notebooks" / "02_mfcc.ipynb")
        report.write_report("trial")
    return home


class TestPage:
    def test_nothing_is_fetched_from_anywhere(self, reported):
        html = (reported / "runs" / "trial" / "report.html").read_text()
        assert not re.findall(r"""\b(?:src|href)\s*=\s*["'](?!data:)""", html)
        assert not re.search(r"<script|<link|<iframe|@import|url\(|onerror|run\(\)|a\.org", html)
        assert "Content-Security-Policy\" content=\"default-src 'none'; img-src data:;" in html
        assert html.count('src="data:image/png;base64,') == 13  # six of each variant and a difference

    def test_in_a_browser(self, reported):
        """Every picture is there, nothing is asked for, nothing is wider than the window."""
        driver = pytest.importorskip(
            "playwright.sync_api", reason="no Playwright here: pip install playwright"
        )
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if not program:
            pytest.skip("no Chromium here")
        asked, said = [], []
        with driver.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto((reported / "runs" / "trial" / "report.html").as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
            widths = page.evaluate(
                "Promise.all([...document.images].filter(i => i.src).map(async i => { await i.decode(); return i.naturalWidth; }))"
            )
            sticks_out = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            browser.close()
        assert len(widths) == 13 and all(width > 0 for width in widths)
        assert [url for url in asked if not url.startswith("data:")] == asked[:1] and not said
        assert sticks_out == 0

    def test_tables_captions_and_notebooks_are_in_it(self, reported):
        html = (reported / "runs" / "trial" / "report.html").read_text()
        assert "leave one speaker out, UA" in html and "not IEMOCAP" in html
        story = [
            "<h1>", "Scores in %", "macro-F1", "leave one speaker out, UA", "<h2>Training</h2>", "UA by epoch",
            "Confusion matrix of each unseen speaker", "Context from the literature, not measured", "02_mfcc.ipynb",
        ]  # fmt: skip
        assert sorted(story, key=html.index) == story
        captions = re.findall("<figcaption>(.*?)</figcaption>", html)
        assert len(captions) == 13 and not [text for text in captions if PUBLISHED in text or CLEAN in text]

    def test_pictures_and_players_are_small_and_whole(self, reported):
        """A picture in few colours, a second of sound as MP3; what can't be read stays as it is."""
        picture = next((reported / "figures/trial").glob("*.png")).read_bytes()
        sound = io.BytesIO()
        soundfile.write(sound, np.sin(np.arange(16_000) / 10), 16_000, "PCM_16", format="WAV")
        for kind, content, expected in (
            ("image/png", picture, "image/png"),
            ("audio/wav", sound.getvalue(), "audio/mpeg"),
        ):
            made = page.EMBEDDED.sub(
                page._smaller, f"data:{kind};base64,{base64.b64encode(content).decode()}"
            )
            about, data = made.split(";base64,")
            assert about == f"data:{expected}" and len(base64.b64decode(data)) < 0.7 * len(content)
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        assert rate == 16_000 and abs(len(samples) - 16_000) < 2400 and 0.9 < np.abs(samples).max() < 1.1
        broken = "data:audio/wav;base64,UklGRg=="
        assert page.EMBEDDED.sub(page._smaller, broken) == broken

    def test_of_the_trained_folds_one_notebook_is_shown(self, reported, tmp_path, monkeypatch):
        shutil.copytree(reported, tmp_path / "copy")
        monkeypatch.chdir(tmp_path / "copy")
        for fold in "123":
            folder = tmp_path / f"copy/runs/trial/{CLEAN}/fold={fold}/seed=111"
            cell = nbformat.v4.new_markdown_cell(f"This is fold {fold}.")
            nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "05_train_coattention.ipynb")
        html = page.write_page("trial", summary=[], entries=[]).read_text()
        assert "This is fold 1." in html and "This is fold 2." not in html
        assert f"runs/trial/{CLEAN}/fold=3/seed=111/05_train_coattention.ipynb." in html
        assert "the paper" in html and "there" in html and "stopped here" in html

    def test_what_is_not_there_is_named(self, reported):
        html = (reported / "runs" / "trial" / "report.html").read_text()
        for text in (
            "notebook runs/trial/notebooks/01_prepare_corpus.ipynb: not there",
            f"notebook runs/trial/notebooks/06_confusion_matrix_{CLEAN}.ipynb: not there",
            f"embedding_speaker_{CLEAN}: can't be made now: runs/trial/{CLEAN}/fold=1/seed=111/embedding.parquet is missing",
        ):
            assert text in html, text

    def test_the_same_run_gives_the_same_bytes(self, reported, monkeypatch):
        monkeypatch.chdir(reported)
        entries = page.read_catalogue("trial", digests=["x"])
        pages = [page.write_page("trial", summary=["x"], entries=entries).read_bytes() for _ in range(2)]
        lists = [page.write_catalogue("trial", entries).read_bytes() for _ in range(2)]
        assert pages[0] == pages[1] and lists[0] == lists[1]


class TestCatalogue:
    def test_every_format_is_linked_and_shown_small(self, reported):
        text = (reported / "figures" / "trial" / "README.md").read_text()
        stem = f"reliability_{CLEAN}"
        assert (
            f'<img src="{stem}.png" width="240" alt="How often predictions of a given probability are right: '
            in text
        )
        sections = re.findall("^## (.*)", text, re.MULTILINE)
        assert sections == [name for name in page.STORY if name in sections]
        assert sections[0] == "Scores and verdict"
        for suffix in ("png", "pdf", "svg", "csv", "json"):
            assert f"[{suffix}]({stem}.{suffix})" in text
        assert "Leak: the checkpoint was chosen on the test speakers" in text
        for name in re.findall(r"\]\(([^)]*)\)", text):
            assert (reported / "figures" / "trial" / name).is_file()

    @pytest.fixture
    def copy(self, reported, tmp_path, monkeypatch):
        shutil.copytree(reported, tmp_path / "copy")
        monkeypatch.chdir(tmp_path / "copy")
        return tmp_path / "copy" / "figures" / "trial"

    def faults(self, stem, digests=(), **arguments):
        made_from = json.loads(Path(f"figures/trial/fold_curves_{CLEAN}.json").read_text())["parameters"][
            DIGEST
        ]
        digests = digests or [made_from]
        entries = {entry.stem: entry for entry in page.read_catalogue("trial", digests=digests, **arguments)}
        return " ".join(entries[stem].faults)

    def test_a_file_that_was_deleted(self, copy):
        stem = f"fold_curves_{CLEAN}"
        assert self.faults(stem) == ""
        (copy / f"{stem}.pdf").unlink()
        assert self.faults(stem) == f"{stem}.pdf is missing or was changed after it was made"

    def test_other_predictions_make_a_figure_out_of_date(self, copy):
        stem = f"fold_curves_{CLEAN}"
        assert self.faults(stem) == ""
        assert "made from other predictions" in self.faults(stem, digests=["another"])

    def test_a_picture_without_origin(self, copy):
        (copy / "mine.png").write_bytes(b"")
        assert "its origin is unknown" in self.faults("mine")

    def test_a_figure_that_can_not_be_made_any_more(self, copy):
        stem = f"fold_curves_{CLEAN}"
        assert self.faults(stem, not_made={stem: "no history"}) == "can't be made now: no history"


class TestDifferences:
    def both(self, seeds):
        about = tables.manifest()
        thrice = pd.concat([tables.predict(about, seed=seed) for seed in (111, 211, 311)], ignore_index=True)
        once = pd.concat([tables.predict(about, recipe="published", seed=seed) for seed in seeds])
        recipes = ((thrice, "corrected"), (once, "published"))
        parameters = {table["variant"].iloc[0]: {"corpus": "demo", "recipe": name} for table, name in recipes}
        predictions = pd.concat([thrice, once])
        folds = dict.fromkeys(parameters, report.tested_folds(predictions))
        return thrice, once, report.run_figures("trial", predictions, folds, parameters)[-1]

    def test_a_variant_that_was_repeated_is_compared_at_the_common_seed(self):
        thrice, once, figure = self.both([111])
        names = [table["variant"].iloc[0] for table in (thrice, once)]
        assert figure.stem == "confusion_difference_{}__{}".format(*names)
        pd.testing.assert_frame_equal(
            figure.numbers(), confusion_difference(thrice[thrice["seed"] == 111], once)
        )
        assert (
            "A: corrected features. B: published features. Ten folds (80 utterances of 10 " in figure.caption
        )
        assert "seeds" not in figure.caption

    def test_no_common_seed_is_said(self):
        _, _, figure = self.both([7])
        with pytest.raises(ParameterError, match="no seed is common to all variants"):
            figure.numbers()
