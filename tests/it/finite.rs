//! How large values become, and what is said where they leave the finite range.

use hydit::artifacts::Artifacts;
use hydit::eval::finite::{Finite, check};
use hydit::runtime::{BackendChoice, Magnitudes};
use hydit::{Pipeline, Request};
use hydit_graphs::Precision;
use hydit_testing::{emoji, loud};

use crate::common::graphs::engines;

#[test]
fn every_block_and_output_of_a_drawing_is_measured_and_the_picture_stays() {
    for &engine in engines() {
        let folder = emoji::artifacts();
        let mut plain = emoji::pipeline(&folder, engine);
        let request = emoji::checked(&plain, &emoji::cat(plain.manifest(), 3));
        let expected = plain.generate(&request, &mut emoji::ignore).expect("it draws");

        let seen = Magnitudes::default();
        let backend = emoji::backend(engine).measuring(&seen);
        let mut measured = Pipeline::load(&folder, backend).expect("it loads");
        let drawn = measured.generate(&request, &mut emoji::ignore).expect("it draws");
        let (a, b) = (&expected.images[0], &drawn.images[0]);
        let level = hydit::eval::compare::psnr(a, b).expect("one size");
        assert!(level > 80.0, "{engine}: {level} dB"); // an engine fuses less
        assert_eq!(seen.left(), []);

        let all = seen.all();
        let named = |name: &str| all.iter().filter(|m| m.name == name).collect::<Vec<_>>();
        let largest = drawn.latents.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        assert!(largest > 0.0);
        for block in 0..12 {
            let [found] = named(&format!("blocks.{block}"))[..] else { panic!("block {block}") };
            let graph = match block {
                0 => "shallow-encoder",
                11 => "shallow-decoder",
                _ => "deep-core",
            };
            assert!(found.is_block && found.graph == graph && found.runs == 3, "{found:?}");
            assert!(found.largest > 0.1 && found.largest < 1e4, "{found:?}");
        }
        // The last block of the core makes its output, that of the encoder the first skip.
        for (block, output) in [("blocks.10", "deep"), ("blocks.0", "skip_0")] {
            assert_eq!(named(block)[0].largest, named(output)[0].largest);
        }
        let graphs: Vec<&str> = all.iter().map(|m| m.graph.as_str()).collect();
        for graph in ["text-encoder", "text-encoder-2", "conditioner", "vae-decoder"] {
            assert!(graphs.contains(&graph), "{graph} of {graphs:?}");
        }
        let layers = |graph: &str| all.iter().filter(|m| m.is_block && m.graph == graph).count();
        let parts = measured.manifest().model.hunyuan_dit();
        let (_, bert, t5) = parts.expect("a Hunyuan-DiT");
        assert_eq!(layers("text-encoder"), bert.num_hidden_layers);
        assert_eq!(layers("text-encoder-2"), t5.num_layers);
    }
}

/// Checks a picture of a checkpoint whose block 2 has a feed-forward layer beyond the range of
/// fp16, exported in `precision`.
fn checked(precision: Precision) -> Finite {
    let checkpoint = loud::checkpoint();
    loud::change_transformer(checkpoint.path(), |name| {
        (name == "blocks.2.ff.net.0.proj.weight").then_some((2e5, 0.0))
    });
    let out = tempfile::tempdir().expect("a folder");
    emoji::export(checkpoint.path(), out.path(), 1, precision).expect("it exports");
    let artifacts = Artifacts::open(out.path()).expect("an export");
    let request = Request::new(&artifacts.manifest, "a cat").expect("a request");
    let request = Request { steps: 2, ..request };
    check(artifacts, emoji::backend(BackendChoice::Tract), &request).expect("it is checked")
}

#[test]
fn the_first_block_and_output_that_leave_the_range_are_named_with_the_way_out() {
    let finite = checked(Precision::Fp16);
    assert_eq!(finite.left[0].name, "blocks.2");
    assert_eq!(finite.left[0].left, Some(1));
    let complaint = finite.complaint(Precision::Fp16).expect("a complaint");
    let first = "the block blocks.2 of deep-core (run 1), and the output deep of deep-core (run 1)";
    assert!(complaint.contains(first), "{complaint}");
    assert!(complaint.contains("--dtype bf16"), "{complaint}");

    let finite = checked(Precision::Fp32);
    assert!(finite.left.is_empty() && finite.complaint(Precision::Fp32).is_none());
    let largest = |name: &str| {
        let found = finite.values.iter().find(|m| m.is_block && m.name == name);
        found.expect("the block").largest
    };
    assert!(largest("blocks.1") < 65504.0 && largest("blocks.2") > 65504.0);
}
