"""A model as ONNX: the same logits in another program, and an answer without serkit."""

import ast
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_line import exit_code
from voices import voice, write_model, write_model_folder

from serkit.experiment import Experiment
from serkit.features import audio, segment_features
from serkit.model import storage
from serkit.model.coattention import DEMO, create_model
from serkit.predict import Predictor
from serkit.recipe import CORRECTED
from serkit.training.batches import model_inputs, segment_batch

HOME = Path(__file__).parents[2]
PAGE = HOME / "serkit/model/README.md"
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name in ("serkit", "torch"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""

run = partial(exit_code, "export")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo model: a small wav2vec 2.0, and answers that differ."""
    return write_model(tmp_path_factory.mktemp("model"), CORRECTED)


@pytest.fixture(scope="module")
def runtime():
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason="pip install 'serkit[onnx]'")
    return pytest.importorskip("onnxruntime", reason="pip install 'serkit[onnx]'")


@pytest.fixture(scope="module")
def exported(runtime, folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert run("--onnx", folder, path) == 0
    return path


@pytest.fixture(scope="module")
def clips(shared):
    """Twenty utterances of twenty actors."""
    files = sorted((shared / "data" / "ravdess").rglob("*.flac"))
    if not files:
        pytest.skip("no RAVDESS in the shared folder")
    return files[:: len(files) // 20][:20]


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Padded, whole, and several segments."""
    base = tmp_path_factory.mktemp("tones")
    for length_s in (0.3, 3, 7.3):
        soundfile.write(base / f"{length_s}.wav", voice(length_s), 16_000)
    return sorted(base.iterdir())


def differences(runtime, path, folder, sounds):
    """Largest difference of a logit and of a frame's weight, over all sounds."""
    session, opened, largest = runtime.InferenceSession(path), storage.open_model_folder(folder), []
    for sound in sounds:
        views = segment_features(audio.read(sound), opened.recipe)
        inputs = model_inputs(segment_batch(views), opened.scaler, opened.recipe, "cpu")
        names = [given.name for given in session.get_inputs()]
        found = session.run(["logits", "coattention"], {name: inputs[name].numpy() for name in names})
        with torch.no_grad():
            wanted = opened.model(**inputs)
        pairs = zip(found, (wanted.logits, wanted.coattention), strict=True)
        largest.append([np.abs(ours - theirs.numpy()).max() for ours, theirs in pairs])
    return np.max(largest, axis=0)


class TestParity:
    """1e-4 is what the page promises; sums in another order differ by about 1e-6."""

    def test_on_tones_of_every_length(self, runtime, exported, folder, tones):
        assert (differences(runtime, exported, folder, tones) <= 1e-4).all()

    def test_on_real_speech(self, runtime, exported, folder, clips):
        assert len(clips) == 20
        assert (differences(runtime, exported, folder, clips) <= 1e-4).all()

    def test_with_a_real_encoder(self, runtime, shared, clips, tmp_path):
        """Whisper, frozen: its weights are not in the model folder, but in the file."""
        encoder = shared / "encoders" / "whisper-base"
        if not encoder.is_dir():
            pytest.skip("no real encoder in the shared folder")
        views = {"views": "spectrogram+speech", "encoder_training": "frozen"}
        network = create_model(dataclasses.replace(DEMO, speech_encoder=str(encoder), **views))
        (folder := tmp_path / "model").mkdir()
        write_model_folder(folder, network.eval(), experiment=Experiment(**views))
        storage.export_onnx(folder, path := tmp_path / "whisper.onnx")
        assert path.stat().st_size > 70e6  # 20.6 M values in float32
        assert (differences(runtime, path, folder, clips) <= 1e-4).all()

    def test_the_file_says_how_sound_becomes_its_input(self, runtime, exported, folder):
        found = runtime.InferenceSession(exported).get_modelmeta().custom_metadata_map["features.json"]
        assert found == (folder / "features.json").read_text()
        assert json.loads(found)["labels"] == list(DEMO.labels)


@pytest.mark.parametrize("sounds", ["tones", "clips"])
def test_the_lines_on_the_page_answer_as_serkit_does(request, exported, folder, sounds, tmp_path):
    """In a process that can import neither serkit nor torch."""
    [program] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    program = WITHOUT + program
    shutil.copy(exported, tmp_path / "model.onnx")
    predictor = Predictor(folder, device="cpu")
    for sound in request.getfixturevalue(sounds)[:3]:
        soundfile.write(tmp_path / "talk.wav", *soundfile.read(sound))
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        found, wanted = ast.literal_eval(done.stdout), predictor.predict(tmp_path / "talk.wav").utterance
        # librosa's levels differ by less than 0.001 dB, so here and there a grey level is another one
        assert found == pytest.approx(wanted, abs=1e-3)


class TestRefused:
    @pytest.mark.parametrize(
        "name", ["model.safetensors", "nowhere/model.onnx", "folder.onnx", "model/model.onnx"]
    )
    def test_a_place_that_is_none(self, folder, tmp_path, name, capfd):
        """Nothing is written into a model folder: what lies there was counted when its training ended."""
        (tmp_path / "folder.onnx").mkdir()
        (tmp_path / "model").symlink_to(folder)
        assert run("--onnx", tmp_path / "model", tmp_path / name) == 2
        assert (
            "expected a name that ends in .onnx, in a folder that exists and isn't the model's"
            in capfd.readouterr().err
        )

    def test_no_model(self, runtime, tmp_path, capfd):
        assert run("--onnx", tmp_path / "gone", tmp_path / "model.onnx") == 2
        assert "gone: no such folder; train a model" in capfd.readouterr().err

    def test_a_package_that_is_missing(self, folder, tmp_path, monkeypatch, capfd):
        monkeypatch.setitem(sys.modules, "onnx", None)
        assert run("--onnx", folder, tmp_path / "model.onnx") == 2
        assert capfd.readouterr().err.endswith("pip install 'serkit[onnx]'\n")

    def test_logits_that_differ_leave_no_file(self, runtime, folder, tmp_path, monkeypatch, capfd):
        """As a converter with a fault would give them; the network has the spectrogram only, which is quick."""
        network = create_model(dataclasses.replace(DEMO, views="spectrogram")).eval()
        write_model_folder(tmp_path, network, experiment=Experiment(views="spectrogram"))
        monkeypatch.setattr(storage, "ONNX_ERROR", -1)
        (target := tmp_path / "out").mkdir()
        assert run("--onnx", tmp_path, target / "model.onnx") == 2
        assert "can't be written as ONNX: logits are" in capfd.readouterr().err and not list(target.iterdir())

    def test_what_torch_can_not_convert(self, runtime, folder, tmp_path, monkeypatch, capfd):
        def fail(*_, **__):
            raise torch.onnx.OnnxExporterError("an operator\nis unknown")

        monkeypatch.setattr(torch.onnx, "export", fail)
        assert run("--onnx", folder, tmp_path / "model.onnx") == 2
        assert "can't be written as ONNX (an operator); use" in capfd.readouterr().err and not list(
            tmp_path.iterdir()
        )
