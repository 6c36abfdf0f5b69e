"""What a frozen speech encoder makes of every segment: computed once, kept beside the features.

A frozen encoder gives the same hidden states in every epoch, and they cost almost all of the time.
They are stored in half precision (16 bits: three digits, relative error below 0.0005): as much as
a GPU keeps of them in mixed precision. The folder's name is a hash of the encoder's weights and of
how segments are cut, so states of another encoder or recipe are never taken for these.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from serkit.errors import ParameterError, StoreError
from serkit.experiment import show_path
from serkit.features.arrays import RowFile, checksum
from serkit.model.encoders import fingerprint
from serkit.runs import write_json
from serkit.training.batches import segment_batch

BATCH = 8  # segments at once: enough to fill a CPU's cores, and little memory
HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class EncoderStates:
    """Hidden states of all segments of a store, on disk."""

    folder: Path
    shape: tuple  # (N, L, T', D)
    _file: RowFile = field(repr=False)
    _sums: np.ndarray = field(repr=False)  # checksum of each segment
    _unchecked: set = field(repr=False)  # segments not read before by this process

    def read(self, rows):
        """States of some segments, shape (B, L, T', D), float16, in the order of ``rows``.

        Raises
        ------
        StoreError
            If what is read for the first time does not agree with its checksum.
        """
        states = np.empty((len(rows), *self.shape[1:]), np.float16)
        for place, row in enumerate(np.asarray(rows).tolist()):
            try:
                states[place] = self._file.read(row, row + 1)[0]
            except OSError as error:
                raise self._damaged(row, error) from error
            if row in self._unchecked:
                if checksum(states[place]) != self._sums[row]:
                    raise self._damaged(row, "its checksum is another")
                self._unchecked.discard(row)
        return states

    def _damaged(self, row, reason):
        return StoreError(
            f"{show_path(self._file.path)}: segment {row} is damaged ({reason}); delete the folder "
            f"{show_path(self.folder)}, it is computed again"
        )


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
    sums = RowFile(folder / "progress.npy", "uint32", (len(store), 2))  # checksum, 1 when done
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # a second process waits, then finds them complete
            if not (folder / "states.json").is_file():
                _check_room(file)
                for each in (file, sums):
                    each.prepare()
                _compute(store, model, file, sums, device, autocast)
                write_json(folder / "states.json", {"shape": shape, "sources": model.config.sources})
    except OSError as error:
        raise StoreError(
            f"{show_path(folder)}: encoder states can't be written ({error.strerror or error}); make room and "
            "start again: what is computed is kept"
        ) from error
    file.check(f"delete the folder {show_path(folder)}, it is computed again")
    return EncoderStates(folder, shape, file, sums.read(0, len(store))[:, 0], set(range(len(store))))


def _check_room(file):
    there = file.path.stat().st_blocks * 512 if file.path.is_file() else 0
    needed, free = file.total_bytes - there, shutil.disk_usage(file.path.parent).free
    if needed > free:
        raise StoreError(
            f"{show_path(file.path)}: encoder states of {file.shape[0]} segments take {needed / 1e9:.2f} GB, "
            f"{free / 1e9:.2f} GB are free; make room, use encoder_layers='last', or encoder_cache=False"
        )
    print(f"encoder states of {file.shape[0]} segments: {file.total_bytes / 1e9:.2f} GB, computed once")


def _missing(file, sums):
    """Segments to compute: not done, or no longer what their checksums say."""
    known = sums.read(0, file.shape[0])
    done = known[:, 1] == 1
    for row in tqdm(np.flatnonzero(done), "checking", unit="seg", mininterval=2, disable=not done.any()):
        done[row] = checksum(file.read(row, row + 1)) == known[row, 0]
    return np.flatnonzero(~done)


@torch.inference_mode()
def _compute(store, model, file, sums, device, autocast):
    model = model.to(device).eval()
    todo = _missing(file, sums)
    with tqdm(
        desc="encoder", total=len(store), initial=len(store) - len(todo), unit="seg", mininterval=2
    ) as bar:
        for start in range(0, len(todo), BATCH):
            rows = todo[start : start + BATCH]
            batch = segment_batch(store.read(rows))
            num_samples = batch["num_samples"].to(device) if store.recipe.mask_padding else None
            with autocast() if autocast else torch.inference_mode():
                states = model.speech_states(batch["waveform"].to(device), num_samples)
            states = states.float().cpu().numpy()
            if not np.abs(states).max() <= HALF_MAX:  # NaN too
                raise StoreError(
                    f"{show_path(file.path)}: a hidden state of segments {rows[0]} to {rows[-1]} is {np.abs(states).max()}, "
                    f"half precision ends at {HALF_MAX:.0f}; use encoder_cache=False"
                )
            for row, state in zip(rows.tolist(), states.astype(np.float16), strict=True):
                file.write(row, state[None])
                sums.write(row, np.array([[checksum(state), 1]], "uint32"))
            bar.update(len(rows))
    for each in (file, sums):
        each.sync()
