//! A GGUF file taken apart, changed and put together again, right or wrong.

use std::path::Path;

/// GGUF's numbers for formats.
pub const F32: u32 = 0;
pub const Q8_0: u32 = 8;
pub const BF16: u32 = 30;
pub const MXFP4: u32 = 39;

/// A tensor; dimensions are stored innermost first.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<u64>,
    pub kind: u32,
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// Another shape and format, with zeros for bytes.
    pub fn reform(&mut self, kind: u32, dims: &[u64]) {
        (self.kind, self.dims) = (kind, dims.to_vec());
        self.bytes = vec![0; size(kind, dims)];
    }
}

/// A file: keys with the type and bytes of their values, and tensors.
#[derive(Clone)]
pub struct Gguf {
    pub keys: Vec<(String, u32, Vec<u8>)>,
    pub tensors: Vec<Tensor>,
}

fn size(kind: u32, dims: &[u64]) -> usize {
    let elements = dims.iter().product::<u64>() as usize;
    match kind {
        F32 => elements * 4,
        BF16 => elements * 2,
        Q8_0 => elements / 32 * 34,
        MXFP4 => elements / 32 * 17,
        _ => panic!("no format {kind} in these tests"),
    }
}

/// Reads front to back.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take(&mut self, n: usize) -> Vec<u8> {
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        head.to_vec()
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn string(&mut self) -> String {
        let length = self.u64() as usize;
        String::from_utf8(self.take(length)).unwrap()
    }

    /// The bytes of a value.
    fn value(&mut self, kind: u32) -> Vec<u8> {
        match kind {
            8 => {
                let start = self.0;
                self.string();
                start[..start.len() - self.0.len()].to_vec()
            }
            9 => {
                let start = self.0;
                let (kind, length) = (self.u32(), self.u64());
                (0..length).for_each(|_| drop(self.value(kind)));
                start[..start.len() - self.0.len()].to_vec()
            }
            0 | 1 | 7 => self.take(1),
            2 | 3 => self.take(2),
            4..=6 => self.take(4),
            _ => self.take(8),
        }
    }
}

impl Gguf {
    pub fn read(file: &Path) -> Self {
        let whole = std::fs::read(file).unwrap();
        let mut cursor = Cursor(&whole);
        assert_eq!(cursor.take(8), b"GGUF\x03\0\0\0");
        let (num_tensors, num_keys) = (cursor.u64(), cursor.u64());
        let mut key = |_| {
            let (key, kind) = (cursor.string(), cursor.u32());
            (key, kind, cursor.value(kind))
        };
        let keys: Vec<_> = (0..num_keys).map(&mut key).collect();
        let mut place = |_| {
            let (name, rank) = (cursor.string(), cursor.u32());
            let dims: Vec<u64> = (0..rank).map(|_| cursor.u64()).collect();
            (name, dims, cursor.u32(), cursor.u64() as usize)
        };
        let places: Vec<_> = (0..num_tensors).map(&mut place).collect();
        let data = &whole[(whole.len() - cursor.0.len()).next_multiple_of(32)..];
        let tensor = |(name, dims, kind, at): (String, Vec<u64>, u32, usize)| {
            let bytes = data[at..at + size(kind, &dims)].to_vec();
            Tensor { name, dims, kind, bytes }
        };
        Self { keys, tensors: places.into_iter().map(tensor).collect() }
    }

    pub fn write(&self, file: &Path) {
        self.write_with(file, |_, offset| offset);
    }

    /// Writes the file; `place` may lie about a tensor's offset.
    pub fn write_with(&self, file: &Path, place: impl Fn(&str, u64) -> u64) {
        let (mut out, mut data) = (b"GGUF\x03\0\0\0".to_vec(), Vec::new());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.keys {
            out.extend(string(key));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(place(&tensor.name, data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        std::fs::write(file, out).unwrap();
    }

    pub fn get(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Replaces the value of a key, or adds it.
    pub fn set(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.keys.retain(|(k, ..)| k != key);
        self.keys.push((key.to_owned(), kind, value.to_vec()));
    }
}

/// A string as a file stores it.
pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// An array of strings as a file stores it.
pub fn strings(texts: &[&str]) -> Vec<u8> {
    let mut out = [&8u32.to_le_bytes()[..], &(texts.len() as u64).to_le_bytes()].concat();
    texts.iter().for_each(|text| out.extend(string(text)));
    out
}
