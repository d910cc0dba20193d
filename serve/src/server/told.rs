//! What clients are told of errors inside the server: the only way from one to the other.
//!
//! Errors of the library, and what engines say, name files of the server; panics may hold anything.
//! The log has them whole. A client gets a word for programs, a sentence, and where the log has it.

use std::path::Path;

use hydit::cache::PolicyError;
use hydit::error::Error;
use hydit::image::ImageError;
use hydit::runtime::RuntimeError;
use hydit::util::error_chain;

/// What a client may read of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// A word for programs.
    pub code: &'static str,
    /// What went wrong.
    pub message: String,
}

impl Told {
    /// Logs `error` with its causes under `id`, the task's or the job's, and says what its client
    /// is told.
    pub fn of(error: &Error, id: &str) -> Told {
        tracing::warn!(order = id, error = error_chain(error), "drawing failed");
        let (code, what) = match error {
            // Nothing but the request and the numbers that it led to.
            Error::Request { .. }
            | Error::Sampler(_)
            | Error::NotFinite { .. }
            | Error::NotEncoded
            | Error::Image(ImageError::NotFinite { .. }) => {
                return Told { code: "drawing_failed", message: error.to_string() };
            }
            Error::Read { .. }
            | Error::Artifact { .. }
            | Error::Manifest { .. }
            | Error::Runtime(RuntimeError::Load { .. } | RuntimeError::Interface { .. }) => {
                ("model_unusable", "the model cannot be loaded")
            }
            Error::Runtime(_) => ("drawing_failed", "the engine failed to run the model"),
            Error::Tokenizer(_) => ("drawing_failed", "the prompt cannot be tokenized"),
            Error::Image(_) => ("encoding_failed", "the image cannot be encoded"),
            _ => ("drawing_failed", "the image cannot be drawn"),
        };
        Told { code, message: format!("{what}; the server's log says why, for order {id}") }
    }
}

/// What a client may read of a cache policy that does not fit its request, of the model in `folder`.
///
/// Only the operator names schedules, which may lie anywhere: no more is told than that.
pub fn of_policy(error: &PolicyError, folder: &Path) -> String {
    if error.policy.starts_with("schedule:") {
        tracing::warn!(error = error_chain(error), "--cache does not fit a request");
        return "cache: the server's own schedule does not fit this request; name a policy, such \
                as usual or off"
            .to_string();
    }
    let folder = folder.display().to_string();
    let folder = folder.trim_end_matches('/');
    let text = error.to_string().replace(&format!("{folder}/"), "DIR/");
    text.replace(&format!("--model {folder} "), "--model DIR ")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use hydit::cache::{CachePolicy, PolicyInput, calibration_file};
    use hydit::sampler::{SamplerKind, Spacing};
    use hydit_input::tokenizer::TokenizerError;

    use super::*;

    #[test]
    fn nothing_that_is_told_names_a_file_and_all_of_it_has_a_code() {
        let path = || PathBuf::from("/srv/models/secret/core.onnx");
        let said = || io::Error::other("cannot open /srv/models/secret/core.onnx.data");
        let errors = [
            Error::Read { path: path(), source: said() },
            Error::Write { path: path(), source: said() },
            Error::Artifact { path: path(), message: "/srv/models/secret".to_string() },
            Error::Image(ImageError::Io(said())),
            Error::Image(ImageError::File {
                path: path(),
                source: Box::new(ImageError::Io(said())),
            }),
            Error::Tokenizer(TokenizerError::Refused(said().to_string())),
            Error::Runtime(RuntimeError::Load {
                graph: path(),
                engine: "ONNX Runtime".to_string(),
                source: Box::new(said()),
            }),
            Error::Runtime(RuntimeError::Run {
                graph: path(),
                engine: "ONNX Runtime".to_string(),
                shapes: String::new(),
                source: Box::new(said()),
            }),
            Error::Runtime(RuntimeError::Library {
                path: path(),
                reason: "/srv".to_string(),
                mend: "/srv".to_string(),
            }),
        ];
        for error in errors {
            let Told { code, message } = Told::of(&error, "7");
            assert!(!message.contains('/') && !message.contains("secret"), "{message}");
            assert!(message.ends_with("the server's log says why, for order 7"), "{message}");
            assert!(["model_unusable", "drawing_failed", "encoding_failed"].contains(&code));
        }
    }

    #[test]
    fn a_policy_that_does_not_fit_is_told_without_its_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |policy: &str, folder: &Path| {
            let policy: CachePolicy = policy.parse().expect("a policy");
            let input = PolicyInput {
                timesteps: &[999.0, 500.0],
                skipped: 0,
                sampler: SamplerKind::Ddim,
                spacing: Spacing::Leading,
                guidance_scale: 5.0,
                folder,
                manifest_sha256: "",
            };
            of_policy(&policy.plan(&input).expect_err("it does not fit"), folder)
        };
        let own = refused("schedule:/srv/secret.yaml", folder.path());
        assert!(own.starts_with("cache: ") && !own.contains('/'), "{own}");
        let slash = folder.path().join("");
        for folder in [Path::new("."), folder.path(), &slash] {
            let told = refused("auto:3.5dB", folder);
            assert!(told.starts_with("cache policy auto:3.5dB: no calibration"), "{told}");
            assert!(told.contains(" --model DIR"), "{told}");
        }
        let file = calibration_file(folder.path(), SamplerKind::Ddim, Spacing::Leading, 2);
        std::fs::write(file, "steps: 3\nschedules: []\n").expect("a file");
        for folder in [folder.path(), &slash] {
            let told = refused("auto:35dB", folder);
            assert!(told.contains(": DIR/calibration-ddim-leading-2.yaml: made for"), "{told}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_numbers_of_a_request_is_told() {
        let error = Error::NotFinite { step: 3, steps: 25 };
        assert_eq!(Told::of(&error, "7").message, error.to_string());
    }
}
