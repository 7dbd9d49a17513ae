//! The Responses API's wire types: `request` is what clients send, `items` what conversations are made of, `response` what
//! they get, `events` the same piece by piece.
//!
//! Of the reference's many tools only functions, custom tools and namespaces of them are there: the others are passed
//! over, because clients such as Codex always send them and do well without.

pub mod events;
pub mod items;
pub mod request;
pub mod response;

pub use events::{Event, NumberedEvent};
pub use items::{InputItem, Item, Phase, Speaker};
pub use request::{CreateResponse, check_includes};
pub use response::{OutputItem, Response, Status};
