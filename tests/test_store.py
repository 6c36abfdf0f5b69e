"""The feature store: what it holds, what it survives, and what it refuses; then batches read from it."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from trees import noise, wav_bytes

from serkit import audio, store
from serkit.batches import SegmentDataset, fit_scaler, make_loader, model_inputs
from serkit.constants import LABELS
from serkit.corpora.manifest import make_manifest
from serkit.errors import CorpusError, StoreError
from serkit.features import segment_features
from serkit.images import SpectrogramScaler, spectrogram_image
from serkit.recipe import CORRECTED, PUBLISHED
from serkit.store import build_store, open_store, store_key

# utterance -> (samples, rate in Hz); in time: 1 s, 3 s, 4.4 s, 0.5 s, 2 s, 3.5 s, 1.5 s
SOUNDS = {
    "a": (16_000, 16_000), "b": (48_000, 16_000), "c": (70_400, 16_000), "d": (24_000, 48_000),
    "e": (32_000, 16_000), "f": (56_000, 16_000), "g": (24_000, 16_000),
}  # fmt: skip
OUTSIDE = "d0"  # has no label: no business of the store
SEGMENTS = {
    "published": {"a": 1, "b": 2, "c": 2, "d": 1, "e": 1, "f": 2, "g": 1},
    "corrected": {"a": 1, "b": 1, "c": 2, "d": 1, "e": 1, "f": 2, "g": 1},
}
VIEWS = ("spectrogram", "mfcc", "waveform")


@pytest.fixture
def corpus(tmp_path):
    """Manifest of a few noise files, all in the four-class task but one."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = []
    for number, (name, (num_samples, rate)) in enumerate([*SOUNDS.items(), (OUTSIDE, (8000, 16_000))]):
        path = folder / f"{name}.wav"
        path.write_bytes(wav_bytes(noise(num_samples, seed=number), rate))
        rows.append({
            "utterance_id": name, "path": str(path), "corpus": "noise", "speaker": f"S{number % 3}",
            "session": str(number % 3), "gender": "F", "dialogue": "x", "scripted": False,
            "emotion": "fru" if name == OUTSIDE else "ang",
            "label": None if name == OUTSIDE else LABELS[number % 4],
            "num_samples": num_samples, "sample_rate": rate,
        })  # fmt: skip
    return make_manifest(rows)


class Extraction:
    """Counts utterances, and breaks down at the k-th with an exception."""

    def __init__(self, monkeypatch, breaks_at=None, exception=None):
        self.count = 0
        self.breaks_at, self.exception = breaks_at, exception
        monkeypatch.setattr(store, "segment_features", self)

    def __call__(self, *args, **kwargs):
        self.count += 1
        if self.count == self.breaks_at:
            raise self.exception
        return segment_features(*args, **kwargs)


def assert_equal_to_extraction(opened, manifest, recipe):
    """Every utterance's segments stand where the table says, with the numbers of segment_features."""
    path_of = dict(zip(manifest["utterance_id"], manifest["path"], strict=True))
    for name, rows in opened.segments.groupby("utterance_id").indices.items():
        features = segment_features(audio.read(path_of[name]), recipe)
        table = opened.segments.iloc[rows]
        assert table["segment"].tolist() == list(range(len(features)))
        for column in ("n_frames", "num_samples", "sample_offset"):
            assert table[column].tolist() == getattr(features, column).tolist()
        for view in VIEWS:
            assert np.array_equal(getattr(opened, view)[rows], getattr(features, view)), (name, view)


def contents(folder):
    """Every array and table of a store, byte for byte."""
    return {
        path.name: path.read_bytes() for path in Path(folder).iterdir() if path.suffix in (".npy", ".parquet")
    }


class TestContent:
    @pytest.mark.parametrize("recipe", [PUBLISHED, CORRECTED], ids=lambda recipe: recipe.name)
    def test_is_what_segment_features_gives(self, tmp_path, corpus, recipe):
        opened = build_store(corpus, recipe, tmp_path / "stores")
        counts = SEGMENTS[recipe.name]
        assert opened.segments["utterance_id"].tolist() == [
            name for name in SOUNDS for _ in range(counts[name])
        ]
        assert len(opened) == sum(counts.values())
        assert opened.spectrogram.shape == (len(opened), 200, 300)
        assert opened.mfcc.shape == (len(opened), 300, 40)
        assert opened.waveform.shape == (len(opened), 48_000)
        assert opened.recipe == recipe
        assert opened.folder == tmp_path / "stores" / store_key(corpus, recipe)
        assert_equal_to_extraction(opened, corpus, recipe)

    def test_memory_mapped_and_read_only(self, tmp_path, corpus):
        opened = build_store(corpus, PUBLISHED, tmp_path)
        for view in VIEWS:
            assert not getattr(opened, view).flags.writeable

    def test_nothing_is_computed_twice(self, tmp_path, corpus, monkeypatch):
        first = build_store(corpus, PUBLISHED, tmp_path)
        extraction = Extraction(monkeypatch)
        second = build_store(corpus, PUBLISHED, tmp_path)
        assert extraction.count == 0
        assert second.folder == first.folder
        assert second.segments.equals(first.segments)

    def test_can_be_moved(self, tmp_path, corpus):
        folder = build_store(corpus, CORRECTED, tmp_path / "here").folder
        shutil.move(folder, tmp_path / "there")
        assert_equal_to_extraction(open_store(tmp_path / "there"), corpus, CORRECTED)


class TestRowsOf:
    def test_order_and_rows(self, tmp_path, corpus):
        opened = build_store(corpus, PUBLISHED, tmp_path)  # a b b c c d e f f g
        assert opened.rows_of(["c"]).tolist() == [3, 4]
        assert opened.rows_of(["f", "a", "b"]).tolist() == [0, 1, 2, 7, 8]  # in store order
        assert opened.rows_of(np.array(list(SOUNDS))).tolist() == list(range(10))
        assert opened.rows_of([]).tolist() == []

    def test_missing(self, tmp_path, corpus):
        opened = build_store(corpus, PUBLISHED, tmp_path)
        message = r"utterance d0 is not in it \(and 1 more\); build the store from the same manifest"
        with pytest.raises(StoreError, match=message):
            opened.rows_of(["a", "zz", OUTSIDE])


class TestInterruption:
    @pytest.mark.parametrize("breaks_at", [1, 4, 7])
    def test_resume(self, tmp_path, corpus, monkeypatch, breaks_at):
        """The second call computes the rest, and nobody can tell that there were two."""
        with monkeypatch.context() as patch:
            Extraction(patch, breaks_at, KeyboardInterrupt())
            # its traceback keeps open files from being closed, as a killed process never closes them
            with pytest.raises(KeyboardInterrupt) as alive:
                build_store(corpus, PUBLISHED, tmp_path / "twice")
        folder = tmp_path / "twice" / store_key(corpus, PUBLISHED)
        with pytest.raises(StoreError, match="is missing or incomplete; run notebook 01"):
            open_store(folder)
        extraction = Extraction(monkeypatch)
        opened = build_store(corpus, PUBLISHED, tmp_path / "twice")
        assert extraction.count == len(SOUNDS) - (breaks_at - 1)
        assert alive.tb
        whole = build_store(corpus, PUBLISHED, tmp_path / "once")
        assert contents(opened.folder) == contents(whole.folder)
        assert {"spectrogram.npy", "mfcc.npy", "waveform.npy"} <= set(contents(whole.folder))

    def test_array_damaged_in_between(self, tmp_path, corpus, monkeypatch):
        with monkeypatch.context() as patch:
            Extraction(patch, 3, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                build_store(corpus, PUBLISHED, tmp_path)
        path = tmp_path / store_key(corpus, PUBLISHED) / "mfcc.npy"
        for left in (0, 1000):
            path.write_bytes(path.read_bytes()[:left])
            with pytest.raises(StoreError, match=r"mfcc\.npy: damaged .*delete the folder"):
                build_store(corpus, PUBLISHED, tmp_path)

    def test_full_disk(self, tmp_path, corpus, monkeypatch):
        with monkeypatch.context() as patch:
            Extraction(patch, 3, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(
                StoreError, match=r"No space left on device\); make room or choose another.*is kept"
            ):
                build_store(corpus, CORRECTED, tmp_path)
        extraction = Extraction(monkeypatch)
        opened = build_store(corpus, CORRECTED, tmp_path)
        assert extraction.count == len(SOUNDS) - 2
        assert_equal_to_extraction(opened, corpus, CORRECTED)

    def test_file_that_may_not_grow(self, tmp_path, corpus):
        """A write that really fails: files of this process are held to 300 kB for a moment."""
        resource = pytest.importorskip("resource")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
            with pytest.raises(StoreError, match="can't be written"):
                build_store(corpus, CORRECTED, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert_equal_to_extraction(build_store(corpus, CORRECTED, tmp_path), corpus, CORRECTED)

    def test_folder_that_cannot_be_made(self, tmp_path, corpus):
        (tmp_path / "stores").write_text("a file where the folder should be")
        with pytest.raises(StoreError, match="can't be written"):
            build_store(corpus, CORRECTED, tmp_path / "stores")


class TestBrokenSound:
    def test_named_at_the_end_with_everything_else_done(self, tmp_path, corpus, monkeypatch):
        path_of = {
            name: Path(path) for name, path in zip(corpus["utterance_id"], corpus["path"], strict=True)
        }
        good = {name: path_of[name].read_bytes() for name in ("b", "e")}
        path_of["b"].write_text("no sound at all")
        path_of["e"].unlink()
        with pytest.raises(CorpusError, match=r"2 of 7 sound files .*all others are done") as caught:
            build_store(corpus, PUBLISHED, tmp_path / "stores")
        assert "b.wav: not readable as audio" in str(caught.value)
        assert "e.wav: no such file" in str(caught.value)
        with pytest.raises(StoreError, match="incomplete"):
            open_store(tmp_path / "stores" / store_key(corpus, PUBLISHED))
        for name, content in good.items():
            path_of[name].write_bytes(content)
        extraction = Extraction(monkeypatch)
        opened = build_store(corpus, PUBLISHED, tmp_path / "stores")
        assert extraction.count == 2
        assert_equal_to_extraction(opened, corpus, PUBLISHED)

    def test_other_length_than_the_manifest_says(self, tmp_path, corpus):
        path = Path(corpus["path"][0])
        path.write_bytes(wav_bytes(noise(100_000)))
        with pytest.raises(CorpusError, match=r"a\.wav: length differs from the manifest"):
            build_store(corpus, PUBLISHED, tmp_path / "stores")


class TestRefused:
    @pytest.fixture
    def folder(self, tmp_path, corpus):
        return build_store(corpus, PUBLISHED, tmp_path / "stores").folder

    def test_no_store(self, tmp_path):
        with pytest.raises(StoreError, match="is missing or incomplete"):
            open_store(tmp_path)
        with pytest.raises(StoreError, match="is missing or incomplete"):
            open_store(tmp_path / "nowhere")

    def test_without_its_last_file(self, folder):
        (folder / "store.json").unlink()
        with pytest.raises(StoreError, match="incomplete"):
            open_store(folder)

    @pytest.mark.parametrize("content", ["", "{", '{"complete": false}', "{}"])
    def test_half_a_record(self, folder, content):
        (folder / "store.json").write_text(content)
        with pytest.raises(StoreError, match="incomplete"):
            open_store(folder)

    def test_other_feature_version(self, folder, corpus, monkeypatch):
        key = store_key(corpus, PUBLISHED)
        old = store.FEATURE_VERSION
        monkeypatch.setattr(store, "FEATURE_VERSION", old + 1)
        with pytest.raises(StoreError, match=f"feature version {old}, expected {old + 1}"):
            open_store(folder)
        assert store_key(corpus, PUBLISHED) != key  # and a new one is built beside it

    @pytest.mark.parametrize("view", VIEWS)
    @pytest.mark.parametrize("left", [0, 50, 100_000])
    def test_truncated_array(self, folder, view, left):
        path = folder / f"{view}.npy"
        path.write_bytes(path.read_bytes()[:left])
        with pytest.raises(StoreError, match=rf"{view}\.npy: damaged or missing .*delete the folder"):
            open_store(folder)

    @pytest.mark.parametrize("view", VIEWS)
    def test_missing_array(self, folder, view):
        (folder / f"{view}.npy").unlink()
        with pytest.raises(StoreError, match=rf"{view}\.npy: damaged or missing"):
            open_store(folder)

    def test_array_of_another_store(self, folder):
        path = folder / "mfcc.npy"
        np.save(path, np.load(path)[:-1])
        with pytest.raises(StoreError, match=r"mfcc\.npy: shape \(9, 300, 40\)"):
            open_store(folder)

    def test_pickled_array(self, folder):
        np.save(folder / "mfcc.npy", np.array([{"not": "numbers"}], object), allow_pickle=True)
        with pytest.raises(StoreError, match=r"mfcc\.npy: damaged"):
            open_store(folder)

    @pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
    def test_table(self, folder, damage):
        damage(folder / "segments.parquet")
        with pytest.raises(StoreError, match=r"segments\.parquet: damaged or missing"):
            open_store(folder)


class TestKey:
    def test_recipe_and_manifest_count(self, corpus):
        keys = {
            "published": store_key(corpus, PUBLISHED),
            "corrected": store_key(corpus, CORRECTED),
            "fewer": store_key(corpus[1:], PUBLISHED),
            "longer": store_key(corpus.assign(num_samples=corpus["num_samples"] + 1), PUBLISHED),
            "faster": store_key(corpus.assign(sample_rate=8000), PUBLISHED),
            "others": store_key(corpus.assign(utterance_id="x" + corpus["utterance_id"]), PUBLISHED),
        }
        assert len(set(keys.values())) == len(keys)

    def test_place_does_not_count(self, corpus):
        moved = corpus.assign(path="/elsewhere/" + corpus["utterance_id"])
        assert store_key(moved, PUBLISHED) == store_key(corpus, PUBLISHED)
        # nor do utterances outside the task: the store holds none
        assert store_key(corpus[corpus["label"].notna()], PUBLISHED) == store_key(corpus, PUBLISHED)


class TestBatches:
    @pytest.fixture
    def opened(self, tmp_path, corpus):
        return build_store(corpus, CORRECTED, tmp_path / "stores")

    def dataset(self, opened, names):
        label_of = {name: number % 4 for number, name in enumerate(SOUNDS)}
        return SegmentDataset(opened, opened.rows_of(names), label_of)

    def test_in_store_order(self, opened):
        batches = list(make_loader(self.dataset(opened, list(SOUNDS)), 4))
        assert [len(batch["label"]) for batch in batches] == [4, 4, 1]
        for view in VIEWS:
            together = torch.cat([batch[view] for batch in batches])
            assert np.array_equal(together.numpy(), getattr(opened, view))
        labels = torch.cat([batch["label"] for batch in batches])
        assert labels.tolist() == [0, 1, 2, 2, 3, 0, 1, 1, 2]  # a b c c d e f f g
        num_samples = torch.cat([batch["num_samples"] for batch in batches])
        assert num_samples.tolist() == opened.segments["num_samples"].tolist()

    def test_shuffled_by_its_seed(self, opened):
        dataset = self.dataset(opened, list(SOUNDS))

        def order(seed):
            return torch.cat(
                [b["mfcc"][:, 0, 0] for b in make_loader(dataset, 2, shuffle_seed=seed)]
            ).tolist()

        assert order(1) == order(1)
        assert order(1) != order(2)
        assert sorted(order(1)) == sorted(opened.mfcc[:, 0, 0].tolist())

    def test_scaler_is_fitted_on_the_rows_given(self, opened):
        rows = opened.rows_of(["a", "g"])
        scaler = fit_scaler(opened, rows)
        real = [opened.spectrogram[row][:, :n] for row, n in zip(rows, (101, 151), strict=True)]
        assert np.array_equal(scaler.minimum, np.concatenate(real, axis=1).min(axis=1))
        assert np.array_equal(scaler.maximum, np.concatenate(real, axis=1).max(axis=1))

    def test_published_scaler_counts_padding(self, tmp_path, corpus):
        opened = build_store(corpus, PUBLISHED, tmp_path / "stores")
        assert (fit_scaler(opened, opened.rows_of(["a"])).maximum == 0).all()

    def test_model_inputs(self, opened):
        batch = next(iter(make_loader(self.dataset(opened, ["a", "c"]), 3)))
        scaler = SpectrogramScaler(np.full(200, -80, np.float32), np.zeros(200, np.float32))
        inputs = model_inputs(batch, scaler, CORRECTED, torch.device("cpu"))
        assert torch.equal(inputs["spectrogram"], spectrogram_image(batch["spectrogram"], scaler))
        assert inputs["num_samples"].tolist() == [16_000, 48_000, 48_000]
        assert model_inputs(batch, scaler, PUBLISHED, torch.device("cpu"))["num_samples"] is None
