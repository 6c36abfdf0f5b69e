"""From the feature store to the model's inputs, batch by batch."""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from serkit.images import SpectrogramScaler, spectrogram_image

VIEWS = ("spectrogram", "mfcc", "waveform")
LOADER_WORKERS = 4  # processes that read ahead of a GPU; on a CPU they would only take its cores


class SegmentDataset(Dataset):
    """Chosen segments of a store with their labels; reads a whole batch at once.

    Parameters
    ----------
    store : FeatureStore
    rows : np.ndarray of int
        Segments of the store.
    label_of : dict of str to int
        Class index of each utterance.
    """

    def __init__(self, store, rows, label_of):
        self.store = store
        self.rows = rows
        utterances = store.segments["utterance_id"].to_numpy()[rows]
        self.labels = np.array([label_of[utterance] for utterance in utterances], dtype=np.int64)

    def __len__(self):
        return len(self.rows)

    def __getitems__(self, places):
        rows = self.rows[places]
        batch = {view: torch.from_numpy(getattr(self.store, view)[rows]) for view in VIEWS}
        num_samples = self.store.segments["num_samples"].to_numpy()[rows]
        return batch | {
            "num_samples": torch.from_numpy(num_samples),
            "label": torch.from_numpy(self.labels[places]),
        }


def make_loader(dataset, batch_size, *, shuffle_seed=None, on_gpu=False):
    """Batches of a dataset, shuffled by a seed of its own or in store order.

    Returns
    -------
    torch.utils.data.DataLoader
        Yields dicts of CPU tensors: the three views, ``num_samples`` and ``label``.
    """
    generator = None if shuffle_seed is None else torch.Generator().manual_seed(shuffle_seed)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=generator is not None,
        generator=generator,
        collate_fn=_already_a_batch,
        num_workers=LOADER_WORKERS if on_gpu else 0,
        pin_memory=on_gpu,
    )


def _already_a_batch(batch):
    return batch


def fit_scaler(store, rows):
    """Image scaler of a fold, from its training segments in one streamed pass."""
    n_frames = None
    if not store.recipe.statistics_over_padding:
        n_frames = store.segments["n_frames"].to_numpy()[rows]
    return SpectrogramScaler.fit((store.spectrogram[row] for row in rows), n_frames)


def model_inputs(batch, scaler, recipe, device):
    """Keyword arguments of ``CoAttentionModel.forward`` for one batch, on the device."""
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    return {
        "spectrogram": spectrogram_image(moved["spectrogram"], scaler),
        "mfcc": moved["mfcc"],
        "waveform": moved["waveform"],
        "num_samples": moved["num_samples"] if recipe.mask_padding else None,
    }
