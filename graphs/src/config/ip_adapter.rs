//! The config of an IP-Adapter: how many tokens an image becomes, by which encoder, and how images are
//! brought to that.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ConfigError, epsilon, field, range};

/// What image prompts need beside the transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpAdapterConfig {
    /// Number of tokens that an image becomes.
    pub image_tokens: usize,
    /// The encoder of the images.
    pub image_encoder: ClipVisionConfig,
    /// How images are brought to the encoder.
    pub image_processor: ImageProcessor,
}

/// Config of the image encoder, `CLIPVisionModelWithProjection`: `image_encoder/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // transformers documents the fields
pub struct ClipVisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub projection_dim: usize,
    pub layer_norm_eps: f32,
    pub hidden_act: Activation,
}

/// The activation of the feed-forward layers of an image encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(1.702 * x)`, as in OpenAI's and the Chinese CLIP.
    QuickGelu,
    /// GELU by `erf`, as in OpenCLIP's larger models.
    Gelu,
}

impl Default for ClipVisionConfig {
    /// The defaults of transformers' constructor, for the fields that a config file leaves out.
    fn default() -> Self {
        ClipVisionConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            projection_dim: 512,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
        }
    }
}

/// How an image becomes a square of `image_size` pixels: as `CLIPImageProcessor` of transformers does,
/// with Pillow's bicubic filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageProcessor {
    /// The length that its shorter side gets, before the middle is cut out; without one, both sides
    /// are stretched to the square.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortest_edge: Option<usize>,
    /// What is subtracted from red, green and blue, as numbers from 0 to 1.
    pub image_mean: [f32; 3],
    /// What they are divided by then.
    pub image_std: [f32; 3],
}

/// A size in `preprocessor_config.json`, of which there are three forms.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Size {
    Edge(usize),
    ShortestEdge { shortest_edge: usize },
    Sides { height: usize, width: usize },
}

/// `preprocessor_config.json`, with the defaults of `CLIPImageProcessor`.
#[derive(Deserialize)]
#[serde(default)]
struct PreprocessorConfig {
    do_resize: bool,
    size: Option<Size>,
    resample: u32,
    do_center_crop: bool,
    crop_size: Option<Size>,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    image_mean: [f32; 3],
    image_std: [f32; 3],
}

impl Default for PreprocessorConfig {
    fn default() -> Self {
        let ImageProcessor { image_mean, image_std, .. } = ImageProcessor::of_clip(None);
        PreprocessorConfig {
            do_resize: true,
            size: None,
            resample: BICUBIC,
            do_center_crop: true,
            crop_size: None,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean,
            image_std,
        }
    }
}

/// The number of Pillow's bicubic filter.
const BICUBIC: u32 = 3;

impl ImageProcessor {
    /// Parses the text of a `preprocessor_config.json` for an encoder of images of `image_size`
    /// pixels a side.
    ///
    /// # Errors
    /// The text is not JSON of this form, or asks for what is not done here.
    pub fn from_json(text: &str, image_size: usize) -> Result<ImageProcessor, ConfigError> {
        let config: PreprocessorConfig = serde_json::from_str(text)?;
        for (name, value) in [
            ("do_resize", config.do_resize),
            ("do_rescale", config.do_rescale),
            ("do_normalize", config.do_normalize),
        ] {
            if !value {
                return field(name, value, "only true is supported");
            }
        }
        if config.resample != BICUBIC {
            return field("resample", config.resample, "only 3 (bicubic) is supported");
        }
        if (config.rescale_factor * 255.0 - 1.0).abs() > 1e-6 {
            return field("rescale_factor", config.rescale_factor, "only 1/255 is supported");
        }
        let square = format!("expected {image_size}, the image_size of the encoder");
        let shortest_edge = match config.size {
            None => Some(image_size),
            Some(Size::Edge(edge) | Size::ShortestEdge { shortest_edge: edge }) => Some(edge),
            Some(Size::Sides { height, width }) if (height, width) == (image_size, image_size) => {
                None
            }
            Some(Size::Sides { height, width }) => {
                return field("size", format!("{height}x{width}"), square);
            }
        };
        match (config.crop_size, shortest_edge) {
            (_, Some(_)) if !config.do_center_crop => {
                field("do_center_crop", false, "expected true where size is a shortest edge")
            }
            (
                Some(
                    Size::Edge(edge)
                    | Size::ShortestEdge { shortest_edge: edge }
                    | Size::Sides { height: edge, .. },
                ),
                Some(_),
            ) if edge != image_size => field("crop_size", edge, square),
            _ => {
                let PreprocessorConfig { image_mean, image_std, .. } = config;
                Ok(ImageProcessor { shortest_edge, image_mean, image_std })
            }
        }
    }

    /// With the colours that CLIP was trained with.
    pub fn of_clip(shortest_edge: Option<usize>) -> ImageProcessor {
        ImageProcessor {
            shortest_edge,
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.261_302_6, 0.275_777_1],
        }
    }
}

impl ClipVisionConfig {
    /// Parses the JSON text of a config and checks it. In that of a whole CLIP the image encoder's is
    /// `vision_config`.
    ///
    /// # Errors
    /// The text is not JSON of this form, or [`ClipVisionConfig::validate`] refuses it.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let mut all: Value = serde_json::from_str(text)?;
        let projection = all["projection_dim"].take();
        let mut own = match all["vision_config"].take() {
            Value::Null => all,
            vision => vision,
        };
        if own.is_object() && !projection.is_null() {
            own["projection_dim"] = projection;
        }
        let cfg: Self = serde_json::from_value(own)?;
        cfg.validate()?;
        Ok(cfg)
    }

    /// Checks that the graph can be built.
    ///
    /// # Errors
    /// The first field that is out of range or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        range("hidden_size", self.hidden_size, 1, 16_384)?;
        range("intermediate_size", self.intermediate_size, 1, 65_536)?;
        range("num_hidden_layers", self.num_hidden_layers, 1, 256)?;
        range("num_attention_heads", self.num_attention_heads, 1, 1024)?;
        range("image_size", self.image_size, 1, 1024)?;
        range("patch_size", self.patch_size, 1, 256)?;
        range("projection_dim", self.projection_dim, 1, 16_384)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let why = format!("num_attention_heads = {} must divide it", self.num_attention_heads);
            return field("hidden_size", self.hidden_size, why);
        }
        if !self.image_size.is_multiple_of(self.patch_size) {
            let why = format!("patch_size = {} must divide it", self.patch_size);
            return field("image_size", self.image_size, why);
        }
        epsilon("layer_norm_eps", self.layer_norm_eps)
    }
}

impl IpAdapterConfig {
    /// Checks that the graphs can be built, and images be brought to the encoder.
    ///
    /// # Errors
    /// The first field that is out of range or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.image_encoder.validate()?;
        // One token would be taken for no image.
        range("image_tokens", self.image_tokens, 2, 1024)?;
        let ImageProcessor { shortest_edge, image_mean, image_std } = &self.image_processor;
        if let Some(edge) = *shortest_edge {
            range("shortest_edge", edge, self.image_encoder.image_size, 4096)?;
        }
        if let Some(mean) = image_mean.iter().find(|mean| !mean.is_finite()) {
            return field("image_mean", mean, "expected a number");
        }
        match image_std.iter().find(|std| !(std.is_finite() && **std > 0.0)) {
            Some(std) => field("image_std", std, "expected a positive number"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoder_of_a_whole_clip_is_found_in_its_config() {
        let alone = r#"{"hidden_size": 24, "num_attention_heads": 3, "projection_dim": 12}"#;
        let whole = r#"{"model_type": "clip", "projection_dim": 12, "text_config": {"hidden_size": 8},
            "vision_config": {"hidden_size": 24, "num_attention_heads": 3, "projection_dim": 512}}"#;
        let [alone, whole] = [alone, whole].map(|text| {
            ClipVisionConfig::from_json(text).unwrap_or_else(|error| panic!("{error}"))
        });
        assert_eq!((alone.hidden_size, alone.projection_dim, alone.image_size), (24, 12, 224));
        assert_eq!(alone, whole);
        let error =
            ClipVisionConfig::from_json(r#"{"hidden_act": "relu"}"#).expect_err("a refusal");
        assert!(error.to_string().contains("`relu`"), "{error}");
    }

    #[test]
    fn every_form_of_a_preprocessor_config_is_read_or_refused_by_field() {
        let read = |text: &str| ImageProcessor::from_json(text, 28);
        for (text, edge) in [
            ("{}", Some(28)),
            (r#"{"size": 30, "crop_size": 28}"#, Some(30)),
            (
                r#"{"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}"#,
                Some(28),
            ),
            (r#"{"size": {"height": 28, "width": 28}, "do_center_crop": false}"#, None),
        ] {
            let found = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(found, ImageProcessor::of_clip(edge), "{text}");
        }
        for (text, field) in [
            (r#"{"resample": 2}"#, "resample"),
            (r#"{"do_normalize": false}"#, "do_normalize"),
            (r#"{"do_resize": false}"#, "do_resize"),
            (r#"{"rescale_factor": 1}"#, "rescale_factor"),
            (r#"{"size": {"height": 28, "width": 30}}"#, "size"),
            (r#"{"size": 28, "do_center_crop": false}"#, "do_center_crop"),
            (r#"{"crop_size": 24}"#, "crop_size"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("`{field}` is ")), "{error}");
        }
    }

    #[test]
    fn what_no_graph_can_be_built_from_is_refused_by_field() {
        let good = IpAdapterConfig {
            image_tokens: 8,
            image_encoder: ClipVisionConfig {
                hidden_size: 24,
                intermediate_size: 48,
                num_hidden_layers: 2,
                num_attention_heads: 3,
                image_size: 28,
                patch_size: 14,
                projection_dim: 12,
                layer_norm_eps: 1e-5,
                hidden_act: Activation::Gelu,
            },
            image_processor: ImageProcessor::of_clip(Some(28)),
        };
        good.validate().expect("a good config");
        type Change = fn(&mut IpAdapterConfig);
        let changes: [(&str, Change); 7] = [
            ("hidden_size", |c| c.image_encoder.hidden_size = 25),
            ("image_size", |c| c.image_encoder.image_size = 30),
            ("layer_norm_eps", |c| c.image_encoder.layer_norm_eps = f32::NAN),
            ("image_tokens", |c| c.image_tokens = 1),
            ("shortest_edge", |c| c.image_processor.shortest_edge = Some(27)),
            ("image_mean", |c| c.image_processor.image_mean[1] = f32::INFINITY),
            ("image_std", |c| c.image_processor.image_std[2] = 0.0),
        ];
        for (field, change) in changes {
            let mut config = good.clone();
            change(&mut config);
            let error = config.validate().expect_err(field).to_string();
            assert!(error.starts_with(&format!("`{field}` is ")), "{error}");
        }
    }
}
