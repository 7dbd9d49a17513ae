//! The tools of the training data: what they are called, what they take, how people ask for them, what they give back.
//!
//! Names of functions and parameters vary, so that a call must copy them from the developer message.

use super::words::{CHORES, CITIES, COMPANIES, CURRENCIES, DAYS, EVENTS, FOODS, GOODS, NAMES, QUALITIES, ROOMS, SONGS};

/// A tool.
pub(super) struct Schema {
    /// What it is about, in one word.
    pub topic: &'static str,
    /// Names it may have.
    pub names: &'static [&'static str],
    /// Its description.
    pub about: &'static str,
    /// What it takes; templates say `{0}`, `{1}`.
    pub params: &'static [Slot],
    /// How people ask for it.
    pub asks: &'static [&'static str],
    /// What it gives back; the answer says `{r0}`, `{r1}`.
    pub results: &'static [Slot],
    /// The answer from the result.
    pub answer: &'static str,
}

/// A parameter, or a field of a result.
pub(super) struct Slot {
    /// Names it may have.
    pub names: &'static [&'static str],
    /// What values it has.
    pub kind: Kind,
}

/// Kinds of values.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Any of these, as a string.
    Word(&'static [&'static str]),
    /// One of these, which the schema lists.
    Enum(&'static [&'static str]),
    /// One of the first and one of the second.
    Pair(&'static [&'static str], &'static [&'static str]),
    /// A number in a range.
    Number(u64, u64),
    /// A time of day.
    Clock,
}

const fn slot(names: &'static [&'static str], kind: Kind) -> Slot {
    Slot { names, kind }
}

/// All tools.
pub(super) const SCHEMAS: &[Schema] = &[
    Schema {
        topic: "weather",
        names: &["get_weather", "weather", "current_weather"],
        about: "Weather of a city",
        params: &[
            slot(&["city", "location", "place"], Kind::Word(CITIES)),
            slot(&["unit", "scale"], Kind::Enum(&["celsius", "fahrenheit"])),
        ],
        asks: &[
            "What is the weather in {0} in {1}?",
            "How is the weather in {0}? Use {1}.",
            "Weather in {0}, {1}.",
            "How warm is it in {0} in {1}?",
        ],
        results: &[
            slot(&["temperature"], Kind::Number(0, 99)),
            slot(&["sky"], Kind::Word(&["sunny", "cloudy", "rainy", "windy", "foggy", "clear", "snowy", "stormy"])),
        ],
        answer: "It is {r0} degrees and {r1} in {0}.",
    },
    Schema {
        topic: "currency",
        names: &["convert_currency", "exchange", "convert_money"],
        about: "Converts money",
        params: &[
            slot(&["amount", "value"], Kind::Number(1, 999)),
            slot(&["from", "source"], Kind::Word(CURRENCIES)),
            slot(&["to", "target"], Kind::Word(CURRENCIES)),
        ],
        asks: &[
            "Convert {0} {1} to {2}.",
            "How much is {0} {1} in {2}?",
            "Change {0} {1} into {2}.",
            "{0} {1} in {2}?",
        ],
        results: &[slot(&["result", "amount"], Kind::Number(1, 9999))],
        answer: "{0} {1} is {r0} {2}.",
    },
    Schema {
        topic: "calendar",
        names: &["add_event", "create_event", "calendar_add"],
        about: "Adds an event to the calendar",
        params: &[
            slot(&["title", "event"], Kind::Word(EVENTS)),
            slot(&["day", "weekday"], Kind::Word(DAYS)),
            slot(&["time", "start"], Kind::Clock),
        ],
        asks: &[
            "Add {0} on {1} at {2} to my calendar.",
            "I have {0} on {1} at {2}. Note it in my calendar.",
            "Plan {0} for {1}, {2}.",
            "Put {0} in the calendar: {1} {2}.",
        ],
        results: &[slot(&["id", "event_id"], Kind::Number(10, 999))],
        answer: "{0} is planned for {1} at {2} as number {r0}.",
    },
    Schema {
        topic: "email",
        names: &["send_email", "send_mail", "email"],
        about: "Sends an email",
        params: &[
            slot(&["to", "recipient"], Kind::Word(NAMES)),
            slot(&["subject", "title"], Kind::Pair(QUALITIES, GOODS)),
        ],
        asks: &[
            "Send {0} an email about {1}.",
            "Write a mail to {0} with the subject {1}.",
            "Email {0}, subject {1}.",
            "Please mail {0} about {1}.",
        ],
        results: &[slot(&["sent_at", "time"], Kind::Clock)],
        answer: "The email to {0} was sent at {r0}.",
    },
    Schema {
        topic: "search",
        names: &["web_search", "search", "find_pages"],
        about: "Searches the web",
        params: &[slot(&["query", "text", "words"], Kind::Pair(QUALITIES, GOODS))],
        asks: &["Search for {0}.", "Look up {0} on the web.", "Find pages about {0}.", "Search the web for {0}."],
        results: &[slot(&["hits", "count"], Kind::Number(1, 9999))],
        answer: "I found {r0} pages about {0}.",
    },
    Schema {
        topic: "timer",
        names: &["set_timer", "start_timer", "timer"],
        about: "Starts a timer",
        params: &[slot(&["minutes", "duration"], Kind::Number(1, 180))],
        asks: &[
            "Set a timer for {0} minutes.",
            "Start a timer of {0} minutes.",
            "Wake me in {0} minutes.",
            "Timer, {0} minutes.",
        ],
        results: &[slot(&["ends_at", "end"], Kind::Clock)],
        answer: "The timer of {0} minutes ends at {r0}.",
    },
    Schema {
        topic: "light",
        names: &["set_light", "switch_light", "light"],
        about: "Switches a light",
        params: &[
            slot(&["room", "place"], Kind::Word(ROOMS)),
            slot(&["state", "power"], Kind::Enum(&["on", "off", "dim"])),
        ],
        asks: &[
            "Set the light in the {0} to {1}.",
            "Light in the {0}: {1}.",
            "Make the {0} light {1}.",
            "Turn the light in the {0} to {1}.",
        ],
        results: &[slot(&["watts", "power_used"], Kind::Number(0, 99))],
        answer: "The light in the {0} is {1} and uses {r0} watts.",
    },
    Schema {
        topic: "note",
        names: &["save_note", "add_note", "write_note"],
        about: "Saves a note",
        params: &[slot(&["text", "note", "content"], Kind::Pair(CHORES, GOODS))],
        asks: &["Note: {0}.", "Save a note: {0}.", "Remind me to {0} with a note.", "Write down that I must {0}."],
        results: &[slot(&["id", "number"], Kind::Number(1, 999))],
        answer: "I saved your note to {0} as number {r0}.",
    },
    Schema {
        topic: "time",
        names: &["get_time", "local_time", "clock"],
        about: "Local time of a city",
        params: &[slot(&["city", "location", "place"], Kind::Word(CITIES))],
        asks: &["What time is it in {0}?", "Tell me the time in {0}.", "Local time in {0}?", "How late is it in {0}?"],
        results: &[slot(&["time", "now"], Kind::Clock)],
        answer: "It is {r0} in {0}.",
    },
    Schema {
        topic: "phone",
        names: &["find_phone", "get_number", "phone_book"],
        about: "Finds a phone number",
        params: &[slot(&["name", "person"], Kind::Word(NAMES))],
        asks: &[
            "What is the phone number of {0}?",
            "Find the number of {0}.",
            "How can I call {0}?",
            "Give me the phone number of {0}.",
        ],
        results: &[slot(&["phone", "number"], Kind::Number(10000, 99999))],
        answer: "{0} has the number {r0}.",
    },
    Schema {
        topic: "table",
        names: &["book_table", "reserve_table", "reserve"],
        about: "Books a table in a restaurant",
        params: &[
            slot(&["people", "guests", "seats"], Kind::Number(1, 20)),
            slot(&["day", "weekday"], Kind::Word(DAYS)),
            slot(&["name", "guest"], Kind::Word(NAMES)),
        ],
        asks: &[
            "Book a table for {0} on {1} for {2}.",
            "Reserve a table for {0} people on {1}, name {2}.",
            "A table for {0}, {1}, under {2}, please.",
            "I need a table on {1} for {0} guests, name {2}.",
        ],
        results: &[slot(&["time", "at"], Kind::Clock)],
        answer: "The table for {0} is booked on {1} at {r0}.",
    },
    Schema {
        topic: "song",
        names: &["play_song", "play_music", "play"],
        about: "Plays a song",
        params: &[slot(&["song", "title"], Kind::Word(SONGS)), slot(&["volume", "level"], Kind::Number(1, 100))],
        asks: &[
            "Play {0} at volume {1}.",
            "Put on {0}, volume {1}.",
            "I want to hear {0} at volume {1}.",
            "Play {0} at {1}.",
        ],
        results: &[slot(&["seconds", "length"], Kind::Number(60, 599))],
        answer: "{0} plays for {r0} seconds.",
    },
    Schema {
        topic: "stock",
        names: &["get_stock", "stock_price", "quote"],
        about: "Price of a stock",
        params: &[slot(&["company", "name"], Kind::Word(COMPANIES)), slot(&["day", "weekday"], Kind::Word(DAYS))],
        asks: &[
            "What did {0} stock cost on {1}?",
            "Price of {0} on {1}?",
            "How much was a share of {0} on {1}?",
            "Show the {0} stock price of {1}.",
        ],
        results: &[slot(&["price", "value"], Kind::Number(1, 999))],
        answer: "{0} was at {r0} on {1}.",
    },
    Schema {
        topic: "food",
        names: &["order_food", "order_meal", "order"],
        about: "Orders food",
        params: &[
            slot(&["dish", "item", "food"], Kind::Word(FOODS)),
            slot(&["count", "portions"], Kind::Number(1, 20)),
            slot(&["size"], Kind::Enum(&["small", "medium", "large"])),
        ],
        asks: &[
            "Order {1} portions of {0}, {2}.",
            "I want {0}, {1} portions, size {2}.",
            "Get me {1} {2} portions of {0}.",
            "Order {0}: {1} times {2}.",
        ],
        results: &[slot(&["minutes", "wait"], Kind::Number(10, 90))],
        answer: "Your {0} will come in {r0} minutes.",
    },
];
