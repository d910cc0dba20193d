//! Long runs against the real server: `make soak`. Each prints its figures and fails when a goal is
//! missed. They need a release build and a quiet machine to say much about speed.

#[path = "../it/server/harness.rs"]
#[expect(dead_code, reason = "the other tests use all of it")]
mod harness;
#[path = "../it/server/job_client.rs"]
#[expect(dead_code, reason = "the other tests use all of it")]
mod job_client;

mod client;
mod connections;
mod drain;
mod kill;
mod mixed;
mod overload;
mod pause;
mod steady;
mod throughput;
mod twice;
