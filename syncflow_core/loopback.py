"""Whether an address is this machine's alone.

Belongs here: telling it.
Does not belong here: what is allowed there and nowhere else (the API's own secret, the sandbox's password).
"""

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Whether only this machine reaches what listens there.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "erp.example", None)]
    [True, True, True, False, False, False]
    """
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
