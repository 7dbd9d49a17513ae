//! What can go wrong in training. Every message is one line: what, where, wanted, found, what to do.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model's files are not what they should be.
    #[error(transparent)]
    Checkpoint(#[from] ossia_model::checkpoint::Error),
    /// An op failed.
    #[error(transparent)]
    Op(#[from] ossia_kernels::Error),
    /// A tokenizer or a conversation could not be used.
    #[error(transparent)]
    Text(#[from] ossia_text::TextError),
    /// Documents, shards or batches.
    #[error(transparent)]
    Dataset(#[from] crate::dataset::DatasetError),
    /// A user's data.
    #[error(transparent)]
    Data(#[from] crate::finetune::data::Error),
    /// A grader that cannot be.
    #[error(transparent)]
    Grader(#[from] crate::finetune::graders::Error),
    /// The log of a run.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::Error),
    /// Pictures of a run.
    #[error(transparent)]
    Plot(#[from] crate::plot::Error),
    /// A golden file is not what it should be.
    #[error("{file}: tensor {name}: wanted {wanted}, found {found}")]
    Golden {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// What should be there.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A recipe is not what it should be.
    #[error("{}: {key}: wanted {wanted}, found {found}", file.display())]
    Recipe {
        /// The file.
        file: PathBuf,
        /// The key, with the names of its tables before it.
        key: String,
        /// What should be there.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A recipe does not parse.
    #[error("{}: {message}", file.display())]
    RecipeSyntax {
        /// The file.
        file: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// The system refused something.
    #[error("{}: could not {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The machine has too little memory.
    #[error(
        "{}: the run needs {:.1} GB (weights, gradients and moments {:.1}, scratch {:.1}), the machine has {:.1} free: \
         lower training.micro_tokens or the sizes in [model]",
        file.display(), (state + scratch) / 1e9, state / 1e9, scratch / 1e9, available / 1e9
    )]
    Memory {
        /// The recipe.
        file: PathBuf,
        /// Bytes that a step keeps.
        state: f64,
        /// Bytes inside a step.
        scratch: f64,
        /// Bytes that are free.
        available: f64,
    },
    /// The GPU has too little memory.
    #[error(
        "{}: the run needs {:.1} GB of the GPU's memory (weights, gradients and moments {:.1}, scratch {:.1}), of which {:.1} are          free: lower training.micro_tokens or the sizes in [model], set training.recompute = true, or use --device cpu",
        file.display(), (state + scratch) / 1e9, state / 1e9, scratch / 1e9, available / 1e9
    )]
    GpuMemory {
        /// The recipe.
        file: PathBuf,
        /// Bytes that a step keeps.
        state: f64,
        /// Bytes inside a step.
        scratch: f64,
        /// Bytes that are free.
        available: f64,
    },
    /// The machine has too little memory for a fine-tuning run.
    #[error(
        "{}: the run needs {:.1} GB (the model {:.1}, the trained numbers with gradients and moments {:.1}, scratch {:.1}), \
         the machine has {:.1} free: lower data.max_len, training.micro_tokens or adapter.rank, or set \
         training.recompute = true",
        file.display(), total / 1e9, weights / 1e9, state / 1e9, scratch / 1e9, available / 1e9
    )]
    FinetuneMemory {
        /// The configuration.
        file: PathBuf,
        /// All bytes.
        total: f64,
        /// Bytes of the base.
        weights: f64,
        /// Bytes that a step keeps.
        state: f64,
        /// Bytes inside a step.
        scratch: f64,
        /// Bytes that are free.
        available: f64,
    },
    /// The model that answered is not the model that is trained.
    #[error(
        "step {step}: a ratio of probabilities on the first update after the answers is off by {ratio:e}, wanted exactly 1: \
         the two forward passes differ, which is a fault of this program; please report it"
    )]
    OffPolicy {
        /// The step.
        step: u64,
        /// The largest difference from 1.
        ratio: f64,
    },
    /// A model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] ossia_model::Error),
    /// Answers could not be made.
    #[error(transparent)]
    Eval(#[from] crate::eval::Error),
    /// The numbers went wrong.
    #[error(
        "step {step}: {what} is not finite; the last checkpoint is from before: begin again in another folder with a lower training.lr or a longer training.warmup"
    )]
    NotFinite {
        /// The step.
        step: u64,
        /// The loss, or the tensor whose gradient is broken.
        what: String,
    },
    /// A saved checkpoint is damaged or belongs to another run.
    #[error("{}: {message}", path.display())]
    Saved {
        /// Its folder or file.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
