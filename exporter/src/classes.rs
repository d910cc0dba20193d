//! The names of classes, which lie beside a checkpoint, are in its index, or are ImageNet's.

use std::borrow::Cow;

use hydit_graphs::manifest;
use hydit_input::file;
use hydit_models::IMAGENET;

use crate::checkpoint::Checkpoint;
use crate::dit;
use crate::error::{Error, Result};
use crate::licenses::check_inside;

/// The largest file of names that is read.
const MAX_BYTES: u64 = 64 << 20;

/// The text of `classes.txt` for a model of `count` classes, the names of one on each line, with
/// commas between them: that beside the checkpoint, or else diffusers' `id2label` in the index of
/// its pipeline, or else ImageNet's if there are as many; `None`, where nothing names the classes.
///
/// # Errors
/// What names the classes cannot be read, or does not name every class, as a prompt may name it.
pub(crate) fn names(checkpoint: &Checkpoint, count: usize) -> Result<Option<Cow<'static, str>>> {
    let root = checkpoint.roots().next().expect("a checkpoint is somewhere");
    let (beside, index) = (root.join(manifest::CLASSES), root.join("model_index.json"));
    let (path, text) = if beside.exists() {
        check_inside(root, &beside)?;
        let text = file::read_text(&beside, MAX_BYTES).map_err(Error::reading(&beside))?;
        (beside, text)
    } else if let Some(text) = dit::labels(&index)? {
        (index, text)
    } else {
        let usual = IMAGENET.lines().count() == count;
        return Ok(usual.then_some(Cow::Borrowed(IMAGENET)));
    };
    let found = text.lines().count();
    if found != count {
        let message = format!("it names {found} classes; expected {count}, as the model has");
        return Err(Error::content(&path)(message));
    }
    let wrong = |name: &str| name.trim().is_empty() || name.contains(char::is_control);
    let line = text.lines().enumerate().find(|(_, line)| line.split(',').any(wrong));
    if let Some((class, line)) = line {
        let message = format!(
            "class {class}: `{}` has a name that is none: expected text, with a comma before each \
             further name",
            line.escape_debug()
        );
        return Err(Error::content(&path)(message));
    }
    Ok(Some(Cow::Owned(text)))
}
