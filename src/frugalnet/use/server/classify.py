"""The files of a request → what the networks say of them."""

import base64
import time
from collections.abc import Sequence
from threading import Event

from frugalnet.errors import UserError
from frugalnet.pictures import Picture, encode_png, read_picture
from frugalnet.use.runtime import Network, Prediction
from frugalnet.use.server.api import SURE, Answer, Classified, Guess, Opinion, Refusal, Wanted
from frugalnet.use.server.bodies import File


class Deadline:
    """When work on a request ends, whether it is done or not: after `seconds`, or as soon as `ended` is set."""

    def __init__(self, seconds: float, ended: Event) -> None:
        self.seconds = seconds
        self.ended = ended
        self.at = time.monotonic() + seconds

    def check(self) -> None:
        """Raises Refusal if it is past."""
        if self.ended.is_set():
            raise Refusal(503, "the server ends", 1)
        if time.monotonic() > self.at:
            raise Refusal(503, f"took longer than {self.seconds:g} s; send fewer or smaller pictures, or try again", 1)


def classify(networks: Sequence[Network], files: Sequence[File], wanted: Wanted, deadline: Deadline) -> Answer:
    """What each network says of each file; the pixels, if wanted, are those that the first one takes.

    Raises Refusal for a file that is not a picture, and when the deadline is past.
    """
    pictures = {side: [_read(file, side, deadline) for file in files] for side in {n.side for n in networks}}
    columns = []
    for network in networks:
        deadline.check()
        predictions = network.predict([picture.pixels for picture in pictures[network.side]])
        columns.append([_opinion(network, prediction, wanted.top) for prediction in predictions])
    seen = pictures[networks[0].side]
    return Answer(
        pictures=[
            Classified(
                name=picture.name,
                changes=list(picture.changes),
                pixels=_data_url(picture) if wanted.pixels else None,
                predictions=list(opinions),
            )
            for picture, opinions in zip(seen, zip(*columns, strict=True), strict=True)
        ]
    )


def _read(file: File, side: int, deadline: Deadline) -> Picture:
    deadline.check()
    try:
        return read_picture(file.data, file.name, side)
    except UserError as error:
        raise Refusal(422, str(error)) from error


def _opinion(network: Network, prediction: Prediction, top: int) -> Opinion:
    guesses = [Guess(**guess) for guess in prediction.named(top)]
    return Opinion(
        network=network.name,
        milliseconds=prediction.milliseconds,
        sure=guesses[0].probability >= SURE,
        top=guesses,
    )


def _data_url(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(picture.pixels)).decode()}"
