//! A file as the rules see it. For Rust the text is masked: comments and the insides of literals become spaces of the
//! same length, so that a brace or a word found in `code` is really code, on the same line and column as in `text`.
//! A lexer and no parser: it must never fail on code that is being written.

/// A project file.
pub struct File {
    /// From the root, with `/`.
    pub path: String,
    /// As on disk.
    pub text: String,
    /// Rust: the masked text. Other files: empty.
    pub code: String,
    /// Rust: for each line, whether it stands in test code. Other files: empty.
    in_test: Vec<bool>,
}

/// A function's name and lines, counted from 1, both ends included.
pub struct Function {
    pub name: String,
    pub first: usize,
    pub last: usize,
}

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { mask(text) } else { String::new() };
        let in_test = test_lines(path, &code);
        File { path: path.to_owned(), text: text.to_owned(), code, in_test }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether `line`, counted from 1, is test code.
    pub fn is_test(&self, line: usize) -> bool {
        self.in_test.get(line - 1).copied().unwrap_or(false)
    }

    /// Only tests reach this file.
    pub fn mark_as_test(&mut self) {
        self.in_test.fill(true);
    }

    /// Every function with a body.
    pub fn functions(&self) -> Vec<Function> {
        let words = words(&self.code);
        let after_fn = words.windows(2).filter(|pair| pair[0].1 == "fn");
        after_fn.filter_map(|pair| self.function(pair[0].0, pair[1].1)).collect()
    }

    fn function(&self, start: usize, name: &str) -> Option<Function> {
        let open = body_start(&self.code, start)?;
        let close = closing_brace(&self.code, open)?;
        Some(Function { name: name.to_owned(), first: line_of(&self.code, start), last: line_of(&self.code, close) })
    }
}

/// The words of masked code: byte offset and text of each run of identifier characters.
pub fn words(code: &str) -> Vec<(usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut start = None;
    for (i, c) in code.char_indices().chain([(code.len(), ' ')]) {
        match (start, is_word(c)) {
            (None, true) => start = Some(i),
            (Some(s), false) => {
                found.push((s, &code[s..i]));
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// The line, from 1, of a byte offset.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|&&b| b == b'\n').count() + 1
}

/// Where the `{` of the item that begins at `start` stands; none if `;` ends it first.
pub fn body_start(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (i, b) in code.bytes().enumerate().skip(start) {
        match b {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'{' if depth == 0 => return Some(i),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The `}` that closes the `{` at `open`.
pub fn closing_brace(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (i, b) in code.bytes().enumerate().skip(open) {
        match b {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return Some(i),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Test code: whole files by their place, and the items under `#[cfg(test)]`.
fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let count = code.lines().count();
    if path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/") {
        return vec![true; count];
    }
    let mut lines = vec![false; count];
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let after = at + attribute.len();
        let Some(close) = body_start(code, after).and_then(|open| closing_brace(code, open)) else { continue };
        let (first, last) = (line_of(code, at), line_of(code, close));
        lines[first - 1..last].fill(true);
    }
    lines
}

/// The text with comments and the insides of literals blanked; newlines and byte offsets stay.
pub fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let end = literal_or_comment_end(bytes, i);
        if end == i {
            out.push(if bytes[i].is_ascii() { bytes[i] } else { b'_' });
            i += 1;
        } else {
            out.extend(bytes[i..end].iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
            i = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that begins at `i` ends; `i` itself if none begins here.
fn literal_or_comment_end(b: &[u8], i: usize) -> usize {
    let after_word = i > 0 && (b[i - 1].is_ascii_alphanumeric() || b[i - 1] == b'_');
    match b[i] {
        b'/' if b.get(i + 1) == Some(&b'/') => b[i..].iter().position(|&c| c == b'\n').map_or(b.len(), |n| i + n),
        b'/' if b.get(i + 1) == Some(&b'*') => block_comment_end(b, i),
        b'"' => string_end(b, i + 1),
        b'\'' => char_end(b, i),
        b'r' | b'b' | b'c' if !after_word => prefixed_string_end(b, i),
        _ => i,
    }
}

fn block_comment_end(b: &[u8], start: usize) -> usize {
    let (mut depth, mut i) = (0usize, start);
    while i + 1 < b.len() {
        match (b[i], b[i + 1]) {
            (b'/', b'*') => (depth, i) = (depth + 1, i + 2),
            (b'*', b'/') if depth == 1 => return i + 2,
            (b'*', b'/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    b.len()
}

/// `i` is just past the opening quote.
fn string_end(b: &[u8], mut i: usize) -> usize {
    while i < b.len() {
        match b[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    b.len()
}

/// A character literal's end; a lifetime is no literal.
fn char_end(b: &[u8], i: usize) -> usize {
    if b.get(i + 1) == Some(&b'\\') {
        let close = b[(i + 3).min(b.len())..].iter().position(|&c| c == b'\'');
        return close.map_or(b.len(), |n| i + 3 + n + 1);
    }
    let width = match b.get(i + 1) {
        Some(c) if c.is_ascii() => 1,
        Some(c) => c.leading_ones() as usize,
        None => return i,
    };
    if b.get(i + 1 + width) == Some(&b'\'') { i + width + 2 } else { i }
}

/// Strings that begin with `r`, `b`, `br`, `c`, `cr` and any number of `#`; `i` itself if it is a plain word.
fn prefixed_string_end(b: &[u8], i: usize) -> usize {
    let letters = b[i..].iter().take(2).take_while(|c| b"rbc".contains(c)).count();
    let raw = b[i..i + letters].contains(&b'r');
    let hashes = b[i + letters..].iter().take_while(|&&c| c == b'#').count();
    let quote = i + letters + hashes;
    if b.get(quote) != Some(&b'"') || (hashes > 0 && !raw) {
        return i;
    }
    if !raw {
        return string_end(b, quote + 1);
    }
    let closing = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let end = b[quote + 1..].windows(closing.len()).position(|w| w == closing);
    end.map_or(b.len(), |n| quote + 1 + n + closing.len())
}
