//! Stop texts: the answer ends before the first of them. Text that may be the beginning of one is held back, so that no
//! part of a stop text is ever shown.

/// Looks for stop texts in text that arrives bit by bit.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    texts: Vec<String>,
}

/// What is to be done with text that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// So many bytes can be shown; the rest may be the beginning of a stop text.
    Show(usize),
    /// A stop text begins after so many bytes.
    StopAt(usize),
}

impl Stops {
    /// Empty texts stop nothing.
    pub fn new(texts: Vec<String>) -> Self {
        Self { texts: texts.into_iter().filter(|text| !text.is_empty()).collect() }
    }

    /// True if there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Judges `held`: all text that has not been shown. The earliest stop text counts.
    pub fn judge(&self, held: &str) -> Verdict {
        if let Some(at) = self.texts.iter().filter_map(|text| held.find(text)).min() {
            return Verdict::StopAt(at);
        }
        let may_begin = |at: &usize| self.texts.iter().any(|text| text.as_bytes().starts_with(&held.as_bytes()[*at..]));
        let longest = self.texts.iter().map(|text| text.len() - 1).max().unwrap_or(0);
        let from = held.len().saturating_sub(longest);
        let at = (from..held.len()).filter(|&at| held.is_char_boundary(at)).find(may_begin);
        Verdict::Show(at.unwrap_or(held.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Stops, Verdict};

    fn stops(texts: &[&str]) -> Stops {
        Stops::new(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn judges_what_is_held() {
        let two = stops(&["END", "\n\n"]);
        for (held, verdict) in [
            ("", Verdict::Show(0)),
            ("abc", Verdict::Show(3)),
            ("abcE", Verdict::Show(3)),
            ("abcEN", Verdict::Show(3)),
            ("abcEND", Verdict::StopAt(3)),
            ("abEENx", Verdict::Show(6)),
            ("a\nb\n", Verdict::Show(3)),
            ("END\n\n", Verdict::StopAt(0)),
            ("\n\nEND", Verdict::StopAt(0)),
        ] {
            assert_eq!(two.judge(held), verdict, "{held:?}");
        }
        assert_eq!(stops(&["ääb"]).judge("xää"), Verdict::Show(1));
        assert_eq!(stops(&["aab"]).judge("aaa"), Verdict::Show(1), "the longest beginning is held");
        assert_eq!(stops(&["", ""]).judge("abc"), Verdict::Show(3));
        assert!(stops(&[""]).is_empty());
    }

    /// However a text is cut, what is shown is the text before the first stop.
    #[test]
    fn cuts_do_not_matter() {
        let stop = stops(&["abab", "ba\u{e4}c"]);
        for text in ["abbabab!", "aababa\u{e4}", "xba\u{e4}c", "abaaba", "bababa"] {
            let whole = ["abab", "ba\u{e4}c"].iter().filter_map(|s| text.find(s)).min().unwrap_or(text.len());
            let (mut held, mut shown, mut stopped) = (String::new(), String::new(), false);
            for c in text.chars() {
                held.push(c);
                let (n, stops) = match stop.judge(&held) {
                    Verdict::Show(n) => (n, false),
                    Verdict::StopAt(n) => (n, true),
                };
                shown.extend(held.drain(..n));
                stopped = stops;
                if stopped {
                    break;
                }
            }
            if !stopped {
                shown.push_str(&held);
            }
            assert_eq!(shown, &text[..whole], "{text}");
        }
    }
}
