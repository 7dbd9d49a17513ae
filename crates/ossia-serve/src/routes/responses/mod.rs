//! The Responses API.

mod conversation;
#[cfg(test)]
mod conversation_tests;
mod machine;
#[cfg(test)]
mod machine_tests;
mod tools;
