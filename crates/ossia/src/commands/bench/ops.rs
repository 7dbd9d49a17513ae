//! Where the time of a step goes: each op's seconds, bytes of weights and operations, by a stopwatch on the forward pass.

use std::collections::BTreeSet;
use std::time::Instant;

use ossia_kernels::{Matrix, Tap, Tensor};
use ossia_model::gpt_oss::forward::Transformer;
use serde_json::{Map, Value, json};

/// The lines of a table, in the order of a forward pass.
const LINES: [&str; 9] =
    ["embed", "norms", "qkv", "rope", "attention", "attention_out", "router", "experts", "unembedding"];

/// One line's sums.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    seconds: f64,
    /// Bytes of weights, each once a step.
    bytes: usize,
    /// Multiplications and additions with weights.
    operations: usize,
}

/// Bytes and number of weights.
type Size = (usize, usize);

fn size(matrices: &[&Matrix]) -> Size {
    matrices.iter().fold((0, 0), |(bytes, num), m| (bytes + m.bytes(), num + m.rows() * m.cols()))
}

/// The weights of each op, the same in all blocks.
struct Sizes {
    num_blocks: usize,
    experts_per_token: usize,
    qkv: Size,
    attention_out: Size,
    router: Size,
    expert: Size,
    unembedding: Size,
}

/// Sees every op end, and counts the time since the one before for it.
pub(super) struct Stopwatch {
    sizes: Sizes,
    spent: [Spent; LINES.len()],
    block: usize,
    last: Instant,
    /// Different experts that the last router chose.
    experts: usize,
}

impl Stopwatch {
    pub(super) fn new(transformer: &Transformer) -> Option<Self> {
        let block = transformer.blocks.first()?;
        let expert = block.mlp.experts.experts.first()?;
        let linear = |l: &ossia_kernels::ops::linear::Linear| {
            l.parts().iter().fold((0, 0), |sum: Size, part| {
                let (bytes, num) = size(&[&part.weight]);
                (sum.0 + bytes, sum.1 + num)
            })
        };
        let sizes = Sizes {
            num_blocks: transformer.blocks.len(),
            experts_per_token: block.mlp.experts_per_token,
            qkv: linear(&block.attention.qkv),
            attention_out: linear(&block.attention.out),
            router: linear(&block.mlp.router),
            expert: size(&[&expert.gate, &expert.up, &expert.down]),
            unembedding: linear(&transformer.unembedding),
        };
        Some(Self { sizes, spent: Default::default(), block: 0, last: Instant::now(), experts: 0 })
    }

    /// A step begins now.
    pub(super) fn start(&mut self) {
        (self.block, self.last) = (0, Instant::now());
    }

    /// The lines as objects, for `bandwidth` bytes a second.
    pub(super) fn report(&self, bandwidth: f64) -> Value {
        let all: f64 = self.spent.iter().map(|spent| spent.seconds).sum();
        let lines = LINES.iter().zip(&self.spent).map(|(name, spent)| {
            let per_second = |amount: usize| amount as f64 / spent.seconds.max(1e-12);
            let line = json!({
                "seconds": spent.seconds, "share": spent.seconds / all.max(1e-12),
                "bytes_s": per_second(spent.bytes), "bandwidth_share": per_second(spent.bytes) / bandwidth,
                "operations_s": per_second(spent.operations),
            });
            ((*name).to_owned(), line)
        });
        Value::Object(lines.collect::<Map<_, _>>())
    }

    /// The line of an op, and the weights that `rows` tokens read and multiply there.
    fn line(&self, op: &str, rows: usize) -> (&'static str, usize, usize) {
        let s = &self.sizes;
        let dense = |name, (bytes, num): Size| (name, bytes, 2 * rows * num);
        match op {
            "linear" if self.block == s.num_blocks => dense("unembedding", s.unembedding),
            "linear" => dense("qkv", s.qkv),
            "linear_add" => dense("attention_out", s.attention_out),
            "router" => dense("router", s.router),
            "experts" => ("experts", self.experts * s.expert.0, 2 * rows * s.experts_per_token * s.expert.1),
            "rms_norm" => ("norms", 0, 0),
            "rope" => ("rope", 0, 0),
            "attention" => ("attention", 0, 0),
            _ => ("embed", 0, 0),
        }
    }
}

impl Tap for Stopwatch {
    fn see(&mut self, op: &'static str, result: &Tensor) {
        let seconds = self.last.elapsed().as_secs_f64();
        let (name, bytes, operations) = self.line(op, result.rows());
        if let Some(spent) = LINES.iter().position(|line| *line == name).map(|line| &mut self.spent[line]) {
            spent.seconds += seconds;
            spent.bytes += bytes;
            spent.operations += operations;
        }
        if op == "router" {
            self.experts = num_chosen(result, self.sizes.experts_per_token);
        }
        self.block += usize::from(op == "experts");
        // What was done here is not the next op's.
        self.last = Instant::now();
    }
}

/// How many different experts the tokens of `logits` [T, E] go to.
fn num_chosen(logits: &Tensor, k: usize) -> usize {
    let mut chosen = BTreeSet::new();
    for row in 0..logits.rows() {
        let row = logits.row(row);
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        chosen.extend(order.into_iter().take(k));
    }
    chosen.len()
}

/// A report as text.
pub(super) fn table(title: &str, report: &Value) -> String {
    let mut lines =
        vec![format!("\n{title:<16}{:>10}{:>9}{:>10}{:>11}{:>10}", "ms", "share", "GB/s", "of reading", "GOP/s")];
    for name in LINES {
        let number = |key: &str| report[name][key].as_f64().unwrap_or(0.0);
        let mut line = format!("{name:<16}{:>10.2}{:>7.1} %", 1e3 * number("seconds"), 100.0 * number("share"));
        if number("operations_s") > 0.0 {
            let (read, of) = (number("bytes_s") / 1e9, 100.0 * number("bandwidth_share"));
            line += &format!("{read:>10.1}{of:>9.0} %{:>10.1}", number("operations_s") / 1e9);
        }
        lines.push(line);
    }
    lines.join("\n")
}
