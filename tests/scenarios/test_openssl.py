"""What OpenSSL's own program is let in with."""

import shutil
import subprocess

import pytest

from tests.certificates import Certificates
from tests.scenarios.conftest import Daemon
from tests.scenarios.test_tls import https_port

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="the program openssl is not here")

WEAK = "DEFAULT:@SECLEVEL=0"  # so that it is nsqd that refuses, not the client


def shake_hands(nsqd: Daemon, *options: str) -> bool:
    """Whether `openssl s_client` with these options gets through the handshake with the HTTPS port."""
    assert OPENSSL is not None
    done = subprocess.run(
        [OPENSSL, "s_client", "-connect", f"127.0.0.1:{https_port(nsqd)}", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode == 0 and b"Cipher is (NONE)" not in done.stdout


def can(option: str) -> bool:
    """Is this client built with that version?"""
    assert OPENSSL is not None
    told = subprocess.run([OPENSSL, "s_client", "-help"], capture_output=True, check=False)
    return f" {option} ".encode() in told.stdout + told.stderr


@pytest.mark.parametrize(
    ("least", "served"),
    [
        (None, {"-tls1_2", "-tls1_3"}),
        ("tls1.3", {"-tls1_3"}),
        ("tls1.1", {"-tls1_1", "-tls1_2", "-tls1_3"}),
        ("tls1.0", {"-tls1", "-tls1_1", "-tls1_2", "-tls1_3"}),
    ],
)
def test_versions(launch, certificates: Certificates, least, served):
    """Nothing below TLS 1.2 unless asked for."""
    asked = [f"--tls-min-version={least}"] if least else []
    nsqd = launch(*certificates.flags("--https-address=127.0.0.1:0", *asked), http=True)
    versions = {version for version in ("-tls1", "-tls1_1", "-tls1_2", "-tls1_3") if can(version)}

    let_in = {version for version in versions if shake_hands(nsqd, version, "-cipher", WEAK)}

    assert served & versions == let_in
    assert {"-tls1_2", "-tls1_3"} <= versions


@pytest.mark.parametrize("cipher", ["NULL", "aNULL", "RC4", "3DES", "EXPORT", "MD5"])
def test_weak_ciphers(launch, certificates: Certificates, cipher):
    """None of them is spoken."""
    nsqd = launch(*certificates.flags("--https-address=127.0.0.1:0"), http=True)

    assert shake_hands(nsqd, "-tls1_2", "-cipher", "ECDHE+AESGCM")
    assert not shake_hands(nsqd, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
