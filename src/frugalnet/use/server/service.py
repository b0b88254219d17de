"""The networks that the server runs, and its work on requests."""

from collections.abc import Sequence
from functools import partial
from threading import Event

from starlette.requests import Request

from frugalnet.use.runtime import Network
from frugalnet.use.server import api
from frugalnet.use.server.bodies import read_files
from frugalnet.use.server.classify import classify
from frugalnet.use.server.metrics import Metrics
from frugalnet.use.server.work import RETRY_SECONDS, Intake, Limits, Workers

BODY_SECONDS = 10.0  # for a body to arrive
WORK_SECONDS = 30.0  # for the answer, from then on


class Service:
    """The networks, and the work on them. The first network answers requests that name none."""

    def __init__(self, networks: Sequence[Network], metrics: Metrics, threads: int) -> None:
        self.networks = list(networks)
        self.metrics = metrics
        self.intake = Intake()
        self.workers = Workers(threads)
        self.limits = Limits()

    async def predict(self, request: Request, wanted: api.Wanted) -> bytes:
        """The JSON of an `Answer` to a request. Raises Refusal."""
        networks = self._choose(wanted.network)
        content_type = request.headers.get("content-type", "")
        abandoned = Event()
        async with self.intake.body(request, self.limits.within(BODY_SECONDS, _slow)) as body:
            work = partial(self._classify, networks, content_type, body, wanted, abandoned)
            try:
                async with self.limits.within(WORK_SECONDS, _long):
                    return await self.workers.call(work)
            finally:
                abandoned.set()

    def _choose(self, names: Sequence[str]) -> list[Network]:
        if api.ALL in names:
            return self.networks
        return [self._find(name) for name in dict.fromkeys(names)] or self.networks[:1]

    def _find(self, name: str) -> Network:
        for network in self.networks:
            if name in (network.name, network.name.rpartition("-")[0]):
                return network
        known = ", ".join(network.name for network in self.networks)
        raise api.Refusal(404, f"network: expected {api.ALL} or one of {known}, found {name!r}")

    def _classify(
        self, networks: Sequence[Network], content_type: str, body: bytes, wanted: api.Wanted, abandoned: Event
    ) -> bytes:
        answer = classify(networks, read_files(content_type, body), wanted, abandoned)
        for picture in answer.pictures:
            for opinion in picture.predictions:
                self.metrics.pictures.labels(opinion.network).inc()
                self.metrics.network_seconds.labels(opinion.network).inc(opinion.milliseconds / 1000)
        return answer.model_dump_json(exclude_none=True).encode()

    def cards(self) -> api.Networks:
        return api.Networks(networks=[_card(network, network is self.networks[0]) for network in self.networks])


def _card(network: Network, is_default: bool) -> api.NetworkCard:
    entry = network.stored.entry if network.stored else None
    pairs = zip(network.classes.ids, network.classes.names, strict=True)
    return api.NetworkCard(
        name=network.name,
        is_default=is_default,
        side=network.side,
        data=entry.data if entry else None,
        top1=entry.top1 if entry else None,
        n=entry.n if entry else None,
        macs=entry.macs if entry else None,
        classes=[api.ClassName(id=key, name=name) for key, name in pairs],
    )


def _slow() -> api.Refusal:
    return api.Refusal(408, f"the body did not arrive in time, at most {BODY_SECONDS:g} s")


def _long() -> api.Refusal:
    return api.Refusal(503, "took too long; send fewer or smaller pictures, or try again", RETRY_SECONDS)
