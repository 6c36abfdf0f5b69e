"""GPU memory of a training step, predicted without a GPU.

A step of the real loop is taken on tensors that have a shape and a type but no content, and the bytes that
they would fill are counted. What CUDA and its libraries take for themselves is not among them.
"""

import gc
import weakref
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from serkit.constants import N_BINS, SEGMENT_SAMPLES
from serkit.features import SpectrogramScaler, store
from serkit.model import CoAttentionModel, resolve_structure
from serkit.recipe import named
from serkit.training import batches, make_learner, model_config, train_step

LSTM_KEEPS = 6  # numbers for each output: four gates, the cell and its tanh
# what autocast leaves in float32 on a GPU, but not on a CPU
FLOAT32 = (F.layer_norm, F.group_norm, F.softmax)


class LikeGpu(TorchFunctionMode):
    """On a CPU, operations that keep for the backward pass what those of a GPU keep; values are not read."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.item:
            return 1.0
        if function is torch.Tensor.numpy:
            return np.zeros(args[0].shape, dtype=np.int64)
        if function is F.dropout and kwargs.get("training") and kwargs.get("p"):
            return torch.native_dropout(args[0], kwargs["p"], True)[0]  # a mask of bytes, not of floats
        if function is F.scaled_dot_product_attention:
            kwargs["dropout_p"] = 0.0  # with dropout, a CPU keeps every weight of attention
        if function in FLOAT32:
            args = (args[0].float(), *args[1:])
        return function(*args, **kwargs)


class Bytes(TorchDispatchMode):
    """Counts the bytes of all tensors that were made inside and are alive, and the most that ever were."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.storages = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.mkldnn_rnn_layer.default and isinstance(result[0], FakeTensor):
            # what it keeps for the backward pass is empty there
            result = (*result[:3], result[0].new_empty(LSTM_KEEPS * result[0].numel()))
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor) and (storage := tensor.untyped_storage()) not in self.storages:
                self.storages[storage] = size = storage.nbytes()
                weakref.finalize(storage, self._add, -size)
                self._add(size)
        return result

    def _add(self, size):
        self.now += size
        self.peak = max(self.peak, self.now)


def step_memory(experiment):
    """Memory of a training step on a GPU, at its peak.

    Parameters
    ----------
    experiment : Experiment
        Its precision ``auto`` is bf16 here. Fold, seed and epochs don't matter.

    Returns
    -------
    int
        Bytes of weights, gradients, AdamW's moments, inputs and everything that is kept for the backward pass.

    Raises
    ------
    WeightsError
        If the speech encoder's own config can't be had.

    Examples
    --------
    >>> from serkit.experiment import Experiment
    >>> step_memory(Experiment(batch_size=16)) > step_memory(Experiment(batch_size=16, micro_batch=8))
    True
    """
    with FakeTensorMode(), LikeGpu(), Bytes() as count:
        learner, batch = prepare_step(experiment)
        gc.collect()  # else the peak depends on when Python last looked for garbage
        train_step(learner, batch, named(experiment.recipe), np.ones(len(learner.model.config.labels)))
    return count.peak


def prepare_step(experiment):
    """A learner after its first steps, and a batch of zeros for its next one.

    Parameters
    ----------
    experiment : Experiment

    Returns
    -------
    Learner
        On the CPU.
    dict of str to torch.Tensor
        As ``load_batches`` gives it; of a batch in pieces two: the second adds to gradients that are there.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    precision = "no" if experiment.precision == "float32" else "bf16"
    accelerator = Accelerator(mixed_precision=precision, cpu=True, device_placement=False)
    # LayerDrop and SpecAugment look at values, and save memory if anything
    config = replace(resolve_structure(model_config(experiment)), layerdrop=0.0, mask_time_prob=0.0)
    model, size = CoAttentionModel(config), experiment.batch_size
    size = min(size, 2 * (experiment.micro_batch or size))
    batch = {name: torch.zeros(size, *store.SHAPES[name]) for name in map(batches.TENSORS.get, model.views)}
    if experiment.reads_states:
        states = model.speech_states(batch.pop("waveform")[:1])  # (1, L, T', D)
        batch["states"] = states.new_zeros(size, *states.shape[1:], dtype=torch.float16)
    batch["num_samples"] = torch.full((size,), SEGMENT_SAMPLES)
    batch["label"] = torch.zeros(size, dtype=torch.int64)
    scaler = SpectrogramScaler(*np.float32([[-80] * N_BINS, [0] * N_BINS]))
    learner = make_learner(replace(experiment, compile=False), accelerator, model, scaler, size)
    if experiment.gradient_checkpointing and "speech" in model.views:
        # what the backward pass computes again must be as it was
        again = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), LikeGpu())}
        model.speech_encoder.activation_checkpointing_enable(again)
    for group in learner.optimizer.param_groups:
        group["foreach"] = True  # as on a GPU
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    learner.optimizer.step()  # from now on there are moments
    learner.optimizer.zero_grad()
    learner.model.train()
    return learner, batch
