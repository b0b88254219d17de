"""Fetch the archive and verify it before it takes its name."""

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

from frugalnet.data.config import DownloadConfig
from frugalnet.errors import UserError, printable
from frugalnet.files import atomic, locked, naming

TRIES = 6  # in a row without progress
STALL_SECONDS = 30.0  # a connection that brings less than STALL_BYTES in this time is given up
STALL_BYTES = 1 << 16


def is_verified(archive: Path, config: DownloadConfig) -> bool:
    """Whether the archive is there and has the configured checksum; the sample has none."""
    return config.source == "url" and archive.is_file() and _md5(archive) == config.md5


def fetch(config: DownloadConfig, destination: Path, partial_folder: Path, backoff_seconds: float = 1.0) -> None:
    """Put the archive at `destination`, whole and verified, or leave nothing there.

    What arrives over HTTP is kept in `partial_folder` as `<md5>.partial` until it is whole, so that a killed download
    resumes. Failures are retried at once, then after 2, 4, 8 … times `backoff_seconds`, six in a row without progress.
    Raises UserError if the source is missing or not the expected one, and OSError, naming the path, if a write fails.
    """
    if config.source == "sample":
        from frugalnet.data.sample import write_sample  # here: it imports OpenCV

        return write_sample(destination)
    assert config.url
    assert config.size_bytes
    partial = partial_folder / f"{config.md5}.partial"
    with atomic(destination) as whole:
        if urlsplit(config.url).scheme in ("http", "https"):
            with locked(partial):  # two queued experiments must not write one file
                _download(config.url, partial, config.size_bytes, backoff_seconds)
                shutil.move(partial, whole)
        else:
            with _local_path(config.url).open("rb") as source, whole.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
        _check_size(config.url, config.size_bytes, _size(whole))
        if (md5 := _md5(whole)) != config.md5:
            raise UserError(f"{config.url}: expected MD5 {config.md5}, found {md5}; try again or correct data.md5")


def _local_path(url: str) -> Path:
    """The existing file that a plain path or a file:// URL names."""
    is_url = url.startswith("file://")
    path = Path(url2pathname(urlsplit(url).path) if is_url else os.path.expanduser(url))  # noqa: PTH111  # doesn't raise
    if not path.is_file():
        raise UserError(f"data.url {url}: no file {path.absolute()}; expected http(s)://, file:/// or a path")
    return path


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_size(url: str, expected_bytes: int, size_bytes: int) -> None:
    if size_bytes != expected_bytes:
        raise UserError(
            f"{url}: expected {expected_bytes:,} bytes, found {size_bytes:,}; "
            "set data.size_bytes and data.md5 if this mirror packs the archive otherwise"
        )


def _download(url: str, partial: Path, size_bytes: int, backoff_seconds: float) -> None:
    """Complete `partial` by HTTP, with retries. Raises UserError when another try won't help or hasn't."""
    import requests  # here: a finished download needs neither
    import urllib3

    retry = policy = urllib3.Retry(TRIES - 1, backoff_factor=backoff_seconds)
    furthest = _size(partial)
    with tqdm(desc="download", total=size_bytes, unit="B", unit_scale=True, disable=None) as bar:
        while _size(partial) != size_bytes:
            try:
                _receive(url, partial, size_bytes, bar)
            except (ValueError, requests.TooManyRedirects, requests.exceptions.SSLError) as error:
                raise UserError(f"data.url {url}: {_reason(error)}; correct it or use a mirror") from error
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                if _size(partial) > furthest:
                    furthest = _size(partial)
                    retry = policy
                if not retry.total:
                    raise UserError(
                        f"{url}: {_reason(error)}; gave up after {TRIES} tries without progress; {_size(partial):,} of "
                        f"{size_bytes:,} bytes are kept: run again to resume, or set data.url to a mirror"
                    ) from error
                retry = retry.increment("GET", url)
                message = f"download: {_reason(error)}; trying again in {retry.get_backoff_time():g} s"
                tqdm.write(printable(message), file=sys.stderr)
                retry.sleep()


def _receive(url: str, partial: Path, size_bytes: int, bar: "tqdm[NoReturn]") -> None:
    """One request for what `partial` lacks. Raises UserError if another try won't help, requests' errors if it may."""
    from requests import RequestException, get

    offset = _size(partial)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if 0 < offset < size_bytes else {})
    with get(url, headers=headers, stream=True, timeout=STALL_SECONDS) as response:
        status = response.status_code
        content_range = response.headers.get("Content-Range", "").replace("/*", f"/{size_bytes}")
        if status == 416 or (status == 206 and content_range != f"bytes {offset}-{size_bytes - 1}/{size_bytes}"):
            partial.unlink(missing_ok=True)
            raise RequestException("the server's range doesn't fit what is here; starting over")
        if status >= 500 or status in (408, 429):  # too slow, too many requests
            raise RequestException(f"the server answers {status} {response.reason}")
        if status not in (200, 206):
            raise UserError(f"{url}: the server answers {status} {response.reason}; correct data.url or use a mirror")
        if status == 200:
            _check_size(url, size_bytes, int(response.headers.get("Content-Length", size_bytes)))
        # A server that ignores Range sends the whole: start over.
        with naming(partial), partial.open("ab" if status == 206 else "wb") as file:
            window_end = time.monotonic() + STALL_SECONDS
            needed_bytes = file.tell() + STALL_BYTES
            while chunk := response.raw.read1(STALL_BYTES):  # what is there, without waiting for more
                file.write(chunk)
                bar.update(file.tell() - bar.n)
                if time.monotonic() > window_end:
                    if file.tell() < needed_bytes:
                        raise RequestException(f"less than {STALL_BYTES:,} bytes in {STALL_SECONDS:g} s")
                    window_end = time.monotonic() + STALL_SECONDS
                    needed_bytes = file.tell() + STALL_BYTES
                if file.tell() > size_bytes:
                    _check_size(url, size_bytes, file.tell())
    if _size(partial) != size_bytes:
        raise RequestException(f"the server closed after {_size(partial):,} of {size_bytes:,} bytes")


def _reason(error: BaseException) -> str:
    """The innermost cause, in the words of the system."""
    while error.__context__:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
