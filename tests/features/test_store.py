"""The feature store: what it holds, what it survives, and what it refuses; then batches read from it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from trees import noise, wav_bytes

from serkit.constants import LABELS
from serkit.corpora.manifest import make_manifest
from serkit.corpora.sound_files import read_header
from serkit.errors import CorpusError, ParameterError, StoreError
from serkit.features import audio, store
from serkit.features.rows import Progress, RowFile, encode_level, level_of_code
from serkit.features.store import FeatureStore, build_store, check_store, store_key
from serkit.features.views import (
    SegmentFeatures,
    SpectrogramScaler,
    segment_features,
    spectrogram_image,
    utterance_features,
)
from serkit.recipe import CORRECTED, PUBLISHED, Recipe, named
from serkit.training.batches import SegmentDataset, fit_scaler, load_batches, model_inputs

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
PARTS = ("spectrogram", "mfcc", "audio")
RECIPES = [PUBLISHED, CORRECTED, named("published+D2"), named("published+D4"), named("corrected-D3")]
HALF_STEP = 0.5 * 80 / 65_535 + 1e-5  # dB: 16 bits over 80 dB, and float32


@pytest.fixture
def corpus(tmp_path):
    """Manifest of a few noise files, all in the four-class task but one."""
    return write_corpus(tmp_path / "corpus")


def write_corpus(folder, seed=0):
    folder.mkdir()
    rows = []
    for number, (name, (num_samples, rate)) in enumerate([*SOUNDS.items(), (OUTSIDE, (8000, 16_000))]):
        path = folder / f"{name}.wav"
        path.write_bytes(wav_bytes(noise(num_samples, seed=seed + number), rate))
        rows.append({
            "utterance_id": name, "path": str(path), "corpus": "noise", "speaker": f"S{number % 3}",
            "session": str(number % 3), "gender": "F", "dialogue": "x", "scripted": False,
            "emotion": "fru" if name == OUTSIDE else "ang",
            "label": None if name == OUTSIDE else LABELS[number % 4],
            **read_header(path)._asdict(),
        })  # fmt: skip
    return make_manifest(rows)


class Extraction:
    """Counts utterances computed in this process (workers=1), and breaks down at the k-th."""

    def __init__(self, monkeypatch, breaks_at=None, exception=None):
        self.count = 0
        self.breaks_at, self.exception = breaks_at, exception
        monkeypatch.setattr(store, "utterance_features", self)

    def __call__(self, *args, **kwargs):
        self.count += 1
        if self.count == self.breaks_at:
            raise self.exception
        return utterance_features(*args, **kwargs)


def assert_equal_to_extraction(opened, manifest, recipe):
    """Every utterance's segments stand where the table says, with the numbers of segment_features."""
    path_of = dict(zip(manifest["utterance_id"], manifest["path"], strict=True))
    for name, rows in opened.segments.groupby("utterance_id").indices.items():
        features = segment_features(audio.read(path_of[name]), recipe)
        table = opened.segments.iloc[rows]
        assert table["segment"].tolist() == list(range(len(features)))
        for column in ("n_frames", "num_samples", "sample_offset"):
            assert table[column].tolist() == getattr(features, column).tolist()
        assert_same_segments(opened.read(rows), features)


def assert_same_segments(got, want):
    for field in fields(SegmentFeatures):
        a, b = getattr(got, field.name), getattr(want, field.name)
        if field.name == "spectrogram":
            np.testing.assert_allclose(a, b, atol=HALF_STEP, rtol=0)
        elif field.name == "mfcc":
            # 5e-4: the number of BLAS threads may change the order in which float32 are added up
            np.testing.assert_allclose(a, b, atol=5e-4, rtol=0)
        else:
            assert np.array_equal(a, b), field.name


def contents(folder):
    """Every file of a store, byte for byte."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


class TestContent:
    @pytest.mark.parametrize("recipe", [PUBLISHED, CORRECTED], ids=lambda recipe: recipe.name)
    def test_is_what_segment_features_gives(self, tmp_path, corpus, recipe):
        opened = build_store(corpus, recipe, tmp_path / "stores")
        counts = SEGMENTS[recipe.name]
        assert opened.segments["utterance_id"].tolist() == [
            name for name in SOUNDS for _ in range(counts[name])
        ]
        assert len(opened) == sum(counts.values())
        assert opened.recipe == recipe
        assert opened.folder == tmp_path / "stores" / store_key(corpus, recipe)
        assert_equal_to_extraction(opened, corpus, recipe)

    def test_rows_in_any_order_and_more_than_once(self, tmp_path, corpus):
        opened = build_store(corpus, PUBLISHED, tmp_path)
        everything, rows = opened.read(range(10)), [4, 9, 0, 4, 3]
        some = opened.read(rows)
        for field in fields(SegmentFeatures):
            assert np.array_equal(getattr(some, field.name), getattr(everything, field.name)[rows])
        assert opened.read([]).spectrogram.shape == (0, 200, 300)

    def test_one_store_serves_recipes_that_cut_in_another_way(self, tmp_path, corpus, monkeypatch):
        folder = build_store(corpus, PUBLISHED, tmp_path).folder
        count = Extraction(monkeypatch)
        for recipe in RECIPES:
            opened = build_store(corpus, recipe, tmp_path, workers=1)
            assert opened.folder == folder
            assert_equal_to_extraction(opened, corpus, recipe)
        assert count.count == 0
        for other in (Recipe(edge="zero"), Recipe(top_db=60), Recipe(preemphasis=0)):
            with pytest.raises(
                StoreError, match=r"made with .* but recipe published has .*; notebook 01 builds one"
            ):
                FeatureStore(folder, other)
        assert_equal_to_extraction(build_store(corpus, other, tmp_path), corpus, other)

    @pytest.mark.parametrize("workers", [2, 5])
    def test_does_not_depend_on_the_number_of_workers(self, tmp_path, corpus, workers):
        alone = build_store(corpus, PUBLISHED, tmp_path / "alone", workers=1)
        together = build_store(corpus, PUBLISHED, tmp_path / "together", workers=workers)
        assert contents(alone.folder) == contents(together.folder)

    def test_nothing_is_computed_twice(self, tmp_path, corpus, monkeypatch):
        first = build_store(corpus, PUBLISHED, tmp_path)
        count = Extraction(monkeypatch)
        second = build_store(corpus, PUBLISHED, tmp_path, workers=1)
        assert count.count == 0
        assert second.folder == first.folder
        assert second.segments.equals(first.segments)

    def test_can_be_moved(self, tmp_path, corpus):
        folder = build_store(corpus, CORRECTED, tmp_path / "here").folder
        shutil.move(folder, tmp_path / "there")
        assert_equal_to_extraction(FeatureStore(tmp_path / "there", CORRECTED), corpus, CORRECTED)

    def test_only_what_is_read_is_in_memory(self, tmp_path, corpus):
        opened = build_store(corpus, CORRECTED, tmp_path)
        held = [value for value in vars(opened).values() if isinstance(value, np.ndarray)]
        assert sum(array.nbytes for array in held) < 1000

    def test_plain_arrays_of_the_types_that_were_chosen(self, tmp_path, corpus):
        """16 bits of sound where all sources have no more; here one is resampled from 48 kHz."""
        folder = build_store(corpus, CORRECTED, tmp_path).folder
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in PARTS}
        assert {name: (a.dtype.name, a.shape[1:]) for name, a in arrays.items()} == {
            "spectrogram": ("uint16", (200,)), "mfcc": ("float32", (40,)), "audio": ("float32", ()),
        }  # fmt: skip
        native = corpus[corpus["sample_rate"] == 16_000]
        opened = build_store(native, CORRECTED, tmp_path)
        sound = np.load(opened.folder / "audio.npy")
        assert sound.dtype == np.int16
        files = [soundfile.read(path, dtype="int16")[0] for path in native["path"][native["label"].notna()]]
        assert np.array_equal(sound, np.concatenate(files))
        assert_equal_to_extraction(opened, native, CORRECTED)


class TestCodes:
    @pytest.mark.parametrize("top_db", [80.0, 60.0, 33.3])
    def test_nearest_level(self, top_db):
        level = np.random.default_rng(0).uniform(-top_db, 0, 100_000).astype(np.float32)
        back = level_of_code(top_db)[encode_level(level, top_db)]
        assert np.abs(back - level).max() <= 0.5 * top_db / 65_535 + 1e-5  # float32
        assert level_of_code(top_db)[encode_level(np.float32([-top_db, 0]), top_db)].tolist() == [
            pytest.approx(-top_db), 0.0,
        ]  # fmt: skip


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
            with pytest.raises(KeyboardInterrupt):
                build_store(corpus, PUBLISHED, tmp_path / "twice", workers=1)
        folder = tmp_path / "twice" / store_key(corpus, PUBLISHED)
        with pytest.raises(StoreError, match="is missing or incomplete; notebook 01 builds it"):
            FeatureStore(folder, PUBLISHED)
        count = Extraction(monkeypatch)
        opened = build_store(corpus, PUBLISHED, tmp_path / "twice", workers=1)
        assert count.count == len(SOUNDS) - (breaks_at - 1)
        whole = build_store(corpus, PUBLISHED, tmp_path / "once")
        assert contents(opened.folder) == contents(whole.folder)

    def test_killed(self, tmp_path, corpus, monkeypatch):
        """SIGKILL of a process that extracts, twice; then only what is missing is computed."""
        corpus.to_parquet(tmp_path / "manifest.parquet")
        program = (
            "import sys, time, pandas as pd\n"
            "from serkit import recipe; from serkit.features import store\n"
            "real = store.utterance_features\n"
            "def slow(*args):\n"
            "    time.sleep(0.4)\n"
            "    return real(*args)\n"
            "store.utterance_features, store.SAVED_EVERY, store.PORTION = slow, 1, 1\n"
            "store.build_store(pd.read_parquet(sys.argv[1]), recipe.PUBLISHED, sys.argv[2], workers=2)\n"
        )
        folder = tmp_path / "killed" / store_key(corpus, PUBLISHED)
        for wanted in (2, 4):
            command = [sys.executable, "-c", program, tmp_path / "manifest.parquet", tmp_path / "killed"]
            child = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(store.__file__).parents[2])
            wait_until(lambda wanted=wanted: count_done(folder) >= wanted, child)
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        with FileLock(folder / "lock"):  # the workers hold it until they have noticed
            done = count_done(folder)
        assert 4 <= done < len(SOUNDS) and not (folder / "store.json").exists()
        count = Extraction(monkeypatch)
        opened = build_store(corpus, PUBLISHED, tmp_path / "killed", workers=1)
        assert count.count == len(SOUNDS) - done
        whole = build_store(corpus, PUBLISHED, tmp_path / "once")
        assert contents(opened.folder) == contents(whole.folder)

    @pytest.mark.parametrize("name", PARTS)
    def test_array_cut_short_in_between(self, tmp_path, corpus, monkeypatch, name):
        """Nobody knows what is left of it: everything is computed again."""
        with monkeypatch.context() as patch:
            Extraction(patch, 4, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                build_store(corpus, PUBLISHED, tmp_path / "twice", workers=1)
        path = tmp_path / "twice" / store_key(corpus, PUBLISHED) / f"{name}.npy"
        os.truncate(path, 40_000)
        count = Extraction(monkeypatch)
        opened = build_store(corpus, PUBLISHED, tmp_path / "twice", workers=1)
        assert count.count == len(SOUNDS)
        whole = build_store(corpus, PUBLISHED, tmp_path / "once")
        assert contents(opened.folder) == contents(whole.folder)

    def test_nothing_is_done_before_it_is_on_the_disk(self, tmp_path, monkeypatch):
        """The power may fail: the mask is written after the files that it vouches for."""
        file = RowFile(tmp_path / "a.npy", "int16", (3,))
        progress = Progress(tmp_path, [file], 3)
        file.write(0, np.int16([7]))
        progress.done[0] = True
        seen = []
        monkeypatch.setattr("serkit.features.rows.sync", lambda path: seen.append((path, mask())))

        def mask():
            return np.load(tmp_path / "done.npy").tolist()

        progress.save()
        assert seen == [(file.path, [False, False, False])]
        assert mask() == [True, False, False] == Progress(tmp_path, [file], 3).done.tolist()

    @pytest.mark.parametrize("workers", [1, 2])
    def test_full_disk(self, tmp_path, corpus, monkeypatch, workers):
        """The third utterance finds no room: what stands before it is kept."""
        real = RowFile.write

        def write(file, start, rows):
            if file.path.name == "mfcc.npy" and start >= 101 + 301:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(file, start, rows)

        with monkeypatch.context() as patch:
            patch.setattr(RowFile, "write", write)
            with pytest.raises(
                StoreError, match=r"No space left on device\); make room and call again.*is kept"
            ):
                build_store(corpus, CORRECTED, tmp_path, workers=workers)
        count = Extraction(monkeypatch)
        opened = build_store(corpus, CORRECTED, tmp_path, workers=1)
        assert count.count == len(SOUNDS) - (
            2 if workers == 1 else 0
        )  # two workers have a portion each in hand
        assert_equal_to_extraction(opened, corpus, CORRECTED)

    def test_a_worker_that_dies(self, tmp_path, corpus, monkeypatch):
        """Ended by the system, as for want of memory: named, and nothing that was done is lost."""
        monkeypatch.setattr(store, "utterance_features", lambda *args: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(StoreError, match=r"a worker was ended, perhaps for want of memory.*workers=1"):
            build_store(corpus, CORRECTED, tmp_path, workers=2)
        monkeypatch.undo()
        assert_equal_to_extraction(build_store(corpus, CORRECTED, tmp_path), corpus, CORRECTED)

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


def count_done(folder):
    try:
        return int(np.load(folder / "done.npy").sum())
    except (OSError, ValueError, EOFError):  # it is being made
        return 0


def wait_until(condition, child, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert child.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


class TestBrokenSound:
    def test_named_at_the_end_with_everything_else_done(self, tmp_path, corpus, monkeypatch):
        path_of = {
            name: Path(path) for name, path in zip(corpus["utterance_id"], corpus["path"], strict=True)
        }
        good = {name: path_of[name].read_bytes() for name in ("b", "e")}
        path_of["b"].write_text("no sound at all")
        path_of["e"].unlink()
        with pytest.raises(
            CorpusError, match=r"2 of 7 sound files .*all others are done.*--skip-broken"
        ) as caught:
            build_store(corpus, PUBLISHED, tmp_path / "stores")
        assert "b.wav: not readable as audio" in str(caught.value)
        assert "e.wav: no such file" in str(caught.value)
        with pytest.raises(StoreError, match="incomplete"):
            FeatureStore(tmp_path / "stores" / store_key(corpus, PUBLISHED), PUBLISHED)
        for name, content in good.items():
            path_of[name].write_bytes(content)
        count = Extraction(monkeypatch)
        opened = build_store(corpus, PUBLISHED, tmp_path / "stores", workers=1)
        assert count.count == 2
        assert_equal_to_extraction(opened, corpus, PUBLISHED)

    def test_other_length_than_the_manifest_says(self, tmp_path, corpus):
        path = Path(corpus["path"][0])
        path.write_bytes(wav_bytes(noise(100_000)))
        with pytest.raises(CorpusError, match=r"a\.wav: 100000 samples at 16 kHz, 16000 by the manifest"):
            build_store(corpus, PUBLISHED, tmp_path / "stores")

    def test_skipping_is_yes_or_no(self, tmp_path, corpus):
        with pytest.raises(ParameterError, match=r"skip_broken='yes', expected one of True, False"):
            build_store(corpus, PUBLISHED, tmp_path / "stores", skip_broken="yes")

    def test_skipped_and_recorded(self, tmp_path, corpus, monkeypatch, capsys):
        path_of = dict(zip(corpus["utterance_id"], corpus["path"], strict=True))
        good = Path(path_of["c"]).read_bytes()
        Path(path_of["c"]).write_text("no sound at all")
        opened = build_store(corpus, PUBLISHED, tmp_path / "stores", skip_broken=True)
        assert list(opened.skipped) == ["c"] and "c.wav: not readable as audio" in opened.skipped["c"]
        record = json.loads((opened.folder / "store.json").read_text())
        assert record["skipped"] == opened.skipped and len(opened.utterances) == 6
        assert sorted(set(opened.segments["utterance_id"])) == sorted(set(SOUNDS) - {"c"})
        assert_equal_to_extraction(opened, corpus, PUBLISHED)
        assert opened.rows_of(list(SOUNDS)).tolist() == list(range(8))
        assert "1 of 7 utterances are left out as unusable: c ..." in capsys.readouterr().out
        with pytest.raises(StoreError, match=r"utterance zz is not in it"):
            opened.rows_of(["c", "zz"])
        check_store(opened.folder)
        # accepted once, accepted for good: later notebooks open it as it is
        assert list(build_store(corpus, CORRECTED, tmp_path / "stores").skipped) == ["c"]
        Path(path_of["c"]).write_bytes(good)
        (opened.folder / "store.json").unlink()
        count = Extraction(monkeypatch)
        mended = build_store(corpus, PUBLISHED, tmp_path / "stores", workers=1)
        assert count.count == 1 and not mended.skipped
        assert contents(mended.folder) == contents(build_store(corpus, PUBLISHED, tmp_path / "once").folder)

    def test_all_broken(self, tmp_path, corpus):
        for path in corpus["path"]:
            Path(path).unlink()
        opened = build_store(corpus, PUBLISHED, tmp_path / "stores", skip_broken=True)
        assert len(opened) == 0 and len(opened.skipped) == len(SOUNDS)


class TestRefused:
    @pytest.fixture
    def folder(self, tmp_path, corpus):
        return build_store(corpus, PUBLISHED, tmp_path / "stores").folder

    def test_no_store(self, tmp_path):
        with pytest.raises(StoreError, match="is missing or incomplete"):
            FeatureStore(tmp_path, PUBLISHED)
        with pytest.raises(StoreError, match="is missing or incomplete"):
            FeatureStore(tmp_path / "nowhere", PUBLISHED)

    def test_without_its_last_file(self, folder):
        (folder / "store.json").unlink()
        with pytest.raises(StoreError, match="incomplete"):
            FeatureStore(folder, PUBLISHED)

    @pytest.mark.parametrize("content", ["", "{", "{}"])
    def test_half_a_record(self, folder, content):
        (folder / "store.json").write_text(content)
        with pytest.raises(StoreError, match="incomplete"):
            FeatureStore(folder, PUBLISHED)

    def test_other_feature_version(self, folder, corpus, monkeypatch):
        key = store_key(corpus, PUBLISHED)
        old = store.FEATURE_VERSION
        monkeypatch.setattr(store, "FEATURE_VERSION", old + 1)
        with pytest.raises(
            StoreError, match=rf"made with .*'feature_version': {old}, .* has .*'feature_version': {old + 1}"
        ):
            FeatureStore(folder, PUBLISHED)
        assert store_key(corpus, PUBLISHED) != key  # and a new one is built beside it

    @pytest.mark.parametrize("name", PARTS)
    @pytest.mark.parametrize("left", [50, 100_000])
    def test_truncated_array(self, folder, name, left):
        path = folder / f"{name}.npy"
        path.write_bytes(path.read_bytes()[:left])
        with pytest.raises(
            StoreError, match=rf"{name}\.npy: damaged or missing .*delete its folder and run notebook 01"
        ):
            FeatureStore(folder, PUBLISHED)

    @pytest.mark.parametrize("name", PARTS)
    def test_truncated_after_opening(self, folder, name):
        """No bus error either when the file shrinks under an open store."""
        opened = FeatureStore(folder, PUBLISHED)
        os.truncate(folder / f"{name}.npy", 100_000)
        with pytest.raises(StoreError, match=rf"{name}\.npy: damaged or missing \(ends before row"):
            opened.read(range(len(opened)))

    @pytest.mark.parametrize("name", PARTS)
    def test_one_wrong_byte(self, folder, name):
        """Opening can't see it; `check_store` does, and names the file."""
        FeatureStore(folder, PUBLISHED)
        check_store(folder)
        path = folder / f"{name}.npy"
        content = bytearray(path.read_bytes())
        content[-10] ^= 1
        path.write_bytes(content)
        with pytest.raises(
            StoreError, match=rf"{name}\.npy: damaged or missing \(checksum mismatch\); delete its folder"
        ):
            check_store(folder)

    @pytest.mark.parametrize("name", PARTS)
    def test_missing_array(self, folder, name):
        (folder / f"{name}.npy").unlink()
        with pytest.raises(StoreError, match=rf"{name}\.npy: damaged or missing"):
            FeatureStore(folder, PUBLISHED)

    def test_array_of_another_store(self, folder):
        path = folder / "mfcc.npy"
        np.save(path, np.load(path)[:-1])
        with pytest.raises(
            StoreError, match=r"mfcc\.npy: damaged or missing \(expected float32 \(\d+, 40\)\)"
        ):
            FeatureStore(folder, PUBLISHED)

    def test_pickled_array(self, folder):
        np.save(folder / "mfcc.npy", np.array([{"not": "numbers"}], object), allow_pickle=True)
        with pytest.raises(StoreError, match=r"mfcc\.npy: damaged"):
            FeatureStore(folder, PUBLISHED)

    @pytest.mark.parametrize("damage", ["gone", "no table", "one byte"])
    def test_table(self, folder, damage):
        path = folder / "utterances.parquet"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        if damage != "gone":
            path.write_bytes(b"PAR1" if damage == "no table" else content)
        with pytest.raises(StoreError, match=r"utterances\.parquet: damaged or missing"):
            FeatureStore(folder, PUBLISHED)


class TestKey:
    def test_a_manifest_of_an_older_version(self, corpus):
        with pytest.raises(StoreError, match="older version of serkit; run notebook 01"):
            store_key(corpus.drop(columns="digest"), PUBLISHED)

    def test_the_same_names_and_lengths_with_other_sound(self, corpus, tmp_path):
        """A second copy of a corpus, denoised for example, or a file that was mended in place."""
        other = write_corpus(tmp_path / "denoised", seed=100)
        columns = ["utterance_id", "num_samples", "sample_rate"]
        assert other[columns].equals(corpus[columns])
        first, second = (
            build_store(table, PUBLISHED, tmp_path / "both", workers=1) for table in (corpus, other)
        )
        assert first.folder != second.folder
        assert not np.array_equal(first.read([0]).mfcc, second.read([0]).mfcc)

    def test_how_segments_are_cut_does_not_count(self, corpus):
        assert len({store_key(corpus, recipe) for recipe in RECIPES}) == 1

    def test_analysis_and_manifest_count(self, corpus):
        keys = {
            "published": store_key(corpus, PUBLISHED),
            "zero": store_key(corpus, Recipe(edge="zero")),
            "narrow": store_key(corpus, Recipe(top_db=60)),
            "plain": store_key(corpus, Recipe(preemphasis=0.5)),
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

    def batches(self, dataset, size, seed=None):
        return list(load_batches(dataset, size, seed))

    def test_in_store_order(self, opened):
        batches = self.batches(self.dataset(opened, list(SOUNDS)), 4)
        assert [len(batch["label"]) for batch in batches] == [4, 4, 1]
        everything = opened.read(range(len(opened)))
        for view in VIEWS:
            together = torch.cat([batch[view] for batch in batches])
            assert np.array_equal(together.numpy(), getattr(everything, view))
        labels = torch.cat([batch["label"] for batch in batches])
        assert labels.tolist() == [0, 1, 2, 2, 3, 0, 1, 1, 2]  # a b c c d e f f g
        num_samples = torch.cat([batch["num_samples"] for batch in batches])
        assert num_samples.tolist() == opened.segments["num_samples"].tolist()

    def test_shuffled_by_its_seed(self, opened):
        dataset = self.dataset(opened, list(SOUNDS))

        def order(seed):
            return torch.cat([b["mfcc"][:, 0, 0] for b in self.batches(dataset, 2, seed)]).tolist()

        assert order(1) == order(1)
        assert order(1) != order(2)
        assert sorted(order(1)) == sorted(opened.read(range(len(opened))).mfcc[:, 0, 0].tolist())

    @pytest.mark.filterwarnings("ignore:'pin_memory'")
    def test_reading_ahead_for_a_gpu_gives_the_same_batches(self, opened):
        dataset = self.dataset(opened, list(SOUNDS))
        ahead = list(load_batches(dataset, 2, 3, on_gpu=True))
        for a, b in zip(self.batches(dataset, 2, 3), ahead, strict=True):
            assert list(a) == list(b)
            assert all(torch.equal(a[name], b[name]) for name in a)

    @pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
    @pytest.mark.parametrize("names", ["ag", "f", "bd", "abcdefg"])
    def test_scaler_is_that_of_the_segments(self, tmp_path, corpus, recipe, names):
        """The streamed pass against SpectrogramScaler.fit over the arrays, some of them without padding."""
        opened = build_store(corpus, recipe, tmp_path / "stores")
        rows = opened.rows_of(names)
        segments = opened.read(rows)
        n_frames = None if recipe.statistics_over_padding else segments.n_frames
        want, got = SpectrogramScaler.fit(segments.spectrogram, n_frames), fit_scaler(opened, rows)
        assert np.array_equal(got.minimum, want.minimum)
        assert np.array_equal(got.maximum, want.maximum)
        assert got.minimum.dtype == np.float32

    def test_scaler_of_some_segments_only(self, opened):
        rows = np.array([3, 6])  # the second of c, the first of f; in any order
        want = SpectrogramScaler.fit(opened.read(rows).spectrogram, opened.read(rows).n_frames)
        for order in (rows, rows[::-1]):
            assert np.array_equal(fit_scaler(opened, order).maximum, want.maximum)

    def test_published_scaler_counts_padding(self, tmp_path, corpus):
        opened = build_store(corpus, PUBLISHED, tmp_path / "stores")
        assert (fit_scaler(opened, opened.rows_of(["a"])).maximum == 0).all()

    def test_model_inputs(self, opened):
        batch = self.batches(self.dataset(opened, ["a", "c"]), 3)[0]
        scaler = SpectrogramScaler(np.full(200, -80, np.float32), np.zeros(200, np.float32))
        inputs = model_inputs(batch, scaler, CORRECTED, torch.device("cpu"))
        assert torch.equal(inputs["spectrogram"], spectrogram_image(batch["spectrogram"], scaler))
        assert inputs["num_samples"].tolist() == [16_000, 48_000, 48_000]
        assert model_inputs(batch, scaler, PUBLISHED, torch.device("cpu"))["num_samples"] is None
