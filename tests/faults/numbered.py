"""Events with a key and a number, as fault tests publish them: what had to come, what came, and in which order."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

Numbered = tuple[str, int]
"""Key, and number within it."""


@dataclass
class Found:
    """What is there in the end.

    Attributes:
        lost: Had to come and did not.
        invented: Came and had not to.
        doubled: Came more than once.
        inverted: Keys whose events did not come in order.
        stuck: True where something waits although nothing is in its way.
    """

    lost: set[Numbered]
    invented: set[Numbered]
    doubled: set[Numbered]
    inverted: set[str]
    stuck: bool = False

    @property
    def broken(self) -> set[str]:
        """Names of what is not as promised."""
        return {each.name for each in fields(self) if getattr(self, each.name)}


def compare(due: set[Numbered], came: Sequence[Numbered], is_ordered: Callable[[str], bool]) -> Found:
    """Compare what came, in order, with what had to. Args: is_ordered: True for keys whose order is promised."""
    order = defaultdict(list)
    for key, number in came:
        order[key].append(number)
    return Found(
        lost=due - set(came),
        invented=set(came) - due,
        doubled={each for each, times in Counter(came).items() if times > 1},
        inverted={key for key, numbers in order.items() if is_ordered(key) and numbers != sorted(numbers)},
    )
