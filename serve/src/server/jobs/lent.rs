//! Images under addresses that need no key and soon end.

use std::time::Duration;

use hydit::image::Format;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::JobsError;
use super::shared::Jobs;
use super::store::LentImage;

/// Maximum time for which an image is lent, as OpenAI's addresses live.
const LIFE: Duration = Duration::from_secs(3600);

impl Jobs {
    /// Keeps the files of one order for an hour, or for as long as jobs are kept if that is less, and
    /// gives the secret under which they are found. Blocks until they are on the disk.
    ///
    /// # Errors
    /// When they cannot be stored.
    pub fn lend(&self, format: Format, files: &[Vec<u8>]) -> Result<Uuid, JobsError> {
        let secret = Uuid::new_v4();
        let due = self.now().saturating_add(self.life());
        self.store.lend(order(secret), &format.to_string(), files, due)?;
        self.sweep_now();
        Ok(secret)
    }

    /// An image that is lent under a secret, and for how much longer.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn lent(
        &self,
        secret: Uuid,
        index: u32,
    ) -> Result<Option<(LentImage, Duration)>, JobsError> {
        let (now, life) = (self.now(), self.life());
        let image = self.stored(move |store| store.lent(order(secret), index, now, life)).await?;
        Ok(image.map(|image| {
            let left = Duration::from_millis(image.due.saturating_sub(now));
            (image, left)
        }))
    }

    /// Milliseconds for which images are lent.
    pub(super) fn life(&self) -> u64 {
        u64::try_from(LIFE.min(self.keep.age).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The name of an order in the store. The secret is not in it: neither a copy of the store nor the
/// time of a look-up tells which addresses work.
fn order(secret: Uuid) -> u128 {
    let digest: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
    let (half, _) = digest.split_first_chunk().expect("it has 32 bytes");
    u128::from_be_bytes(*half)
}
