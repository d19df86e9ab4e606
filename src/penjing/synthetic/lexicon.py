"""The words that everything generated is made of: about 450, so that a tiny model can learn them.

It holds words and facts only; sentences are made in the modules that use them.
"""

from collections.abc import Iterator
from itertools import pairwise

GIRLS = tuple(
    "Lily Mia Anna Sue Emma Zoe Nora Ruby Ella Kate Lucy Amy Jane Ida Eva Maya Lena Dora".split()
)
BOYS = tuple(
    "Tom Ben Max Sam Tim Leo Jack Finn Hugo Otto Paul Nick Adam Carl Hans Bob Luke Dan".split()
)
NAMES = GIRLS + BOYS
ANIMALS = tuple(
    ("fox bear rabbit mouse cat dog bird frog duck pig goat owl cow sheep lion").split()
)
TRAITS = tuple("little small kind shy brave quiet happy young old big sad".split())
COLORS = tuple("red blue green yellow white black brown pink".split())

TOYS = tuple(
    ("ball kite boat drum doll hat bell book cup lamp ring key box bag scarf cart").split()
)
FOODS = tuple("apple cake bread soup honey pear carrot cheese milk egg pie nut".split())
PLACES = {
    "garden": "in the garden",
    "forest": "in the forest",
    "farm": "on the farm",
    "park": "in the park",
    "river": "by the river",
    "hill": "on the hill",
    "pond": "by the pond",
    "field": "in the field",
    "barn": "behind the barn",
    "house": "behind the house",
    "school": "near the school",
    "market": "near the market",
    "bridge": "near the bridge",
    "lake": "by the lake",
    "road": "by the road",
    "tree": "under the tree",
}

SPELLED = tuple(
    (
        "ball kite boat drum doll bell book cup lamp ring key box bag hat cart cake bread soup "
        "pear milk egg pie nut apple honey fox bear mouse cat dog bird frog duck pig goat owl cow "
        "sheep lion red blue green white black brown pink garden farm park river hill pond field "
        "barn house school tree road lake moon star rain snow water flower door bed sun "
        "night day big small old happy sad wind stone gold wood letter little"
    ).split()
)
NEW_WORDS = tuple(
    (
        "kind rabbit carrot forest yellow market bridge cheese friend story table home "
        "seed wet chair paper stick"
    ).split()
)
"""Words of the stories that are spelled in documents, never in a conversation or exercise."""

DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
NUMBERS = tuple("one two three four five six seven eight nine ten".split())
_OPPOSITES = (
    "hot-cold big-small happy-sad day-night wet-dry old-new hard-soft fast-slow up-down "
    "loud-quiet high-low good-bad"
).split()
_FACTS = {
    "sound": "cow-moo dog-woof cat-meow duck-quack pig-oink sheep-baa lion-roar owl-hoot "
    "bee-buzz mouse-squeak",
    "color": "snow-white the_sky-blue the_sun-yellow milk-white the_night-black "
    "a_bear-brown a_frog-green a_pig-pink a_lion-yellow",
    "material": "a_book-paper a_table-wood a_key-metal a_scarf-wool a_ring-gold "
    "a_cup-clay bread-flour cheese-milk a_bridge-stone",
    "legs": "dog-four bird-two bee-six cow-four duck-two fox-four sheep-four",
    "home": "bird-nest cow-barn fox-forest frog-pond bear-cave owl-tree bee-hive",
    "opposite": " ".join(_OPPOSITES + ["-".join(pair.split("-")[::-1]) for pair in _OPPOSITES]),
    "day": " ".join(f"{a}-{b}" for a, b in zip(DAYS, DAYS[1:] + DAYS[:1], strict=True)),
    "number": " ".join(f"{a}-{b}" for a, b in pairwise(NUMBERS)),
}


def _facts() -> Iterator[tuple[str, str, str]]:
    for kind, pairs in _FACTS.items():
        for pair in pairs.split():
            subject, answer = pair.replace("_", " ").split("-")
            yield kind, subject, answer


FACTS = tuple(_facts())
"""(kind, subject, answer), such as ("sound", "cow", "moo")."""


def spelled(word: str) -> str:
    """The word letter by letter: g-a-r-d-e-n."""
    return "-".join(word)
