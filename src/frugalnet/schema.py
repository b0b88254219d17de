"""The base of every component's configuration."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen; an unknown key, a wrong type or an impossible value is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
