//! How long jobs that have ended are kept, and their images.

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::lent::{drop_lent, surplus as lent_surplus};
use super::{ENDED, IMAGES, JOBS, OWNED, Store, Stored, get, put, remove};
use crate::server::jobs::error::JobsError;
use crate::server::jobs::record::JobOutcome;
use crate::server::settings::Keep;

/// Maximum number of ended jobs that are kept, however small they are.
pub const MOST_ENDED: u64 = 10_000;

/// What a [`Store::sweep`] has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Number of jobs.
    pub jobs: usize,
    /// Number of jobs that were kept without their images.
    pub images: usize,
    /// Number of orders whose images are lent no longer.
    pub lent: usize,
}

impl Store {
    /// Moves the ends of jobs in time, where `moved` gives another time than the one it is given.
    pub fn redate(&self, moved: impl Fn(u64) -> u64) -> Result<(), JobsError> {
        let ends = self.file.read(|transaction| {
            let ended = transaction.open_table(ENDED)?;
            let ends = ended.iter()?.map(|entry| {
                let (key, value) = entry?;
                Ok((key.value(), value.value()))
            });
            let others = ends.filter(|end: &Stored<((u64, u64), _)>| {
                end.as_ref().map_or(true, |((time, _), _)| moved(*time) != *time)
            });
            others.collect::<Stored<Vec<_>>>()
        })?;
        if ends.is_empty() {
            return Ok(());
        }
        self.file.write(|transaction| {
            let mut jobs = transaction.open_table(JOBS)?;
            let owned = transaction.open_table(OWNED)?;
            let mut ended = transaction.open_table(ENDED)?;
            for ((time, number), (id, bytes)) in ends {
                let end = moved(time);
                ended.remove((time, number))?;
                ended.insert((end, number), (id, bytes))?;
                if let Some(mut record) = get(&jobs, &owned, id)? {
                    record.finished = Some(end);
                    record.started = record.started.map(|started| started.min(end));
                    record.created = record.created.min(end);
                    put(&mut jobs, &record)?;
                }
            }
            Ok(())
        })
    }

    /// Forgets what is too old or too much, beginning with the jobs that ended first. Images that are
    /// lent, for `life` milliseconds at most, leave as much less room to those of jobs.
    pub fn sweep(&self, now: u64, keep: Keep, life: u64, most: u64) -> Result<Swept, JobsError> {
        let (lent, forget, drop) = self.file.read(|transaction| {
            let lent = lent_surplus(transaction, now, life, keep.bytes)?;
            let keep = Keep { bytes: keep.bytes.saturating_sub(lent.bytes), ..keep };
            let (forget, drop) = surplus(transaction, now, keep, most)?;
            Ok((lent.over, forget, drop))
        })?;
        let swept = Swept { jobs: forget.len(), images: drop.len(), lent: lent.len() };
        if swept == Swept::default() {
            return Ok(swept);
        }
        self.file.write(|transaction| {
            drop_lent(transaction, &lent)?;
            for id in forget {
                remove(transaction, id)?;
            }
            for id in drop {
                drop_images(transaction, id)?;
            }
            Ok(swept)
        })
    }
}

/// The jobs to forget, and those that lose their images only. The last job with images keeps them.
fn surplus(
    transaction: &ReadTransaction,
    now: u64,
    keep: Keep,
    most: u64,
) -> Stored<(Vec<u128>, Vec<u128>)> {
    let age = u64::try_from(keep.age.as_millis()).unwrap_or(u64::MAX);
    let (mut count, mut bytes) = (0, 0u64);
    let (mut forget, mut drop) = (Vec::new(), Vec::new());
    for entry in transaction.open_table(ENDED)?.iter()?.rev() {
        let (key, value) = entry?;
        let ((ended, _), (id, size)) = (key.value(), value.value());
        count += 1;
        bytes = bytes.saturating_add(size);
        if count > most || ended.saturating_add(age) <= now {
            forget.push(id);
        } else if size > 0 && bytes > keep.bytes.max(size) {
            drop.push(id);
        }
    }
    Ok((forget, drop))
}

fn drop_images(transaction: &WriteTransaction, id: u128) -> Stored<()> {
    let mut jobs = transaction.open_table(JOBS)?;
    let Some(mut record) = get(&jobs, &transaction.open_table(OWNED)?, id)? else {
        return Ok(());
    };
    if let (Some(JobOutcome::Done(result)), Some(finished)) = (&mut record.outcome, record.finished)
    {
        result.dropped = true;
        transaction.open_table(ENDED)?.insert((finished, record.number), (id, 0))?;
    }
    put(&mut jobs, &record)?;
    transaction.open_table(IMAGES)?.retain_in((id, 0)..=(id, u32::MAX), |_, _| false)?;
    Ok(())
}
