"""What notebooks build by hand is compared with serkit: where serkit computes something else, they stop and say so."""

import ast
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from colab_cell import is_colab_cell
from tones import make_tones

from serkit import corpora, features, figures, model, runs
from serkit.errors import ParameterError, RunError
from serkit.widgets import lecture

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
AGREES = "agrees with serkit"
CLOSE = 1e-5  # of the largest value; float32 has 7 digits
SPOIL = {  # what of serkit is changed by a ten-thousandth
    "02_mfcc": [(features, "mfcc"), (model.MfccBiLstm, "forward")],
    "03_spectrogram": [
        (features, "log_spectrogram"),
        (features, "spectrogram_image"),
        (model.SpectrogramCNN, "forward"),
    ],
    "04_wav2vec2": [(model.CoAttentionModel, "frame_weights")],
}
OUTSIDE = {  # parameters, each outside the range that its comment promises
    "02_mfcc": {"n_mfcc": 1, "n_mels": 300, "n_fft": 10, "hop_length": 640, "short_s": 5.0, "long_s": 3.0},
    "03_spectrogram": {
        "window_ms": 200, "zoom_s": 4.0, "scaler_utterances": 19, "short_s": 0.4, "long_s": 3.0,
    },
    "04_wav2vec2": {"short_s": 3.0, "click_s": 2.5},
}  # fmt: skip


def code(stem):
    cells = nbformat.read(NOTEBOOKS / f"{stem}.ipynb", as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code" and not is_colab_cell(cell)]


def comparisons(stem):
    """What ``check_all`` of a notebook asks about serkit: words -> the expression that must hold."""
    trees = [ast.parse(source) for source in code(stem) if "check_all(" in source]
    (checks,) = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Dict))
    named = {key.value: value for key, value in zip(checks.keys, checks.values, strict=True)}
    return {words: value for words, value in named.items() if AGREES in words}


@pytest.fixture
def step_through(monkeypatch, demo_corpus, tmp_path):
    """Function that runs the cells of a notebook, or the first ones, in this process and in an empty project."""
    (tmp_path / "notebooks").symlink_to(NOTEBOOKS)  # by them a project is known
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    # of no account for what is compared, and slow
    monkeypatch.setattr(figures, "save", lambda *given, **more: None)
    monkeypatch.setattr(lecture, "pitch", lambda waveform: np.full(1 + len(waveform) // 160, 100.0))
    monkeypatch.setattr(runs, "open_manifest", lambda run: corpora.load("demo", demo_corpus))

    def step_through(stem, n_cells=None, **parameters):
        names = {}
        for number, source in enumerate(code(stem)[:n_cells]):
            exec(source, names)
            if number == 1:  # below the cell of parameters, as papermill does
                names |= parameters
        return names

    yield step_through
    plt.close("all")


@pytest.mark.parametrize("stem", SPOIL)
def test_every_comparison_has_a_limit(stem):
    found = comparisons(stem)
    assert len(found) == len(SPOIL[stem])
    for words, value in found.items():
        assert isinstance(value, ast.Compare) and isinstance(value.ops[0], ast.Lt), words
        assert ast.literal_eval(value.comparators[0]) <= CLOSE, words


@pytest.mark.notebooks
@pytest.mark.parametrize("stem", SPOIL)
def test_a_notebook_stops_where_serkit_computes_something_else(stem, monkeypatch, step_through):
    for owner, name in SPOIL[stem]:
        right = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, _right=right, **more: 1.0001 * _right(*args, **more))
    with pytest.raises(RunError) as stopped:
        step_through(stem)
    assert str(stopped.value).startswith(f"{len(SPOIL[stem])} of ")
    assert all(words in str(stopped.value) for words in comparisons(stem))


@pytest.mark.parametrize(("stem", "name"), [(stem, name) for stem, bad in OUTSIDE.items() for name in bad])
def test_a_parameter_outside_of_its_range(stem, name, step_through):
    value = OUTSIDE[stem][name]
    with pytest.raises(ParameterError, match=f"^{name}={value}, expected a (whole )?number from"):
        step_through(stem, 3, **{name: value})


def test_the_network_in_ten_lines(monkeypatch, step_through, tmp_path):
    """Notebook 05 up to its ten lines, on tones: they give the model's logits, and not those of another model."""
    monkeypatch.setattr(runs, "open_manifest", lambda run: make_tones(tmp_path)[0])
    n_cells = next(i for i, source in enumerate(code("05_train_coattention"), 1) if "def forward" in source)
    assert step_through("05_train_coattention", n_cells)["difference"] < CLOSE
    right = model.CoAttentionModel.frame_weights
    monkeypatch.setattr(model.CoAttentionModel, "frame_weights", lambda *args: 1.01 * right(*args))
    assert step_through("05_train_coattention", n_cells)["difference"] > CLOSE
