"""From the feature store to the model's inputs, batch by batch: only a batch is ever in memory."""

from itertools import chain

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from serkit.constants import N_BINS, SEGMENT_FRAMES, VIEW_SETS
from serkit.features.rows import encode_level, level_of_code
from serkit.features.store import usable_cores
from serkit.features.views import SpectrogramScaler, padding_level, spectrogram_image

TENSORS = {"spectrogram": "spectrogram", "mfcc": "mfcc", "speech": "waveform"}  # of each view
LOADER_WORKERS = 4  # at most; processes that read ahead of a GPU. On a CPU they would only take its cores


class SegmentDataset(Dataset):
    """Chosen segments of a store with their labels; an index is a list of places, read as one batch.

    Parameters
    ----------
    store : FeatureStore
    rows : np.ndarray of int
        Segments of the store.
    label_of : dict of str to int
        Class index of each utterance.
    states : EncoderStates, optional
        What a frozen speech encoder makes of every segment; batches then hold it in place of the
        waveform.
    views : str, optional
        What the model sees, a key of ``VIEW_SETS``: nothing else is read.
    """

    def __init__(self, store, rows, label_of, states=None, views="all"):
        self.store = store
        self.rows = rows
        self.states = states
        self.views = [TENSORS[view] for view in VIEW_SETS[views] if view != "speech" or states is None]
        utterances = store.segments["utterance_id"].to_numpy()[rows]
        self.labels = np.array([label_of[utterance] for utterance in utterances], dtype=np.int64)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, places):
        batch = segment_batch(self.store.read(self.rows[places], self.views))
        if self.states is not None:
            batch["states"] = torch.from_numpy(self.states.take(self.rows[places]))
        return batch | {"label": torch.from_numpy(self.labels[places])}


def segment_batch(features):
    """Segments as CPU tensors: the views there are and ``num_samples``, as ``model_inputs`` takes them."""
    arrays = {name: getattr(features, name) for name in (*TENSORS.values(), "num_samples")}
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}


def load_batches(dataset, batch_size, shuffle_seed=None, *, on_gpu=False):
    """A dataset's batches, shuffled by a seed or in store order.

    Parameters
    ----------
    dataset : SegmentDataset
    batch_size : int
    shuffle_seed : int, optional
    on_gpu : bool, optional
        Whether batches go to a GPU: then processes read ahead into pinned memory. The batches do not
        depend on it.

    Returns
    -------
    torch.utils.data.DataLoader
        Yields dicts of CPU tensors: the three views, ``num_samples`` and ``label``.
    """
    order = SequentialSampler(dataset)
    if shuffle_seed is not None:
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(shuffle_seed))
    return DataLoader(
        dataset,
        batch_size=None,  # the dataset makes whole batches itself
        sampler=BatchSampler(order, batch_size, drop_last=False),
        num_workers=min(LOADER_WORKERS, usable_cores()) if on_gpu else 0,
        pin_memory=on_gpu,
    )


def fit_scaler(store, rows):
    """Image scaler of a fold, from its training segments in one streamed pass over the stored codes.

    Parameters
    ----------
    store : FeatureStore
    rows : np.ndarray of int
        Training segments.

    Returns
    -------
    SpectrogramScaler
        As ``SpectrogramScaler.fit`` over the segments themselves gives it. Padding takes part if
        the recipe says so (D5) and a segment has any.
    """
    frames = (codes.T for codes in store.frame_codes(rows))
    recipe = store.recipe
    padded = store.segments["n_frames"].to_numpy()[rows] < SEGMENT_FRAMES
    if recipe.statistics_over_padding and padded.any():
        padding = encode_level(np.float32([padding_level(recipe)]), recipe.top_db)
        frames = chain(frames, [np.broadcast_to(padding, (N_BINS, 1))])
    codes = SpectrogramScaler.fit(frames)
    levels = level_of_code(recipe.top_db)
    return SpectrogramScaler(*(levels[limit.astype(int)] for limit in (codes.minimum, codes.maximum)))


def model_inputs(batch, scaler, recipe, device):
    """Keyword arguments of ``CoAttentionModel.forward`` for one batch, on the device."""
    inputs = {name: value.to(device, non_blocking=True) for name, value in batch.items() if name != "label"}
    if "spectrogram" in inputs:
        inputs["spectrogram"] = spectrogram_image(inputs["spectrogram"], scaler)
    if not recipe.mask_padding:
        inputs["num_samples"] = None
    return inputs
