"""/ping, /info, /stats, /metrics and /config."""

import asyncio
import socket
from importlib import import_module
from typing import Any, Final

from nsqkit.errors import NotLive, OptionError
from nsqkit.nsqd.stats import Question, health_text
from nsqkit.nsqd.stats_pages import json_page, text_page
from nsqkit.nsqd.statsd import prefix_of
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.options import config_value, with_live_value
from nsqkit.options.duration import SECOND
from nsqkit.options.kinds import Json
from nsqkit.tokens import Role
from nsqkit.version import NSQ_VERSION, build
from nsqkit.web.answers import METRICS, Answer, Style, json_answer
from nsqkit.web.call import Call
from nsqkit.web.errors import BadRequest, Internal, TooLarge, Unavailable
from nsqkit.web.long_answer import long_answer, long_json, long_text
from nsqkit.web.routes import Body, Routes

LOG_LEVEL: Final = "log_level"
STATSD_PREFIX: Final = "statsd_prefix"

MAX_VALUE: Final = 65_536
"""Bytes of a value: more than any list that is allowed takes up, and less than would keep others waiting."""

routes: Final = Routes[Daemon]("Information and configuration", Role.READ)

_OURS: Final = (b"x-nsqkit-version", build().encode())


@routes.add("GET", "HEAD", path="/ping", role=Role.ANYBODY, style=Style.PLAIN)
def ping(nsqd: Daemon, _: Call) -> str:
    """Say OK, or `NOK - <reason>`: 500 while something fails that messages depend on, 503 while nsqd drains."""
    nsqd.look()
    if nsqd.broker.draining:
        raise Unavailable("NOK - draining")
    health = health_text(nsqd.broker)
    if health != "OK":
        raise Internal(health)
    return health


@routes.get("/info")
def info(nsqd: Daemon, _: Call) -> Answer:
    """Version, addresses, limits, whether nsqd drains. The header `X-Nsqkit-Version` tells our version and build."""
    options = nsqd.options
    document: dict[str, str | int] = {
        "version": NSQ_VERSION,
        "broadcast_address": options.broadcast_address,
        "hostname": socket.gethostname(),
        "http_port": nsqd.http_port,
        "tcp_port": nsqd.tcp_port,
        "start_time": nsqd.started_at // SECOND,
        "max_heartbeat_interval": int(options.max_heartbeat_interval),
        "max_output_buffer_size": options.max_output_buffer_size,
        "max_output_buffer_timeout": int(options.max_output_buffer_timeout),
        "max_deflate_level": options.max_deflate_level,
        "topology_zone": options.topology_zone,
        "topology_region": options.topology_region,
    }
    if nsqd.broker.draining:
        document["draining"] = True
    return json_answer(document, [_OURS])


@routes.get("/stats", params="[format], [topic], [channel], [include_clients], [include_mem]")
async def show_stats(nsqd: Daemon, call: Call) -> Answer:
    """Everything that is counted, as text or with `format=json` as JSON."""
    await nsqd.wait_for_channels()
    asked = Question(
        topic=call.params.get("topic", ""),
        channel=call.params.get("channel", ""),
        clients=call.switch("include_clients"),
        started_at=nsqd.started_at,
        now=nsqd.now(),
        pauses=nsqd.gc_pauses if call.switch("include_mem") else None,
    )
    if call.params.get("format") == "json":
        return await long_json(nsqd.slices, json_page(nsqd.broker, asked))
    return await long_text(nsqd.slices, text_page(nsqd.broker, asked))


@routes.get("/metrics")
async def metrics(nsqd: Daemon, _: Call) -> Answer:
    """Figures of topics, channels and the process for Prometheus, in its text format."""
    page: Any = await asyncio.to_thread(import_module, "nsqkit.nsqd.metrics")  # loading it takes a while
    return await long_answer(nsqd.slices, page.metrics_page(nsqd), METRICS)


@routes.get("/config/drain", role=Role.ADMIN)
def draining(nsqd: Daemon, _: Call) -> Json:
    """Whether nsqd drains."""
    return nsqd.broker.draining


@routes.put("/config/drain", role=Role.ADMIN, body=Body("max_msg_size", "INVALID_VALUE"))
def drain(nsqd: Daemon, call: Call) -> Json:
    """Take nothing in any more, and end when every message is finished, or after `--drain-timeout`.

    The body is empty or `true`: there is no way back.
    """
    if call.body not in (b"", b"true"):
        raise BadRequest("INVALID_VALUE", reason="to drain, say true or nothing; a drain can't be taken back")
    nsqd.drain()
    return True


@routes.get("/config/{option}", role=Role.ADMIN)
def get_config(nsqd: Daemon, call: Call) -> Json:
    """The value of an option, by its key in the config file. Durations are in ns."""
    return _value(nsqd, call.path_param("option"))


@routes.put("/config/{option}", role=Role.ADMIN, body=Body("max_msg_size", "INVALID_VALUE"))
def put_config(nsqd: Daemon, call: Call) -> Json:
    """Change a live option to the value in the body. A restart forgets it. `X-Nsqkit-Reason` tells what is wrong."""
    if not call.body:
        raise TooLarge("INVALID_VALUE")  # NSQ's choice of status
    key = call.path_param("option")
    if len(call.body) > MAX_VALUE:
        raise BadRequest("INVALID_VALUE", reason=f"a value of more than {MAX_VALUE} bytes")
    try:
        nsqd.configure(with_live_value(nsqd.options, key, call.body.decode()))
    except KeyError:
        raise BadRequest("INVALID_OPTION") from None
    except NotLive as error:
        raise BadRequest("INVALID_OPTION", reason=str(error)) from None
    except (UnicodeDecodeError, OptionError) as error:
        raise BadRequest("INVALID_VALUE", reason=str(error)) from None
    return _value(nsqd, key)


def _value(nsqd: Daemon, key: str) -> Json:
    if key == LOG_LEVEL:
        return int(nsqd.log.level)  # whoever embeds a daemon may have set it
    if key == STATSD_PREFIX:
        return prefix_of(nsqd.options, nsqd.http_port)
    try:
        return config_value(nsqd.options, key)
    except KeyError:
        raise BadRequest("INVALID_OPTION") from None
