"""Alerts to an HTTP endpoint, signed by Standard Webhooks (https://www.standardwebhooks.com, version 1.0.0)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import hashlib
import hmac
import re
import time
from email.utils import parsedate_to_datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

import aiohttp
from pydantic import AfterValidator, Field, SecretStr, model_validator

from adsbridge import __version__
from adsbridge.components import Settings
from adsbridge.errors import Permanent, Retryable, StartError
from adsbridge.parse.values import one_line
from adsbridge.sinks.base import Batch, Sink
from adsbridge.tls import ClientTls
from adsbridge.units import Address, Duration

_REFUSED = {400, 413, 415, 422}
_PREFIX = "whsec_"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OWN_HEADERS = {"content-type", "content-length", "content-encoding", "host", "transfer-encoding"}


def _is_secret(value: SecretStr) -> SecretStr:
    try:
        key = base64.b64decode(value.get_secret_value().removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("expected base64, with or without 'whsec_' before it") from None
    if not 24 <= len(key) <= 64:
        raise ValueError(f"expected a key of 24 to 64 bytes in base64, this has {len(key)}")
    return value


SigningSecret = Annotated[SecretStr, AfterValidator(_is_secret)]


class WebhookSettings(Settings):
    """Settings of the webhook sink."""

    url: str = Field(repr=False, description="http:// or https:// address that takes POST")
    mode: Literal["batch", "single"] = Field(
        "batch", description="batch: a JSON array of alerts; single: one request per alert, a JSON object"
    )
    secrets: list[SigningSecret] = Field(
        [],
        description="Standard Webhooks signing keys (whsec_…); with several, each signs, so keys can be rotated",
    )
    headers: dict[str, SecretStr] = Field({}, description="Further request headers, e.g. Authorization")
    gzip: bool = Field(False, description="Compress the body; the signature is of the body before compression")
    tls: ClientTls = ClientTls()
    allow_plaintext: bool = Field(False, description="Allow http:// to another machine")
    connect_timeout: Duration = Field(10.0, description="Longest time to get a connection")

    @model_validator(mode="after")
    def _url_is_safe(self) -> WebhookSettings:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("url: expected http://… or https://…")
        try:
            parts.port  # noqa: B018 - refuses what cannot be one
            parts.hostname.encode("idna")
        except ValueError:
            raise ValueError("url: its host or port cannot be one") from None
        if parts.username or parts.password:
            raise ValueError("url: put credentials into headers, not into the address")
        plain = parts.scheme == "http" and not Address(parts.hostname, parts.port or 80).is_loopback
        if plain and not self.allow_plaintext:
            raise ValueError(
                "url: http:// sends alerts unencrypted to another machine; use https://, or say allow_plaintext: true"
            )
        if taken := sorted(name for name in self.headers if name.lower() in _OWN_HEADERS):
            raise ValueError(f"headers: {', '.join(taken)} cannot be set here")
        for name, value in self.headers.items():
            if not _TOKEN.match(name) or _UNSENDABLE.search(value.get_secret_value()):
                raise ValueError(f"headers: {name!r} or its value has characters that HTTP headers cannot carry")
        return self


class Webhook(Sink):
    """Posts alerts to an HTTP endpoint, with Standard Webhooks signatures.

    2xx means delivered; 400, 413, 415 and 422 refuse the content for good; all else is tried again, with
    Retry-After respected. Redirects are not followed.
    """

    type = "webhook"
    Config = WebhookSettings
    example = "url: https://soc.example.com/alerts\nsecrets: ['${file:/etc/adsbridge/webhook.secret}']\ngzip: true"
    settings: WebhookSettings

    def __init__(self, name: str, settings: WebhookSettings) -> None:
        super().__init__(name, settings)
        self._keys = [base64.b64decode(secret.get_secret_value().removeprefix(_PREFIX)) for secret in settings.secrets]
        self._session: aiohttp.ClientSession | None = None
        self.most = 1 if settings.mode == "single" else None

    async def open(self) -> None:
        """Load certificates; see ``Sink.open``."""
        try:
            context = self.settings.tls.context()
        except OSError as error:
            raise StartError(f"sink {self.name}: tls: {error}") from error
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=4),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.settings.connect_timeout),
            headers={"User-Agent": f"adsbridge/{__version__}"},
            auto_decompress=False,
        )

    async def send(self, batch: Batch) -> None:
        """Post the batch; see ``Sink.send``."""
        if self.settings.mode == "single":
            (payload,) = batch.payloads
            await self._post(payload, batch.alerts[0].id)
        else:
            await self._post(b"[%b]" % b",".join(batch.payloads), batch.id)

    async def _post(self, body: bytes, identity: str) -> None:
        assert self._session is not None, "open() comes first"  # noqa: S101
        headers = {"Content-Type": "application/json"}
        headers |= {name: value.get_secret_value() for name, value in self.settings.headers.items()}
        headers |= self._signed(identity, body)
        if self.settings.gzip:
            headers["Content-Encoding"] = "gzip"
            body = await asyncio.to_thread(gzip.compress, body, 1)
        try:
            async with self._session.post(
                self.settings.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                await response.content.read(64 * 1024)
                _judge(response)
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable(self._told(error)) from error

    def _signed(self, identity: str, body: bytes) -> dict[str, str]:
        stamp = str(int(time.time()))
        headers = {"webhook-id": identity, "webhook-timestamp": stamp}
        content = b".".join((identity.encode(), stamp.encode(), body))
        signatures = [hmac.new(key, content, hashlib.sha256).digest() for key in self._keys]
        if signatures:
            headers["webhook-signature"] = " ".join(f"v1,{base64.b64encode(one).decode()}" for one in signatures)
        return headers

    async def probe(self) -> None:
        """Connect and ask with HEAD; any HTTP answer will do. See ``Sink.probe``."""
        await self.open()
        assert self._session is not None  # noqa: S101 - open() made it
        timeout = aiohttp.ClientTimeout(total=self.settings.connect_timeout)
        try:
            async with self._session.head(self.settings.url, timeout=timeout, allow_redirects=False):
                return
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Retryable(self._told(error)) from error
        finally:
            await self.close()

    def _told(self, error: Exception) -> str:
        # aiohttp's text for an answer that is no HTTP names the whole address, and its path may hold a token.
        said = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
        if isinstance(error, aiohttp.InvalidURL):
            said = "is no address"
        return f"{_origin(self.settings.url)}: {one_line(said) or type(error).__name__}"

    async def close(self) -> None:
        """Close the connections; see ``Sink.close``."""
        if self._session is not None:
            await self._session.close()


def _judge(response: aiohttp.ClientResponse) -> None:
    if 200 <= response.status < 300:
        return
    said = f"{_origin(str(response.url))} answered {response.status} {one_line(response.reason or '')}".rstrip()
    if response.status in _REFUSED:
        raise Permanent(said)
    raise Retryable(said, retry_after=retry_after(response.headers.get("Retry-After")))


def retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110, section 10.2.3), or ``None``."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _origin(url: str) -> str:
    """Scheme, host and port: an address's path may hold a token, and this goes into logs."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
