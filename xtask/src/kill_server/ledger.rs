//! What the server has acknowledged, and what was under way when it was killed: the truth that its data are held against.

use crate::json::Json;

/// A file, by what it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// Its id.
    pub id: String,
    /// Its content.
    pub content: Vec<u8>,
    /// The kill before which it was acknowledged.
    pub kill: u64,
    /// Whether its deletion was acknowledged, or may have happened.
    pub gone: Gone,
}

/// Whether something was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It must be there.
    No,
    /// Its deletion was asked for and not answered.
    Perhaps,
    /// It must not be there.
    Yes,
}

/// A conversation: texts of messages, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptConversation {
    /// Its id.
    pub id: String,
    /// What was acknowledged.
    pub texts: Vec<String>,
    /// What was under way when the server was killed: all of it or nothing may be there.
    pub pending: Vec<String>,
    /// True where answers of the model may follow what is pending.
    pub has_answers: bool,
    /// The last kill that it has seen.
    pub kill: u64,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptResponse {
    /// Its id.
    pub id: String,
    /// The object at its end; None where the end was not heard: then it must be at some end all the same.
    pub body: Option<Json>,
    /// The kill before which it began.
    pub kill: u64,
}

/// A batch: the names of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBatch {
    /// Its id.
    pub id: String,
    /// In order.
    pub custom_ids: Vec<String>,
    /// True where it was seen to be done.
    pub done: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Files.
    pub files: Vec<KeptFile>,
    /// Conversations.
    pub conversations: Vec<KeptConversation>,
    /// Responses.
    pub responses: Vec<KeptResponse>,
    /// Batches.
    pub batches: Vec<KeptBatch>,
    /// Streams that came to their end.
    pub num_streams: u64,
}

impl Ledger {
    /// Counts, for people.
    pub fn summary(&self) -> String {
        let items: usize = self.conversations.iter().map(|conversation| conversation.texts.len()).sum();
        let bytes: usize = self.files.iter().map(|file| file.content.len()).sum();
        let unheard = self.responses.iter().filter(|response| response.body.is_none()).count();
        format!(
            "acknowledged: {} files of {} MiB, {} conversations of {items} items, {} responses (the end of {unheard} of them \
             unheard), {} batches, {} chat streams",
            self.files.len(),
            bytes >> 20,
            self.conversations.len(),
            self.responses.len(),
            self.batches.len(),
            self.num_streams,
        )
    }
}

impl KeptConversation {
    /// Takes what is there now, if it can be: what was acknowledged, then nothing or all of what was under way.
    pub fn take(&mut self, found: Vec<String>) -> Result<(), String> {
        let wrong =
            |what: &str| Err(format!("conversation {} {what}: {found:?}, acknowledged {:?}", self.id, self.texts));
        let Some(rest) = found.strip_prefix(self.texts.as_slice()) else {
            return wrong("has not what was acknowledged");
        };
        let is_whole = rest.starts_with(&self.pending) && (self.has_answers || rest.len() == self.pending.len());
        let has_answer = !self.has_answers || rest.len() > self.pending.len();
        if !rest.is_empty() && (self.pending.is_empty() || !is_whole || !has_answer) {
            return wrong(&format!("has something else than {:?}", self.pending));
        }
        self.texts = found;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::KeptConversation;

    #[test]
    fn all_or_nothing() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let kept = |has_answers| KeptConversation {
            id: "conv_1".to_owned(),
            texts: texts(&["a", "b"]),
            pending: texts(&["c", "d"]),
            has_answers,
            kill: 1,
        };
        for (has_answers, found, is_right) in [
            (false, &["a", "b"][..], true),
            (false, &["a", "b", "c", "d"], true),
            (false, &["a", "b", "c"], false),
            (false, &["a"], false),
            (false, &["a", "b", "x"], false),
            (false, &["a", "b", "c", "d", "e"], false),
            (false, &["a", "b", "c", "d", "c", "d"], false),
            (true, &["a", "b"], true),
            (true, &["a", "b", "c", "d", "an answer"], true),
            (true, &["a", "b", "c", "d"], false),
        ] {
            let mut conversation = kept(has_answers);
            assert_eq!(conversation.take(texts(found)).is_ok(), is_right, "{found:?}");
            assert!(!is_right || conversation.texts.len() == found.len() && conversation.pending.is_empty());
        }
    }
}
