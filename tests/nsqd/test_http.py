"""nsqd's table of endpoints in the application: routing, redirects, logging, and endpoints that fail."""

import pytest

from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.http import ENDPOINTS


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/topic", "/config", "/config/", "/stats/x", "/pub/x", "//", "/.."]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_unknown_path(http, method, path):
    """What is no path is 404."""
    http.is_error(http(method, path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    "method, path, allow",
    [
        ("GET", "/pub", "POST, OPTIONS"),
        ("HEAD", "/stats", "GET, OPTIONS"),
        ("POST", "/ping", "GET, HEAD, OPTIONS"),
        ("DELETE", "/config/log_level", "GET, PUT, OPTIONS"),
        ("GET", "/topic/create", "POST, OPTIONS"),
    ],
)
def test_wrong_method(http, method, path, allow):
    """A known path with another method is 405, and says which methods there are; OPTIONS asks for just that."""
    got = http(method, path)

    http.is_error(got, 405, "METHOD_NOT_ALLOWED")
    assert allow == got.headers["allow"]
    options = http("OPTIONS", path)
    assert (200, b"", allow) == (options.status, options.body, options.headers["allow"])


@pytest.mark.parametrize(
    "method, target, status, location",
    [
        ("GET", "/stats/", 301, "/stats"),
        ("GET", "/STATS?format=json", 301, "/stats?format=json"),
        ("POST", "/Topic/Create/?topic=A", 307, "/topic/create?topic=A"),
        ("POST", "//pub", 307, "/pub"),
        ("GET", "/x/../ping", 301, "/ping"),
        ("GET", "/debug/PPROF", 301, "/debug/pprof/"),
        ("PUT", "/Config/Log_Level/", 307, "/config/Log_Level"),
        ("GET", "/config/%0d%0a/", 301, "/config/%250d%250a"),
        ("GET", "/Put", 301, "/put"),
    ],
)
def test_repaired_path(http, method, target, status, location):
    """A path that is wrong only in its slashes or its case is redirected, with its query."""
    got = http(method, target)

    assert (status, location) == (got.status, got.headers["location"])


def test_path_of_another_method_is_not_repaired(http):
    """There is no redirect to where the method is not known."""
    http.is_error(http.get("/PUB"), 404, "NOT_FOUND")


def test_request_is_logged(http, nsqd):
    """Each request is a line with status, method, address, peer and time."""
    http.get("/config/nothing?a=b")

    assert "INFO: 400 GET /config/nothing?a=b (127.0.0.1:50000) " in nsqd.lines[0]


def test_crash_is_an_error_of_ours(http, nsqd):
    """An exception nobody thought of is 500 INTERNAL_ERROR; the log tells where it came from."""
    nsqd.turn = None

    http.is_error(http.post("/topic/create?topic=t"), 500, "INTERNAL_ERROR")

    assert any("POST /topic/create?topic=t crashed" in line and "TypeError" in line for line in nsqd.lines)


def test_disk_that_refuses(http, nsqd):
    """An endpoint that the disk refuses is 500 INTERNAL_ERROR; the log tells the cause."""

    def refuse() -> None:
        raise StoreError("no space left on device")

    nsqd.turn = refuse

    http.is_error(http.post("/topic/create?topic=t"), 500, "INTERNAL_ERROR")

    assert any("POST /topic/create?topic=t failed - no space left on device" in line for line in nsqd.lines)


def test_every_endpoint_says_what_it_means():
    """No row of the table lacks a meaning for the docs, and none comes twice."""
    rows = [(method, route.path) for route in ENDPOINTS for method in route.methods or ("any",)]

    assert all(route.meaning for route in ENDPOINTS)
    assert len(set(rows)) == len(rows)
