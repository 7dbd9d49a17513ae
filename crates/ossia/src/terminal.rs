//! The two streams of a person's terminal: answers on stdout, everything else on stderr.
//!
//! What a model says is hostile input: an escape sequence in it could rewrite the screen, the title or the clipboard.
//! So no control character reaches a terminal except line feed and tab, and only this file writes escape codes: none
//! where the stream is not a terminal, or where NO_COLOR is set.

use std::io::{self, IsTerminal, Stderr, Stdout, Write};

use console::{Term, measure_text_width};

/// `text` without control characters (C0, DEL, C1), except line feed and tab.
pub fn harmless(text: &str) -> String {
    text.chars().filter(|&c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
}

/// Stdout. To a file or pipe the model's text goes as it is.
pub struct Answers {
    out: Stdout,
    terminal: bool,
    line_open: bool,
}

impl Answers {
    /// Stdout as it is now.
    pub fn new() -> Self {
        let out = io::stdout();
        Self { terminal: out.is_terminal(), out, line_open: false }
    }

    /// Shows `text` at once.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        if let Some(last) = text.chars().last() {
            self.line_open = last != '\n';
        }
        match self.terminal {
            true => self.out.write_all(harmless(text).as_bytes())?,
            false => self.out.write_all(text.as_bytes())?,
        }
        self.out.flush()
    }

    /// Ends a line that has begun.
    pub fn end_line(&mut self) -> io::Result<()> {
        if self.line_open { self.write("\n") } else { Ok(()) }
    }
}

impl Default for Answers {
    fn default() -> Self {
        Self::new()
    }
}

/// Stderr. Nothing depends on it, so that its errors are nobody's business.
pub struct Aside {
    err: Stderr,
    terminal: bool,
    codes: bool,
    line_open: bool,
    live: bool,
}

impl Aside {
    /// Stderr as it is now.
    pub fn new() -> Self {
        let err = io::stderr();
        let terminal = err.is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self { err, terminal, codes: terminal && !plain, line_open: false, live: false }
    }

    /// True where a person reads along.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows `text` as it is, but harmless.
    pub fn plain(&mut self, text: &str) {
        self.clear();
        if let Some(last) = text.chars().last() {
            self.line_open = last != '\n';
        }
        self.put(&if self.terminal { harmless(text) } else { text.to_owned() });
    }

    /// Shows `text` dimmed.
    pub fn dim(&mut self, text: &str) {
        self.clear();
        self.put(if self.codes { "\x1b[2m" } else { "" });
        self.plain(text);
        self.put(if self.codes { "\x1b[0m" } else { "" });
    }

    /// A dimmed line of its own.
    pub fn note(&mut self, line: &str) {
        self.end_line();
        self.dim(line);
        self.end_line();
    }

    /// Ends a line that has begun.
    pub fn end_line(&mut self) {
        self.clear();
        if self.line_open {
            self.plain("\n");
        }
    }

    /// An empty line, for a person's eyes only.
    pub fn gap(&mut self) {
        self.end_line();
        self.put(if self.terminal { "\n" } else { "" });
    }

    /// A dimmed line that the next output replaces: `head`, then as much of the end of `tail` as fits. Nothing where
    /// lines cannot be replaced.
    pub fn live(&mut self, head: &str, tail: &str) {
        if !self.codes {
            return;
        }
        self.end_line();
        let width = usize::from(Term::stderr().size().1).saturating_sub(1);
        let tail = harmless(tail).replace(['\n', '\t'], " ");
        let head: String = harmless(head).chars().take(width).collect();
        let line = format!("{head}{}", end_of(&tail, width.saturating_sub(measure_text_width(&head))));
        self.put(&format!("\r\x1b[2K\x1b[2m{line}\x1b[0m"));
        self.live = true;
    }

    /// Takes the live line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.live) {
            self.put("\r\x1b[2K");
        }
    }

    fn put(&mut self, text: &str) {
        // Where stderr is closed there is nobody to tell.
        let _ = self.err.write_all(text.as_bytes());
    }
}

impl Default for Aside {
    fn default() -> Self {
        Self::new()
    }
}

/// The longest end of `text` that is at most `width` columns wide.
fn end_of(text: &str, width: usize) -> &str {
    // A character is at least one byte, so that earlier ones cannot fit; wide ones are given up one by one.
    let starts = text.char_indices().rev().take(width).map(|(at, _)| at);
    let mut from = starts.last().unwrap_or(text.len());
    while measure_text_width(&text[from..]) > width {
        from += text[from..].chars().next().map_or(1, char::len_utf8);
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::{end_of, harmless};

    #[test]
    fn no_control_character_reaches_a_terminal() {
        assert_eq!(harmless("a\x1b[31mb\x07c\r\nd\te\u{7f}f"), "a[31mbc\nd\tef");
        assert_eq!(harmless("\u{9b}31m\u{90}x\u{9d}0;title\u{9c}"), "31mx0;title");
        assert_eq!(harmless("\x1b]52;c;ZXZpbA==\x07\x1b]8;;http://x\x1b\\link"), "]52;c;ZXZpbA==]8;;http://x\\link");
        assert_eq!(harmless("Grüße, 世界 👋🏽"), "Grüße, 世界 👋🏽");
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        assert!(harmless(&all).chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
    }

    #[test]
    fn the_end_of_a_text_fits() {
        assert_eq!(end_of("abcdef", 3), "def");
        assert_eq!(end_of("abc", 9), "abc");
        assert_eq!(end_of("ab世界", 3), "界");
        assert_eq!(end_of("ab世界", 4), "世界");
        assert_eq!(end_of("世", 1), "");
        assert_eq!(end_of("abc", 0), "");
    }
}
