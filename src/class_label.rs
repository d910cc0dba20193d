//! Classes: what a model draws that reads no texts. A prompt then names a class by its number, as
//! `class_labels` of diffusers' `DiTPipeline` do, or by its name; or several, with commas between
//! them, which the pictures of a request take in turn.

use std::collections::BTreeMap;

use hydit_graphs::manifest;
use hydit_input::file;

use crate::artifacts::Artifacts;
use crate::error::{Error, Result};
use crate::request::Request;

/// The most bytes of a file with the names of classes.
const MAX_BYTES: u64 = 64 << 20;

/// The classes that a model draws.
#[derive(Debug)]
pub struct Classes {
    count: usize,
    names: Vec<String>,
    /// The numbers of all names, in lower case.
    numbers: BTreeMap<String, usize>,
    /// The side of the only pictures that the model draws, in pixels.
    side: usize,
}

/// What the model reads for the pictures of a request.
pub(crate) struct Labels {
    /// That of the negative prompt, with guidance.
    pub negative: Option<i64>,
    /// Those of the prompt, which the pictures take in turn.
    pub positive: Vec<i64>,
}

impl Classes {
    /// Those of the model of `artifacts`; none, if it reads texts.
    ///
    /// # Errors
    /// The names cannot be read, or are not those of the export.
    pub(crate) fn read(artifacts: &Artifacts) -> Result<Option<Classes>> {
        let model = &artifacts.manifest.model;
        let (count, side) = (model.transformer.shape().num_classes, model.only_size());
        let Some((count, side)) = count.zip(side) else { return Ok(None) };
        let (mut names, mut numbers) = (Vec::new(), BTreeMap::new());
        if artifacts.manifest.files.contains_key(manifest::CLASSES) {
            artifacts.check(manifest::CLASSES, true)?;
            let path = artifacts.path.join(manifest::CLASSES);
            let text = file::read_text(&path, MAX_BYTES);
            let text = text.map_err(|source| Error::Read { path, source })?;
            for (class, line) in text.lines().enumerate() {
                names.extend(Classes::named(line).next().map(str::to_string));
                numbers.extend(Classes::named(line).map(|name| (name.to_lowercase(), class)));
            }
        }
        Ok(Some(Classes { count, names, numbers, side }))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their names in their order, of several the first; none, where the export has no names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The classes that `prompt` names, as it names them.
    pub fn named(prompt: &str) -> impl DoubleEndedIterator<Item = &str> {
        prompt.split(',').map(str::trim)
    }

    /// The one of them that picture `index` of a request shows.
    pub fn of_picture(prompt: &str, index: usize) -> &str {
        let count = Classes::named(prompt).count();
        Classes::named(prompt).nth(index % count).expect("a part of every text")
    }

    /// Checks that the prompts of `request` are classes, that none is left out, and that the model
    /// draws its size.
    ///
    /// # Errors
    /// [`Error::Request`] with the field.
    pub(crate) fn check(&self, request: &Request) -> Result<()> {
        let refuse = |field, message| Err(Error::Request { field, message });
        let named = self.labels(request)?.positive.len();
        if named > request.num_images {
            let found = request.num_images;
            let message =
                format!("{found}; expected {named} or more: the prompt has {named} classes");
            return refuse("num_images", message);
        }
        let side = self.side;
        for (field, found) in [("height", request.height), ("width", request.width)] {
            if found != side {
                return refuse(field, format!("{found}; this model draws {side}x{side} only"));
            }
        }
        Ok(())
    }

    /// What the model reads for `request`. An empty negative prompt is no class.
    ///
    /// # Errors
    /// [`Error::Request`] with the prompt that is no class.
    pub(crate) fn labels(&self, request: &Request) -> Result<Labels> {
        let positive = Classes::named(&request.prompt).map(|text| self.label("prompt", text));
        let negative = match request.negative_prompt.trim() {
            _ if !request.guided() => None,
            "" => Some(self.count as i64),
            text => Some(self.label("negative_prompt", text)?),
        };
        Ok(Labels { negative, positive: positive.collect::<Result<_>>()? })
    }

    fn label(&self, field: &'static str, text: &str) -> Result<i64> {
        let number = match text.parse::<usize>() {
            Ok(number) => Some(number).filter(|&number| number < self.count),
            Err(_) => self.numbers.get(&text.to_lowercase()).copied(),
        };
        number.map(|number| number as i64).ok_or_else(|| {
            let text: String = text.chars().take(60).collect();
            let last = self.count - 1;
            let or = match self.names.first() {
                Some(name) => format!(
                    ", or a name, such as {name:?} (all are in classes.txt, and class_names of GET \
                     /v1/capabilities)"
                ),
                None => String::new(),
            };
            let message =
                format!("{text:?} is no class of this model; expected a number, 0 to {last}{or}");
            Error::Request { field, message }
        })
    }
}
