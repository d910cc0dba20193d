//! How the server is configured: flags, then the environment, then one YAML file, then defaults.
//!
//! [`Options`] declares every setting once, as it is written; [`Flags`] puts the four sources
//! together; [`Settings`] is what the rest of the server reads, checked.

mod address;
mod check;
mod flags;
mod keys;
mod models;
mod options;
mod resolved;
mod value;

pub use address::Address;
pub use flags::{Flags, Setting, SettingsError, Source};
pub use keys::ApiKey;
pub(super) use keys::{ANONYMOUS, is_name};
pub use options::Options;
pub use resolved::{Connections, Keep, Limits, Settings};
pub use value::{Period, Size};
