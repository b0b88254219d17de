"""Which names a request may call the server by.

A page on the web can point a name of its own at this machine (DNS rebinding); the browser then takes the server for a
part of that page. Such a request names the page's host, so the server answers to no name that it was not given.
"""

from collections.abc import Iterable
from ipaddress import ip_address


class Hosts:
    """Addresses, which no page can point elsewhere, `localhost`, and the given names."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {"localhost", *(name.lower() for name in names)}

    def allows(self, header: str) -> bool:
        """header: the Host of a request, with or without a port."""
        host = header.lower()
        host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return host in self._names or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
