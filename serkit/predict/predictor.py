"""Any sound file to the probabilities of four emotions, for the whole and for every three seconds."""

import contextlib
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from serkit.constants import LABELS, SAMPLE_RATE
from serkit.errors import AudioError, ParameterError
from serkit.features.segments import plan_segments
from serkit.features.store import encode_level, level_of_code
from serkit.features.views import SegmentFeatures, UtteranceFeatures, cut_segments, utterance_features
from serkit.metrics import utterance_probabilities
from serkit.model.storage import open_model_folder
from serkit.predict.loudness import to_dbfs
from serkit.predict.recording import Recording
from serkit.training.batches import model_inputs, segment_batch
from serkit.training.devices import resolve_precision

BATCH_SEGMENTS = 16  # at least so many go through the model at once where a recording has them
BAR_AFTER_S = 3  # s that a recording may take before a progress bar appears
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PROBABILITIES = [f"p_{label}" for label in LABELS]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about one recording."""

    path: str
    utterance: dict  # label -> probability of the whole recording, in class order
    segments: pd.DataFrame  # start_s, end_s, seconds (of sound), peak_dbfs, p_..., emotion
    warnings: list  # what a reader of the result should know, one sentence each
    duration_s: float
    sample_rate: int  # of the file, Hz
    channels: int

    @property
    def emotion(self):
        """The most probable label."""
        return max(self.utterance, key=self.utterance.get)


@dataclass(frozen=True, eq=False)
class Attention:
    """How the model came to its answer on one utterance, segment by segment."""

    utterance: dict  # label -> probability of the whole utterance, in class order
    segments: pd.DataFrame  # as in `Prediction`
    weights: np.ndarray  # (N, T') co-attention weight of each speech encoder frame
    spectrogram: np.ndarray  # (N, 200, 300) dB below the utterance's peak, padding included
    n_frames: np.ndarray  # (N,) real frames of the spectrogram


class Predictor:
    """A trained model, ready for sound files.

    Parameters
    ----------
    folder : path
        Model folder, such as ``runs/<run>/<variant>/fold=<f>/seed=<s>/model``.
    device : str, optional
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    precision : {"auto", "float32", "bf16", "fp16"}, optional
        Of the network's arithmetic; ``auto`` is float32 on a CPU.

    Raises
    ------
    WeightsError
        If the folder holds no complete model.
    ParameterError
        If there is no such device or precision.
    """

    def __init__(self, folder, device="auto", precision="auto"):
        self.device = _find_device(device)
        self.precision = _find_precision(precision, self.device)
        opened = open_model_folder(folder)
        self.folder, self.recipe, self.scaler = opened.folder, opened.recipe, opened.scaler
        self.experiment = opened.experiment  # what it was trained on
        self.model = opened.model.to(self.device)

    def predict(self, path, *, progress=False):
        """Recognise the emotions in one recording.

        A sound of up to 30 s is one utterance, as in training; a longer one is cut into windows of
        15 s (see `serkit.predict.recording`). Memory does not grow with its length.

        Parameters
        ----------
        path : path
            Any format that soundfile reads, any rate, mono or not, 25 ms or longer.
        progress : bool, optional
            Show a bar on stderr once it takes more than a few seconds.

        Returns
        -------
        Prediction
            Probabilities of a segment are the softmax of its logits; those of the whole come from
            the mean over all segments of log-softmax. A segment's times are those of its real
            sound; with a recipe that overlaps the last piece of an utterance, they overlap too.

        Raises
        ------
        AudioError
            If the file is missing, is no audio, or holds no usable waveform.
        """
        recording = Recording(path)
        scores, tables = [], []
        total_s = recording.announced / recording.sample_rate
        with tqdm(desc=recording.path.name, total=round(total_s, 1), unit="s", delay=BAR_AFTER_S,
                  leave=False, disable=not progress) as bar:  # fmt: skip
            for features, about in self._batches(recording):
                scores.append(self._score(features))
                tables.append(about)
                bar.update(recording.duration_s - bar.n)
        scores = np.concatenate(scores)
        whole = utterance_probabilities(scores.mean(axis=0))
        return Prediction(
            path=str(path),
            utterance=dict(zip(LABELS, whole.tolist(), strict=True)),
            segments=_segment_table(pd.concat(tables, ignore_index=True), scores),
            warnings=recording.warnings(),
            duration_s=recording.duration_s,
            sample_rate=recording.sample_rate,
            channels=recording.channels,
        )

    def predict_many(self, paths, *, progress=False):
        """Recognise many recordings; one that can't be used does not stop the others.

        Parameters
        ----------
        paths : sequence of path
        progress : bool, optional

        Returns
        -------
        predictions : list of Prediction
            In the order of ``paths``, without those that failed.
        failed : dict of str to str
            Path of each file that can't be used, and why.
        """
        predictions, failed = [], {}
        for path in tqdm(
            paths, "files", delay=BAR_AFTER_S, leave=False, disable=not progress or len(paths) < 2
        ):
            try:
                predictions.append(self.predict(path, progress=progress))
            except AudioError as error:
                failed[str(path)] = str(error)
        return predictions, failed

    def attend(self, waveform):
        """Recognise one utterance and keep what the co-attention did.

        Parameters
        ----------
        waveform : np.ndarray, shape (num_samples,), float32
            One turn at 16 kHz, as `serkit.features.audio.read` gives it: whatever its length it is one
            utterance, as in training.

        Returns
        -------
        Attention

        Raises
        ------
        ParameterError
            If the model has no co-attention, because it does not see the waveform.
        """
        if "speech" not in self.model.views:
            raise ParameterError(
                f"views={self.model.config.views!r}: this model does not see the waveform, so no frame of it has a "
                "weight to be drawn; choose a variant that does"
            )
        features, plan = _analyse(waveform, self.recipe)
        parts = [
            self._forward(_take(features, slice(start, start + BATCH_SEGMENTS)))
            for start in range(0, len(features), BATCH_SEGMENTS)
        ]
        scores = np.concatenate([_log_probabilities(part) for part in parts])
        return Attention(
            utterance=dict(zip(LABELS, utterance_probabilities(scores.mean(axis=0)).tolist(), strict=True)),
            segments=_segment_table(_places(0, waveform, plan), scores),
            weights=np.concatenate([part.coattention.float().cpu().numpy() for part in parts]),
            spectrogram=features.spectrogram,
            n_frames=features.n_frames,
        )

    def _batches(self, recording):
        """Features of some segments at a time, and where they lie in the recording."""
        waiting, about = [], []
        for start, waveform in recording.windows(self.recipe):
            features, plan = _analyse(waveform, self.recipe)
            waiting.append(features)
            about.append(_places(start, waveform, plan))
            if sum(map(len, waiting)) >= BATCH_SEGMENTS:
                yield _join(waiting), pd.concat(about)
                waiting, about = [], []
        if waiting:
            yield _join(waiting), pd.concat(about)

    def _score(self, features):
        """Log-probabilities of segments, shape (N, 4), float64."""
        return _log_probabilities(self._forward(features))

    @torch.inference_mode()
    def _forward(self, features):
        """The network's output for some segments."""
        kind = AUTOCAST.get(self.precision)
        autocast = torch.autocast(self.device.type, kind) if kind else contextlib.nullcontext()
        inputs = model_inputs(segment_batch(features), self.scaler, self.recipe, self.device)
        with autocast:
            return self.model(**inputs)


def summary_table(predictions):
    """One row for each recording.

    Parameters
    ----------
    predictions : list of Prediction

    Returns
    -------
    pd.DataFrame
        ``file, duration_s, sample_rate, channels, emotion, p_angry, ..., warnings``.
    """
    rows = [
        {
            "file": each.path, "duration_s": round(each.duration_s, 3), "sample_rate": each.sample_rate,
            "channels": each.channels, "emotion": each.emotion,
            **dict(zip(PROBABILITIES, each.utterance.values(), strict=True)),
            "warnings": "; ".join(each.warnings),
        }
        for each in predictions
    ]  # fmt: skip
    columns = ["file", "duration_s", "sample_rate", "channels", "emotion", *PROBABILITIES, "warnings"]
    return pd.DataFrame(rows, columns=columns)


def _analyse(waveform, recipe):
    """The segments of one utterance as training sees them, and their plan.

    Levels go through the 16-bit codes of the feature store: the picture made from them has 8 bits,
    and a level next to a grey step must not fall on its other side.
    """
    whole = utterance_features(waveform, recipe)
    levels = level_of_code(recipe.top_db)[encode_level(whole.spectrogram, recipe.top_db)]
    plan = plan_segments(len(waveform), recipe)
    return cut_segments(UtteranceFeatures(levels, whole.mfcc, waveform), plan, recipe), plan


def _places(start, waveform, plan):
    """Where segments lie in the recording, in seconds, and their peak level."""
    first = start + plan.sample_start
    ends = plan.sample_start + plan.num_samples
    peaks = [np.abs(waveform[a:b]).max(initial=0) for a, b in zip(plan.sample_start, ends, strict=True)]
    return pd.DataFrame({
        "start_s": first / SAMPLE_RATE,
        "end_s": (start + ends) / SAMPLE_RATE,
        "seconds": plan.num_samples / SAMPLE_RATE,
        "peak_dbfs": [to_dbfs(peak) for peak in peaks],
    })  # fmt: skip


def _log_probabilities(output):
    return F.log_softmax(output.logits.float(), dim=1).cpu().numpy().astype(np.float64)


def _segment_table(places, scores):
    probability = pd.DataFrame(utterance_probabilities(scores), columns=PROBABILITIES)
    return pd.concat([places, probability], axis=1).assign(emotion=np.array(LABELS)[scores.argmax(axis=1)])


def _join(parts):
    """Segments of several windows in one."""
    if len(parts) == 1:
        return parts[0]
    names = [field.name for field in fields(SegmentFeatures)]
    return SegmentFeatures(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )


def _take(features, rows):
    """Some segments of many."""
    return SegmentFeatures(**{field.name: getattr(features, field.name)[rows] for field in fields(features)})


def _find_device(name):
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not there.get(device.type, False):
        found = ", ".join(kind for kind, here in there.items() if here)
        raise ParameterError(f"device={name!r}, expected auto or what this machine has: {found}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ParameterError(f"device={name!r}, expected a number below {torch.cuda.device_count()}")
    return device


def _find_precision(name, device):
    known = ("auto", "float32", *AUTOCAST)
    if name not in known:
        raise ParameterError(f"precision={name!r}, expected one of {', '.join(known)}")
    return "no" if name == "auto" and device.type != "cuda" else resolve_precision(name)
