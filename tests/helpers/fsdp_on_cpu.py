"""train.py under FSDP2 on processes without a GPU, where Accelerate would put up with plain data parallelism.

Start it like train.py, by torchrun, with ACCELERATE_USE_FSDP and its like.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

import train

begin = AcceleratorState.__init__


def begin_with_fsdp(self, *arguments, fsdp_plugin=None, **options):
    begin(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


AcceleratorState.__init__ = begin_with_fsdp

if __name__ == "__main__":
    train.main()
