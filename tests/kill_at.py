"""Run a script and kill it at a moment when it replaces, renames or removes a file of its folder.

python tests/kill_at.py SCRIPT MOMENT FLAGS

SCRIPT is without .py. MOMENT is a number n, for the n-th of these operations, or the name of a file
or folder, for the first operation on it. FLAGS name the folder: --data or --output-dir.
"""

import os
import runpy
import shutil
import sys
from pathlib import Path

script, moment, *flags = sys.argv[1:]
folder = flags[flags.index("--data" if script == "prepare_data" else "--output-dir") + 1]
done = 0


def killing(call):
    """Return ``call``, which ends the process where it would be the operation of the MOMENT."""

    def wrapper(*args, **options):
        global done
        if any(str(arg).startswith(folder) for arg in args):
            done += 1
            if moment in (str(done), Path(args[0]).name):
                os._exit(9)
        return call(*args, **options)

    return wrapper


for name in ("replace", "rename", "unlink"):
    setattr(Path, name, killing(getattr(Path, name)))
shutil.rmtree = killing(shutil.rmtree)
sys.argv = [f"{script}.py", *flags]
runpy.run_path(sys.argv[0], run_name="__main__")
