//! Presets, beside the jobs of their client.

use std::sync::Arc;

use super::error::JobsError;
use super::shared::Jobs;
use super::store::{Preset, Put};

/// Maximum number of presets of a client.
pub const MOST_PRESETS: usize = 100;

impl Jobs {
    /// The presets of `client`, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn presets(&self, client: Arc<str>) -> Result<Vec<Preset>, JobsError> {
        self.stored(move |store| store.presets(&client)).await
    }

    /// Stores a preset of `client`, which is on the disk when this returns; in the place of another
    /// of its name only if that may be `replaced`.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn put_preset(
        &self,
        client: Arc<str>,
        preset: Preset,
        replaced: bool,
    ) -> Result<Put, JobsError> {
        self.stored(move |store| store.put_preset(&client, &preset, replaced, MOST_PRESETS)).await
    }

    /// Forgets a preset of `client`; whether there was one.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn remove_preset(&self, client: Arc<str>, name: String) -> Result<bool, JobsError> {
        self.stored(move |store| store.remove_preset(&client, &name)).await
    }
}
