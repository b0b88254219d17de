"""frugalnet's own server: what it answers, what it refuses, and how much it does at once."""

import base64
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import networks
import numpy as np
import pytest
import requests
import servers

from frugalnet import pictures
from frugalnet.use.server import api, run, service, work
from frugalnet.use.server.bodies import File
from frugalnet.use.server.classify import Abandoned, classify
from frugalnet.use.server.hosts import Hosts

RED, BLUE = networks.png((250, 10, 10)), networks.png((10, 10, 250))
EVEN = networks.network("even-1", run=lambda pixels: np.zeros((len(pixels), 3), np.float32))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with servers.in_this_process([networks.network(), EVEN, networks.network("large-0", side=96)]) as url:
        yield url


def predict(server: str, data: object = None, query: str = "", **options: object) -> requests.Response:
    return requests.post(f"{server}/predict{query}", data=data, timeout=60, **options)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def best(response: requests.Response) -> list[str]:
    """Each picture's most probable class, by the first network."""
    assert response.status_code == 200, response.text
    return [picture["predictions"][0]["top"][0]["name"] for picture in response.json()["pictures"]]


# Answers


def test_pictures_come_as_a_body_in_a_form_and_in_json(server):
    assert best(predict(server, RED, headers={"Content-Type": "image/png"})) == ["red"]
    assert best(predict(server, BLUE)) == ["blue"]  # no Content-Type
    form = predict(server, files=[("picture", ("a.png", BLUE)), ("another", ("b.png", RED, "image/png"))])
    assert best(form) == ["blue", "red"]
    assert [picture["name"] for picture in form.json()["pictures"]] == ["a.png", "b.png"]
    assert best(predict(server, json={"pictures": [text(RED), f"data:image/png;base64,{text(BLUE)}"]})) == [
        "red",
        "blue",
    ]


def test_an_answer_holds_what_predict_says_of_the_picture(server):
    data = networks.png((200, 90, 20), side=100)
    (prediction,) = networks.network().predict([pictures.read_picture(data, "x").pixels])
    (picture,) = predict(server, data, "?top=2&pixels=true").json()["pictures"]
    (opinion,) = picture["predictions"]
    assert opinion["top"] == prediction.named(2)
    assert opinion["sure"] == (opinion["top"][0]["probability"] >= 2 / 3)
    assert picture["changes"] == ["scaled from 100×100 to 64×64"]
    shown = base64.b64decode(picture["pixels"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(pictures.read_picture(shown, "x").pixels, pictures.read_picture(data, "x").pixels)


def test_networks_are_chosen_by_name_with_or_without_the_seed_and_take_pictures_of_their_own_side(server):
    def answered(query: str) -> list[str]:
        return [one["network"] for one in predict(server, RED, query).json()["pictures"][0]["predictions"]]

    assert answered("") == ["colours-0"]
    assert answered("?network=even&network=large-0&network=even") == ["even-1", "large-0"]
    assert answered("?network=all") == ["colours-0", "even-1", "large-0"]
    listed = requests.get(f"{server}/networks", timeout=60).json()["networks"]
    assert [(one["name"], one["is_default"], one["side"]) for one in listed] == [
        ("colours-0", True, 64),
        ("even-1", False, 64),
        ("large-0", False, 96),
    ]
    assert listed[0]["classes"][2] == {"id": "c2", "name": "blue"}


def test_sure_is_half_way_between_a_guess_and_certainty():
    assert [round(api.sure_from(classes), 2) for classes in (2, 3, 6, 200)] == [0.75, 0.67, 0.58, 0.5]
    two = networks.network("two-0", names=["a", "b"], run=lambda pixels: np.array([[0.4, 0]], np.float32))
    (picture,) = classify([two], [File("x", RED)], api.Wanted(), threading.Event()).pictures
    assert picture.predictions[0].top[0].probability == pytest.approx(0.6, abs=0.01)
    assert not picture.predictions[0].sure


def test_a_network_whose_best_class_is_nearer_to_a_guess_is_not_sure(server):
    def sure(picture: bytes, name: str) -> bool:
        return predict(server, picture, f"?network={name}").json()["pictures"][0]["predictions"][0]["sure"]

    assert sure(RED, "colours")
    assert not sure(RED, "even")


def test_metrics_count_requests_and_pictures(server):
    def counted(line: str) -> float:
        lines = requests.get(f"{server}/metrics", timeout=60).text.splitlines()
        return sum(float(one.rpartition(" ")[2]) for one in lines if one.startswith(line))

    names = ('frugalnet_pictures_total{network="even-1"}', 'frugalnet_requests_total{path="/predict",status="415"}')
    before = [counted(name) for name in names]
    predict(server, files=[("picture", RED), ("picture", BLUE)], query="?network=even")
    predict(server, "x", headers={"Content-Type": "text/plain"})
    requests.get(f"{server}/anything/{time.time()}", timeout=60)
    assert [counted(name) for name in names] == [before[0] + 2, before[1] + 1]
    assert counted('frugalnet_requests_total{path="other",status="404"}') >= 1
    assert counted("process_resident_memory_bytes") > 2**20


# Refusals

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
WRONG = {
    "an empty body": ({"data": b""}, 422, "empty, not a picture"),
    "text": ({"data": b"text"}, 422, "not a picture; expected one of: BMP"),
    "a truncated picture": ({"data": RED[:60]}, 422, "the picture: "),
    "a small picture": ({"data": networks.png(side=4)}, 422, "4×4 pixels are too few"),
    "the second of a form": ({"files": [("p", ("a.png", RED)), ("p", ("b.png", b"?"))]}, 422, "b.png: not a picture"),
    "another type": ({"data": b"x", "headers": {"Content-Type": "text/csv"}}, 415, "expected image/* or"),
    "curl's default type": (
        {"data": RED, "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        415,
        "with curl: -F picture=@photo.jpg",
    ),
    "a field": ({"data": {"picture": "x"}, "files": [("p", RED)]}, 422, "expected files alone"),
    "no boundary": ({"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "expected a boundary"),
    "an empty form": ({"data": b"--x--\r\n", "headers": FORM}, 422, "no picture"),
    "a damaged form": ({"data": b"--y\r\n", "headers": FORM}, 400, "multipart/form-data: damaged"),
    "a form with a stray byte": ({"data": b"--x?\r\n--x--", "headers": FORM}, 400, "multipart/form-data: damaged"),
    "half of a form": ({"data": b'--x\r\nContent-Disposition: form-data; name="p"', "headers": FORM}, 400, "damaged"),
    "no JSON": ({"data": b"{", "headers": JSON}, 400, "Invalid JSON"),
    "deep JSON": ({"data": b"[" * 100_000, "headers": JSON}, 400, "recursion limit"),
    "a list": ({"json": []}, 422, 'expected {"pictures": ["base64", …]}'),
    "no pictures": ({"json": {"pictures": []}}, 422, "pictures: List should have at least 1 item"),
    "a number": ({"json": {"pictures": [5]}}, 422, "pictures.0: Input should be a valid string"),
    "another key": ({"json": {"pictures": [text(RED)], "top": 3}}, 422, "top: Extra inputs are not permitted"),
    "no base64": ({"json": {"pictures": [text(RED), "é"]}}, 422, "picture 1: expected an image file in base64"),
    "a plain data URL": ({"json": {"pictures": ["data:,x"]}}, 422, "picture 0: expected a data: URL in base64"),
    "too many in JSON": ({"json": {"pictures": ["x"] * 65}}, 413, "expected at most 64 pictures a request"),
    "too many": ({"files": [("p", RED)] * 65}, 413, "expected at most 64 pictures a request"),
    "top": ({"data": RED, "query": "?top=0"}, 422, "top: Input should be greater than or equal to 1, found '0'"),
    "another network": (
        {"data": RED, "query": "?network=nix"},
        404,
        "network: expected all or one of colours-0, even-1, large-0, found 'nix'",
    ),
    "another parameter": ({"data": RED, "query": "?topp=3"}, 422, "topp: Extra inputs are not permitted"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_bad_request_gets_one_line_and_the_server_lives_and_logs_nothing(server, what, caplog):
    request, status, message = WRONG[what]
    response = predict(server, **request)
    assert (response.status_code, list(response.json())) == (status, ["detail"])
    assert message in response.json()["detail"]
    assert "\n" not in response.json()["detail"]
    assert "Traceback" not in response.text
    assert caplog.text == ""
    assert best(predict(server, RED)) == ["red"]


def test_what_is_not_there_is_said_in_json(server):
    assert requests.get(f"{server}/predict", timeout=60).status_code == 405
    missing = requests.get(f"{server}/nix/<b>", timeout=60)
    assert (missing.status_code, missing.json()) == (404, {"detail": "GET /nix/<b>: Not Found; see /docs"})
    assert requests.get(f"{server}/examples/0", timeout=60).status_code == 404


@pytest.mark.parametrize("path", ["/page/../app.py", "/page/%2e%2e/app.py", "/swagger/..%2fcore.py", "/examples/..%2f"])
def test_no_other_file_is_served(server, path):
    connection = socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2])))
    with connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert connection.makefile("rb").readline().split()[1] in (b"404", b"422")


def test_every_answer_forbids_what_comes_from_elsewhere(server):
    for path in ("/", "/networks", "/docs", "/page/page.js", "/nix"):
        headers = requests.get(f"{server}{path}", timeout=60).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers


# Whom it answers


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:5001", "127.0.0.1:5001", "192.168.1.7", "[::1]:5001", "Own.local"]
)
def test_a_request_may_call_the_server_by_an_address_or_a_given_name(host):
    assert Hosts(["own.local"]).allows(host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example:5001", "127.0.0.1.evil.example", "[x]", "1"]
)
def test_a_request_for_another_host_is_refused(server, host):
    assert not Hosts().allows(host)
    response = requests.get(f"{server}/networks", headers={"Host": host}, timeout=60)
    assert response.status_code == 421
    assert "colours" not in response.text


# How much at once


def test_a_body_that_is_too_large_is_refused_from_its_length_or_as_it_comes(server, monkeypatch):
    monkeypatch.setattr(work, "MAX_BODY", 1000)
    too_large = "larger than 0 MiB"
    assert too_large in predict(server, b"x" * 1001).json()["detail"]
    with socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2]))) as connection:  # no byte of the body
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n")
        assert connection.makefile("rb").readline().split()[1] == b"413"
    chunks = predict(server, iter([b"x" * 600, b"x" * 600]))
    assert (chunks.status_code, too_large in chunks.text) == (413, True)


def test_bodies_that_would_fill_the_memory_are_sent_away(server, monkeypatch):
    monkeypatch.setattr(work, "MAX_HELD", len(RED) - 1)
    response = predict(server, RED)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    monkeypatch.setattr(work, "MAX_HELD", len(RED))
    assert best(predict(server, RED)) == ["red"]  # none of the refused ones is still counted


def test_a_body_that_does_not_arrive_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(service, "BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2]))) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nxx")
        assert connection.makefile("rb").readline().split()[1] == b"408"


def test_a_client_that_leaves_is_no_error(server, caplog):
    with socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2]))) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nxx")
    time.sleep(0.2)
    assert best(predict(server, RED)) == ["red"]
    assert caplog.text == ""


def test_a_request_that_takes_too_long_is_answered_and_its_thread_is_free_again(monkeypatch):
    monkeypatch.setattr(service, "WORK_SECONDS", 0.5)
    gate = networks.Gate()
    with servers.in_this_process([networks.network(run=gate)]) as url:
        late = predict(url, RED)
        assert (late.status_code, late.headers["Retry-After"]) == (503, "1")
        assert "took too long" in late.json()["detail"]
        gate.opened.set()
        monkeypatch.undo()
        assert best(predict(url, RED)) == ["red"]


def test_work_that_nobody_waits_for_ends_between_two_pictures():
    abandoned = threading.Event()
    files = [File("first", RED)] * 3
    assert len(classify([networks.network()], files, api.Wanted(), abandoned).pictures) == 3
    abandoned.set()
    with pytest.raises(Abandoned):
        classify([networks.network()], files, api.Wanted(), abandoned)


def test_a_server_that_ends_answers_what_runs_first(monkeypatch):
    monkeypatch.setattr(run, "FINISH_SECONDS", 60.0)
    monkeypatch.setattr(run, "END_SECONDS", 60)
    gate = networks.Gate()
    with ThreadPoolExecutor(2) as threads:
        with servers.in_this_process([networks.network(run=gate)]) as url:
            running = threads.submit(predict, url, RED)
            assert gate.entered.wait(60)
            threads.submit(lambda: (time.sleep(0.3), gate.opened.set()))
        assert best(running.result()) == ["red"]


def test_a_server_that_ends_cuts_short_what_takes_long_and_says_so(monkeypatch):
    monkeypatch.setattr(run, "END_SECONDS", 60)
    gate = networks.Gate()
    with ThreadPoolExecutor(1) as threads:
        with servers.in_this_process([networks.network(run=gate)]) as url:
            running = threads.submit(predict, url, RED)
            assert gate.entered.wait(60)
        assert running.result().status_code == 503
        gate.opened.set()


def test_a_full_server_refuses_at_once_and_answers_those_that_wait():
    gate = networks.Gate()
    more = 10
    with servers.in_this_process([networks.network(run=gate)]) as url, ThreadPoolExecutor(100) as threads:
        sent = [threads.submit(predict, url, RED) for _ in range(work.MAX_REQUESTS + more)]
        refused = [one.result() for one in itertools.islice(as_completed(sent, 60), more)]
        assert [one.status_code for one in refused] == [503] * more
        assert {one.headers["Retry-After"] for one in refused} == {"1"}
        assert requests.get(f"{url}/health", timeout=60).json() == {"status": "ok"}  # while all threads are at work
        gate.opened.set()
        answered = [one.result() for one in sent if one.result() not in refused]
        assert [best(one) for one in answered] == [["red"]] * work.MAX_REQUESTS
        assert best(predict(url, RED)) == ["red"]
