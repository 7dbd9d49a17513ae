//! Reads a message's header, the part between `<|start|>` and `<|message|>` (SPEC 9.1), as models really write it
//! (SPEC 9.9). Never fails: what has no place in a header is reported as an `Anomaly` and stays in the header's text.
//!
//! Words follow OpenAI's library (SPEC 9.8): `to=X` in the role or the channel section, a lone plain word after the
//! channel is a recipient, two are recipient and content type. Where the library fails or glues special tokens into
//! names, the rules here say what happens instead.

use std::ops::Range;

use serde::Serialize;

use super::message::{ANALYSIS, Author, COMMENTARY, FINAL, Role};
use super::parse::Header;

/// Something in a message that harmony does not allow, and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Anomaly {
    /// No `<|start|>` before the message; it was read as if it were there.
    MissingStart,
    /// No role after `<|start|>`; read as the assistant.
    MissingRole,
    /// The role was written again after a prompt that had it already.
    RepeatedRole,
    /// Special tokens came before the header and belong to no message, or a header was begun twice.
    RestartedHeader,
    /// The channel is none of analysis, commentary, final. What begins with one of them and a sign (`commentary?`) is
    /// read as it, anything else is kept as it is.
    UnknownChannel(String),
    /// `<|channel|>` without a name; read as no channel.
    EmptyChannel,
    /// `<|channel|>` more than once; the first known channel counts.
    DoubledChannel,
    /// A special token that has no place in a header.
    SpecialInHeader(String),
    /// Words that have no place in a header.
    HeaderText(String),
    /// No `<|message|>`: the text after the header's words was read as the content.
    MissingMessage,
}

/// How a header came to begin, which says what its first word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Began {
    /// The prompt ended in `<|start|>` and this role.
    InPrompt(Role),
    /// `<|start|>` was read: the first word is the role, or a tool's name.
    AtStart,
    /// Neither: the first word is the role only if it is a known one.
    Nowhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Text,
    Channel,
    Constrain,
    Other,
}

/// A header as it arrives.
#[derive(Debug, Clone)]
pub(super) struct RawHeader {
    pub began: Began,
    /// All text so far, special tokens by name.
    pub raw: String,
    spans: Vec<(Mark, Range<usize>)>,
    restarted: bool,
}

/// A word or a special token of the header, and where it stands in the raw text.
#[derive(Debug, Clone, Copy)]
struct Word<'r> {
    mark: Mark,
    text: &'r str,
    start: usize,
}

impl RawHeader {
    /// `before` is what came before it and belongs to no message.
    pub fn new(began: Began, before: String) -> Self {
        let restarted = !before.trim().is_empty();
        Self { began, raw: before, spans: Vec::new(), restarted }
    }

    /// Begins again at a `<|start|>`, keeping the text.
    pub fn restart(&mut self, start_name: &str) {
        self.restarted |= !self.raw.trim().is_empty();
        self.raw.push_str(start_name);
        (self.began, self.spans) = (Began::AtStart, Vec::new());
    }

    pub fn push(&mut self, mark: Mark, text: &str) {
        let start = self.raw.len();
        self.raw.push_str(text);
        match self.spans.last_mut() {
            Some((Mark::Text, range)) if mark == Mark::Text => range.end = self.raw.len(),
            _ => self.spans.push((mark, start..self.raw.len())),
        }
    }

    /// The length of the header's own text, in bytes.
    pub fn len(&self) -> usize {
        self.raw.len() - self.spans.first().map_or(self.raw.len(), |(_, range)| range.start)
    }

    fn words(&self) -> Vec<Word<'_>> {
        let mut words = Vec::new();
        for (mark, range) in &self.spans {
            let text = self.raw.get(range.clone()).unwrap_or_default();
            if *mark != Mark::Text {
                words.push(Word { mark: *mark, text, start: range.start });
                continue;
            }
            for word in text.split_whitespace() {
                let offset = word.as_ptr() as usize - text.as_ptr() as usize;
                words.push(Word { mark: Mark::Text, text: word, start: range.start + offset });
            }
        }
        words
    }

    /// Reads a header that `<|message|>` ended.
    pub fn parse(&self) -> (Header, Vec<Anomaly>) {
        let words = self.words();
        let mut reader = Reader::new(self);
        let num_role_words = reader.read_author(&words, true);
        reader.read_words(words.get(num_role_words..).unwrap_or_default());
        reader.finish()
    }

    /// Reads a header that no `<|message|>` ended: the header, where in `raw` the content begins, the anomalies.
    pub fn parse_bare(&self) -> (Header, usize, Vec<Anomaly>) {
        let words = self.words();
        let mut reader = Reader::new(self);
        let mut used = reader.read_author(&words, false);
        while let Some(num_words) = reader.read_prefix(words.get(used..).unwrap_or_default()) {
            used += num_words;
        }
        let content_at = words.get(used).map_or(self.raw.len(), |word| word.start);
        reader.anomalies.push(Anomaly::MissingMessage);
        let (header, anomalies) = reader.finish();
        (header, content_at, anomalies)
    }
}

/// Collects a header's parts.
struct Reader<'r> {
    began: Began,
    author: Author,
    channels: Vec<&'r str>,
    num_channel_marks: usize,
    recipient: Option<&'r str>,
    content_type: Option<&'r str>,
    plain: Vec<&'r str>,
    leftover: Vec<&'r str>,
    anomalies: Vec<Anomaly>,
}

impl<'r> Reader<'r> {
    fn new(raw: &RawHeader) -> Self {
        let role = if let Began::InPrompt(role) = raw.began { role } else { Role::Assistant };
        let mut anomalies = Vec::new();
        if raw.began == Began::Nowhere {
            anomalies.push(Anomaly::MissingStart);
        }
        if raw.restarted {
            anomalies.push(Anomaly::RestartedHeader);
        }
        Self {
            began: raw.began,
            author: Author { role, name: None },
            channels: Vec::new(),
            num_channel_marks: 0,
            recipient: None,
            content_type: None,
            plain: Vec::new(),
            leftover: Vec::new(),
            anomalies,
        }
    }

    /// Takes the author from the first word; gives the number of words used. `complete` where `<|message|>` came, so
    /// that an unknown word may be a tool's name.
    fn read_author(&mut self, words: &[Word<'r>], complete: bool) -> usize {
        let first = words.first().filter(|word| word.mark == Mark::Text).map(|word| word.text);
        let author = first.and_then(known_author);
        if let Began::InPrompt(role) = self.began {
            let repeats = author.as_ref().is_some_and(|author| author.role == role && author.name.is_none());
            if repeats {
                self.anomalies.push(Anomaly::RepeatedRole);
            }
            return usize::from(repeats);
        }
        let answers = words.iter().any(|word| word.mark == Mark::Text && word.text == "to=assistant");
        let may_be_tool = complete && (self.began == Began::AtStart || answers);
        match (author, first) {
            (Some(author), _) => self.author = author,
            (None, Some(name)) if may_be_tool && !name.starts_with("to=") => {
                self.author = Author { role: Role::Tool, name: Some(name.to_owned()) };
            }
            _ => {
                self.anomalies.push(Anomaly::MissingRole);
                return 0;
            }
        }
        1
    }

    /// Takes all words after the author, of a header that `<|message|>` ended.
    fn read_words(&mut self, words: &[Word<'r>]) {
        let mut rest = words.iter().peekable();
        while let Some(word) = rest.next() {
            match word.mark {
                Mark::Text => self.read_text(word.text),
                Mark::Other => self.anomalies.push(Anomaly::SpecialInHeader(word.text.to_owned())),
                Mark::Channel => {
                    let name = rest.next_if(|next| next.mark == Mark::Text && !next.text.starts_with("to="));
                    self.read_channel(name.map(|word| word.text));
                }
                Mark::Constrain => match rest.next_if(|next| next.mark == Mark::Text) {
                    Some(next) if self.content_type.is_none() => self.content_type = Some(next.text),
                    Some(next) => self.leftover.push(next.text),
                    None => self.anomalies.push(Anomaly::SpecialInHeader(word.text.to_owned())),
                },
            }
        }
    }

    fn read_channel(&mut self, name: Option<&'r str>) {
        self.num_channel_marks += 1;
        match name {
            Some(name) => self.channels.push(name),
            None => self.anomalies.push(Anomaly::EmptyChannel),
        }
    }

    fn read_text(&mut self, text: &'r str) {
        match text.strip_prefix("to=") {
            Some(recipient) if self.recipient.is_none() => self.read_recipient(recipient),
            Some(_) => self.leftover.push(text),
            None => self.plain.push(text),
        }
    }

    /// A recipient ends where a special token's name is glued on.
    fn read_recipient(&mut self, text: &'r str) {
        let (name, glued) = text.split_at(text.find("<|").unwrap_or(text.len()));
        self.recipient = (!name.is_empty()).then_some(name);
        self.leftover.extend((!glued.is_empty()).then_some(glued));
    }

    /// Takes the next part of a header that has no end, if it is one; gives the number of words it has.
    fn read_prefix(&mut self, words: &[Word<'r>]) -> Option<usize> {
        let next = words.get(1).filter(|word| word.mark == Mark::Text).map(|word| word.text);
        let word = words.first()?;
        match word.mark {
            Mark::Text if word.text.starts_with("to=") && self.recipient.is_none() => {
                self.read_text(word.text);
                Some(1)
            }
            Mark::Text => None,
            Mark::Other => {
                self.anomalies.push(Anomaly::SpecialInHeader(word.text.to_owned()));
                Some(1)
            }
            Mark::Channel => {
                let is_name = |text: &&str| known_channel(text).is_some() || words.len() == 2;
                let name = next.filter(is_name).filter(|text| !text.starts_with("to="));
                self.read_channel(name);
                Some(1 + usize::from(name.is_some()))
            }
            Mark::Constrain => {
                let place = self.num_channel_marks > 0 || self.recipient.is_some();
                let name = next.filter(|_| place && self.content_type.is_none());
                self.content_type = self.content_type.or(name);
                Some(1 + usize::from(name.is_some()))
            }
        }
    }

    fn finish(mut self) -> (Header, Vec<Anomaly>) {
        let channel = self.channel();
        let constrained = self.content_type.map(|text| format!("<|constrain|>{text}"));
        let content_type = self.place_plain_words(channel.as_deref(), constrained);
        if !self.leftover.is_empty() {
            self.anomalies.push(Anomaly::HeaderText(self.leftover.join(" ")));
        }
        let Author { role, name } = self.author;
        (Header { role, name, channel, recipient: self.recipient.map(str::to_owned), content_type }, self.anomalies)
    }

    /// The first known channel, else the first name given.
    fn channel(&mut self) -> Option<String> {
        if self.num_channel_marks > 1 {
            self.anomalies.push(Anomaly::DoubledChannel);
        }
        let known = self.channels.iter().position(|name| known_channel(name).is_some());
        let place = known.or(if self.channels.is_empty() { None } else { Some(0) })?;
        let name = self.channels.remove(place);
        self.leftover.append(&mut self.channels);
        let read_as = known_channel(name).unwrap_or(name);
        if ![ANALYSIS, COMMENTARY, FINAL].contains(&name) {
            self.anomalies.push(Anomaly::UnknownChannel(name.to_owned()));
        }
        Some(read_as.to_owned())
    }

    /// Plain words are recipient and content type where the library says so (not on final, which calls nothing), else
    /// left over. Gives the content type.
    fn place_plain_words(&mut self, channel: Option<&str>, constrained: Option<String>) -> Option<String> {
        let may_call = channel.is_some_and(|channel| channel != FINAL);
        let plain = std::mem::take(&mut self.plain);
        match (plain.as_slice(), &constrained, self.recipient) {
            (&[word], None, Some(_)) => return Some(word.to_owned()),
            (&[word], None, None) if matches!(word, "json" | "code") && !may_call => return Some(word.to_owned()),
            (&[word], _, None) if may_call => self.recipient = Some(word),
            (&[recipient, kind], None, None) if may_call => {
                self.recipient = Some(recipient);
                return Some(kind.to_owned());
            }
            _ => self.leftover.extend(plain),
        }
        constrained
    }
}

/// The author that a header's word names: a known role, perhaps with `:name`.
fn known_author(word: &str) -> Option<Author> {
    let (role, name) = word.split_once(':').map_or((word, None), |(role, name)| (role, Some(name)));
    let role = Role::from_word(role)?;
    Some(Author { role, name: name.filter(|name| !name.is_empty()).map(str::to_owned) })
}

/// The known channel that a word is, or begins with before a sign: `commentary?` is commentary, `comment` none.
fn known_channel(word: &str) -> Option<&'static str> {
    let begins = |channel: &&&str| {
        let rest = word.strip_prefix(**channel);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    [ANALYSIS, COMMENTARY, FINAL].iter().find(begins).copied()
}
