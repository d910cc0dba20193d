//! The server: what clients see of it, how it lives and ends, and what it survives.

mod harness;
mod image_prompts;
mod in_process;
mod job_client;
mod place;

mod api;
mod cancel;
mod control;
mod edits;
mod faults;
mod full_disk;
mod grpc;
mod guard;
mod jobs;
mod jobs_faults;
mod jobs_kept;
mod jobs_time;
mod lent;
mod life;
mod limits;
mod loras;
mod memory;
mod oip;
mod pag;
mod page;
mod presets;
mod private;
mod scheduler;
mod served;
mod settings;
mod signals;
mod signs;
mod time_limits;
mod tokenize;
mod webui;
