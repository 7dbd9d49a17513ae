//! `ossia train`: a model from nothing, by a recipe; what it would take (`--dry-run`), how it went (`plot`), and whether
//! its gradients are right (`check`).

mod check;
mod plan;
mod plot;
mod progress;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::cpu::peak;
use ossia_kernels::cuda::Device;
use ossia_train::recipe::Recipe;
use ossia_train::run::{self, Ended};

use crate::error::Failure;
use crate::gpu::DeviceArg;
use crate::{machine, output};

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct TrainArgs {
    #[command(subcommand)]
    command: Option<Command>,
    /// The recipe, a TOML file
    #[arg(required = true)]
    recipe: Option<PathBuf>,
    /// Where data, checkpoints and the log go; a run that is there goes on [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Threads
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Where it is trained: cpu, cuda, cuda:N, or auto
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceArg,
    /// Say what the run would take, and read or write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Hold loss and gradients to a golden file of another implementation
    Check(check::CheckArgs),
    /// Draw a run: SVG, PNG, and in the terminal
    Plot(plot::PlotArgs),
}

/// Runs the command.
pub fn run(args: TrainArgs) -> Result<(), Failure> {
    match args.command {
        Some(Command::Check(args)) => return check::run(args),
        Some(Command::Plot(args)) => return plot::run(args),
        None => {}
    }
    let file = args.recipe.ok_or_else(|| Failure::Usage("name a recipe, such as recipes/nano.toml".into()))?;
    let recipe = Recipe::read(&file)?;
    let threads = args.threads.map_or_else(default_threads, usize::from);
    if args.dry_run {
        return plan::run(&recipe, &args.device.open_for_training()?, threads, args.json);
    }
    let folder = args.out.unwrap_or_else(|| Path::new("runs").join(&recipe.name));
    let ended = train(&recipe, &folder, &args.device.open_for_training()?, threads, args.json)?;
    if args.json {
        let loss = ended.last.as_ref().map(|r| r.loss);
        let checkpoint = &ended.checkpoint;
        return output::line(serde_json::json!({
            "step": ended.step, "complete": ended.complete, "loss": loss, "checkpoint": checkpoint,
        }));
    }
    let folder = folder.display();
    match ended.complete {
        true => eprintln!(
            "done after {} steps: {}\ndraw it: ossia train plot {folder}",
            ended.step,
            ended.checkpoint.display()
        ),
        false => eprintln!("stopped after {} steps, saved; the same command goes on from there", ended.step),
    }
    Ok(())
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn train(recipe: &Recipe, folder: &Path, device: &Device, threads: usize, quiet: bool) -> Result<Ended, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    // A second signal is no more than the first: a step is short, and the save must not be torn.
    let handler = ctrlc::set_handler(move || raised.store(true, Ordering::Relaxed));
    handler.map_err(|e| Failure::Message(format!("cannot listen for signals: {e}")))?;
    // Nobody has measured what a GPU can do.
    let on_cpu = matches!(device, Device::Cpu);
    let peak_flops = if on_cpu { peak::flops_per_second(threads, Isa::detect()) } else { 0.0 };
    let memory = machine::memory_available();
    let peak_rss = &machine::peak_rss;
    let settings = run::Settings { folder, device, threads, peak_flops, stop: &stop, memory, peak_rss };
    Ok(run::run(recipe, &settings, &mut progress::Progress::new(quiet, &stop))?)
}
