//! Why a file cannot be read.

/// What brings the weights out of a file that has more in it than weights.
macro_rules! weights_alone {
    () => {
        "load the file once in Python where it comes from and save its weights alone, with \
         torch.save({k: v for k, v in weights.items()}, path) or safetensors' save_file"
    };
}

/// The reason why a file cannot be read as a checkpoint of `torch.save`. Whoever has opened the
/// file names it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is something else.
    #[error("it is {found}; {remedy}")]
    Stranger {
        /// What it is.
        found: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The zip archive around the pickle is damaged or can be read in two ways.
    #[error("damaged or forged archive: {0}; download the file again, or save it again")]
    Archive(String),
    /// The pickle is damaged, or does what `torch.save` does not.
    #[error("data.pkl, byte {at}: {problem}; download the file again, or {}", weights_alone!())]
    Pickle {
        /// Where the instruction begins, in bytes from the beginning of `data.pkl`.
        at: usize,
        /// What is wrong.
        problem: String,
    },
    /// The pickle asks for a class or function of Python that is not one of those which tensors and
    /// plain values are made of. Nothing was called.
    #[error(
        "data.pkl, byte {at}: it wants Python's `{name}`, which is never run here; {}",
        weights_alone!()
    )]
    Global {
        /// Where the instruction begins, in bytes from the beginning of `data.pkl`.
        at: usize,
        /// Full name of the class or function.
        name: String,
    },
    /// A tensor does not fit its storage, or cannot be read.
    #[error("tensor `{name}`: {problem}")]
    Tensor {
        /// The last text before the tensor, which is its name in a dictionary.
        name: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A value has no place in the tree.
    #[error("`{name}`: {problem}; {}", weights_alone!())]
    Value {
        /// The keys that lead to the value, with dots between.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Reading takes more memory than any checkpoint should.
    #[error(
        "what is beside the weights needs more than {} MiB of memory; {}",
        crate::budget::MEMORY >> 20, weights_alone!()
    )]
    Memory,
}

/// A text of the file as a message shows it: on one line, and not too long.
pub(crate) fn shown(text: &str) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(600).map(shown).collect()
}

/// A `Result` with the [`enum@Error`] of this crate.
pub type Result<T> = std::result::Result<T, Error>;
