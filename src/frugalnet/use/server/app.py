"""The application: what it answers at which path."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from frugalnet.errors import printable
from frugalnet.use.server import api
from frugalnet.use.server.guard import Guard
from frugalnet.use.server.hosts import Hosts
from frugalnet.use.server.service import Service

_PAGE = Path(__file__).parent / "page"
_FILE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "description": "Pictures: one file as it is, files in a form, or base64 in JSON.",
    "content": {
        "image/*": _FILE,
        "application/octet-stream": _FILE,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"picture": {"type": "array", "items": _FILE["schema"], "minItems": 1}},
                "required": ["picture"],
            }
        },
        "application/json": {"schema": api.Pictures.model_json_schema()},
    },
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": api.Problem, "description": "The body is not of the type that its Content-Type says."},
    404: {"model": api.Problem, "description": "There is no such network."},
    408: {"model": api.Problem, "description": "The body arrived too slowly."},
    413: {"model": api.Problem, "description": "The body is too large, or holds too many pictures."},
    415: {"model": api.Problem, "description": "The Content-Type is none of those above."},
    422: {"model": api.Problem, "description": "A picture cannot be read, or a parameter is wrong."},
    503: {"model": api.Problem, "description": "Too many requests at once, or too much work: see Retry-After."},
}


def build_app(service: Service, hosts: Hosts, examples: Sequence[Path]) -> FastAPI:
    """The application. examples: pictures that the page offers; each is named after its folder."""
    app = FastAPI(
        title="frugalnet",
        summary="Small convolutional networks that name what is in a picture.",
        docs_url=None,  # FastAPI's pages load code from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Guard, hosts=hosts, metrics=service.metrics)
    app.add_exception_handler(api.Refusal, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(RequestValidationError, _wrong_parameter)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _failed)
    _add_answers(app, service)
    _add_pages(app, examples)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/predict", response_model=api.Answer, responses=_PROBLEMS, openapi_extra={"requestBody": _BODY})
    async def predict(request: Request, wanted: Annotated[api.Wanted, Query()]) -> Response:
        """Name what is in pictures."""
        return Response(await service.predict(request, wanted), media_type="application/json")

    @app.get("/networks")
    async def networks() -> api.Networks:
        """The networks that the server runs, and their classes."""
        return service.cards()

    @app.get("/health")
    async def health() -> api.Health:
        """Whether the server answers."""
        return api.Health(status="ok")

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts and times, in Prometheus's text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_pages(app: FastAPI, examples: Sequence[Path]) -> None:
    @app.get("/examples")
    async def list_examples() -> api.Examples:
        """Pictures to try, if the server was given some."""
        listed = [api.Example(name=path.parent.name, url=f"/examples/{i}") for i, path in enumerate(examples)]
        return api.Examples(examples=listed)

    @app.get("/examples/{number}", include_in_schema=False)
    async def example(number: int) -> FileResponse:
        if not 0 <= number < len(examples):
            raise HTTPException(404)
        return FileResponse(examples[number])

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(_PAGE / "docs.html")

    app.mount("/page", StaticFiles(directory=_PAGE))
    app.mount("/swagger", StaticFiles(packages=[("fastapi_offline", "static")]))


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(api.Problem(detail=detail).model_dump(), status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, api.Refusal)
    retry = {} if error.retry_seconds is None else {"Retry-After": str(error.retry_seconds)}
    return _problem(error.status, str(error), retry)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {printable(request.url.path)}: {error.detail}; see /docs"
    return _problem(error.status_code, detail, error.headers)


async def _wrong_parameter(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _problem(422, printable(f"{first['loc'][-1]}: {first['msg']}, found {first.get('input')!r}"))


async def _gone(_: Request, error: Exception) -> Response:
    return _problem(400, "the body did not arrive whole")


async def _failed(_: Request, error: Exception) -> Response:
    return _problem(500, "internal error; the server's log tells more")
