"""The base of every component's configuration, and what is the same in several."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Frozen; an unknown key, a wrong type or an impossible value is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _not_a_files(name: str) -> str:
    if name == "weights":
        raise ValueError("'weights' is the name of a folder and of weights.json; choose another")
    return name


# A name that becomes part of a file's name, of a tag and of a title.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"), AfterValidator(_not_a_files)]
