//! `ossia keys`: who may use the server. A key is shown once, when it is made; the server keeps its hash.

use std::path::PathBuf;

use ossia_serve::auth::Scope;
use ossia_serve::clock;
use ossia_serve::keys::{KeyFile, KeyRecord, NewKey};
use serde_json::json;

use crate::error::Failure;

/// Arguments of `keys`.
#[derive(Debug, clap::Args)]
pub struct KeysArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(subcommand)]
    action: Action,
}

/// Where keys, secrets and the database are.
#[derive(Debug, Clone, clap::Args)]
pub struct DataArgs {
    /// Folder of keys, secrets and the database [default: ossia in XDG_DATA_HOME, else ~/.local/share/ossia]
    #[arg(long, global = true, value_name = "DIR", env = "OSSIA_DATA")]
    data: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a key and show it, this once
    Add(AddArgs),
    /// Show all keys, without the keys themselves
    List(ListArgs),
    /// Remove a key; a running server refuses it at once
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// For people: whose it is, or what it is for
    #[arg(long, default_value = "")]
    name: String,
    /// What it may do; may be given several times
    #[arg(long, value_enum, default_values = ["infer"])]
    scope: Vec<ScopeArg>,
    /// It ends after this time: 90m, 12h, 30d
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    expires: Option<u64>,
    /// Requests that it may make in a minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u64>,
    /// Tokens, of prompts and answers, that it may use in a minute
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RevokeArgs {
    /// Its id, such as key_1f2e3d4c5b6a, or a name that only one key has
    which: String,
}

/// See [`Scope`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ScopeArg {
    /// Generate, list models, keep responses and conversations
    Infer,
    /// Store and read files
    Files,
    /// Run batches
    Batch,
    /// Fine-tune models, which takes the machine for hours
    Train,
    /// Change the server
    Admin,
    /// Read the metrics
    Metrics,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Infer => Scope::Infer,
            ScopeArg::Files => Scope::Files,
            ScopeArg::Batch => Scope::Batch,
            ScopeArg::Train => Scope::Train,
            ScopeArg::Admin => Scope::Admin,
            ScopeArg::Metrics => Scope::Metrics,
        }
    }
}

impl DataArgs {
    /// The folder; it need not exist yet.
    pub fn folder(&self) -> Result<PathBuf, Failure> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let given = self.data.clone().filter(|folder| !folder.as_os_str().is_empty());
        let xdg = || set("XDG_DATA_HOME").filter(|folder| folder.is_absolute());
        let home = || std::env::home_dir().map(|home| home.join(".local/share"));
        let found = given.or_else(|| xdg().or_else(home).map(|folder| folder.join("ossia")));
        found.ok_or_else(|| Failure::Usage("there is no home folder: name a folder with --data".into()))
    }
}

/// Runs the command.
pub fn run(args: KeysArgs) -> Result<(), Failure> {
    let file = KeyFile::of(&args.data.folder()?);
    let failed = |error: ossia_serve::keys::KeyError| Failure::Message(error.to_string());
    match args.action {
        Action::Add(add) => {
            let new = NewKey {
                name: add.name,
                scopes: add.scope.into_iter().map(Scope::from).collect(),
                expires_in_s: add.expires,
                requests_per_minute: add.requests_per_minute,
                tokens_per_minute: add.tokens_per_minute,
            };
            let (record, key) = file.add(new).map_err(failed)?;
            if add.json {
                println!(
                    "{}",
                    json!({ "key": key, "id": record.id, "scopes": record.scopes, "expires": record.expires })
                );
            } else {
                println!("{key}");
                eprintln!("{} ({}); it is not shown again", record.id, scopes(&record));
            }
        }
        Action::List(list) => {
            let keys = file.read().map_err(failed)?;
            for key in &keys {
                println!("{}", if list.json { json_line(key) } else { line(key) });
            }
            if keys.is_empty() && !list.json {
                eprintln!("no keys; `ossia keys add` makes one");
            }
        }
        Action::Revoke(revoke) => {
            let gone = file.revoke(&revoke.which).map_err(failed)?;
            eprintln!("{} is revoked", gone.id);
        }
    }
    Ok(())
}

fn scopes(key: &KeyRecord) -> String {
    key.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(", ")
}

fn line(key: &KeyRecord) -> String {
    let state = match key.expires {
        None => "does not end".to_owned(),
        Some(at) if at <= clock::now_s() => "has ended".to_owned(),
        Some(at) => format!("until {}", clock::rfc3339(at)),
    };
    let quota = |limit: Option<u64>, what: &str| limit.map(|n| format!(", {n} {what} a minute")).unwrap_or_default();
    let requests = quota(key.requests_per_minute, "requests");
    let tokens = quota(key.tokens_per_minute, "tokens");
    let name = if key.name.is_empty() { "-" } else { &key.name };
    format!("{}  {name}  {}  {state}{requests}{tokens}", key.id, scopes(key))
}

fn json_line(key: &KeyRecord) -> String {
    json!({
        "id": key.id, "name": key.name, "scopes": key.scopes, "created": key.created, "expires": key.expires,
        "requests_per_minute": key.requests_per_minute, "tokens_per_minute": key.tokens_per_minute,
    })
    .to_string()
}

/// A time such as 30d, in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wanted = || format!("wanted a time such as 90m, 12h or 30d, found {text:?}");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wanted)?;
    let each: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wanted()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(each)).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times() {
        assert_eq!((seconds("90m"), seconds("12h"), seconds("30d")), (Ok(5400), Ok(43_200), Ok(2_592_000)));
        for wrong in ["", "d", "30", "-1d", "1.5h", "99999999999999999d", "3w", "3ä"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
