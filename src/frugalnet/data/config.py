"""What the stages download, normalise and augment can be told. Every stage reads it, so it imports nothing heavy."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from frugalnet.schema import Config, Name


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
