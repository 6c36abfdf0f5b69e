"""Thousands of inputs such as strangers, disks and typing errors make: a right answer or one sentence, in seconds.

A fiftieth of them in ``make test``, all in ``make fuzz``. Seeds are fixed: a seed that a failure names gives the same
input again.
"""

import contextlib
import io
import json
import os
import re
import shutil
import traceback
import warnings
import zlib
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from markdown_it import MarkdownIt
from mutations import (
    LONGEST,
    TEXTS,
    VALUES,
    TooLong,
    limited,
    mutate,
    mutate_record,
    mutate_text,
    nested,
    pick,
)  # fmt: skip
from tones import make_tones, train
from trees import write_iemocap_tree
from voices import voice, write_model

from serkit import corpora, experiment, features, figures, runs
from serkit.corpora.manifest import check_manifest
from serkit.corpora.sound_files import read_header
from serkit.errors import SerkitError
from serkit.experiment import SETTINGS, Experiment
from serkit.features import audio
from serkit.features.store import FeatureStore, build_store, check_store
from serkit.figures import saving
from serkit.model import storage
from serkit.model.storage import open_model_folder
from serkit.predict.recording import Recording
from serkit.recipe import CORRECTED, PUBLISHED
from serkit.reproduction import page, report, verify
from serkit.reproduction.plan import read_grid

SHARE = float(os.environ.get("FUZZ", "0.02"))
KINDS = ("text/html", "text/markdown", "text/plain", "image/svg+xml", "text/latex", "application/javascript")
GRIDS = Path(__file__).parents[2] / "notebooks" / "grids"


def sounds(home):
    """Sound files with other bytes, read for features, for a prediction and for a manifest."""
    kinds = {
        "a.wav": {}, "b.wav": {"subtype": "FLOAT"}, "c.wav": {"subtype": "IMA_ADPCM"}, "d.wav": {"subtype": "GSM610"},
        "e.wav": {"format": "RF64"}, "f.flac": {}, "g.ogg": {}, "h.mp3": {}, "i.aiff": {}, "j.au": {}, "k.w64": {},
        "l.ogg": {"subtype": "OPUS"}, "m.caf": {},
    }  # fmt: skip
    for name, options in kinds.items():
        soundfile.write(home / name, voice(1.0), 16_000, **options)
    contents = [((home / name).read_bytes(), Path(name).suffix) for name in kinds]

    def attempt(rng):
        content, suffix = pick(contents, rng)
        path = home / f"x{suffix}"
        path.write_bytes(mutate(content * int(pick((1, 1, 1, 2), rng)), rng))
        way = rng.integers(3)
        if way == 0:
            header = read_header(path)
            assert header.num_samples >= 1 and 1000 <= header.sample_rate <= 10**6
        recording = Recording(path)
        for waveform in (
            [audio.read(path)] if way == 1 else (wave for _, wave in recording.windows(CORRECTED))
        ):
            assert waveform.dtype == np.float32 and waveform.ndim == 1 and len(waveform) < 16_000 * 60
            assert np.isfinite(waveform).all()
        assert all(notice.text for notice in recording.notices())

    return attempt


def arrays(home):
    """What somebody may take for a waveform or its settings, given to the functions of features."""
    whole = voice(3.5)
    types = ("float16", "float64", "int16", "complex64", "U5", "O", "bool", ">f4")
    odd, levels = (np.nan, np.inf, -1e30, 1e300, 40.0), (0.0, 1.0, -1.0, 1e-30)
    lengths, shapes = (0, 1, 2, 100, 399, 400, 401, 640, 799, 1599), ((-1, 1), (1, -1), (2, -1), (10, 10, -1))
    others = (*VALUES, whole.tolist(), torch.from_numpy(whole), pd.Series(whole), whole[::-1], whole[::7])
    made = (
        lambda rng: whole.astype(pick(types, rng)),
        lambda rng: np.where(rng.random(len(whole)) < 0.001, pick(odd, rng), whole),
        lambda rng: whole[: pick(lengths, rng)],
        lambda rng: whole.reshape(pick(shapes, rng)),
        lambda rng: np.full(pick((500, 48_000, 48_001), rng), pick(levels, rng), np.float32),
        lambda rng: pick(others, rng),
        lambda rng: whole * np.float32(10.0 ** rng.integers(-30, 8)),
    )
    settings = {
        "log_spectrogram": ("win_length", "hop_length", "n_fft", "n_bins", "top_db", "edge"),
        "mfcc": ("n_mfcc", "n_mels", "n_fft", "hop_length", "top_db", "edge"),
        "preemphasise": ("coefficient",),
    }

    def attempt(rng):
        waveform = pick(made, rng)(rng) if rng.random() < 0.7 else whole
        if rng.random() < 0.4:
            result = features.segment_features(waveform, pick((PUBLISHED, CORRECTED), rng))
            shapes = [result.spectrogram.shape[1:], result.mfcc.shape[1:], result.waveform.shape[1:]]
            assert shapes == [(200, 300), (300, 40), (48_000,)] and 1 <= len(result) < 100
            assert all(np.isfinite(view).all() for view in (result.spectrogram, result.mfcc, result.waveform))
            return
        name = pick(list(settings), rng)
        values = (*VALUES, 160, 400, 640, 1024, 2048, 10**7)
        given = {key: pick(values, rng) for key in settings[name] if rng.random() < 0.3}
        result = getattr(features, name)(waveform, **given)
        assert np.isfinite(np.asarray(result)).all()

    return attempt


def settings(home):
    """Values of any type for every setting; what is accepted is the same when it is read again."""

    def attempt(rng):
        names, given = rng.permutation([*SETTINGS, "sed", "x" * 500])[: int(rng.integers(1, 5))], {}
        for name in map(str, names):
            about = SETTINGS[name].metadata if name in SETTINGS else {"choices": (), "between": ()}
            likely = (*about["choices"], *about["between"][:2], "frozen", "top_2", "9", "published+D2")
            given[name] = pick(likely if rng.random() < 0.7 else (*VALUES, *TEXTS, nested(900)), rng)
        experiment = Experiment.of(given)
        for name, value in asdict(experiment).items():
            assert value is None or type(value) in (bool, int, float, str), name
        assert Experiment.of(json.loads(json.dumps(asdict(experiment)))) == experiment
        assert "/" not in experiment.variant

    return attempt


def grids(home):
    """The kit's grids with other words in them."""
    texts = [path.read_text() for path in sorted(GRIDS.glob("*.toml"))]
    path = home / "grid.toml"

    def attempt(rng):
        content = mutate_text(pick(texts, rng), rng).encode(errors="replace")
        path.write_bytes(mutate(content, rng) if rng.random() < 0.2 else content)
        grid = read_grid(path)
        assert 1 <= len(grid.variants) <= 10_000 and all(isinstance(seed, int) for seed in grid.seeds)
        for _, changes in grid.variants:
            Experiment.of({"corpus": grid.corpus} | changes)

    return attempt


def models(home):
    """Model folders with other bytes or other values: the same answer, or none."""
    whole = write_model(home / "whole", CORRECTED)
    torch.manual_seed(0)
    shapes = {"spectrogram": (1, 3, 256, 384), "mfcc": (1, 300, 40), "waveform": (1, 48_000)}
    inputs = {name: torch.rand(shape) for name, shape in shapes.items()}

    def answer(folder):
        opened = open_model_folder(folder)
        with torch.no_grad():
            logits = opened.model(**inputs).logits
        limits = [limit.tolist() for limit in (opened.scaler.minimum, opened.scaler.maximum)]
        return logits.tolist(), limits, opened.recipe, opened.experiment

    expected = answer(whole)

    def attempt(rng):
        folder = _copy(whole, home / "copy")
        _spoil(folder / pick(("config.json", "features.json", "model.safetensors", "README.md"), rng), rng)
        assert answer(folder) == expected

    return attempt


def run_folders(home):
    """Finished folds with other bytes: the same scores, or none. With records that somebody edited: no traceback."""
    (home / "tones").mkdir()
    tones = make_tones(home / "tones")
    options = {"views": "mfcc", "epochs": 2}
    for fold in "123":
        folder = Experiment(fold=fold, **options).folder("trial")
        train(tones, folder, fold=fold, **options)
    run, whole = folder.parents[2], home / "whole"
    run.rename(whole)
    names = (*runs.RESULTS, *runs.FURTHER, *runs.MODEL, runs.FILES, runs.DONE)

    def answer():
        predictions, folds = report.checked_predictions("trial")
        parameters, _ = report.made_with("trial", predictions)
        (variant,) = parameters
        curves, vectors = figures.read_histories("trial", variant), figures.read_vectors("trial", predictions)
        return [table.to_csv() for table in (predictions, curves, vectors)], folds, parameters

    _copy(whole, run)
    expected = answer()

    def attempt(rng):
        _copy(whole, run)
        path = folder / pick(names, rng)
        _spoil(path, rng)
        edited = rng.random() < 0.3 and path.is_file()
        if edited and path.name not in (runs.FILES, runs.DONE):
            runs.write_inventory(folder)
        findings = verify.check_run("trial")
        assert all(len(finding.text) < 2000 for finding in findings)
        assert answer() == expected or edited

    return attempt


def stores(home):
    """Feature stores with other bytes: the same features, or the check of the store names the file."""
    (home / "tones").mkdir()
    manifest, store = make_tones(home / "tones")
    whole = store.folder
    rows = np.arange(0, len(store), 5)

    def answer(folder):
        read = FeatureStore(folder, CORRECTED).read(rows)
        return [getattr(read, view).tobytes() for view in ("spectrogram", "mfcc", "waveform")]

    expected = answer(whole)

    def attempt(rng):
        folder = _copy(whole, home / "copy" / whole.name)
        path = folder / pick(sorted(path.name for path in whole.glob("*.*")), rng)
        _spoil(path, rng)
        if rng.random() < 0.2:
            folder = build_store(manifest, CORRECTED, home / "copy", workers=1).folder
        given = answer(folder)
        check_store(folder)
        assert given == expected

    return attempt


def labels(home):
    """A small IEMOCAP whose evaluation files, transcripts, sounds or names are others."""
    turns = [
        (f"Ses0{1 + k // 8}F_impro01_{'FM'[k // 4 % 2]}{k:03d}", ("ang", "sad", "neu", "hap")[k % 4])
        for k in range(16)
    ]
    index = pd.DataFrame(turns, columns=["utterance_id", "emotion"])
    whole = write_iemocap_tree(home / "whole", index.assign(num_samples=1000))
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    texts = [path for path in files if path.suffix == ".txt"]
    names = b"\xff.wav", b"x.txt", b"a b.wav", b".wav", b"Ses0.txt"

    def attempt(rng):
        tree = _copy(whole, home / "copy")
        path = tree / pick(texts if rng.random() < 0.7 else files, rng)
        kind = rng.integers(4)
        if kind == 0 and path.suffix == ".txt":
            content = mutate_text(path.read_text(encoding="cp1252", errors="replace"), rng)
            path.write_bytes(content.encode(errors="surrogateescape" if rng.random() < 0.5 else "replace"))
        elif kind == 1:
            os.rename(path, os.path.join(os.fsencode(path.parent), pick(names, rng)))
        else:
            _spoil(path, rng)
        manifest = corpora.load("iemocap", tree, check="report")
        check_manifest(manifest)
        ratings = manifest[["valence", "activation", "dominance"]].stack().dropna()
        assert ratings.between(1, 5.5).all() and len(manifest) <= 100
        assert manifest["label"].dropna().isin(["angry", "sad", "neutral", "happy"]).all()

    return attempt


def tables(home):
    """Texts that mean something to Markdown, LaTeX or a terminal, in tables that are saved."""

    def attempt(rng):
        texts = [pick(TEXTS, rng) for _ in range(4)]
        table = pd.DataFrame({pick(TEXTS, rng) or "a": texts, "UA": rng.random(4)})
        written = figures.save_table(table, "t", run="fuzz", caption=pick(TEXTS, rng) or "c", root=home)
        content = {path.suffix: path.read_text(encoding="utf-8") for path in written}
        html = MarkdownIt("commonmark").enable("table").render(content[".md"])
        assert html.count("<tr>") == 5 and html.count("<th") == 3 and html.count("<td") == 8, (
            "the table is broken"
        )
        Inert().feed(html)
        for text in (content[".md"], content[".tex"]):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\x85\u2028\u202e]", text), "control characters"
        body = content[".tex"].replace("\\\\", "").replace("\\{", "").replace("\\}", "")
        assert body.count("{") == body.count("}")
        assert not re.search(r"\\(write18|input|include)|\^\^", body), "an active command"

    return attempt


def pages(home):
    """Such texts in notebooks, captions and names on the page of a run: nothing runs, nothing is fetched."""
    variant = Experiment().folder("fuzz")
    variant.mkdir(parents=True)
    (variant / runs.DONE).write_text("x")
    notebooks = home / "runs" / "fuzz" / "notebooks"
    notebooks.mkdir()

    def attempt(rng):
        def text():
            return "".join(str(pick(TEXTS, rng)) for _ in range(3))

        outputs = [nbformat.v4.new_output("display_data", data={pick(KINDS, rng): text()}) for _ in range(3)]
        outputs.append(nbformat.v4.new_output("stream", text=text()))
        cells = [nbformat.v4.new_markdown_cell(text()), nbformat.v4.new_code_cell(text(), outputs=outputs)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), notebooks / "06_confusion_matrix.ipynb")
        name, caption = re.sub(r"[/\x00.]", "", text())[:40].encode(errors="ignore").decode() or "x", text()
        entry = page.Entry("scores", caption, ("scores.csv", "scores.md"), (text(),))
        folder = home / "figures" / "fuzz"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "scores.md").write_text(f"{text()}\n\n| a |\n|---|\n| {text()} |\n", encoding="utf-8")
        (folder / f"{name}.csv").write_text("x")
        page.write_catalogue("fuzz", [entry, *page.read_catalogue("fuzz", digests=["d"])])
        html = page.write_page("fuzz", summary=[text()], entries=[entry]).read_text(encoding="utf-8")
        Inert().feed(html)

    return attempt


class Inert(HTMLParser):
    """Refuses whatever runs or is fetched."""

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "iframe", "object", "embed", "base", "form", "link", "svg", "math"), tag
        for name, value in attributes:
            assert not name.startswith("on") and name not in ("srcset", "formaction", "ping"), name
            assert name not in ("src", "href") or (value or "").startswith("data:"), (tag, name, value)
            assert tag != "meta" or value not in ("refresh", "Refresh"), value


DOORS = {  # and how many inputs there are of each
    sounds: 3000, arrays: 2000, settings: 3000, grids: 1500, models: 1500, run_folders: 600, stores: 800, labels: 800,
    tables: 1000, pages: 400,
}  # fmt: skip
PIECES = 8 if SHARE > 0.1 else 1  # of a door, for several processes


def _copy(whole, folder):
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(whole, folder))


def _spoil(path, rng):
    """A file with other bytes or values, gone, or something else in its place."""
    kind = rng.random()
    if kind < 0.06:
        path.unlink()
        if kind < 0.04:
            path.mkdir() if kind < 0.02 else path.symlink_to(path.name)
    elif path.suffix == ".json" and kind < 0.6:
        path.write_text(json.dumps(mutate_record(json.loads(path.read_text()), rng)))
    else:
        path.write_bytes(mutate(path.read_bytes(), rng))


def try_out(door, home, seeds):
    """How many inputs of a door end right, how many are refused in a sentence, and what is wrong with the others."""
    with contextlib.redirect_stdout(io.StringIO()):
        attempt, right, refused, wrong = door(home), 0, 0, []
        for seed in seeds:
            rng = np.random.default_rng([zlib.crc32(door.__name__.encode()), seed])
            try:
                with limited(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    attempt(rng)
                right += 1
            except SerkitError as error:
                if 10 < len(str(error)) <= LONGEST:
                    refused += 1
                else:
                    wrong.append(f"seed {seed}: {len(str(error))} characters: {str(error)[:200]}")
            except (Exception, TooLong) as error:
                (*_, frame) = traceback.extract_tb(error.__traceback__)
                where = f"{Path(frame.filename).name}:{frame.lineno}"
                wrong.append(f"seed {seed}: {type(error).__name__} at {where}: {str(error)[:200]}")
    return right, refused, wrong


@pytest.mark.parametrize("piece", range(PIECES))
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_right_answer_or_one_sentence(project, door, piece, record_property):
    seeds = range(piece, max(round(SHARE * DOORS[door]), 1), PIECES)
    right, refused, wrong = try_out(door, project, seeds)
    record_property("fuzz", (door.__name__, right, refused, len(wrong)))
    assert right + refused > 0 and not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("door", "module", "check", "without"),
    [
        (settings, experiment, "shown", repr),  # quotes whole what was given
        (tables, saving, "markdown_text", str),  # escapes nothing
        (models, storage, "_digest", lambda path: ""),  # looks at no digest
    ],
)
def test_without_a_check_something_is_wrong(project, monkeypatch, door, module, check, without):
    monkeypatch.setattr(module, check, without)
    assert try_out(door, project, range(60))[2]
