"""What can be asked for."""

import pytest

from nsqkit.errors import OptionError
from nsqkit.up.options import UpOptions


def test_defaults_are_what_one_wants_first():
    """Without flags: one nsqd, on NSQ's ports, for this machine only, with its data in ./nsq-data."""
    options = UpOptions()

    assert (1, "nsq-data", "127.0.0.1", 4150) == (
        options.nsqd,
        options.data_path,
        options.host,
        options.base_port,
    )


@pytest.mark.parametrize(
    "wrong",
    [{"nsqd": 0}, {"nsqd": 65}, {"base_port": -1}, {"base_port": 65_001}, {"host": ""}, {"data_path": ""}],
)
def test_nonsense_is_refused(wrong):
    """A value out of range, or an empty one, is an error that names its flag."""
    (name,) = wrong

    with pytest.raises(OptionError, match="--" + name.replace("_", "-")):
        UpOptions(**wrong)


def test_tokens_for_all_need_one_for_nsqds():
    """Where nsqlookupd asks for tokens, nsqds need one."""
    with pytest.raises(OptionError, match="--http-token-file needs --http-client-token-file"):
        UpOptions(http_token_file="tokens")

    assert "tokens" == UpOptions(http_token_file="tokens", http_client_token_file="token").http_token_file
