//! The memory plan with little memory: what is refused, and whether what it advises would really fit.

use std::process::Command;

use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::synth;
use ossia_model::gpt_oss::tensors::Dense;
use ossia_model::{DoesNotFit, Options, Plan};

use super::config_files::set;
use super::program::{copy_of, fails, generate, model_fails, ossia, text};

struct Case {
    checkpoint: Checkpoint,
    config: Config,
    options: Options,
}

impl Case {
    /// A model whose dense weights are most of it, at its longest context.
    fn mini() -> Self {
        let config = Config::preset("mini", None).unwrap();
        let checkpoint = synth::checkpoint(&config, 0).unwrap();
        let options = Options { context: config.max_context, threads: 2, ..Options::default() };
        Self { checkpoint, config, options }
    }

    /// The options that the program has when it is started with this context.
    fn started_with(&self, context: usize) -> Options {
        Options { context, chunk: self.options.chunk.min(context), ..self.options.clone() }
    }

    fn plan(&self, options: &Options) -> Plan {
        Plan::new(&self.checkpoint, &self.config, options)
    }

    fn check(&self, options: &Options, available: u64) -> Result<(), DoesNotFit> {
        self.plan(options).check(&self.checkpoint, &self.config, options, available)
    }
}

/// The value behind `--flag` in an advice.
fn advised<'a>(advice: &'a str, flag: &str) -> Option<&'a str> {
    let rest = advice.split_once(&format!("{flag} "))?.1;
    Some(rest.split(' ').next().unwrap_or(rest))
}

#[test]
fn what_is_advised_fits_and_the_next_larger_does_not() {
    let case = Case::mini();
    let whole = case.plan(&case.options).total();
    case.check(&case.options, whole).unwrap();
    let mut seen = [0; 3];
    for step in 1..=200 {
        let available = whole - whole * step / 200;
        let refused = case.check(&case.options, available).unwrap_err();
        let line = refused.to_string();
        assert!(line.contains("needs") && line.contains("free; ") && !line.contains('\n'), "{line}");
        assert_eq!((refused.plan, refused.available), (case.plan(&case.options), available));
        let Some(context) = advised(&refused.advice, "--ctx") else {
            seen[0] += 1;
            assert!(refused.advice.starts_with("no context fits"), "{line}");
            let least = Options { dense: Some(Dense::Q8), ..case.started_with(256) };
            assert!(case.check(&least, available).is_err(), "{line}");
            continue;
        };
        let dense = advised(&refused.advice, "--dense").map(|name| {
            assert_eq!(name, "q8_0");
            Dense::Q8
        });
        seen[if dense.is_some() { 1 } else { 2 }] += 1;
        let context: usize = context.parse().unwrap();
        let options = Options { dense: dense.or(case.options.dense), ..case.started_with(context) };
        case.check(&options, available).expect(&line);
        let larger = Options { dense: options.dense, ..case.started_with(context * 2) };
        assert!(larger.context > case.options.context || case.check(&larger, available).is_err(), "{line}");
    }
    assert!(seen.iter().all(|&n| n > 0), "every kind of advice was given: {seen:?}");
}

#[test]
fn the_chunk_of_an_advised_context_is_no_longer_than_it() {
    // A context below the chunk shortens the chunk when the program is started with it.
    let mut case = Case::mini();
    case.options.chunk = 8192;
    let available = case.plan(&case.started_with(256)).total();
    let refused = case.check(&case.options, available).unwrap_err();
    assert_eq!(advised(&refused.advice, "--ctx"), Some("256"), "{refused}");
}

#[test]
fn a_context_beyond_every_machine_is_refused_by_the_program() {
    let folder = copy_of("nano");
    for (key, value) in [
        ("num_key_value_heads", 1 << 14),
        ("num_attention_heads", 1 << 14),
        ("head_dim", 256),
        ("max_position_embeddings", 131_072),
    ] {
        set(&folder, &format!("/{key}"), value.into());
    }
    let most = ["--ctx", "131072"];
    let parts = ["the model needs", "KV cache", "at 131072 tokens", "the machine has", "free; "];
    fails(&[&generate(&folder)[..], &most].concat(), &parts);
    // What fits then turns out to be another model than the config says, still before memory is asked for.
    model_fails(&folder, &["model.safetensors", "tensor", "wanted shape", "found shape"]);
    let output = ossia(&["inspect", text(&folder), "--ctx", "131072", "--json"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"fits\":false"));
}

#[test]
fn a_model_of_random_weights_is_inspected_without_making_them() {
    for (name, bytes) in [("synth:20b", 13_761_264_768_u64), ("synth:120b", 65_248_815_744)] {
        // Addresses for the largest tensor and the tokenizer, far fewer than for the model.
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "ulimit -v 2000000 && exec \"$0\" inspect \"$1\" --json",
            env!("CARGO_BIN_EXE_ossia"),
            name,
        ]);
        let output = command.env_remove("OSSIA_ISA").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let plan: serde_json::Value = serde_json::from_str(&said).unwrap();
        let weights = plan["memory"]["mapped"].as_u64().unwrap() + plan["memory"]["owned"].as_u64().unwrap();
        assert!(weights > bytes / 2 && weights < 2 * bytes, "{plan}");
        assert_eq!(plan["fits"] == true, plan["memory"]["total"].as_u64() <= plan["memory"]["available"].as_u64());
    }
}
