//! Shards: tokenised documents in one file, read into memory as a whole and verified before use.
//!
//! All numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `OSSIATOK` |
//! | 8..12 | version, u32: 1 |
//! | 12..16 | number of the vocabulary's ids, u32 |
//! | 16..48 | the vocabulary's hash ([`VocabularyId`]) |
//! | 48..56 | number of documents d, u64 |
//! | 56..64 | number of tokens t, u64 |
//! | 64..96 | SHA-256 of all other bytes of the file |
//! | then 8 d | for each document where its tokens end, u64, as a count from the first document's start |
//! | then 4 t | token ids, u32 |
//! | then t | classes, u8 |
//!
//! The counts are compared with the file's size before anything is allocated, so that a false one costs nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::document::{Document, NUM_CLASSES};
use super::vocabulary::{VocabularyId, hex};
use super::{DatasetError, whole_file};

const MAGIC: [u8; 8] = *b"OSSIATOK";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 96;
/// The digest's place in the header; what is before it is hashed.
const DIGEST_AT: usize = 64;
/// Bytes converted at once.
const CHUNK_BYTES: usize = 1 << 16;

const MAKE_AGAIN: &str = "it is damaged or was cut short, make the shard again";

/// Documents of one vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    vocabulary: VocabularyId,
    /// Where each document ends in the arrays below.
    ends: Vec<u64>,
    tokens: Vec<u32>,
    classes: Vec<u8>,
}

/// A document inside a shard: at least two tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentRef<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// As many; see [`class`](super::class).
    pub classes: &'a [u8],
}

impl Shard {
    /// A shard without documents.
    pub fn new(vocabulary: VocabularyId) -> Self {
        Self { vocabulary, ends: Vec::new(), tokens: Vec::new(), classes: Vec::new() }
    }

    /// Appends a document. Fails where it has fewer than two tokens (nothing could be predicted), not a class for each,
    /// or ids or classes that do not exist.
    pub fn push(&mut self, document: &Document) -> Result<(), DatasetError> {
        let Document { tokens, classes } = document;
        check_document(tokens, classes, self.vocabulary.num_ids)
            .map_err(|problem| DatasetError::Document { index: self.ends.len(), problem })?;
        self.tokens.extend(tokens);
        self.classes.extend(classes);
        self.ends.push(self.tokens.len() as u64);
        Ok(())
    }

    /// The vocabulary of the ids.
    pub fn vocabulary(&self) -> VocabularyId {
        self.vocabulary
    }

    /// The number of documents.
    pub fn num_documents(&self) -> usize {
        self.ends.len()
    }

    /// The number of tokens of all documents.
    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// A document by its place, from 0.
    pub fn document(&self, index: usize) -> Option<DocumentRef<'_>> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |&end| end as usize);
        Some(DocumentRef { tokens: self.tokens.get(start..end)?, classes: self.classes.get(start..end)? })
    }

    /// Writes the shard to `path`, whole or not at all, replacing a file that is there.
    pub fn write(&self, path: &Path) -> Result<(), DatasetError> {
        let whole = whole_file::write(path, |out| self.write_to(out));
        whole.map_err(|error| DatasetError::io(path, "write", error))
    }

    /// Reads and verifies a shard. Fails where it is not whole, not of this version, not of `vocabulary`, or empty.
    /// Takes the memory of the file's size, whatever its header says.
    pub fn read(path: &Path, vocabulary: VocabularyId) -> Result<Self, DatasetError> {
        let metadata = std::fs::metadata(path).map_err(|error| DatasetError::io(path, "open", error))?;
        if !metadata.is_file() {
            return Err(DatasetError::shard(path, "a shard", "something that is no file", "name a shard's file"));
        }
        let mut file = File::open(path).map_err(|error| DatasetError::io(path, "open", error))?;
        Self::read_from(&mut file, metadata.len(), path, vocabulary)
    }

    fn read_from(
        source: &mut impl Read,
        num_bytes: u64,
        path: &Path,
        vocabulary: VocabularyId,
    ) -> Result<Self, DatasetError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                DatasetError::shard(path, format!("{num_bytes} bytes"), "an earlier end", MAKE_AGAIN)
            }
            _ => DatasetError::io(path, "read", error),
        };
        let mut bytes = [0; HEADER_BYTES];
        let num_header = bytes.len().min(usize::try_from(num_bytes).unwrap_or(usize::MAX));
        source.read_exact(&mut bytes[..num_header]).map_err(failed)?;
        let header = Header::read(&bytes, num_bytes, path)?;
        let (shard, digest) = header.read_payload(source, &bytes).map_err(failed)?;
        if digest != header.digest {
            let wanted = format!("contents with the SHA-256 {}", hex(&header.digest));
            return Err(DatasetError::shard(path, wanted, hex(&digest), MAKE_AGAIN));
        }
        if shard.vocabulary != vocabulary {
            let advice = "use the tokenizer that the shard was made with, or make the shard again";
            return Err(DatasetError::shard(path, vocabulary.to_string(), shard.vocabulary.to_string(), advice));
        }
        shard.check(path)?;
        Ok(shard)
    }

    /// What a digest cannot vouch for: that the writer made no mistake.
    fn check(&self, path: &Path) -> Result<(), DatasetError> {
        let bad = |wanted: &str, found: String| DatasetError::shard(path, wanted, found, "make the shard again");
        if self.ends.is_empty() {
            return Err(bad("at least one document", "none".to_owned()));
        }
        if self.ends.last() != Some(&(self.tokens.len() as u64)) {
            return Err(bad("a last document that ends with the tokens", format!("{:?}", self.ends.last())));
        }
        for index in 0..self.ends.len() {
            let Some(document) = self.document(index) else {
                return Err(bad("documents one after the other", format!("document {index} out of order")));
            };
            check_document(document.tokens, document.classes, self.vocabulary.num_ids)
                .map_err(|problem| bad("usable documents", format!("document {index} with {problem}")))?;
        }
        Ok(())
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend(self.vocabulary.num_ids.to_le_bytes());
        header.extend(self.vocabulary.hash);
        header.extend((self.ends.len() as u64).to_le_bytes());
        header.extend((self.tokens.len() as u64).to_le_bytes());
        let mut hash = Sha256::new_with_prefix(&header);
        self.each_chunk(|bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        header.extend(hash.finalize());
        out.write_all(&header)?;
        self.each_chunk(|bytes| out.write_all(bytes))
    }

    /// Everything after the header, piece by piece.
    fn each_chunk(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        for ends in self.ends.chunks(CHUNK_BYTES / 8) {
            take(&ends.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        for tokens in self.tokens.chunks(CHUNK_BYTES / 4) {
            take(&tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        take(&self.classes)
    }
}

pub(super) fn check_document(tokens: &[u32], classes: &[u8], num_ids: u32) -> Result<(), String> {
    if tokens.len() < 2 {
        return Err(format!("{} tokens, wanted at least 2", tokens.len()));
    }
    if tokens.len() != classes.len() {
        return Err(format!("{} classes for {} tokens", classes.len(), tokens.len()));
    }
    if let Some(token) = tokens.iter().find(|&&token| token >= num_ids) {
        return Err(format!("token id {token}, wanted ids below {num_ids}"));
    }
    match classes.iter().find(|&&class| usize::from(class) >= NUM_CLASSES) {
        Some(class) => Err(format!("class {class}, wanted classes below {NUM_CLASSES}")),
        None => Ok(()),
    }
}

/// A header whose counts fit the file's size.
struct Header {
    vocabulary: VocabularyId,
    num_documents: usize,
    num_tokens: usize,
    digest: [u8; 32],
}

impl Header {
    /// `bytes` are the file's first ones, zeros where it is shorter.
    fn read(bytes: &[u8; HEADER_BYTES], num_bytes: u64, path: &Path) -> Result<Self, DatasetError> {
        let magic: [u8; 8] = array(bytes, 0);
        if magic != MAGIC {
            let found = format!("\"{}\"", magic.escape_ascii());
            let advice = "name a file that was made as a shard";
            return Err(DatasetError::shard(path, "a shard, which begins with \"OSSIATOK\"", found, advice));
        }
        let version = u32::from_le_bytes(array(bytes, 8));
        if version != VERSION {
            let advice = "make the shard again with this program, or read it with the one that made it";
            return Err(DatasetError::shard(path, format!("version {VERSION}"), format!("version {version}"), advice));
        }
        if num_bytes < HEADER_BYTES as u64 {
            let wanted = format!("a header of {HEADER_BYTES} bytes");
            return Err(DatasetError::shard(path, wanted, format!("{num_bytes} bytes"), MAKE_AGAIN));
        }
        let num_documents = u64::from_le_bytes(array(bytes, 48));
        let num_tokens = u64::from_le_bytes(array(bytes, 56));
        if file_bytes(num_documents, num_tokens) != Some(num_bytes) {
            let wanted = format!("the bytes of {num_documents} documents with {num_tokens} tokens");
            return Err(DatasetError::shard(path, wanted, format!("{num_bytes} bytes"), MAKE_AGAIN));
        }
        let count = |count: u64| {
            let too_large =
                |_| DatasetError::shard(path, "a count that fits into memory", format!("{count}"), MAKE_AGAIN);
            usize::try_from(count).map_err(too_large)
        };
        let vocabulary = VocabularyId { hash: array(bytes, 16), num_ids: u32::from_le_bytes(array(bytes, 12)) };
        let (num_documents, num_tokens) = (count(num_documents)?, count(num_tokens)?);
        Ok(Self { vocabulary, num_documents, num_tokens, digest: array(bytes, DIGEST_AT) })
    }

    /// The rest of the file, and the digest of all of it.
    fn read_payload(&self, source: &mut impl Read, header: &[u8; HEADER_BYTES]) -> io::Result<(Shard, [u8; 32])> {
        let mut hash = Sha256::new_with_prefix(&header[..DIGEST_AT]);
        let ends = read_array(source, &mut hash, self.num_documents, u64::from_le_bytes)?;
        let tokens = read_array(source, &mut hash, self.num_tokens, u32::from_le_bytes)?;
        let classes = read_array(source, &mut hash, self.num_tokens, u8::from_le_bytes)?;
        Ok((Shard { vocabulary: self.vocabulary, ends, tokens, classes }, hash.finalize().into()))
    }
}

/// The size of a shard's file; `None` where it overflows.
fn file_bytes(num_documents: u64, num_tokens: u64) -> Option<u64> {
    let ends = num_documents.checked_mul(8)?;
    num_tokens.checked_mul(5)?.checked_add(ends)?.checked_add(HEADER_BYTES as u64)
}

/// Where in a file the end of the document `index` stands.
pub(super) fn ends_at(index: usize) -> u64 {
    HEADER_BYTES as u64 + 8 * index as u64
}

/// Where the token `place` of a shard stands in its file.
pub(super) fn tokens_at(num_documents: usize, place: u64) -> u64 {
    ends_at(num_documents) + 4 * place
}

/// Where that token's class stands.
pub(super) fn classes_at(num_documents: usize, num_tokens: usize, place: u64) -> u64 {
    tokens_at(num_documents, num_tokens as u64) + place
}

/// The `N` bytes from `at` on; both are constants inside the header.
fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Reads `count` numbers of `N` bytes and hashes their bytes.
fn read_array<T, const N: usize>(
    source: &mut impl Read,
    hash: &mut Sha256,
    count: usize,
    number: fn([u8; N]) -> T,
) -> io::Result<Vec<T>> {
    let mut numbers = Vec::with_capacity(count);
    let mut chunk = vec![0; CHUNK_BYTES.min(count.saturating_mul(N))];
    while numbers.len() < count {
        let num_next = (count - numbers.len()).min(CHUNK_BYTES / N);
        let bytes = &mut chunk[..num_next * N];
        source.read_exact(bytes)?;
        hash.update(&*bytes);
        numbers.extend(bytes.as_chunks::<N>().0.iter().map(|&bytes| number(bytes)));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, document, shard, vocabulary};
    use super::*;

    fn bytes_of(shard: &Shard) -> Vec<u8> {
        let mut bytes = Vec::new();
        shard.write_to(&mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Shard, DatasetError> {
        Shard::read_from(&mut &*bytes, bytes.len() as u64, Path::new("a.shard"), vocabulary())
    }

    /// Makes the digest fit whatever the bytes are.
    fn seal(bytes: &mut [u8]) {
        if bytes.len() >= HEADER_BYTES {
            let mut hash = Sha256::new_with_prefix(&bytes[..DIGEST_AT]);
            hash.update(&bytes[HEADER_BYTES..]);
            bytes[DIGEST_AT..HEADER_BYTES].copy_from_slice(&hash.finalize());
        }
    }

    #[test]
    fn what_is_written_comes_back() {
        let mut rng = Rng(1);
        let mut written = Shard::new(vocabulary());
        let documents: Vec<Document> = [2, 3, 40_000, 7].map(|num_tokens| document(&mut rng, num_tokens)).into();
        documents.iter().for_each(|document| written.push(document).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train-0.shard");
        written.write(&path).unwrap();
        let back = Shard::read(&path, vocabulary()).unwrap();
        assert_eq!(back, written);
        assert_eq!((back.num_documents(), back.num_tokens()), (4, 40_012));
        for (index, document) in documents.iter().enumerate() {
            let found = back.document(index).unwrap();
            assert_eq!((found.tokens, found.classes), (&*document.tokens, &*document.classes));
        }
        assert!(back.document(4).is_none() && back.document(usize::MAX).is_none());
    }

    #[test]
    fn every_fault_is_named_with_the_file() {
        let good = bytes_of(&shard(&mut Rng(2), 5, 20));
        let fail = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            read(&bytes).unwrap_err().to_string()
        };
        let has = |error: String, part: &str| {
            assert!(error.starts_with("a.shard: wanted") && error.contains(part), "{error}")
        };
        has(fail(&|b| b.clear()), "begins with \"OSSIATOK\"");
        has(fail(&|b| b[0] = b'x'), "found \"xSSIATOK\"");
        has(fail(&|b| b[8] = 2), "wanted version 1, found version 2: make the shard again");
        has(fail(&|b| b.truncate(40)), "a header of 96 bytes, found 40 bytes");
        has(fail(&|b| b.truncate(b.len() - 1)), "cut short");
        has(fail(&|b| b.push(0)), "the bytes of 5 documents with");
        has(fail(&|b| b[48..64].fill(0xff)), "cut short");
        has(fail(&|b| *b.last_mut().unwrap() ^= 1), "contents with the SHA-256");
        has(fail(&|b| b[20] ^= 1), "contents with the SHA-256");
        has(fail(&|b| (b[20] ^= 1, seal(b)).1), "of 300 tokens: use the tokenizer that the shard was made with");
        has(fail(&|b| (b[96] = 1, seal(b)).1), "document 0 with 1 tokens");
        has(fail(&|b| (b[103] = 1, seal(b)).1), "document 0 out of order");
        has(fail(&|b| (b[96 + 40 + 1] = 9, seal(b)).1), "wanted ids below 300");
        has(fail(&|b| (*b.last_mut().unwrap() = 5, seal(b)).1), "class 5, wanted classes below 5");
        has(read(&bytes_of(&Shard::new(vocabulary()))).unwrap_err().to_string(), "at least one document, found none");
    }

    #[test]
    fn files_that_are_missing_or_shrink_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Shard::read(&dir.path().join("none"), vocabulary()).unwrap_err();
        assert!(matches!(&missing, DatasetError::Io { action: "open", .. }), "{missing}");
        let folder = Shard::read(dir.path(), vocabulary()).unwrap_err().to_string();
        assert!(folder.contains("something that is no file"), "{folder}");
        let bytes = bytes_of(&shard(&mut Rng(3), 3, 9));
        let mut shorter = &bytes[..bytes.len() - 1];
        let error = Shard::read_from(&mut shorter, bytes.len() as u64, Path::new("a.shard"), vocabulary());
        assert!(error.unwrap_err().to_string().contains("found an earlier end"));
    }

    #[test]
    fn bad_documents_are_not_taken() {
        let mut shard = Shard::new(vocabulary());
        let bad = [(vec![1], vec![0]), (vec![1, 2], vec![0]), (vec![1, 300], vec![0, 0]), (vec![1, 2], vec![0, 5])];
        for (tokens, classes) in bad {
            let error = shard.push(&Document { tokens, classes }).unwrap_err();
            assert!(matches!(error, DatasetError::Document { index: 0, .. }), "{error}");
        }
        assert_eq!(shard.num_tokens(), 0);
    }

    #[test]
    fn mutated_files_give_the_same_shard_or_an_error() {
        let mut rng = Rng(4);
        let wanted = shard(&mut rng, 12, 30);
        let good = bytes_of(&wanted);
        for round in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=rng.below(3) {
                mutate(&mut bytes, &mut rng);
            }
            if round % 2 == 0 {
                match read(&bytes) {
                    Ok(shard) => assert_eq!(shard, wanted, "only unchanged bytes have this digest"),
                    Err(error) => assert!(error.to_string().starts_with("a.shard: "), "{error}"),
                }
            } else {
                seal(&mut bytes);
                if let Ok(shard) = read(&bytes) {
                    assert!(shard.num_tokens() * 5 <= bytes.len());
                    assert!((0..shard.num_documents()).all(|index| shard.document(index).unwrap().tokens.len() > 1));
                }
            }
        }
    }

    fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
        if bytes.is_empty() {
            return;
        }
        // Half of the changes hit the header and the documents' ends.
        let reach = if rng.below(2) == 0 { bytes.len().min(192) } else { bytes.len() };
        let at = rng.below(reach);
        match rng.below(5) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.next() as u8),
            _ => {
                let end = bytes.len().min(at + 8);
                bytes[at..end].fill([0, 0xff][rng.below(2)]);
            }
        }
    }
}
