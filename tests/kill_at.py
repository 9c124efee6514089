"""Run a script and kill it at the n-th replacement or removal below its folder.

python tests/kill_at.py SCRIPT N FLAGS      # SCRIPT without .py; FLAGS name the folder: --data or --output-dir
"""

import importlib
import os
import shutil
import sys
from pathlib import Path

script, moment, *flags = sys.argv[1:]
folder = flags[flags.index("--data" if script == "prepare_data" else "--output-dir") + 1]
done = 0


def killing(call):
    """Return ``call``, which ends the process where it would be the n-th one below the folder."""

    def wrapper(*args, **options):
        global done
        if any(str(arg).startswith(folder) for arg in args):
            done += 1
            if done == int(moment):
                os._exit(9)
        return call(*args, **options)

    return wrapper


Path.replace, Path.unlink, shutil.rmtree = killing(Path.replace), killing(Path.unlink), killing(shutil.rmtree)
sys.argv = [script + ".py", *flags]
importlib.import_module(script).main()
