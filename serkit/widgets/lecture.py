"""What notebooks choose, play and draw to explain a step: utterances, players, windows, mel bands, encoder frames.

Pictures of results are in ``serkit.figures``; here is what only a lecture needs.
"""

import base64
import io
from html import escape
from pathlib import Path

import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import soundfile
import soxr
from IPython import get_ipython
from IPython.display import Audio, display
from ipywidgets import FloatSlider, IntSlider, interactive
from jinja2 import Environment, FileSystemLoader
from matplotlib.axes import Axes
from scipy.signal import lfilter

from serkit import corpora, evaluation, figures, runs, training
from serkit.constants import GUIDED, HOP_LENGTH, N_FFT, PREEMPHASIS, SAMPLE_RATE
from serkit.errors import CorpusError, ParameterError, RunError, check_range, shown
from serkit.features import audio, cut_samples, plan_segments
from serkit.figures import BLUE, ORANGE, OTHER_COLOURS, VERMILLION, VIEW_COLOURS
from serkit.folds import seconds_of, task_rows
from serkit.metrics import PROBABILITY, classes_of, confusion_matrix, labels_of

PEAK = 0.9  # of full scale, where players are brought to equal peaks
SCREEN_DPI = 130  # a page of 7 inches fits beside JupyterLab's file browser
LOBE_POINTS = 2**16  # of the transform that shows a window's lobes: 0.24 Hz apart
EXAMPLE_S = 6.0  # s, length of the utterance that is shown when no recording is given
PYIN = {"fmin": 60, "fmax": 500, "frame_length": 1024}  # Hz, of voices; samples, two periods of the lowest
TELEPHONE_HZ = 8000
CSS = Path(__file__).with_name("style.css")
STYLE = f"<style>{CSS.read_text(encoding='utf-8')}</style>"
PAGES = Environment(loader=FileSystemLoader(CSS.parent), autoescape=True)


def player(sound, *, equal_peaks=False):
    """A player that holds the sound itself.

    Parameters
    ----------
    sound : np.ndarray, shape (num_samples,)
        Mono at 16 kHz.
    equal_peaks : bool
        Bring it to nine tenths of full scale. By default it is as loud as it is, and what lies beyond
        full scale is clipped.

    Returns
    -------
    IPython.display.Audio
    """
    peak = np.abs(sound).max(initial=0.0)
    scaled = sound * (PEAK / peak) if equal_peaks and peak else sound
    return Audio(np.clip(scaled, -1, 1), rate=SAMPLE_RATE, normalize=False)


def play(sounds, *, equal_peaks=False):
    """A player for each sound, under its name.

    Parameters
    ----------
    sounds : mapping of str to np.ndarray, shape (num_samples,)
        As :func:`player` takes them.
    equal_peaks : bool
    """
    for name, sound in sounds.items():
        print(name)
        display(player(sound, equal_peaks=equal_peaks))


def picture(figure, alt):
    """A figure as an HTML image that needs no file; the figure is closed."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=SCREEN_DPI)
    plt.close(figure)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{escape(alt)}" style="max-width: 100%" src="data:image/png;base64,{data}">'


def sliders(draw, **ranges):
    """Draw a picture once; in a notebook page with a slider for each of its parameters, which draws it again.

    Parameters
    ----------
    draw : callable
        Takes the parameters by name, and draws and shows. papermill calls it once, with the values given here.
    **ranges : tuple of (value, lowest, highest, step)
        For each parameter; whole numbers give a slider of whole numbers.

    Returns
    -------
    What ``draw`` returned for the values given here, such as the figure.

    Raises
    ------
    ParameterError
        If a value is outside its range.
    """
    for name, (value, lowest, highest, _) in ranges.items():
        check_range(name, value, lowest, highest)
    if not is_live():
        return draw(**{name: value for name, (value, *_) in ranges.items()})
    made = {}
    for name, (value, lowest, highest, step) in ranges.items():
        slider = IntSlider if isinstance(step, int) else FloatSlider
        bounds = {"min": lowest, "max": highest, "step": step}
        made[name] = slider(value, **bounds, continuous_update=False, description=name)
    panel = interactive(draw, **made)  # has drawn once when it is made
    display(panel.add_class("serkit-sliders"))
    return panel.result


def is_live():
    """Whether the cell being run was sent by a notebook page (which names the cell) and not by a program."""
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel else {}
    return "cellId" in (request.get("metadata") or {})


def segment_table(segments):
    """What was said of each segment, for reading: times in s, level in dBFS, probabilities in %.

    Parameters
    ----------
    segments : pd.DataFrame
        Of `serkit.predict.Prediction`.

    Returns
    -------
    pd.DataFrame
    """
    columns = {"start_s": "from (s)", "end_s": "to (s)", "peak_dbfs": "peak (dBFS)"}
    table = segments[list(columns)].rename(columns=columns)
    for label in labels_of(segments):
        table[label] = 100 * segments[PROBABILITY + label]
    return table.round(1).assign(likeliest=segments["emotion"])


def one_per_emotion(manifest, speaker=""):
    """One utterance of each class, as comparable as the corpus allows.

    All come from one speaker, because two voices differ more than two emotions of one voice.
    Among the speakers the one is taken that says the same sentence in most emotions, and among
    utterances those on which the annotators agree most; ties go to the first in the alphabet.

    Parameters
    ----------
    manifest : pd.DataFrame
    speaker : str, optional
        The speaker to take; default: chosen as above.

    Returns
    -------
    pd.DataFrame
        Rows of the manifest in class order, index 0, 1, ..., and the column ``seconds``. A
        sentence is a transcript where there is one, otherwise what the corpus calls a dialogue.

    Raises
    ------
    CorpusError
        If no speaker, or not the one asked for, has utterances of all classes.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"utterance_id": list("abcde"), "label": ["angry", "sad", "happy", "neutral", "sad"],
    ...                       "speaker": "x", "corpus": "demo", "dialogue": "d", "agreement": 1.0,
    ...                       "transcript": ["Go.", "No.", "Go.", "Go.", "Go."], "num_samples": 16000,
    ...                       "sample_rate": 16000})
    >>> one_per_emotion(table)["utterance_id"].tolist()
    ['a', 'e', 'c', 'd']
    """
    rows = _utterances(manifest, speaker)
    labels = classes_of(manifest)
    rows["sentence"] = rows["transcript"].fillna(rows["dialogue"])
    complete = rows.groupby("speaker")["label"].transform("nunique") == len(labels)
    if not complete.any():
        known = ", ".join(sorted(task_rows(manifest)["speaker"].unique()))
        who = f"speaker {speaker} has not" if speaker else "no speaker has"
        cure = f"choose another speaker ({known}) or use a larger part of the corpus"
        raise CorpusError(f"{who} all of {', '.join(labels)}; {cure}")
    voice, sentence = rows[complete].groupby(["speaker", "sentence"])["label"].nunique().idxmax()
    rows = rows[rows["speaker"] == voice].assign(other=lambda table: table["sentence"] != sentence)
    rows = rows.sort_values(["other", "agreement", "utterance_id"], ascending=[True, False, True])
    firsts = rows.drop_duplicates("label").set_index("label", drop=False).loc[list(labels)]
    return firsts[[*manifest.columns, "seconds"]].reset_index(drop=True)


def utterance_near(manifest, seconds, *, speaker=""):
    """The four-class utterance whose length comes closest.

    Parameters
    ----------
    manifest : pd.DataFrame
    seconds : float
        Wanted length in s.
    speaker : str, optional
        Only this speaker's utterances.

    Returns
    -------
    pd.Series
        A row of the manifest, with its length as ``seconds``.

    Raises
    ------
    ParameterError
        If the speaker has no labelled utterance.
    """
    rows = _utterances(manifest, speaker)
    if rows.empty:
        raise ParameterError(f"speaker={shown(speaker)} has no labelled utterance; choose another")
    return rows.loc[(rows["seconds"] - seconds).abs().idxmin()]


def check_all(checks):
    """Print each check with its outcome, and stop if one fails.

    Parameters
    ----------
    checks : dict of str to bool
        What must hold, in words.

    Raises
    ------
    RunError
        Naming all that fail.

    Examples
    --------
    >>> check_all({"four classes": True})
    ok    four classes
    """
    for name, holds in checks.items():
        print(f"{'ok  ' if holds else 'FAIL'}  {name}")
    if failed := [name for name, holds in checks.items() if not holds]:
        wrong = f"{len(failed)} of {len(checks)} checks failed: {'; '.join(failed)}"
        raise RunError(f"{wrong}; look at the cells above before using anything this notebook wrote")


def read_matrix(predictions):
    """What the confusion matrix of a prediction table says, in a few sentences.

    Examples
    --------
    >>> print(read_matrix(pd.DataFrame({"truth": ["sad", "sad", "happy"], "prediction": "happy"})))
    Best recognised: happy (1 of 1); worst: sad (0 of 2). Most frequent mistake: sad classified as happy (2 of 2). \
Never predicted: angry, sad, neutral.
    """
    counts = confusion_matrix(predictions["truth"], predictions["prediction"], labels_of(predictions))
    totals = counts.sum(axis=1)[lambda n: n > 0]
    shares = (pd.Series(np.diag(counts), counts.index) / totals).dropna()
    right = {label: f"{label} ({counts.loc[label, label]} of {totals[label]})" for label in totals.index}
    text = f"Best recognised: {right[shares.idxmax()]}; worst: {right[shares.idxmin()]}."
    mistakes = counts.where(~np.eye(len(counts), dtype=bool), 0).stack()
    truth, prediction = mistakes.idxmax()
    if n := mistakes.max():
        text += f" Most frequent mistake: {truth} classified as {prediction} ({n} of {totals[truth]})."
    never = [label for label in counts if not counts[label].any()]
    return text + f" Never predicted: {', '.join(never)}." * bool(never)


def read_weights(network, weights, num_samples, recipe):
    """What the co-attention weights of some segments have in common, in a sentence.

    Parameters
    ----------
    network : CoAttentionModel
    weights : np.ndarray, shape (N, T')
    num_samples : torch.Tensor of int64, shape (N,)
        Real samples of each segment.
    recipe : Recipe
        Of their features.

    Returns
    -------
    str
    """
    if network.config.fusion not in GUIDED or "speech" not in network.views or len(network.views) == 1:
        return "This network has no co-attention: no view decides about the frames of another."
    real = training.real_frames(network, num_samples, recipe)
    alike = evaluation.attention.correlations(weights, real).dropna()
    unused, n = (weights == 0).all(axis=0).sum(), len(weights)
    text = f"{unused} of {weights.shape[1]} frames get no weight in any of these {n} segments."
    if alike.empty:
        return f"{text} No segment's weights differ from frame to frame."
    return f"{text} A segment's weights correlate with the mean of all {n} at r = {alike.min():.2f} to {alike.max():.2f}."


def unheard_utterances(experiment):
    """Labelled utterances of the demo corpus, which is spoken if it is missing, that a model has not been trained on.

    Parameters
    ----------
    experiment : dict
        Of the model: ``corpus``, ``by`` and ``fold``.

    Returns
    -------
    pd.DataFrame
        Rows of the manifest: those of the tested fold, or all for a model of another corpus.
    """
    manifest = task_rows(corpora.load("demo", runs.corpus_root("demo", "")))
    if experiment["corpus"] == "demo":
        manifest = manifest[manifest[experiment["by"]] == experiment["fold"]]
    return manifest.reset_index(drop=True)


def choose_recording(recording, experiment):
    """The recording that was asked for, or an utterance that the model has not heard.

    Parameters
    ----------
    recording : path
        Empty: the utterance of the demo corpus whose length is nearest to 6 s.
    experiment : dict
        As in `unheard_utterances`.

    Returns
    -------
    path : str
    origin : str
        What is known about it, for a caption.
    """
    if recording:
        return str(recording), "your recording"
    row = utterance_near(unheard_utterances(experiment), EXAMPLE_S)
    origin = f"{row['utterance_id']} of the demo corpus, a machine speaking in a {row['label']} voice"
    return row["path"], origin


def four_emotions(experiment):
    """One voice in four emotions, one after the other in one recording.

    Returns
    -------
    content : bytes
        A wav file, 16 kHz.
    parts : pd.DataFrame
        ``label, start_s, end_s`` of each.
    """
    rows = one_per_emotion(unheard_utterances(experiment))
    sounds = [audio.read(path) for path in rows["path"]]
    ends = np.cumsum([len(sound) for sound in sounds]) / SAMPLE_RATE
    parts = pd.DataFrame({"label": rows["label"], "start_s": np.append(0, ends[:-1]), "end_s": ends})
    return wav_bytes(np.concatenate(sounds)), parts


def spoil(waveform):
    """The same speech, recorded badly in five ways.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,)
        16 kHz.

    Returns
    -------
    dict of str to bytes
        What was done -> wav file.
    """
    loudest = max(np.abs(waveform).max(), 1e-9)  # silence stays silence
    telephone = soxr.resample(waveform, SAMPLE_RATE, TELEPHONE_HZ, quality=audio.SOXR_QUALITY)
    return {
        "as it is": wav_bytes(waveform),
        "far away": wav_bytes(0.01 * waveform / loudest),  # peak at -40 dBFS
        "too loud": wav_bytes(np.clip(8 * waveform / loudest, -1, 1)),  # 8 times what a recorder can hold
        "telephone": wav_bytes(telephone, TELEPHONE_HZ),
        "cut off": wav_bytes(waveform[: SAMPLE_RATE // 2]),  # after half a second
        "muted": wav_bytes(0 * waveform),
    }


def wav_bytes(waveform, sample_rate=SAMPLE_RATE):
    """A mono waveform as a 16-bit wav file."""
    file = io.BytesIO()
    soundfile.write(file, waveform, sample_rate, "PCM_16", format="WAV")
    return file.getvalue()


def segment_sounds(waveform, recipe):
    """The segments of an utterance as they sound, padding included.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,), float32
        At 16 kHz.
    recipe : Recipe

    Returns
    -------
    np.ndarray, shape (N, 48000), float32
        What the recipe hands to the speech encoder, before it is brought to unit variance.
    """
    if recipe.preemphasis_waveform:
        waveform = audio.preemphasise(waveform, recipe.preemphasis)
    return cut_samples(waveform, plan_segments(len(waveform), recipe))


def split_at(waveform, frequency):
    """What of a sound lies below a frequency, and what above; together they are the sound again.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,)
        At 16 kHz.
    frequency : float
        Hz, from 0 to 8000.

    Returns
    -------
    below, above : np.ndarray, shape (num_samples,), float32

    Examples
    --------
    >>> below, above = split_at(np.array([1.0, -1.0, 1.0, -1.0]), 4000)  # 8 kHz, the highest there is
    >>> below.tolist(), above.tolist()
    ([0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 1.0, -1.0])
    """
    n = len(waveform)
    high = np.fft.rfftfreq(n, 1 / SAMPLE_RATE) >= frequency
    above = np.fft.irfft(np.fft.rfft(waveform) * high, n)
    return (waveform - above).astype(np.float32), above.astype(np.float32)


def pitch(waveform):
    """Pitch of each frame of 10 ms in Hz by pYIN, NaN where no voice is found.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,)
        At 16 kHz.

    Returns
    -------
    np.ndarray, shape (1 + num_samples // 160,)
    """
    return librosa.pyin(waveform, **PYIN, sr=SAMPLE_RATE, hop_length=HOP_LENGTH)[0]


def sound_of_bands(level, bands, *, hop_length):
    """A sound whose mel bands have these levels after pre-emphasis; its phases are guessed (Griffin and Lim).

    Parameters
    ----------
    level : np.ndarray, shape (n_frames, n_mels)
        In dB.
    bands : np.ndarray, shape (n_mels, n_fft // 2 + 1)
        The filters, as :func:`plot_mel_bands` takes them.
    hop_length : int
        In samples at 16 kHz.

    Returns
    -------
    np.ndarray, shape (num_samples,)
        At nine tenths of full scale: its own level is lost with the phases.
    """
    power = np.maximum(10 ** (level / 10) @ np.linalg.pinv(bands).T, 0)  # (n_frames, n_fft // 2 + 1)
    sound = librosa.griffinlim(np.sqrt(power).T, n_iter=16, hop_length=hop_length, random_state=0)
    sound = lfilter([1.0], [1.0, -PREEMPHASIS], sound)
    return sound * PEAK / np.abs(sound).max(initial=1e-9)


def plot_frame(frame, window, ax: Axes) -> Axes:
    """One frame with its window; its middle 20 ms; its power spectrum up to 1.5 kHz.

    Parameters
    ----------
    frame, window : np.ndarray, shape (num_samples,)
        At 16 kHz; the window lies between 0 and 1.
    ax : Axes
        Gives its place to three panels.
    """
    whole, middle, comb = ax.get_subplotspec().subgridspec(1, 3).subplots()
    ax.set_axis_off()
    milliseconds = 1000 * np.arange(len(frame)) / SAMPLE_RATE
    shape = frame / (np.abs(frame).max() or 1.0)
    whole.plot(milliseconds, shape, color="0.7", linewidth=0.6, label="frame")
    whole.plot(milliseconds, shape * window, color=BLUE, linewidth=0.6, label="windowed")
    whole.plot(milliseconds, window, color=VERMILLION, label="window")
    whole.set(xlabel="time in the frame (ms)", ylabel="amplitude, peak = 1", xlim=(0, milliseconds[-1]))
    figures.legend_above(whole)
    near = slice(max(len(frame) // 2 - 160, 0), len(frame) // 2 + 160)
    middle.plot(milliseconds[near], shape[near], color=BLUE)
    middle.set(xlabel="time in the frame (ms)", title="its middle", xlim=milliseconds[near][[0, -1]])
    level = 20 * np.log10(np.abs(np.fft.rfft(frame * window)) + 1e-5)
    comb.plot(np.linspace(0, SAMPLE_RATE / 2, len(level)), level, color=BLUE, linewidth=0.8)
    comb.set(xlabel="frequency (Hz)", ylabel="power (dB)", title="its spectrum", xlim=(0, 1500))
    comb.set_ylim(np.percentile(level, 1) - 3, None)
    return ax


def plot_mel_bands(bands, ax: Axes, *, every=8) -> Axes:
    """The filters that a mel spectrum adds up with, as triangles over frequency.

    Parameters
    ----------
    bands : np.ndarray, shape (n_mels, n_fft // 2 + 1)
        Weights of the bins, from 0 Hz to half the sample rate.
    ax : Axes
    every : int
        Draw only every 8th band, say: all of them would be one blot.
    """
    kilohertz = np.linspace(0, SAMPLE_RATE / 2000, bands.shape[1])
    for number, weights in enumerate(bands[::every] / bands.max()):
        ax.plot(kilohertz, weights, color=(BLUE, ORANGE)[number % 2], linewidth=0.7)
    ax.set(xlabel="frequency (kHz)", ylabel="weight, largest = 1", xlim=(0, kilohertz[-1]), ylim=(0, 1.05))
    return ax


def plot_steps(spectrum, bands, envelope, coefficients, kept, ax: Axes) -> Axes:
    """From the spectrum of one frame to its MFCC: the mel bands, the envelope in them, the coefficients.

    Parameters
    ----------
    spectrum : np.ndarray, shape (n_fft // 2 + 1,)
        Levels in dB, from 0 to 8000 Hz.
    bands, envelope : np.ndarray, shape (n_mels,)
        Levels of the mel bands in dB, and what the kept coefficients make of them.
    coefficients : np.ndarray, shape (n_mels,)
        All of them; only the first ``kept`` are coloured.
    kept : int
    ax : Axes
        Gives its place to three panels.
    """
    left, middle, right = ax.get_subplotspec().subgridspec(1, 3, width_ratios=(1.3, 1.3, 1)).subplots()
    ax.set_axis_off()
    kilohertz, purple = np.linspace(0, SAMPLE_RATE / 2000, len(spectrum)), VIEW_COLOURS["mfcc"]
    left.plot(kilohertz, spectrum, color="0.3", linewidth=0.5)
    left.set(xlabel="frequency (kHz)", ylabel="power (dB)", xticks=(0, 2, 4, 6, 8), xlim=(0, 8))
    left.set_ylim(np.percentile(spectrum, 1) - 3, None)  # single gaps in it reach far lower
    middle.plot(bands, color=purple, linewidth=0.8, label="mel bands")
    middle.plot(envelope, color=VERMILLION, label=f"from the first {kept}")
    middle.set(xlabel="mel band", ylabel="level (dB)", xlim=(0, len(bands) - 1))
    figures.legend_above(middle)
    numbers = np.arange(1, len(coefficients))
    right.bar(numbers, coefficients[1:], color=np.where(numbers < kept, purple, "0.75"), width=1.0)
    right.set(xlabel="coefficient (purple: kept)", ylabel="MFCC (dB)", xlim=(0, None))
    right.set_title(f"coefficient 0: {coefficients[0]:.0f} dB".replace("-", "−"), fontsize=7)
    return ax


def plot_lobes(windows_ms, ax: Axes, *, span=250.0) -> Axes:
    """What one pure tone becomes in the spectrum, for Hamming windows of several lengths.

    Parameters
    ----------
    windows_ms : sequence of float
        Lengths in ms.
    ax : Axes
    span : float
        Hz shown on each side of the tone.
    """
    hz = np.fft.fftshift(np.fft.fftfreq(LOBE_POINTS, 1 / SAMPLE_RATE))
    near = np.abs(hz) <= span
    for ms, colour in zip(windows_ms, (ORANGE, BLUE, VERMILLION, *OTHER_COLOURS), strict=False):
        lobe = np.abs(np.fft.fftshift(np.fft.fft(np.hamming(round(ms * SAMPLE_RATE / 1000)), LOBE_POINTS)))
        ax.plot(hz[near], 20 * np.log10(lobe[near] / lobe.max() + 1e-6), color=colour, label=f"{ms:g} ms")
    ax.set(xlabel="distance from the tone (Hz)", ylabel="level (dB)", xlim=(-span, span))
    ax.set_ylim(-42, 2)  # a Hamming window's side lobes lie below
    return figures.legend_above(ax)


def plot_picture(pixels, ax: Axes) -> Axes:
    """A segment as the CNN gets it: 8-bit grey, highest frequency on top.

    Parameters
    ----------
    pixels : np.ndarray, shape (256, 384)
        0 black, 255 white.
    ax : Axes
    """
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, aspect="auto")
    ax.set(xlabel="pixel column", ylabel="pixel row")
    ax.spines[:].set_visible(True)
    return ax


def plot_narrow(spectrogram_db, ax: Axes, *, title, n_fft=N_FFT, pitch_hz=None) -> Axes:
    """A spectrogram at the usual hop as one of several panels, without a colour bar, with the pitch drawn over it.

    Parameters
    ----------
    spectrogram_db : np.ndarray, shape (n_bins, n_frames)
        From :func:`serkit.features.log_spectrogram`.
    ax : Axes
        Labels are left out where a neighbour has the same.
    title : str
    n_fft : int
    pitch_hz : np.ndarray, shape (n_frames,), optional
        From :func:`pitch`.
    """
    size = {"hop_length": HOP_LENGTH, "sample_rate": SAMPLE_RATE, "n_fft": n_fft}
    figures.plot_spectrogram(spectrogram_db, ax=ax, **size, colour_bar=False)
    if pitch_hz is not None:
        seconds = np.arange(len(pitch_hz)) * HOP_LENGTH / SAMPLE_RATE
        ax.plot(seconds, pitch_hz / 1000, color=VIEW_COLOURS["spectrogram"], linewidth=1.5)
    ax.set_title(title)
    ax.label_outer()
    return ax


def plot_filters(filters, maps, ax: Axes) -> Axes:
    """Filters of a convolution, and below each what it answers to in several pictures.

    Parameters
    ----------
    filters : array, shape (n_filters, height, width)
    maps : mapping of str to array, shape (n_filters, rows, columns)
        By the name of the picture; all on one scale, symmetric about 0.
    ax : Axes
        Gives its place to the panels.
    """
    panels = ax.get_subplotspec().subgridspec(1 + len(maps), len(filters)).subplots()
    ax.set_axis_off()
    largest = max(float(abs(of_picture).max()) for of_picture in maps.values())
    for line, (name, pictures) in zip(panels, {"filter": filters, **maps}.items(), strict=True):
        limit = float(abs(filters).max()) if name == "filter" else largest
        for panel, picture in zip(line, pictures, strict=True):
            panel.imshow(np.asarray(picture), cmap="PuOr_r", vmin=-limit, vmax=limit)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
        line[0].set_ylabel(name)
    return ax


def plot_fields(waveform, ax: Axes, *, field, hop, first=0, n_frames=6) -> Axes:
    """The stretch of samples that each of some neighbouring encoder frames looks at.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,)
        At 16 kHz; only what the frames look at is drawn.
    ax : Axes
    field, hop : int
        Receptive field and hop of the encoder in samples.
    first, n_frames : int
        Number of the first frame, and how many to draw.
    """
    start, end = first * hop, (first + n_frames - 1) * hop + field
    part = waveform[start:end]
    seconds = (start + np.arange(len(part))) / SAMPLE_RATE
    ax.plot(seconds, part, color=BLUE, linewidth=0.7)
    peak = np.abs(part).max() or 1.0
    for row in range(n_frames):
        level, begin = -peak * (1.3 + 0.22 * row), (first + row) * hop / SAMPLE_RATE
        ax.hlines(level, begin, begin + field / SAMPLE_RATE, (VERMILLION, ORANGE)[row % 2], linewidth=3)
        ax.text(begin, level, f"{first + row}  ", ha="right", va="center", fontsize=7)
    margin = 0.05 * (end - start)
    ax.set_xlim((start - margin) / SAMPLE_RATE, end / SAMPLE_RATE)
    ax.set(xlabel="time (s)", ylabel="amplitude", yticks=[0])
    return ax


def plot_vectors(vectors, ax: Axes, *, hop, n_real) -> Axes:
    """One vector for each encoder frame as a picture, with the end of the speech dashed.

    Parameters
    ----------
    vectors : np.ndarray, shape (n_frames, D)
    ax : Axes
    hop : int
        Samples at 16 kHz from one frame to the next.
    n_real : int
        How many first frames are speech.
    """
    limit = float(np.percentile(np.abs(vectors), 99)) or 1.0
    extent = (0, len(vectors) * hop / SAMPLE_RATE, -0.5, vectors.shape[1] - 0.5)
    image = ax.imshow(vectors.T, origin="lower", aspect="auto", extent=extent, cmap="PuOr_r")
    image.set_clim(-limit, limit)
    ax.axvline(n_real * hop / SAMPLE_RATE, color="black", linestyle="--", linewidth=0.8)
    ax.set(xlabel="time (s); dashed: end of the speech", ylabel="dimension of the vector")
    ax.figure.colorbar(image, ax=ax, label="hidden state", pad=0.02, extend="both")
    return ax


def _utterances(manifest, speaker):
    """The labelled utterances, of one speaker if it is named, with their length as ``seconds``."""
    rows = task_rows(manifest).assign(seconds=seconds_of)
    # papermill makes 1 of 01
    return rows[rows["speaker"].str.lstrip("0") == speaker.lstrip("0")] if speaker else rows
