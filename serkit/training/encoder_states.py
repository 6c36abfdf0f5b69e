"""What a frozen speech encoder makes of every segment: computed once, kept beside the features.

A frozen encoder gives the same hidden states in every epoch, and they cost almost all of the time.
They are stored in half precision (16 bits: three digits, relative error below 0.0005): as much as
a GPU keeps of them in mixed precision. The folder's name is a hash of the encoder's weights and of
how segments are cut, so states of another encoder or recipe are never taken for these.
"""

import hashlib
import json
from dataclasses import asdict

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from serkit.errors import StoreError, reported_as
from serkit.experiment import show_path
from serkit.features.rows import Progress, RowFile
from serkit.files import locked
from serkit.model.encoders import fingerprint
from serkit.runs import write_json
from serkit.training.batches import model_inputs, segment_batch

BATCH = 8  # segments at once: enough to fill a CPU's cores, and little memory
SAVED_EVERY = 16  # batches after which what is done is brought to the disk
HALF_MAX = float(np.finfo(np.float16).max)


class EncoderStates(RowFile):
    """Hidden states of all segments of a store, on disk: shape (N, L, T', D), float16."""

    cure = "delete its folder, it is computed again"

    def take(self, rows):
        """States of some segments, shape (B, L, T', D), in the order of ``rows``.

        Raises
        ------
        StoreError
            If the file is gone or was cut short.
        """
        return np.concatenate([self.read(row, row + 1) for row in rows])


def states_key(model, recipe):
    """Name of the states that this encoder makes of segments cut by this recipe."""
    config = model.config
    content = [fingerprint(model.speech_encoder), config.encoder_layers, config.encoder_mask, asdict(recipe)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def build_states(store, model, accelerator):
    """Hidden states of every segment, computed where they are missing.

    An interrupted call is continued: what is there is kept.

    Parameters
    ----------
    store : FeatureStore
    model : CoAttentionModel
        Its speech encoder is frozen.
    accelerator : accelerate.Accelerator
        Where the encoder runs, and in which precision.

    Returns
    -------
    EncoderStates

    Raises
    ------
    StoreError
        If the disk has no room, the file is damaged, or states don't fit into half precision.
    """
    folder = store.folder / f"encoded-{states_key(model, store.recipe)}"
    shape = (len(store), *model.states_shape)
    states = EncoderStates(folder / "states.npy", "float16", shape)
    size = f"encoder states of {len(store)} segments take {states.total_bytes / 1e9:.2f} GB"
    about = f"{show_path(folder)}: {size}, and can't be written"
    cure = "make room and start again, or use encoder_layers='last' or encoder_cache=False"
    with reported_as(StoreError, about, cure, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):  # a second process waits, then finds them complete
            if not (folder / "states.json").is_file():
                print(f"{size}, computed once")
                _compute(store, model, states, accelerator)
                write_json(folder / "states.json", {"shape": shape, "sources": model.config.sources})
    states.check()
    return states


@torch.inference_mode()
def _compute(store, model, file, accelerator):
    device = accelerator.device
    model = model.to(device).eval()
    progress = Progress(file.path.parent, [file], len(store))
    todo = np.flatnonzero(~progress.done)
    batches = [todo[start : start + BATCH] for start in range(0, len(todo), BATCH)]
    try:
        for count, rows in enumerate(tqdm(batches, "encoder", mininterval=2), start=1):
            states = encode(store, model, rows, accelerator)
            largest = np.abs(states).max()
            if not largest <= HALF_MAX:  # NaN too
                about = f"{show_path(file.path)}: a hidden state is {largest}"
                raise StoreError(f"{about}, half precision ends at {HALF_MAX:.0f}; use encoder_cache=False")
            for row, state in zip(rows, states.astype(np.float16), strict=True):
                file.write(row, state[None])
            progress.done[rows] = True
            if count % SAVED_EVERY == 0:
                progress.save()
    finally:
        progress.save()


def encode(store, model, rows, accelerator):
    """Hidden states of a few segments of a store, shape (B, L, T', D), float32; the model is on the device already."""
    batch = segment_batch(store.read(rows, ["waveform"]))
    inputs = model_inputs(batch, None, store.recipe, accelerator.device)
    with accelerator.autocast():
        states = model.speech_states(inputs["waveform"], inputs["num_samples"])
    return states.float().cpu().numpy()


def real_frames(model, num_samples, recipe):
    """Whether each frame of the speech encoder holds speech and not padding, wherever that stands; bool, shape (B, T').

    Parameters
    ----------
    model : CoAttentionModel
    num_samples : torch.Tensor of int64, shape (B,)
        Real samples of each segment.
    recipe : Recipe
        How its waveforms are padded (D1).
    """
    device = next(model.parameters()).device
    real = model.frame_mask(num_samples.to(device)).cpu().numpy() > 0
    return real if recipe.waveform_padding == "after" else real[:, ::-1]


@torch.inference_mode()
def fit_states(model, dataset, accelerator):
    """Fill in ``states_mean`` and ``states_std`` of a model with a frozen encoder, in one pass over its training set.

    Parameters
    ----------
    model : CoAttentionModel
    dataset : SegmentDataset
        Training segments of the fold. Without kept states, the encoder is run once more.
    accelerator : accelerate.Accelerator
        As in ``build_states``.

    Notes
    -----
    Mean and deviation of every feature over all frames, summed in float64. Padding takes part if the recipe
    says so (D5). A feature that never varies is divided by one.
    """
    model = model.to(accelerator.device).eval()
    store, scaler = dataset.store, StandardScaler()
    num_samples = torch.tensor(store.segments["num_samples"].to_numpy())
    for start in tqdm(range(0, len(dataset), BATCH), "standardising", mininterval=2, leave=False):
        rows = dataset.rows[start : start + BATCH]
        states = dataset.states.take(rows) if dataset.states else encode(store, model, rows, accelerator)
        frames = states.transpose(0, 2, 1, 3).reshape(len(rows), states.shape[2], -1)  # (B, T', L * D)
        real = np.full(frames.shape[:2], store.recipe.statistics_over_padding)
        if not real.all():
            real = real_frames(model, num_samples[rows], store.recipe)
        if real.any():
            scaler.partial_fit(frames[real].astype(np.float64))
    shape = model.states_mean.shape
    model.states_mean.copy_(torch.from_numpy(scaler.mean_).view(shape))
    model.states_std.copy_(torch.from_numpy(scaler.scale_).view(shape))
