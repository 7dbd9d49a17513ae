//! `ossia serve`: OpenAI's API and a chat page. Only this machine reaches it unless the command line says otherwise, and
//! every request needs a key; the first start makes one.

mod grading;
mod greeting;
mod learning;
mod model;

use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ossia_engine::EngineOptions;
use ossia_serve::audit::AuditOptions;
use ossia_serve::auth::Scope;
use ossia_serve::guard::Doors;
use ossia_serve::keys::{KeyFile, NewKey};
use ossia_serve::server::{self, ServerOptions};
use ossia_serve::tls;

use crate::commands::keys::DataArgs;
use crate::error::Failure;
use crate::source::ModelArgs;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Address to listen on; any other than this machine's own needs TLS, or --insecure
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0: any free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Answers that are made at the same time; more requests wait
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Seconds that a request may have to wait until its answer begins; who would wait longer is refused at once
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    longest_wait: u32,
    /// Tokens that all running answers can hold together [default: one whole context and 4096 for each other answer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    kv_tokens: Option<u32>,
    /// Another name that clients may call the model
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Certificate (with its chain) for TLS, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Listen on other addresses without TLS: keys and texts can be read on the way
    #[arg(long)]
    insecure: bool,
    /// Requests from this machine need no key: whoever can use this machine can use the model
    #[arg(long)]
    no_key: bool,
    /// Make no key when there is none yet: where what is printed is kept, it would be kept too
    #[arg(long)]
    no_first_key: bool,
    /// Another name of this machine that requests may use
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// A web page's origin that may use the server, such as https://chat.example
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Database for responses, conversations, files and batches, as a URL [default: a file in the data folder]
    #[arg(long, value_name = "URL", env = "OSSIA_DATABASE_URL", hide_env_values = true)]
    database: Option<String>,
    /// A fine-tuned adapter that clients may use as MODEL:NAME; may be given several times
    #[arg(long, value_name = "NAME=FOLDER", value_parser = learning::named_folder)]
    adapter: Vec<(String, PathBuf)>,
    /// Threads of a fine-tuning job, beside those that answer [default: half of the cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    train_threads: Option<u16>,
    /// Keep no audit log: who asked when, of which model, with how many tokens
    #[arg(long)]
    no_audit: bool,
    /// The audit log holds what is said and answered too
    #[arg(long, conflicts_with = "no_audit")]
    audit_content: bool,
    /// How to log to stderr; what is said and answered is never logged
    #[arg(long, value_enum, default_value = "text")]
    log: LogArg,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogArg {
    /// For people
    Text,
    /// One JSON object a line
    Json,
    /// Nothing
    Off,
}

/// Runs the command.
pub fn run(args: ServeArgs) -> Result<(), Failure> {
    check_address(&args)?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(tls::acceptor(certificate, key).map_err(|error| Failure::Message(error.to_string()))?)
        }
        _ => None,
    };
    // Before the model is loaded, which takes longer.
    let listener = bind(args.host, args.port)?;
    let at = listener.local_addr().map_err(|error| Failure::io("socket", "ask for its address", error))?;
    let data = args.data.folder()?;
    let first_key = first_key(&data, args.no_key || args.no_first_key)?;
    start_log(args.log);
    let longest_wait = Duration::from_secs(args.longest_wait.into());
    let engine = EngineOptions { longest_wait, ..EngineOptions::default() };
    let aliases = args.alias.clone();
    let loaded = model::load(&args.model, usize::from(args.parallel), args.kv_tokens, engine, aliases, &args.adapter)?;
    let greeting = greeting::Greeting {
        at,
        is_tls: tls.is_some(),
        model: loaded.model.id.clone(),
        context: loaded.model.context,
        first_key,
        no_key: args.no_key,
    };
    let options = ServerOptions {
        training: Some(learning::training(&args.model, args.train_threads, &data)?),
        grading: Some(Arc::new(grading::Graders)),
        config: loaded.config,
        adapters: args.adapter,
        data,
        database: args.database,
        model: loaded.model,
        fingerprint: loaded.fingerprint,
        doors: doors(args.host, args.allow_host, args.allow_origin),
        without_key: if args.no_key {
            vec![Scope::Infer, Scope::Files, Scope::Batch, Scope::Train]
        } else {
            Vec::new()
        },
        tls,
        audit: (!args.no_audit).then(|| AuditOptions { content: args.audit_content, ..AuditOptions::default() }),
    };
    let ready = || print!("{greeting}");
    server::run(options, loaded.engine, loaded.harmony, listener, ready)
        .map_err(|error| Failure::Message(error.to_string()))
}

/// What others can reach must not be readable by others still, and needs keys.
fn check_address(args: &ServeArgs) -> Result<(), Failure> {
    if args.host.is_loopback() {
        return Ok(());
    }
    let host = args.host;
    if args.no_key {
        return Err(Failure::Usage(format!("--no-key on {host}: others could use the model; leave one of them out")));
    }
    if args.tls_cert.is_none() && !args.insecure {
        return Err(Failure::Usage(format!(
            "--host {host} can be reached from other machines: give --tls-cert and --tls-key, or say --insecure \
             (keys and texts can then be read on the way)"
        )));
    }
    if args.tls_cert.is_none() {
        eprintln!("warning: {host} without TLS: keys and texts can be read on the way");
    }
    Ok(())
}

fn bind(host: IpAddr, port: u16) -> Result<TcpListener, Failure> {
    TcpListener::bind((host, port)).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::Message(format!(
            "port {port} is taken on {host}: stop the other program, or choose one with --port"
        )),
        std::io::ErrorKind::PermissionDenied => {
            Failure::Message(format!("port {port} on {host} is not allowed: choose one above 1023 with --port"))
        }
        _ => Failure::Message(format!("{host} port {port}: cannot listen: {error}")),
    })
}

/// The key of a server that has none yet.
fn first_key(data: &std::path::Path, none: bool) -> Result<Option<String>, Failure> {
    let file = KeyFile::of(data);
    let failed = |error: ossia_serve::keys::KeyError| Failure::Message(error.to_string());
    if none || !file.read().map_err(failed)?.is_empty() {
        return Ok(None);
    }
    let new = NewKey { name: "first".into(), scopes: Scope::ALL.to_vec(), ..NewKey::default() };
    file.add(new).map(|(_, key)| Some(key)).map_err(failed)
}

/// On this machine's own addresses only this machine's names are answered; elsewhere any name, since the key protects.
fn doors(host: IpAddr, allow_host: Vec<String>, origins: Vec<String>) -> Doors {
    match host.is_loopback() {
        true => Doors::loopback(allow_host, origins),
        false if allow_host.is_empty() => Doors { hosts: None, origins },
        false => Doors { hosts: Some(allow_host), origins },
    }
}

/// Lines to stderr. A panic's message may hold what somebody wrote: only its place is logged.
fn start_log(form: LogArg) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO);
    // A log that runs already stays.
    let _ = match form {
        LogArg::Text => builder.with_ansi(false).try_init().is_ok(),
        LogArg::Json => builder.json().flatten_event(true).try_init().is_ok(),
        LogArg::Off => false,
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
        tracing::error!(place, "a part of the program panicked");
    }));
}
