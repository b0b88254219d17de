"""What the stages download, normalise and augment can be told. Every stage reads it, so it imports nothing heavy."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from frugalnet.errors import without_secrets
from frugalnet.schema import Config, Name

Leaks = Literal["error", "drop", "keep"]
RESERVED = ("tiny-imagenet", "sample", "weights")  # how names of other data sets, and of none, begin


def _holds_secret(url: str) -> bool:
    """Whether a URL, also one written in an odd way, holds what looks like a password or token."""
    parts = urlsplit(url)
    is_path = parts.scheme == "file" or not (parts.scheme or parts.netloc)
    # A password with an unencoded slash: http://user:pass/word@host
    is_odd = not parts.netloc or ":" in parts.netloc
    rest = f"{parts.path}?{parts.query}#{parts.fragment}"
    return not is_path and ("@" in (url if is_odd else parts.netloc) or without_secrets(rest) != rest)


class DownloadConfig(Config):
    """Where the archive comes from, and how to know that it is the right one."""

    source: Literal["url", "sample", "folder"]
    url: str | None  # http(s)://, file:// or a plain path
    size_bytes: PositiveInt | None
    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        if url and _holds_secret(url):
            raise ValueError(
                "a user name, password or token would reach git and MLflow: put user and password in ~/.netrc, which "
                "is read, or download the file and give its path; write an @ in a path as %40"
            )
        return url

    @model_validator(mode="after")
    def _known_in_advance(self) -> "DownloadConfig":
        if self.source == "url" and not (self.url and self.size_bytes and self.md5):
            raise ValueError("source 'url' needs url, size_bytes and md5, all three")
        return self


class FolderConfig(Config):
    """A person's own pictures, which `source` "folder" stands for."""

    path: str | None  # a folder, a zip, a tar or a table; relative to the project
    holdout_share: Annotated[float, Field(gt=0, lt=1)]  # of each class, where no split is given
    leaks: Leaks  # training pictures that are in the validation split too
    # Which of DVC's stages sees a change: none but `sources` for an archive with a checksum; for a folder, `watch`.
    watched: list[Literal["folder"]]
    known_by: Literal["sources", "watched"]

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_path(cls, values: Any) -> Any:
        """Without a name, the data set has that of the folder or file; never one that is another data set's."""
        if not isinstance(values, dict) or values.get("source") != "folder" or values.get("name") is not None:
            return values
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(str(values.get("path"))).stem).strip("-._")
        is_taken = not stem or stem.lower().startswith(RESERVED)
        return values | {"name": (f"my-{stem}" if is_taken else stem)[:64].strip("-")}

    @model_validator(mode="after")
    def _is_complete(self) -> "FolderConfig":
        is_folder = getattr(self, "source", "folder") == "folder"
        if is_folder and not self.path:
            raise ValueError("source 'folder' needs data.path: a folder, a zip, a tar, or a table of pictures")
        if not is_folder and self.path:
            raise ValueError("data.path is for pictures of your own: add -S data=folder")
        if is_folder != bool(self.watched) or is_folder != (self.known_by == "watched"):
            raise ValueError("watched and known_by belong to the source: choose it with -S data=folder, full or sample")
        return self

    def absolute_path(self, project: Path) -> Path:
        assert self.path
        return project / os.path.expanduser(self.path)  # noqa: PTH111  # doesn't raise


class NormaliseConfig(Config):
    """Which of the archive's images become arrays."""

    name: Name
    classes: Annotated[int, Field(ge=2)] | None  # the first so many of wnids.txt
    train_per_class: PositiveInt | None  # the first so many training images of each
    side: Annotated[int, Field(ge=32, le=256)]  # pixels of an image, which is square
    holdout: NonNegativeInt  # training images, equally many of each class, that replace the validation split
    max_unpacked_bytes: PositiveInt


class Transform(Config):
    """One step of a policy: an albumentations class by its name, and its arguments."""

    model_config = ConfigDict(extra="allow")

    name: str
    p: float = Field(ge=0, le=1)  # the share of the images that it is applied to


class AugmentConfig(Config):
    """How many views, and what makes them. With 0 `views`, training uses the normalised images.

    Whether albumentations can apply the policy is what `policy.check_policy` tries.
    """

    views: int = Field(ge=0)
    seed: int = Field(ge=0)
    policy: list[Transform]
