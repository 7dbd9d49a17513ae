//! What another program's SQLite says of the database that a killed server has left.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::served::empty;

/// Reads the copy's path and whether the server has ended in good order; prints what is wrong, a line each.
const JUDGE: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
one = lambda query: db.execute(query).fetchone()[0]
say = lambda text: print(text)
integrity = one("PRAGMA integrity_check")
if integrity != "ok":
    say("integrity_check: " + integrity)
    sys.exit()
for what, query in {
    "chunks of no file": "SELECT COUNT(*) FROM file_chunks WHERE file_id NOT IN (SELECT id FROM files)",
    "whole files of another length":
        "SELECT COUNT(*) FROM files WHERE complete = 1 AND num_bytes != (SELECT COALESCE(SUM(LENGTH(data)), 0)"
        " FROM file_chunks WHERE file_id = files.id)",
    "items of no conversation":
        "SELECT COUNT(*) FROM conversation_items WHERE conversation_id NOT IN (SELECT id FROM conversations)",
    "lines of no batch": "SELECT COUNT(*) FROM batch_items WHERE batch_id NOT IN (SELECT id FROM batches)",
    "lines that are half done": "SELECT COUNT(*) FROM batch_items WHERE (failed IS NULL) != (result IS NULL)",
    "ended batches with lines":
        "SELECT COUNT(*) FROM batches WHERE status IN ('completed', 'failed', 'cancelled')"
        " AND id IN (SELECT batch_id FROM batch_items)",
    "unfinished responses with usage":
        "SELECT COUNT(*) FROM responses WHERE status IN ('queued', 'in_progress')"
        " AND json_extract(body, '$.usage') IS NOT NULL",
}.items():
    if one(query) != 0:
        say(f"{one(query)} {what}")
if sys.argv[2] == "ended":
    for what, query in {
        "incomplete files": "SELECT COUNT(*) FROM files WHERE complete = 0",
        "unfinished responses": "SELECT COUNT(*) FROM responses WHERE status IN ('queued', 'in_progress')",
        "open batches": "SELECT COUNT(*) FROM batches WHERE status NOT IN ('completed', 'failed', 'cancelled')",
    }.items():
        if one(query) != 0:
            say(f"{one(query)} {what}, though the server has ended in good order")
"#;

/// Checks a copy of the database in `data`, made in `copy`: its log is read as a server that starts would read it.
pub fn check(data: &Path, copy: &Path, ended: bool) -> Result<(), String> {
    empty(copy)?;
    for name in ["ossia.db", "ossia.db-wal"] {
        let from = data.join(name);
        if from.exists() {
            std::fs::copy(&from, copy.join(name)).map_err(|error| format!("{}: {error}", from.display()))?;
        }
    }
    let mut command = Command::new("python3");
    command.arg("-").arg(copy.join("ossia.db")).arg(if ended { "ended" } else { "killed" });
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |error: std::io::Error| format!("python3 cannot judge the database: {error}");
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(JUDGE.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("python3 cannot judge the database: {}", String::from_utf8_lossy(&output.stderr)));
    }
    match said.trim() {
        "" => Ok(()),
        wrong => Err(format!("the database has {}", wrong.replace('\n', ", "))),
    }
}
