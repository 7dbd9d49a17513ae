//! SIGTERM and SIGINT: the run saves, ends well and says how it goes on; and so it does.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use super::program::{Place, text};

/// A run that goes on until it is told to stop, and says every step.
fn start(place: &Place) -> (Child, BufReader<ChildStderr>) {
    let (recipe, run) = (place.recipe(), place.run());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    command.args(["train", text(&recipe), "--out", text(&run), "--threads", "1"]);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap());
    (child, lines)
}

/// Reads until a line has `part`.
#[track_caller]
fn wait_for(lines: &mut BufReader<ChildStderr>, part: &str) -> String {
    let mut line = String::new();
    while !line.contains(part) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the program ended before it said {part:?}");
    }
    line
}

fn send(signal: &str, child: &Child) {
    let kill = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[test]
fn signals_save_and_say_how_to_go_on() {
    let place = Place::new();
    place.change_recipe("steps = 4", "steps = 1000000");
    let recipe = std::fs::read_to_string(place.recipe()).unwrap().replace("every = 4", "every = 1");
    place.write_recipe(recipe.as_bytes());
    let mut done = 0;
    for signal in ["TERM", "INT", "TERM"] {
        let (mut child, mut lines) = start(&place);
        let from = if done == 0 { "from nothing".to_owned() } else { format!("going on after step {done}\n") };
        wait_for(&mut lines, &from);
        wait_for(&mut lines, &format!("step {}  loss", done + 3));
        send(signal, &child);
        let last = wait_for(&mut lines, "stopped after");
        assert!(last.ends_with("steps, saved; the same command goes on from there\n"), "{last}");
        assert!(child.wait().unwrap().success());
        let steps = last.strip_prefix("stopped after ").unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(steps >= done + 3, "{last}");
        assert!(place.checkpoint(steps).join("state.json").is_file());
        done = steps;
    }
}
