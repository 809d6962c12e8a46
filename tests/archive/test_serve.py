"""The interface over HTTP, in this process: answers, refusals, limits, and a fuzzer."""

import io
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from archive_cases import Colours, square
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cmer.archive.index import index
from cmer.archive.search import Searcher
from cmer.archive.serve.app import LONGEST_QUERY, PAGE, create_app
from cmer.archive.serve.guard import LARGEST_BODY
from cmer.archive.store import Archive

TOKEN = "a-token-of-this-test"
HOST = {"host": "localhost"}


@pytest.fixture(scope="module")
def app(indexed: Path):
    return create_app(Archive.open(indexed), Colours())


@pytest.fixture(scope="module")
def client(app) -> TestClient:
    return TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=True)


def png(colour: tuple[int, int, int], side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def found(client: TestClient, **form) -> list[str]:
    answer = client.post("/api/search", data=form)
    assert answer.status_code == 200, answer.text
    return [hit["file"] for hit in answer.json()["hits"]]


def test_search_is_that_of_the_library_page_by_page(client: TestClient, indexed: Path) -> None:
    model = Colours()
    true = [hit.file for hit in Searcher(Archive.open(indexed)).search(model.encode_texts(["red"])[0], 12)]
    pages = [client.post("/api/search", data={"text": "red", "offset": at, "count": 5}).json() for at in (0, 5, 10)]
    assert [hit["file"] for page in pages for hit in page["hits"]] == true
    assert [page["more"] for page in pages] == [True, True, False]
    assert set(pages[0]["hits"][0]) == {"id", "score", "file", "label", "box", "width", "height", "footprint"}


def test_an_uploaded_image_an_image_of_the_archive_and_a_label_are_searched(client: TestClient) -> None:
    answer = client.post("/api/search", files={"image": ("x.png", png((0, 0, 255)))}, data={"count": 4})
    assert {hit["label"] for hit in answer.json()["hits"]} == {"blue"}
    best = client.post("/api/search", data={"text": "green", "count": 1}).json()["hits"][0]
    like = client.post("/api/search", data={"like": best["id"]}).json()["hits"]
    assert like[0]["id"] == best["id"] and like[0]["score"] == pytest.approx(1, abs=1e-5)
    assert {name.split("/")[0] for name in found(client, text="green", label="red")} == {"red"}


def test_the_archive_describes_itself_without_paths(client: TestClient, indexed: Path) -> None:
    about = client.get("/api/archive").json()
    labels = {"blue": 4, "green": 4, "red": 4}
    assert about == {"name": "images", "model": "colours", "images": 12, "labels": labels, "bounds": None}
    assert client.get("/api/footprints").json() == []


def test_pictures_and_details_are_given_by_id(client: TestClient) -> None:
    hit = client.post("/api/search", data={"text": "green", "count": 1}).json()["hits"][0]
    assert client.get(f"/api/images/{hit['id']}").json() == hit | {"score": 1.0}
    answer = client.get(f"/api/images/{hit['id']}/picture")
    assert answer.headers["content-type"] == "image/webp"
    pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
    assert pixels.shape == (16, 16, 3) and pixels.mean((0, 1)).argmax() == 1


@pytest.mark.parametrize(
    "path",
    [
        "/images/../../etc/passwd", "/../../etc/passwd", "/api/images/../../etc/passwd", "/static/app.py", "/app.py",
        "/api/images/..%2f..%2f..%2fetc%2fpasswd/picture", "/api/images/red%2f0.png/picture",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/images/' OR 1=1 --/picture", f"/api/images/{'0' * 20}", f"/api/images/{'0' * 20}/picture", "/docs",
    ],
)  # fmt: skip
def test_nothing_but_images_of_the_index_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422) and "root:" not in answer.text


def test_a_file_that_was_exchanged_is_not_served(tmp_path: Path) -> None:
    square(tmp_path / "images/a.png", (250, 0, 0))
    index(tmp_path / "images", tmp_path / "a.lance", Colours(), "colours")
    client = TestClient(create_app(Archive.open(tmp_path / "a.lance"), Colours()), base_url="http://localhost")
    hit = client.post("/api/search", data={"text": "red"}).json()["hits"][0]
    assert client.get(f"/api/images/{hit['id']}/picture").status_code == 200
    square(tmp_path / "secret.png", (1, 2, 3))
    (tmp_path / "images/a.png").unlink()
    (tmp_path / "images/a.png").symlink_to(tmp_path / "secret.png")
    answer = client.get(f"/api/images/{hit['id']}/picture")
    assert answer.status_code == 410 and "has changed since it was indexed" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({}, 400),
        ({"text": " "}, 400),
        ({"text": "x" * (LONGEST_QUERY + 1)}, 422),
        ({"text": "red", "bbox": "1,2"}, 400),
        ({"text": "red", "count": "101"}, 422),
        ({"text": "red", "offset": "-1"}, 422),
        ({"like": "../../x"}, 422),
        ({"like": "0" * 20}, 404),
    ],
)
def test_bad_queries_are_refused(client: TestClient, form: dict, status: int) -> None:
    answer = client.post("/api/search", data=form)
    assert answer.status_code == status and answer.json()["detail"]


def test_bad_uploads_are_refused(client: TestClient) -> None:
    bomb = io.BytesIO()
    Image.new("1", (8000, 8000)).save(bomb, "PNG")
    for data, sentence in (
        (b"no image", "not an image"),
        (b"", "not an image"),
        (png((1, 1, 1))[:45], "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (bomb.getvalue(), "more than 50,000,000 pixels"),
    ):
        answer = client.post("/api/search", files={"image": ("x.png", data)})
        assert answer.status_code == 400 and sentence in answer.json()["detail"]


def test_a_body_that_is_too_large_is_refused_even_if_it_hides_its_length(client: TestClient) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'

    def chunks():
        yield part
        for _ in range(LARGEST_BODY // 2**20 + 1):
            yield b"0" * 2**20

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/api/search", content=chunks(), headers=headers).status_code == 413
    assert client.post("/api/search", files={"image": ("a", b"0" * LARGEST_BODY)}).status_code == 413


def test_only_names_of_this_machine_are_answered_without_a_token(client: TestClient) -> None:
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", ""):
        assert client.get("/api/archive", headers={"host": host}).status_code == 400
    for host in ("127.0.0.1:8000", "localhost", "[::1]:8000", "[::1]"):
        assert client.get("/api/archive", headers={"host": host}).status_code == 200


def test_with_a_token_every_request_needs_it(indexed: Path) -> None:
    app = create_app(Archive.open(indexed), Colours(), TOKEN)
    client = TestClient(app, base_url="http://archive.example", follow_redirects=False)
    for path in (*PAGE, "/api/archive", "/openapi.json", "/?token=wrong", f"/api/archive?token={TOKEN}"):
        assert client.get(path).status_code == 401
    for value in (f"Bearer {TOKEN}x", "Bearer ", TOKEN, "Bearer é".encode()):
        assert client.get("/api/archive", headers={"authorization": value}).status_code == 401
    assert client.get("/api/archive", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    answer = client.get(f"/?token={TOKEN}")
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert {"HttpOnly", "SameSite=strict"} <= set(answer.headers["set-cookie"].split("; "))
    assert client.get("/api/archive").status_code == 200  # the client keeps the cookie


def test_every_answer_forbids_other_sources(client: TestClient) -> None:
    for path in (*PAGE, "/api/archive", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text
    assert "http" not in page and "style=" not in page and "onclick" not in page


def test_answers_are_those_of_the_schema_whatever_is_asked(app) -> None:
    """But for one check: no schema says that a query has a text or an image, or that an image can be decoded."""
    known = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HOST)
    operations = [each.ok() for each in known.get_all_operations()]
    assert len(operations) == 5
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def answers_are_valid(case) -> None:
            case.call_and_validate(headers=HOST, excluded_checks=[positive_data_acceptance])

        answers_are_valid()
