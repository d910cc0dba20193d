//! Long runs against the real server: `make soak`. Each prints its figures and fails when a goal is
//! missed. They need a release build and a quiet machine to say much about speed.

#[path = "../emoji/mod.rs"]
mod emoji;
#[path = "../jobs/mod.rs"]
mod jobs;
#[path = "../server/mod.rs"]
mod server;

mod client;
mod connections;
mod drain;
mod kill;
mod mixed;
mod overload;
mod throughput;
