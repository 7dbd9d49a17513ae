//! A file as examples: one JSON object a line (JSONL), or one list of objects over the whole file. Read piece by piece, so
//! that a file of any size takes the memory of its longest example, and that is bounded.
//!
//! Blank lines, `\r\n` and a byte order mark of UTF-8 are passed over. What is no text at all (compressed, UTF-16, a
//! folder) is refused by name; a line that is not UTF-8 or too long is that example's problem alone.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{Error, Result};

/// The longest example, bytes.
pub(super) const MOST_BYTES: usize = 8 << 20;
/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 18;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a file that is no text begins, what it is, and what to do.
const OTHER_KINDS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "is compressed (gzip): unpack it first, gunzip FILE"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd): unpack it first, unzstd FILE"),
    (b"\xfd7zXZ", "is compressed (xz): unpack it first, unxz FILE"),
    (b"BZh", "is compressed (bzip2): unpack it first, bunzip2 FILE"),
    (b"PK\x03\x04", "is a zip archive: unpack it first"),
    (b"PAR1", "is a Parquet file: write it as JSONL, one JSON object a line"),
    (b"\xff\xfe", "is UTF-16: save it as UTF-8, iconv -f UTF-16 -t UTF-8 FILE"),
    (b"\xfe\xff", "is UTF-16: save it as UTF-8, iconv -f UTF-16 -t UTF-8 FILE"),
    (b"{\0", "is UTF-16: save it as UTF-8, iconv -f UTF-16LE -t UTF-8 FILE"),
    (b"\0{", "is UTF-16: save it as UTF-8, iconv -f UTF-16BE -t UTF-8 FILE"),
];

/// The text of one example, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// The text of a JSON value, or what is wrong.
    pub text: std::result::Result<String, String>,
}

/// The examples of a file, in order.
pub(super) struct Records {
    path: PathBuf,
    source: BufReader<Hashed>,
    most: usize,
    /// The line of the next byte.
    line: u64,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    Lines,
    /// Inside the list.
    List,
    Ended,
}

/// A file whose bytes are hashed as they are read.
struct Hashed {
    file: File,
    hash: Sha256,
    num_bytes: u64,
}

impl Read for Hashed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let num = self.file.read(into)?;
        self.hash.update(&into[..num]);
        self.num_bytes += num as u64;
        Ok(num)
    }
}

/// The size of a file of examples, bytes. Fails where it is not a regular file.
pub(super) fn size_of(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, "open", error))?;
    if metadata.is_dir() {
        return Err(Error::file(path, "is a folder: name the files in it, as in FOLDER/*.jsonl"));
    }
    if !metadata.is_file() {
        return Err(Error::file(path, "is a pipe or a device: wanted a file, which can be read again"));
    }
    Ok(metadata.len())
}

/// The SHA-256 of a file.
pub(super) fn digest_of(path: &Path) -> Result<[u8; 32]> {
    let file = File::open(path).map_err(|error| Error::io(path, "open", error))?;
    let mut hashed = Hashed { file, hash: Sha256::new(), num_bytes: 0 };
    io::copy(&mut hashed, &mut io::sink()).map_err(|error| Error::io(path, "read", error))?;
    Ok(hashed.hash.finalize().into())
}

impl Records {
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, MOST_BYTES)
    }

    fn open_with(path: &Path, most: usize) -> Result<Self> {
        size_of(path)?;
        let file = File::open(path).map_err(|error| Error::io(path, "open", error))?;
        let hashed = Hashed { file, hash: Sha256::new(), num_bytes: 0 };
        let mut source = BufReader::with_capacity(BUFFER_BYTES, hashed);
        let start = source.fill_buf().map_err(|error| Error::io(path, "read", error))?;
        if let Some((_, problem)) = OTHER_KINDS.iter().find(|(magic, _)| start.starts_with(magic)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            return Err(Error::file(path, problem.replace("FILE", &name)));
        }
        Ok(Self { path: path.to_owned(), source, most, line: 1, form: Form::Unknown })
    }

    /// Bytes read so far.
    pub fn num_bytes(&self) -> u64 {
        self.source.get_ref().num_bytes
    }

    /// The SHA-256 of what was read: of the file where all examples were.
    pub fn digest(self) -> [u8; 32] {
        self.source.into_inner().hash.finalize().into()
    }

    /// The next example; nothing at the end.
    pub fn next(&mut self) -> Result<Option<Record>> {
        let record = match self.form {
            Form::Unknown => self.begin(),
            Form::Lines => self.next_line(),
            Form::List => self.next_of_list(),
            Form::Ended => Ok(None),
        };
        record.map_err(|error| Error::io(&self.path, "read", error))
    }

    fn begin(&mut self) -> io::Result<Option<Record>> {
        if self.source.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            self.source.consume(BYTE_ORDER_MARK.len());
        }
        self.form = match self.skip_blank(b"")? {
            Some(b'[') => Form::List,
            _ => Form::Lines,
        };
        match self.form {
            Form::List => {
                self.source.consume(1);
                self.next_of_list()
            }
            _ => self.next_line(),
        }
    }

    /// Passes over white space and bytes of `also`; gives the byte after them.
    fn skip_blank(&mut self, also: &[u8]) -> io::Result<Option<u8>> {
        loop {
            let buffer = self.source.fill_buf()?;
            let num = buffer.iter().take_while(|byte| byte.is_ascii_whitespace() || also.contains(byte)).count();
            let (found, is_end) = (buffer.get(num).copied(), buffer.is_empty());
            self.line += buffer[..num].iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.source.consume(num);
            if found.is_some() || is_end {
                return Ok(found);
            }
        }
    }

    fn next_line(&mut self) -> io::Result<Option<Record>> {
        loop {
            let line = self.line;
            let mut bytes = Vec::new();
            let most = self.most as u64 + 1;
            if self.source.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
                self.form = Form::Ended;
                return Ok(None);
            }
            self.line += 1;
            if bytes.len() > self.most && bytes.last() != Some(&b'\n') {
                self.skip_line()?;
                return Ok(Some(Record { line, text: Err(too_long(self.most)) }));
            }
            let record = self.record(line, &bytes);
            if record.text.as_ref() != Ok(&String::new()) {
                return Ok(Some(record));
            }
        }
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.source.fill_buf()?;
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let num = end.map_or(buffer.len(), |end| end + 1);
            self.source.consume(num);
            if end.is_some() || num == 0 {
                return Ok(());
            }
        }
    }

    /// The value up to the next comma or bracket that is not inside it.
    fn next_of_list(&mut self) -> io::Result<Option<Record>> {
        let Some(first) = self.skip_blank(b",")? else {
            self.form = Form::Ended;
            let text = Err("the list that the file begins with has no end: it was cut short".to_owned());
            return Ok(Some(Record { line: self.line, text }));
        };
        if first == b']' {
            self.source.consume(1);
            self.form = Form::Ended;
            let rest = self.skip_blank(b"")?;
            let text = "something stands after the list's end: wanted one list, or one object a line".to_owned();
            return Ok(rest.map(|_| Record { line: self.line, text: Err(text) }));
        }
        let line = self.line;
        let mut value = Value::default();
        loop {
            let buffer = self.source.fill_buf()?;
            let num = value.take(buffer, self.most);
            self.line += buffer[..num].iter().filter(|&&byte| byte == b'\n').count() as u64;
            let is_whole = num < buffer.len() || buffer.is_empty();
            self.source.consume(num);
            if is_whole {
                break;
            }
        }
        if value.num_bytes > self.most {
            return Ok(Some(Record { line, text: Err(too_long(self.most)) }));
        }
        Ok(Some(self.record(line, &value.bytes)))
    }

    fn record(&self, line: u64, bytes: &[u8]) -> Record {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes).trim_ascii();
        let text = std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| {
            let at = error.valid_up_to();
            let byte = bytes.get(at).copied().unwrap_or_default();
            format!("byte {at} of the example, 0x{byte:02x}, is not UTF-8: save the file as UTF-8")
        });
        Record { line, text }
    }
}

fn too_long(most: usize) -> String {
    format!("the example is longer than {} MiB: wanted one JSON object a line, each a single example", most >> 20)
}

/// A JSON value of a list, as far as it is read.
#[derive(Default)]
struct Value {
    bytes: Vec<u8>,
    num_bytes: usize,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Value {
    /// Takes the bytes that belong to it, and gives their number: fewer than all where it has ended.
    fn take(&mut self, buffer: &[u8], most: usize) -> usize {
        let mut num = buffer.len();
        for (at, &byte) in buffer.iter().enumerate() {
            if self.ends_before(byte) {
                num = at;
                break;
            }
        }
        self.num_bytes = self.num_bytes.saturating_add(num);
        let room = most.saturating_sub(self.bytes.len()).min(num);
        self.bytes.extend_from_slice(&buffer[..room]);
        num
    }

    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.in_string = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], most: usize) -> Vec<(u64, std::result::Result<String, String>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, bytes).unwrap();
        let mut records = Records::open_with(&path, most).unwrap();
        let mut found = Vec::new();
        while let Some(record) = records.next().unwrap() {
            found.push((record.line, record.text));
        }
        assert_eq!(records.num_bytes(), bytes.len() as u64);
        assert_eq!(digest_of(&path).unwrap(), <[u8; 32]>::from(Sha256::digest(bytes)));
        assert_eq!(records.digest(), <[u8; 32]>::from(Sha256::digest(bytes)));
        found
    }

    fn good(found: &[(u64, std::result::Result<String, String>)]) -> Vec<(u64, &str)> {
        found.iter().map(|(line, text)| (*line, text.as_deref().unwrap())).collect()
    }

    #[test]
    fn lines() {
        let found = read(b"\xef\xbb\xbf{\"a\":1}\r\n\r\n  \n {\"b\":2} \n\xef\xbb\xbf{}", 99);
        assert_eq!(good(&found), [(1, "{\"a\":1}"), (4, "{\"b\":2}"), (5, "{}")]);
        assert!(read(b"", 9).is_empty() && read(b"\n\n \r\n", 9).is_empty());
        assert_eq!(good(&read(b"\n\n{}\n", 9)), [(3, "{}")]);
    }

    #[test]
    fn bad_lines_are_theirs_alone() {
        let found = read(b"{}\n\"caf\xe9\"\n{\"long\":12345}\n{}\n", 9);
        assert_eq!((found[0].clone(), found[3].clone()), ((1, Ok("{}".into())), (4, Ok("{}".into()))));
        let problem = |place: usize| found[place].1.clone().unwrap_err();
        assert!(problem(1).starts_with("byte 4 of the example, 0xe9, is not UTF-8"), "{}", problem(1));
        assert!(found[2].0 == 3 && problem(2).starts_with("the example is longer"), "{}", problem(2));
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn lists() {
        let text = b"\n[\n  {\"a\": \"x,]}\\\"\",\n \"b\": [1, {}]},\n\n {\"c\": 2} , 7,\n{}]\n";
        let found = read(text, 99);
        let wanted = [(3, "{\"a\": \"x,]}\\\"\",\n \"b\": [1, {}]}"), (6, "{\"c\": 2}"), (6, "7"), (7, "{}")];
        assert_eq!(good(&found), wanted);
        assert!(read(b"[]", 9).is_empty());
        let cut = read(b"[{\"a\":1},{\"b\":", 99);
        assert_eq!(cut[1], (1, Ok("{\"b\":".into())), "which is not JSON");
        assert!(cut[2].1.clone().unwrap_err().contains("has no end"));
        assert!(read(b"[{}] {}", 99)[1].1.clone().unwrap_err().contains("after the list's end"));
        let long = read(b"[{\"long\":12345},{}]", 9);
        assert!(long[0].1.is_err() && long[1].1 == Ok("{}".into()));
    }

    /// Pieces as small as can be give the same as one.
    #[test]
    fn values_may_be_cut_anywhere() {
        let text = b"{\"a\": \"\\\\\", \"b\": [\"]\"]}, {}";
        let mut whole = Value::default();
        assert_eq!(whole.take(text, 99), 23);
        let mut value = Value::default();
        let taken: usize = text[..24].chunks(1).map(|piece| value.take(piece, 99)).sum();
        assert_eq!((taken, value.bytes), (23, whole.bytes));
    }

    #[test]
    fn what_is_no_text_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.jsonl.gz");
        for (magic, problem) in OTHER_KINDS {
            std::fs::write(&path, [*magic, b"rest"].concat()).unwrap();
            let error = Records::open(&path).err().unwrap().to_string();
            assert!(error.contains(&problem.replace("FILE", "data.jsonl.gz")), "{error}");
        }
        let error = Records::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("is a folder: name the files in it"), "{error}");
        assert!(Records::open(&dir.path().join("none")).err().unwrap().to_string().contains("cannot open"));
    }
}
