"""``python -m syncflow_core.sandbox``: both servers until SIGTERM or SIGINT.

Belongs here: the command's options and its one line of output.
Does not belong here: the processes (``process``).
"""

import argparse
import json
import signal
import sys
from types import FrameType

from syncflow_core.sandbox.process import PASSWORD, USERNAME, Sandbox


def main(arguments: list[str] | None = None) -> int:
    """Start both servers, print where they are, wait; 0 after a signal."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        with Sandbox.start(
            options.database_url,
            options.apismith_port,
            options.schedulehub_port,
            rows=options.rows,
            seed=options.seed,
            username=options.username,
            password=options.password,
            durable=options.durable,
        ) as sandbox:
            place = {"apismith": sandbox.apismith_url, "schedulehub": sandbox.schedulehub_url}
            sys.stdout.write(json.dumps(place) + "\n")
            sys.stdout.flush()
            return sandbox.wait()
    except KeyboardInterrupt:
        return 0


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m syncflow_core.sandbox", description=__doc__)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--apismith-port", type=int, default=8007, help="0 takes a free port")
    parser.add_argument("--schedulehub-port", type=int, default=5180, help="0 takes a free port")
    parser.add_argument("--rows", type=int, help="seed the ERP with so many rows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--username", default=USERNAME)
    parser.add_argument("--password", default=PASSWORD)
    parser.add_argument("--durable", action="store_true", help="the hub waits for the disk")
    return parser


if __name__ == "__main__":
    sys.exit(main())
