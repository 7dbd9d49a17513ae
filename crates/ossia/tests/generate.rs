//! `ossia generate`: ids in, ids out.

use std::io::Read;
use std::process::{Command, Stdio};

fn generate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    command.args(["generate", "-m", "synth:nano", "--tokens", "3,1,2", "--greedy"]).args(args);
    command
}

#[test]
fn ids_in_a_line_are_those_of_the_object() {
    let text = |args: &[&str]| {
        let output = generate(args).output().expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("stdout is UTF-8")
    };
    let line = text(&["-n", "12"]);
    let object: serde_json::Value = serde_json::from_str(&text(&["-n", "12", "--json"])).expect("JSON");
    let ids: Vec<u64> =
        object["tokens"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), 12);
    assert_eq!(line, format!("{}\n", ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",")));
    assert_eq!(text(&["-n", "0"]), "\n");
}

#[test]
fn a_reader_who_leaves_is_no_failure() {
    let mut child =
        generate(&["-n", "2000"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program runs");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    stdout.read_exact(&mut [0; 8]).expect("ids come");
    drop(stdout);
    assert!(child.wait().expect("it ends").success());
}
