//! Jobs on the disk: what was accepted, how it ended, and the images.

mod keep;
mod lent;
mod presets;

use std::path::Path;

use axum::body::Bytes;
use redb::{
    Key, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, TableError, Value,
    WriteTransaction,
};
use tracing::error;
use uuid::Uuid;

pub use self::keep::{MOST_ENDED, Swept};
pub use self::lent::LentImage;
pub use self::presets::{Preset, Put};
use super::error::JobsError;
use super::file::File;
use super::record::{JobOutcome, JobRecord, StoredImage};
use super::unreadable::{self, NO_NUMBER};

/// The layout of the tables below.
const SCHEMA: u64 = 1;

/// `schema`, and `next`, the number of the next job.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Records as JSON, by id.
const JOBS: TableDefinition<u128, &[u8]> = TableDefinition::new("jobs");
/// Files of images, by id and index.
const IMAGES: TableDefinition<(u128, u32), &[u8]> = TableDefinition::new("pictures");
/// Files of the images that a job is made from, by id and index, until it ends.
const INPUTS: TableDefinition<(u128, u32), &[u8]> = TableDefinition::new("inputs");
/// Ids by client and number.
const OWNED: TableDefinition<(&str, u64), u128> = TableDefinition::new("owned");
/// Ids by client and idempotency key.
const KEYS: TableDefinition<(&str, &str), u128> = TableDefinition::new("keys");
/// Ids of jobs that have not ended, by number.
const PENDING: TableDefinition<u64, u128> = TableDefinition::new("pending");
/// Ids of jobs that have ended, by time and number, with the bytes of their images.
const ENDED: TableDefinition<(u64, u64), (u128, u64)> = TableDefinition::new("ended");

type Stored<R> = Result<R, redb::Error>;

/// All jobs. Every change is on the disk when its method returns.
pub struct Store {
    file: File,
}

impl Store {
    /// Opens the store in the file `path`, or makes one.
    ///
    /// # Errors
    /// When another process has the store open, or it cannot be read.
    pub fn open(path: &Path) -> Result<Store, JobsError> {
        Store::of(File::open(path)?)
    }

    fn of(file: File) -> Result<Store, JobsError> {
        let known = file.read(|transaction| {
            let Some(meta) = opened(transaction, META)? else { return Ok(false) };
            match meta.get("schema")?.map(|schema| schema.value()) {
                Some(other) if other != SCHEMA => {
                    let why = format!("its layout is {other}, this version's is {SCHEMA}");
                    Err(redb::Error::Corrupted(why))
                }
                schema => Ok(schema.is_some()),
            }
        })?;
        if known {
            return Ok(Store { file }); // even on a full disk
        }
        file.write(|transaction| {
            transaction.open_table(META)?.insert("schema", SCHEMA)?;
            transaction.open_table(JOBS)?;
            transaction.open_table(IMAGES)?;
            transaction.open_table(OWNED)?;
            transaction.open_table(KEYS)?;
            transaction.open_table(PENDING)?;
            transaction.open_table(ENDED)?;
            Ok(())
        })?;
        Ok(Store { file })
    }

    /// Adds a job that has not ended, made from the images in `files`, and gives it its number.
    pub fn insert(&self, record: JobRecord, files: &[Bytes]) -> Result<JobRecord, JobsError> {
        self.file.write(|transaction| insert(transaction, record, files))
    }

    /// The files that a job which has not ended is made from.
    pub fn inputs(&self, id: Uuid) -> Result<Vec<Bytes>, JobsError> {
        let all = (id.as_u128(), 0)..=(id.as_u128(), u32::MAX);
        self.file.read(|transaction| {
            let Some(inputs) = opened(transaction, INPUTS)? else { return Ok(Vec::new()) };
            let files = inputs.range(all.clone())?;
            files.map(|entry| Ok(Bytes::copy_from_slice(entry?.1.value()))).collect()
        })
    }

    /// Reads a job.
    pub fn get(&self, id: Uuid) -> Result<Option<JobRecord>, JobsError> {
        self.file.read(|transaction| {
            let (jobs, owned) = (transaction.open_table(JOBS)?, transaction.open_table(OWNED)?);
            get(&jobs, &owned, id.as_u128())
        })
    }

    /// The job that a client has created with this idempotency key.
    pub fn find(&self, client: &str, key: &str) -> Result<Option<JobRecord>, JobsError> {
        self.file.read(|transaction| match transaction.open_table(KEYS)?.get((client, key))? {
            Some(id) => Ok(records(transaction, &[id.value()])?.pop()),
            None => Ok(None),
        })
    }

    /// The jobs of a client, the newest first: at most `limit`, with numbers under `below`.
    pub fn list(
        &self,
        client: &str,
        limit: usize,
        below: u64,
    ) -> Result<Vec<JobRecord>, JobsError> {
        self.file.read(|transaction| {
            let owned = transaction.open_table(OWNED)?;
            let newest = owned.range((client, 0)..(client, below))?.rev().take(limit);
            let ids: Vec<u128> = newest.map(|entry| Ok(entry?.1.value())).collect::<Stored<_>>()?;
            records(transaction, &ids)
        })
    }

    /// The jobs that have not ended, the oldest first.
    pub fn pending(&self) -> Result<Vec<JobRecord>, JobsError> {
        self.file.read(|transaction| {
            let pending = transaction.open_table(PENDING)?;
            let ids: Vec<u128> =
                pending.iter()?.map(|entry| Ok(entry?.1.value())).collect::<Stored<_>>()?;
            records(transaction, &ids)
        })
    }

    /// Notes that a worker has begun a job.
    pub fn begun(&self, id: Uuid, now: u64) -> Result<(), JobsError> {
        self.file.write(|transaction| {
            let mut jobs = transaction.open_table(JOBS)?;
            if let Some(mut record) = get(&jobs, &transaction.open_table(OWNED)?, id.as_u128())? {
                record.started = Some(now);
                record.starts += 1;
                put(&mut jobs, &record)?;
            }
            Ok(())
        })
    }

    /// Ends a job and stores its images, in one transaction. A job that has ended already stays as
    /// it is. Returns what is stored then.
    pub fn end(
        &self,
        id: Uuid,
        now: u64,
        outcome: &JobOutcome,
        images: &[Vec<u8>],
    ) -> Result<Option<JobRecord>, JobsError> {
        self.file.write(|transaction| finish(transaction, id.as_u128(), now, outcome, images))
    }

    /// The file of a job's image, which must be the one that `known` describes.
    pub fn image(
        &self,
        id: Uuid,
        index: usize,
        known: &StoredImage,
    ) -> Result<Option<Vec<u8>>, JobsError> {
        let file = self.file.read(|transaction| {
            let images = transaction.open_table(IMAGES)?;
            let file = images.get((id.as_u128(), index as u32))?;
            Ok(file.map(|file| file.value().to_vec()))
        })?;
        match file {
            Some(file) if StoredImage::new(known.seed, &file) != *known => {
                Err(JobsError::ImageDamaged { id: id.to_string(), index })
            }
            file => Ok(file),
        }
    }

    /// Forgets a job.
    pub fn remove(&self, id: Uuid) -> Result<(), JobsError> {
        self.file.write(|transaction| remove(transaction, id.as_u128()))
    }
}

fn insert(
    transaction: &WriteTransaction,
    mut record: JobRecord,
    files: &[Bytes],
) -> Stored<JobRecord> {
    let mut meta = transaction.open_table(META)?;
    record.number = meta.get("next")?.map_or(0, |next| next.value());
    meta.insert("next", record.number + 1)?;
    let (id, number) = (record.id.as_u128(), record.number);
    let client = record.client.as_str();
    transaction.open_table(OWNED)?.insert((client, number), id)?;
    transaction.open_table(PENDING)?.insert(number, id)?;
    if let Some(idempotency) = &record.idempotency {
        transaction.open_table(KEYS)?.insert((client, idempotency.key.as_str()), id)?;
    }
    put(&mut transaction.open_table(JOBS)?, &record)?;
    let mut inputs = transaction.open_table(INPUTS)?;
    for (index, file) in (0..).zip(files) {
        inputs.insert((id, index), file.as_ref())?;
    }
    Ok(record)
}

/// Drops what a job was made from.
fn drop_inputs(transaction: &WriteTransaction, id: u128) -> Stored<()> {
    transaction.open_table(INPUTS)?.retain_in((id, 0)..=(id, u32::MAX), |_, _| false)?;
    Ok(())
}

fn finish(
    transaction: &WriteTransaction,
    id: u128,
    now: u64,
    outcome: &JobOutcome,
    images: &[Vec<u8>],
) -> Stored<Option<JobRecord>> {
    let mut jobs = transaction.open_table(JOBS)?;
    let Some(mut record) = get(&jobs, &transaction.open_table(OWNED)?, id)? else {
        return Ok(None);
    };
    if record.outcome.is_some() {
        return Ok(Some(record));
    }
    (record.finished, record.outcome) = (Some(now), Some(outcome.clone()));
    put(&mut jobs, &record)?;
    let mut files = transaction.open_table(IMAGES)?;
    for (index, image) in (0..).zip(images) {
        files.insert((id, index), image.as_slice())?;
    }
    drop_inputs(transaction, id)?;
    let bytes = images.iter().map(|image| image.len() as u64).sum();
    transaction.open_table(PENDING)?.remove(record.number)?;
    transaction.open_table(ENDED)?.insert((now, record.number), (id, bytes))?;
    Ok(Some(record))
}

fn remove(transaction: &WriteTransaction, id: u128) -> Stored<()> {
    let mut jobs = transaction.open_table(JOBS)?;
    let mut owned = transaction.open_table(OWNED)?;
    let Some(record) = get(&jobs, &owned, id)? else {
        return Ok(());
    };
    jobs.remove(id)?;
    let client = record.client.as_str();
    owned.remove((client, record.number))?;
    transaction.open_table(PENDING)?.remove(record.number)?;
    if let Some(finished) = record.finished {
        transaction.open_table(ENDED)?.remove((finished, record.number))?;
    }
    if let Some(idempotency) = &record.idempotency {
        transaction.open_table(KEYS)?.remove((client, idempotency.key.as_str()))?;
    }
    transaction.open_table(IMAGES)?.retain_in((id, 0)..=(id, u32::MAX), |_, _| false)?;
    drop_inputs(transaction, id)
}

/// The records of these jobs. One that is listed but not there is told in the log.
fn records(transaction: &ReadTransaction, ids: &[u128]) -> Stored<Vec<JobRecord>> {
    let (jobs, owned) = (transaction.open_table(JOBS)?, transaction.open_table(OWNED)?);
    let mut records = Vec::with_capacity(ids.len());
    for id in ids {
        match get(&jobs, &owned, *id)? {
            Some(record) => records.push(record),
            None => error!(job = %Uuid::from_u128(*id), "is listed, but not there"),
        }
    }
    Ok(records)
}

/// The record of a job, as far as it can be read.
fn get(
    jobs: &impl ReadableTable<u128, &'static [u8]>,
    owned: &impl ReadableTable<(&'static str, u64), u128>,
    id: u128,
) -> Stored<Option<JobRecord>> {
    let Some(json) = jobs.get(id)? else {
        return Ok(None);
    };
    let mut record = unreadable::read(Uuid::from_u128(id), json.value());
    if record.number == NO_NUMBER || record.client.is_empty() {
        for entry in owned.iter()? {
            let (key, owner) = entry?;
            if owner.value() == id {
                let (client, number) = key.value();
                (record.client, record.number) = (client.to_string(), number);
                break;
            }
        }
    }
    Ok(Some(record))
}

/// The table, unless it is not there: the store was made by a version that had none.
fn opened<K: Key + 'static, V: Value + 'static>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Stored<Option<ReadOnlyTable<K, V>>> {
    match transaction.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn put(jobs: &mut Table<'_, u128, &'static [u8]>, record: &JobRecord) -> Stored<()> {
    jobs.insert(record.id.as_u128(), unreadable::write(record).as_slice())?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
