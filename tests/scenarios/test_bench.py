"""`nsqkit bench` through TLS and compression, against the program nsqd."""

import pytest

from nsqkit.bench.cli import main


@pytest.mark.parametrize(
    "layers", [["--tls"], ["--snappy"], ["--deflate"], ["--tls", "--snappy"], ["--tls", "--deflate"]]
)
def test_each_layer(launch, certificates, capsys, layers):
    """Every message arrives, whatever the bytes go through; nsqd shows that they did."""
    nsqd = launch(*certificates.flags("--https-address="), http=True)
    host, port = nsqd.address
    address = f"--nsqd-tcp-address={host}:{port}"

    code = main([address, "--messages=2000", "--batch=200", "--no-warm-up", *layers, "pubsub", "consume"])

    out = capsys.readouterr().out
    assert 0 == code, out
    assert "pubsub batch=200 connections=2 consumers=1 " + " ".join(name[2:] for name in layers) in out
    assert f"TLSv1:{'true' if '--tls' in layers else 'false'}" in nsqd.log()
