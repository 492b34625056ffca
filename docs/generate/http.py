"""The page docs/http.md, written from the daemons' tables of endpoints."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from nsqkit.nsqd import http as nsqd
from nsqkit.nsqlookupd import http as nsqlookupd
from nsqkit.web.routes import MAX_ADMIN_BODY, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What the page says of one daemon."""

    daemon: str
    introduction: str
    endpoints: Sequence[Route[Any]]
    remarks: Mapping[str, str]  # by the groups of endpoints that need one
    parameters: Mapping[str, str]  # every one that a row of the table names


_HEAD: Final = f"""\
# HTTP

<!-- Written by `make docs` from the tables of endpoints in the code. -->

The daemons speak HTTP/1.1. Paths, texts and status codes are those of NSQ 1.3, but for what
[differences.md](differences.md) lists.

- Parameters come in the query string only. The first value of a name counts; `;` or a bad `%` escape is 400
  `INVALID_REQUEST`. Brackets mean optional.
- Success is 200 with text, JSON or nothing. An answer of more than 64 KiB comes in chunks while it is made (to HTTP/1.0
  whole, and above 16 MiB it is 505), so it shows each topic as it was when its turn came.
- An error is `{{"message":"<TEXT>"}}` with a status of 400 or above; of `/ping` and the debug pages it is bare text, as
  where a request is no HTTP (400), its head is too large (431), or there are too many connections (503).
- With `--http-token-file` a request must carry a token that has the row's role, `Authorization: Bearer <token>`: see
  [authorization.md](authorization.md). Without one, or with one that is not known, it is 401; with one that has not the
  role, 403; both have a `WWW-Authenticate` header. No role means that no token is needed.
- Bodies are read with POST and PUT, and with any method at the old endpoints. One that is no message and no option's
  value is limited to {MAX_ADMIN_BODY} bytes: 413.
- A known path with another method is 405 and an `Allow` header; OPTIONS is 200 with that header. A path that is wrong
  only in its case or its slashes is redirected.
- Every request but those that publish is a line in the log at level `info`; what is no HTTP, or too slow, is one at
  `debug`.
- Requests may be pipelined; `--http-max-pipelined` of them are read ahead. A request has `--http-read-timeout` to come
  whole, a client `--http-write-timeout` to take something of its answer, and a connection is closed after
  `--http-idle-timeout` without any. There may be `--http-max-connections`: see [limits.md](limits.md).
"""

_LEGACY: Final = """
Scripts of 2012 and 2013 go on working. Errors have status 500 and the form of those days,
`{"status_code":500,"status_txt":"<TEXT>","data":null}`, unless the request says exactly
`Accept: application/vnd.nsq; version=1.0`.
"""

_PROFILE: Final = """
A profile is in "collapsed stacks", which flame graph tools read. It counts microseconds of CPU time, not of waiting.
"""

_SECONDS: Final = "how long to measure"

PARTS: Final = (
    Part(
        daemon="nsqd",
        introduction="""
On `--http-address` (port 4151).

    curl -d 'hello' 'http://127.0.0.1:4151/pub?topic=greetings'
    curl 'http://127.0.0.1:4151/stats?format=json&topic=greetings'

- A publish is answered when the message is as safe as `--durability` says; 503 means that this failed: `EXITING` while
  nsqd stops, `DRAINING` while it drains, otherwise `PUB failed <cause>`; nsqd's log tells it, too.
- A request that breaks a rule publishes nothing and makes no topic.
- A message is limited by `--max-msg-size`, a batch by `--max-body-size`.
""",
        endpoints=nsqd.ENDPOINTS,
        remarks={
            "Information and configuration": """
`/info`, and each client in `/stats`, has the keys of NSQ 1.3, and `topology_zone` and `topology_region` of its
development branch; our own version and build are in the header `X-Nsqkit-Version` of `/info`. In `/stats`, `pub_counts`
has every topic a client has published to, and with `topic=` only the producers of that topic are listed.
The memory block has NSQ's keys with the nearest figures that Python has: objects are blocks of its allocator, "in use"
is resident memory, "released" what was given back since the peak, pauses are those of the cyclic garbage collector.

`GET /config/<option>` knows every key in [options.md](options.md), also those that NSQ has not. `PUT /config/<option>`
changes those that are marked *live* there, until a restart. The body is what one would write after the flag, and of a
list the whole of it in JSON:

    curl -X PUT -d warn http://127.0.0.1:4151/config/log_level
    curl -X PUT -d 30s http://127.0.0.1:4151/config/msg_timeout
    curl -X PUT -d '["10.0.0.4:4160"]' http://127.0.0.1:4151/config/nsqlookupd_tcp_addresses

Limits of what clients may ask for, and of idle HTTP connections, count for those that come afterwards; all else counts
at once. Each change is a line in the log. Errors are `INVALID_OPTION` and `INVALID_VALUE`, as NSQ words them; a header
`X-Nsqkit-Reason` (`curl -i`) says more, such as that an option needs a restart. A value of no bytes, or of more than
`--max-msg-size`, is 413.
""",
            "Debugging": f"""{_PROFILE}\
Compiled functions are counted to their caller; install with `NSQKIT_PURE=1` to see them.

    curl -s 'http://127.0.0.1:4151/debug/pprof/profile?seconds=10' | flamegraph.pl > nsqd.svg
""",
            "Endpoints of NSQ 0.1 and 0.2": _LEGACY,
        },
        parameters={
            "topic": "name of a topic; in `/stats` only this topic is shown",
            "channel": "name of a channel; in `/stats` only this channel, and only topics that have it",
            "defer": "milliseconds to hold the message back, at most `--max-req-timeout`",
            "binary": "`false` or `0`: lines (the default); anything else: `[4-byte count]([4-byte size][bytes])*`",
            "format": "`json` for JSON, anything else for text",
            "include_clients": "`false` or `0` leaves clients and producers out",
            "include_mem": "`false` or `0` leaves the memory block out",
            "seconds": _SECONDS,
            "rate": "a whole number",
            "frames": "stack frames to remember for each allocation; `0` stops",
        },
    ),
    Part(
        daemon="nsqlookupd",
        introduction="""
On `--http-address` (port 4161). What it knows, and for how long, is in [discovery.md](discovery.md).

    curl 'http://127.0.0.1:4161/lookup?topic=greetings'
    curl -X POST 'http://127.0.0.1:4161/channel/create?topic=greetings&channel=archive'
""",
        endpoints=nsqlookupd.ENDPOINTS,
        remarks={
            "Queries": """
Names are sorted; producers are not. These have the keys of NSQ 1.3, and `topology_zone` and `topology_region`.
`/lookup` of an unknown topic is 404 `TOPIC_NOT_FOUND`, `/channels` of one an empty list.
""",
            "Changes": """
They concern what this nsqlookupd knows, and no other nsqlookupd and no nsqd hears of them. `topic=*`, with which NSQ
means every topic, is refused: 400 `INVALID_ARG_TOPIC`. More names than `--max-registrations` are 503
`TOO_MANY_REGISTRATIONS: <which>`.
""",
            "Debugging": f"""{_PROFILE}\
Allocations can be traced in nsqd only.
""",
            "Endpoints of NSQ 0.2": _LEGACY,
        },
        parameters={
            "topic": "name of a topic",
            "channel": "name of a channel",
            "node": "an nsqd's `<broadcast address>:<HTTP port>`, as `/nodes` shows it",
            "seconds": _SECONDS,
        },
    ),
)
"""The parts of the page, one for each daemon."""


def http_page() -> str:
    """Every endpoint with method, path, parameters and meaning."""
    return "\n".join([_HEAD, *(line for part in PARTS for line in _lines(part))]).rstrip() + "\n"


def parameters(row: Route[Any]) -> Iterator[str]:
    """The names of a row's parameters."""
    return (word.strip("[] ") for word in row.params.split(",") if word)


def _lines(part: Part) -> Iterator[str]:
    yield f"## {part.daemon}"
    yield part.introduction
    for group, rows in groupby(part.endpoints, key=lambda row: row.group):
        yield from (
            f"### {group}",
            "",
            "| Method | Path | Role | Parameters | Meaning |",
            "|---|---|---|---|---|",
        )
        yield from (_row(row) for row in rows)
        yield part.remarks.get(group, "")
    yield from ("### Parameters", "", "| Parameter | Meaning |", "|---|---|")
    yield from (f"| `{name}` | {meaning} |" for name, meaning in part.parameters.items())
    yield ""


def _row(row: Route[Any]) -> str:
    methods = ", ".join(row.methods) or "any"
    return f"| {methods} | `{row.path}` | {row.role.value} | {row.params} | {row.meaning} |"
