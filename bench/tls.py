"""An authority for one run, thrown away with the server that made it."""

import ssl
from importlib import import_module
from typing import Any


def certified() -> tuple[ssl.SSLContext, str]:
    """A server's context for 127.0.0.1, and its authority's certificate as PEM."""
    trustme: Any = import_module("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context, authority.cert_pem.bytes().decode()


def trusting(authority: str) -> ssl.SSLContext:
    """A client's context that trusts this authority alone."""
    return ssl.create_default_context(cadata=authority)
