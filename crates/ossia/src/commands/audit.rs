//! `ossia audit verify`: whether the audit log is what the server wrote. Reads only, needs no server, and can be done while
//! one is writing.

use std::path::{Path, PathBuf};

use ossia_serve::audit::{self, Anchor, AnchorKey, Report, Verify, unhex};
use ossia_serve::keys::SERVER_SECRET;

use crate::commands::keys::DataArgs;
use crate::error::Failure;
use crate::output;

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check the whole chain; reports the first broken place
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// A log's folder, or one of its files [default: the data folder's log, with the server's secret]
    path: Option<PathBuf>,
    /// The secret of the server that wrote PATH: checks its anchors
    #[arg(long, value_name = "FILE", requires = "path")]
    secret: Option<PathBuf>,
    /// An entry and its hash that were written down elsewhere: must be there
    #[arg(long, value_name = "SEQ:SHA256", value_parser = witness)]
    witness: Option<Anchor>,
    /// The first entry, where files of earlier ones were put elsewhere
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    first: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: AuditArgs) -> Result<(), Failure> {
    let Action::Verify(verify) = args.action;
    let (path, secret) = match verify.path {
        Some(path) => (path, verify.secret),
        None => {
            let data = args.data.folder()?;
            (data.join(audit::FOLDER), Some(data.join(SERVER_SECRET)))
        }
    };
    let key = secret.as_deref().map(read_secret).transpose()?;
    let checked = Verify { key, first: verify.first, witness: verify.witness }.run(&path);
    let report = checked.map_err(|error| Failure::Message(error.to_string()))?;
    if verify.json {
        let text = serde_json::to_string(&report);
        output::line(text.map_err(|error| Failure::Message(error.to_string()))?)?;
    } else if report.ok {
        output::line(sound(&report))?;
    }
    match report.broken {
        None => Ok(()),
        Some(broken) => Err(Failure::Message(format!("the audit log is broken: {broken}"))),
    }
}

fn read_secret(path: &Path) -> Result<AnchorKey, Failure> {
    let secret = std::fs::read(path).map_err(|error| Failure::io(path, "read", error))?;
    match secret.len() {
        32 => Ok(AnchorKey::new(&secret)),
        len => Err(Failure::Message(format!("{}: not a server's secret: {len} bytes, wanted 32", path.display()))),
    }
}

/// What a person wants to know of a log that is in order.
fn sound(report: &Report) -> String {
    let Report { first, last, files, anchors, anchored, torn, torn_end, sha256, .. } = report;
    let anchors = match report.anchors_checked {
        true => format!("{anchors} anchors, all made with this server's secret"),
        false => format!("{anchors} anchors, not checked: no secret was given"),
    };
    let mut text =
        format!("in order: entries {first} to {last} in {files} files; {anchors}; anchored up to {anchored}");
    if *torn > 0 {
        text.push_str(&format!("\n{torn} places were torn by crashes and are noted in the chain"));
    }
    if *torn_end > 0 {
        text.push_str(&format!("\n{torn_end} bytes at the end are no entry yet: being written, or left by a crash"));
    }
    text.push_str(&format!("\nwitness {last}:{sha256}"));
    text
}

fn witness(text: &str) -> Result<Anchor, String> {
    let parts = text.split_once(':').and_then(|(seq, hash)| Some((seq.parse().ok()?, unhex(hash)?)));
    let (seq, hash) = parts.ok_or("wanted a number, a colon and 64 hexadecimal digits, as verify prints them")?;
    Ok(Anchor { seq, hash })
}

#[cfg(test)]
mod tests {
    use super::witness;

    #[test]
    fn witnesses() {
        let hash = "0f".repeat(32);
        let anchor = witness(&format!("12:{hash}")).unwrap();
        assert_eq!((anchor.seq, anchor.hash), (12, [15; 32]));
        for wrong in
            ["", ":", "12", &hash, &format!("12:{hash}0"), &format!("-1:{hash}"), &format!("1:{}", "zz".repeat(32))]
        {
            assert!(witness(wrong).is_err(), "{wrong}");
        }
    }
}
