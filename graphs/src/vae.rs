//! The autoencoder of images: `AutoencoderKL.encode` and `AutoencoderKL.decode` of diffusers
//! (`models/autoencoders/autoencoder_kl.py`, `vae.py`). Both are graphs of convolutions, so their
//! precision is [`Precision::for_convolutions`](crate::Precision::for_convolutions).

use crate::builder::{Graph, GraphDef, Var, Weights};
use crate::config::VaeConfig;
use crate::dim::{Dim, Symbol};
use crate::options::GraphOptions;
use crate::tensor::DType;

const EPS: f32 = 1e-6;

/// Builds the image encoder, which image to image begins with.
///
/// Input: `image` `[b, in_channels, f * h, f * w]` in fp32 from -1 to 1, with `f` =
/// [`VaeConfig::factor`]. Output: `moments` `[b, 2 * latent_channels, h, w]` in fp32: the means of
/// the latents, then the logarithms of their variances, before the scaling factor.
pub fn vae_encoder(cfg: &VaeConfig, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = graph("vae-encoder", options);
    let factor = Dim::from(cfg.factor());
    let [height, width] = [Symbol::Height, Symbol::Width].map(|side| factor * side.into());
    let shape = [Symbol::Batch.into(), cfg.in_channels.into(), height, width];
    let image = graph.input("image", DType::F32, &shape);

    let w = graph.root();
    let vae = Autoencoder { cfg, w: w.pp("encoder") };
    let mut moments = vae.encode(image);
    if cfg.use_quant_conv {
        moments = moments.conv2d(&w, "quant_conv", 2 * cfg.latent_channels, 1, 1);
    }
    graph.output("moments", moments.cast(DType::F32));
    graph.finish()
}

/// Builds the image decoder.
///
/// Input: `latents` `[b, latent_channels, h, w]` in fp32, already divided by the scaling factor.
/// Output: `image` `[b, 3, f * h, f * w]` in fp32 from -1 to 1, with `f` = [`VaeConfig::factor`].
pub fn vae_decoder(cfg: &VaeConfig, options: impl Into<GraphOptions>) -> GraphDef {
    let graph = graph("vae-decoder", options);
    let channels = cfg.latent_channels;
    let shape =
        [Symbol::Batch.into(), channels.into(), Symbol::Height.into(), Symbol::Width.into()];
    let mut x = graph.input("latents", DType::F32, &shape);

    let w = graph.root();
    if cfg.use_post_quant_conv {
        x = x.conv2d(&w, "post_quant_conv", channels, 1, 1);
    }
    let vae = Autoencoder { cfg, w: w.pp("decoder") };
    graph.output("image", vae.decode(x).cast(DType::F32));
    graph.finish()
}

fn graph(name: &str, options: impl Into<GraphOptions>) -> Graph {
    let options = options.into();
    let precision = options.precision.for_convolutions();
    Graph::new(name, GraphOptions { precision, ..options })
}

/// One half of the autoencoder, with the weights of that half.
struct Autoencoder<'c, 'g> {
    cfg: &'c VaeConfig,
    w: Weights<'g>,
}

impl<'g> Autoencoder<'_, 'g> {
    /// `Encoder.forward`
    fn encode(&self, image: Var<'g>) -> Var<'g> {
        let (w, widths) = (&self.w, &self.cfg.block_out_channels);
        let mut x = image.conv2d(w, "conv_in", widths[0], 3, 1);
        for (level, &width) in widths.iter().enumerate() {
            x = self.down_block(level, width, x);
        }
        let x = self.norm(w, "conv_norm_out", self.mid_block(x)).silu();
        x.conv2d(w, "conv_out", 2 * self.cfg.latent_channels, 3, 1)
    }

    /// `Decoder.forward`
    fn decode(&self, x: Var<'g>) -> Var<'g> {
        let (w, widths) = (&self.w, &self.cfg.block_out_channels);
        let mut x = self.mid_block(x.conv2d(w, "conv_in", widths[widths.len() - 1], 3, 1));
        for (level, &width) in widths.iter().rev().enumerate() {
            x = self.up_block(level, width, x);
        }
        self.norm(w, "conv_norm_out", x).silu().conv2d(w, "conv_out", self.cfg.out_channels, 3, 1)
    }

    /// `DownEncoderBlock2D`; all but the last level halve the size.
    fn down_block(&self, level: usize, width: usize, mut x: Var<'g>) -> Var<'g> {
        let w = self.w.pp("down_blocks").pp(level);
        for i in 0..self.cfg.layers_per_block {
            x = self.resnet(&w.pp("resnets").pp(i), x, width);
        }
        if level + 1 == self.cfg.block_out_channels.len() {
            return x;
        }
        x.conv2d(&w, "downsamplers.0.conv", width, 3, 2)
    }

    /// `UNetMidBlock2D`
    fn mid_block(&self, x: Var<'g>) -> Var<'g> {
        let w = self.w.pp("mid_block");
        let width = channels(x);
        let x = self.resnet(&w.pp("resnets.0"), x, width);
        let x = if self.cfg.mid_block_add_attention {
            self.attention(&w.pp("attentions.0"), x)
        } else {
            x
        };
        self.resnet(&w.pp("resnets.1"), x, width)
    }

    /// `UpDecoderBlock2D`; all but the last level double the size.
    fn up_block(&self, level: usize, width: usize, mut x: Var<'g>) -> Var<'g> {
        let w = self.w.pp("up_blocks").pp(level);
        for i in 0..=self.cfg.layers_per_block {
            x = self.resnet(&w.pp("resnets").pp(i), x, width);
        }
        if level + 1 == self.cfg.block_out_channels.len() {
            return x;
        }
        x.upsample_nearest().conv2d(&w, "upsamplers.0.conv", width, 3, 1)
    }

    /// `ResnetBlock2D` without time embedding.
    fn resnet(&self, w: &Weights<'g>, x: Var<'g>, width: usize) -> Var<'g> {
        let _scope = w.enter();
        let y = self.norm(w, "norm1", x).silu().conv2d(w, "conv1", width, 3, 1);
        let y = self.norm(w, "norm2", y).silu().conv2d(w, "conv2", width, 3, 1);
        if channels(x) == width { x + y } else { x.conv2d(w, "conv_shortcut", width, 1, 1) + y }
    }

    /// `AttnProcessor2_0` of one head over all pixels.
    fn attention(&self, w: &Weights<'g>, x: Var<'g>) -> Var<'g> {
        let _scope = w.enter();
        let width = channels(x);
        let flat = self.norm(w, "group_norm", x.reshape([0, width as i64, -1]));
        let flat = flat.transpose([0, 2, 1]);
        let one_head = |name: &str| flat.linear(w, name, width).split_heads(1);
        let scale = 1.0 / (width as f32).sqrt();
        // The sides of the latents are even, as those of a picture are multiples of 16.
        let y = one_head("to_q").attend_by_quarters(one_head("to_k"), one_head("to_v"), scale);
        let y = y.join_heads().linear(w, "to_out.0", width);
        y.transpose([0, 2, 1]).reshape_like(x) + x
    }

    fn norm(&self, w: &Weights<'g>, name: &str, x: Var<'g>) -> Var<'g> {
        x.group_norm(w, name, self.cfg.norm_num_groups, EPS)
    }
}

fn channels(x: Var<'_>) -> usize {
    x.shape()[1].known().expect("channels are known")
}
