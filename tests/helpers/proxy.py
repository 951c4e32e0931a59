"""A TCP proxy between SyncFlow and what it talks to: cuts, drips and holds what goes through."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Side = Literal["there", "back"]
Deed = Literal["pass", "cut", "drip", "hold"]
Rule = Callable[[Side, bytes], Deed]
"""Told of each piece that passes, and of its direction; ``cut`` resets the connection without passing it on."""

DRIP_S = 0.3
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing sends RST


class Proxy:
    """Forwards a port of its own to another one; ``rule`` may be changed at any time."""

    def __init__(self, port: int) -> None:
        self.rule: Rule = lambda *_: "pass"
        self.released = threading.Event()
        """Lets pieces go that are held."""
        self.struck = 0
        """How many pieces did not simply pass."""
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection that is open now."""
        for end in self._open:
            _reset(end)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(self._target)
            except OSError:
                return  # closed
            self._open += [ours, theirs]
            for side, source, target in (("there", ours, theirs), ("back", theirs, ours)):
                threading.Thread(
                    target=self._forward, args=(side, source, target), daemon=True
                ).start()

    def _forward(self, side: Side, source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(1 << 16):
                deed = self.rule(side, piece)
                self.struck += deed != "pass"
                if deed == "cut":
                    _reset(source)
                    _reset(target)
                    return
                if deed == "hold":
                    self.released.wait()
                if deed == "drip":
                    for at in range(len(piece)):
                        target.sendall(piece[at : at + 1])
                        time.sleep(DRIP_S)
                else:
                    target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return  # one of the two has gone


def _reset(end: socket.socket) -> None:
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.shutdown(socket.SHUT_RD)  # wakes who reads from it
    except OSError:
        pass  # it has gone already
    end.close()


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """A proxy before *port* while the context lasts."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


def nth(side: Side, words: bytes, number: int, deed: Deed) -> Rule:
    """The deed on the n-th piece of that direction which has the words."""
    seen = 0

    def rule(at: Side, piece: bytes) -> Deed:
        nonlocal seen
        if at == side and words in piece:
            seen += 1
            if seen == number:
                return deed
        return "pass"

    return rule
