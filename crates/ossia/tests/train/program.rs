//! A place with a recipe and a run, and what a failure must look like.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Four steps of a very small model.
pub const RECIPE: &str = r#"
name = "micro"
seed = 3

[model]
num_hidden_layers = 2
hidden_size = 32
intermediate_size = 32
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 8
num_local_experts = 4
num_experts_per_tok = 2
sliding_window = 16
max_position_embeddings = 256
rope_theta = 150000.0
rope_scaling = { rope_type = "yarn", factor = 4.0, original_max_position_embeddings = 64 }

[data]
source = "generated"
documents = 100
vocabulary = 300
max_len = 128
weights = { context = 0.05 }

[training]
steps = 4
batch_tokens = 400
micro_tokens = 200
optimizer = "muon"
lr = 0.02
schedule = "wsd"
warmup = 0.2

[quantize]
from = 0.5

[checkpoints]
every = 2
keep = 9

[validation]
every = 4
documents = 15
"#;

/// A folder of a test alone.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// With [`RECIPE`].
    pub fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.write_recipe(RECIPE.as_bytes());
        place
    }

    /// With [`RECIPE`] and the run that it gives.
    pub fn with_run() -> Self {
        let place = Self::new();
        place.works();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn recipe(&self) -> PathBuf {
        self.path("micro.toml")
    }

    /// The run's folder.
    pub fn run(&self) -> PathBuf {
        self.path("run")
    }

    pub fn write_recipe(&self, bytes: &[u8]) {
        std::fs::write(self.recipe(), bytes).unwrap();
    }

    /// Writes [`RECIPE`] with `from`, which must be in it, replaced.
    #[track_caller]
    pub fn change_recipe(&self, from: &str, to: &str) {
        assert!(RECIPE.contains(from), "{from}");
        self.write_recipe(RECIPE.replace(from, to).as_bytes());
    }

    /// `ossia train` of the recipe into the run's folder, with nothing on stderr but a failure.
    pub fn train(&self) -> Output {
        self.command("").output().expect("the shell starts")
    }

    /// The same, by a shell that does `before` first.
    pub fn command(&self, before: &str) -> Command {
        let (recipe, run) = (self.recipe(), self.run());
        let args = ["train", text(&recipe), "--out", text(&run), "--threads", "2", "--json"];
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{before} exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_ossia")).args(args);
        command.stdin(Stdio::null());
        command
    }

    /// The run must go to its end; the bytes of its weights.
    #[track_caller]
    pub fn works(&self) -> Vec<u8> {
        let said = object(&self.train());
        assert_eq!((&said["step"], &said["complete"]), (&4.into(), &true.into()), "{said}");
        std::fs::read(self.checkpoint(4).join("model.safetensors")).unwrap()
    }

    /// The run must fail in one line with every part.
    #[track_caller]
    pub fn fails(&self, parts: &[&str]) {
        assert_failed(&self.train(), 1, parts);
    }

    /// The checkpoint after `step` steps.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.run().join(format!("checkpoints/step-{step:08}"))
    }

    pub fn latest(&self) -> PathBuf {
        self.run().join("checkpoints/latest.json")
    }

    /// Lets the run go on from an older checkpoint, as its errors advise.
    pub fn point_at(&self, step: u64) {
        std::fs::write(self.latest(), format!("{{\"name\": \"step-{step:08}\"}}")).unwrap();
    }
}

/// The program with these arguments.
pub fn ossia(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    command.args(args).env_remove("OSSIA_MODEL").stdin(Stdio::null()).output().expect("the program starts")
}

/// What a run that succeeded has printed.
#[track_caller]
pub fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).expect("stdout is UTF-8")
}

/// The same as JSON.
#[track_caller]
pub fn object(output: &Output) -> Value {
    serde_json::from_str(stdout(output)).expect("one JSON object")
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

/// A path of ours as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the tests' own paths are plain")
}

/// Bytes as they are torn and altered: cut at several places, and with a bit flipped at several.
pub fn damaged(whole: &[u8]) -> Vec<Vec<u8>> {
    let (len, cut) = (whole.len(), |at: usize| whole[..at].to_vec());
    let flipped = |at: usize| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 4;
        bytes
    };
    vec![cut(0), cut(1), cut(len / 3), cut(len - 3), flipped(0), flipped(len / 2), flipped(len - 3)]
}
