"""Which pages of the cache are free, shared, or remembered for texts that begin alike.

Plain data, no tensors. A full page is known by a digest of all tokens up to its end, so that a
later text with the same beginning takes it as it is. A page that nobody uses is kept until its
place is needed; the one left longest goes first.
"""

from array import array
from collections import OrderedDict
from hashlib import blake2b

from flywright.generate.native import PAGE_TOKENS


def pages_for(tokens: int) -> int:
    """How many pages hold so many tokens."""
    return -(-tokens // PAGE_TOKENS)


def next_key(before: bytes, ids: list[int]) -> bytes:
    """The digest of a page, after that of the page before it (none: empty) and its own tokens."""
    return blake2b(before + array("q", ids).tobytes(), digest_size=16).digest()


class Pages:
    """Pages 1..count: page 0 is nobody's, what must not be kept is written there."""

    def __init__(self, count: int):
        self.count = count
        self._free = list(range(count, 0, -1))
        self._users = [0] * (count + 1)
        self._key: dict[int, bytes] = {}
        self._page: dict[bytes, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # remembered and without users

    @property
    def free(self) -> int:
        """Pages that can be taken now, those remembered without users among them."""
        return len(self._free) + len(self._idle)

    def known(self, keys: list[bytes]) -> list[int]:
        """The longest run of remembered pages from the first key on; takes them."""
        found = []
        for key in keys:
            page = self._page.get(key)
            if page is None:
                break
            found.append(page)
            self._idle.pop(page, None)
            self._users[page] += 1
        return found

    def take(self, count: int) -> list[int]:
        """So many pages to write to; the caller has looked at `free`."""
        taken = []
        for _ in range(count):
            if self._free:
                page = self._free.pop()
            else:
                page, _ = self._idle.popitem(last=False)
                del self._page[self._key.pop(page)]
            self._users[page] = 1
            taken.append(page)
        return taken

    def give(self, pages: list[int]) -> None:
        """Give up a text's pages; the last ones are forgotten first."""
        for page in reversed(pages):
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._key:
                self._idle[page] = None
            else:
                self._free.append(page)

    def remember(self, page: int, key: bytes) -> None:
        """This page is full, and of this text; nothing if such a page is known."""
        if key not in self._page:
            self._page[key] = page
            self._key[page] = key
