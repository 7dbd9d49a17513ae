//! The log as it is written, cut, changed and found out.

mod changed;
mod requests;

use std::path::{Path, PathBuf};

use super::chain::{Chain, Place, files};
use super::entry::{Event, RequestEntry};
use super::verify::{Report, Verify};
use super::{AnchorKey, AuditError};

const SECRET: &[u8] = b"a secret of the server, 32 bytes";

fn place(folder: &Path) -> Place {
    Place { folder: folder.to_owned(), key: AnchorKey::new(SECRET), most_bytes: 64 << 20 }
}

fn open(folder: &Path) -> Chain {
    let mut chain = Chain::open(place(folder)).unwrap();
    chain.mend().unwrap();
    chain
}

fn request(number: usize) -> Event {
    let entry = RequestEntry {
        request: format!("req_{number}"),
        key: "key_1".into(),
        route: "POST /v1/chat/completions".into(),
        status: Some(200),
        prompt_tokens: number as u64,
        ..RequestEntry::default()
    };
    Event::Request(Box::new(entry))
}

/// A log of a server that has ended as it should.
fn log(folder: &Path, num_requests: usize) {
    let mut chain = open(folder);
    chain.append(&(0..num_requests).map(request).collect::<Vec<_>>()).unwrap();
    chain.append(&[Event::Stop]).unwrap();
    chain.anchor().unwrap();
}

fn verify(folder: &Path) -> Report {
    Verify { key: Some(AnchorKey::new(SECRET)), ..Verify::default() }.run(folder).unwrap()
}

/// What is wrong.
fn problem(folder: &Path) -> String {
    let report = verify(folder);
    report.broken.as_ref().unwrap_or_else(|| panic!("{report:?}")).problem.clone()
}

fn only_file(folder: &Path) -> PathBuf {
    let files = files(folder).unwrap();
    assert_eq!(files.len(), 1);
    files[0].1.clone()
}

#[test]
fn a_log_goes_on_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 3);
    log(folder.path(), 2);
    let report = verify(folder.path());
    assert!(report.ok && report.anchors_checked, "{report:?}");
    assert_eq!((report.first, report.last, report.anchors, report.anchored), (1, 9, 2, 8));
    let text = std::fs::read_to_string(only_file(folder.path())).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&first["seq"], &first["event"], &first["request"]), (&1.into(), &"request".into(), &"req_0".into()));
    assert_eq!(first["prev"], "0".repeat(64));
    assert!(first.get("content").is_none(), "{first}");
}

#[test]
fn anchors_come_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let mut chain = open(folder.path());
    for _ in 0..5 {
        chain.append(&(0..500).map(request).collect::<Vec<_>>()).unwrap();
    }
    drop(chain);
    let report = verify(folder.path());
    assert_eq!((report.ok, report.last, report.anchors, report.anchored), (true, 2502, 2, 2000));
}

#[test]
fn long_files_are_followed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut chain = Chain::open(Place { most_bytes: 4000, ..place(folder.path()) }).unwrap();
        chain.mend().unwrap();
        for number in 0..40 {
            chain.append(&[request(number)]).unwrap();
        }
    }
    let files = files(folder.path()).unwrap();
    assert!(files.len() > 5, "{files:?}");
    let report = verify(folder.path());
    assert!(report.ok && report.files == files.len(), "{report:?}");
    let alone = Verify { key: Some(AnchorKey::new(SECRET)), ..Verify::default() }.run(&files[2].1).unwrap();
    assert!(alone.ok && alone.first == files[2].0, "a file by itself: {alone:?}");
    std::fs::remove_file(&files[0].1).unwrap();
    assert!(problem(folder.path()).contains("missing"));
    let rest = Verify { key: Some(AnchorKey::new(SECRET)), first: Some(files[1].0), ..Verify::default() };
    assert!(rest.run(folder.path()).unwrap().ok, "the first files may be put elsewhere, if that is said");
    drop(open(folder.path()));
    std::fs::remove_file(&files[3].1).unwrap();
    assert!(!rest.run(folder.path()).unwrap().ok);
}

/// A crash can leave any part of what was being written.
#[test]
fn torn_ends_are_set_aside_wherever_they_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 1);
    let file = only_file(folder.path());
    let whole = std::fs::metadata(&file).unwrap().len();
    open(folder.path()).append(&[request(7), request(8)]).unwrap();
    let text = std::fs::read(&file).unwrap();
    let lines = text[whole as usize..].iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, 2);
    for cut in whole as usize..text.len() {
        std::fs::write(&file, &text[..cut]).unwrap();
        let before = verify(folder.path());
        assert!(before.ok, "{cut}: {before:?}");
        open(folder.path()).append(&[request(9)]).unwrap();
        let after = verify(folder.path());
        assert!(after.ok && after.torn_end == 0, "{cut}: {after:?}");
        assert_eq!(after.torn, u64::from(before.torn_end > 0), "{cut}");
        assert!(after.last > before.last, "{cut}");
    }
}

/// Pages that were not written read as zeros; what comes after them may be whole.
#[test]
fn a_loss_of_power_before_the_sync_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 1);
    let file = only_file(folder.path());
    let whole = std::fs::metadata(&file).unwrap().len() as usize;
    open(folder.path()).append(&[request(7), request(8), request(9)]).unwrap();
    let mut text = std::fs::read(&file).unwrap();
    text[whole + 20..whole + 60].fill(0);
    std::fs::write(&file, &text).unwrap();
    assert!(!verify(folder.path()).ok, "only the server may say that this was a crash");
    open(folder.path()).append(&[request(10)]).unwrap();
    let report = verify(folder.path());
    assert_eq!((report.ok, report.torn), (true, 1), "{report:?}");
}

/// The note of a torn end can be torn as well, again and again.
#[test]
fn torn_notes_of_torn_ends() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 1);
    let file = only_file(folder.path());
    for _ in 0..5 {
        let mut text = std::fs::read(&file).unwrap();
        text.extend_from_slice(b"{\"seq\":4,\"pr");
        std::fs::write(&file, &text).unwrap();
        drop(open(folder.path()));
        let noted = std::fs::read(&file).unwrap();
        std::fs::write(&file, &noted[..noted.len() - 10]).unwrap();
    }
    open(folder.path()).append(&[request(1)]).unwrap();
    let report = verify(folder.path());
    assert_eq!((report.ok, report.torn), (true, 1), "{report:?}");
}

#[test]
fn one_server_writes_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let _chain = open(folder.path());
    assert!(matches!(Chain::open(place(folder.path())), Err(AuditError::Taken(_))));
}
