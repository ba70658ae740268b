"""Which network addresses a service may live at: a name that leads elsewhere is not followed (rule 55).

Vendors' services are on the public Internet, so that private, loopback, link-local and other special addresses are
refused for them, whatever the name's resolution says. A service that is configured as private (a PCCS in one's own
network) may be anywhere, but never at a cloud's metadata service, which gives credentials to whoever asks.
"""

from __future__ import annotations

import ipaddress
import socket

from strongroom.errors import Refused, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google and others
        "169.254.170.2",  # credentials of AWS tasks
        "169.254.170.23",
        "168.63.129.16",  # Azure's host, which looks public
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
    )
)
# Addresses that carry an IPv4 address within them: NAT64 (RFC 6052, RFC 8215).
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


def resolve(host: str, port: int, *, private: bool) -> tuple[str, ...]:
    """The addresses of `host`, all of which may be spoken to. Raises `Refused`, or `Unavailable` when there are none.

    The caller connects to one of these very addresses and does not resolve again: the next answer may be another.
    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as cause:
        raise Unavailable(
            f"{host}: no address: {cause}",
            code="vendor-unreachable",
            hint="see whether the name is spelled right, and whether this machine has DNS",
        ) from None
    out = tuple(dict.fromkeys(str(entry[4][0]) for entry in infos))
    for address in out:
        check(address, host=host, private=private)
    return out


def check(text: str, *, host: str, private: bool) -> None:
    """Refuse an address that a service of that kind cannot have."""
    address = ipaddress.ip_address(text.partition("%")[0])
    for form in (address, *_within(address)):
        special = form in METADATA or form.is_link_local or form.is_multicast or form.is_unspecified
        if special or not (private or form.is_global):
            raise Refused(
                f"{host}: leads to {text}, which is no address of a {'configured' if private else 'public'} service",
                code="forbidden-address",
                hint="somebody answers for that name who should not"
                if special or private
                else "a PCCS or mirror in your own network has to be configured as such",
            )


def _within(address: Address) -> tuple[Address, ...]:
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    within: list[Address] = []
    if address.ipv4_mapped is not None:
        within.append(address.ipv4_mapped)
    if address.sixtofour is not None:
        within.append(address.sixtofour)
    if address.teredo is not None:
        within.extend(address.teredo)
    if any(address in network for network in _NAT64):
        within.append(ipaddress.IPv4Address(address.packed[-4:]))
    return tuple(within)
