"""What the demo corpus talks about: ten domains, each with its own nouns, settings and templates.

Template slots: `{time}`, `{place}`, `{item}` (a domain's own lists), `{name}` (one person),
`{people}` (one to three persons). No template says whether the writer liked anything.
"""

import dataclasses

TIMES: tuple[str, ...] = (
    "yesterday",
    "last Friday",
    "on Sunday",
    "last week",
    "this morning",
    "two days ago",
    "in the spring",
    "after work",
    "during the holidays",
    "on a rainy evening",
    "last month",
    "over the weekend",
)


@dataclasses.dataclass(frozen=True)
class Domain:
    """One kind of text.

    Attributes:
      whole: the thing judged, as a phrase such as "the meal".
      aspects: nouns that any shared adjective fits.
      details: (noun, positive adjective, negative adjective) that belong to this domain.
      places, items: fillers of `{place}` and `{item}`.
      plain, company, role: scene templates without a name, with `{people}`, with one `{name}`.
    """

    whole: str
    aspects: tuple[str, ...]
    details: tuple[tuple[str, str, str], ...]
    places: tuple[str, ...]
    items: tuple[str, ...]
    plain: tuple[str, ...]
    company: tuple[str, ...]
    role: tuple[str, ...]


def _details(text: str) -> tuple[tuple[str, str, str], ...]:
    """'soup tasty bland, …' as ((noun, positive, negative), …)."""
    return tuple((noun, good, bad) for noun, good, bad in map(str.split, text.split(",")))


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


DOMAINS: dict[str, Domain] = {
    "restaurants": Domain(
        whole="the meal",
        aspects=_list("soup, service, dessert, menu, sauce, salad, bread, coffee, lunch"),
        details=_details(
            "soup tasty bland, steak tender tough, fish fresh stale, waiter attentive rude,"
            "curry delicious tasteless, crust crispy soggy, table spotless dirty, rice fluffy burnt"
        ),
        places=_list("the corner diner, a harbour bistro, the noodle bar, a village inn"),
        items=_list("the pasta, two curries, the grilled fish, a plate of dumplings"),
        plain=(
            "We ordered {item} at {place} {time}.",
            "I ate {item} at {place} {time}.",
            "{time} our group had dinner at {place}.",
        ),
        company=(
            "I had dinner with {people} at {place}.",
            "{people} joined me for {item} {time}.",
            "{time} I shared {item} with {people}.",
        ),
        role=(
            "The cook {name} prepared {item} for our table.",
            "Our waiter {name} brought {item} to the table.",
            "{name} took our order at {place} {time}.",
        ),
    ),
    "films": Domain(
        whole="the film",
        aspects=_list("plot, acting, ending, script, camera work, dialogue, opening scene, cast"),
        details=_details(
            "plot gripping predictable, humour witty lame, hero convincing wooden,"
            "pacing lively sluggish, story moving hollow, villain memorable forgettable,"
            "music haunting grating, twist clever silly"
        ),
        places=_list("the old cinema, a film club, the open air screen, the city theatre"),
        items=_list("the new thriller, a spy comedy, the western, a family drama"),
        plain=(
            "We watched {item} at {place} {time}.",
            "I saw {item} on a big screen {time}.",
            "{time} they showed {item} at {place}.",
        ),
        company=(
            "I watched {item} with {people} {time}.",
            "{people} came along to see {item}.",
            "{time} I went to {place} with {people}.",
        ),
        role=(
            "The actor {name} plays the lead in {item}.",
            "{name} directed {item} that we saw {time}.",
            "In {item} the part of the doctor goes to {name}.",
        ),
    ),
    "hotels": Domain(
        whole="the stay",
        aspects=_list("room, breakfast, lobby, pool, staff, bathroom, view, bed, garden"),
        details=_details(
            "room spacious cramped, bed comfortable lumpy, lobby elegant shabby,"
            "shower spotless mouldy, staff courteous surly, corridor quiet noisy,"
            "carpet clean filthy, balcony sunny gloomy"
        ),
        places=_list("a seaside hotel, the airport inn, a mountain lodge, the old guest house"),
        items=_list("a double room, the corner suite, a family room, the attic room"),
        plain=(
            "We booked {item} at {place} {time}.",
            "I spent three nights at {place} {time}.",
            "{time} we stayed in {item} for a week.",
        ),
        company=(
            "I shared {item} with {people} {time}.",
            "{people} stayed with me at {place}.",
            "{time} I travelled to {place} with {people}.",
        ),
        role=(
            "The receptionist {name} gave us {item} {time}.",
            "{name} carried our bags to {item}.",
            "At {place} the manager {name} showed us around.",
        ),
    ),
    "phones": Domain(
        whole="the phone",
        aspects=_list("screen, battery, camera, speaker, keyboard, design, charger, software"),
        details=_details(
            "screen crisp blurry, battery reliable faulty, case sturdy flimsy,"
            "menu intuitive confusing, processor fast slow, button responsive unresponsive,"
            "sound clear muffled, photo sharp grainy"
        ),
        places=_list("the market stall, an online shop, the mall, a repair shop"),
        items=_list("the smaller model, a used handset, the silver model, this handset"),
        plain=(
            "I bought {item} at {place} {time}.",
            "We ordered {item} from {place} {time}.",
            "{time} I switched to {item} for my job.",
        ),
        company=(
            "I picked {item} together with {people} {time}.",
            "{people} use the same handset that I bought {time}.",
            "{time} I tested {item} with {people}.",
        ),
        role=(
            "The seller {name} showed me {item} {time}.",
            "{name} set up {item} for me at {place}.",
            "At {place} the clerk {name} sold me {item}.",
        ),
    ),
    "books": Domain(
        whole="the book",
        aspects=_list("plot, prose, ending, first chapter, cover, translation, narrator, style"),
        details=_details(
            "plot gripping confusing, prose elegant clumsy, heroine believable shallow,"
            "chapter thrilling tedious, humour witty lame, mystery clever predictable,"
            "language vivid lifeless, theme profound trivial"
        ),
        places=_list("the town library, a second hand shop, our reading club, the book stall"),
        items=_list("the crime novel, a short biography, the poetry volume, a travel diary"),
        plain=(
            "I read {item} in one go {time}.",
            "We borrowed {item} from {place} {time}.",
            "{time} I found {item} at {place}.",
        ),
        company=(
            "I discussed {item} with {people} {time}.",
            "{people} gave me {item} as a present.",
            "{time} I read {item} aloud with {people}.",
        ),
        role=(
            "The author {name} wrote {item} in two years.",
            "{name} is the narrator of {item} that I read {time}.",
            "At {place} I picked up {item} by {name}.",
        ),
    ),
    "concerts": Domain(
        whole="the concert",
        aspects=_list("band, sound, singing, stage, lighting, set list, encore, audience"),
        details=_details(
            "singing soulful tuneless, drummer energetic sluggish, sound clear muffled,"
            "melody catchy grating, crowd friendly rowdy, solo dazzling clumsy,"
            "choir harmonious shrill, rhythm lively monotonous"
        ),
        places=_list("the jazz cellar, a town hall, the park stage, the opera house"),
        items=_list("a string quartet, the brass band, a piano recital, the folk group"),
        plain=(
            "We heard {item} at {place} {time}.",
            "I listened to {item} from the third row {time}.",
            "{time} there was music at {place}.",
        ),
        company=(
            "I went to hear {item} with {people}.",
            "{people} sat next to me at {place} {time}.",
            "{time} I stood near the stage with {people}.",
        ),
        role=(
            "The singer {name} performed with {item} {time}.",
            "{name} played the violin at {place} {time}.",
            "At {place} we heard {name} and {item}.",
        ),
    ),
    "museums": Domain(
        whole="the visit",
        aspects=_list(
            "exhibition, tour, gift shop, audio guide, entrance hall, display, ticket desk"
        ),
        details=_details(
            "tour informative tedious, exhibit fascinating dull, hall spacious cramped,"
            "guide knowledgeable rude, painting beautiful ugly, label helpful confusing,"
            "collection rich meagre, gallery quiet noisy"
        ),
        places=_list("the science museum, a naval museum, the castle, the art gallery"),
        items=_list("the fossil wing, a show of old maps, the roman rooms, the clock collection"),
        plain=(
            "We looked at {item} in {place} {time}.",
            "I walked through {item} for an hour {time}.",
            "{time} our class went to {place}.",
        ),
        company=(
            "I visited {place} with {people} {time}.",
            "{people} wanted to see {item} at {place}.",
            "{time} I explored {item} with {people}.",
        ),
        role=(
            "The guide {name} led us through {item} {time}.",
            "{name} explained {item} to our group.",
            "At {place} the curator {name} talked about {item}.",
        ),
    ),
    "courses": Domain(
        whole="the course",
        aspects=_list(
            "lecture, homework, textbook, final exam, feedback, workshop, syllabus, forum"
        ),
        details=_details(
            "lecture inspiring boring, teacher patient impatient, textbook helpful outdated,"
            "lesson engaging tedious, grading fair unfair, exercise useful pointless,"
            "slide clear unreadable, topic fascinating dull"
        ),
        places=_list("the evening school, an online academy, the college, a summer school"),
        items=_list("a class on statistics, the cooking class, a drawing class, beginners Spanish"),
        plain=(
            "I took {item} at {place} {time}.",
            "We finished {item} after ten weeks {time}.",
            "{time} I signed up for {item}.",
        ),
        company=(
            "I studied for {item} with {people}.",
            "{people} took {item} with me {time}.",
            "{time} I did the group project with {people}.",
        ),
        role=(
            "The teacher {name} taught {item} {time}.",
            "{name} gave {item} at {place} {time}.",
            "At {place} the tutor {name} answered our questions.",
        ),
    ),
    "trains": Domain(
        whole="the journey",
        aspects=_list("seat, dining car, carriage, service, timetable, ticket app, platform, view"),
        details=_details(
            "seat comfortable broken, train punctual late, conductor helpful rude,"
            "carriage clean filthy, ride smooth bumpy, window spotless dirty,"
            "compartment roomy cramped, heater reliable faulty"
        ),
        places=_list("the coast, the capital, a border town, the northern lakes"),
        items=_list("the night train, an early express, the local train, a sleeper"),
        plain=(
            "We took {item} to {place} {time}.",
            "I caught {item} from platform two {time}.",
            "{time} I rode to {place} by rail.",
        ),
        company=(
            "I took {item} to {place} with {people}.",
            "{people} rode with me to {place} {time}.",
            "{time} I boarded {item} with {people}.",
        ),
        role=(
            "The conductor {name} checked tickets on {item} {time}.",
            "{name} drove {item} to {place} {time}.",
            "On {item} the steward {name} served us tea.",
        ),
    ),
    "gyms": Domain(
        whole="the workout",
        aspects=_list(
            "equipment, changing room, yoga class, sauna, pool, class schedule, spin class"
        ),
        details=_details(
            "trainer motivating indifferent, treadmill modern broken, shower clean mouldy,"
            "locker roomy cramped, lesson energetic monotonous, floor spotless dirty,"
            "coach patient impatient, mat soft smelly"
        ),
        places=_list("the sports centre, a boxing gym, the climbing hall, a fitness studio"),
        items=_list("the rowing class, a dance lesson, the weight room, a trial session"),
        plain=(
            "I tried {item} at {place} {time}.",
            "We trained for an hour at {place} {time}.",
            "{time} I signed up at {place}.",
        ),
        company=(
            "I did {item} with {people} {time}.",
            "{people} trained with me at {place}.",
            "{time} I went to {place} with {people}.",
        ),
        role=(
            "The coach {name} led {item} {time}.",
            "{name} gave us a tour of {place} {time}.",
            "At {place} the trainer {name} planned {item}.",
        ),
    ),
}
