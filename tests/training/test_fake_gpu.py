"""The code for a GPU without a GPU: tensors with a device, a shape and a type, but without content.

torch refuses here what a GPU would refuse: tensors on two devices, or of two types, in one operation. Not tested
are values, the backward pass, and cuDNN's LSTM; `make gpu-check` does that on a real GPU.
"""

import contextlib

import numpy as np
import pytest
import torch
from tones import make_tones
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from voices import voice, write_model

from serkit.constants import LABELS
from serkit.experiment import Experiment
from serkit.features.views import spectrogram_image
from serkit.model.coattention import CoAttentionModel
from serkit.predict import Predictor, predictor
from serkit.recipe import CORRECTED
from serkit.training import loop, scoring
from serkit.training.batches import SegmentDataset, fit_scaler, load_batches
from serkit.training.encoder_states import build_states
from serkit.training.scoring import make_accelerator, resolve_precision

# whatever has MFCC takes seconds: without cuDNN, each of 300 frames is a call of its own
CASES = [
    {"precision": "float32", "recipe": "published"},
    {"precision": "fp16", "fusion": "softmax", "encoder_layers": "weighted", "gradient_checkpointing": True},
    {"precision": "bf16", "fusion": "gated", "micro_batch": 4, "class_weights": True, "max_grad_norm": 1.0},
    {"precision": "bf16", "views": "spectrogram+speech"},
    {"precision": "fp16", "views": "spectrogram+speech", "encoder_training": "frozen"},
    {"precision": "bf16", "views": "spectrogram"},
    {"precision": "bf16", "views": "speech", "encoder_training": "top_1", "encoder_layers": "weighted"},
    {"precision": "bf16", "views": "speech", "encoder_training": "frozen", "encoder_cache": False},
    {"precision": "fp16", "views": "speech", "encoder_training": "frozen", "encoder_layers": "weighted"},
]  # fmt: skip


aten = torch.ops.aten
STRICT = (
    aten.mm,
    aten.addmm,
    aten.bmm,
    aten.baddbmm,
    aten.convolution,
    aten.native_layer_norm,
    aten.native_group_norm,
)


class ReadBack(TorchFunctionMode):
    """What comes back from the GPU: ones and zeros. There is no way back through the network."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.item:
            return 1.0
        if function is torch.Tensor.numpy and isinstance(args[0], FakeTensor):
            return np.zeros(args[0].shape, str(args[0].dtype).removeprefix("torch."))
        return None if function is torch.Tensor.backward else function(*args, **(kwargs or {}))


class OneType(TorchDispatchMode):
    """Products and norms of two types are refused, as by a GPU; FakeTensorMode lets them pass."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in STRICT:
            given = {value.dtype for value in args if torch.is_tensor(value)}
            if len(given) > 1:
                raise RuntimeError(f"{function}: expected one type, found {given}")
        return function(*args, **(kwargs or {}))


def move_once(module, *given, move=torch.nn.Module.to):
    """Parameters without content can't be moved in place."""
    return (
        module
        if any(isinstance(value, FakeTensor) for value in module.parameters())
        else move(module, *given)
    )


@pytest.fixture
def gpu(monkeypatch):
    """Call it with a precision: accelerate then finds a GPU, and tensors lose their content until the test ends."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "to", move_once)
    monkeypatch.setattr(scoring, "load_batches", lambda *given, on_gpu: load_batches(*given))
    with contextlib.ExitStack() as stack:

        def start(precision):
            with monkeypatch.context() as patch:  # torch itself must not look for one
                for name in ("is_available", "device_count"):
                    patch.setattr(torch.cuda, name, lambda: 1)
                patch.setattr(torch.cuda, "set_device", lambda device: None)
                accelerator = make_accelerator(precision)
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            stack.enter_context(OneType())
            stack.enter_context(ReadBack())
            return accelerator

        yield start


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return make_tones(tmp_path_factory.mktemp("tones"))[1]


@pytest.mark.filterwarnings(
    "ignore:Detected call of .lr_scheduler.step"
)  # fp16: ones that come back mean "infinite"
@pytest.mark.parametrize("settings", CASES, ids=lambda settings: "-".join(map(str, settings.values())))
def test_a_step_and_a_prediction(tones, gpu, settings):
    """The step of the loop with gradients of zero, on a model that was made on the CPU."""
    experiment = Experiment(batch_size=8, **settings)
    model = CoAttentionModel(loop.model_config(experiment))
    rows = np.arange(8)
    labels, scaler = dict.fromkeys(tones.utterances["utterance_id"], 0), fit_scaler(tones, rows)
    accelerator = gpu(experiment.precision)
    model.to(accelerator.device)
    states = build_states(tones, model, accelerator) if experiment.reads_states else None
    data = SegmentDataset(tones, rows, labels, states, experiment.views)
    learner = loop.make_learner(experiment, accelerator, model, scaler, len(data))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    model.train()
    loss, guesses = loop.train_step(learner, data[rows], tones.recipe, np.ones(len(LABELS)))
    assert np.isfinite(loss) and guesses.device.type == "cuda" and guesses.shape == (8,)
    assert {value.device.type for value in [*model.parameters(), *model.buffers()]} == {"cuda"}
    table = scoring.predict(accelerator, model, data, scaler, 8)
    assert list(table.index) == list(dict.fromkeys(tones.segments["utterance_id"][:8]))


def test_the_picture_of_a_spectrogram(tones, gpu):
    scaler = fit_scaler(tones, np.arange(4))
    gpu("float32")
    image = spectrogram_image(torch.zeros(4, 200, 300, device="cuda"), scaler)
    assert (image.device.type, image.dtype, image.shape) == ("cuda", torch.float32, (4, 3, 256, 384))


@pytest.mark.parametrize("precision", ["auto", "fp16"])
def test_the_predict_room(tmp_path, gpu, monkeypatch, precision):
    waveform = voice(4.0)
    ours = Predictor(write_model(tmp_path, CORRECTED), device="cpu")
    analysed = predictor._analyse(waveform, ours.recipe)
    monkeypatch.setattr(predictor, "_analyse", lambda *given: analysed)
    gpu("float32")
    ours.device = predictor._find_device("cuda")
    ours.precision = resolve_precision(precision, device=ours.device.type)
    ours.model.to(ours.device)
    seen = ours.attend(waveform)
    assert seen.weights.shape == (2, ours.model.n_encoder_frames) and len(seen.segments) == 2


def test_what_a_gpu_refuses_is_refused(gpu):
    """Else none of the tests above could fail."""
    gpu("float32")
    here, there = torch.zeros(3), torch.zeros(3, device="cuda")
    with pytest.raises(RuntimeError, match="found two different devices"):
        here + there
    with pytest.raises(RuntimeError, match="expected one type"):
        there[None] @ there.half()[:, None]
