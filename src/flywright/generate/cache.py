"""Keys and values in pages, and how the tokens of a step attend to them.

Shapes: T tokens of a step, all rows end to end; P a row's pages; H query heads, G key-value heads,
K channels of a head; M tokens whose output is asked for.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flywright.errors import UserError
from flywright.generate.native import PAGE_TOKENS, Compiled, Tables, compiled
from flywright.generate.pages import pages_for
from flywright.generate.scheduler import Request, wanted_of
from flywright.model.attention import Attend
from flywright.spec import ModelSpec

_NUMPY = {torch.bfloat16: np.uint16, torch.float16: np.uint16, torch.float32: np.float32}


@dataclass(frozen=True)
class Step:
    """What one step computes, as int32 tensors: [T] ids, row and position; [rows, P] the table of
    pages; [M] places in the step whose output is asked for."""

    ids: Tensor
    row: Tensor
    position: Tensor
    table: Tensor
    wanted: Tensor

    @classmethod
    def of(cls, step: dict[Request, int], least: int, device: torch.device) -> "Step":
        """From a plan, with at least `least` tokens: what is added goes to the page of nobody."""
        ids, row, position, wanted = [], [], [], []
        for index, (request, tokens) in enumerate(step.items()):
            end = request.cached + tokens
            ids += request.ids[request.cached : end]
            row += [index] * tokens
            position += range(request.cached, end)
            wanted += range(len(ids) - wanted_of(request, tokens), len(ids))
        pages = [request.pages for request in step]
        if len(ids) < least:
            missing = least - len(ids)
            ids, position = ids + [0] * missing, [*position, *range(missing)]
            row, pages = row + [len(pages)] * missing, [*pages, []]
        width, T = max(len(one) for one in pages), len(ids)
        table = [page for one in pages for page in (*one, *[0] * (width - len(one)))]
        flat = torch.tensor(ids + row + position + table + wanted, dtype=torch.int32, device=device)
        return cls.parted(flat, T, len(pages), width)

    @classmethod
    def parted(cls, flat: Tensor, T: int, rows: int, width: int) -> "Step":
        """From all its numbers in one tensor: ids, row, position, table, wanted."""
        sizes = [T, T, T, rows * width, len(flat) - 3 * T - rows * width]
        ids, row, position, table, wanted = flat.split(sizes)
        return cls(ids, row, position, table.view(rows, width), wanted)


class PagedCache:
    """[layers, pages, G, K / pair, page, pair] keys and [.., G, page / pair, K, pair] values.

    `pair` numbers are multiplied at once by the compiled attention: 2 in bf16, else 1.

    At most `most_bytes` of them, and no more than `max_batch` whole contexts; page 0 is nobody's.
    Where they do not hold one whole context, `context_length` is what they hold. Memory is taken
    from the system when a page is first written. Raises UserError where they hold nothing.
    """

    def __init__(
        self,
        spec: ModelSpec,
        max_batch: int,
        dtype: torch.dtype,
        device: torch.device,
        most_bytes: int = 1 << 31,
    ):
        each = PAGE_TOKENS * spec.kv_bytes_per_token(dtype.itemsize)
        self.pages = min(most_bytes // each, max_batch * pages_for(spec.context_length))
        if not self.pages:
            raise UserError(f"a cache of {most_bytes} bytes holds no context of this model")
        self.context_length = min(spec.context_length, self.pages * PAGE_TOKENS)
        self.native, pair = None, 1
        if device.type == "cpu":
            self.native = compiled(dtype, spec.heads, spec.kv_heads, spec.head_dim)
            pair = 2 if self.native and dtype == torch.bfloat16 else 1
        shape = (spec.layers, self.pages + 1, spec.kv_heads)
        self.k = _zeros((*shape, spec.head_dim // pair, PAGE_TOKENS, pair), dtype, device)
        self.v = _zeros((*shape, PAGE_TOKENS // pair, spec.head_dim, pair), dtype, device)
        layers = range(spec.layers)
        self.pointers = [(self.k[i].data_ptr(), self.v[i].data_ptr()) for i in layers]

    @property
    def exact(self) -> bool:
        """True if an attention's bits do not depend on what else is in the step."""
        return self.native is not None

    def attend(self, step: Step) -> Attend:
        """Store each token's key and value, and let it attend to its row up to itself."""
        if self.native is None:
            return gathered(self.k, self.v, step)
        return Paged(self.native, self.pointers, (step.table, step.row, step.position))


@dataclass(frozen=True)
class Paged:
    """An Attend by the compiled attention; `packed` takes what is not rotated yet."""

    native: Compiled
    pointers: list[tuple[int, int]]
    where: tuple[Tensor, Tensor, Tensor]

    def __call__(self, layer: int, q_1HTK: Tensor, k_1GTK: Tensor, v_1GTK: Tensor) -> Tensor:
        return self.native(q_1HTK, k_1GTK, v_1GTK, self.pointers[layer], self.where)

    def packed(self, layer: int, qkv_1TE: Tensor, tables: Tables) -> Tensor:
        """Out [1, T, H * K] of queries, keys and values side by side."""
        return self.native.packed(qkv_1TE, tables, self.pointers[layer], self.where)


def gathered(k_pages: Tensor, v_pages: Tensor, step: Step) -> Attend:
    """The same by torch's own operations, each row's pages gathered: the compiled one's slow twin.

    Rows of one token go as a batch, the others one by one.
    """
    row_T, position_T = step.row.long(), step.position.long()
    page_T = step.table.long()[row_T, position_T // PAGE_TOKENS]
    at_T, pair = position_T % PAGE_TOKENS, k_pages.shape[-1]
    counts = torch.bincount(row_T).tolist()
    starts = np.cumsum([0, *counts])
    single = [index for index, tokens in enumerate(counts) if tokens == 1]
    groups = [single] if single else []
    groups += [[index] for index, tokens in enumerate(counts) if tokens > 1]
    takes = []
    for group in groups:
        places = torch.tensor([range(starts[i], starts[i + 1]) for i in group], device=row_T.device)
        here_BQ = position_T[places]
        pages = pages_for(int(here_BQ.max()) + 1)
        behind_BQS = torch.arange(pages * PAGE_TOKENS, device=row_T.device) <= here_BQ[..., None]
        takes.append((places, step.table.long()[group, :pages], behind_BQS[:, None]))

    def attend(layer: int, q_1HTK: Tensor, k_1GTK: Tensor, v_1GTK: Tensor) -> Tensor:
        k_pages[layer, page_T, :, :, at_T] = k_1GTK[0].transpose(0, 1).unflatten(-1, (-1, pair))
        v_pages[layer, page_T, :, at_T // pair, :, at_T % pair] = v_1GTK[0].transpose(0, 1)
        out_THK = q_1HTK.new_empty(q_1HTK[0].transpose(0, 1).shape)
        for places_BQ, table_BP, seen_B1QS in takes:
            k_BGSK = k_pages[layer, table_BP].permute(0, 2, 1, 4, 3, 5).flatten(-2).flatten(2, 3)
            v_BGSK = v_pages[layer, table_BP].permute(0, 2, 1, 3, 5, 4).flatten(2, 4)
            q_BHQK = q_1HTK[0, :, places_BQ].transpose(0, 1)
            out_BHQK = F.scaled_dot_product_attention(
                q_BHQK, k_BGSK, v_BGSK, attn_mask=seen_B1QS, enable_gqa=True
            )
            out_THK[places_BQ] = out_BHQK.transpose(1, 2)
        return out_THK.transpose(0, 1)[None]

    return attend


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros (a hidden place is multiplied, too); on a CPU, memory is taken when it is written."""
    if device.type != "cpu" or dtype not in _NUMPY:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(shape, dtype=_NUMPY[dtype])).view(dtype)
