//! Bytes to text while they arrive: a token may end in the middle of a character, and what is shown must not.

/// Decodes a stream of bytes: holds back an incomplete character until it is complete, turns invalid bytes into U+FFFD.
/// What comes out over all pushes and the flush equals `String::from_utf8_lossy` of the whole.
#[derive(Debug, Clone, Default)]
pub struct Utf8Stream {
    held: Vec<u8>,
}

impl Utf8Stream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes more bytes and gives the text that is complete by now (perhaps none).
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(num_invalid) = error.error_len() else { break };
                    text.push('\u{fffd}');
                    rest = rest.get(num_invalid..).unwrap_or_default();
                }
            }
        }
        self.held = rest.to_vec();
        text
    }

    /// Ends the stream: an incomplete character becomes U+FFFD. The stream is empty and usable again afterwards.
    pub fn flush(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}
