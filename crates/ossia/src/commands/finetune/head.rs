//! What a run says before it begins: what is trained, on what data, how, and in what memory.

use indicatif::BinaryBytes;
use ossia_train::finetune::Method;
use ossia_train::finetune::plan::{Header, Kind, Memory};
use ossia_train::recipe::Shape;

/// The lines of a head.
pub fn lines(header: &Header, model: &str, available: Option<u64>) -> Vec<String> {
    let mut lines = vec![trained(header, model)];
    lines.extend(
        modules(&header.trained)
            .iter()
            .map(|(name, tensors, numbers)| format!("  {name}: {tensors} tensors, {} numbers", grouped(*numbers))),
    );
    lines.extend(header.data.lines());
    lines.push(updates(header));
    lines.push(memory(&header.memory, available));
    lines.extend(header.isolation.clone());
    if header.step > 0 {
        lines.push(format!("going on after step {}", header.step));
    }
    lines
}

fn trained(header: &Header, model: &str) -> String {
    let (tensors, numbers): (usize, u64) =
        header.trained.iter().fold((0, 0), |(t, n), kind| (t + kind.tensors, n + kind.numbers));
    let what = format!("{tensors} tensors, {} numbers", grouped(numbers));
    let method = header.method.name();
    match header.method {
        Method::Full => format!("{method} on {model}: trained are all {what}"),
        _ => format!("{method} on {model}: trained are {what}; the model's {} stay", grouped(header.base_numbers)),
    }
}

/// The kinds with an adapter's two factors counted together, or a model's weights and biases.
fn modules(kinds: &[Kind]) -> Vec<(String, usize, u64)> {
    let mut modules: Vec<(String, usize, u64)> = Vec::new();
    for kind in kinds {
        let name = kind.name.split(".lora_").next().unwrap_or(&kind.name);
        let name = name.trim_end_matches(".weight").trim_end_matches(".bias");
        match modules.iter_mut().find(|module| module.0 == name) {
            Some(module) => (module.1, module.2) = (module.1 + kind.tensors, module.2 + kind.numbers),
            None => modules.push((name.to_owned(), kind.tensors, kind.numbers)),
        }
    }
    modules
}

fn updates(header: &Header) -> String {
    let t = &header.training;
    let schedule = match t.schedule {
        Shape::Cosine => "cosine",
        Shape::Wsd => "stable, then a line",
    };
    let aux = if t.aux_loss.0 == 0.0 { "off".to_owned() } else { t.aux_loss.0.to_string() };
    let batch = match header.method {
        Method::Grpo => String::new(),
        _ => format!(" of {} x {} tokens", t.batch_tokens / t.micro_tokens.max(1), t.micro_tokens),
    };
    format!(
        "{} steps{batch}, learning rate {:.1e} ({schedule}, warm-up {:.0} %), router's auxiliary loss {aux}, held out {}",
        t.steps,
        t.lr,
        100.0 * t.warmup,
        header.held_out
    )
}

fn memory(memory: &Memory, available: Option<u64>) -> String {
    let size = |bytes: f64| BinaryBytes(bytes as u64).to_string();
    let machine = available.map_or(String::new(), |free| format!(" of {} free", BinaryBytes(free)));
    let answers = if memory.answers > 0.0 { format!(", answers {}", size(memory.answers)) } else { String::new() };
    format!(
        "memory: model {} ({} in place), trained numbers with gradients and moments {}, scratch {}{answers}; {} in all{machine}",
        size(memory.mapped + memory.owned),
        size(memory.mapped),
        size(memory.state),
        size(memory.scratch),
        size(memory.total()),
    )
}

/// A count with commas between thousands.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_counted_together() {
        let kind = |name: &str, tensors, numbers| Kind { name: name.into(), tensors, numbers };
        let kinds = [
            kind("self_attn.q_proj.lora_A.weight", 2, 6),
            kind("self_attn.q_proj.lora_B.weight", 2, 8),
            kind("lm_head.weight", 1, 1000),
        ];
        let wanted = [("self_attn.q_proj".to_owned(), 4, 14), ("lm_head".to_owned(), 1, 1000)];
        assert_eq!(modules(&kinds), wanted);
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(20_914_757_184)],
            ["0", "999", "1,000", "20,914,757,184"]
        );
    }
}
