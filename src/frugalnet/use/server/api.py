"""What the server says, as types: its OpenAPI description is made from them."""

from typing import Annotated

from pydantic import BaseModel, Field

from frugalnet.errors import UserError

ALL = "all"  # the name of every network


def sure_from(classes: int) -> float:
    """The probability of its best class from which a network is sure: half-way between a guess and certainty.

    That is 50 % of many classes, 58 % of six, and 75 % of two, of which the better one always has 50 %.
    """
    return (1 + 1 / classes) / 2


class Refusal(UserError):
    """A request that is not answered. status: of HTTP; retry_seconds: after which it may be sent again."""

    def __init__(self, status: int, message: str, retry_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_seconds = retry_seconds


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One line: what was wrong, and what was expected.")


class Wanted(BaseModel, extra="forbid"):
    """The query of a request."""

    network: list[Annotated[str, Field(max_length=100)]] = Field(
        [], max_length=20, description=f"Which networks, as /networks names them; {ALL}: each. Default: the first."
    )
    top: int = Field(5, ge=1, le=1000, description="How many classes to name.")
    pixels: bool = Field(False, description="Whether to return the pixels that the networks take.")


class Guess(BaseModel):
    id: str
    name: str
    probability: float


class Opinion(BaseModel):
    """What one network says of one picture."""

    network: str
    milliseconds: float = Field(description="Of the network alone, the mean over the request's pictures.")
    sure: bool = Field(description="Whether its best class is at least half-way between a guess and certainty.")
    top: list[Guess] = Field(description="The most probable classes, the most probable first.")


class Classified(BaseModel):
    """One picture, and what each network says of it."""

    name: str
    changes: list[str] = Field(description="What was done to the picture to get the pixels that networks take.")
    pixels: str | None = Field(None, description="If asked for, these pixels: the data: URL of a PNG file.")
    predictions: list[Opinion]


class Answer(BaseModel):
    pictures: list[Classified]


class Pictures(BaseModel, extra="forbid"):
    """Pictures in JSON."""

    pictures: list[str] = Field(description="Image files in base64, or as data: URLs.", min_length=1)


class ClassName(BaseModel):
    id: str
    name: str


class NetworkCard(BaseModel):
    """A network that the server runs."""

    name: str
    is_default: bool = Field(description="Whether it answers requests that name no network.")
    side: int = Field(description="Of the square pictures that it takes, in pixels.")
    data: str | None = Field(description="What it was trained on.")
    top1: float | None = Field(description="Accuracy on held-out pictures of its data.")
    n: int | None = Field(description="How many pictures those are.")
    macs: int | None = Field(description="Multiply-accumulate operations for a picture.")
    classes: list[ClassName]


class Networks(BaseModel):
    networks: list[NetworkCard]


class Health(BaseModel):
    status: str


class Example(BaseModel):
    """A picture to try. name: of its folder, which may be its class."""

    name: str
    url: str


class Examples(BaseModel):
    examples: list[Example]
