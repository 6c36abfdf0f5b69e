"""Prediction: the same numbers as in training, any kind of file, and the command line around it."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
from command_line import exit_code
from voices import SCALER, voice, write_model, write_model_folder

from serkit.constants import LABELS
from serkit.corpora.manifest import make_manifest
from serkit.errors import AudioError, ParameterError, WeightsError
from serkit.features import audio
from serkit.features.store import build_store
from serkit.metrics import utterance_probabilities
from serkit.model.coattention import DEMO, create_model
from serkit.predict import Predictor, open_predictor
from serkit.recipe import CORRECTED, PUBLISHED, named
from serkit.training import scoring
from serkit.training.batches import SegmentDataset, fit_scaler

PROBABILITIES = [f"p_{label}" for label in LABELS]

run = partial(exit_code, "predict")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), CORRECTED)


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor(folder, device="cpu")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """The files that must work, and one that can't."""
    base = tmp_path_factory.mktemp("sounds")
    speech = voice(7.3)
    stereo = soxr.resample(speech, 16_000, 48_000, quality="VHQ")
    soundfile.write(base / "mono16.wav", speech, 16_000, "FLOAT")
    soundfile.write(base / "stereo48.wav", np.stack([stereo, stereo], 1), 48_000, "FLOAT")
    soundfile.write(base / "stereo16.wav", np.stack([speech, speech], 1), 16_000, "FLOAT")
    soundfile.write(base / "speech.flac", speech, 16_000)
    soundfile.write(base / "short.wav", voice(0.3), 16_000)
    (base / "text.wav").write_text("this is no sound\n")
    with soundfile.SoundFile(base / "two.wav", "w", 8_000, 1) as file:
        for minute in range(2):
            file.write(voice(60, 8_000, pitch=100 + 15 * minute, seed=minute))
    return base


def probabilities(prediction):
    return np.array(list(prediction.utterance.values()))


@pytest.mark.parametrize("name", ["corrected", "published", "published+D1", "corrected-D5"])
def test_same_probabilities_as_training_gives(tmp_path, name):
    """One store, one model, one scaler: padded, whole, and several segments; PCM16 and float files."""
    recipe = named(name)
    model_folder = write_model(tmp_path / "model", recipe)
    rows = []
    for number, seconds in enumerate((0.4, 2.9, 3.0, 7.77, 29.9)):
        path = tmp_path / f"u{number}.wav"
        rate = 16_000 if number % 2 == 0 else 22_050
        soundfile.write(path, voice(seconds, rate, pitch=90 + 40 * number), rate)
        rows.append({
            "utterance_id": path.stem, "path": str(path), "corpus": "tones", "speaker": "1F", "session": "1",
            "gender": "F", "dialogue": "d", "emotion": "sad", "label": "sad",
            "num_samples": soundfile.info(path).frames, "sample_rate": rate,
        })  # fmt: skip
    manifest = make_manifest(rows)
    store = build_store(manifest, recipe, tmp_path / "store", workers=1)
    predictor = Predictor(model_folder, device="cpu", precision="float32")
    dataset = SegmentDataset(store, np.arange(len(store)), dict.fromkeys(manifest["utterance_id"], 1))
    scored = scoring.predict(scoring.make_accelerator("float32"), predictor.model, dataset, SCALER, 8)
    expected = utterance_probabilities(scored[list(LABELS)].to_numpy())
    ours = np.array([
        probabilities(predictor.predict(path)) for path in manifest.set_index("utterance_id").loc[scored.index, "path"]
    ])  # fmt: skip
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert np.abs(ours - ours.mean(axis=0)).max() > 0.01  # the utterances do not all get one answer


def test_a_fitted_scaler_comes_back_as_it_was(tmp_path):
    soundfile.write(tmp_path / "a.wav", voice(4), 16_000)
    rows = [{
        "utterance_id": "a", "path": str(tmp_path / "a.wav"), "corpus": "tones", "speaker": "1F", "session": "1",
        "gender": "F", "dialogue": "d", "emotion": "sad", "label": "sad", "num_samples": 64_000, "sample_rate": 16_000,
    }]  # fmt: skip
    store = build_store(make_manifest(rows), CORRECTED, tmp_path / "store", workers=1)
    scaler = fit_scaler(store, np.arange(len(store)))
    write_model_folder(tmp_path / "m", create_model(DEMO), scaler=scaler)
    opened = Predictor(tmp_path / "m").scaler
    np.testing.assert_array_equal(opened.minimum, scaler.minimum)
    np.testing.assert_array_equal(opened.maximum, scaler.maximum)


class TestPredict:
    def test_segments_by_hand(self, predictor, sounds):
        """7.3 s, corrected: two whole segments and the last 3 s; the whole is their geometric mean."""
        result = predictor.predict(sounds / "mono16.wav")
        table = result.segments
        assert list(table.columns) == ["start_s", "end_s", "seconds", "peak_dbfs", *PROBABILITIES, "emotion"]
        assert table["start_s"].tolist() == pytest.approx([0, 3, 4.3])
        assert table["end_s"].tolist() == pytest.approx([3, 6, 7.3])
        p = table[list(PROBABILITIES)].to_numpy()
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
        assert table["emotion"].tolist() == np.array(LABELS)[p.argmax(axis=1)].tolist()
        mean = np.exp(np.log(p).mean(axis=0))
        np.testing.assert_allclose(probabilities(result), mean / mean.sum(), atol=1e-12)
        assert list(result.utterance) == list(LABELS)
        assert result.emotion == LABELS[mean.argmax()]
        assert (result.duration_s, result.sample_rate, result.channels) == (pytest.approx(7.3), 16_000, 1)
        assert result.notices == []

    def test_two_equal_channels_are_one(self, predictor, sounds):
        mono, stereo = (predictor.predict(sounds / f"{name}.wav") for name in ("mono16", "stereo16"))
        assert probabilities(mono).tolist() == probabilities(stereo).tolist()
        assert [notice.text for notice in stereo.notices] == ["channels: 2 were averaged to one"]

    def test_48_khz_is_close_to_16_khz(self, predictor, sounds):
        """Resampled there and back: what is left of the difference is the filters' last half octave."""
        low, high = (predictor.predict(sounds / f"{name}.wav") for name in ("mono16", "stereo48"))
        np.testing.assert_allclose(probabilities(low), probabilities(high), atol=0.02)
        assert high.sample_rate == 48_000

    def test_formats(self, predictor, sounds, tmp_path):
        wanted = probabilities(predictor.predict(sounds / "mono16.wav"))
        speech = voice(7.3)
        for name, tolerance in (("a.flac", 0.01), ("a.aiff", 0.01), ("a.ogg", 0.1), ("a.mp3", 0.1)):
            soundfile.write(tmp_path / name, speech, 16_000)  # 16 bits, or lossy
            result = predictor.predict(tmp_path / name)
            np.testing.assert_allclose(probabilities(result), wanted, atol=tolerance, err_msg=name)

    def test_short_is_padded_and_said(self, predictor, sounds):
        result = predictor.predict(sounds / "short.wav")
        assert result.segments[["start_s", "end_s", "seconds"]].to_numpy().tolist() == [[0, 0.3, 0.3]]
        assert [n.text for n in result.notices] == ["too short: 0.30 s, so 90% of the 3 s segment is padding"]

    def test_two_minutes(self, predictor, sounds):
        result = predictor.predict(sounds / "two.wav")
        table = result.segments
        np.testing.assert_allclose(table["start_s"], 3 * np.arange(40))
        np.testing.assert_allclose(table["seconds"], 3)
        assert result.duration_s == 120
        assert result.notices[0].text.startswith("long: cut into 8 windows of 15 s")
        assert result.notices[1].text.startswith("sample rate: 8000 Hz")

    def test_a_window_is_an_utterance(self, predictor, sounds, tmp_path):
        """What a long recording says about its second window is what a file of that window says."""
        sound = voice(40)
        soundfile.write(tmp_path / "long.wav", sound, 16_000, "FLOAT")
        soundfile.write(tmp_path / "window.wav", sound[240_000:480_000], 16_000, "FLOAT")
        long, window = (predictor.predict(tmp_path / f"{name}.wav").segments for name in ("long", "window"))
        np.testing.assert_allclose(
            long[list(PROBABILITIES)][5:10].to_numpy(), window[list(PROBABILITIES)].to_numpy(), atol=1e-5
        )

    def test_published_recipe_has_no_empty_segments_in_between(self, tmp_path):
        predictor = Predictor(write_model(tmp_path / "m", PUBLISHED), device="cpu")
        soundfile.write(tmp_path / "a.wav", voice(61), 16_000)
        table = predictor.predict(tmp_path / "a.wav").segments
        assert (table["seconds"][:-1] > 2.99).all()
        assert table["end_s"].iloc[-1] == pytest.approx(61)

    def test_silence_is_answered_with_a_warning(self, predictor, tmp_path):
        soundfile.write(tmp_path / "a.wav", np.zeros(32_000), 16_000)
        result = predictor.predict(tmp_path / "a.wav")
        assert np.isfinite(probabilities(result)).all()
        assert [notice.kind for notice in result.notices] == ["silence"]
        assert result.segments["peak_dbfs"].tolist() == [-np.inf]

    def test_memory_does_not_grow_with_length(self, predictor, tmp_path):
        """What is held at once, counted where it would pile up: segments given to the network."""
        for seconds in (45, 120):
            soundfile.write(tmp_path / "a.wav", voice(seconds, 8_000), 8_000)
            sizes = []
            hook = predictor.model.register_forward_hook(
                lambda *given, s=sizes: s.append(len(given[-1].logits))
            )
            predictor.predict(tmp_path / "a.wav")
            hook.remove()
            assert sum(sizes) == seconds // 3 and max(sizes) == 5

    def test_bf16_on_cpu_is_close(self, folder, predictor, sounds):
        """8 bits of mantissa through a dozen layers."""
        half = Predictor(folder, device="cpu", precision="bf16").predict(sounds / "mono16.wav")
        full = predictor.predict(sounds / "mono16.wav")
        difference = np.abs(probabilities(half) - probabilities(full)).max()
        assert 0 < difference < 0.1

    def test_errors(self, predictor, folder, tmp_path):
        with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
            predictor.predict(tmp_path / "gone.wav")
        with pytest.raises(ParameterError, match=r"device='tpu', expected auto, cpu"):
            Predictor(folder, device="tpu")
        with pytest.raises(ParameterError, match=r"precision='int8', expected one of auto, float32"):
            Predictor(folder, precision="int8")
        with pytest.raises(WeightsError, match="no such folder"):
            Predictor(tmp_path / "none")


class TestAttend:
    def test_the_same_answer_as_prediction_gives(self, predictor, sounds, monkeypatch):
        whole = predictor.predict(sounds / "mono16.wav")
        inside = predictor.attend(audio.read(sounds / "mono16.wav"))
        assert inside.utterance == pytest.approx(whole.utterance, abs=1e-6)
        pd.testing.assert_frame_equal(inside.segments, whole.segments, atol=1e-6)
        assert inside.weights.shape == (3, 149) and inside.spectrogram.shape == (3, 200, 300)
        monkeypatch.setattr("serkit.predict.predictor.BATCH_SEGMENTS", 1)
        single = predictor.attend(audio.read(sounds / "mono16.wav"))
        np.testing.assert_allclose(single.weights, inside.weights, atol=1e-6)

    def test_padding_has_no_weight(self, predictor):
        weights = predictor.attend(voice(1)).weights
        assert weights[0, :49].max() > 0  # 1 s is (16000 - 400) // 320 + 1 = 49 frames
        assert not weights[0, 49:].any()


def test_a_model_is_opened_once_and_again_when_it_has_changed(tmp_path):
    folder = write_model(tmp_path / "m", CORRECTED)
    first = open_predictor(folder, "cpu")
    assert open_predictor(folder, "cpu") is first
    shutil.rmtree(folder)
    for _ in range(2):
        with pytest.raises(WeightsError, match="no such folder"):
            open_predictor(folder, "cpu")
    write_model(folder, PUBLISHED)
    assert open_predictor(folder, "cpu").recipe.name == "published"


class TestCommand:
    NAMES = ("stereo48.wav", "speech.flac", "short.wav", "two.wav", "text.wav")

    def files(self, sounds):
        return [sounds / name for name in self.NAMES]

    def test_json_alone_on_stdout(self, folder, sounds, capfd):
        assert run(*self.files(sounds), "--model", folder, "--format", "json", "--segments") == 1
        out, err = capfd.readouterr()
        record = json.loads(out)
        assert [each["file"] for each in record["files"]] == [str(f) for f in self.files(sounds)[:4]]
        assert [each["file"] for each in record["failed"]] == [str(sounds / "text.wav")]
        assert [len(each["segments"]) for each in record["files"]] == [3, 3, 1, 40]
        for each in record["files"]:
            assert sum(each["probabilities"].values()) == pytest.approx(1)
            assert list(each["probabilities"]) == list(LABELS)
        assert "text.wav: not readable as audio" in err and "Traceback" not in err
        assert "short.wav: too short: 0.30 s" in err and "two.wav: long: cut into 8 windows" in err

    def test_silence_is_valid_json_too(self, folder, tmp_path, capfd):
        soundfile.write(tmp_path / "a.wav", np.zeros(32_000), 16_000)
        assert run(tmp_path / "a.wav", "--model", folder, "--format", "json", "--segments") == 0
        record = json.loads(capfd.readouterr().out, parse_constant=pytest.fail)
        assert record["files"][0]["segments"][0]["peak_dbfs"] is None

    def test_csv_for_files_and_for_segments(self, folder, predictor, sounds, capfd):
        files = [sounds / "mono16.wav", sounds / "short.wav"]
        assert run(*files, "--model", folder, "--format", "csv") == 0
        table = pd.read_csv(io.StringIO(capfd.readouterr().out))
        assert table["file"].tolist() == [str(file) for file in files]
        expected = [probabilities(predictor.predict(file)) for file in files]
        np.testing.assert_allclose(table[list(PROBABILITIES)].to_numpy(), expected, atol=1e-6)
        assert run(*files, "--model", folder, "--format", "csv", "--segments") == 0
        table = pd.read_csv(io.StringIO(capfd.readouterr().out))
        assert table.groupby("file").size().to_dict() == {str(files[0]): 3, str(files[1]): 1}

    def test_table(self, folder, sounds, capfd):
        assert run(sounds / "mono16.wav", "--model", folder) == 0
        header, row = capfd.readouterr().out.splitlines()
        assert header.split() == ["file", "duration_s", "sample_rate", "channels", "emotion", *PROBABILITIES]
        assert row.split()[:2] == [str(sounds / "mono16.wav"), "7.300"]

    def test_output_and_timeline(self, folder, sounds, tmp_path, capfd):
        picture, text = tmp_path / "t.png", tmp_path / "out.csv"
        options = ("--model", folder, "--format", "csv", "--output", text, "--timeline", picture)
        assert run(sounds / "mono16.wav", *options) == 0
        assert capfd.readouterr().out == "" and len(pd.read_csv(text)) == 1
        assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size > 10_000

    def test_a_folder_means_the_sounds_in_it(self, folder, sounds, tmp_path, capfd):
        inside = tmp_path / "inside"
        (inside / "deeper.wav").mkdir(parents=True)
        for name in ("b.wav", "a.WAV", ".hidden.wav", "notes.txt"):
            shutil.copy(sounds / "short.wav", inside / name)
        assert run(inside, sounds / "short.wav", "--model", folder, "--format", "csv") == 0
        table = pd.read_csv(io.StringIO(capfd.readouterr().out))
        assert table["file"].tolist() == [
            str(inside / "a.WAV"),
            str(inside / "b.wav"),
            str(sounds / "short.wav"),
        ]
        (tmp_path / "empty").mkdir()
        assert run(tmp_path / "empty", "--model", folder) == 2
        assert "empty: holds no sounds (.wav .flac" in capfd.readouterr().err

    def test_one_side_of_a_call(self, folder, predictor, tmp_path, capfd):
        sides = voice(2), voice(2, pitch=220, seed=1)
        soundfile.write(tmp_path / "call.wav", np.stack(sides, 1), 16_000, "FLOAT")
        for number, side in enumerate(sides, start=1):
            soundfile.write(tmp_path / "side.wav", side, 16_000, "FLOAT")
            alone = probabilities(predictor.predict(tmp_path / "side.wav"))
            prediction = predictor.predict(tmp_path / "call.wav", channel=number)
            np.testing.assert_array_equal(probabilities(prediction), alone)
            assert prediction.channels == 2 and prediction.notices == []
        assert not np.allclose(probabilities(predictor.predict(tmp_path / "call.wav")), alone)
        assert run(tmp_path / "call.wav", tmp_path / "side.wav", "--channel", 2, "--model", folder) == 1
        assert "side.wav: has channels 1 to 1, expected channel 2; give another" in capfd.readouterr().err
        assert run(tmp_path / "call.wav", "--channel", -1) == 2
        assert "channel=-1, expected a whole number from 0 to 64" in capfd.readouterr().err

    def test_an_interrupted_batch_goes_on_where_it_was(self, folder, sounds, tmp_path, monkeypatch, capfd):
        files, output = [tmp_path / f"{number}.wav" for number in range(4)], tmp_path / "out.json"
        for file in files[1:]:
            shutil.copy(sounds / "short.wav", file)
        soundfile.write(files[0], np.zeros(16_000), 16_000)  # its level is infinite
        options = ("--model", folder, "--format", "json", "--segments", "--output", output)
        assert run(*files, *options) == 0
        whole, heard, usual = output.read_bytes(), [], Predictor.predict
        output.unlink()

        def interrupted(self, path, **options):
            heard.append(Path(path).name)
            if path == str(files[2]) and len(heard) == 3:
                raise KeyboardInterrupt
            return usual(self, path, **options)

        monkeypatch.setattr(Predictor, "predict", interrupted)
        assert run(*files, *options) == 130
        kept = next(tmp_path.glob(".out.json*"))
        kept.write_text(kept.read_text() + '\n{"cut sho', encoding="utf-8")  # by a kill
        soundfile.write(files[1], voice(0.4), 16_000)  # changed since
        assert run(*files, *options) == 0
        assert heard == ["0.wav", "1.wav", "2.wav", "1.wav", "2.wav", "3.wav"]
        again = json.loads(output.read_text())
        assert [record for record in again["files"] if "1.wav" not in record["file"]] == [
            record for record in json.loads(whole)["files"] if "1.wav" not in record["file"]
        ]
        assert not list(tmp_path.glob(".out.json*"))
        assert run(files[3], *options[:-1], "/dev/stdout") == 0
        assert json.loads(capfd.readouterr().out) and not Path("/dev/.stdout.finished").exists()

    def test_a_name_that_is_not_utf8(self, folder, sounds, tmp_path, capfd):
        path = os.fsencode(tmp_path) + b"/caf\xe9.wav"
        shutil.copy(sounds / "short.wav", os.fsdecode(path))
        for form in ("table", "csv", "json"):
            assert run(os.fsdecode(path), "--model", folder, "--format", form) == 0
            assert "caf\\xe9.wav" in capfd.readouterr().out.replace("\\\\", "\\")
        assert run(os.fsdecode(path), "--model", folder, "--timeline", tmp_path / "t.png") == 0

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        "name", ["你好 עברית 😀.wav", "two\nlines\t.wav", "x" * 300 + ".wav", "a" * 5000]
    )
    def test_names_that_no_font_or_disk_takes(self, folder, sounds, tmp_path, name, capfd):
        path = tmp_path / name
        if fits := len(name) < 200:
            shutil.copy(sounds / "short.wav", path)
        assert run(path, "--model", folder, "--timeline", tmp_path / "t.png") == (0 if fits else 1)
        assert fits or "no such file" in capfd.readouterr().err

    def test_any_name_can_be_a_title(self, folder, tmp_path, capfd):
        path = tmp_path / "a $x_$ ünd 100 % \\frac{.wav"
        soundfile.write(path, voice(1), 16_000)
        assert run(path, "--model", folder, "--timeline", tmp_path / "t.svg") == 0

    def test_all_files_broken(self, folder, sounds, capfd):
        path = sounds / "text.wav"
        out = {}
        for form in ("table", "json", "csv"):
            assert run(path, "--model", folder, "--format", form) == 1
            out[form] = capfd.readouterr().out
        assert out["table"] == out["csv"] == ""
        record = json.loads(out["json"])
        assert record["files"] == [] and [failure["file"] for failure in record["failed"]] == [str(path)]
        assert record["failed"][0]["error"].startswith(f"{path}: not readable as audio")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ((), "no FILE given"),
            (("a.wav", "b.wav", "--timeline", "t.png"), "of 2 recordings, expected one"),
            (("a.wav", "--timeline", "t.docx"), "ends in .png, .pdf, .svg"),
            (("a.wav", "--output", "nowhere/out.csv"), "expected a file in a folder that exists"),
            (("a.wav", "--output", "./a.wav"), "is one of the recordings"),
            (("a.wav", "--output", "t.png", "--timeline", "./t.png"), "output=t.png is the timeline too"),
            (("a.wav", "--model", "nowhere"), "nowhere: no such folder"),
            (
                ("a.wav", "--device", "tpu"),
                "is not inside the project folder: no notebooks/01_prepare_corpus.ipynb",
            ),
        ],
    )
    def test_mistakes_end_in_one_line_and_code_2(self, options, message, tmp_path, monkeypatch, capfd):
        monkeypatch.chdir(tmp_path)
        assert run(*options) == 2
        out, err = capfd.readouterr()
        assert out == "" and len(err.splitlines()) == 1
        assert message in err

    def test_unknown_format_is_a_usage_mistake(self, capfd):
        assert run("a.wav", "--format", "xml") == 2

    def test_a_result_that_can_not_be_written_is_printed(self, folder, sounds, tmp_path, capfd, monkeypatch):
        """The disk fills up while the model is at work."""

        def full(path, *given):
            raise OSError(28, "No space left on device")

        kept = tmp_path / "out.csv"
        kept.write_text("before")
        monkeypatch.setattr("serkit.files.sync", full)
        assert run(sounds / "short.wav", "--model", folder, "--format", "csv", "--output", kept) == 2
        out, err = capfd.readouterr()
        assert len(pd.read_csv(io.StringIO(out))) == 1 and kept.read_text() == "before"
        assert re.search(
            r"out.csv: can't write \d+ bytes \(No space left on device\).*; the result was printed instead\n",
            err,
        )
        assert sorted(os.listdir(tmp_path)) == [".out.csv.finished", "out.csv"]  # the next call goes on

    def test_what_is_no_file_stays_what_it_is(self, folder, sounds, tmp_path):
        """As /dev/stdout, which is a link."""
        (tmp_path / "kept.csv").touch()
        (tmp_path / "link").symlink_to("kept.csv")
        assert run(sounds / "short.wav", "--model", folder, "--output", tmp_path / "link") == 0
        assert (tmp_path / "link").is_symlink() and "short.wav" in (tmp_path / "kept.csv").read_text()

    def test_a_closed_pipe_ends_quietly(self, folder, sounds):
        """`serkit predict ... | head`: nobody reads any longer."""
        command = [
            sys.executable,
            "-m",
            "serkit.cli",
            "predict",
            str(sounds / "two.wav"),
            "--model",
            str(folder),
        ]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.close()
        err = child.stderr.read().decode()
        assert child.wait() == 141 and "Error" not in err and "Traceback" not in err, err

    def test_newest_fold_of_a_run_is_the_default(self, sounds, tmp_path, project, capfd):
        for fold, time in (("1", 2000), ("2", 3000), ("3", 1000)):
            place = tmp_path / "runs" / "mine" / "v" / f"fold={fold}" / "seed=1"
            write_model(place / "model", CORRECTED)
            (place / "DONE").write_text("x")
            os.utime(place / "DONE", (time, time))
        assert run(sounds / "short.wav", "--run", "mine") == 0
        assert "fold=2" in capfd.readouterr().err
        (place / "files.json").write_text('{"files": {}}')  # of the third
        os.utime(place / "files.json", (1000, 1000))
        os.utime(place / "DONE")  # touched since: no other fold than before
        assert run(sounds / "short.wav", "--run", "mine") == 0
        assert "fold=2" in capfd.readouterr().err
        assert run(sounds / "short.wav") == 2
        assert "run 'demo': no finished fold" in capfd.readouterr().err


def test_the_progress_bar_ends_at_its_end(predictor, tmp_path, monkeypatch):
    """A bar that stops short of its total turns red in a notebook."""
    from serkit.predict import predictor as module

    bars, usual = [], module.tqdm

    def watched(**options):
        bars.append(usual(**options | {"delay": 0, "file": io.StringIO()}))
        return bars[-1]

    monkeypatch.setattr(module, "tqdm", watched)
    soundfile.write(tmp_path / "talk.wav", voice(5.8), 16_000)
    predictor.predict(tmp_path / "talk.wav", progress=True)
    assert (bars[0].n, bars[0].total) == (6, 6)


class TestPhonesAndBrowsers:
    """What soundfile doesn't know."""

    FORMATS = (
        ("talk.m4a", "ipod", "aac"), ("talk.aac", "adts", "aac"), ("talk.webm", "webm", "libopus"), ("talk.mp4", "mp4", "aac"),
    )  # fmt: skip

    @pytest.fixture(scope="class")
    @classmethod
    def recorded(cls, tmp_path_factory):
        """A call of three seconds, one voice on each side, in each format; and as WAV."""
        av = pytest.importorskip("av", reason="no PyAV here: pip install 'serkit[av]'")
        folder = tmp_path_factory.mktemp("recorded")
        sound = np.stack([voice(3, 48_000), 0.1 * voice(3, 48_000, pitch=220)], 1)
        soundfile.write(folder / "talk.wav", sound, 48_000, "FLOAT")
        for name, form, codec in cls.FORMATS:
            with av.open(str(folder / name), "w", format=form) as container:
                stream = container.add_stream(codec, rate=48_000, layout="stereo")
                frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="flt", layout="stereo")
                frame.sample_rate, context = 48_000, stream.codec_context
                cut = av.AudioResampler(context.format, "stereo", 48_000, context.frame_size)
                for part in (*cut.resample(frame), *cut.resample(None)):
                    part.pts = None
                    container.mux(stream.encode(part))
                container.mux(stream.encode(None))
        return folder

    @pytest.mark.parametrize("name", [name for name, *_ in FORMATS])
    def test_heard_as_the_same_sound_in_wav(self, recorded, name):
        expected, sound = audio.read(recorded / "talk.wav"), audio.read(recorded / name)
        assert abs(len(sound) - len(expected)) < 0.1 * 16_000  # encoders add silence
        likeness = np.correlate(sound, expected[1600:-1600], "valid")  # a little earlier or later
        assert 0.9 < likeness.max() / np.sum(expected[1600:-1600] ** 2) < 1.1

    def test_predicted_with_a_channel_and_in_a_folder(self, recorded, predictor, folder, tmp_path, capfd):
        first = predictor.predict(recorded / "talk.m4a", channel=1)
        assert (first.sample_rate, first.channels, first.notices) == (48_000, 2, [])
        expected = predictor.predict(recorded / "talk.wav", channel=1)
        np.testing.assert_allclose(probabilities(first), probabilities(expected), atol=0.2)
        assert run(recorded, "--model", folder, "--format", "csv") == 0
        assert len(pd.read_csv(io.StringIO(capfd.readouterr().out))) == len(self.FORMATS) + 1

    def test_what_was_cut_short_is_said_or_refused(self, recorded, predictor, tmp_path):
        content = (recorded / "talk.webm").read_bytes()
        (tmp_path / "cut.webm").write_bytes(content[: len(content) // 2])
        prediction = predictor.predict(tmp_path / "cut.webm")
        assert "incomplete: the file announces 3.0 s and holds 1." in prediction.notices[0].text
        (tmp_path / "cut.m4a").write_bytes(
            (recorded / "talk.m4a").read_bytes()[:5000]
        )  # its index lies at the end
        with pytest.raises(AudioError, match=r"cut\.m4a: not readable as audio"):
            predictor.predict(tmp_path / "cut.m4a")

    @pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:1,\n{}\n", "ffconcat version 1.0\nfile {}\n", ""])
    def test_a_playlist_opens_no_other_file(self, recorded, tmp_path, text):
        (tmp_path / "list.m4a").write_text(text.format(recorded / "talk.wav"))
        with pytest.raises(AudioError, match=r"list\.m4a: not readable as audio"):
            audio.read(tmp_path / "list.m4a")

    def test_without_pyav_one_sentence_says_how_to_convert(self, recorded, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "av", None)
        shutil.copy(recorded / "talk.m4a", tmp_path / "my talk.m4a")
        with pytest.raises(AudioError) as caught:
            audio.read(tmp_path / "my talk.m4a")
        assert str(caught.value) == (
            f"{tmp_path}/my talk.m4a: soundfile can't read this; pip install 'serkit[av]', or convert it: "
            f"ffmpeg -i '{tmp_path}/my talk.m4a' '{tmp_path}/my talk.wav'"
        )
