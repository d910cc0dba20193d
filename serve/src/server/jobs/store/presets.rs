//! Presets: settings under a name, of each client.

use redb::{ReadTransaction, ReadableTable, TableDefinition};

use super::{Store, Stored, opened};
use crate::server::jobs::error::JobsError;

/// Settings as JSON, by client and name.
const PRESETS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("presets");

/// Settings under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    /// The name.
    pub name: String,
    /// The settings as JSON, as they were stored.
    pub settings: Vec<u8>,
}

/// What became of a preset that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// There was none of this name.
    New,
    /// It has taken the place of another.
    Replaced,
    /// There is one of this name, and it was to stay.
    Taken,
    /// The client has as many as it may.
    Full,
}

impl Store {
    /// The presets of a client, by name.
    pub fn presets(&self, client: &str) -> Result<Vec<Preset>, JobsError> {
        self.file.read(|transaction| of_client(transaction, client))
    }

    /// Stores a preset of a client, who has `most` at most; in the place of another of its name only
    /// if that may be `replaced`.
    pub fn put_preset(
        &self,
        client: &str,
        preset: &Preset,
        replaced: bool,
        most: usize,
    ) -> Result<Put, JobsError> {
        self.file.write(|transaction| {
            let mut presets = transaction.open_table(PRESETS)?;
            let key = (client, preset.name.as_str());
            let known = presets.get(key)?.is_some();
            if known && !replaced {
                return Ok(Put::Taken);
            }
            if !known && range(&presets, client)?.len() >= most {
                return Ok(Put::Full);
            }
            presets.insert(key, preset.settings.as_slice())?;
            Ok(if known { Put::Replaced } else { Put::New })
        })
    }

    /// Forgets a preset of a client; whether there was one.
    pub fn remove_preset(&self, client: &str, name: &str) -> Result<bool, JobsError> {
        self.file.write(|transaction| {
            let mut presets = transaction.open_table(PRESETS)?;
            Ok(presets.remove((client, name))?.is_some())
        })
    }
}

fn of_client(transaction: &ReadTransaction, client: &str) -> Stored<Vec<Preset>> {
    opened(transaction, PRESETS)?.map_or(Ok(Vec::new()), |presets| range(&presets, client))
}

fn range(
    presets: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    client: &str,
) -> Stored<Vec<Preset>> {
    let all = presets.range((client, "")..)?;
    let mut own = Vec::new();
    for entry in all {
        let (key, settings) = entry?;
        let (owner, name) = key.value();
        if owner != client {
            break;
        }
        own.push(Preset { name: name.to_string(), settings: settings.value().to_vec() });
    }
    Ok(own)
}
