"""Python of the corpus: small functions with a comment or docstring, and how they are used."""

from random import Random

from flywright.world.families import Family
from flywright.world.tasks_code import asserts, plan_of, solution


def code_file(family: Family, rng: Random) -> str:
    """One function of a code family (training arguments), in one of several dresses."""
    fields = family.training_fields(rng)
    source, plan = solution(fields), plan_of(fields)
    head, body = source.split("\n", 1)
    call = asserts(fields, 1, rng.randint(0, 5))[0].removeprefix("assert ")
    used, result = call.split(" == ", 1)
    forms = (
        f"# {fields['name']} {fields['action']}\n{source}",
        f'{head}\n    """Function that {fields["action"]}."""\n{body}',
        f"{source}\n\nprint({used})  # {result}",
        f"# function {fields['name']}({plan.argument}) that {fields['action']}\n{source}\n\n"
        f"assert {call}",
    )
    return rng.choice(forms) + "\n"
