//! Runs the program in a bounded address space, and says what a failure must look like.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Kilobytes of address space of a run. What is resident is never more than that, so a run that ends as it should has
/// stayed below it; one that asks for more is killed by its own allocator, and the test fails.
const LIMIT_KB: u32 = 256 << 10;

/// A file or folder of the model tests' data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ossia-model/tests/data").join(name)
}

/// A new empty folder of this call alone.
pub fn scratch(name: &str) -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bad_input/{call}/{name}"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A copy of the files, not the folders, of `name` in the data.
pub fn copy_of(name: &str) -> PathBuf {
    let folder = scratch("model");
    for entry in std::fs::read_dir(data(name)).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() && !entry.file_name().to_string_lossy().ends_with(".gguf") {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    folder
}

/// The program with `args`, to be run by a shell after `before` (such as another limit).
pub fn command(before: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{before} ulimit -v {LIMIT_KB} && exec \"$0\" \"$@\""));
    command.arg(env!("CARGO_BIN_EXE_ossia")).args(args);
    // Each thread's allocator would reserve 64 MB of addresses without using them.
    command.env("MALLOC_ARENA_MAX", "1").env_remove("OSSIA_MODEL").env_remove("OSSIA_ISA").stdin(Stdio::null());
    command
}

/// What running the program with `args` gives.
pub fn ossia(args: &[&str]) -> Output {
    command("", args).output().expect("the shell starts")
}

/// Arguments that feed tokens 1, 2 and 3 to `model` and make one more.
pub fn generate(model: &Path) -> [&str; 11] {
    ["generate", "--tokens", "1,2,3", "-n", "1", "--json", "--greedy", "--threads", "2", "-m", text(model)]
}

/// A path of ours as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the tests' own paths are plain")
}

/// The run must have failed as this program fails: `status`, nothing on stdout, one line on stderr with every part.
#[track_caller]
pub fn assert_failed(output: &Output, status: i32, parts: &[&str]) {
    let line = String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8");
    assert_eq!(output.status.code(), Some(status), "wanted an error with {parts:?}: {line}");
    assert!(output.stdout.is_empty(), "something on stdout: {:?}", String::from_utf8_lossy(&output.stdout));
    let body = line.strip_prefix("ossia: ").and_then(|l| l.strip_suffix('\n')).unwrap_or_else(|| panic!("{line}"));
    assert!(body.len() < 2000 && !body.contains(|c: char| c.is_control()), "not one short line: {line}");
    assert!(!body.contains("panicked"), "{line}");
    for part in parts {
        assert!(body.contains(part), "no {part:?} in: {line}");
    }
}

/// `ossia ARGS` must fail with status 1 and one line that holds every part.
#[track_caller]
pub fn fails(args: &[&str], parts: &[&str]) {
    assert_failed(&ossia(args), 1, parts);
}

/// Generating with `model` must fail with status 1 and one line that holds every part.
#[track_caller]
pub fn model_fails(model: &Path, parts: &[&str]) {
    fails(&generate(model), parts);
}

/// The tokens that `model` makes of tokens 1, 2 and 3, as JSON.
#[track_caller]
pub fn model_works(model: &Path) -> String {
    let output = ossia(&generate(model));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("stdout is UTF-8")
}
