"""GPU memory predicted without a GPU: by hand, against torch's own tracker, against what a real step takes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import Wav2Vec2Config

from serkit.experiment import Experiment
from serkit.model.coattention import DEMO
from serkit.recipe import CORRECTED
from serkit.reproduction.gpu_memory import Bytes, LikeGpu, prepare_step, step_memory
from serkit.training.loop import train_step

WHOLE = {"precision": "float32", "batch_size": 16}
CONVOLUTIONS = {"views": "spectrogram+speech", "batch_size": 8}
# a step with content, in a process that gives memory back as soon as it is freed
REAL_STEP = """
import sys, json, numpy, psutil, torch
from serkit.experiment import Experiment
from serkit.recipe import CORRECTED
from serkit.reproduction.gpu_memory import LikeGpu, prepare_step, step_memory
from serkit.training.loop import peak_memory, train_step
experiment = Experiment(**json.loads(sys.argv[1]))
predicted, before = step_memory(experiment), psutil.Process().memory_info().rss
learner, batch = prepare_step(experiment)
with LikeGpu():
    train_step(learner, batch, CORRECTED, numpy.ones(4))
print(predicted, peak_memory(torch.device("cpu")) - before)
"""


class TestBytes:
    def test_what_is_freed_counts_for_the_peak_only(self):
        with Bytes() as count:
            first = torch.zeros(1000)
            second = torch.zeros(500, dtype=torch.float64)
            del first
            assert (count.now, count.peak) == (4000, 8000)
        assert len(second) == 500

    def test_a_view_takes_nothing(self):
        with Bytes() as count:
            values = torch.zeros(10, 10)
            row = values[0]
        assert len(row) == 10 and count.peak == 400

    def test_without_content_as_with_it(self):
        with FakeTensorMode(), Bytes() as count:
            assert (torch.ones(1000) + 1).shape == (1000,)
        assert count.peak == 8000


@pytest.fixture(scope="module")
def whole():
    return step_memory(Experiment(**WHOLE))


class TestStep:
    def test_tensors_with_content_take_as_much(self):
        """All but the LSTM: oneDNN's own keeps more than cuDNN's."""
        experiment = Experiment(**CONVOLUTIONS)
        with LikeGpu(), Bytes() as count:
            learner, batch = prepare_step(experiment)
            train_step(learner, batch, CORRECTED, np.ones(4))
        assert step_memory(experiment) == pytest.approx(count.peak, rel=0.001)

    def test_against_the_tracker_of_torch(self):
        experiment = Experiment(**CONVOLUTIONS)
        tracker = MemTracker()
        with FakeTensorMode(), LikeGpu():
            learner, batch = prepare_step(experiment)
            tracker.track_external(learner.model, learner.optimizer.optimizer, *batch.values())
            with tracker:
                train_step(learner, batch, CORRECTED, np.ones(4))
        theirs = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
        # it rounds up to the 512 bytes that CUDA hands out
        assert step_memory(experiment) == pytest.approx(theirs, rel=0.01)

    def test_weights_gradients_and_two_moments_by_hand(self):
        """Almost all that a step on one segment takes: four numbers of four bytes for each weight, and one while AdamW computes."""
        experiment = Experiment(views="mfcc", batch_size=1, precision="float32")
        with FakeTensorMode():
            n_weights = sum(prepare_step(experiment)[0].model.count_parameters().values())
        assert 16 < step_memory(experiment) / n_weights < 16 + 4 + 2

    @pytest.mark.parametrize(
        "less",
        [
            {"precision": "bf16"}, {"micro_batch": 4}, {"gradient_checkpointing": True}, {"encoder_training": "frozen"},
            {"encoder_training": "top_1"}, {"views": "mfcc"},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_needs_less(self, whole, less):
        assert step_memory(Experiment(**WHOLE | less)) < 0.95 * whole

    def test_an_encoder_by_its_config_alone(self, tmp_path):
        """No weights are needed; each layer more keeps more."""
        sizes = []
        for layers in (1, 3):
            config = DEMO.speech | {"num_hidden_layers": layers}
            Wav2Vec2Config(**config).save_pretrained(tmp_path / str(layers))
            sizes.append(step_memory(Experiment(views="speech", speech_encoder=str(tmp_path / str(layers)))))
        assert sizes[1] > sizes[0] + 3e6

    def test_bf16_is_what_auto_means_and_fp16_takes_as_much(self):
        sizes = {step_memory(Experiment(batch_size=4, precision=name)) for name in ("auto", "bf16", "fp16")}
        assert len(sizes) == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process as Linux tells it")
    def test_against_the_memory_of_a_process(self):
        """What comes on top there: the code of torch's operations, and the work space of its convolutions and LSTM."""
        settings = json.dumps({"batch_size": 64, "precision": "float32"})
        variables = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(
            [sys.executable, "-c", REAL_STEP, settings],
            capture_output=True,
            text=True,
            check=True,
            env=variables,
        )
        predicted, real = map(int, done.stdout.split())
        assert predicted < real < 1.3 * predicted
