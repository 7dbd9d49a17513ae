//! What a server goes through in operation: it is killed, its disk fills up, it is told to go down, it has no network.
#![cfg(unix)]

mod audit;
mod ending;
mod network;
mod server;
mod tuning;
