"""The Nemotron decoder, written for one device, and its folders.

model = load("runs/x/policy")          # Decoder, or RewardModel for a reward folder
logits_BTV = model(ids_BT)
"""

from flywright.model.decoder import Decoder, InitialTensors
from flywright.model.reward import RewardModel
from flywright.model.weights import load, load_decoder, open_meta, read_spec, save

__all__ = ["Decoder", "InitialTensors", "RewardModel"]
__all__ += ["load", "load_decoder", "open_meta", "read_spec", "save"]
