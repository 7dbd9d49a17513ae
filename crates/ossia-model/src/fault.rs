//! Numbers that broke, and where: a step whose logits or hidden states are not finite is run again and looked at op by op.

use ossia_kernels::cuda::Device;
use ossia_kernels::{Tap, Tensor};

/// Where not-a-number or an infinity first appeared.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the model's numbers broke: {} gave a value that is not finite, first at batch row {row}; its weights are damaged or overflow (try `ossia verify`, or --precision f32)",
    self.place()
)]
pub struct Fault {
    /// The layer, counted from 0; the number of layers means after the last.
    pub layer: usize,
    /// The op, or one of [`OUTSIDE`].
    pub op: &'static str,
    /// The token's row in the step.
    pub row: usize,
}

/// The ops before the first layer and after the last.
const OUTSIDE: [&str; 3] = ["embedding", "final norm", "unembedding"];

impl Fault {
    fn place(&self) -> String {
        if OUTSIDE.contains(&self.op) {
            format!("the {}", self.op)
        } else {
            format!("{} of layer {}", self.op, self.layer)
        }
    }
}

/// Looks at what the last layer is given of every token: most rows of a prompt have no logits that would show a fault, and
/// by the next chunk only its keys and values would be left of it.
pub struct Watch {
    /// Layers to come.
    left: usize,
    /// Whether all of it is.
    pub finite: bool,
    device: Device,
}

impl Watch {
    /// Before the first of so many layers.
    pub fn new(layers: usize, device: Device) -> Self {
        Self { left: layers, finite: true, device }
    }
}

impl Tap for Watch {
    fn wants_all(&self) -> bool {
        false
    }

    fn see(&mut self, op: &'static str, result: &Tensor) {
        // The experts close a block.
        self.left -= usize::from(op == "experts");
        if self.left == 1 && (op == "experts" || op == "embed") {
            // A device that does not answer is told by the next call that waits for it.
            self.finite = result.is_finite(&self.device).unwrap_or(true);
        }
    }
}

/// Looks at every op's result for the first that is not finite.
pub struct FaultFinder {
    layer: usize,
    num_layers: usize,
    /// What is made after the last layer's attention has only these rows.
    logits_rows: Vec<u32>,
    found: Option<Fault>,
}

impl FaultFinder {
    /// Before the first layer of a step that wants logits of these batch rows.
    pub fn new(num_layers: usize, logits_rows: Vec<u32>) -> Self {
        Self { layer: 0, num_layers, logits_rows, found: None }
    }

    /// What was found. Where nothing was, it is in what is made last.
    pub fn fault(self) -> Fault {
        self.found.unwrap_or(Fault { layer: self.num_layers, op: OUTSIDE[2], row: 0 })
    }
}

impl Tap for FaultFinder {
    fn see(&mut self, op: &'static str, result: &Tensor) {
        if self.found.is_none() {
            let bad = result.values().ok().and_then(|values| values.iter().position(|v| !v.is_finite()));
            let op = match op {
                "embed" => OUTSIDE[0],
                "linear" if self.layer == self.num_layers => OUTSIDE[2],
                _ if self.layer == self.num_layers => OUTSIDE[1],
                _ => op,
            };
            // In a step all of whose rows want logits, a row is its own.
            let row = |at: usize| match result.rows() == self.logits_rows.len() {
                true => self.logits_rows[at / result.cols()] as usize,
                false => at / result.cols(),
            };
            self.found = bad.map(|at| Fault { layer: self.layer, op, row: row(at) });
        }
        // The experts close a block.
        self.layer += usize::from(op == "experts");
    }
}
