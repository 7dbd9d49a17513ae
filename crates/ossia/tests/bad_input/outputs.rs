//! Places that cannot be written: folders that are files, disks that are full, readers that have gone. What was begun
//! is not left behind, and what is no file is not replaced by one.

use std::path::Path;
use std::process::{Output, Stdio};

use super::program::{assert_failed, command, data, fails, generate, ossia, scratch, text};
use super::safetensors::{Safetensors, Tensor};

fn synth(out: &Path) -> [&str; 6] {
    ["synth", "--preset", "nano", "--json", "--out", text(out)]
}

#[test]
fn shapes_that_are_none() {
    let out = scratch("synth").join("out");
    for more in
        [&["--preset", "7b"][..], &["--preset", "nano", "--layers", "0"], &["--preset", "nano", "--layers", "1025"]]
    {
        let output = ossia(&[&["synth", "--out", text(&out)], more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(more[more.len() - 1]) && !out.exists(), "{said}");
    }
}

#[test]
fn a_folder_that_cannot_be() {
    let folder = scratch("synth");
    let file = folder.join("file");
    std::fs::write(&file, "mine").unwrap();
    fails(&synth(&file), &[text(&file)]);
    fails(&synth(&file.join("below")), &[text(&file)]);
    fails(&synth(Path::new("/proc/nowhere")), &["/proc/nowhere", "cannot create"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

/// Runs with the largest file at 8 KB: the system then refuses to write more, as a full disk does.
fn on_a_small_disk(args: &[&str]) -> Output {
    command("trap '' XFSZ; ulimit -f 16;", args).output().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_disk_that_is_full() {
    let out = scratch("full");
    assert_failed(&on_a_small_disk(&synth(&out)), 1, &["model.safetensors", "cannot write"]);
    assert_eq!(names(&out), ["config.json", "generation_config.json"]);
    let tokens = scratch("tokens").join("tokens.safetensors");
    let bytes = [1i32; 100].iter().flat_map(|v| v.to_le_bytes()).collect();
    Safetensors(vec![Tensor { name: "tokens".into(), dtype: "I32".into(), shape: vec![100], bytes }]).write(&tokens);
    let target = out.join("logits.safetensors");
    let nano = data("nano");
    let args = ["logits", "-m", text(&nano), "--json", "--tokens", text(&tokens), "--out", text(&target)];
    assert_failed(&on_a_small_disk(&args), 1, &["logits.safetensors", "cannot write"]);
    assert_eq!(names(&out), ["config.json", "generation_config.json"]);
    assert!(ossia(&args).status.success() && target.exists());
    fails(&[&args[..7], &["/nowhere/at/all"]].concat(), &["/nowhere/", "cannot create"]);
}

/// As root a rename would put a file in the place of /dev/null.
#[test]
fn what_is_no_file_is_not_replaced() {
    let folder = scratch("places");
    let tokens = folder.join("tokens.safetensors");
    let bytes = vec![1, 0, 0, 0];
    Safetensors(vec![Tensor { name: "tokens".into(), dtype: "I32".into(), shape: vec![1], bytes }]).write(&tokens);
    let link = folder.join("null");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let inner = folder.join("inner");
    std::fs::create_dir(&inner).unwrap();
    for place in [&link, &inner] {
        let nano = data("nano");
        let args = ["logits", "-m", text(&nano), "--json", "--tokens", text(&tokens), "--out", text(place)];
        fails(&args, &[text(place), "wanted a regular file", "found"]);
    }
    assert!(link.is_symlink() && inner.is_dir());
    // A folder whose tokenizer.json goes to a full device.
    let out = scratch("synth");
    std::os::unix::fs::symlink("/dev/full", out.join("tokenizer.json")).unwrap();
    fails(&synth(&out), &["tokenizer.json"]);
}

#[test]
fn stdout_that_is_full_or_gone() {
    let nano = data("nano");
    let folder = scratch("stdout");
    let synth = ["synth", "--preset", "nano", "--json", "--force", "--out", text(&folder)];
    let bench = ["bench", "-p", "1", "-n", "1", "-r", "1", "-m", text(&nano)];
    let commands: [&[&str]; 7] = [
        &generate(&nano),
        &["inspect", text(&nano), "--tensors"],
        &["inspect", text(&nano), "--json"],
        &["verify", text(&nano)],
        &synth,
        &bench,
        &["list", "--json"],
    ];
    for args in commands {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut output = command("", args).stdout(Stdio::from(full)).output().unwrap();
        // Before the result, bench says what it takes.
        output.stderr = last_line(&output.stderr);
        assert_failed(&output, 1, &["stdout", "cannot write"]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command("", args).stdout(Stdio::from(writer)).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && !said.contains("panicked"), "{said}");
    }
}

fn last_line(text: &[u8]) -> Vec<u8> {
    text.split_inclusive(|&b| b == b'\n').next_back().unwrap_or_default().to_vec()
}
