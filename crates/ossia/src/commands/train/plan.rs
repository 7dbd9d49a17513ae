//! `ossia train --dry-run`: what a run would take.

use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::cpu::peak;
use ossia_kernels::cuda::Device;
use ossia_model::gpt_oss::config::Config;
use ossia_train::recipe::Recipe;
use ossia_train::run::{Memory, flops_per_token};

use crate::error::Failure;
use crate::{machine, output};

/// Share of the machine's peak that this program reaches on a model that is large enough; see docs/benchmarks.md.
const REACHED: f64 = 0.35;

/// Prints the plan.
pub fn run(recipe: &Recipe, device: &Device, threads: usize, json: bool) -> Result<(), Failure> {
    let config = recipe.planned_config()?;
    let counts = config.param_counts();
    let parameters = counts.total as f64;
    let training = &recipe.training;
    let tokens = training.steps as f64 * training.batch_tokens as f64;
    let per_token = flops_per_token(&config, recipe.data.max_len);
    let (Memory { state, scratch }, available, peak) = machine(recipe, &config, device, threads)?;
    let seconds = tokens * per_token / (peak * REACHED);
    let object = serde_json::json!({
        "parameters": counts.total as u64,
        "active": counts.active as u64,
        "flops_per_token": per_token,
        "tokens": tokens,
        "flops": tokens * per_token,
        "state_bytes": state,
        "scratch_bytes": scratch,
        "available_bytes": available,
        "peak_flops": peak,
        "expected_seconds": seconds,
        "tok_s_for_one_day": tokens / 86_400.0,
    });
    if json {
        return output::line(object);
    }
    let fits = if state + scratch <= available { "fits" } else { "does not fit" };
    output::line(
        [
            format!("parameters   {:>12}   active for a token {}", number(parameters), number(counts.active as f64)),
            format!("tokens       {:>12}   {} steps of {}", number(tokens), training.steps, training.batch_tokens),
            format!("arithmetic   {:>12}   {} for a token", number(tokens * per_token), number(per_token)),
            format!(
                "memory       {:>12}   weights, gradients and moments {}, scratch {}; {fits} into {} here",
                bytes(state + scratch),
                bytes(state),
                bytes(scratch),
                bytes(available)
            ),
            match peak.is_nan() {
                true => "time              unknown   since nobody has measured what this GPU can do".into(),
                false => format!(
                    "time         {:>12}   at {:.0} % of this machine's {} operations a second",
                    time(seconds),
                    100.0 * REACHED,
                    number(peak)
                ),
            },
            format!("in one day   {:>12}   tokens a second would be needed", number(tokens / 86_400.0)),
        ]
        .join("\n"),
    )
}

/// What a run takes, the bytes that are free for it where it is computed, and operations a second where they are known.
fn machine(recipe: &Recipe, config: &Config, device: &Device, threads: usize) -> Result<(Memory, f64, f64), Failure> {
    match device {
        Device::Cpu => {
            let available = machine::memory_available().map_or(f64::NAN, |b| b as f64);
            Ok((Memory::of(recipe, config, threads), available, peak::flops_per_second(threads, Isa::detect())))
        }
        Device::Cuda(gpu) => {
            let (free, _) = gpu.memory().map_err(|error| Failure::Message(error.to_string()))?;
            Ok((Memory::of_gpu(recipe, config), free as f64, f64::NAN))
        }
    }
}

/// Three digits and a unit of thousands.
fn number(value: f64) -> String {
    let units = ["", " k", " M", " G", " T", " P", " E", " Z", " Y"];
    let thousands = (value.abs().max(1.0).log10() / 3.0).floor().min(8.0);
    let scaled = value / 1000f64.powf(thousands);
    format!("{scaled:.*}{}", if scaled < 10.0 { 2 } else { 1 }, units[thousands as usize])
}

fn bytes(value: f64) -> String {
    if value.is_nan() { "an unknown amount".into() } else { format!("{}B", number(value)) }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s if s < 86_400.0 * 730.0 => format!("{:.0} days", s / 86_400.0),
        s => format!("{:.0} years", s / 86_400.0 / 365.25),
    }
}

#[cfg(test)]
mod tests {
    use super::{number, time};

    #[test]
    fn numbers_for_people() {
        assert_eq!([number(3.0), number(2_880_000.0), number(22.3e9)], ["3.00", "2.88 M", "22.3 G"]);
        assert_eq!(
            [time(59.0), time(600.0), time(9000.0), time(4e5), time(1e10)],
            ["59 s", "10 min", "2.5 h", "5 days", "317 years"]
        );
    }
}
