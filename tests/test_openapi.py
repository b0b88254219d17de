"""Requests that schemathesis makes up from the server's own description: each is answered as the description says."""

from collections import Counter
from collections.abc import Iterator

import networks
import numpy as np
import pytest
import servers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode, openapi
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

FILES = st.one_of(
    st.binary(max_size=200),
    st.builds(networks.png, st.tuples(*[st.integers(0, 255)] * 3), st.integers(1, 80)),
    st.builds(lambda cut: networks.png()[:cut], st.integers(1, 200)),
)
for media_type in ("image/*", "application/octet-stream"):
    openapi.media_type(media_type, FILES)


@pytest.fixture(scope="module")
def described() -> Iterator[BaseSchema]:
    even = networks.network("even-1", run=lambda pixels: np.zeros((len(pixels), 3), np.float32))
    with servers.in_this_process([networks.network(), even]) as url:
        yield openapi.from_url(f"{url}/openapi.json")


def statuses(operation: APIOperation, mode: GenerationMode, examples: int) -> Counter[int]:
    """How often each status was answered, to requests that the description allows, or to others."""
    answered = Counter[int]()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(operation.as_strategy(generation_mode=mode))
    def call(case: Case) -> None:
        response = case.call_and_validate(excluded_checks=[positive_data_acceptance])  # it may be no picture
        answered[response.status_code] += 1

    call()
    return answered


@pytest.mark.parametrize("examples", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_pictures_and_what_is_none_are_answered_as_described(described, examples):
    predict = described["/predict"]["POST"]
    allowed = statuses(predict, GenerationMode.POSITIVE, examples)
    assert allowed[200]
    assert set(allowed) <= {200, 400, 404, 415, 422}
    others = statuses(predict, GenerationMode.NEGATIVE, examples)
    assert others[422]
    assert set(others) <= {400, 404, 405, 415, 422}


@pytest.mark.parametrize("path", ["/networks", "/health", "/metrics", "/examples"])
def test_what_has_no_parameters_is_answered_as_described(described, path):
    assert set(statuses(described[path]["GET"], GenerationMode.POSITIVE, 2)) == {200}
