//! One file per command: its arguments, and `run`.

pub mod audit;
pub mod bench;
pub mod chat;
pub mod eval;
pub mod export;
pub mod finetune;
pub mod generate;
pub mod inspect;
pub mod keys;
pub mod list;
pub mod logits;
pub mod pull;
pub mod run;
pub mod serve;
pub mod synth;
pub mod train;
pub mod verify;

use crate::error::Failure;

/// What the program can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Talk in the terminal
    Chat(chat::ChatArgs),
    /// One answer on stdout
    Run(run::RunArgs),
    /// Serve OpenAI's API and a chat page, to this machine alone unless told otherwise
    Serve(serve::ServeArgs),
    /// Make, list and revoke API keys
    Keys(keys::KeysArgs),
    /// Check the server's audit log
    Audit(audit::AuditArgs),
    /// Fetch a model: resumes what was interrupted, verifies every hash
    Pull(pull::PullArgs),
    /// List the models on this machine
    List(list::ListArgs),
    /// Show a model's shape, tensors and memory plan
    Inspect(inspect::InspectArgs),
    /// Read every byte of a model and check it
    Verify(verify::VerifyArgs),
    /// Measure prefill and decode speed
    Bench(bench::BenchArgs),
    /// Write random weights of a true shape
    Synth(synth::SynthArgs),
    /// Write a model for other programs: MXFP4 or BF16 safetensors, GGUF
    Export(export::ExportArgs),
    /// A model from nothing, by a recipe
    Train(train::TrainArgs),
    /// A model learns from your own files: an adapter, or all of it
    Finetune(finetune::FinetuneArgs),
    /// Held-out tasks, graded
    Eval(eval::EvalArgs),
    /// Logits of every position
    Logits(logits::LogitsArgs),
    /// Token ids in, token ids out
    Generate(generate::GenerateArgs),
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Command::Chat(args) => chat::run(args),
            Command::Run(args) => run::run(args),
            Command::Serve(args) => serve::run(args),
            Command::Keys(args) => keys::run(args),
            Command::Audit(args) => audit::run(args),
            Command::Pull(args) => pull::run(args),
            Command::List(args) => list::run(args),
            Command::Inspect(args) => inspect::run(args),
            Command::Verify(args) => verify::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Synth(args) => synth::run(args),
            Command::Export(args) => export::run(args),
            Command::Train(args) => train::run(args),
            Command::Finetune(args) => finetune::run(args),
            Command::Eval(args) => eval::run(args),
            Command::Logits(args) => logits::run(args),
            Command::Generate(args) => generate::run(args),
        }
    }
}
