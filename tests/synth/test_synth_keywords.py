"""Keywords: sorted by the first word of an answer, and mined from code."""

import asyncio

import pytest

from flywright.ask import Scripted
from flywright.synth import Dropped, Maker, parse
from flywright.synth.keywords import classified, mined


def test_only_the_begin_of_the_answer_decides(small):
    said = {
        "prime": "Yes, since",
        "lake": "No. Yes is wrong",
        "odd": "Perhaps yes",
        "two": "**Yes**",
    }
    maker = Maker(Scripted(lambda p, _: said[p.last.split(": ")[1].split("\n")[0]]), small, seed=1)
    assert asyncio.run(classified(maker, "math", [*said, "prime"])) == ["prime", "two"]
    assert maker.counts["math keywords"]["dropped: neither yes nor no"] == 1
    with pytest.raises(Dropped):
        parse.begins_yes("Yesterday")


def test_mined_names_are_whole_and_the_most_frequent_first():
    codes = [
        "import numpy as np\nfrom os import path\nprint(np.linalg.norm(x), path.join(a, b))",
        "import numpy\nnumpy.linalg.norm([1])\nsorted(x)\nmine.norm(2)",
        "print 'old'\nimport numpy",
        "from . import own\nown.thing()\nfrom json import *\nsorted(y)",
    ]
    assert mined(codes) == ["numpy", "numpy.linalg", "numpy.linalg.norm", "sorted"]
    assert {"os.path", "os.path.join", "print"} <= set(mined(codes, 1))
    assert not {"own.thing", "json.*", "mine.norm", "np.linalg.norm"} & set(mined(codes, 1))
