"""Fixtures for all tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared():
    """The shared folder beside the clone: corpora and golden values that are not committed."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no shared folder beside the clone: ../shared holds data that are not committed")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project to work in."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def forkserver():
    """Processes that dask starts, or this context: forked from one that has imported all, which takes seconds."""
    import dask
    from distributed.utils import get_mp_context

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        context = get_mp_context()
        context.set_forkserver_preload(
            ["distributed", "serkit.reproduction.cluster", "serkit.reproduction.gpu_memory", "pytest"]
        )
        yield context


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory, worker_id):
    """The demo corpus, spoken once for all tests of all processes."""
    from serkit.corpora import demo
    from serkit.files import locked

    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "corpus" / "demo"
    with locked(f"{root.parent}.lock"):
        demo.load(root)
    return root
