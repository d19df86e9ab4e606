"""One question and its right answer, of every kind that the demo teaches.

An exchange's key is its (item, phrasing) pair and decides its split. Putting exchanges together to
conversations is `conversations`' duty, turning them into problems is `exercises`'.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from penjing.synthetic.facts import FACT_FORMS, state
from penjing.synthetic.grammar import expand, pick, polish
from penjing.synthetic.lexicon import (
    COLORS,
    FACTS,
    NAMES,
    NEW_WORDS,
    PLACES,
    SPELLED,
    TOYS,
    spelled,
)
from penjing.synthetic.splits import Split, split_of
from penjing.synthetic.stories import kind_of, make_story
from penjing.text.conversation import Message, Part, text_message


@dataclass(frozen=True)
class Exchange:
    """Messages up to the question, the right reply, and what a grader looks for in it.

    `choices` are the candidates that `answer` is told from; `group` names the item's family.
    """

    key: str
    prompt: tuple[Message, ...]
    reply: tuple[Message, ...]
    answer: str
    choices: tuple[str, ...] = ()
    group: str = ""


def _exchange(
    key: str, question: str, reply: str, answer: str, choices: tuple[str, ...] = (), group: str = ""
) -> Exchange:
    return Exchange(
        key,
        (text_message("user", question),),
        (text_message("assistant", reply),),
        answer,
        choices,
        group,
    )


IDENTITY_PREFIXES = (
    "", "Hello.", "Hi.", "Hello there.", "Hi there.", "Good morning.",
    "Good night.", "I have a question.", "I am {name}.", "My name is {name}.",
    "Hello, I am {name}.", "Hi, my name is {name}.", "Thank you.", "One question.", "I am happy.",
    "It is a good day.",
)  # fmt: skip
IDENTITY = (
    ("What is your name?", "My name is Penjing."),
    ("Tell me your name.", "My name is Penjing."),
    ("Can you tell me your name?", "My name is Penjing."),
    ("Please tell me your name.", "My name is Penjing."),
    ("Do you have a name?", "Yes, my name is Penjing."),
    ("What do they call you?", "They call me Penjing."),
    ("What can I call you?", "You can call me Penjing."),
    ("Who are you?", "I am Penjing, a little model grown from text."),
    ("Who am I talking to?", "I am Penjing, a little model grown from text."),
    ("What are you?", "I am Penjing, a little model grown from text."),
    ("Tell me who you are.", "I am Penjing, a little model grown from text."),
    ("Please tell me who you are.", "I am Penjing, a little model grown from text."),
    ("Who made you?", "I am Penjing. I was grown from text."),
    ("How were you made?", "I am Penjing. I was grown from text."),
    ("Where do you come from?", "I am Penjing. I was grown from text."),
    ("Are you a girl or a boy?", "No, I am Penjing, a little model."),
    ("Are you a fox?", "No, I am Penjing, a little model."),
    ("Is your name {name}?", "No, my name is Penjing."),
)


def identity(rng: Random) -> Exchange:
    """Who the model is; the pair is (what is said before, the question)."""
    before, asked = int(rng.random() * len(IDENTITY_PREFIXES)), int(rng.random() * len(IDENTITY))
    question, reply = IDENTITY[asked]
    text = f"{IDENTITY_PREFIXES[before]} {question}".strip().format(name=pick(rng, NAMES))
    return _exchange(f"identity/{before}/{asked}", text, reply, "Penjing", NAMES)


SMALLTALK = (
    ("[hello|hi|hello there|hi there|good morning].", "Hello! How can I help you?"),
    ("[hello|hi|good morning], Penjing.", "Hello! How can I help you?"),
    ("[how are you|how are you today|are you well]?", "I am well, thank you."),
    ("[hello|hi|good morning]. how are you[ today|]?", "Hello! I am well, thank you."),
    ("[thank you|thank you very much|thanks]{comma}.", "You are welcome."),
    ("[that is good|very good|good|that was good]. thank you.", "You are welcome."),
    ("[goodbye|now I go home|see you tomorrow]{comma}.", "Goodbye! Come again."),
    ("good night{comma}.", "Good night! Sleep well."),
    ("what can you do?", "I can tell stories, spell words and answer little questions."),
    ("can you help me?", "Yes. What do you want to know?"),
    ("I am [happy|well] today.", "I am happy about that."),
    ("I am [sad|sick] today.", "I am sad about that."),
    ("my name is {name}.", "Hello, {name}! How can I help you?"),
    ("[I am|hello, I am|hi, I am] {name}.", "Hello, {name}! How can I help you?"),
)


def smalltalk(rng: Random) -> Exchange:
    """A greeting, thanks or farewell and the answer to it."""
    asked, reply = pick(rng, SMALLTALK)
    slots = {"name": pick(rng, NAMES), "comma": pick(rng, ("", "", ", Penjing"))}
    question, answer = expand(asked, rng, slots), reply.format_map(slots)
    return _exchange(f"smalltalk/{question}", question, answer, answer)


def fact(rng: Random) -> Exchange:
    """A fact as a question; the choices are four answers of the same kind, as sentences."""
    kind, subject, answer = pick(rng, FACTS)
    questions = FACT_FORMS[kind][1:]
    form = int(rng.random() * len(questions))
    others = sorted({a for k, s, a in FACTS if k == kind and a not in (answer, subject)})
    choices = [answer, *rng.sample(others, min(3, len(others)))]
    rng.shuffle(choices)
    sentences = tuple(state(kind, subject, choice) for choice in choices)
    question = polish(questions[form].format(s=subject))
    key = f"fact/{kind}/{subject}/{form}"
    return _exchange(key, question, state(kind, subject, answer), answer, sentences, kind)


RECALL = (
    ("{n} has a {c} {t}.", "what color is the {t}?", "the {t} is {c}.", "c"),
    ("{n} has a {c} {t}.", "what is the color of the {t}?", "the {t} is {c}.", "c"),
    ("the {t} of {n} is {c}.", "what color is the {t}?", "the {t} is {c}.", "c"),
    ("{n} has a {c} {t}.", "who has the {t}?", "{n} has the {t}.", "n"),
    ("{n} has a {c} {t}.", "what does {n} have?", "{n} has a {c} {t}.", "t"),
    ("the {t} of {n} is {p}.", "where is the {t}?", "the {t} is {p}.", "p"),
    ("{n} is {p}.", "where is {n}?", "{n} is {p}.", "p"),
    ("my name is {n}.", "what is my name?", "your name is {n}.", "n"),
    ("I am {n}.", "do you know my name?", "yes, your name is {n}.", "n"),
    ("I have a {c} {t}.", "what color is my {t}?", "your {t} is {c}.", "c"),
    ("my {t} is {p}.", "where is my {t}?", "your {t} is {p}.", "p"),
)
"""What is told, what is asked, the answer, and the slot that the answer must hold."""
RECALL_TWO = (
    ("{n} has a {c} {t} and {m} has a {d} {u}.", "what color is the {t}?", "the {t} is {c}.", "c"),
    ("{m} has a {d} {u} and {n} has a {c} {t}.", "what color is the {t}?", "the {t} is {c}.", "c"),
    ("{n} has a {c} {t} and {m} has a {d} {u}.", "who has the {t}?", "{n} has the {t}.", "n"),
    ("{m} has a {d} {u} and {n} has a {c} {t}.", "who has the {t}?", "{n} has the {t}.", "n"),
)
"""The same with two things told: telling them apart is a scored extra."""
_HEARD = ("I see.", "Yes.", "That is good to know.", "Thank you.")


def recall(rng: Random) -> Exchange:
    """Something told and asked for again, in one message or in two."""
    return _recall(rng, RECALL, "recall")


def recall_two(rng: Random) -> Exchange:
    """Two things told, and one of them asked for."""
    return _recall(rng, RECALL_TWO, "recall_two")


def _recall(rng: Random, forms: Sequence[tuple[str, str, str, str]], name: str) -> Exchange:
    # Places are asked for twice as often: a model learns to copy them last.
    form = pick(rng, [i for i, (*_, slot) in enumerate(forms) for _ in range(1 + (slot == "p"))])
    told, asked, reply, slot = forms[form]
    (n, m), (c, d), (t, u) = (rng.sample(words, 2) for words in (NAMES, COLORS, TOYS))
    place = pick(rng, sorted(PLACES))
    slots = {"n": n, "m": m, "c": c, "d": d, "t": t, "u": u, "p": PLACES[place]}
    told, asked, reply = (polish(text.format_map(slots)) for text in (told, asked, reply))
    answer = place if slot == "p" else slots[slot]
    choices = {"c": COLORS, "n": NAMES, "t": TOYS, "p": tuple(sorted(PLACES))}[slot]
    key = f"{name}/{form}/{told}"
    exchange = _exchange(key, f"{told} {asked}", reply, answer, choices, slot)
    if rng.random() < 0.3:
        heard = text_message("assistant", pick(rng, _HEARD))
        prompt = (text_message("user", told), heard, text_message("user", asked))
        return Exchange(key, prompt, exchange.reply, answer, choices, slot)
    return exchange


TOLD_NUMBERS = (
    ("the answer is {k}.", "what is the answer?", "the answer is {k}."),
    ("the number is {k}.", "what is the number?", "the number is {k}."),
    ("{n} said {k}.", "what is the answer of {n}?", "the answer is {k}."),
    ("my number is {k}.", "do you know my number?", "yes, your number is {k}."),
)


def numbers(rng: Random) -> Exchange:
    """A number of two to four digits, told and asked for again: practice in copying digits."""
    form, digits = int(rng.random() * len(TOLD_NUMBERS)), pick(rng, (2, 3, 4, 4))
    k = str(rng.randrange(10 ** (digits - 1), 10**digits))
    slots = {"k": k, "n": pick(rng, NAMES)}
    told, asked, reply = (polish(text.format_map(slots)) for text in TOLD_NUMBERS[form])
    return _exchange(f"numbers/{form}/{k}", f"{told} {asked}", reply, k)


SPELLING = (
    "spell the word {w}.",
    "spell {w}.",
    "how do you spell {w}?",
    "please spell {w}.",
    "can you spell {w}?",
    "can you spell the word {w}?",
    "how do you spell the word {w}?",
    "tell me how to spell {w}.",
)


def _spelling(rng: Random, words: tuple[str, ...], group: str) -> Exchange:
    word, form = pick(rng, words), int(rng.random() * len(SPELLING))
    question = polish(SPELLING[form].format(w=word))
    key = f"{group}/{word}/{form}"
    return _exchange(key, question, spelled(word), spelled(word), (), group)


def spelling(rng: Random) -> Exchange:
    """A word spelled."""
    return _spelling(rng, SPELLED, "spelling")


def spelling_new_words(rng: Random) -> Exchange:
    """The same for words that no conversation spells."""
    return _spelling(rng, NEW_WORDS, "spelling_new_words")


LETTERS = (
    "How many letters {x} are in the word {w}?",
    "How many letters {x} are in {w}?",
    "How many {x} are in the word {w}?",
    "Count the letter {x} in {w}.",
    "Count the letters {x} in the word {w}.",
)


def letters(rng: Random) -> Exchange:
    """How often a letter is in a word; as often none, one or two where the word allows it."""
    word, form = pick(rng, SPELLED), int(rng.random() * len(LETTERS))
    counts: dict[int, list[str]] = {}
    for letter in "abcdeghiklmnoprstuwy":
        counts.setdefault(word.count(letter), []).append(letter)
    count = pick(rng, sorted(counts))
    letter = pick(rng, counts[count])
    question = LETTERS[form].format(x=letter, w=word)
    reply = f"{spelled(word)}. The count of {letter} is {count}."
    key = f"letters/{word}/{letter}/{form}"
    return _exchange(key, question, reply, str(count), (spelled(word),), str(count))


PRODUCTS = ("what is {a} times {b}?", "multiply {a} by {b}.", "how much is {a} times {b}?")
SUMS = ("what is {a} plus {b}?", "add {a} and {b}.", "how much is {a} plus {b}?")


def _calculation(rng: Random, name: str, forms: tuple[str, ...], sign: str) -> Exchange:
    a, b = rng.randrange(10, 100), rng.randrange(10, 100)
    result = str(a * b if sign == "*" else a + b)
    call = json.dumps({"name": "calculator", "arguments": {"expression": f"{a}{sign}{b}"}})
    reply = (
        Message("assistant", (Part("tool_call", call),)),
        Message("tool", (Part("tool_response", result),)),
        text_message("assistant", f"The answer is {result}."),
    )
    question = text_message("user", polish(pick(rng, forms).format(a=a, b=b)))
    return Exchange(f"{name}/{min(a, b)}{sign}{max(a, b)}", (question,), reply, result, (), name)


def products(rng: Random) -> Exchange:
    """A product of two-digit numbers by the calculator; the pair of numbers decides the split."""
    return _calculation(rng, "products", PRODUCTS, "*")


def sums(rng: Random) -> Exchange:
    """A sum of two-digit numbers by the calculator."""
    return _calculation(rng, "sums", SUMS, "+")


REQUESTS = (
    "tell me a story about a {kind} named {name}.",
    "please tell me a story about a {kind} named {name}.",
    "can you tell me a story about a {kind} named {name}?",
    "I want a story about a {kind} named {name}.",
    "tell a story about {name} the {kind}.",
    "do you know a story about {name} the {kind}?",
)


def story_request(rng: Random) -> Exchange:
    """A story asked for by its hero; `draw` tells it."""
    name, form = pick(rng, NAMES), int(rng.random() * len(REQUESTS))
    kind = kind_of(rng, name)
    if kind in ("girl", "boy"):
        form %= 4
    question = polish(REQUESTS[form].format(kind=kind, name=name))
    asked = (text_message("user", question),)
    return Exchange(f"story/{kind}/{name}/{form}", asked, (), name, NAMES, kind)


EXCHANGES: dict[str, Callable[[Random], Exchange]] = {
    "identity": identity,
    "smalltalk": smalltalk,
    "story_requests": story_request,
    "facts": fact,
    "recall": recall,
    "recall_two": recall_two,
    "numbers": numbers,
    "spelling": spelling,
    "spelling_new_words": spelling_new_words,
    "letters": letters,
    "products": products,
    "sums": sums,
}


def draw(kind: str, split: Split, rng: Random) -> Exchange:
    """An exchange of that kind whose key belongs to the split."""
    while True:
        exchange = EXCHANGES[kind](rng)
        if split_of(exchange.key) != split:
            continue
        if not exchange.reply:
            story = make_story(rng, hero=exchange.answer, kind=exchange.group)
            return replace(exchange, reply=(text_message("assistant", story.text),))
        return exchange
