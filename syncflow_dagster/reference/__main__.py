"""``python -m syncflow_dagster.reference FOLDER`` makes every page anew.

Belongs here: the command.
Does not belong here: the pages.
"""

import sys
from pathlib import Path

from syncflow_dagster.reference.pages import write

if __name__ == "__main__":
    write(Path(sys.argv[1]))
