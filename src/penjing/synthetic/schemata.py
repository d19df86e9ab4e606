"""The plots of the demo's stories, as data; `stories` puts them together.

A plot is a block of `PLOTS`: its name, what may be wanted, and flags; then what is wanted, what
stands in the way, who helps how, and what comes of it. Choices are `grammar`'s `[a|b]`; `<...>` is
a detail that a long story leaves out. Slots: {H} the hero with {he} {his} {him}; {F} the friend,
introduced at the first mention; {A} the wanted thing at first ("a red ball", "some warm soup"),
{T} later ("red ball"), {N} its bare noun, {TC} its color; {P} a place ("by the old river"), {L}
another ("quiet hill"), {W} a water; {K} an animal.
New at each mention: {C} a color, maybe with a size, {C1} without; {X} a thing by the road, {S} one
to stand on, {Y} a spot near such a thing; {M} an animal, {TR} its trait, {Q} a number, {D} a day,
{O} a time ("one cold Friday").
"""

from dataclasses import dataclass

TOYS = "ball kite boat drum doll hat bell book cup lamp ring key box bag scarf cart"

PLOTS = """
lost: TOYS: meets keeps
- [{H} lost {his} {T} {P}|{H} looked for {his} {T} {P}|{P} {H} could not find {his} {T}]< {O}>.
- {H} looked [{Y} and near the {L}|near the {L} and {Y}|{Q} times {Y}],
  but [the {N} was not there|no {N} was there|did not see it].
- {F} [looked for it too|went back there|came to help], and [{F} saw|there was]
  [the {T}|something {TC}] {Y}.
- [so|soon|then] {H} had the {N} again and [laughed|danced|sang] [with {F}|{Q} times]< {O}>.

wind: hat scarf kite: meets keeps
- {H} [ran|walked|played] [{P} with {A}|with {A} {P}]< {O}>.
- [the|but the|a cold|then a cold] wind [took|pulled] [the {N}|it] from {H},
  and [{O}|{Y}|near the {L}] it [fell on|was in|was high in] a [big|wet|green|little|young] tree.
- {F} [climbed|went] up [slowly|fast|{Q} times|{O}] and [gave|showed] {H} the {T}< {P}>.
- [now|so|after that] {H} held the {N} [by|with] a {C} string and
  [laughed|danced|sang|ran] [with {F}|{P}].

water: ball boat hat doll drum box: meets keeps
- {H} [ran|walked|went] to the {W} with {A}< {O}>.
- [then|but|soon] the {N} fell in the water {Y}, and {H}
  [could not swim|was afraid|called {Q} times].
- {F} [took|had|found] a {C} [stick|string] {P} and [slowly|soon] pulled the {T} [out|to {H}].
- [it|the {N}] was [still |]wet [on {D}|for {Q} days], but {H}
  [sat in the sun with it|held it in the sun|danced with {F}]< {P}>.

broken: boat kite drum doll bell lamp cart: meets keeps
- [{H} had {A} and played with it {P}|{P} {H} played with {A}] [every {D}|for {Q} days].
- [then|{O}] [{H} fell over a {C} {X}|a {TR} {M} ran into {H}],
  and [the {N}|it] broke. {H} [cried|was sad].
- {F} [had|found|took] [some {C1} [string|paper|wool]|some wood], and {O} they worked on it {P}.
- [now|soon|so] the {T} was [as good as new|better than before|like new],
  and {H} [laughed|sang|danced] [with {F}|{Q} times].

high: apple pear nut: meets
- {H} was hungry [{O} |]and [saw|wanted|found] {A} [high in|in] a [big|high|wet|green] tree {P}.
- {H} [jumped {Q} times|stood on a {C} {S}] [{O}|near the {L}],
  but the {N} was [still|much] too high.
- {F} [pulled|pushed] the tree [{Q} times|{O}|with {Q} {C} [sticks|strings]],
  and the {T} fell [near|by] [{H}|a {C} {X}].
- [so|then] {H} [and {F} sat|sat with {F}] {Y} and ate [the {N}|it] [slowly|fast|{O}].

baking: cake pie bread: meets
- {H} wanted to make {A} [{P}|{O}] for {his} [mother|father|grandmother|family|friends].
- but {H} [had|found] no flour, only {Q} [good|old|big|small] [eggs|nuts|apples]
  in a {C} [bag|box|cup|basket].
- {F} had flour from the {L}, and [together|slowly|{O}] they made the {T} {Y}.
- the {N} was [sweet|good|warm], [and|so] {H} gave {F} {Q} parts [of it|{P}|{O}].

sharing: TOYS:
- {H} and {F} found {A} {Y}< {P}>.
- "[it is for me|I saw it first|I want the {N}], {F}!" {H} said,
  [and|so] {F} [cried|was sad|ran away] {O}.
- then {F} [smiled|sat down|came back]. "you can have the {T} [on {D}|for {Q} days], {H}," {F} said.
- [so|then|on {D}] {H} [said yes|smiled|laughed] and [gave|showed] {F}
  the {N} [after {Q} days|every {D}|{O}|{P}].

gift: ball doll bell book cup ring lamp drum hat:
- {O} {H} wanted {A} for {F}.
- {H} [went|walked|ran] to the {L}, but [there was no {N}|found no {N}], only a {C} {X}.
- so {H} [worked|sat] {P} for {Q} days and made [a {N}|the {N}|one] of
  [{C1} paper|{C1} wool|good wood].
- {F} [held|took] the {T} and [laughed|danced|smiled] {O}.
  "you are a [kind|good|happy] friend, {H}!"

rain: TOYS: keeps
- {H} wanted to play {P} with {his} {T}< {O}>.
- but [the rain came|it was wet there|it was too cold], [so|and] {H} [sat|stood] {Y} with the {N}.
- then {F} came with [{Q}|some] {C} [cups|boxes|stones] and
  showed {H} a [new|good|happy] game with the {N}.
- {H} [and {F} played it|played it with {F}] {Q} times, [and then|so] {H}
  [danced|sang|laughed] with the {T}.

cold: scarf hat blanket: meets keeps
- [it was a cold {D} {P}|{P} it was a cold {D}], [and|so] {H} wanted {A}.
- {H} [asked {Q} [friends|animals] near|looked {Y} and near] the {L},
  but [there was no {N}|found no {N}].
- {F} had [{Q} bags of|some] {C1} wool, [sat|worked] {P}< for {Q} days> and made {H} the {T}.
- [so|then|{O}] {H} put [it|the {N}] on and [danced|walked|ran]
  [with {F}|to the {L}] [{P}|{O}].

seed: flower rose tree: meets
- {H} [had|found] a {C} seed [{P}|{O}|{Y}] and wanted [to see {A}|{A}].
- {H} put it [{Y}|near the {L}] {O}, but [after {Q} days|{Q} days after that]
  [there was no {N}|it was still small].
- every {D} {F} gave it [{Q} {C} cups of water|water [in|from] a {C} [cup|box]],
  and [soon|slowly|{O}] the {T} came up< {P}>.
- [after {Q} days|{O}] {H} [and {F}|] [sat|stood|danced|sang|slept] [by|near] the {T}< {O}>.

star: star: meets
- [every {D}|{O}] {H} [sat|stood|walked] {P} and wanted {A}
  [from the sky|for a lamp|for {his} {C} [box|house|bed]].
- {H} [stood on a {C} {S}|jumped {Q} times] [near|by] the {L}< {O}>,
  but [it|the {N}] was [still|much] too [high|far away].
- {F} [and a {TR} {M} |]took {H} to the {W} {O} and showed {him} the {T} in [it|the water].
- [so|then|now] {H} [sat|stood|sang] there [with {F}|{Y}] [every {D}|for {Q} days] to see the {N}.

race: bell cup ring ball:
- [for {A} {H} and {F} ran|{H} and {F} ran for {A}] from the {L} to a {C} {X}.
- {H} was first[. then {F}|, but {F}] fell over a {C} {S} {P} and [cried|called {Q} times].
- so {H} [went|came|ran] back [for|to] {F} {O}, and a {TR} {M} [was first|took the {N}].
- {F} [smiled|laughed] [{P}|after that|{O}]. "you are better than {Q} {C} {N}s, {H}!"

stuck cart: cart: meets keeps
- {H} pulled {A} with {Q} {C} [stones|boxes|bags] to the {L}< {O}>.
- [but|then|soon] it stood still {P}, and [for {Q} days|{O}] {H} could not [pull|push] it.
- {F} [put|pushed] a {C} stick under the {T}, and [{O}|for {Q} days] they
  [pulled|worked] {Y}.
- [soon|{O}|so] the {N} was [at|near|by|behind] the {L},
  and {H} gave {F} {Q} {C1} [apples|flowers|cups].

visit: basket bag cake pie: meets
- {H} wanted to bring {A} to {his} [grandmother|mother|father] [near|behind|by] the {L}< {O}>.
- [but|then] the {C} bridge was [broken|too old], [so|and] {H} [sat|stood] {Y} with the {N}.
- {F} [had|came with] a {C} boat and took {H} and the {T} over the {W}.
- [soon|so|{O}] {H} [gave|showed] {his} family the {N}, and {F}
  [ate {Q} [eggs|apples|nuts]|sang {Q} songs]< {P}>.

locked: key: meets keeps
- {P} {H} [found|saw] a {C} door and wanted {A} [for it|{O}].
- {H} looked [{Y}|near the {L}] and asked {Q} {TR} [animals|friends],
  but [there was no {N}|found no {N}].
- {F} [sat|stood|danced] on a {C} {S}, and [there|soon] {F} [saw|found]
  the {T} [under|behind] it.
- [so|then|{O}] {H} opened the door [slowly|with it|with {F}],
  and [they|{F}] found {Q} {C} [rings|bells|cups].

new at school: TOYS: keeps
- {H} was new at the [big|small|old|quiet|{C}] school {O} and sat {Y} with {his} {T}.
- [{he} was|for {Q} days {he} was] [shy|quiet|sad] and [played|talked]
  only with [it|a {TR} {M}] {P}.
- then {F} [came|sat down] [near|by] {H} {O}, and [slowly|soon] {H} [gave|showed] {F} the {N}.
- ["can we play with it?" {F} asked. so|after that|so] {H} and {F} played with the {T}
  [{P}|for {Q} days|every {D}].

picnic: cake pie bread cheese honey: meets
- {H} [took|had] {A} in a {C} [basket|box] {P} for {Q} [friends|animals].
- [but|then] a {TR} {K} ran into {H} {Y}, and the {N} fell< in the water>.
- {F} [had|took] more {N} [in|from] a {C} [basket|box] and gave {H} {Q} parts< {O}>.
- [so|then] {H} [sat down|ate it] with {F} {P} and
  called the {K} to [eat the {T}|sit] with them< {O}>.

sick friend: soup honey milk cake pie bread apple pear:
- {O} {F} was sick, [and|so] {H} wanted to bring {F} {A}.
- {H} [went|walked|ran] from the {L} in the [cold |wet |dark |][rain|snow|wind]
  and fell over a {C} {X} {P}.
- but {H} held the {N} [up|well|high] and [after {Q} days|{O}|soon] gave it to {F}< {Y}>.
- {F} had the {T} and was well [again|after {Q} days], so {H} [laughed|danced|sang] {P}.

noise: drum bell:
- {H} wanted to sleep {P} {O}, but [a loud|a low|some] sound came< from the {L}>.
- was it a {TR} {M}? {H} [sat|stood|jumped] {Y} and was [afraid|quiet|still|sad].
- {H} [heard|saw] {F} with {A}. {F} [played|danced|laughed] and sang< {P}>.
- "can you sleep[ now| well|, {H}]?" {F} asked< {O}>. "no," {H} said and
  played the {T} [too|{Q} times|with {F}].

nest: bird egg: meets
- {H} [saw|found] {A} {P}. its nest was [high in|in] a [big|wet|green|little|young] tree.
- {H} [climbed|went] up {Q} times with the {N} [under|in] a {C} [hat|bag|box],
  but [fell down|the tree was wet|was afraid]< {O}>.
- {F} had [a {C} string and|] a {C} [basket|cup],
  [and|so] [together|slowly|{O}] they [pulled|took] the {T} up< {P}>.
- [so|soon|{O}] {H} put the {N} in [the|its] nest [with {F}|{P}|with a {C} flower]
  and sang {Q} [long|happy|good] songs.

painting: house boat kite ball: meets
- {H} wanted to paint {A} on a {C} {X} {O}.
- but [{P} {he}|near the {L} {he}] found no {TC} color, only [some {C1}|{C1} and {C1}].
- {F} made color [of|from] {Q} {TC} flowers and [gave|showed] it to {H}
  in a {C} [cup|box|bag]< {P}>.
- [so|then|soon] {H} made the {T} [{P}|{O}], and {F} made a {C} {M} [near|by|behind] it.

trade: ball kite boat drum doll hat bell book cup lamp ring key scarf cart: keeps
- {O} {H} saw {A} at the [big|small|old|quiet|{C1}] market< {Y}>.
- {H} [had|took] {Q} [big|small|good|sweet] [apples|eggs|nuts|pears] from the {L}, but had no gold.
- {P} {F} had it on a {C} [table|bench|stone]. "what is in your {C} [bag|box|basket], {H}?"
- "[food|something good]," {H} said {O}. so {F} [ate|took] it [slowly|fast|{Y}]
  and gave {H} the {T}.

mud: hat doll scarf bag cup ball: meets keeps
- {H} wanted to [take|show|bring] {his} {T} to {his} [mother|friends|father|family] at the {L}.
- but {P} {he} fell over a {C} {X}, and the {N} was [wet and {C1}|{C1} and wet].
- {F} [put|held] it in the {W} {Q} times, [and|so] [soon|{O}|slowly] the {N} was {TC} again.
- [so|then|after that] {H} [and {F}|] [ran|danced|walked] to the {L} [{O}|slowly|fast] with the {T}.

snow: carrot: meets
- [{P} {H} made a {TR} {K} of snow|{H} made a {TR} {K} of snow {P}] and
  wanted {A} for [it|its nose|a nose]< {O}>.
- {H} looked [in {Q} {C} [boxes|bags]|{Y} and near the {L}], but [found no {N}|no {N} was there].
- {F} had {Q} carrots in a {C} [basket|bag|box|cart] and [gave|showed] {H} the {T}.
- [then|soon|{O}] the {K} had the {N} and a {C} [hat|scarf], and {H} [laughed|danced|sang] {P}.

music: drum bell: meets keeps
- {H} heard [songs|a {TR} song|bells] from the {L} {O} and wanted {A}.
- but {he} had only {Q} {C} [sticks|cups|boxes|stones] [{P}|{Y}].
- {F} [took|found] some {C1} [paper|wool|string] and a {C} [cup|box|basket]
  and made the {T} [{P}|{O}].
- [so|then|now] {H} played [it|the {N}] [for {Q} days|every {D}|{P}],
  and {F} [sang|danced] [{Y}|{O}].

egg: egg: meets
- [{O} |]{H} found {A} {Y} {P}.
- it was [cold|not warm|wet], [but|and] {H} had only a {C} [hat|bag|cup|box] for it< {O}>.
- {F} put a {C} [scarf|blanket|hat] [on|over] the {N} {O}
  and [sat|sang|slept] [by|with] it for {Q} days.
- [then|{O}|soon] a {TR} [{C1} |][duck|bird] came out of the {T} and
  [sat|stood|slept] [near|by|with] {H}< {P}>.

bees: honey: meets
- {H} wanted {A} from {Q} {C1} bees [near|by|behind] the {L}.
- {O} {H} [ran|went|walked] to them with a {C} [stick|cup], but {Q} [of them|bees] were
  [loud|too fast|not happy].
- {F} [gave|showed] them {Q} {C} flowers {P} and [took|asked for] {Q} [cups|parts] of the {N}.
- [so|then|soon] {H} [and {F}|] [sat|stood] {Y} and ate the {T} [{O}|slowly|fast].

map: ring cup bell key: meets keeps
- {O} {H} [found|had] a map in a {C} [box|bag|book]. it showed {A} {P}.
- {H} [walked|ran|went] to the {L} and looked {Y}, but [found no {N}|no {N} was there].
- {F} read the map [slowly|again|{Q} times|{O}] and [saw|found] the {T} [under|behind] a {C} {S}.
- [so|then|soon] {H} [held|had|took] the {N} and [danced|laughed|sang] [with {F} |]
  [{P}|{O}|near the {L}].

truth: cup lamp bell drum:
- [{H} broke the {T} of {F} {O}|{O} {H} broke the {T} of {F}] {P}.
- {H} was [afraid|sad], put [it|the {N}] under a {C} {X} and [went|ran|walked] to the {L}.
- but [{O} {H} came back|{H} came back {O}]. "I broke your {N}, {F}," {he} said [slowly|{P}].
- [so|then] {H} and {F} worked for {Q} days [{P} |]and made the {T}
  [new|good] again with [{C1} [string|paper|wool]|good wood].

lost animal: sheep goat cow duck: meets keeps
- [{O} {H} lost {his} {T}|{H} could not find {his} {T} {O}] {P}.
- {H} called [it|the {N}] {Q} times [{Y}|near the {L}], but [no {N} came|it was not there]< {O}>.
- {F} [heard|saw] the {T} [near|behind|by] the {L} and [ran|went|walked] there with {H} {O}.
- [soon|then|so] {H} had the {N} again and gave it [some water|{Q} apples|some bread] {P}.

fish: fish: meets
- {H} wanted {A} for {his} {TR} [mother|father|grandmother|friends] and
  [sat|stood] [by|near] the {W} with a {C} [stick|string|bag].
- but [{Q} times|{O}|for {Q} days] [it|the {N}] [swam|was] too fast [{Y}|near the {L}],
  and {H} was [hungry|sad|cold].
- {F} had [bread|cheese|pie] in a {C} [box|basket] and gave {H} {Q} parts< {O}>.
- [so|then] {H} [ate it|sat down] with {F} {P} and told the {N} to swim [home|away|far|{Q} times].

boat building: boat: meets keeps
- {H} wanted {A} to go over the {W} [{O}|with {Q} {C} [boxes|bags]].
- {H} worked [{O}|for {Q} days] [near|behind] the {L}, but [it|the {N}] was too [small|heavy|slow].
- {F} [had|found|took] [good|old|new|hard|some] wood [{P}|{Y}] and [{O}|slowly|for {Q} days]
  worked on the {N} [with|for] {H}.
- [{O}|soon|then] {H} and {F} [sang {Q} songs|danced|slept] in the {T} on the {W}.

tower: tower house bridge: meets
- {H} wanted to make {A} of {Q} {C} [stones|boxes|chairs] {P}.
- {H} worked too fast {O}, and [the {N}|it] fell [on a {C} {X}|{Q} times|near the {L}].
- {F} held the {N} [up|well|still] with a {C} stick, and [now|then] {H}
  worked [slowly|well] [{O}|for {Q} days].
- [so|soon] the {T} stood {P} for {Q} days, and {H} [sang|danced|sat|slept]
  [near|by] it [with {F}|{O}].

song: song: meets
- [{O} |]{H} wanted to sing {A} for {his} [mother|father|grandmother|friends] {P}.
- but {H} did not know {Q} [long|hard|old|sad|happy] words and [cried|was sad|sat down] {Y}.
- {F} [had|found] the {N} in a {C} book [{O}|near the {L}] and read it to {H} [slowly|{Q} times].
- [so|then|soon] {H} sang the {T} [{P}|{O}|{Q} times], and {F} played a {C} [drum|bell].

letter: letter: meets
- {H} made {A} for {his} [grandmother|father|mother|friends] [{Y}|near the {L}|{P}].
- [but|then] [{O} |]the wind [took|pulled] [it|the {N}] from {H} {P},
  and [{he} [cried|was sad]|it fell {Y}].
- {F} [ran|went] far, [jumped|climbed] over {Q} {C} [stones|boxes] and gave {H} the {N}< {O}>.
- [so|then] they took the {T} to the {L}, and after {Q} days {H} had [one back|a {C1} one too].

hot day: milk water: meets
- [the sun was hot {P}|{P} the sun was hot] [on {D}|that morning], [and|so] {H} wanted {A}.
- but the {L} was far, and {he} had [no {N}, only|only] {Q} {C1} [cups|bags|boxes].
- {F} had {N} in {Q} {C} cups and gave {H} the [first|last] one {Y}.
- [so|then] {H} [sat {Y} with|stood {P} with|had] the {T} and [laughed|sang] [{Q} times|with {F}].

heavy: basket box bag: meets
- {H} wanted to take {A} [with|of] {Q} [big|good|old|new] [apples|stones|books|pears|cups]
  home from the {L}.
- [but|soon] [it|the {N}] was too heavy, [so|and] {P} {H} [sat|fell] down [{Y}|{O}].
- {F} [had|found|came with] a {C} [string|cart], and [{O}|for {Q} days]
  they pulled the {N}< {P}>.
- [so|then|soon] the {T} came home, and {H} gave {F} {Q} {C} [flowers|cups|bells].

reading: book story letter map: meets
- {H} found {A} {Y} and [wanted to read|read] it [{P}|{O}].
- but {Q} [long|old|new] words were [too|very] hard,
  [so|and] {H} [cried|was sad|sat down] [near the {L}|{O}|{Y}].
- every {D} {F} [sat|stood] [{P}|{Y}] and [slowly |]read {Q} [more |hard |]words of the {N} to {H}.
- [after {Q} days|{O}|soon] {H} could read the {T} to [{F}|{F} and a {TR} {M}|a {TR} {M} {P}].

moon: moon: meets
- {H} wanted the {T} for [a lamp|{his} {C} [house|bed|box|boat]] {P}< {O}>.
- [{O}|for {Q} days|{Q} times] {H} [called|sang|talked] [slowly |]to [it|the {N}]
  [near|by|from] the {L}, but it [was too [high|far away]|did not come].
- [{O} |]{F} [put|made|had] a {C} lamp like the {N} for {H} {Y}.
- [so|now|{O}] {H} slept {P} [by|near|with] the lamp, and [for {Q} days|after that]
  {H} did not [need|want] the {T}.

first swim: stone ring cup key: meets keeps
- {H} [saw|found] {A} in the {W} [{O}|{Y}].
- but [{O}|for {Q} days] {H} was afraid [to swim|of the water] and
  [sat|stood|cried] [{P}|{Y}]< with a {TR} {M}>.
- [{O}|for {Q} days] {F} [held|helped] {H} [by the {W}|near the {L}|{P}] and
  showed {him} how to swim[ well| slowly| fast|].
- [soon|then|{O}] {H} swam [down|out|{Q} times] and had the {T}, and {F} [sang|laughed|danced] {P}.
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
