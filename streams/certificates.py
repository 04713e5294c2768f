"""Certificates and keys from the files that options name, with faults that name the option and the file."""

from __future__ import annotations

import ssl
from pathlib import Path

from streams.config import Config, ConfigError


def check_readable(config: Config, *options: str) -> None:
    """Raises ConfigError for the first of these files that is set and cannot be read."""
    for option in options:
        if path := getattr(config, option):
            try:
                Path(path).open("rb").close()
            except OSError as error:
                raise ConfigError(f"{_variable(option)}: {path}: {error.strerror}") from None


def load_pair(context: ssl.SSLContext, config: Config, certfile: str, keyfile: str) -> None:
    """Load a certificate, and its private key, which may be in the same file. Raises ConfigError."""

    def no_passphrase() -> str:
        raise ConfigError(f"{_variable(keyfile)}: the private key is encrypted; give it without a passphrase")

    certificate, key = getattr(config, certfile), getattr(config, keyfile)
    try:
        context.load_cert_chain(certificate, key or None, no_passphrase)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{_variable(certfile)}: {certificate}, with the key in {key or 'the same file'}, "
            f"is no certificate with its private key in PEM: {error.reason}"
        ) from None


def _variable(option: str) -> str:
    return f"CONSENT_{option.upper()}"
