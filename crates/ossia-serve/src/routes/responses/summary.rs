//! Summaries of chain of thought, for clients that show nothing else of it. gpt-oss makes none, so these are extracts: the
//! sentence with which the thinking, or each paragraph of it, begins.

/// The longest sentence, in characters, and the most paragraphs.
const LONGEST: usize = 240;
const MOST: usize = 16;

/// What `reasoning.summary` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Nothing, or a word that is not known.
    None,
    /// One sentence.
    Brief,
    /// One of each paragraph.
    Full,
}

impl Detail {
    /// Of the word in a request.
    pub fn of(word: Option<&str>) -> Self {
        match word {
            Some("auto" | "concise") => Detail::Brief,
            Some("detailed") => Detail::Full,
            _ => Detail::None,
        }
    }

    /// The parts of the summary of this thinking.
    pub fn parts(self, thinking: &str) -> Vec<String> {
        let paragraphs = thinking.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
        let most = match self {
            Detail::None => 0,
            Detail::Brief => 1,
            Detail::Full => MOST,
        };
        paragraphs.take(most).map(sentence).collect()
    }
}

/// The first sentence of a paragraph, or as much of it as is shown.
fn sentence(paragraph: &str) -> String {
    let ends = |(at, c): (usize, char)| {
        let after = at + c.len_utf8();
        let is_end = match c {
            '\n' => return Some(at),
            '。' | '！' | '？' => true,
            '.' | '!' | '?' => paragraph[after..].chars().next().is_none_or(char::is_whitespace),
            _ => false,
        };
        is_end.then_some(after)
    };
    let first = &paragraph[..paragraph.char_indices().find_map(ends).unwrap_or(paragraph.len())];
    match first.char_indices().nth(LONGEST) {
        None => first.to_owned(),
        Some((at, _)) => format!("{}…", first[..at].trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Detail, LONGEST, MOST};

    #[test]
    fn sentences_of_thinking() {
        let thinking = "We need 3.5 to 4. Then more.\n\n\nUser asks?\nYes\n\n  \n\nNo end";
        assert_eq!(Detail::of(Some("auto")).parts(thinking), ["We need 3.5 to 4."]);
        assert_eq!(Detail::of(Some("detailed")).parts(thinking), ["We need 3.5 to 4.", "User asks?", "No end"]);
        for word in [None, Some("none"), Some("")] {
            assert!(Detail::of(word).parts(thinking).is_empty());
        }
        assert!(Detail::Full.parts(" \n\n ").is_empty());
        assert_eq!(Detail::Brief.parts("你好。再见。"), ["你好。"]);
    }

    #[test]
    fn long_ones_are_cut() {
        let long = Detail::Brief.parts(&"ä".repeat(1000)).remove(0);
        assert_eq!(long, format!("{}…", "ä".repeat(LONGEST)));
        assert_eq!(Detail::Full.parts(&"A.\n\n".repeat(100)).len(), MOST);
    }
}
