"""Keys and values of the running requests, and the two ways to attend to them.

A request owns one slot; its tokens lie left-aligned in it. Slots 0..n-1 are the n running rows, so
a decoding step reads a view of the cache and gathers nothing.

Shapes: B rows, T new tokens, S cached tokens, H query heads, G key-value heads, R = H / G,
K channels of a head.

Sizes are rounded (`ROWS`, `TOKENS`) because a matrix product of few or odd rows may run another
kernel, with another order of summation. With rounded sizes a row's numbers do not depend on its
neighbours: what else is running does not change an answer, not even by rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from flywright.errors import UserError
from flywright.model.attention import Attend, causal
from flywright.spec import ModelSpec

ROWS = 4
TOKENS = 16


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple that holds `count`."""
    return -(-count // multiple) * multiple


def pad_rows(value_BD: Tensor) -> Tensor:
    """The rows with zero rows appended up to a multiple of ROWS."""
    missing = -value_BD.shape[0] % ROWS
    return F.pad(value_BD, (0, 0, 0, missing)) if missing else value_BD


class KVCache:
    """Preallocated [layers, slots, G, capacity, K] keys and values of a model's running rows.

    Bytes: slots * capacity * spec.kv_bytes_per_token(bytes of a value), at most `most_bytes`: a
    long context takes slots away first, and where not even ROWS of them fit, its own length.
    Raises UserError where they hold none.
    """

    def __init__(
        self,
        spec: ModelSpec,
        slots: int,
        dtype: torch.dtype,
        device: torch.device,
        most_bytes: int = 1 << 31,
    ):
        most_tokens = most_bytes // spec.kv_bytes_per_token(dtype.itemsize)
        fitting = most_tokens // ROWS // TOKENS * TOKENS
        if not fitting:
            raise UserError(f"a cache of {most_bytes} bytes holds no context of this model")
        self.context_length = min(spec.context_length, fitting)
        self.capacity = round_up(self.context_length, TOKENS)
        rows = most_tokens // max(self.capacity, 1) // ROWS * ROWS
        self.slots = min(round_up(slots, ROWS), rows)
        shape = (spec.layers, self.slots, spec.kv_heads, self.capacity, spec.head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)  # zeros: masked, yet multiplied
        self.v = torch.zeros(shape, dtype=dtype, device=device)

    def prefill(self, first: int) -> Attend:
        """Attend causally among new tokens, and store them from position 0 of slots `first`...

        Prompts are padded on the right, where no real token looks.
        """

        def attend(layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
            rows, tokens = k_BGTK.shape[0], k_BGTK.shape[2]
            self.k[layer, first : first + rows, :, :tokens] = k_BGTK
            self.v[layer, first : first + rows, :, :tokens] = v_BGTK
            return causal(layer, q_BHTK, k_BGTK, v_BGTK)

        return attend

    def decode(self, lengths_B: Tensor) -> Attend:
        """Store one new token a row at position `lengths_B` of slots 0..B-1, and attend to all.

        Reads no further than the longest row; query heads that share a key head are laid out as
        R queries of that head, so that no key is repeated in memory.
        """
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        longest = round_up(int(lengths_B.max()) + 1, TOKENS)
        behind_BS = torch.arange(longest, device=lengths_B.device) > lengths_B[:, None]
        mask_B11S = torch.zeros(behind_BS.shape, dtype=self.k.dtype, device=self.k.device)
        mask_B11S = mask_B11S.masked_fill_(behind_BS, float("-inf"))[:, None, None]

        def attend(layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
            k_SGCK, v_SGCK = self.k[layer], self.v[layer]
            k_SGCK[rows_B, :, lengths_B] = k_BGTK[:, :, 0]
            v_SGCK[rows_B, :, lengths_B] = v_BGTK[:, :, 0]
            rows, groups = k_BGTK.shape[:2]
            out_BGRK = F.scaled_dot_product_attention(
                q_BHTK.reshape(rows, groups, -1, q_BHTK.shape[-1]),
                k_SGCK[:rows, :, :longest],
                v_SGCK[:rows, :, :longest],
                attn_mask=mask_B11S,
            )
            return out_BGRK.reshape(q_BHTK.shape)

        return attend

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot into another."""
        self.k[:, target, :, :length] = self.k[:, source, :, :length]
        self.v[:, target, :, :length] = self.v[:, source, :, :length]
