"""SIGHUP: real programs read their config file again."""

import json
import signal

import pytest

from tests.scenarios.test_nsqlookupd import Lookupd


def test_nsqd_takes_over_what_is_live(make_daemon, tmp_path):
    """Limits count at once, what needs a restart is named, and a broken file changes nothing; clients stay."""
    config = tmp_path / "nsqd.cfg"
    config.write_text("max_msg_size = 10\n")
    nsqd = make_daemon(f"--config={config}", http=True).start()
    client = nsqd.connect()
    client.publish("t", b"0123456789")

    config.write_text('max_msg_size = 20\nnode_id = 7\nid = 9\nmsg_timeout = "7s"\n')
    nsqd.send_signal(signal.SIGHUP)

    said = nsqd.wait_for("WARNING: CONFIG: --node-id was changed in")
    assert "INFO: CONFIG: --max-msg-size is 20 from now on, and was 10\n" in said
    assert "INFO: CONFIG: --msg-timeout is 7s from now on, and was 1m0s\n" in said
    assert f"WARNING: config file {config}: unknown key 'node_id'" in said
    client.publish("t", b"0123456789" * 2)

    config.write_text("max_msg_size = 5\nmsg_timeout = 1h\n")
    nsqd.send_signal(signal.SIGHUP)

    nsqd.wait_for(f"ERROR: CONFIG: {config} is not taken over, every option stays as it was: ")
    client.publish("t", b"0123456789" * 2)
    assert (200, b"20") == nsqd.request("GET", "/config/max_msg_size")
    assert 0 == nsqd.stop()


@pytest.fixture
def lookupd(tmp_path):
    """An nsqlookupd with a config file that forgets inactive nsqds after 5 minutes."""
    config = tmp_path / "nsqlookupd.cfg"
    config.write_text("")
    daemon = Lookupd(tmp_path / "lookupd", f"--config={config}", http=True)
    yield daemon.start(), config
    daemon.close()


def test_nsqlookupd_takes_over_what_is_live(lookupd):
    """A limit counts at once, and its level of logging too."""
    daemon, config = lookupd
    assert (200, b"") == daemon.request("POST", "/topic/create?topic=a")

    config.write_text('max_registrations = 1\nlog_level = "debug"\nbroadcast_address = "b"\n')
    daemon.send_signal(signal.SIGHUP)

    said = daemon.wait_for("CONFIG: --broadcast-address was changed in")
    assert "CONFIG: --max-registrations is 1 from now on, and was 1000000\n" in said
    status, body = daemon.request("POST", "/topic/create?topic=b")
    assert status >= 400
    assert "max-registrations=1" in json.loads(body)["message"] + daemon.log()
    assert 0 == daemon.stop()
