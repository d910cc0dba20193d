//! The shapes that engines are built for, where a provider must know them beforehand.

use hydit_graphs::manifest::GraphEntry;
use hydit_graphs::{Dim, Manifest, Sizes, TensorSpec};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::request::{MAX_BATCH, Request};
use crate::runtime::Profile;

/// Which pictures engines are built for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pictures {
    /// Height and width of each size, one at least; kernels are chosen for the first.
    pub sizes: Vec<[usize; 2]>,
    /// Most pictures of a request.
    pub images: usize,
}

impl Pictures {
    /// Pictures of these sizes with the model of `manifest`, or else of its usual size.
    ///
    /// # Errors
    /// [`Error::Request`] for a size or a number that the model does not draw.
    pub fn new(manifest: &Manifest, sizes: Vec<[usize; 2]>, images: usize) -> Result<Pictures> {
        let mut pictures = Pictures { sizes: Vec::new(), images };
        let usual = Request::new(manifest, "")?;
        if !(1..=MAX_BATCH).contains(&images) {
            let message = format!("{images}; expected 1 to {MAX_BATCH}");
            return Err(Error::Request { field: "num_images", message });
        }
        let sizes = if sizes.is_empty() { vec![[usual.height, usual.width]] } else { sizes };
        for [height, width] in sizes {
            Request { height, width, ..usual.clone() }.check_size(manifest)?;
            if !pictures.sizes.contains(&[height, width]) {
                pictures.sizes.push([height, width]);
            }
        }
        Ok(pictures)
    }

    /// Checks that `request` asks for no other pictures.
    ///
    /// # Errors
    /// [`Error::Request`] with what it may ask for.
    pub fn check(&self, request: &Request) -> Result<()> {
        let &Request { height, width, num_images, .. } = request;
        let refuse = |field, message| Err(Error::Request { field, message });
        if !self.sizes.contains(&[height, width]) {
            let known: Vec<String> =
                self.sizes.iter().map(|[height, width]| format!("{height}x{width}")).collect();
            return refuse(
                "height",
                format!(
                    "{height}x{width} is none of the sizes that the engines were built for: {}; choose one of \
                     these, compile for more with --image-size, or let TensorRT build with --allow-build",
                    known.join(", ")
                ),
            );
        }
        if num_images > self.images {
            return refuse(
                "num_images",
                format!(
                    "{num_images}; the engines were built for requests of up to {}: ask for fewer, compile for \
                     more with --images, or let TensorRT build with --allow-build",
                    self.images
                ),
            );
        }
        Ok(())
    }

    /// The flags of `hydit-serve compile` that ask for them.
    pub(super) fn flags(&self) -> String {
        let sizes =
            self.sizes.iter().map(|[height, width]| format!("--image-size {height} {width}"));
        sizes.chain([format!("--images {}", self.images)]).collect::<Vec<_>>().join(" ")
    }

    /// The shapes of `graph` of the model of `manifest`, from one row of the smallest picture to all
    /// rows of a guided request for the most pictures of the largest, with and without all that such a
    /// request may bring.
    pub fn profile(&self, manifest: &Manifest, graph: &GraphEntry) -> Profile {
        let rows = if manifest.pag_layers.is_empty() { 2 } else { 3 };
        // The autoencoder has one picture at a time.
        let alone = graph.name.starts_with("vae-");
        let most = |batch: usize| if alone { 1 } else { batch };
        let least = |size| Sizes { batch: 1, rank: 0, ..plain(manifest, size) };
        let largest = |size| {
            let plain = plain(manifest, size);
            Sizes {
                batch: most(rows * self.images),
                rank: manifest.lora_slots.unwrap_or(0),
                control_tokens: plain.grid_height * plain.grid_width,
                image_tokens: manifest.ip_adapter.as_ref().map_or(1, |config| config.image_tokens),
                ..plain
            }
        };
        let usual = Sizes { batch: most(2), ..largest(self.sizes[0]) };
        let sizes = || self.sizes.iter().copied();
        let shapes = |size: &dyn Fn(Dim) -> u64| {
            let free = |input: &&TensorSpec| input.shape.iter().any(|dim| dim.known().is_none());
            let input = |input: &TensorSpec| {
                let shape = input.shape.iter().map(|&dim| size(dim).to_string());
                format!("{}:{}", input.name, shape.collect::<Vec<_>>().join("x"))
            };
            graph.inputs.iter().filter(free).map(input).collect::<Vec<_>>().join(",")
        };
        Profile {
            min: shapes(&|dim| sizes().map(|size| dim.at(&least(size))).min().unwrap_or(0)),
            opt: shapes(&|dim| dim.at(&usual)),
            max: shapes(&|dim| sizes().map(|size| dim.at(&largest(size))).max().unwrap_or(0)),
        }
    }
}

/// The sizes of one row of a picture that neither ControlNets nor an image prompt steer.
fn plain(manifest: &Manifest, [height, width]: [usize; 2]) -> Sizes {
    let factor = manifest.model.vae.factor();
    let patch = manifest.model.transformer.shape().patch_size;
    let (height, width) = (height / factor, width / factor);
    Sizes {
        batch: 1,
        grid_height: height / patch,
        grid_width: width / patch,
        height,
        width,
        rank: 0,
        control_tokens: 1,
        image_tokens: 1,
    }
}

#[cfg(test)]
mod tests {
    use hydit_testing::emoji;

    use super::*;
    use crate::artifacts::Artifacts;

    fn profile_of(manifest: &Manifest, graph: &str, pictures: &Pictures) -> [String; 3] {
        let graph = manifest.graph(graph).expect("a graph");
        let Profile { min, opt, max } = pictures.profile(manifest, graph);
        [min, opt, max]
    }

    fn pictures(manifest: &Manifest, sizes: &[[usize; 2]], images: usize) -> Pictures {
        Pictures::new(manifest, sizes.to_vec(), images).expect("good sizes")
    }

    #[test]
    fn a_profile_reaches_from_the_smallest_row_to_all_rows_of_the_largest_picture() {
        let manifest = Artifacts::open(&emoji::artifacts()).expect("artifacts").manifest;
        let two = pictures(&manifest, &[[128, 128], [64, 160], [128, 128]], 3);
        assert_eq!(two.sizes, [[128, 128], [64, 160]]);
        let [min, opt, max] = profile_of(&manifest, "shallow-encoder", &two);
        assert!(min.starts_with("latents:1x4x8x16,timestep:1,extra:1x"), "{min}");
        assert!(opt.starts_with("latents:2x4x16x16,timestep:2,extra:2x"), "{opt}");
        assert!(max.starts_with("latents:6x4x16x20,timestep:6,extra:6x"), "{max}");
        let [min, opt, max] = profile_of(&manifest, "deep-core", &two);
        // Tokens of 64x160 are fewer than those of 128x128.
        assert!(min.starts_with("skip_0:1x40x") && min.contains(",cos:4x8x"), "{min}");
        assert!(opt.starts_with("skip_0:2x64x") && opt.contains(",cos:8x8x"), "{opt}");
        assert!(max.starts_with("skip_0:6x64x") && max.contains(",cos:8x10x"), "{max}");
        let decoder = ["latents:1x4x8x16", "latents:1x4x16x16", "latents:1x4x16x20"];
        assert_eq!(profile_of(&manifest, "vae-decoder", &two), decoder);
        // Without sizes it is the model's own.
        let usual = pictures(&manifest, &[], 1);
        assert_eq!((&usual.sizes[..], usual.images), (&[[128, 128]][..], 1));
    }

    #[test]
    fn a_profile_has_room_for_what_requests_may_bring() {
        let slots = Artifacts::open(&emoji::slots()).expect("artifacts").manifest;
        let one = pictures(&slots, &[[128, 128]], 1);
        let [min, opt, max] = profile_of(&slots, "conditioner", &one);
        let rank = |profile: &str| {
            let (_, shape) = profile.rsplit_once("lora_b:").expect("the last input");
            shape.split('x').nth(1).and_then(|rank| rank.parse().ok())
        };
        assert_eq!([min, opt, max].map(|profile| rank(&profile)), [0, 8, 8].map(Some));

        let controlled = Artifacts::open(&emoji::controlled(2)).expect("artifacts").manifest;
        let [min, opt, max] = profile_of(&controlled, "shallow-decoder", &one);
        assert!(min.contains(",control_0:1x1x"), "{min}");
        assert!(
            opt.contains(",control_0:2x64x") && max.contains(",control_0:2x64x"),
            "{opt} {max}"
        );

        let perturbed = Manifest { pag_layers: vec![1], ..slots };
        let [_, opt, max] = profile_of(&perturbed, "text-encoder", &one);
        assert!(opt.starts_with("input_ids:2x") && max.starts_with("input_ids:3x"), "{opt} {max}");
    }

    #[test]
    fn other_pictures_are_refused_with_those_that_there_are() {
        let manifest = Artifacts::open(&emoji::artifacts()).expect("artifacts").manifest;
        let known = pictures(&manifest, &[[128, 128], [64, 160]], 2);
        let asked = |height, width, num_images| {
            let request = Request::new(&manifest, "a cat").expect("a request");
            known.check(&Request { height, width, num_images, ..request })
        };
        asked(128, 128, 1).expect("the first");
        asked(64, 160, 2).expect("the second");
        let refused = asked(160, 64, 1).expect_err("turned").to_string();
        assert!(refused.starts_with("height: 160x64 is none of the sizes"), "{refused}");
        assert!(refused.contains(": 128x128, 64x160; choose one"), "{refused}");
        let refused = asked(128, 128, 3).expect_err("too many").to_string();
        assert!(refused.starts_with("num_images: 3; the engines") && refused.contains("up to 2"));
        assert_eq!(known.flags(), "--image-size 128 128 --image-size 64 160 --images 2");
        for (sizes, images) in [(vec![[100, 128]], 1), (vec![[128, 128]], 0), (vec![], 65)] {
            assert!(Pictures::new(&manifest, sizes, images).is_err());
        }
    }
}
