"""The plots of the demo's stories, as data; `stories` puts them together.

A plot is a block of `PLOTS`: its name, what may be wanted, and flags; then what is wanted, what
stands in the way, who helps how, and what comes of it. Slots: {H} the hero with {he} {his} {him};
{F} the friend with {Fhe} {Fhis} {Fhim}, brought in as {I}; {A} the wanted thing at first ("a red
ball", "some warm soup"), {T} later ("red ball"), {N} its bare noun; {P} a place ("by the old
river"), {L} another ("quiet hill"), {W} a water. {K} an animal, {TC} the thing's color.
New at each mention: {C} a color, maybe with a size, {C1} without, {X} a thing by the road, {M} an
animal, {TR} its trait, {Q} a number, {D} a day.
"""

from dataclasses import dataclass

TOYS = "ball kite boat drum doll hat bell book cup lamp ring key box bag scarf cart"

PLOTS = """
lost: TOYS: meets keeps
- {H} [wanted to play with|looked for] {his} {T} {P}, but {he} could not find it.
- {H} looked behind the {C} {X} and near the {C} {X}, but the {N} was not there.
- {F} and {H} [looked|went] {P} again. [soon|then] {F} saw something {TC} near a {C} {X}.
- it was the {T}! {H} [laughed|danced] and held it near a {C} {X}.

wind: hat scarf kite: meets keeps
- {H} [ran|walked|played] with {A} {P}.
- but on {D} the wind took the {T} from {H}, and it fell in a {C} tree near a {C} {X}.
- {F} [climbed|went] up the tree [fast|slowly] and gave {H} the {T} {P}.
- {H} held the {N} [by|with] a {C} string, and {F} [laughed|danced|sang] near a {C} {X}.

water: ball boat hat doll drum box: meets keeps
- {H} [ran|walked|went] to the {W} with {A} and a {C} {X}.
- the {T} fell in the water near a {C} {X}, and {H} [could not swim|was afraid of the water].
- {F} took a {C} [stick|string] and pulled the {N} [to|back to] {H} [slowly|fast].
- the {T} was wet on {D}, [but|and] {H} [dried|held] it in the sun {P}.

broken: boat kite drum doll bell lamp cart box: meets keeps
- {H} [had|found] {A} and played with it {P} every {D}.
- one {D} {H} fell over a {C} {X}, and the {N} broke in {Q}. {H} [cried|was sad].
- {F} had {C} [string|paper|wood|wool] and worked with {H} {P} for {Q} days.
- now the {T} was [as good as|better than] before, and {H} [laughed|sang] with {F}.

high: apple pear nut: meets
- {H} was hungry and [saw|wanted] {A} in a high {C} tree {P}.
- {H} stood on a {C} {X} and jumped {Q} times, but the {T} [was too high|did not fall] {P}.
- {F} [pulled|pushed] the tree with {Q} {C} [strings|sticks], and the {T} fell near {H}.
- {H} ate {Q} parts of the {T}, and {F} ate {Q} near a {C} {X}.

baking: cake pie bread: meets
- {H} wanted to make {A} for {his} [mother|father|grandmother] on {D}.
- but {H} had no flour, only {Q} [eggs|nuts|apples] in a {C} [bag|box|cup|basket].
- {F} ran to the {L} for flour and {Q} eggs, and {F} and {H} made the {T} by {D}.
- the {N} was [sweet|good|warm], and {H} gave {F} {Q} parts {P}.

sharing: TOYS:
- {H} and {I} found {A} near a {C} {X} {P}.
- {H} said, "[I saw it first|it is for me], {F}!" but {F} pulled the {N} behind a {C} {X}.
- then {F} [sat down|smiled] and said, "{H}, you can have the {T} on {D}, and on {D} it is for me."
- {H} [said yes|smiled], and {Q} days after that {F} gave {H} the {T} {P}.

gift: ball doll bell book cup ring lamp drum hat:
- it was {D}, and {H} wanted {A} for {I}.
- {H} [went|walked] to the {L}, but there was no {N}, only a {C} {X}.
- so {H} [worked|sat] {P} for {Q} days and made the {N} of {C} [paper|wood|wool].
- {F} [held|took] the {T} and said, "{H}, you are as [kind|good] as a {C} {M}!"

rain: TOYS: keeps
- {H} wanted to play {P} with {his} {T}.
- but it was [wet|cold] on {D}, and {H} sat with the {T} near a {C} {X}.
- then {I} came with a {C} [bag|box|hat] and showed {H} a game with the {N} and {Q} {C} cups.
- [soon|then] {H} [played|laughed] near the {C} {X}, and {F} [danced|sang] with the {T}.

dark road: lamp: keeps
- {H} went home from the {L} and wanted {A}.
- it was dark {P}, and {H} heard {Q} loud sounds behind a {C} {X}. was it a {M}?
- it was {I}! {F} had the {T} for {H} in a {C} [bag|box|basket] {P}.
- {H} held it up, and {F} [showed|told] {H} the way to a {C} {X} near the {L}.

cold: scarf hat blanket: meets keeps
- it was a cold {D}, and {H} wanted {A} to [walk|play] {P}.
- {H} asked {Q} [friends|animals] near the {L}, but there was no {N} for {H} {P}.
- {F} had {Q} bags of {C} wool. {F} worked {P} and made {H} the {T} on {D}.
- {H} put it on {P}. now {H} was warm, and {F} [laughed|smiled|sang].

seed: flower rose tree: meets
- {H} had a {C} seed and wanted to see {A} {P}.
- {H} put it near the {L} on {D}, but after {Q} days there was only a {C} {X}.
- {F} gave it water [from|with] a {C} cup every {D}.
- after {Q} days {H} and {F} saw the {T} [by|near] the {C} {X}.

star: star: meets
- every {D} {H} [sat|walked] {P} and wanted {A} from the sky.
- {H} stood on {Q} {C} [stones|boxes] near the {L} on {D}, but the {T} was too high.
- {F} and a {TR} {M} took {H} to the {W} and showed {H} the {T} in it.
- so every {D} {F} and {H} [sat|stood] near the {L} to see the {T} from a {C} {X}.

race: bell cup ring ball:
- {H} and {I} ran from the {L} to a {C} {X} for {A}.
- {H} was first. but {F} fell over a {C} {X} {P} and [cried|called] {Q} times.
- so {H} [went|came|ran] back to {F} and helped {Fhim}, and a {TR} {M} was first.
- {H} did not have it, but {F} said {P}, "you are better than {Q} {N}s, {H}!"

stuck cart: cart: meets keeps
- {H} pulled {A} with {Q} {C} [stones|boxes|bags|apples] to the {L}.
- {P} the {N} stood still near a {C} {X}, and {H} could not pull it.
- {F} [put|took] a {C} [stick|string] under the {T} and pushed {Q} times {P}, and {H} pulled.
- soon the {T} was [home|at the {L}] {P}, and {H} gave {F} {Q} [apples|eggs|nuts].

visit: basket bag cake pie: meets
- {H} wanted to bring {A} to {his} [grandmother|mother|father] near the {L}.
- but the {C} bridge was [old|broken], and {H} sat near a {C} {X} with the {T}.
- {F} had a {C} boat, and {F} took {H} and the {T} over the water {P}.
- {his} family sat with {F} and ate {Q} [eggs|apples|nuts], and {H} gave them the {N}.

locked: key: meets keeps
- {H} found a {C} [box|door] {P} and wanted {A} for it.
- {H} looked under a {C} {X} and asked {Q} [animals|friends] {P}, but there was no {T}.
- {F} [sat|stood] on a {C} {X} {P} and saw the {T} under it.
- {H} opened the {C} [box|door] with the {T}, and {F} found {Q} {C} [rings|bells|cups] in it.

new at school: TOYS: keeps
- {H} was new at the {L} and sat with {his} {T} near a {C} {X} on {D}.
- for {Q} days {H} was shy and [played|sat] {P} with only the {N} and a {C} {M}.
- then {I} came to the {C} {X}, and {H} [gave|showed] {F} the {N}.
- "can I play with you {P}, {H}?" {F} asked. so they played with the {T} for {Q} days.

picnic: cake pie bread soup cheese honey: meets
- {H} [took|had] {A} in a {C} [basket|bag|box] {P} for {Q} friends.
- but a {TR} {K} ran into {H} near a {C} {X}, and the {N} fell.
- {F} had more {N} in a {C} [basket|bag|box] and gave {H} {Q} parts {P}.
- so {H} ate the {T} with {F} and called the {K} to [eat|sit] with them {P}.

sick friend: soup honey milk cake pie:
- {I} was sick on {D}, and {H} wanted to bring {F} {A}.
- from the {L} {H} went {P} in the [rain|snow|wind] on {D} and fell over a {C} {X}.
- but {H} held the {N} in {his} {C} [bag|box|basket] and walked to {F} in {Q} days.
- {F} had the {T} and was well after {Q} days, and {H} [laughed|danced|sang].

noise: drum bell:
- {H} wanted to sleep {P} on {D}, but {Q} loud sounds came from a {C} {X}.
- was it a {TR} {M}? {H} was afraid and [sat|stood] behind a {C} {X}.
- then {H} saw {I} with {A} near a {C} {X}. {F} [played|danced] and sang.
- "can you sleep {P}, {H}?" {F} asked. "no," {H} said and played the {T} by the {C} {X}.

nest: bird egg: meets
- {H} saw {A} {P}. its nest was in a {C} tree near a {C} {X}.
- but {H} fell {Q} times from the {C} tree with the {T} on {D}.
- {F} had a {C} string and a {C} [basket|bag|box]. {F} pulled the {N} up to {H} {P}.
- {H} put the {T} in the nest {P}, and {F} sang {Q} [long|happy|good] songs with its mother.

painting: house boat flower kite: meets
- {H} wanted to paint {A} on a {C} {X} on {D}.
- but {H} had no {TC} color near the {L}, and the {N} was {C1} {P}.
- {F} gave {H} the color of {Q} {TC} flowers in a {C} [cup|box|bag].
- so {H} made the {T}, and {F} made a {C} {M} near it.

trade: TOYS: keeps
- {H} saw {A} at the market near a {C} {X} on {D}.
- {H} had {Q} [apples|eggs|nuts] from the {L}, but no gold.
- the {T} was in the {C} cart of {I}. {F} said, "what is in your {C} [bag|box], {H}?"
- "food," {H} said. so {F} ate it {P} and gave {H} the {T}.

mud: hat doll scarf bag cup ball: meets keeps
- {H} wanted to [take|show] {his} {T} to {his} [mother|friends|father] at the {L} on {D}.
- but {H} fell over a {C} {X} {P}, and the {N} was wet and {C1}.
- {F} and {H} put it in the {W} {Q} times near a {C} {X}.
- now the {N} was {TC} again, and {F} [ran|danced|walked] with {H} to the {L}.

snow: carrot: meets
- {H} made a {TR} {K} of snow {P} and wanted {A} for its nose.
- {H} looked in {Q} {C} [boxes|bags], but there was no {N} {P}.
- {F} had {Q} carrots in a {C} [basket|bag|box], and one was for {H}.
- {H} put the {T} on the {K}, and {F} put a {C} hat on it {P}.

music: drum bell: meets keeps
- {H} heard songs from the {L} and wanted {A}.
- but on {D} {H} had only {Q} {C} [sticks|cups|boxes] near a {C} {X}.
- {F} put {C} [paper|wool|string] over the {C} {X}, and so {F} made a {N} for {H} {P}.
- {H} played the {T} for {Q} days, and {F} sang to it {P}.

hiding: door tree box chair cart:
- {H} and {I} played a game {P} on {D}, and {H} could not find {F}.
- {H} looked behind a {C} {X} and near the {L} {Q} times, but {F} was not there.
- then {H} heard {Q} [soft|loud] sounds {P} from behind {A}.
- there was {F}! then {H} ran behind the {L} on {D}, and {F} had to find {H}.

egg: egg: meets
- {H} found {A} near a {C} {X} {P}.
- it was not warm, but {H} had only a {C} [hat|bag|cup|box] for it on {D}.
- {F} put a {C} [scarf|blanket|hat] over the {N} and sat {P} with {H} for {Q} days.
- then a {TR} {C1} [duck|bird|frog] came out of the {T} near the {L} and sat near {H}.

bees: honey: meets
- {H} wanted {A} from the {Q} bees {P}.
- {H} ran to them with a {C} [stick|cup], but {Q} bees came out near a {C} {X} on {D}.
- {F} [gave|showed] the bees {Q} {C} flowers {P} and [took|asked them for] the {T} on {D}.
- so on {D} {F} had the {N} in a {C} [cup|box], and {H} ate it near a {C} {X}.

map: ring cup bell key box: meets keeps
- on {D} {H} found a map in a {C} [box|bag|book]. it showed {A} {P}.
- {H} [walked|ran] to the {L} and looked [near|behind] a {C} {X}, but did not find the {N}.
- {F} [read|saw] the map and ran with {H} to a {C} {X}.
- under it was the {T}, and {H} [danced|laughed|sang] {P}.

truth: cup lamp bell drum:
- {H} broke the {T} of {I} {P}.
- {H} was afraid, put the {N} under a {C} {X} and told {F} about a {TR} {C1} {M} on {D}.
- then {H} went to {F} near the {L} and said, "{F}, I broke your {T} with a {C} [stick|stone]."
- {H} and {F} worked for {Q} days and made the {T} new with {C} [wood|string|paper].

lost animal: sheep goat cow duck: meets keeps
- {H} had {A}, but on {D} {H} could not find it {P}.
- {H} called it {Q} times near a {C} {X}, but it did not come.
- {F} heard it near the {L} and [ran|went] there with {H}.
- the {T} was there! {H} gave the {N} some water {P}.

fish: fish: meets
- {H} wanted {A} and on {D} [sat|stood] by the {W} near a {C} {X}.
- {H} had a {C} stick with a {C} string, but the {T} [swam|was] too fast for {H} {P}.
- {F} had [bread|soup|cheese|pie] in a {C} [bag|box|basket] and sat with {H} near a {C} {X}.
- so {H} ate with {F} near the {L} and told the {T} to swim home on {D}.

boat building: boat: meets keeps
- {H} wanted {A} to go to a {C} [house|barn|school] over the {W}.
- {H} worked on the {T} [near|behind] the {L} for {Q} days, but it was too [small|heavy|hard].
- {F} had {Q} {C} [strings|stones|boxes] and good wood from a {C} cart. {F} helped {H} {P}.
- the {T} went over the water, and {H} and {F} sang {Q} songs in it.

tower: tower house bridge: meets
- {H} wanted to make {A} of {Q} [stones|boxes|chairs] {P}.
- {H} worked too fast, and the {N} fell on a {C} {X} {Q} times.
- {F} held the {C} {X}, and {H} put {Q} [stones|boxes|chairs] on it slowly.
- the {T} stood {P} for {Q} days, and {F} put a {C} flower on it for {H}.

song: song: meets
- {H} wanted to sing {A} for {his} [mother|father|grandmother] {P}.
- but there were {Q} words in it that {H} did not know, and on {D} {H} [cried|was sad].
- {F} had the {N} in a {C} book and read it to {H} near the {L}.
- so {H} sang the {T} {P}, and {F} played a {C} [drum|bell].

letter: letter: meets
- {H} made {A} for {his} [grandmother|father|mother] near the {L}.
- but on {D} the wind took the {T} from {H} {P}, and it fell behind a {C} {X}.
- {F} ran [fast|far], jumped over {Q} {C} [stones|boxes] and gave it to {H}.
- so {F} took the {T} to the {L}, and after {Q} days {H} had a {C} one back.

hot day: milk water soup: meets
- it was a hot {D}, and {H} wanted {A} from a {C} cup {P}.
- but the {L} was far away, and {H} had no {N}, only a {C} {X} and {Q} [nuts|eggs|apples].
- {F} had {N} in {Q} {C} cups and gave {H} the [first|last] one {P}.
- {H} had the {T} near a {C} {X} and said, "{F}, now I can run {Q} times!"

heavy: basket box bag: meets
- {H} wanted to take {A} with {Q} [apples|stones|books|pears|cups] home from the {L}.
- it was too heavy for {H}, and {P} {H} sat down by a {C} {X}.
- {F} and {H} pulled it with a {C} string, and a {TR} {C1} {M} sang {Q} songs {P}.
- so the {T} came home, and {H} gave {F} {Q} {C} [flowers|cups|bells].

reading: book story letter map: meets
- {H} found {A} near a {C} {X} and read it {P}.
- but {Q} words were too [hard|long|old] for {H}, and on {D} {H} sat near the {L} and [cried|was sad].
- so every {D} {F} sat {P} and read {Q} words to {H}.
- {H} could read the {T} to {F} and to a {TR} {M} after {Q} days.

tooth: cake apple nut pear carrot: meets
- {H} wanted to eat {A} {P} near a {C} {X}.
- but the {T} was as hard as a {C} {X} for {H} and {his} bad tooth on {D}.
- {F} made soup of the {N} with {Q} {C} [eggs|carrots|nuts] and gave {H} a {C} cup of it.
- so {H} ate the {T} with {F} [near|behind] a {C} {X}.

moon: moon: meets
- {H} wanted {A} [for a lamp|to play with] {P}.
- {H} called to the {N} {Q} times near the {L}, but it was too high.
- {F} made a {C} lamp [like the {N}|of paper] for {H} on {D} and put it {P}.
- so {H} slept well by the {C} lamp of {F} and did not need the {T}.

first swim: shell stone ring cup: meets keeps
- {H} saw {A} in the {W} near a {C} {X}.
- but {H} was afraid [to swim|of the {W}] and [sat|stood] there on {D} with a {TR} {M}.
- {F} [held|helped] {H} near the {L} and showed {him} how to [swim|do it] in {Q} days.
- [soon|then|on {D}] {H} swam to the {N}, and {F} sang {Q} songs when {H} held the {T}.
"""


@dataclass(frozen=True)
class Schema:
    """One plot; its four sentences are templates.

    With `meets`, a sentence between `trouble` and `help` brings in the friend; otherwise the plot
    does it. `keeps` says whether the hero has the thing at the end.
    """

    name: str
    things: tuple[str, ...]
    want: str
    trouble: str
    help: str
    result: str
    meets: bool
    keeps: bool


def _schema(block: str) -> Schema:
    title, *parts = block.strip().split("\n- ")
    name, things, flags = (field.strip() for field in title.split(":"))
    nouns = tuple(things.replace("TOYS", TOYS).split())
    want, trouble, help_, result = parts
    return Schema(name, nouns, want, trouble, help_, result, "meets" in flags, "keeps" in flags)


SCHEMATA = tuple(_schema(block) for block in PLOTS.strip().split("\n\n"))
