//! How far an export is.

use std::path::Path;

use hydit_export::{Merged, Progress, first_of};
use hydit_terminal::{note, plain};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar on the terminal, and remarks.
pub struct Bar {
    pub bar: ProgressBar,
    /// Whether all tensors that are not used are named.
    pub verbose: bool,
}

impl Progress for Bar {
    fn total(&mut self, bytes: u64) {
        let style = ProgressStyle::with_template(
            "{msg:16} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        );
        self.bar.set_style(style.expect("the template is valid").progress_chars("=> "));
        self.bar.set_length(bytes);
    }

    fn graph(&mut self, name: &str) {
        self.bar.set_message(plain(name).into_owned());
    }

    fn wrote(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn copied(&mut self, bytes: u64) {
        if bytes > 0 {
            let mebibytes = bytes as f64 / (1 << 20) as f64;
            note(format_args!(
                "note: {mebibytes:.1} MiB of weights are copied: the checkpoint has them in another \
                 order, or a LoRA changes them"
            ));
        }
    }

    fn merging(&mut self, lora: &Merged) {
        let Merged { path, weight, rank, layers } = lora;
        let layers: Vec<String> = layers
            .iter()
            .map(|(part, changed, all)| {
                format!("{changed} of {all} layers of the {}", part.folder())
            })
            .collect();
        note(format_args!(
            "merging {}, weight {weight}, rank {rank}: {}",
            path.display(),
            layers.join(", ")
        ));
    }

    fn unused(&mut self, tensors: &[String]) {
        note(format_args!("warning: {} tensors of the checkpoint are not used:", tensors.len()));
        first_of(tensors, self.verbose).for_each(|line| note(format_args!("  {line}")));
    }

    fn left(&mut self, folder: &Path) {
        note(format_args!(
            "note: what was in the folder before and could not be removed is in {}",
            folder.display()
        ));
    }
}
