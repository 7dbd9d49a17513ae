//! `cargo xtask fuzz-server`: nothing that a client sends breaks the server.
//!
//! The release build serves the model that it carries from an empty data folder, and gets requests made from a seed: every
//! field of every route's body at every extreme, then bodies, targets, uploads and heads changed at random. No answer may be a
//! fault of the server's, come late, be framed wrongly or tell of the machine; a good request in between must be answered
//! as ever; the log may have no fault and memory must stay where it is. A heavy check, so no part of `cargo xtask check`.

mod bases;
mod bombs;
mod cases;
mod forms;
mod judge;
mod mutate;
mod run;
mod targets;
mod values;
mod wire;

use std::path::Path;
use std::time::Instant;

use crate::client::{Connection, request};
use crate::json::Json;
use crate::served::{Served, empty, program};
use cases::{Cases, Ids};
use judge::Judge;
use run::{Progress, work};

const USAGE: &str = "usage: cargo xtask fuzz-server [--requests N] [--seed N] [--from N]   (100000 requests, seed 1, from 0; \
                     needs cargo build --release -p ossia)";
/// Clients at a time: less than the server makes answers at a time, so that nothing waits.
const CLIENTS: usize = 8;
/// Memory may grow by this after the first tenth of a run, in MiB.
const MOST_GROWTH_MIB: u64 = 128;
/// Positions: no answer is long, whatever a mutation has done to its limit.
const CONTEXT: &str = "512";

/// A request, and what must become of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The kind of trick.
    pub kind: &'static str,
    /// What is sent.
    pub bytes: Vec<u8>,
    /// What comes of the connection.
    pub end: End,
    /// True where the server may close without an answer: what it got is not HTTP.
    pub may_close: bool,
}

/// What becomes of a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// One answer; the connection goes on, unless the answer says otherwise.
    Reuse,
    /// Any number of answers, then that of the last request, or the end.
    Last,
    /// The client sends no more; the connection ends.
    Cut,
}

/// What the command line says.
struct Options {
    requests: u64,
    seed: u64,
    from: u64,
}

fn options(args: &[&str]) -> Option<Options> {
    let mut options = Options { requests: 100_000, seed: 1, from: 0 };
    for pair in args.chunks(2) {
        let &[name, value] = pair else { return None };
        let value = value.parse().ok()?;
        match name {
            "--requests" => options.requests = value,
            "--seed" => options.seed = value,
            "--from" => options.from = value,
            _ => return None,
        }
    }
    Some(options)
}

/// Runs the fuzzer; an error where anything was wrong.
pub fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let Options { requests, seed, from } = options(args).ok_or(USAGE)?;
    let (program, target) = program(root)?;
    let place = target.join("fuzz-server");
    empty(&place)?;
    let data = place.join("data");
    let mut served = Served::start(&program, &data, &["--ctx", CONTEXT, "--parallel", "16"])?;
    let key = served.key.clone().ok_or("the server made no key")?;
    let cases = Cases::new(seed, served.at, &key)?;
    let ids = prepared(&served, &key)?;
    check_bases(&served, &key, &ids)?;
    println!("cases {from} to {} of seed {seed}; the first {} are systematic", from + requests, cases.num_systematic());
    let progress = Progress::new(from, requests, place.clone(), wanted(&served, &key)?);
    let judge = Judge::new(&data, &key);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| work(&served, &cases, &judge, ids.clone(), &progress));
        }
        progress.watch(&served, MOST_GROWTH_MIB);
    });
    let took = begun.elapsed().as_secs_f64();
    println!("{}", progress.summary(took));
    let log = served.log();
    let lived = served.lives();
    if !lived {
        println!("the server has ended; its last words:\n{}", served.last_words());
    }
    let ended = served.end()?;
    println!("log: {} lines, {} faults; it ended with {ended}", log.num_lines, log.faults.len());
    let mut failures = progress.failures();
    failures.extend(log.faults.iter().take(10).map(|line| format!("the log says: {line}")));
    if !lived || !ended.success() {
        failures.push("the server did not live to its end".to_owned());
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("\n")),
    }
}

/// Asks once for each base: the description of the API has nothing that they lack, and each of them is good.
fn check_bases(served: &Served, key: &str, ids: &Ids) -> Result<(), String> {
    let ask = |method: &str, target: &str, body: Option<&[u8]>| {
        let mut connection = Connection::open(served.at).map_err(|error| error.to_string())?;
        let bytes = ids.fill_request(&request(method, target, served.at, key, body));
        connection.ask(&bytes).map_err(|none| format!("{method} {target}: {none}"))
    };
    let description = ask("GET", "/openapi.json", None)?;
    let description = Json::read(&description.body).ok_or("/openapi.json is not JSON")?;
    let missing = bases::missing(&description);
    if !missing.is_empty() {
        return Err(format!("fuzz/bases.rs has no request for: {}", missing.join(", ")));
    }
    for base in bases::BASES.iter().filter(|base| bases::is_described(&description, base)) {
        let body = (!base.body.is_empty()).then_some(base.body.as_bytes());
        let answer = ask(base.method, base.target, body)?;
        let is_unknown = base.target.contains("0000") || base.body.contains("0000");
        let is_bad = is_unknown || bases::REFUSED.contains(&(base.method, base.target));
        if is_bad != (answer.status >= 400) {
            return Err(format!("{} {}: {} {}", base.method, base.target, answer.status, answer.text()));
        }
    }
    Ok(())
}

/// Makes one of each thing that has an id.
fn prepared(served: &Served, key: &str) -> Result<Ids, String> {
    let ask = |method: &str, target: &str, body: &str| {
        let mut connection = Connection::open(served.at).map_err(|error| error.to_string())?;
        let body = (!body.is_empty()).then_some(body.as_bytes());
        let answer = connection.ask(&request(method, target, served.at, key, body)).map_err(|none| none.to_string())?;
        Json::read(&answer.body).ok_or_else(|| format!("{method} {target}: {}", answer.text()))
    };
    let id = |value: &Json| value.text("id").map(str::to_owned).ok_or_else(|| format!("no id in {value:?}"));
    let background = r#"{"model":"nano","input":"What is 2 + 3?","background":true,"max_output_tokens":4}"#;
    let resp = id(&ask("POST", "/v1/responses", background)?)?;
    while ["queued", "in_progress"]
        .contains(&ask("GET", &format!("/v1/responses/{resp}"), "")?.text("status").unwrap_or_default())
    {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let items = r#"{"items":[{"role":"user","content":"x"}]}"#;
    let conv = id(&ask("POST", "/v1/conversations", items)?)?;
    let list = ask("GET", &format!("/v1/conversations/{conv}/items"), "")?;
    let item = id(list.list("data").first().ok_or("the conversation has no item")?)?;
    let line = r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"x"}],"max_tokens":1}}"#;
    let form = format!(
        "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{line}\r\n--x\r\n\
         content-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--x--\r\n"
    );
    let mut connection = Connection::open(served.at).map_err(|error| error.to_string())?;
    let upload = cases::upload(served.at, key, "multipart/form-data; boundary=x", form.as_bytes());
    let file = connection.ask(&upload).map_err(|none| none.to_string())?;
    let file = id(&Json::read(&file.body).ok_or_else(|| file.text())?)?;
    let batch = format!(r#"{{"input_file_id":"{file}","endpoint":"/v1/chat/completions","completion_window":"24h"}}"#);
    let batch = id(&ask("POST", "/v1/batches", &batch)?)?;
    Ok(Ids { resp, conv, item, file, batch })
}

/// A good request, and what its answer says.
fn wanted(served: &Served, key: &str) -> Result<(Vec<u8>, Json), String> {
    let body = br#"{"messages":[{"role":"user","content":"What is 7 + 5?"}],"max_tokens":12,"temperature":1,"seed":5}"#;
    let good = request("POST", "/v1/chat/completions", served.at, key, Some(body));
    let mut connection = Connection::open(served.at).map_err(|error| error.to_string())?;
    let answer = connection.ask(&good).map_err(|none| none.to_string())?;
    let choices = Json::read(&answer.body).and_then(|answer| answer.get("choices").cloned());
    Ok((good, choices.ok_or_else(|| answer.text())?))
}
