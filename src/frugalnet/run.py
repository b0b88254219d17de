"""What a training run is: all that decides its weights, as run.json and MLflow hold it."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from frugalnet.errors import UserError
from frugalnet.files import read_json
from frugalnet.schema import Config


class Start(Config):
    """Weights that a network starts from: a file, and the data that it was trained on."""

    file: str
    sha256: str
    data: str


class Run(BaseModel):
    """The inputs, parameters, code and environment of a training run.

    fingerprint: the SHA-256 of all the others, but for weights_sha256. train: the parameters that are not the defaults.
    environment: what the bits depend on. teacher, distributed: their settings, and hashes of logits or code; None:
    there were none. start: None for random weights. side: of the images, in pixels. left_out: classes not learnt.
    """

    model_config = ConfigDict(frozen=True, extra="allow")  # another version's run may state more

    model: str
    seed: int
    data: str
    is_sample: bool
    validated_on: str
    data_sha256: str
    views_sha256: str = ""
    source_sha256: str = ""
    num_classes: int
    n_train: int
    n_validation: int
    train: dict[str, Any]
    environment: dict[str, Any] = {}
    teacher: dict[str, Any] | None = None
    start: Start | None = None
    side: int = 64
    distributed: dict[str, Any] | None = None
    left_out: list[int] = []
    fingerprint: str = ""
    weights_sha256: str = ""

    @property
    def name(self) -> str:
        """The name of its files: residual-0."""
        return f"{self.model}-{self.seed}"

    @property
    def recipe(self) -> str:
        """The recipe's name, as reports show it."""
        return str(self.train["recipe"])

    def stored(self) -> dict[str, Any]:
        """Its JSON: what was not stated is left out, so that a new field changes no fingerprint."""
        return self.model_dump(exclude_unset=True)

    def changed(self, **changes: Any) -> "Run":
        return self.model_copy(update=changes)


def read_run(path: Path) -> Run:
    """A run.json. Raises UserError if it is missing or none."""
    return parse_run(read_json(path), str(path))


def parse_run(value: Any, where: str) -> Run:
    """The run in a JSON value. Raises UserError, beginning with `where`, if it is none."""
    try:
        return Run.model_validate(value)
    except ValidationError as error:
        wrong = ", ".join(dict.fromkeys(str(part) for each in error.errors() for part in each["loc"][:1]))
        lacks = f" ({wrong} missing or wrong)" if wrong else ""
        raise UserError(f"{where}: not the record of a run{lacks}; give a run.json") from error
