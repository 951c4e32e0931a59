"""Nothing comes in under a licence that is refused, or under none."""

import subprocess
import sys

from compose import ROOT


def test_every_package_has_a_known_licence_and_is_listed() -> None:
    script = [sys.executable, str(ROOT / ".ci/licences.py"), "--check"]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
