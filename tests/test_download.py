import contextlib
import hashlib
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from disks import small_disk
from dvc.utils.hydra import compose_and_dump
from pydantic import ValidationError

from frugalnet.config import read_params
from frugalnet.data.config import DownloadConfig
from frugalnet.data.download import TRIES, fetch, is_verified
from frugalnet.errors import UserError

PAYLOAD = random.Random(1).randbytes(1_000_000)
MD5 = hashlib.md5(PAYLOAD).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves PAYLOAD, but treats its first requests as `plan` says."""

    ranges = True  # whether it honours Range
    bytes_a_second = 0  # 0: as fast as it can

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[str] = []
        self.asked: list[str | None] = []  # the Range of each request
        self.url = f"http://127.0.0.1:{self.server_port}/archive.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        treatment = self.server.plan.pop(0) if self.server.plan else ""
        if treatment.isdecimal():
            self.send_error(int(treatment))
            return
        payload = PAYLOAD if treatment != "larger" else PAYLOAD + b"more"
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if treatment == "file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
            return
        if treatment == "silent":
            self.send(b"")
            return
        self.send_response(206 if start else 200)
        if start:
            said = start + 1 if treatment == "unfit" else start
            self.send_header("Content-Range", f"bytes {said}-{len(payload) - 1}/{len(payload)}")
        if treatment != "larger":
            self.send_header("Content-Length", str(len(payload) - start))
        self.end_headers()
        end = (start + len(payload)) // 2 if treatment in ("cut", "stall", "trickle") else len(payload)
        for at in range(start, end, 1 << 16):
            self.wfile.write(payload[at : min(at + (1 << 16), end)])
            if self.server.bytes_a_second:
                time.sleep((1 << 16) / self.server.bytes_a_second)
        if treatment in ("stall", "trickle"):
            self.send(payload[end : end + 20] if treatment == "trickle" else b"")

    def send(self, data: bytes) -> None:
        """One byte every 0.05 s for a second."""
        for at in range(20):
            time.sleep(0.05)
            self.wfile.write(data[at : at + 1])

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client was killed, that is the test
            super().handle()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "archive.zip"


def config(url: str | Path, **changes: object) -> DownloadConfig:
    return DownloadConfig.model_validate(
        {"source": "url", "url": str(url), "size_bytes": len(PAYLOAD), "md5": MD5} | changes
    )


def partials(place: Path) -> Path:
    return place.parents[1] / "download"


def partial(place: Path) -> Path:
    partials(place).mkdir(exist_ok=True)
    return partials(place) / f"{MD5}.partial"


def payload_file(folder: Path) -> str:
    path = folder / "payload.zip"
    path.write_bytes(PAYLOAD)
    return str(path)


def get(wanted: DownloadConfig, place: Path) -> None:
    fetch(wanted, place, partials(place), backoff_seconds=0.001)


def refused(wanted: DownloadConfig, place: Path) -> str:
    """The message of a download that must fail and leave nothing at the archive's place."""
    with pytest.raises(UserError) as error:
        get(wanted, place)
    assert not place.exists()
    assert not list(place.parent.glob("*"))
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_download_arrives_whole_and_leaves_no_partial(server: Server, place: Path) -> None:
    get(config(server.url), place)
    assert place.read_bytes() == PAYLOAD
    assert not partial(place).exists()


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_local_mirror_is_copied_and_kept(prefix: str, tmp_path: Path, place: Path) -> None:
    mirror = tmp_path / "a mirror.zip"
    mirror.write_bytes(PAYLOAD)
    get(config(mirror.as_uri() if prefix else mirror), place)
    assert place.read_bytes() == mirror.read_bytes() == PAYLOAD


def test_the_sample_needs_no_address(sample_archive: Path) -> None:
    assert sample_archive.read_bytes()[:2] == b"PK"  # the fixture is a download without one


def test_a_partial_file_is_resumed_by_range(server: Server, place: Path) -> None:
    partial(place).write_bytes(PAYLOAD[:300_000])
    get(config(server.url), place)
    assert server.asked == ["bytes=300000-"]
    assert place.read_bytes() == PAYLOAD


def test_a_partial_file_that_is_whole_asks_for_nothing(server: Server, place: Path) -> None:
    partial(place).write_bytes(PAYLOAD)
    get(config(server.url), place)
    assert server.asked == []
    assert place.read_bytes() == PAYLOAD


def test_a_partial_file_that_is_too_long_starts_over(server: Server, place: Path) -> None:
    partial(place).write_bytes(PAYLOAD + b"x")
    get(config(server.url), place)
    assert server.asked == [None]
    assert place.read_bytes() == PAYLOAD


def test_a_server_that_ignores_range_starts_over(server: Server, place: Path) -> None:
    server.ranges = False
    partial(place).write_bytes(b"x" * 300_000)
    get(config(server.url), place)
    assert place.read_bytes() == PAYLOAD


@pytest.mark.parametrize("treatment", ["unfit", "416"])
def test_a_range_that_does_not_fit_starts_over(treatment: str, server: Server, place: Path) -> None:
    server.plan = [treatment]
    partial(place).write_bytes(PAYLOAD[:300_000])
    get(config(server.url), place)
    assert server.asked == ["bytes=300000-", None]
    assert place.read_bytes() == PAYLOAD


def test_a_cut_connection_is_resumed_as_long_as_it_brings_something(server: Server, place: Path) -> None:
    server.plan = (["cut"] + ["500"] * (TRIES - 2)) * 3
    get(config(server.url), place)
    assert server.asked[0] is None
    assert all(server.asked[1:])
    assert place.read_bytes() == PAYLOAD


@pytest.mark.parametrize("treatment", ["500", "503", "429"])
def test_a_server_in_trouble_is_asked_again_after_longer_and_longer(
    treatment: str, server: Server, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.plan = [treatment] * (TRIES - 1)
    get(config(server.url), place)
    assert place.read_bytes() == PAYLOAD
    delays = re.findall(r"trying again in (\S+) s", capfd.readouterr().err)
    assert [float(delay) for delay in delays] == [0.0] + [0.001 * 2**n for n in range(1, TRIES - 1)]


@pytest.mark.parametrize("treatment", ["stall", "trickle", "silent"])
def test_a_server_that_stops_sending_is_given_up_in_time_and_each_wait_is_said(
    treatment: str, server: Server, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("frugalnet.data.download.STALL_SECONDS", 0.2)
    server.plan = [treatment]
    get(config(server.url), place)  # the second connection brings the rest
    assert place.read_bytes() == PAYLOAD
    reason = r"less than 65,536 bytes in 0\.2 s" if treatment == "trickle" else "timed out"
    assert re.search(f"^download: {reason}; trying again in 0 s$", capfd.readouterr().err, re.MULTILINE)
    place.unlink()

    server.plan = ["cut"] + ["silent"] * TRIES
    began = time.monotonic()
    assert f"gave up after {TRIES} tries without progress" in refused(config(server.url), place)
    assert time.monotonic() - began < 0.4 * (TRIES + 5)
    assert capfd.readouterr().err.count("trying again in") >= TRIES - 1


def test_only_an_archive_with_the_checksum_counts_as_downloaded(server: Server, place: Path) -> None:
    assert not is_verified(place, config(server.url))
    get(config(server.url), place)
    assert is_verified(place, config(server.url))
    place.write_bytes(PAYLOAD[:-1] + b"!")
    assert not is_verified(place, config(server.url))
    assert not is_verified(place, DownloadConfig(source="sample", url=None, size_bytes=None, md5=None))


@pytest.mark.slow
def test_an_edit_of_the_stages_code_fetches_the_archive_no_second_time(server: Server, tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    address = [f"data.url={server.url}", f"data.size_bytes={len(PAYLOAD)}", f"data.md5={MD5}"]
    compose_and_dump(tmp_path / "params.yaml", str(root / "conf"), None, "config", "", address)
    (tmp_path / "dvc.yaml").write_bytes((root / "dvc.yaml").read_bytes())
    (tmp_path / "data/sources").mkdir(parents=True)
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=tmp_path, env=environment, check=True)
    for code in ("first", "second"):
        (tmp_path / "data/sources/download.json").write_text(code)
        subprocess.run(["dvc", "repro", "-q", "-s", "download"], cwd=tmp_path, env=environment, check=True)
        assert (tmp_path / "data/archive.zip").read_bytes() == PAYLOAD
    assert server.asked == [None]


def test_a_redirect_to_a_file_is_refused(server: Server, place: Path) -> None:
    server.plan = ["file"]
    assert "No connection adapters were found for 'file:///etc/hostname'" in refused(config(server.url), place)


def test_an_untrusted_certificate_is_named_and_not_asked_for_again(
    server: Server, place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-keyout", tmp_path / "key", "-out", tmp_path / "certificate"], check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    accepted = []
    monitored = server.get_request
    server.get_request = lambda: (accepted.append(1), monitored())[1]  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    capfd.readouterr()
    message = refused(config(server.url.replace("http:", "https:")), place)
    assert "certificate verify failed" in message
    assert len(accepted) == 1
    assert "trying again" not in capfd.readouterr().err


def test_an_address_with_a_password_is_refused_since_parameters_reach_git_and_mlflow() -> None:
    for url in (
        *("http://me:pass@word@host/a.zip", "https://me@host/a.zip", "HTTPS://me@host/a.zip", "ftp://me:p@host/a.zip"),
        *("//me:p@host/a.zip", "http:me:p@host/a.zip", "http:/me:p@host/a.zip", "http://me:pass/word@host/a.zip"),
        *(
            "https://host/a.zip?token=x",
            "https://host/a.zip?d=1&X-Amz-Signature=x",
            "https://host/a.zip#access_token=x",
            "https://host/a.zip;token=x",
        ),
    ):
        with pytest.raises(ValidationError, match=r"would reach git and MLflow: put user and password in ~/\.netrc"):
            config(url)
    for url in (
        "https://host/a@b.zip",
        "http://host:80/a.zip?download=1",
        "/home/me@lab/a.zip",
        "file:///me@lab/a.zip",
    ):
        assert config(url).url


def test_the_password_of_an_address_is_not_shown_with_wrong_parameters(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "params.yaml").read_text()
    for url in ("https://me:" + "secret" * 20 + "@host/archive.zip", "me:secret@host/archive.zip"):
        for wrong in ("size_bytes: null", "size_bytes: -1", "sizes_bytes: 1"):
            changed = re.sub("size_bytes:.*", wrong, re.sub("url: .*", f"url: {url}", text))
            (tmp_path / "params.yaml").write_text(changed)
            with pytest.raises(UserError, match=r"params\.yaml: data") as error:
                read_params(tmp_path / "params.yaml")
            assert "secret" not in str(error.value)


def test_a_server_that_stays_in_trouble_is_given_up_and_what_came_is_kept(server: Server, place: Path) -> None:
    server.plan = ["cut"] + ["503"] * TRIES
    message = refused(config(server.url), place)
    assert "503 Service Unavailable" in message
    assert f"gave up after {TRIES} tries without progress" in message
    assert "run again" in message
    assert 0 < partial(place).stat().st_size < len(PAYLOAD)


def test_a_page_that_is_not_there_is_not_asked_for_again(server: Server, place: Path) -> None:
    server.plan = ["404"]
    message = refused(config(server.url), place)
    assert "404 Not Found" in message
    assert server.url in message
    assert len(server.asked) == 1


def test_a_wrong_checksum_names_both_and_the_next_try_starts_afresh(server: Server, place: Path) -> None:
    partial(place).write_bytes(b"x" * 300_000)
    found = hashlib.md5(b"x" * 300_000 + PAYLOAD[300_000:]).hexdigest()
    assert f"expected MD5 {MD5}, found {found}" in refused(config(server.url), place)
    get(config(server.url), place)
    assert server.asked[-1] is None
    assert place.read_bytes() == PAYLOAD


def test_another_size_is_named_before_anything_is_downloaded(server: Server, place: Path) -> None:
    message = refused(config(server.url, size_bytes=2_000_000), place)
    assert "expected 2,000,000 bytes, found 1,000,000" in message
    assert "data.size_bytes" in message
    assert not partial(place).exists()


def test_a_server_that_sends_more_than_expected_is_stopped(server: Server, place: Path) -> None:
    server.plan = ["larger"]
    assert "expected 1,000,000 bytes, found" in refused(config(server.url), place)


def test_a_wrong_local_mirror_is_refused(tmp_path: Path, place: Path) -> None:
    mirror = tmp_path / "mirror.zip"
    mirror.write_bytes(PAYLOAD[:-1] + b"!")
    assert f"expected MD5 {MD5}, found " in refused(config(mirror), place)
    mirror.write_bytes(PAYLOAD[:-1])
    assert "expected 1,000,000 bytes, found 999,999" in refused(config(mirror), place)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/nowhere/mirror.zip", "no file /nowhere/mirror.zip"),
        ("~nobody-of-that-name/mirror.zip", "data.url ~nobody-of-that-name/mirror.zip: "),
        ("file:///nowhere/mirror.zip", "no file /nowhere/mirror.zip"),
        ("file://nowhere/mirror.zip", "no file /mirror.zip; expected http(s)://, file:/// or a path"),
        ("ftp://nowhere/mirror.zip", "expected http(s)://, file:/// or a path"),
        ("http://", "data.url http://"),
        ("http://no-such-host.invalid/mirror.zip", "no-such-host.invalid"),
        ("http://127.0.0.1:9/mirror.zip", "Connection refused"),
    ],
)
def test_an_address_that_leads_nowhere_is_named(
    url: str, said: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    message = refused(config(url), place)
    assert said in message
    assert "object at 0x" not in message


@pytest.mark.parametrize("missing", ["url", "size_bytes", "md5"])
def test_a_url_without_size_and_checksum_is_refused(missing: str) -> None:
    with pytest.raises(ValidationError, match="needs url, size_bytes and md5"):
        DownloadConfig.model_validate(config("http://mirror/archive.zip").model_dump() | {missing: None})


def test_a_full_disk_is_said_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", kilobytes=500) as disk:
        for url, part in (
            (server.url, f"download/{MD5}.partial"),
            (payload_file(tmp_path), r"data/archive\.zip\.\d+\."),
        ):
            with pytest.raises(OSError, match=f"No space left on device: '{disk}/{part}"):
                get(config(url), disk / "data" / "archive.zip")
            assert not list((disk / "data").glob("*"))


def test_a_read_only_folder_is_named(server: Server, tmp_path: Path) -> None:
    with small_disk(tmp_path / "sealed", kilobytes=500, read_only=True) as disk:
        for url in (server.url, payload_file(tmp_path)):
            with pytest.raises(OSError, match=f"Read-only file system: '{disk}/archive.zip'"):
                get(config(url), disk / "archive.zip")


def test_two_processes_that_download_at_once_both_get_it_whole(server: Server, tmp_path: Path) -> None:
    server.bytes_a_second = 2_000_000
    places = [tmp_path / str(k) / "archive.zip" for k in range(2)]
    children = [start(server.url, place, tmp_path / "download") for place in places]
    assert [child.wait(timeout=30) for child in children] == [0, 0]
    assert all(place.read_bytes() == PAYLOAD for place in places)


def start(url: str, place: Path, folder: Path) -> "subprocess.Popen[bytes]":
    code = (
        "import sys; from pathlib import Path; from frugalnet.data.config import DownloadConfig; "
        "from frugalnet.data.download import fetch\n"
        f"fetch(DownloadConfig(source='url', url=sys.argv[1], size_bytes={len(PAYLOAD)}, md5={MD5!r}),"
        " Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", code, url, str(place), str(folder)], env=environment)


def test_a_killed_download_resumes_to_the_same_bytes(server: Server, place: Path) -> None:
    server.bytes_a_second = 1_000_000
    for share in (0.2, 0.6):
        child = start(server.url, place, partials(place))
        deadline = time.monotonic() + 20
        while not (partial(place).exists() and partial(place).stat().st_size > share * len(PAYLOAD)):
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert not place.exists()
    server.bytes_a_second = 0
    get(config(server.url), place)
    assert place.read_bytes() == PAYLOAD
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.asked if asked]
    assert len(starts) == 2
    assert starts[0] > 0.2 * len(PAYLOAD)
    assert starts[1] > 0.6 * len(PAYLOAD)
