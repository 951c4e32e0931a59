"""The ports that servers on this machine are to listen on.

Belongs here: looking whether they can be had, before anything is started.
Does not belong here: the servers.
"""

import errno
import socket
from collections.abc import Sequence

from syncflow_core.errors import ConfigError


def check_ports(host: str, ports: Sequence[int], choose: str) -> None:
    """A server can listen on each of these ports; 0 is any free one.

    Args:
        host: The address to listen on.
        ports: The ports.
        choose: How a person chooses others.

    Raises:
        ConfigError: One is taken, or stands twice, or this machine or user may not have it.
    """
    for port in filter(None, ports):
        if ports.count(port) > 1:
            raise ConfigError(f"port {port} is given to two servers ({choose})")
    taken = []
    for port in ports:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise ConfigError(
                        f"cannot listen on {host}, port {port}: {error.strerror}"
                    ) from error
                taken.append(str(port))
    if taken:
        named = f"ports {', '.join(taken)} are" if len(taken) > 1 else f"port {taken[0]} is"
        raise ConfigError(f"{named} taken: is another syncflow up or sandbox running? ({choose})")
