"""`ganrun paint` over real HTTP: edits, walks, pictures, what it refuses, and edits that are done again."""

import base64
import contextlib
import functools
import http.client
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from ganrun.inference.paint.painters import open_painter
from ganrun.inference.paint.server import PICTURE_BYTES, Server
from ganrun.inference.sampling import Sampler
from ganrun.preparation.own_pictures import read_drawing
from ganrun.telemetry.protocol import Address
from tests.recorded import ganrun
from tests.waiting import until

JSON, BYTES = "application/json", "application/octet-stream"


class Page:
    """A client of a server, and the log of its edits."""

    def __init__(self, run, encoder=None, token="", change=lambda sampler: sampler):
        self.log = []
        self.painter = open_painter(change(Sampler(str(run))), encoder and str(encoder))
        decode = functools.partial(read_drawing, size=self.painter.size, channels=self.painter.channels)
        self.server = Server(Address("127.0.0.1", 0), self.painter, decode, self.log.append, token)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def ask(self, method, path, body=b"", kind=JSON, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port)
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(method, path, body, {"Content-Type": kind, **headers})
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def post(self, path, body, kind=JSON):
        """Return status and last line of an answer."""
        status, text = self.ask("POST", path, body, kind)
        return status, json.loads(text.splitlines()[-1])


@contextlib.contextmanager
def page(*about, **more):
    found = Page(*about, **more)
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()


@pytest.fixture(scope="module")
def plain(painted):
    with page(painted["plain"]) as found:
        yield found


@pytest.fixture(scope="module")
def lines(painted):
    with page(painted["lines"]) as found:
        yield found


def drawing(level=0, rows=slice(8, 24), size=64):
    """A stroke on a transparent drawing, as PNG in base64."""
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[rows] = (level, level, level, 255)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def edit(**more):
    return {"drawing": drawing(), "candidates": 3, "steps": 15, "seconds": 60.0} | more


def pixels_of(candidate):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(candidate["image"]))))


def test_an_edit_begins_where_one_was_and_comes_nearer(plain):
    status, first = plain.post("/sample", {"seed": 3})
    assert (status, len(first["candidates"])) == (200, 8)
    start = {key: first["candidates"][0][key] for key in ("latent", "label")}
    status, found = plain.post("/edit", edit(start=start, keep=0.0))
    best = found["candidates"][0]
    assert (status, found["made"], len(found["candidates"])) == (200, 15, 3)
    before, after = (pixels_of(each)[4:12].mean() for each in (first["candidates"][0], best))
    assert after < before  # The stroke is black, over rows 8 to 24 of 64.
    assert pixels_of(best).shape == (32, 32)
    status, kept = plain.post("/edit", edit(start=start, keep=100.0))
    assert kept["candidates"][0]["error"] > best["error"]


def test_the_steps_of_an_edit_follow_its_time(plain):
    found = plain.post("/edit", {"drawing": drawing(), "seconds": 0.05, "candidates": 2})[1]
    assert 20 <= found["steps"] <= 400
    assert 0 <= found["made"] <= found["steps"]


def test_a_walk_goes_from_one_to_the_other(plain):
    one, two = plain.post("/sample", {})[1]["candidates"][:2]
    ends = [{"latent": each["latent"]} for each in (one, two)]
    status, found = plain.post("/walk", {"begin": ends[0], "end": ends[1], "steps": 5})
    assert (status, len(found["images"])) == (200, 5)
    assert (found["images"][0], found["images"][-1]) == (one["image"], two["image"])
    assert plain.post("/walk", {"begin": ends[0], "end": ends[0], "steps": 1})[1]["images"] == [one["image"]]


def test_classes_are_given_or_searched(painted):
    with page(painted["classes"]) as classes:
        assert classes.painter.about()["classes"] == 3
        labels = [each["label"] for each in classes.post("/sample", {"seed": 1})[1]["candidates"]]
        assert set(labels) == {0, 1, 2}
        given = classes.post("/edit", edit(label=2))[1]["candidates"]
        assert {each["label"] for each in given} == {2}
        start = {key: given[0][key] for key in ("latent", "label")}
        assert classes.post("/walk", {"begin": start, "end": start | {"label": 0}, "steps": 4})[0] == 200
        assert classes.post("/edit", edit(label=3)) == (200, {"error": "label: 3 is not allowed; this run has 0 to 2"})
        status, said = classes.post("/walk", {"begin": {"latent": start["latent"]}, "end": start, "steps": 2})
        assert (status, said["error"]) == (400, "label: None, but this run has 3 classes")


def test_drawings_are_translated(lines):
    assert lines.painter.about()["kind"] == "translate"
    status, found = lines.post("/edit", {"drawing": drawing()})
    assert (status, pixels_of(found["candidates"][0]).shape) == (200, (32, 32, 3))
    other = lines.post("/edit", {"drawing": drawing(level=255)})[1]
    assert other["candidates"][0]["image"] != found["candidates"][0]["image"]
    assert lines.post("/walk", {})[0] == lines.post("/sample", {})[0] == 404


def test_a_picture_comes_back_in_the_size_of_the_run(plain):
    file = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 30)).save(file, "jpeg")
    status, found = plain.post("/picture", file.getvalue(), BYTES)
    image = Image.open(io.BytesIO(base64.b64decode(found["picture"])))
    assert (status, image.size, image.mode) == (200, (32, 32), "RGBA")
    assert image.getpixel((5, 5))[3] == 255


def refused(plain):
    """What is refused: status, words, and the request."""
    broken = base64.b64encode(b"\x89PNG\r\n\x1a\n broken").decode()
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "png")
    wrong = [
        (400, "drawing", ("/edit", {})),
        (400, "no base64", ("/edit", {"drawing": "!"})),
        (400, "drawing: ", ("/edit", {"drawing": broken})),
        (400, "transparent", ("/edit", {"drawing": drawing(rows=slice(0, 0))})),
        (400, "seconds", ("/edit", edit(seconds=1e9))),
        (400, "candidates", ("/edit", edit(candidates=1_000))),
        (400, "keep", ("/edit", edit(keep=-1))),
        (400, "strokes", ("/edit", b'{"drawing": "", "strokes": NaN}')),
        (400, "unknown", ("/edit", edit(unknown=1))),
        (400, "request", ("/edit", b"[" * 10_000)),
        (415, "application/json", ("/edit", b"{}", "text/plain")),
        (400, "picture: ", ("/picture", b"no picture", BYTES)),
        (400, "picture: ", ("/picture", bomb.getvalue(), BYTES)),
        (415, "application/octet-stream", ("/picture", b"", JSON)),
        (404, "POST goes to", ("/other", b"")),
    ]
    for size in (0, 7, 9):
        point = {"latent": [0.0] * size}
        wrong.append((400, f"latent: {size} numbers", ("/walk", {"begin": point, "end": point, "steps": 2})))
    return wrong


def test_what_cannot_be_done_is_refused_in_one_line_and_harms_nothing(plain):
    for status, words, request in refused(plain):
        found, said = plain.post(*request)
        assert (found, words in said["error"], "\n" in said["error"]) == (status, True, False), (request[0], said)
    huge = plain.ask("POST", "/picture", kind=BYTES, **{"Content-Length": str(PICTURE_BYTES + 1)})
    assert huge[0] == 413
    assert plain.post("/edit", edit())[0] == 200


def test_a_closed_page_ends_its_edit_and_others_go_on(plain):
    logged = len(plain.log)
    body = json.dumps(edit(steps=10_000, candidates=16)).encode()
    connection = http.client.HTTPConnection("127.0.0.1", plain.server.port)
    connection.request("POST", "/edit", body, {"Content-Type": JSON})
    answer = connection.getresponse()
    assert json.loads(answer.readline())["share"] < 1
    answer.close()
    connection.close()
    until(lambda: not plain.server.turn.locked())
    assert plain.post("/edit", edit())[0] == 200
    assert len(plain.log) == logged + 1  # That of the closed page was not done.


def test_people_at_once_do_not_mix(plain):
    starts = [{"latent": each["latent"]} for each in plain.post("/sample", {"seed": 9})[1]["candidates"][:4]]
    asked = [edit(start=start, drawing=drawing(level=80 * at)) for at, start in enumerate(starts)]
    alone = [plain.post("/edit", each)[1] for each in asked]
    together = [None] * len(asked)

    def ask(at):
        together[at] = plain.post("/edit", asked[at])[1]

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_edits_are_done_again_from_a_file(painted, tmp_path):
    with page(painted["plain"], encoder=painted["inverse"]) as mine:
        first = mine.post("/edit", edit(seed=1))[1]["candidates"][0]
        start = {"latent": first["latent"]}
        done = [first, mine.post("/edit", edit(start=start, steps=None, seconds=0.3))[1]["candidates"][0]]
    log = tmp_path / "edits.jsonl"
    log.write_text("".join(mine.log))
    encoder = ["--encoder", painted["inverse"]]
    code, _, said = ganrun("paint", painted["plain"], *encoder, "--replay", log, "--out", tmp_path / "again")
    assert (code, "2 edits drawn again, 2 of them as before to the last bit" in said) == (0, True), said
    for at, each in enumerate(done):
        assert (tmp_path / f"again/{at:04d}.png").read_bytes() == base64.b64decode(each["image"])
    log.write_text("".join(mine.log) + "{}\n")
    code, _, said = ganrun("paint", painted["plain"], "--replay", log, "--out", tmp_path / "again")
    assert (code, "line 3 is no edit" in said) == (2, True)


def test_elsewhere_all_but_the_page_needs_the_token(painted):
    with page(painted["lines"], token="secret") as guarded:
        assert guarded.ask("GET", "/")[0] == 200
        assert guarded.ask("GET", "/about")[0] == guarded.ask("POST", "/edit", edit())[0] == 401
        assert guarded.ask("GET", "/about", Authorization="Bearer secret")[0] == 200


def test_the_command_refuses_what_it_cannot_do(painted):
    for run, options, words in (
        ("plain", ("--listen", "nowhere"), "--listen: 'nowhere' is not ADDR:PORT"),
        ("plain", ("--replay", "x"), "--replay and --out: belong together"),
        ("lines", ("--encoder", painted["inverse"]), "translates pictures"),
        ("plain", ("--encoder", painted["plain"]), "give a run of the game inversion"),
    ):
        code, _, said = ganrun("paint", painted[run], *options)
        assert (code, words in said) == (2, True), said
