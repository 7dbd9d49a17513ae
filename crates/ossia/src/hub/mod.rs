//! Models on disk and how they get there: names looked up in the Hugging Face cache, and downloads into it.
//! The cache's layout is Hugging Face's own (`models--ORG--NAME/{blobs,refs,snapshots}`), so that what other programs
//! fetched is found here and what is fetched here is found by them. Nothing reads the environment but [`Settings`], and
//! nothing touches the network but [`pull`].

mod cache;
mod digest;
mod download;
mod error;
mod http;
mod layout;
mod pull;
mod remote;
mod resolve;
mod settings;
#[cfg(test)]
mod tests;

pub use cache::{CachedModel, list};
pub use digest::{Digest, sha256_of};
pub use error::HubError;
pub use layout::Layout;
pub use pull::{Progress, PullOptions, Pulled, Silent, pull};
pub use resolve::{Located, resolve};
pub use settings::{Settings, Token};
