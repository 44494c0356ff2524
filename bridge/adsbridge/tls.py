"""TLS settings for what listens and for what connects."""

from __future__ import annotations

import ssl

from pydantic import Field, FilePath, model_validator

from adsbridge.components import Settings


class ServerTls(Settings):
    """TLS of a listener."""

    certificate: FilePath = Field(description="PEM file with the certificate and its chain")
    key: FilePath = Field(description="PEM file with the private key")
    client_ca: FilePath | None = Field(None, description="PEM file; clients must show a certificate that it signed")

    def context(self) -> ssl.SSLContext:
        """The context for a listener, TLS 1.2 or newer.

        Raises:
            OSError: a file cannot be read or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class ClientTls(Settings):
    """TLS of a connection that the bridge makes."""

    ca: FilePath | None = Field(None, description="PEM file with the authorities to trust instead of the system's")
    certificate: FilePath | None = Field(None, description="PEM file with the client's certificate")
    key: FilePath | None = Field(None, description="PEM file with the client's private key")

    @model_validator(mode="after")
    def _pair(self) -> ClientTls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return self

    def context(self) -> ssl.SSLContext:
        """The context for a connection, TLS 1.2 or newer, with the host name checked.

        Raises:
            OSError: a file cannot be read or is not what it should be.
        """
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context
