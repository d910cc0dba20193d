//! What clients see: a file or folder for each API, put together by `router`, and below them the
//! guard before all routes, the fields that APIs share, and the accept loop.

mod base64;
mod body;
mod capabilities;
mod discard;
mod drawing;
mod error;
mod etag;
mod fields;
mod form;
mod framing;
mod guard;
mod image;
mod jobs;
mod lent;
mod listen;
mod loras;
mod mcp;
mod models;
mod observe;
mod oip;
mod openai;
mod openapi;
mod ops;
mod page;
mod path;
mod presets;
mod router;
mod sdapi;
mod sent_events;
mod slashes;
mod tokenize;
mod unread;
mod write_deadline;

pub use listen::{Listening, Protocol};
pub use router::{grpc_router, router};
