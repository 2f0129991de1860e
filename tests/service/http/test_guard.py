"""What a request must bring, and what is refused before anybody looks at it."""

from pathlib import Path

import pytest

from tests.service.http.served import ENDLESS, served

pytestmark = pytest.mark.anyio

TOKEN = "xk29-QmZ7_tokEN-of-the-test-0123456789"
PAUSE = "/api/pipelines/endless/pause"


async def test_another_name_for_the_server_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS) as server:
        for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1:1", "127.0.0.1", ""):
            for path in ("/healthz", "/api/pipelines", "/"):
                reply = await server.get(path, {"Host": host})
                assert reply.status == (403 if host else 400), (host, path)
        for host in (f"localhost:{server.port}", f"LOCALHOST:{server.port}", f"[::1]:{server.port}"):
            assert (await server.get("/healthz", {"Host": host})).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "BREW"])
async def test_a_page_of_another_origin_can_change_nothing_with_any_method(tmp_path: Path, method: str) -> None:
    async with served(tmp_path, ENDLESS) as server:
        foreign = [
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://localhost:{server.port}"},
            {"Origin": f"http://127.0.0.1:{server.port}.evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ]
        for headers in foreign:
            reply = await server.send(method, PAUSE, {"Content-Type": "application/json", **headers}, b"{}")
            assert reply.status == 403, headers
        assert server.host["endless"].state == "running"


async def test_our_own_page_may_change_things(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS) as server:
        own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
        assert (await server.post(PAUSE, {}, own)).status == 200


async def test_only_json_is_taken(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS) as server:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            reply = await server.send("POST", PAUSE, {"Content-Type": kind}, b"{}")
            assert (reply.status, reply.json["code"]) == (415, "content_type")


async def test_with_a_token_nothing_of_a_record_is_seen_without_it(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS, token=TOKEN) as server:
        wrong = ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", TOKEN]
        paths = [
            "/api/pipelines",
            "/api/events",
            "/metrics",
            "/api/pipelines/endless/letters",
            "/api/nothing",
            "/openapi.json",
        ]
        for authorization in wrong:
            for path in paths:
                assert (await server.get(path, {"Authorization": authorization})).status == 401, path
            assert (await server.post(PAUSE, {}, {"Authorization": authorization})).status == 401
        assert (await server.get(f"/api/pipelines?token={TOKEN}")).status == 401
        assert (await server.get("/api/pipelines", {"Authorization": f"Bearer {TOKEN}"})).status == 200
        assert (await server.get("/readyz")).json["parts"] == {}
        for path in ("/", "/healthz", "/readyz", "/assets/api.js"):
            assert (await server.get(path)).status == 200, path


async def test_every_answer_forbids_scripts_frames_and_guesses(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS) as server:
        for path in ("/", "/assets/dashboard.js", "/api/pipelines", "/nothing", "/healthz"):
            headers = (await server.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'self';")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "access-control-allow-origin" not in headers


async def test_a_body_over_the_limit_is_refused_whether_or_not_it_says_its_length(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS) as server:
        head = f"POST {PAUSE} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        told = await server.raw(f"{head}Content-Length: 10000000\r\n\r\n".encode())
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        untold = await server.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 18)
        assert (told.status, untold.status) == (413, 413)
        assert server.host["endless"].state == "running"


async def test_long_headers_are_refused(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS) as server:
        for size in (17_000, 100_000):
            assert (await server.get("/healthz", {"X-Long": "x" * size})).status == 431
        assert (await server.get("/healthz", {"X-Long": "x" * 8000})).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../app.py",
        "/assets/%2e%2e/app.py",
        "/assets/..%2fapp.py",
        "//etc/passwd",
        "/assets/",
        "/api/pipelines/%00",
    ],
)
async def test_no_path_leads_to_a_file(tmp_path: Path, path: str) -> None:
    async with served(tmp_path, ENDLESS) as server:
        reply = await server.get(path)
        assert reply.status == 404
        assert set(reply.json) == {"code", "reason"}


async def test_what_is_no_http_gets_a_short_answer(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS) as server:
        for sent in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n"):
            reply = await server.raw(sent)
            assert (reply.status, reply.json["code"]) == (400, "not_http")
