"""What a run prints: every byte is in the file and where it went before; nothing is needed but the process itself."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, subprocess, sys
from pathlib import Path
from syncflow_dagster.printed import kept, left_alone

def speak(number):
    print("python", number, flush=True)
    os.write(1, b"native %d\\n" % number)
    subprocess.run(["echo", "child", str(number)], check=True)
    sys.stderr.write("warning %d\\n" % number)

streams = [(sys.stdout, Path("run/out")), (sys.stderr, Path("run/err"))]
speak(0)
with kept(streams):
    speak(1)
    print("x" * int(sys.argv[1]), flush=True)
    if "die" in sys.argv:
        os.kill(os.getpid(), 9)
speak(2)
with left_alone(), kept([(sys.stdout, Path("command/out"))]):
    speak(3)
"""


def said(number: int) -> str:
    return f"python {number}\nnative {number}\nchild {number}\n"


def speaking(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("length", [1, 300_000])  # a pipe holds 64 KiB
def test_all_that_is_printed_is_kept_and_shown_in_its_order(tmp_path: Path, length: int) -> None:
    out, err = speaking(tmp_path, str(length)).communicate(timeout=60)

    long = "x" * length + "\n"
    assert out == said(0) + said(1) + long + said(2) + said(3)
    assert err == "".join(f"warning {number}\n" for number in range(4))
    assert (tmp_path / "run/out").read_text() == said(1) + long
    assert (tmp_path / "run/err").read_text() == "warning 1\n"
    assert (tmp_path / "command/out").read_text().count("\n") == 1
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0


def test_what_nobody_reads_any_more_is_kept(tmp_path: Path) -> None:
    process = speaking(tmp_path, "300000")
    assert process.stdout is not None
    assert "".join(process.stdout.readline() for _ in range(3)) == said(0)
    process.stdout.close()
    process.communicate(timeout=60)

    assert (tmp_path / "run/out").read_text() == said(1) + "x" * 300_000 + "\n"


def test_a_process_that_is_killed_has_its_last_words_in_the_file_and_leaves_nobody_behind(
    tmp_path: Path,
) -> None:
    process = speaking(tmp_path, "5", "die")
    out, _ = process.communicate(timeout=60)  # returns when nobody holds the pipe any more

    assert process.returncode == -signal.SIGKILL
    assert out.startswith(said(0))
    assert (tmp_path / "run/out").read_text() == said(1) + "xxxxx\n"
