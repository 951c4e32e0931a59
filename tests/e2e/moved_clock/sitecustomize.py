"""For processes under libfaketime: it takes an absolute sleep for a wrong one, so sleep by waiting."""

import threading
import time


def _sleep(seconds: float) -> None:
    threading.Event().wait(seconds)


time.sleep = _sleep
