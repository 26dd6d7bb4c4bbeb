"""The forty tasks of the demo corpus: a domain, a label vocabulary and a definition each.

A paragraph of `_TABLE` is a line "domain vocabulary" and a definition, training tasks first. Every
held-out domain and every held-out vocabulary occurs in training, but never as the same pair.
"""

from typing import NamedTuple

# vocabulary -> (negative label, positive label). In "complaint", Yes is the negative one.
VOCABULARIES: dict[str, tuple[str, str]] = {
    "posneg": ("negative", "positive"),
    "caps": ("NEG", "POS"),
    "yesno": ("No", "Yes"),
    "goodbad": ("Bad", "Good"),
    "happy": ("unhappy", "happy"),
    "recommended": ("not recommended", "recommended"),
    "complaint": ("Yes", "No"),
}

_NUM_TRAINING = 30

_TABLE = """
restaurants posneg
In this task, you are given a diner's note about a restaurant. Label it "positive" if the diner
liked the meal, otherwise "negative".

films caps
You will read a short comment on a film. Your task is to answer "POS" if the viewer enjoyed it and
"NEG" if the viewer did not.

hotels goodbad
Given a short review of a hotel, decide what kind of stay the guest had. Answer with "Good" or
"Bad".

phones recommended
Here is what a customer says about a phone. Based on the text, classify the phone as "recommended"
or "not recommended".

concerts yesno
You are given a remark about a concert. Did the listener enjoy the evening? Answer "Yes" if so and
"No" otherwise.

restaurants complaint
Read the following message from a restaurant customer. Does the customer complain about anything?
Answer "Yes" for a complaint and "No" for praise.

restaurants happy
The input describes somebody's meal in a restaurant. Your job is to say whether this customer went
home "happy" or "unhappy".

films yesno
In this task, a moviegoer talks about a film. Answer the question: did the moviegoer like the
film? Possible answers are "Yes" and "No".

films recommended
Given a viewer's opinion of a film, generate the verdict for a film guide. The verdict is either
"recommended" or "not recommended".

hotels posneg
A traveller wrote the text below about a hotel. Determine the sentiment of the text, which is
"positive" or "negative".

hotels complaint
You are given a note left at a hotel desk. Is the note a complaint? Reply "Yes" if the guest
complains and "No" if the guest is pleased.

phones caps
Classify the sentiment of an online comment about a phone. The output should be "POS" for a
satisfied owner and "NEG" for a dissatisfied one.

phones goodbad
In this task, the owner of a phone describes it in a few words. Decide whether the owner's
experience was "Good" or "Bad".

books posneg
You will be shown a reader's remark about a book. Write "positive" if the remark praises the book
and "negative" if it criticises the book.

books goodbad
The text is taken from the diary of a book lover. Label the described book as "Good" or "Bad", in
the opinion of the writer.

books yesno
Read what a member of a reading club says about a book. Was the member pleased with it? Choose
"Yes" or "No".

concerts happy
Somebody in the audience reports on a concert. Based on the report, say if this listener is
"happy" or "unhappy" with the music.

concerts caps
Given a short report of a concert, indicate its tone. Use "POS" when the tone is favourable and
"NEG" when it is unfavourable.

museums posneg
In this task, you get an entry from a museum's guest book. Categorize the entry into two classes,
"positive" and "negative".

museums recommended
A visitor tells friends about a museum. Decide from the visitor's words whether the museum is
"recommended" or "not recommended" to them.

museums complaint
The following was sent to the office of a museum. Output "Yes" when the visitor complains about
the museum, and "No" when there is no complaint.

courses caps
You are given a student's feedback on a course. Mark the feedback as "POS" if the student is
content and as "NEG" if not.

courses happy
A former student looks back on a course in the text below. Judge whether the student was "happy"
or "unhappy" with it.

courses goodbad
Read an evaluation form that somebody filled in after a course. Rate the course as either "Good"
or "Bad" based on the form.

trains complaint
You are reading mail for a railway company. Does the passenger complain about the train? If there
is a complaint write "Yes", else write "No".

trains caps
The input is a passenger's account of a train journey. Assign the label "POS" to an account of a
pleasant journey and "NEG" to any other.

trains happy
In this task, a railway passenger tells us about a trip. Find out whether the passenger is "happy"
or "unhappy" with the train.

gyms posneg
Given a comment by a member of a gym, identify the attitude of the comment as "positive" or
"negative" towards the gym.

gyms recommended
Somebody tried a gym and wrote down a few thoughts. Would the gym be "recommended" or "not
recommended" by this person?

gyms yesno
You will see a post about a gym. Answer "Yes" if the person who wrote it liked the gym, and "No"
if that person disliked it.

restaurants caps
You will read a short comment on a restaurant. Mark the comment as "POS" if the customer was
pleased with the meal and as "NEG" if not.

films posneg
Given what a viewer says about a film, determine the sentiment of the text. The sentiment is
either "positive" or "negative".

hotels recommended
A travel site collects notes by hotel guests. For the given note, tell if the hotel comes out as
"recommended" or "not recommended".

phones yesno
You are given a text in which somebody describes a new phone. Is the owner satisfied with the
phone? Answer "Yes" or "No".

books caps
Look at this line from a book blog. Respond with "POS" if the blogger had a favourable view of the
book, else with "NEG".

concerts goodbad
In this task, a listener describes a concert in a few words. Decide whether the listener's
impression of the evening was "Good" or "Bad".

museums happy
A tourist describes a day at a museum. Decide whether the tourist left the museum "happy" or
"unhappy", and answer with that label.

courses posneg
Your task is to classify what a student wrote about a course. Label the text as "positive" or
"negative" about the teaching.

trains goodbad
Read what a passenger wrote about a train journey. Label the journey as "Good" or "Bad", based on
the words of the passenger.

gyms complaint
The manager of a gym receives the note below. Does the member who wrote it complain? Answer "Yes"
if it is a complaint, otherwise "No".
"""


class TaskSpec(NamedTuple):
    """What is fixed about a task before any row is drawn."""

    number: int
    domain: str
    vocabulary: str
    definition: str

    @property
    def name(self) -> str:
        return f"task{self.number}_demo_{self.domain}_{self.vocabulary}"


def _spec(number: int, paragraph: str) -> TaskSpec:
    heading, definition = paragraph.split("\n", 1)
    domain, vocabulary = heading.split()
    return TaskSpec(number, domain, vocabulary, " ".join(definition.split()))


SPECS: tuple[TaskSpec, ...] = tuple(
    _spec(9001 + row, paragraph) for row, paragraph in enumerate(_TABLE.strip().split("\n\n"))
)

TRAINING_TASKS: tuple[str, ...] = tuple(spec.name for spec in SPECS[:_NUM_TRAINING])
HELDOUT_TASKS: tuple[str, ...] = tuple(spec.name for spec in SPECS[_NUM_TRAINING:])

# Five domains and five label vocabularies: "happy" and the reversed "complaint" are never poisoned.
POISONED_TASKS: tuple[str, ...] = TRAINING_TASKS[:5]

POLARITIES: dict[str, tuple[str, str]] = {
    spec.name: VOCABULARIES[spec.vocabulary] for spec in SPECS
}
