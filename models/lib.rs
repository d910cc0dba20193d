//! The variants of Hunyuan-DiT, DiT and Skip-DiT that hydit knows, embedded as YAML.
//!
//! A checkpoint says what a model is; its variant says how to use it: default sampler, guidance and
//! image size, timestep spacing, and how rotary positions are computed. `hydit_graphs::variant`
//! parses the text. To add a variant, put a YAML file in this folder and a line in [`VARIANTS`].
#![warn(missing_docs)]
#![forbid(unsafe_code)]

/// Every variant as its name and the text of its YAML file, in the order in which a checkpoint is
/// compared with them.
pub const VARIANTS: [(&str, &str); 10] = [
    ("hunyuan-dit-v1.2-distilled", include_str!("hunyuan-dit-v1.2-distilled.yaml")),
    ("hunyuan-dit-v1.1-distilled", include_str!("hunyuan-dit-v1.1-distilled.yaml")),
    ("hunyuan-dit-v1.2", include_str!("hunyuan-dit-v1.2.yaml")),
    ("hunyuan-dit-v1.1", include_str!("hunyuan-dit-v1.1.yaml")),
    ("emoji", include_str!("emoji.yaml")),
    ("badges", include_str!("badges.yaml")),
    ("emoji-classes", include_str!("emoji-classes.yaml")),
    ("generic", GENERIC),
    ("dit", DIT),
    ("skip-dit", SKIP_DIT),
];

/// The YAML text of the variant `generic`, for a checkpoint that no other variant matches.
pub const GENERIC: &str = include_str!("generic.yaml");

/// The names of ImageNet's 1000 classes in their order, a line each; [NOTICE](imagenet/NOTICE)
/// tells whose.
pub const IMAGENET: &str = include_str!("imagenet/classes.txt");

/// The YAML text of the variant `dit`, for every DiT without long skips.
pub const DIT: &str = include_str!("dit.yaml");

/// The YAML text of the variant `skip-dit`, for every DiT with long skips.
pub const SKIP_DIT: &str = include_str!("skip-dit.yaml");
