//! `cargo xtask load`: many clients against a server of this program, and what each of the two took.
//!
//! The server (`cargo build --release -p ossia` first) is started with nano on a free port of loopback, with a data
//! folder of its own, and asked by plain HTTP/1.1 from threads of this process. Client and server share the machine, so
//! every figure comes with the CPU time of both. A heavy check, so no part of `cargo xtask check`.

mod crowd;
mod http;
mod idle;
mod modes;
mod report;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use server::Server;

const USAGE: &str = "usage: cargo xtask load load | overload | flood | idle  [NAME=VALUE …] [-- SERVE-ARGUMENTS]
   needs cargo build --release -p ossia

  load      streams=64 seconds=300 drop=0.2        so many streams at once, some dropped in the middle
  overload  streams=16,24 seconds=10 rounds=3 times=10 workers=512   answers a second at capacity, and when more is asked for
  flood     flood=100 seconds=20                   one client alone, and beside so many requests of another
  idle      idle=2000 seconds=45                   one client alone, and beside slow connections of four kinds

  model=nano, program=target/release/ossia and log=FILE (what the server writes to stderr) go with each";

/// What is asked for on the command line.
pub struct Settings {
    pairs: Vec<(String, String)>,
}

impl Settings {
    /// The value of `name`, or `or`.
    pub fn number(&self, name: &str, or: f64) -> Result<f64, String> {
        let wrong = |text: &str| format!("{name}={text}: wanted a number of at least 0\n{USAGE}");
        match self.text(name) {
            None => Ok(or),
            Some(text) => match text.parse::<f64>() {
                Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
                _ => Err(wrong(text)),
            },
        }
    }

    /// The same as a count.
    pub fn count(&self, name: &str, or: usize) -> Result<usize, String> {
        self.number(name, or as f64).map(|value| value as usize)
    }

    /// The same as a time, given in seconds.
    pub fn seconds(&self, name: &str, or: f64) -> Result<Duration, String> {
        self.number(name, or).map(|value| Duration::from_secs_f64(value.min(86_400.0)))
    }

    /// Counts with commas between them.
    pub fn counts(&self, name: &str, or: &[usize]) -> Result<Vec<usize>, String> {
        let Some(text) = self.text(name) else { return Ok(or.to_vec()) };
        let counts: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
        match counts {
            Ok(counts) if counts.iter().all(|&count| count > 0) => Ok(counts),
            _ => Err(format!("{name}={text}: wanted numbers above 0 with commas between them\n{USAGE}")),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Starts a server, runs the mode, prints what came of it. An error where something that must not happen has happened.
pub fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let [mode, args @ ..] = args else { return Err(USAGE.to_owned()) };
    let split = args.iter().position(|&arg| arg == "--").unwrap_or(args.len());
    let (args, serve) = (&args[..split], args.get(split + 1..).unwrap_or_default());
    let pair = |arg: &&str| arg.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let pairs: Option<Vec<_>> = args.iter().map(pair).collect();
    let settings = Settings { pairs: pairs.ok_or(USAGE)? };
    let run_mode = match *mode {
        "load" => modes::load,
        "overload" => modes::overload,
        "flood" => modes::flood,
        "idle" => idle::run,
        _ => return Err(USAGE.to_owned()),
    };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let program = settings.text("program").map_or_else(|| target.join("release").join("ossia"), PathBuf::from);
    let log = settings.text("log").map(Path::new);
    let server = Server::start(&program, settings.text("model").unwrap_or("nano"), serve, log)?;
    println!("server {} at {}", server.pid(), server.at);
    run_mode(&server, &settings)
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn settings_are_read_or_named() {
        let pairs = [("streams", "8,16"), ("seconds", "1.5"), ("drop", "x"), ("idle", "-1")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let settings = Settings { pairs };
        assert_eq!(settings.counts("streams", &[1]), Ok(vec![8, 16]));
        assert_eq!(settings.counts("other", &[1]), Ok(vec![1]));
        assert_eq!(settings.seconds("seconds", 9.0), Ok(std::time::Duration::from_millis(1500)));
        for name in ["drop", "idle"] {
            assert!(settings.number(name, 0.0).unwrap_err().contains(name));
        }
        assert!(settings.counts("seconds", &[1]).is_err());
    }
}
