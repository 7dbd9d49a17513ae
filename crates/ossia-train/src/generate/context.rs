//! Answers from a given text of three to six sentences about people: one sentence suffices, two are needed, or the text
//! does not say. The working names what is looked for before it is found or not, so that the two are told apart in one
//! step.

use super::phrases::{ask, fill};
use super::rng::Rng;
use super::task::{Task, Thought};
use super::words::{ANIMALS, BOXES, CITIES, COLORS, FOODS, JOBS, KIN, NAMES, ROOMS, THINGS, VEHICLES};

/// The answer where the text has none.
const NOT_THERE: &str = "That is not in the text.";

/// Something that can be said of a person.
struct Relation {
    name: &'static str,
    says: &'static str,
    values: &'static [&'static str],
    asks: &'static [&'static str],
}

const RELATIONS: &[Relation] = &[
    Relation {
        name: "home",
        says: "{p} lives in {v}.",
        values: CITIES,
        asks: &["Where does {p} live?", "In which city does {p} live?", "What is the home of {p}?", "{p} lives where?"],
    },
    Relation {
        name: "pet",
        says: "{p} has a {v}.",
        values: ANIMALS,
        asks: &["Which pet does {p} have?", "What animal does {p} have?", "What is the pet of {p}?"],
    },
    Relation {
        name: "job",
        says: "{p} works as a {v}.",
        values: JOBS,
        asks: &["What is the job of {p}?", "What does {p} work as?", "What does {p} do for a living?"],
    },
    Relation {
        name: "color",
        says: "{p} likes {v}.",
        values: COLORS,
        asks: &["Which color does {p} like?", "What color does {p} like?", "What is the favorite color of {p}?"],
    },
    Relation {
        name: "food",
        says: "{p} eats {v}.",
        values: FOODS,
        asks: &["What does {p} eat?", "Which food does {p} eat?", "What is the food of {p}?"],
    },
    Relation {
        name: "vehicle",
        says: "{p} drives a {v}.",
        values: VEHICLES,
        asks: &["What does {p} drive?", "Which vehicle does {p} drive?", "{p} drives what?"],
    },
];

/// A sentence of the text.
#[derive(Clone)]
struct Fact {
    about: String,
    slot: &'static str,
    value: String,
    text: String,
}

/// The sentences of a text; no two say the same thing of the same person, and no value of a kind occurs twice.
#[derive(Default)]
struct Facts(Vec<Fact>);

impl Facts {
    /// Says something of a person, unless it is said already.
    fn say(&mut self, rng: &mut Rng, person: &str, relation: &'static Relation) -> String {
        let known = self.0.iter().find(|fact| fact.about == person && fact.slot == relation.name);
        if let Some(fact) = known {
            return fact.value.clone();
        }
        let value = loop {
            let value = rng.pick(relation.values);
            if self.0.iter().all(|fact| fact.value != value) {
                break value.to_owned();
            }
        };
        let text = fill(relation.says, &[("p", person), ("v", &value)]);
        self.0.push(Fact { about: person.to_owned(), slot: relation.name, value: value.clone(), text });
        value
    }

    /// Says who somebody's kin is.
    fn relate(&mut self, rng: &mut Rng, person: &str, kin: &'static str, other: &str) {
        let template = rng.pick(&["{p}'s {k} is {o}.", "{o} is {p}'s {k}."]);
        let text = fill(template, &[("p", person), ("k", kin), ("o", other)]);
        self.0.push(Fact { about: person.to_owned(), slot: kin, value: other.to_owned(), text });
    }

    /// More of other people, up to `count` sentences in all.
    fn fill_up(&mut self, rng: &mut Rng, count: usize, people: &[&str]) {
        while self.0.len() < count {
            let (person, relation) = (rng.pick(people), &RELATIONS[rng.below(RELATIONS.len())]);
            self.say(rng, person, relation);
        }
    }

    /// The sentence that says it, or nothing.
    fn find(&self, person: &str, slot: &str) -> Option<&Fact> {
        self.0.iter().find(|fact| fact.about == person && fact.slot == slot)
    }

    fn text(&self) -> String {
        self.0.iter().map(|fact| fact.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// All that is said of a person, as the check of a thought.
    fn check(&self, person: &str) -> String {
        let said: Vec<&str> =
            self.0.iter().filter(|fact| fact.about == person).map(|fact| fact.text.as_str()).collect();
        if said.is_empty() { format!("check {person}: none") } else { format!("check {person}: {}", said.join(" ")) }
    }

    /// `home of Ana: ` and the sentence, or `none`.
    fn look_up(&self, person: &str, slot: &str) -> String {
        let found = self.find(person, slot).map_or("none", |fact| fact.text.as_str());
        format!("{slot} of {person}: {found}")
    }
}

/// The text and the question, in one message or with the text as instructions.
fn place(rng: &mut Rng, key: String, facts: &str, question: &str, thought: Thought, answer: &str) -> Task {
    let layout = rng.pick(&[
        "{t}\n{q}",
        "{t} {q}",
        "{q}\n{t}",
        "Text: {t}\nQuestion: {q}",
        "Read this: {t}\n{q}",
        "{t}\n\n{q}",
        "{q} Text: {t}",
    ]);
    if rng.chance(20) {
        let head = rng.pick(&["Answer from this text: ", "Text: ", "These are the facts: ", ""]);
        let instructions = Some(format!("{head}{facts}"));
        return Task { instructions, ..Task::new(key, question.to_owned(), thought, answer) };
    }
    Task::new(key, fill(layout, &[("t", facts), ("q", question)]), thought, answer)
}

fn relation(rng: &mut Rng) -> &'static Relation {
    &RELATIONS[rng.below(RELATIONS.len())]
}

/// What two people are said to be or have, with others around, and the question about the first.
fn one_hop_facts(rng: &mut Rng) -> (Facts, &'static Relation, [&'static str; 2]) {
    let people = rng.some(NAMES, 4);
    let (relation, mut facts) = (relation(rng), Facts::default());
    for person in &people[..2] {
        facts.say(rng, person, relation);
    }
    let count = rng.between(3, 6) as usize;
    facts.fill_up(rng, count, &people);
    rng.shuffle(&mut facts.0);
    (facts, relation, [people[0], people[1]])
}

fn one_hop_key(person: &str, slot: &str, value: &str) -> String {
    format!("text {person} {slot} {value}")
}

/// A question that one sentence answers.
pub(super) fn one_hop(rng: &mut Rng) -> Task {
    let (facts, relation, [person, _]) = one_hop_facts(rng);
    let question = ask(rng, relation.asks, &[("p", person)]);
    one_hop_task(rng, &facts, person, relation.name, Some(&question))
}

/// The first question comes with the text; a later one has only its own words.
fn one_hop_task(rng: &mut Rng, facts: &Facts, person: &str, slot: &str, with_text: Option<&str>) -> Task {
    let value = facts.find(person, slot).map(|fact| fact.value.clone()).unwrap_or_default();
    let thought = Thought::new(facts.look_up(person, slot), facts.check(person));
    let key = one_hop_key(person, slot, &value);
    match with_text {
        Some(question) => place(rng, key, &facts.text(), question, thought, &value),
        None => {
            let question =
                ask(rng, &["And {p}?", "What about {p}?", "And for {p}?", "Same for {p}?"], &[("p", person)]);
            Task::new(key, question, thought, value)
        }
    }
}

/// The same question about one person, then about another.
pub(super) fn two_questions(rng: &mut Rng) -> Task {
    let (facts, relation, [first, second]) = one_hop_facts(rng);
    let question = ask(rng, relation.asks, &[("p", first)]);
    let begin = one_hop_task(rng, &facts, first, relation.name, Some(&question));
    begin.then(one_hop_task(rng, &facts, second, relation.name, None))
}

/// Some sentences about some people.
fn facts_of_some(rng: &mut Rng) -> Facts {
    let num_people = rng.between(2, 3) as usize;
    let (people, mut facts) = (rng.some(NAMES, num_people), Facts::default());
    let count = rng.between(3, 7) as usize;
    facts.fill_up(rng, count, &people);
    rng.shuffle(&mut facts.0);
    facts
}

/// A text as these tasks have it.
pub(super) fn some_text(rng: &mut Rng) -> String {
    facts_of_some(rng).text()
}

/// The sentences of a text, person by person.
pub(super) fn by_person(rng: &mut Rng) -> Task {
    let facts = facts_of_some(rng);
    let text = facts.text();
    let templates = [
        "{t}\nSort this by person.",
        "Sort by person: {t}",
        "{t}\nWho is who? Go person by person.",
        "Group by person: {t}",
    ];
    let question = ask(rng, &templates, &[("t", &text)]);
    let mut people: Vec<&str> = Vec::new();
    for fact in &facts.0 {
        if !people.contains(&fact.about.as_str()) {
            people.push(&fact.about);
        }
    }
    let said =
        |person: &&str| facts.0.iter().filter(|fact| fact.about == **person).map(|fact| fact.text.as_str()).collect();
    let lines: Vec<Vec<&str>> = people.iter().map(said).collect();
    let answer = lines.iter().map(|line| line.join(" ")).collect::<Vec<_>>().join("\n");
    let thought = Thought::new(format!("people: {}", people.join(", ")), "check: all sentences");
    Task::new(format!("by person {text}"), question, thought, answer)
}

/// A question that takes two sentences: somebody's kin and what is said of them, or a thing in a box in a room.
pub(super) fn two_hops(rng: &mut Rng) -> Task {
    if rng.chance(25) {
        return nested(rng);
    }
    let people = rng.some(NAMES, 5);
    let [person, other, bystander, ..] = people[..] else { return nested(rng) };
    let (relation, kin) = (relation(rng), rng.pick(KIN));
    let mut facts = Facts::default();
    facts.relate(rng, person, kin, other);
    let value = facts.say(rng, other, relation);
    if rng.chance(70) {
        facts.say(rng, person, relation);
    }
    if rng.chance(50) {
        facts.relate(rng, bystander, kin, people[3]);
        facts.say(rng, people[3], relation);
    }
    let count = rng.between(3, 6) as usize;
    facts.fill_up(rng, count, &[bystander, people[4]]);
    rng.shuffle(&mut facts.0);
    let question = ask(rng, relation.asks, &[("p", &format!("{person}'s {kin}"))]);
    let working = format!("{}\n{}", facts.look_up(person, kin), facts.look_up(other, relation.name));
    let thought = Thought::new(working, facts.check(other));
    let key = format!("kin {person} {kin} {other} {} {value}", relation.name);
    place(rng, key, &facts.text(), &question, thought, &value)
}

/// Things in boxes in rooms.
fn nested(rng: &mut Rng) -> Task {
    let count = rng.between(2, 3) as usize;
    let (things, boxes, rooms) = (rng.some(THINGS, count), rng.some(BOXES, count), rng.some(ROOMS, count));
    let within = |inside: &str, outside: &str| format!("The {inside} is in the {outside}.");
    let outer = (0..count).map(|i| within(boxes[i], rooms[i]));
    let mut sentences: Vec<String> = (0..count).map(|i| within(things[i], boxes[i])).chain(outer).collect();
    rng.shuffle(&mut sentences);
    let asks = [
        "In which room is the {p}?",
        "Which room is the {p} in?",
        "What room has the {p}?",
        "The {p} is in which room?",
    ];
    let question = ask(rng, &asks, &[("p", things[0])]);
    let hops = [within(things[0], boxes[0]), within(boxes[0], rooms[0])];
    let thought = Thought::new(hops.join("\n"), format!("check {}: {}", boxes[0], hops[1]));
    let key = format!("nested {} {} {}", things[0], boxes[0], rooms[0]);
    place(rng, key, &sentences.join(" "), &question, thought, rooms[0])
}

/// A question that the text does not answer: the person is there or not, the same is said of others, a hop is missing.
pub(super) fn refusal(rng: &mut Rng) -> Task {
    let people = rng.some(NAMES, 4);
    let (person, relation) = (people[0], relation(rng));
    let (kin, with_kin) = (rng.pick(KIN), rng.chance(35));
    let mut facts = Facts::default();
    facts.say(rng, people[1], relation);
    // Where the kin is named, what is asked is not said of them; where not, the first step already fails.
    let hop = with_kin && rng.chance(50);
    let silent = if hop { people[3] } else { person };
    if hop {
        facts.relate(rng, person, kin, silent);
    }
    let others: Vec<&'static Relation> = RELATIONS.iter().filter(|r| r.name != relation.name).collect();
    if rng.chance(70) {
        let other = rng.pick(&others);
        facts.say(rng, silent, other);
    }
    let count = rng.between(3, 6) as usize;
    facts.fill_up(rng, count, &people[1..3]);
    rng.shuffle(&mut facts.0);
    let asked = if with_kin { format!("{person}'s {kin}") } else { person.to_owned() };
    let question = ask(rng, relation.asks, &[("p", &asked)]);
    let working = match (with_kin, hop) {
        (true, true) => format!("{}\n{}", facts.look_up(person, kin), facts.look_up(silent, relation.name)),
        (true, false) => facts.look_up(person, kin),
        (false, _) => facts.look_up(person, relation.name),
    };
    let thought = Thought::new(working, facts.check(silent));
    let key = format!("silent {asked} {} {}", relation.name, facts.text());
    place(rng, key, &facts.text(), &question, thought, NOT_THERE)
}
