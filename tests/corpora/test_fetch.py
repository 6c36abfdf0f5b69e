"""Corpora by download: a server on this machine, small archives, and what goes wrong on the way."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from serkit.corpora import fetch as module
from serkit.corpora.fetch import ARCHIVES, LICENCE, fetch
from serkit.errors import CorpusError, ParameterError


def archive_of(names):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, (name * 20_000)[:100_000])
    return content.getvalue()


GOOD = archive_of(["Actor_01/a.wav", "Actor_02/b.wav"])


class Server:
    """Serves one archive; ``cut`` ends the first answer after so many bytes."""

    def __init__(self):
        self.content, self.cut, self.asked = GOOD, None, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                first = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
                outer.asked.append(first)
                if first >= len(outer.content):
                    self.send_error(416)
                    return
                self.send_response(206 if first else 200)
                self.send_header("Content-Length", str(len(outer.content) - first))
                self.end_headers()
                stop, outer.cut = outer.cut, None
                self.wfile.write(outer.content[first:stop])

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/corpus.zip"


@pytest.fixture
def server(monkeypatch):
    server = Server()
    about = ARCHIVES["ravdess"] | {"url": server.url, "checksum": f"md5:{hashlib.md5(GOOD).hexdigest()}"}
    monkeypatch.setitem(module.ARCHIVES, "ravdess", about)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.server.shutdown()


def test_it_is_fetched_checked_and_unpacked_once(server, tmp_path, capsys):
    folder = fetch("ravdess", root=tmp_path / "ravdess")
    assert (folder / "Actor_01/a.wav").read_text() == ("Actor_01/a.wav" * 20_000)[:100_000]
    assert "CC BY-NC-SA 4.0" in (folder / LICENCE).read_text()
    assert capsys.readouterr().out.index("licence") < len("RAVDESS, speech of 24 actors") + 60
    fetch("ravdess", root=tmp_path / "ravdess")
    assert server.asked == [0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ravdess.lock", "ravdess"]


def test_a_cut_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.cut = 150_000
    with pytest.raises(CorpusError, match=r"broke off .* call again to go on"):
        fetch("ravdess", root=tmp_path / "ravdess")
    assert not (tmp_path / "ravdess").exists()
    fetch("ravdess", root=tmp_path / "ravdess")
    assert server.asked == [0, 2 * module.CHUNK]
    assert (tmp_path / "ravdess/Actor_02/b.wav").is_file()


def test_a_wrong_checksum_is_thrown_away(server, tmp_path):
    server.content = archive_of(["other.wav"])
    with pytest.raises(CorpusError, match="another checksum than published"):
        fetch("ravdess", root=tmp_path / "ravdess")
    assert [path.name for path in tmp_path.iterdir()] == [".ravdess.lock"]


@pytest.mark.parametrize("name", ["../evil.wav", "/tmp/evil.wav", "a/../../evil.wav", "..\\evil.wav"])
def test_what_an_archive_holds_stays_in_its_folder(server, tmp_path, name, monkeypatch):
    server.content = archive_of(["fine.wav", name])
    checksum = f"md5:{hashlib.md5(server.content).hexdigest()}"
    monkeypatch.setitem(module.ARCHIVES, "ravdess", module.ARCHIVES["ravdess"] | {"checksum": checksum})
    folder = fetch("ravdess", root=tmp_path / "in" / "ravdess")
    assert (folder / "fine.wav").is_file()
    assert all(path.is_relative_to(folder) for path in tmp_path.rglob("*.wav"))
    assert not Path("/tmp/evil.wav").exists()


def test_a_full_disk_is_named(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.shutil, "unpack_archive", full)
    with pytest.raises(
        CorpusError, match=r"No space left on device.* it takes 624 MB for a while; make room"
    ):
        fetch("ravdess", root=tmp_path / "ravdess")
    monkeypatch.undo()


def test_without_network_it_says_how_to_do_it_by_hand(server, tmp_path):
    server.server.shutdown()
    server.server.server_close()
    with pytest.raises(
        CorpusError, match=r"can't be reached .* or fetch the archive from https://zenodo.org/records/1188976"
    ):
        fetch("ravdess", root=tmp_path / "ravdess")


@pytest.mark.parametrize("name", sorted(name for name, about in ARCHIVES.items() if "url" not in about))
def test_what_has_to_be_fetched_by_hand_says_so(name, tmp_path):
    with pytest.raises(CorpusError, match=r"can't be fetched without you: fetch .* and unpack it in"):
        fetch(name, root=tmp_path / name)


def test_an_unknown_name_is_refused():
    with pytest.raises(ParameterError, match="corpus='iemocap', expected one of ravdess, tess"):
        fetch("iemocap")


def test_every_entry_has_what_is_shown():
    for about in ARCHIVES.values():
        assert {"title", "page", "licence", "cite"} <= about.keys()
        assert about.keys() & {"url", "by_hand"} == ({"url"} if "checksum" in about else {"by_hand"})
