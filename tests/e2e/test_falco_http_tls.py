"""Who may listen where, and who may connect."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import ipaddress
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from adsbridge import config
from adsbridge.errors import ConfigError, StartError
from adsbridge.sources.falco_http import FalcoHttp
from support.bridge import PATIENCE
from support.http import Http, alert
from support.ledger import Ledger


def run_to_its_end(folder: Path, **source: Any) -> tuple[int, str]:
    """The exit status and the message of a bridge that cannot start."""
    bridge = Http(folder, **source).bridge
    ended = subprocess.run(
        [sys.executable, "-m", "adsbridge", "run", "-c", str(bridge.path)],
        capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stderr.decode()


def test_a_port_in_use(tmp_path: Path) -> None:
    """The bridge ends with 2 and says which address it could not have, and why."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        status, message = run_to_its_end(tmp_path, listen=address)
    assert status == 2
    assert f"cannot listen on {address}" in message
    assert "in use" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:2801", "bridge.example.com:2801"])
def test_what_other_machines_can_reach_needs_tls(tmp_path: Path, listen: str) -> None:
    """Plain HTTP on such an address is a mistake in the configuration, unless it is said on purpose."""
    with pytest.raises(ConfigError, match="set tls, or say allow_plaintext: true"):
        config.read(Http(tmp_path, listen=listen).bridge.path)
    assert config.read(Http(tmp_path, listen=listen, allow_plaintext=True).bridge.path)


def test_a_bridge_that_others_could_reach_unprotected_does_not_start(tmp_path: Path) -> None:
    """It ends with 2 and says where the mistake is."""
    status, message = run_to_its_end(tmp_path, listen="0.0.0.0:0")
    assert status == 2
    assert f"{tmp_path}/adsbridge.yaml:1:" in message


def test_plaintext_for_others_on_purpose(tmp_path: Path) -> None:
    """Behind a proxy of one's own it may be right."""
    with Http(tmp_path, listen="0.0.0.0:0", allow_plaintext=True) as bridge:
        assert bridge.request("GET", "/ping").status == 200


class Authority:
    """Makes certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        own = self._build(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.path.write_bytes(self._signed(own))

    def _build(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key for a server on loopback, or a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = (
            self._build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
            .add_extension(address, critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        certificate, secret = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.write_bytes(self._signed(builder))
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        secret.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
        return certificate, secret


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


def trusting(authority: Authority, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.path)
    if certificate:
        context.load_cert_chain(*certificate)
    return context


def test_tls(tmp_path: Path, authority: Authority) -> None:
    """With a certificate the source serves HTTPS, TLS 1.2 at least; plain HTTP gets nowhere and hurts nobody."""
    certificate, key = authority.issue("server")
    with Http(tmp_path, tls={"certificate": str(certificate), "key": str(key)}) as bridge:
        assert bridge.bridge.source_url("falco").startswith("https://")
        assert bridge.request("POST", "/", alert("encrypted"), trusting(authority)).status == 200
        assert until_closed_after(bridge, b"POST / HTTP/1.1\r\n\r\n") == b""
        old = trusting(authority)
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            bridge.request("GET", "/ping", tls=old)
        bridge.delivers("encrypted")


def until_closed_after(bridge: Http, sent: bytes) -> bytes:
    return b"" if bridge.raw(sent)[:5] != b"HTTP/" else b"an answer"


def test_tls_with_client_certificates(tmp_path: Path, authority: Authority) -> None:
    """With client_ca only clients that it signed get in."""
    certificate, key = authority.issue("server")
    stranger = Authority(tmp_path, "stranger").issue("someone")
    tls = {"certificate": str(certificate), "key": str(key), "client_ca": str(authority.path)}
    with Http(tmp_path, tls=tls) as bridge:
        for context in (trusting(authority), trusting(authority, stranger)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                bridge.request("POST", "/", alert("no"), context)
        right = trusting(authority, authority.issue("client"))
        assert bridge.request("POST", "/", alert("yes"), right).status == 200
        bridge.delivers("yes")


def test_the_limit_of_connections_holds_for_tls(tmp_path: Path, authority: Authority) -> None:
    """A connection beyond it gets its 503 encrypted like any answer."""
    certificate, key = authority.issue("server")
    tls = {"certificate": str(certificate), "key": str(key)}
    with Http(tmp_path, tls=tls, max_connections=1) as bridge:
        first = http.client.HTTPSConnection("127.0.0.1", bridge.port, context=trusting(authority), timeout=PATIENCE)
        first.request("GET", "/ping")
        assert bridge.answer(first).status == 200
        assert bridge.request("GET", "/ping", tls=trusting(authority)).status == 503
        first.close()


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    """It is told at the start, with the address that cannot be served."""
    (tmp_path / "empty").touch()
    tls = {"certificate": str(tmp_path / "empty"), "key": str(tmp_path / "empty")}
    source = FalcoHttp("f", FalcoHttp.Config.model_validate({"listen": "127.0.0.1:0", "tls": tls}))
    with pytest.raises(StartError, match=r"cannot listen on 127\.0\.0\.1:0"):
        asyncio.run(source.start(Ledger()))
