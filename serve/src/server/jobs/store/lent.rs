//! Images that are lent for a while, by orders whose answer has their addresses instead of them.

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::{Store, Stored, opened};
use crate::server::jobs::error::JobsError;

/// When it is due, format and file, by order and index.
const LENT: TableDefinition<(u128, u32), (u64, &str, &[u8])> = TableDefinition::new("lent");
/// Bytes of the files of an order, by the time at which they are no longer lent, and order.
const DUE: TableDefinition<(u64, u128), u64> = TableDefinition::new("due");

/// An image that is lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LentImage {
    /// The name of its format.
    pub format: String,
    /// Its file.
    pub file: Vec<u8>,
    /// Until when, in milliseconds of Unix time.
    pub due: u64,
}

/// The orders that are lent no longer, and the bytes of the others.
#[derive(Default)]
pub(super) struct Surplus {
    pub over: Vec<(u64, u128)>,
    pub bytes: u64,
}

impl Store {
    /// Keeps the files of an order until `due`, in milliseconds of Unix time.
    pub fn lend(
        &self,
        order: u128,
        format: &str,
        files: &[Vec<u8>],
        due: u64,
    ) -> Result<(), JobsError> {
        self.file.write(|transaction| {
            let mut lent = transaction.open_table(LENT)?;
            for (index, file) in (0..).zip(files) {
                lent.insert((order, index), (due, format, file.as_slice()))?;
            }
            let bytes = files.iter().map(|file| file.len() as u64).sum::<u64>();
            transaction.open_table(DUE)?.insert((due, order), bytes)?;
            Ok(())
        })
    }

    /// An image of an order, unless it is due; it was lent for `life` milliseconds at most.
    pub fn lent(
        &self,
        order: u128,
        index: u32,
        now: u64,
        life: u64,
    ) -> Result<Option<LentImage>, JobsError> {
        self.file.read(|transaction| {
            let Some(lent) = opened(transaction, LENT)? else { return Ok(None) };
            Ok(lent.get((order, index))?.and_then(|image| {
                let (due, format, file) = image.value();
                let image = || LentImage { format: format.to_string(), file: file.to_vec(), due };
                is_lent(due, now, life).then(image)
            }))
        })
    }
}

/// What is due, or more than `most` bytes, beginning with what is due first. The last order stays,
/// however large it is.
pub(super) fn surplus(
    transaction: &ReadTransaction,
    now: u64,
    life: u64,
    most: u64,
) -> Stored<Surplus> {
    let Some(due) = opened(transaction, DUE)? else { return Ok(Surplus::default()) };
    let mut surplus = Surplus::default();
    for entry in due.iter()?.rev() {
        let (key, bytes) = entry?;
        let ((due, order), size) = (key.value(), bytes.value());
        let together = surplus.bytes.saturating_add(size);
        if is_lent(due, now, life) && (surplus.bytes == 0 || together <= most) {
            surplus.bytes = together;
        } else {
            surplus.over.push((due, order));
        }
    }
    Ok(surplus)
}

/// Whether something is still lent. What was lent for longer than ever was lent before the clock was
/// set back.
fn is_lent(due: u64, now: u64, life: u64) -> bool {
    now < due && due <= now.saturating_add(life)
}

/// Drops what is lent no longer.
pub(super) fn drop_lent(transaction: &WriteTransaction, over: &[(u64, u128)]) -> Stored<()> {
    if over.is_empty() {
        return Ok(());
    }
    let (mut lent, mut due) = (transaction.open_table(LENT)?, transaction.open_table(DUE)?);
    for (time, order) in over {
        due.remove((*time, *order))?;
        lent.retain_in((*order, 0)..=(*order, u32::MAX), |_, _| false)?;
    }
    Ok(())
}
