"""Topics: broad ones, narrower ones inside each, and those that a person gives (SPEC 6.2)."""

from collections.abc import Iterable

from flywright.ask.protocol import Completer
from flywright.errors import FlywrightError
from flywright.synth.filters import normal
from flywright.synth.flow import Dropped
from flywright.synth.maker import Maker
from flywright.synth.wording import Template, template


def merged(*groups: Iterable[str]) -> list[str]:
    """All topics in order, each once, whatever its case and spacing."""
    found: dict[str, str] = {}
    for group in groups:
        for topic in group:
            found.setdefault(normal(topic), topic)
    return list(found.values())


async def tree(
    maker: Maker, broad: Template, narrow: Template, given: Iterable[str] = (), **values: str
) -> list[str]:
    """Broad topics, their narrower ones, and the given ones, each once.

    Raises FlywrightError if the first call gives no list: nothing could follow from it.
    """
    settings = maker.settings
    try:
        macro, _ = await maker.ask_list(broad, settings.macro_topics, **values)
    except Dropped as drop:
        message = f"{broad.name}: {maker.ask.model} gave no list of topics ({drop})"
        raise FlywrightError(message) from None

    async def inside(topic: str, _ask: Completer) -> list[str]:
        elements, _ = await maker.ask_list(narrow, settings.subtopics, topic=topic, **values)
        return elements

    below = await maker.run(narrow.name, inside, macro) if settings.subtopics else []
    return merged(macro, below, given)


async def topics(maker: Maker, given: Iterable[str] = ()) -> list[str]:
    """Topics of general knowledge for open Q&A and writing."""
    return await tree(maker, template("macro_topics"), template("subtopics"), given)


async def math_topics(maker: Maker, school_level: str, given: Iterable[str] = ()) -> list[str]:
    """Topics of mathematics at one school level."""
    broad, narrow = template("math_topics"), template("math_subtopics")
    return await tree(maker, broad, narrow, given, school_level=school_level)


async def python_topics(maker: Maker, given: Iterable[str] = ()) -> list[str]:
    """Ideas of Python programming."""
    return await tree(maker, template("python_topics"), template("python_subtopics"), given)
