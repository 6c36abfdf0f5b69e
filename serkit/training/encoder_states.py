"""What a frozen speech encoder makes of every segment: computed once, kept beside the features.

A frozen encoder gives the same hidden states in every epoch, and they cost almost all of the time.
They are stored in half precision (16 bits: three digits, relative error below 0.0005): as much as
a GPU keeps of them in mixed precision. The folder's name is a hash of the encoder's weights and of
how segments are cut, so states of another encoder or recipe are never taken for these.
"""

import hashlib
import json
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from serkit.errors import ParameterError, StoreError
from serkit.experiment import show_path
from serkit.features.rows import Progress, RowFile
from serkit.files import allocated_bytes
from serkit.model.encoders import fingerprint
from serkit.runs import write_json
from serkit.training.batches import segment_batch

BATCH = 8  # segments at once: enough to fill a CPU's cores, and little memory
SAVED_EVERY = 16  # batches after which what is done is brought to the disk
HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class EncoderStates:
    """Hidden states of all segments of a store, on disk."""

    folder: Path
    shape: tuple  # (N, L, T', D)
    _file: RowFile = field(repr=False)

    def read(self, rows):
        """States of some segments, shape (B, L, T', D), float16, in the order of ``rows``.

        Raises
        ------
        StoreError
            If the file is gone or was cut short.
        """
        try:
            states = [self._file.read(row, row + 1) for row in np.asarray(rows).tolist()]
        except OSError as error:
            raise StoreError(
                f"{show_path(self._file.path)}: damaged or missing ({error}); {_cure(self.folder)}"
            ) from error
        return np.concatenate([np.empty((0, *self.shape[1:]), np.float16), *states])


def _cure(folder):
    return f"delete the folder {show_path(folder)}, it is computed again"


def states_key(model, recipe):
    """Name of the states that this encoder makes of segments cut by this recipe."""
    config = model.config
    content = [fingerprint(model.speech_encoder), config.encoder_layers, config.encoder_mask, asdict(recipe)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def build_states(store, model, device="cpu", autocast=None):
    """Hidden states of every segment, computed where they are missing.

    An interrupted call is continued: what is there is kept.

    Parameters
    ----------
    store : FeatureStore
    model : CoAttentionModel
        Its speech encoder is frozen.
    device : torch.device or str, optional
        Where the encoder runs.
    autocast : callable, optional
        Makes the context of lower precision to run in, such as ``accelerator.autocast``.

    Returns
    -------
    EncoderStates

    Raises
    ------
    ParameterError
        If the encoder learns: its states would change.
    StoreError
        If the disk has no room, or states don't fit into half precision.
    """
    if model.config.encoder_training != "frozen":
        raise ParameterError(
            f"encoder_training={model.config.encoder_training!r}: states can be kept of a frozen encoder only; "
            "use encoder_training='frozen'"
        )
    folder = store.folder / f"encoded-{states_key(model, store.recipe)}"
    speech = model.speech_encoder.config
    layers = 1 if model.config.encoder_layers == "last" else speech.num_hidden_layers + 1
    shape = (len(store), layers, model.n_encoder_frames, speech.hidden_size)
    file = RowFile(folder / "states.npy", "float16", shape)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # a second process waits, then finds them complete
            if not (folder / "states.json").is_file():
                _check_room(file)
                _compute(store, model, file, device, autocast)
                write_json(folder / "states.json", {"shape": shape, "sources": model.config.sources})
    except OSError as error:
        raise StoreError(
            f"{show_path(folder)}: encoder states can't be written ({error.strerror or error}); make room and "
            "start again: what is computed is kept"
        ) from error
    if not file.is_whole():
        raise StoreError(f"{show_path(file.path)}: damaged or missing; {_cure(folder)}")
    return EncoderStates(folder, shape, file)


def _check_room(file):
    needed = file.total_bytes - allocated_bytes(file.path)
    free = shutil.disk_usage(file.path.parent).free
    if needed > free:
        raise StoreError(
            f"{show_path(file.path)}: encoder states of {file.shape[0]} segments take {needed / 1e9:.2f} GB, "
            f"{free / 1e9:.2f} GB are free; make room, use encoder_layers='last', or encoder_cache=False"
        )
    print(f"encoder states of {file.shape[0]} segments: {file.total_bytes / 1e9:.2f} GB, computed once")


@torch.inference_mode()
def _compute(store, model, file, device, autocast):
    model = model.to(device).eval()
    progress = Progress(file.path.parent, [file], len(store))
    todo = np.flatnonzero(~progress.done)
    batches = [todo[start : start + BATCH] for start in range(0, len(todo), BATCH)]
    bar = tqdm(desc="encoder", total=len(store), initial=len(store) - len(todo), unit="seg", mininterval=2)
    try:
        for count, rows in enumerate(batches, start=1):
            batch = segment_batch(store.read(rows))
            num_samples = batch["num_samples"].to(device) if store.recipe.mask_padding else None
            with autocast() if autocast else nullcontext():
                states = model.speech_states(batch["waveform"].to(device), num_samples)
            states = states.float().cpu().numpy()
            if not np.abs(states).max() <= HALF_MAX:  # NaN too
                raise StoreError(
                    f"{show_path(file.path)}: a hidden state of segments {rows[0]} to {rows[-1]} is {np.abs(states).max()}, "
                    f"half precision ends at {HALF_MAX:.0f}; use encoder_cache=False"
                )
            for row, state in zip(rows, states.astype(np.float16), strict=True):
                file.write(row, state[None])
            progress.done[rows] = True
            bar.update(len(rows))
            if count % SAVED_EVERY == 0:
                progress.save()
    finally:
        progress.save()
        bar.close()
