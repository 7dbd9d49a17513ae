//! GPT-2's byte alphabet: each of the 256 bytes has a printable character, so that byte-level tokens can be written as
//! text in JSON and GGUF files. Printable bytes stand for themselves; the other 68 take U+0100 to U+0143 in order.

/// True for the bytes that are written as themselves (as Latin-1 characters).
fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The character that stands for `byte`.
pub(super) fn byte_to_char(byte: u8) -> char {
    if is_printable(byte) {
        return char::from(byte);
    }
    let place = (0..byte).filter(|&b| !is_printable(b)).count() as u32;
    char::from_u32(0x100 + place).unwrap_or('\u{fffd}')
}

/// The bytes that a token's written form stands for; None if it holds a character outside the alphabet.
pub(super) fn to_bytes(written: &str) -> Option<Box<[u8]>> {
    written.chars().map(char_to_byte).collect()
}

fn char_to_byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(|&b| is_printable(b)),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        for byte in 0..=255u8 {
            let c = byte_to_char(byte);
            assert_eq!(char_to_byte(c), Some(byte), "{byte} {c:?}");
        }
        assert_eq!((byte_to_char(b' '), byte_to_char(b'\n'), byte_to_char(b'A')), ('Ġ', 'Ċ', 'A'));
        for outside in [' ', '\n', '\u{7f}', '\u{a0}', '\u{ad}', '\u{144}', '中'] {
            assert_eq!(char_to_byte(outside), None, "{outside:?}");
        }
    }
}
