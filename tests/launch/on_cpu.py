"""``accelerate launch`` for GPUs, FSDP included, with CPU tensors and gloo in their place.

python tests/launch/on_cpu.py --config_file tests/launch/fsdp.yaml train_accelerate.py
"""

import os
import runpy
import sys

from accelerate.commands.launch import _validate_launch_command, launch_command_parser, multi_gpu_launcher
from accelerate.state import PartialState
from accelerate.utils import DistributedType

if "LOCAL_RANK" not in os.environ:  # the launcher: starts this file on each process
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args())
    args.training_script_args = [args.training_script, *args.training_script_args]
    args.training_script = __file__
    multi_gpu_launcher(args)
else:
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":  # which accelerate ignores on CPU processes
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.getcwd())
    runpy.run_path(sys.argv[0], run_name="__main__")
