//! Pictures of graphs that read the checkpoint's own files.

use std::fs;
use std::path::Path;

use hydit::runtime::BackendChoice;
use hydit_export::{Options, WeightsPlace};
use hydit_testing::emoji;

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in from.read_dir().expect("a folder") {
        let (from, to) = entry.map(|e| (e.path(), to.join(e.file_name()))).expect("an entry");
        if from.is_dir() { copy(&from, &to) } else { fs::copy(from, to).map(drop).expect("a copy") }
    }
}

#[test]
fn pictures_are_those_of_copied_weights() {
    // Links need one file system, which the repository may not share with temporary folders.
    let place = tempfile::tempdir().expect("a folder");
    let [checkpoint, out] = ["checkpoint", "out"].map(|name| place.path().join(name));
    copy(&emoji::checkpoint(), &checkpoint);
    let options = Options { weights: WeightsPlace::InPlace, ..Options::new(&checkpoint, &out) };
    hydit_export::export(&options, &mut ()).expect("an export");
    for engine in [BackendChoice::Ort, BackendChoice::Tract] {
        let [copied, in_place] = [&emoji::artifacts(), &out].map(|artifacts| {
            let mut pipeline = emoji::pipeline(artifacts, engine);
            let request = emoji::cat(pipeline.manifest(), 2);
            let request = emoji::checked(&pipeline, &request);
            pipeline.generate(&request, &mut emoji::ignore).expect("it draws").images.remove(0)
        });
        assert!(copied == in_place, "{engine:?} draws another picture");
    }
}
