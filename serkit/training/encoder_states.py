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
from filelock import FileLock
from tqdm.auto import tqdm

from serkit.errors import StoreError
from serkit.experiment import show_path
from serkit.features.rows import Progress, RowFile
from serkit.model.encoders import fingerprint
from serkit.runs import write_json
from serkit.training.batches import segment_batch

BATCH = 8  # segments at once: enough to fill a CPU's cores, and little memory
SAVED_EVERY = 16  # batches after which what is done is brought to the disk
HALF_MAX = float(np.finfo(np.float16).max)


class EncoderStates(RowFile):
    """Hidden states of all segments of a store, on disk: shape (N, L, T', D), float16."""

    def take(self, rows):
        """States of some segments, shape (B, L, T', D), in the order of ``rows``.

        Raises
        ------
        StoreError
            If the file is gone or was cut short.
        """
        try:
            return np.concatenate([self.read(row, row + 1) for row in rows])
        except OSError as error:
            raise self.damaged(f" ({error})") from error

    def damaged(self, reason=""):
        """The error that says so, with the cure."""
        cure = f"delete the folder {show_path(self.path.parent)}, it is computed again"
        return StoreError(f"{show_path(self.path)}: damaged or missing{reason}; {cure}")


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # a second process waits, then finds them complete
            if not (folder / "states.json").is_file():
                print(f"{size}, computed once")
                _compute(store, model, states, accelerator)
                write_json(folder / "states.json", {"shape": shape, "sources": model.config.sources})
    except OSError as error:
        raise StoreError(
            f"{show_path(folder)}: {size}, and can't be written ({error.strerror or error}); make room and start "
            "again: what is computed is kept. Or use encoder_layers='last', or encoder_cache=False"
        ) from error
    if not states.is_whole():
        raise states.damaged()
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
            batch = segment_batch(store.read(rows))
            num_samples = batch["num_samples"].to(device) if store.recipe.mask_padding else None
            with accelerator.autocast():
                states = model.speech_states(batch["waveform"].to(device), num_samples).float().cpu().numpy()
            largest = np.abs(states).max()
            if not largest <= HALF_MAX:  # NaN too
                raise StoreError(
                    f"{show_path(file.path)}: a hidden state of segments {rows[0]} to {rows[-1]} is {largest}, "
                    f"half precision ends at {HALF_MAX:.0f}; use encoder_cache=False"
                )
            for row, state in zip(rows, states.astype(np.float16), strict=True):
                file.write(row, state[None])
            progress.done[rows] = True
            if count % SAVED_EVERY == 0:
                progress.save()
    finally:
        progress.save()
