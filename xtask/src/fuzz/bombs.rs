//! Small bodies that would unpack to very long ones, made by hand: no compressor is needed to write the same byte often.

/// Bits of a deflate stream, the lowest of a byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    num_bits: usize,
}

impl Bits {
    fn push(&mut self, value: u32, num: usize) {
        for bit in 0..num {
            if self.num_bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> bit & 1) as u8) << (self.num_bits % 8);
            self.num_bits += 1;
        }
    }
}

/// A gzip stream of `len` bytes at most, whose one block gives about a thousand times as much: a zero, then "the last 258
/// again" in two bits each time. It is cut off at the end, which nobody who unpacks it gets to.
pub fn gzip(len: usize) -> Vec<u8> {
    let mut bits = Bits { bytes: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], num_bits: 80 };
    // The last block, with codes of its own: 286 for literals and lengths, 1 for distances, 18 for the lengths of codes.
    for (value, num) in [(1, 1), (2, 2), (29, 5), (0, 5), (14, 4)] {
        bits.push(value, num);
    }
    // Lengths of the codes for code lengths, in the order 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1: only 18 (a run of
    // zeros), 1 and 2 are used.
    for order in [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2] {
        bits.push(order, 3);
    }
    // Canonical codes, written from their highest bit: 18 is 0, 1 is 10, 2 is 11.
    let zeros = |bits: &mut Bits, count: u32| {
        bits.push(0, 1);
        bits.push(count - 11, 7);
    };
    let one = |bits: &mut Bits| bits.push(0b01, 2);
    let two = |bits: &mut Bits| bits.push(0b11, 2);
    // Literal 0 in two bits, 256 (the end) in two, 285 (258 bytes) in one; the distance 1 in one.
    two(&mut bits);
    zeros(&mut bits, 138);
    zeros(&mut bits, 117);
    two(&mut bits);
    zeros(&mut bits, 28);
    one(&mut bits);
    one(&mut bits);
    // 285 is 0; 0 is 10; 256 is 11.
    bits.push(0b01, 2);
    bits.bytes.resize(len.max(bits.bytes.len()), 0);
    bits.bytes
}

/// A zstd stream of `len` bytes at most: blocks of four bytes that each give 128 KiB, so that 320 KiB give 10 GiB.
pub fn zstd(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x70];
    while bytes.len() + 4 <= len {
        // Not the last block, of one byte again and again, 131072 times.
        let header: u32 = 0b010 | (128 << 10) << 3;
        bytes.extend_from_slice(&header.to_le_bytes()[..3]);
        bytes.push(b' ');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{gzip, zstd};

    #[test]
    fn sizes() {
        assert_eq!(gzip(1 << 20).len(), 1 << 20);
        assert_eq!(&gzip(100)[..3], [0x1f, 0x8b, 8]);
        assert_eq!(zstd(330_000).len().div_ceil(4) * (128 << 10) / 1_000_000_000, 10);
    }
}
