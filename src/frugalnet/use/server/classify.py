"""The files of a request → what the networks say of them."""

import base64
from collections.abc import Sequence
from threading import Event

from frugalnet.errors import UserError
from frugalnet.pictures import Picture, encode_png, read_picture
from frugalnet.use.runtime import Network, Prediction
from frugalnet.use.server.api import Answer, Classified, Guess, Opinion, Refusal, Wanted, sure_from
from frugalnet.use.server.bodies import File


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


def classify(networks: Sequence[Network], files: Sequence[File], wanted: Wanted, abandoned: Event) -> Answer:
    """What each network says of each file; the pixels, if wanted, are those that the first one takes.

    Raises Refusal for a file that is not a picture, and Abandoned, between two pictures, once that is set.
    """
    pictures = {side: [_read(file, side, abandoned) for file in files] for side in {n.side for n in networks}}
    columns = []
    for network in networks:
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


def _read(file: File, side: int, abandoned: Event) -> Picture:
    if abandoned.is_set():
        raise Abandoned
    try:
        return read_picture(file.data, file.name, side)
    except UserError as error:
        raise Refusal(422, str(error)) from error


def _opinion(network: Network, prediction: Prediction, top: int) -> Opinion:
    guesses = [Guess(**guess) for guess in prediction.named(top)]
    return Opinion(
        network=network.name,
        milliseconds=prediction.milliseconds,
        sure=guesses[0].probability >= sure_from(len(network.class_names)),
        top=guesses,
    )


def _data_url(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(picture.pixels)).decode()}"
