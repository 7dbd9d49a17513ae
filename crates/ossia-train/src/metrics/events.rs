//! TensorBoard's event files: the same numbers as `metrics.jsonl`, for those who watch runs there. A file is a row of
//! TFRecords (length, checksum, bytes, checksum) that each hold a protocol buffer `Event`, of which we need few fields:
//!
//! ```text
//! Event      1 wall_time: double   2 step: int64   3 file_version: string   5 summary   7 session_log
//! Summary    1 value: repeated Value          Value       1 tag: string   2 simple_value: float
//! SessionLog 1 status: enum, START = 1
//! ```
//!
//! Each start of a process makes a new file. A resumed run begins it with `SessionLog::START` at its first step, upon which
//! TensorBoard drops what earlier files say about that step and later ones: the counterpart of the cut in `Log::open`.

use super::{Error, Record};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// An event file, open for appending.
pub struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// Makes the folder and a new event file in it. `resume_step` is the number of steps already done, 0 for a new run;
    /// `wall_time_s` is the time now in seconds since 1970.
    ///
    /// # Errors
    /// If the folder or the file cannot be made or written, or the file is there already.
    pub fn create(dir: &Path, resume_step: u64, wall_time_s: f64) -> Result<Events, Error> {
        std::fs::create_dir_all(dir).map_err(Error::io("make the folder", dir))?;
        let path = dir.join(format!("events.out.tfevents.{:010}.ossia.{resume_step}", wall_time_s as u64));
        let file = File::create_new(&path).map_err(Error::io("make the event file", &path))?;
        let mut events = Events { file, path };
        let mut start = framed(&Message::event(wall_time_s, 0).text(3, "brain.Event:2"));
        if resume_step > 0 {
            let session = Message::default().varint(1, 1);
            start.extend(framed(&Message::event(wall_time_s, resume_step + 1).message(7, &session)));
        }
        events.write(&start)?;
        Ok(events)
    }

    /// Writes a record's numbers. `wall_time_s` is the time now in seconds since 1970.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&mut self, record: &Record, wall_time_s: f64) -> Result<(), Error> {
        let mut summary = Message::default();
        for (tag, value) in scalars(record) {
            summary = summary.message(1, &Message::default().text(1, &tag).float(2, value as f32));
        }
        self.write(&framed(&Message::event(wall_time_s, record.step).message(5, &summary)))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("write an event to", &self.path))
    }
}

/// What TensorBoard shows of a record, by tag.
fn scalars(record: &Record) -> Vec<(String, f64)> {
    let mut scalars: Vec<(String, f64)> = [
        ("train/loss", record.loss),
        ("train/aux_loss", record.aux_loss),
        ("train/z_loss", record.z_loss),
        ("train/grad_norm", record.grad_norm),
        ("train/lr", record.lr),
        ("train/tokens", record.tokens as f64),
        ("speed/tok_s", record.tok_s),
        ("speed/flops_share", record.flops_share),
        ("speed/peak_rss_gib", record.peak_rss_bytes as f64 / f64::from(1 << 30)),
    ]
    .map(|(tag, value)| (tag.to_owned(), value))
    .to_vec();
    let classes = record.loss_per_class.named();
    scalars.extend(classes.into_iter().filter_map(|(name, loss)| Some((format!("train/loss_{name}"), loss?))));
    scalars.extend(record.valid_loss.map(|loss| ("valid/loss".to_owned(), loss)));
    for (place, preference) in [("train", record.preference), ("valid", record.valid_preference)] {
        let named = preference.map(|p| [("margin", p.margin), ("accuracy", p.accuracy)]);
        scalars.extend(named.into_iter().flatten().map(|(name, value)| (format!("{place}/{name}"), value)));
    }
    if let Some(policy) = record.policy {
        scalars.extend([
            ("policy/reward".to_owned(), policy.reward),
            ("policy/spread".to_owned(), policy.spread),
            ("policy/length".to_owned(), policy.length),
            ("policy/clipped".to_owned(), policy.clipped),
            ("policy/rollout_difference".to_owned(), policy.rollout_difference),
        ]);
        scalars.extend(policy.kl.map(|kl| ("policy/kl".to_owned(), kl)));
    }
    scalars.extend(record.valid_reward.map(|reward| ("valid/reward".to_owned(), reward)));
    let loads = record.max_over_mean().into_iter().enumerate();
    scalars.extend(loads.map(|(layer, load)| (format!("experts/layer_{layer}/max_over_mean"), load)));
    scalars
}

/// A protocol buffer message under construction: fields are (number, wire type) keys, each followed by its value.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// An event's first fields; as everywhere in protocol buffers, zero goes without saying.
    fn event(wall_time_s: f64, step: u64) -> Message {
        let mut event = Message::default().key(1, 1);
        event.bytes.extend(wall_time_s.to_le_bytes());
        if step == 0 { event } else { event.varint(2, step) }
    }

    fn key(self, field: u32, wire: u32) -> Message {
        self.raw_varint(u64::from(field << 3 | wire))
    }

    fn raw_varint(mut self, mut value: u64) -> Message {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
        self
    }

    fn varint(self, field: u32, value: u64) -> Message {
        self.key(field, 0).raw_varint(value)
    }

    fn float(self, field: u32, value: f32) -> Message {
        let mut message = self.key(field, 5);
        message.bytes.extend(value.to_le_bytes());
        message
    }

    fn delimited(self, field: u32, bytes: &[u8]) -> Message {
        let mut message = self.key(field, 2).raw_varint(bytes.len() as u64);
        message.bytes.extend(bytes);
        message
    }

    fn text(self, field: u32, text: &str) -> Message {
        self.delimited(field, text.as_bytes())
    }

    fn message(self, field: u32, inner: &Message) -> Message {
        self.delimited(field, &inner.bytes)
    }
}

/// A TFRecord: length u64, its checksum, the bytes, their checksum, all little-endian.
fn framed(message: &Message) -> Vec<u8> {
    let length = (message.bytes.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), &message.bytes, &masked(&message.bytes)].concat()
}

/// TFRecord's checksum: CRC-32C, rotated and shifted so that checksums of checksums stay apart.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// CRC-32C (Castagnoli), bit by bit: an event has a few hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C in the catalogue of parametrised CRC algorithms, and the vectors of RFC 3720 B.4.
    #[test]
    fn checksums_are_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Written by TensorBoard 2.21's own record writer.
    #[test]
    fn bytes_are_those_of_tensorboard() {
        let now = 1.5e9 + 0.25;
        let version = framed(&Message::event(now, 0).text(3, "brain.Event:2"));
        assert_eq!(hex(&version), "1800000000000000a37f4b2209000010c00b5ad6411a0d627261696e2e4576656e743a32130a0322");
        let value = Message::default().text(1, "train/loss").float(2, 2.5);
        let summary = framed(&Message::event(now, 300).message(5, &Message::default().message(1, &value)));
        assert_eq!(
            hex(&summary),
            "2100000000000000017becf609000010c00b5ad64110ac022a130a110a0a747261696e2f6c6f7373150000204034d323a1"
        );
        let start = framed(&Message::event(now, 301).message(7, &Message::default().varint(1, 1)));
        assert_eq!(hex(&start), "100000000000000095fbfe1809000010c00b5ad64110ad023a020801b82adc05");
    }

    #[test]
    fn a_file_opens_with_its_version_and_a_resume_purges() {
        let dir = tempfile::tempdir().unwrap();
        let fresh = Events::create(dir.path(), 0, 1.0).unwrap();
        let resumed = Events::create(dir.path(), 40, 1.0).unwrap();
        let fresh = std::fs::read(fresh.path()).unwrap();
        let resumed = std::fs::read(resumed.path()).unwrap();
        assert_eq!(resumed[..fresh.len()], fresh);
        let start = Message::event(1.0, 41).message(7, &Message::default().varint(1, 1));
        assert_eq!(resumed[fresh.len()..], framed(&start));
    }

    #[test]
    fn every_number_of_a_record_has_a_tag() {
        let record =
            Record { valid_loss: Some(2.0), expert_load: vec![vec![0.5, 0.5], vec![0.75, 0.25]], ..Record::default() };
        let scalars = scalars(&record);
        let value = |tag: &str| scalars.iter().find(|(name, _)| name == tag).map(|(_, value)| *value);
        assert_eq!(value("valid/loss"), Some(2.0));
        assert_eq!(value("experts/layer_0/max_over_mean"), Some(1.0));
        assert_eq!(value("experts/layer_1/max_over_mean"), Some(1.5));
        assert_eq!(value("train/loss_final"), None);
    }
}
