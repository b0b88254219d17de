"""Fetch the archive and verify it before it takes its name."""

import fcntl
import hashlib
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Literal, NoReturn
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
from pydantic import Field, PositiveInt, model_validator
from tqdm import tqdm

from frugalnet.data.sample import write_sample
from frugalnet.errors import UserError
from frugalnet.files import atomic
from frugalnet.schema import Config

TRIES = 6  # in a row, without a byte of progress
TIMEOUT_SECONDS = (10, 60)  # to connect, between two reads


class DownloadConfig(Config):
    """Where the archive comes from, and how to know that it is the right one."""

    source: Literal["url", "sample"]
    url: str | None  # http(s)://, file:// or a plain path
    size_bytes: PositiveInt | None
    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None

    @model_validator(mode="after")
    def _known_in_advance(self) -> "DownloadConfig":
        if self.source == "url" and not (self.url and self.size_bytes and self.md5):
            raise ValueError("source 'url' needs url, size_bytes and md5, all three")
        return self


def fetch(config: DownloadConfig, destination: Path, partial_folder: Path, backoff_seconds: float = 1.0) -> None:
    """Put the archive at `destination`, whole and verified, or leave nothing there.

    What arrives over HTTP is kept in `partial_folder` as `<md5>.partial` until it is whole, so that a killed
    download resumes; failures are retried after `backoff_seconds`, then twice that, and so on.
    Raises UserError for a source that isn't there or isn't the expected one, and for a disk that can't be written.
    """
    try:
        if config.source == "sample":
            write_sample(destination)
            return
        assert config.url  # DownloadConfig has seen to all three
        assert config.size_bytes
        assert config.md5
        if urlsplit(config.url).scheme in ("http", "https"):
            partial_folder.mkdir(parents=True, exist_ok=True)
            partial = partial_folder / f"{config.md5}.partial"
            with partial.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # two queued experiments must not write one file
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
                shutil.copyfile(source, whole)
                _verify(whole, config.url, config.size_bytes, config.md5)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or destination}: {error.strerror or error}") from error


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
        path = Path(url).expanduser()
    if not path.is_file():
        raise UserError(f"data.url {url}: there is no file {path.absolute()}")
    return path


def _verify(path: Path, url: str, size_bytes: int, md5: str) -> None:
    found_bytes = path.stat().st_size
    if found_bytes != size_bytes:
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


def _download(url: str, partial: Path, size_bytes: int, backoff_seconds: float) -> None:
    """Complete `partial` by HTTP, with retries. Raises UserError when trying again won't help or hasn't."""
    with tqdm(desc="download", total=size_bytes, unit="B", unit_scale=True, disable=None) as bar:
        failures, furthest = 0, _size(partial)
        while True:
            try:
                return _receive(url, partial, size_bytes, bar)
            except (ValueError, requests.TooManyRedirects) as error:  # requests' invalid URLs are ValueErrors
                raise UserError(f"data.url {url}: {error}") from error
            except requests.RequestException as error:
                reason = _reason(error)
            failures = 1 if _size(partial) > furthest else failures + 1
            furthest = max(furthest, _size(partial))
            if failures == TRIES:
                raise UserError(
                    f"{url}: {reason}; gave up after {TRIES} tries; {_size(partial):,} of {size_bytes:,} bytes "
                    "are kept: run again to go on, or set data.url to a mirror"
                )
            delay_seconds = backoff_seconds * 2 ** (failures - 1)
            bar.write(f"download: {reason}; trying again in {delay_seconds:g} s", file=sys.stderr)
            time.sleep(delay_seconds)


def _receive(url: str, partial: Path, size_bytes: int, bar: "tqdm[NoReturn]") -> None:
    """One request for what `partial` lacks.

    Raises requests.RequestException where another try may help, UserError where it won't.
    """
    offset = _size(partial)
    if offset == size_bytes:
        return
    if offset > size_bytes:
        partial.unlink()
        offset = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        status = response.status_code
        if status == 416 or (
            status == 206 and not _fits(response.headers.get("Content-Range", ""), offset, size_bytes)
        ):
            partial.unlink(missing_ok=True)
            raise requests.RequestException(
                "the server's range doesn't fit what is here; starting over", response=response
            )
        if status >= 500 or status in (408, 429):
            raise requests.RequestException(f"the server answers {status} {response.reason}", response=response)
        if status not in (200, 206):
            raise UserError(f"{url}: the server answers {status} {response.reason}; correct data.url or use a mirror")
        length = response.headers.get("Content-Length", "")
        if status == 200 and length.isdecimal() and int(length) != size_bytes:
            raise _another_size(url, size_bytes, int(length))
        # A server that ignores Range sends the whole: start over.
        with partial.open("ab" if status == 206 else "wb") as file:
            bar.n = file.tell()
            for chunk in response.iter_content(1 << 14):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > size_bytes:
                    raise _another_size(url, size_bytes, file.tell())
    if _size(partial) < size_bytes:
        raise requests.ConnectionError(f"the server closed after {_size(partial):,} of {size_bytes:,} bytes")


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
