"""Reading NVIDIA's .nemo checkpoints into a weights folder (SPEC 12.2).

with open_nemo(Path("x.nemo")) as nemo:
    nemo.write_weights(folder)

archive.py gives files out of a tar or a folder; zarr_layout.py and torch_dist_layout.py find the
tensors in them; mcore.py knows what the tensors are called.
"""

from flywright.model.nemo.nemo import Nemo, open_nemo

__all__ = ["Nemo", "open_nemo"]
