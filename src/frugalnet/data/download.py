"""Fetch the archive and verify it before it takes its name."""

import hashlib
import logging
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
from pydantic import Field, PositiveInt, field_validator, model_validator
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError
from urllib3.util import Retry

from frugalnet.data.sample import write_sample
from frugalnet.errors import UserError
from frugalnet.files import atomic, locked, naming
from frugalnet.schema import Config

TRIES = 6  # in a row without progress; with the waits between them, 3.5 minutes of silence
CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0  # a connection that brings less than STALL_BYTES in this time is given up
STALL_BYTES = 1 << 16
MAX_DELAY_SECONDS = 60.0  # between tries, whatever the server asks for
TEMPORARY = (408, 429, 500, 502, 503, 504)  # HTTP statuses

# Its warnings are the messages of _Retry in other words.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class DownloadConfig(Config):
    """Where the archive comes from, and how to know that it is the right one."""

    source: Literal["url", "sample"]
    url: str | None  # http(s)://, file:// or a plain path
    size_bytes: PositiveInt | None
    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        if url and "@" in urlsplit(url).netloc:
            raise ValueError("a user name or password would reach git and MLflow: put it in ~/.netrc, which is read")
        return url

    @model_validator(mode="after")
    def _known_in_advance(self) -> "DownloadConfig":
        if self.source == "url" and not (self.url and self.size_bytes and self.md5):
            raise ValueError("source 'url' needs url, size_bytes and md5, all three")
        return self


def fetch(config: DownloadConfig, destination: Path, partial_folder: Path, backoff_seconds: float = 1.0) -> None:
    """Put the archive at `destination`, whole and verified, or leave nothing there.

    What arrives over HTTP is kept in `partial_folder` as `<md5>.partial` until it is whole, so that a killed download
    resumes. Failures are retried at once, then after 2, 4, 8 … times `backoff_seconds`. A connection that brings less
    than 64 KiB in 30 seconds, or no whole headers in 60, counts as a failure; after six in a row without progress the
    download ends.
    Raises UserError if the source is missing or not the expected one, and OSError, naming the path, if a write fails.
    """
    if config.source == "sample":
        write_sample(destination)
        return
    assert config.url  # DownloadConfig has seen to all three
    assert config.size_bytes
    assert config.md5
    if urlsplit(config.url).scheme in ("http", "https"):
        partial = partial_folder / f"{config.md5}.partial"
        with locked(partial):  # two queued experiments must not write one file
            _download(config.url, partial, config.size_bytes, backoff_seconds)
            try:
                _verify(partial, config.url, config.size_bytes, config.md5)
            except UserError:
                partial.unlink()  # so that the next try starts afresh
                raise
            with atomic(destination) as whole:
                shutil.move(partial, whole)
    else:
        source = _local_path(config.url)
        with atomic(destination) as whole:
            with source.open("rb") as file, whole.open("wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
            _verify(whole, config.url, config.size_bytes, config.md5)


def _local_path(url: str) -> Path:
    """The existing file that a plain path or a file:// URL names."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise UserError(f"data.url {url}: a file URL has three slashes, file:///{parts.netloc}{parts.path}")
        path = Path(url2pathname(parts.path))
    elif "://" in url:
        raise UserError(f"data.url {url}: expected http://, https://, file:// or a plain path, found {parts.scheme}://")
    else:
        try:
            path = Path(url).expanduser()
        except RuntimeError as error:  # the home of a user who does not exist
            raise UserError(f"data.url {url}: {error}") from error
    if not path.is_file():
        raise UserError(f"data.url {url}: there is no file {path.absolute()}")
    return path


def _verify(path: Path, url: str, size_bytes: int, md5: str) -> None:
    if (found_bytes := path.stat().st_size) != size_bytes:
        raise _another_size(url, size_bytes, found_bytes)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise UserError(
            f"{url}: expected MD5 {md5}, found {found}; try again, or set data.md5 if this mirror's differs"
        )


def _another_size(url: str, expected: int, found: int) -> UserError:
    return UserError(
        f"{url}: expected {expected:,} bytes, found {found:,}; "
        "set data.size_bytes and data.md5 if this mirror packs the archive otherwise"
    )


@contextmanager
def _in_time(give_up: Callable[[], None]) -> Iterator[None]:
    """Call `give_up`, in another thread, and raise ProtocolError if the block takes 2 × STALL_SECONDS.

    The timeout of a socket, STALL_SECONDS, begins anew with every byte.
    """
    seconds = 2 * STALL_SECONDS
    late = threading.Event()

    def stop() -> None:
        late.set()
        with suppress(OSError, ValueError, RuntimeError):  # closed already
            give_up()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():
            raise ProtocolError(f"no whole answer in {seconds:g} s")


class _Bounded:
    """A connection whose response headers have to arrive in time."""

    sock: socket.socket

    def getresponse(self) -> HTTPResponse:
        with _in_time(lambda: socket.socket.shutdown(self.sock, socket.SHUT_RDWR)):
            response: HTTPResponse = super().getresponse()  # type: ignore[misc]
        return response


class _Adapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        if not issubclass(pool.ConnectionCls, _Bounded):
            pool.ConnectionCls = type("Connection", (_Bounded, pool.ConnectionCls), {})
        return pool


class _Retry(Retry):
    """Waits before the next try, and says why and for how long."""

    def sleep(self, response: Any = None) -> None:
        asked_seconds = self.get_retry_after(response) if response else None
        seconds = min(asked_seconds or self.get_backoff_time(), MAX_DELAY_SECONDS)
        last = self.history[-1]
        reason = _reason(last.error) if last.error else f"the server answers {last.status}"
        _say(f"{reason}; trying again in {seconds:g} s")
        time.sleep(seconds)


def _download(url: str, partial: Path, size_bytes: int, backoff_seconds: float) -> None:
    """Complete `partial` by HTTP, with retries. Raises UserError when trying again won't help or hasn't."""
    policy = _Retry(
        total=TRIES - 1,
        other=0,  # above all errors of certificates
        status_forcelist=TEMPORARY,
        raise_on_status=False,
        backoff_factor=backoff_seconds,
    )
    retry, furthest = policy, _size(partial)
    with (
        requests.Session() as session,
        tqdm(desc="download", total=size_bytes, unit="B", unit_scale=True, disable=None) as bar,
    ):
        session.mount("http://", _Adapter(max_retries=policy))
        session.mount("https://", _Adapter(max_retries=policy))
        while _size(partial) != size_bytes:
            try:
                try:
                    _receive(session, url, partial, size_bytes, bar)
                except HTTPError as error:  # in the body, which the session doesn't resume
                    if _size(partial) > furthest:
                        retry, furthest = policy, _size(partial)
                    retry = retry.increment("GET", url, error=ProtocolError(_reason(error)))
                    retry.sleep()
            except (ValueError, requests.TooManyRedirects) as error:  # requests' invalid URLs are ValueErrors
                raise UserError(f"data.url {url}: {error}") from error
            except requests.exceptions.SSLError as error:
                raise UserError(f"{url}: {_reason(error)}; correct data.url or use a mirror") from error
            except (requests.RequestException, MaxRetryError) as error:
                raise UserError(
                    f"{url}: {_reason(error)}; gave up after {TRIES} tries without progress; {_size(partial):,} of "
                    f"{size_bytes:,} bytes are kept: run again to resume, or set data.url to a mirror"
                ) from error


def _receive(session: requests.Session, url: str, partial: Path, size_bytes: int, bar: "tqdm[NoReturn]") -> None:
    """One request for what `partial` lacks.

    Raises requests.RequestException if no answer came after all tries, urllib3's HTTPError if the answer broke off and
    may be resumed, UserError if another try won't help.
    """
    offset = _size(partial)
    if offset > size_bytes:
        partial.unlink()
        offset = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    timeout = (CONNECT_SECONDS, STALL_SECONDS)
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        status = response.status_code
        fits = _fits(response.headers.get("Content-Range", ""), offset, size_bytes)
        if status == 416 or (status == 206 and not fits):
            partial.unlink(missing_ok=True)
            raise ProtocolError("the server's range doesn't fit what is here; starting over")
        if status in TEMPORARY:
            raise requests.RequestException(f"the server answers {status} {response.reason}", response=response)
        if status not in (200, 206):
            raise UserError(f"{url}: the server answers {status} {response.reason}; correct data.url or use a mirror")
        length = response.headers.get("Content-Length", "")
        if status == 200 and length.isdecimal() and int(length) != size_bytes:
            raise _another_size(url, size_bytes, int(length))
        # A server that ignores Range sends the whole: start over.
        with naming(partial), partial.open("ab" if status == 206 else "wb") as file:
            bar.n = file.tell()
            checked, checked_bytes = time.monotonic(), file.tell()
            while chunk := _read(response.raw):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > size_bytes:
                    raise _another_size(url, size_bytes, file.tell())
                if (seconds := time.monotonic() - checked) > STALL_SECONDS:
                    if (arrived := file.tell() - checked_bytes) < STALL_BYTES:
                        raise ProtocolError(f"only {arrived:,} bytes in {seconds:.0f} s")
                    if bar.disable:  # no terminal
                        _say(f"{file.tell():,} of {size_bytes:,} bytes")
                    checked, checked_bytes = time.monotonic(), file.tell()
    if _size(partial) < size_bytes:
        raise ProtocolError(f"the server closed after {_size(partial):,} of {size_bytes:,} bytes")


def _read(body: HTTPResponse) -> bytes:
    """What is there, at most 64 KiB, without waiting for more; nothing at the end."""
    with _in_time(body.shutdown):
        return body.read1(1 << 16)


def _say(text: str) -> None:
    tqdm.write(str(UserError(f"download: {text}")), file=sys.stderr)  # UserError hides passwords


def _fits(content_range: str, offset: int, size_bytes: int) -> bool:
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range.strip())
    return match is not None and int(match[1]) == offset and match[2] in ("*", str(size_bytes))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    """The innermost cause in the words of the system, without the layers around it."""
    inner = getattr(error, "reason", None) or next(
        (argument for argument in reversed(error.args) if isinstance(argument, BaseException)), None
    )
    if isinstance(inner, BaseException):
        return _reason(inner)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # urllib3 puts the connection's repr before a colon
    return re.sub(r"^\S*HTTPS?Connection\w*\(.*?\): ", "", str(error)) or type(error).__name__
