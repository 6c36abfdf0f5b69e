"""Any sound file to the probabilities of four emotions, for the whole and for every three seconds."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from serkit import features
from serkit.constants import SAMPLE_RATE
from serkit.corpora.sound_files import shown_path
from serkit.errors import ParameterError, check_choice, check_range, shown
from serkit.metrics import PROBABILITY, utterance_probabilities
from serkit.model import open_model_folder
from serkit.predict.recording import Recording, to_dbfs
from serkit.training.batches import model_inputs, segment_batch
from serkit.training.scoring import resolve_precision

BATCH_SEGMENTS = 16  # at most go through the model at once
UNCERTAIN = "uncertain"  # in place of an answer
BAR_AFTER_S = 3  # s that a recording may take before a progress bar appears
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about one recording."""

    path: str
    utterance: dict  # label -> probability of the whole recording, in class order
    segments: pd.DataFrame  # start_s, end_s, seconds (of sound), peak_dbfs, p_..., emotion
    notices: list  # of `serkit.predict.recording.Notice`: what a reader of the result should know
    duration_s: float
    sample_rate: int  # of the file, Hz
    channels: int
    is_sure: bool = True  # whether it may answer, see `Predictor.least_confidence`

    @property
    def emotion(self):
        """The most probable label, or ``uncertain``."""
        return UNCERTAIN if not self.is_sure else max(self.utterance, key=self.utterance.get)


@dataclass(frozen=True, eq=False)
class Attention:
    """How the model came to its answer on one utterance, segment by segment."""

    utterance: dict  # label -> probability of the whole utterance, in class order
    segments: pd.DataFrame  # as in `Prediction`
    weights: np.ndarray  # (N, T') co-attention weight of each speech encoder frame
    spectrogram: np.ndarray  # (N, 200, 300) dB below the utterance's peak, padding included


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
        check_choice("precision", precision, ("auto", "float32", *AUTOCAST))
        without_gpu = precision == "auto" and self.device.type != "cuda"
        self.precision = "no" if without_gpu else resolve_precision(precision, device=self.device.type)
        opened = open_model_folder(folder)
        self.folder, self.recipe, self.scaler = opened.folder, opened.recipe, opened.scaler
        self.experiment = opened.experiment  # of its training
        self.certainty = opened.certainty  # how sure it may be
        self.temperature = opened.certainty.get("temperature", 1.0)
        self.model = opened.model.to(self.device)

    def predict(self, path, *, channel=0, progress=False):
        """Recognise the emotions in one recording.

        A sound of up to 30 s is one utterance, as in training; a longer one is cut into windows of
        15 s (see `serkit.predict.recording`). Memory does not grow with its length.

        Parameters
        ----------
        path : path
            Any format that soundfile or PyAV reads, any rate, mono or not, 25 ms or longer.
        channel : int, optional
            The only one that is read, from 1; 0: the average of all.
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
        recording, tables, scores = Recording(path, channel), [], []
        total_s, labels = round(recording.announced_s), self.model.config.labels
        with tqdm(desc=recording.path.name, total=total_s, delay=BAR_AFTER_S, leave=False, disable=not progress,
                  bar_format="{desc} {bar} {n_fmt} of {total_fmt} s of sound") as bar:  # fmt: skip
            for start, waveform in recording.windows(self.recipe):
                segments, plan = _analyse(waveform, self.recipe)
                scores.append(self._forward(segments)[0])
                tables.append(_segment_table(start, waveform, plan, scores[-1], labels))
                bar.update(round(recording.duration_s) - bar.n)
            bar.total = bar.n  # a bar that stops short turns red, and a file may hold less than it announced
        return Prediction(
            shown_path(path), _pooled(np.concatenate(scores), labels), pd.concat(tables, ignore_index=True),
            recording.notices(), recording.duration_s, recording.sample_rate, recording.channels,
        )  # fmt: skip

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
            about = f"views={self.model.config.views!r}: this model does not see the waveform"
            raise ParameterError(f"{about}, so no frame of it has a weight; choose a variant that does")
        segments, plan = _analyse(waveform, self.recipe)
        scores, weights = self._forward(segments)
        labels = self.model.config.labels
        table = _segment_table(0, waveform, plan, scores, labels)
        return Attention(_pooled(scores, labels), table, np.concatenate(weights), segments.spectrogram)

    def least_confidence(self, abstain):
        """Probability below which an answer is withheld, so that this share of the validation utterances got none.

        Raises
        ------
        ParameterError
            If it is no share, or no validation speakers spoke for the model.
        """
        check_range("abstain", abstain, 0.0, 0.95)
        if abstain and not self.certainty:
            unknown = "no validation speakers say how sure this model may be"
            raise ParameterError(f"abstain={abstain}: {unknown}; train it with selection='clean'")
        return np.interp(abstain, np.linspace(0, 1, 21), self.certainty["confidence"]) if abstain else 0.0

    @torch.inference_mode()
    def _forward(self, segments):
        """Log-probabilities at the model's temperature, up to a constant, shape (N, K), and the co-attention weights batch by batch."""
        scores, weights = [], []
        batch = segment_batch(segments)
        for start in range(0, len(segments), BATCH_SEGMENTS):
            few = {name: tensor[start : start + BATCH_SEGMENTS] for name, tensor in batch.items()}
            inputs = model_inputs(few, self.scaler, self.recipe, self.device)
            with torch.autocast(self.device.type, AUTOCAST.get(self.precision), self.precision in AUTOCAST):
                output = self.model(**inputs)
            log_probability = F.log_softmax(output.logits.float(), dim=1).double().cpu().numpy()
            scores.append(log_probability / self.temperature)
            if output.coattention is not None:
                weights.append(output.coattention.float().cpu().numpy())
        return np.concatenate(scores), weights


def open_predictor(folder, device="auto"):
    """The model in a folder: kept from the last call, unless its files have changed since.

    A model that was deleted or trained anew meanwhile is noticed.

    Parameters
    ----------
    folder : path
    device : str, optional

    Returns
    -------
    Predictor

    Raises
    ------
    WeightsError, ParameterError
        As :class:`Predictor`.
    """
    stats = [path.stat() for path in sorted(Path(folder).glob("*"))]
    return _opened(Path(folder), device, tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


@functools.lru_cache(maxsize=2)
def _opened(folder, device, stamp):
    return Predictor(folder, device)


def _analyse(waveform, recipe):
    """The segments of one utterance as training sees them, and their plan.

    Levels go through the 16-bit codes of the feature store: the picture made from them has 8 bits,
    and a level next to a grey step must not fall on its other side.
    """
    views = features.utterance_features(waveform, recipe)
    codes = features.encode_level(views.spectrogram, recipe.top_db)
    views = replace(views, spectrogram=features.level_of_code(recipe.top_db)[codes])
    plan = features.plan_segments(len(waveform), recipe)
    return features.cut_segments(views, plan, recipe), plan


def _pooled(scores, labels):
    """Probability of each label for the whole."""
    return dict(zip(labels, utterance_probabilities(scores.mean(axis=0)).tolist(), strict=True))


def _segment_table(start, waveform, plan, scores, labels):
    """Where segments lie in the recording, how loud they are, and how they were classified."""
    ends = plan.sample_start + plan.num_samples
    peaks = [np.abs(waveform[a:b]).max(initial=0) for a, b in zip(plan.sample_start, ends, strict=True)]
    table = pd.DataFrame({
        "start_s": (start + plan.sample_start) / SAMPLE_RATE, "end_s": (start + ends) / SAMPLE_RATE,
        "seconds": plan.num_samples / SAMPLE_RATE, "peak_dbfs": [to_dbfs(peak) for peak in peaks],
    })  # fmt: skip
    table[[PROBABILITY + label for label in labels]] = utterance_probabilities(scores)
    return table.assign(emotion=np.array(labels)[scores.argmax(axis=1)])


def _find_device(name):
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:  # asserted where torch was built without it
        expected = "expected auto, cpu, or a device of this machine"
        raise ParameterError(f"device={shown(name)}, {expected}") from error
