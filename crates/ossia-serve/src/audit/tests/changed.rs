//! Whoever changes a log is found out: up to the last anchor by the log itself, after it by what was written down
//! elsewhere. What is not found out is here too, so that the page on security cannot promise it.

use std::path::Path;

use super::super::anchor::{Anchor, path as anchor_path};
use super::super::chain::Chain;
use super::super::entry::{self, unhex};
use super::super::verify::Verify;
use super::super::{AnchorKey, AuditError};
use super::{log, only_file, open, place, problem, request, verify};

fn lines(file: &Path) -> Vec<Vec<u8>> {
    std::fs::read(file).unwrap().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// The log is found broken at the line, by the check and by the next server.
fn found_at(folder: &Path, line: u64, what: &str) {
    let report = verify(folder);
    let broken = report.broken.unwrap_or_else(|| panic!("{what}: not found"));
    assert_eq!(broken.line, Some(line), "{what}: {broken}");
    assert!(matches!(Chain::open(place(folder)), Err(AuditError::Broken(_))), "{what}: a server goes on with it");
}

#[test]
fn every_flipped_bit_of_every_entry() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 4);
    let file = only_file(folder.path());
    let text = std::fs::read(&file).unwrap();
    let ends: Vec<usize> = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    // The last line is the last anchor, which nothing anchors but a loss of it costs nothing.
    let anchored = ends[ends.len() - 2];
    for at in 0..anchored {
        let mut changed = text.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&file, &changed).unwrap();
        let report = verify(folder.path());
        let broken = report.broken.unwrap_or_else(|| panic!("byte {at}: not found"));
        let line = 1 + ends.iter().filter(|end| **end < at).count() as u64;
        // Either the line itself, or the next one, which does not follow from it.
        assert!([line, line + 1].contains(&broken.line.unwrap()), "byte {at} of line {line}: {broken}");
    }
}

#[test]
fn deleted_doubled_swapped_and_foreign_entries() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 20);
    let file = only_file(folder.path());
    let lines = lines(&file);
    let write = |lines: &[Vec<u8>]| std::fs::write(&file, lines.concat()).unwrap();
    for at in 0..20 {
        let number = at as u64 + 1;
        let mut deleted = lines.clone();
        deleted.remove(at);
        write(&deleted);
        found_at(folder.path(), number, "deleted");
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at].clone());
        write(&doubled);
        found_at(folder.path(), number + 1, "doubled");
        let mut swapped = lines.clone();
        swapped.swap(at, at + 1);
        write(&swapped);
        found_at(folder.path(), number, "swapped");
        let mut foreign = lines.clone();
        foreign.insert(at, b"{}\n".to_vec());
        write(&foreign);
        found_at(folder.path(), number, "a line that is no entry");
    }
    write(&lines);
    assert!(verify(folder.path()).ok);
}

#[test]
fn a_log_that_was_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 10);
    let file = only_file(folder.path());
    let text = std::fs::read(&file).unwrap();
    let lines = lines(&file);
    let anchored = text.len() - lines.last().unwrap().len();
    // Without its last newline, the last anchored entry is still whole.
    for cut in 0..anchored - 1 {
        std::fs::write(&file, &text[..cut]).unwrap();
        let report = verify(folder.path());
        assert!(!report.ok, "cut at {cut}: {report:?}");
        assert!(matches!(Chain::open(place(folder.path())), Err(AuditError::Broken(_))), "cut at {cut}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(problem(folder.path()).contains("the end is missing"));
    assert!(matches!(Chain::open(place(folder.path())), Err(AuditError::Broken(_))));
}

/// Whoever makes the whole chain anew has no anchors for it.
#[test]
fn a_chain_made_anew_without_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 10);
    let file = only_file(folder.path());
    let (mut hash, mut forged) = (entry::GENESIS, Vec::new());
    for (number, line) in lines(&file).iter().enumerate() {
        let mut entry: serde_json::Value = serde_json::from_slice(line).unwrap();
        entry["prev"] = crate::keys::hex(&hash).into();
        if number == 3 {
            entry["prompt_tokens"] = 0.into();
        }
        let line = serde_json::to_vec(&entry).unwrap();
        hash = entry::hash(&line);
        forged.extend(line);
        forged.push(b'\n');
    }
    std::fs::write(&file, &forged).unwrap();
    let without = Verify::default().run(&file).unwrap();
    assert!(without.ok && !without.anchors_checked, "the chain alone is sound: {without:?}");
    let found = problem(folder.path());
    assert!(found.contains("anchored") || found.contains("secret"), "{found}");
    std::fs::remove_file(anchor_path(folder.path())).unwrap();
    assert!(problem(folder.path()).contains("secret"), "the anchor in the chain says it too");
    assert!(matches!(Chain::open(place(folder.path())), Err(AuditError::Broken(_))));
}

#[test]
fn other_secrets_and_lost_anchors() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 3);
    let other = Verify { key: Some(AnchorKey::new(b"another")), ..Verify::default() };
    assert!(!other.run(folder.path()).unwrap().ok);
    std::fs::write(anchor_path(folder.path()), "{}").unwrap();
    assert_eq!(problem(folder.path()), "not an anchor");
    std::fs::remove_file(anchor_path(folder.path())).unwrap();
    assert_eq!(problem(folder.path()), "missing");
    assert!(matches!(Chain::open(place(folder.path())), Err(AuditError::Broken(_))));
}

/// What the log alone does not show: entries after the last anchor that are cut off, and a whole earlier state put back.
/// An anchor that was written down elsewhere shows both.
#[test]
fn what_only_a_witness_shows() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 3);
    let file = only_file(folder.path());
    let earlier = (std::fs::read(&file).unwrap(), std::fs::read(anchor_path(folder.path())).unwrap());
    let mut chain = open(folder.path());
    chain.append(&[request(4)]).unwrap();
    chain.anchor().unwrap();
    chain.append(&[request(5)]).unwrap();
    drop(chain);
    let report = verify(folder.path());
    let witness = Anchor { seq: report.last, hash: unhex(&report.sha256).unwrap() };
    let with = || {
        let verify = Verify { key: Some(AnchorKey::new(super::SECRET)), witness: Some(witness), first: None };
        verify.run(folder.path()).unwrap()
    };
    assert!(with().ok);
    let mut short = lines(&file);
    short.pop();
    std::fs::write(&file, short.concat()).unwrap();
    let report = verify(folder.path());
    assert!(report.ok && report.anchored < witness.seq, "the report says how far it is sure: {report:?}");
    assert!(!with().ok);
    std::fs::write(&file, &earlier.0).unwrap();
    std::fs::write(anchor_path(folder.path()), &earlier.1).unwrap();
    assert!(verify(folder.path()).ok);
    assert!(!with().ok);
}
