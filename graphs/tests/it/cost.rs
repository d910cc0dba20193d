//! The counted cost of Hunyuan-DiT v1.2 at 1024x1024 against what pencil and paper say.

use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::{GraphDef, Precision, Sizes, control, hunyuan_dit};

use crate::models::released;

const SIZES: Sizes = Sizes {
    batch: 1,
    grid_height: 64,
    grid_width: 64,
    height: 128,
    width: 128,
    rank: 0,
    control_tokens: 0,
    image_tokens: 1,
};

fn cost(graph: &GraphDef) -> f64 {
    graph.flops.at(&SIZES) as f64
}

fn cut(cfg: &HunyuanDitConfig, n: usize) -> [f64; 3] {
    let f32 = Precision::Fp32;
    [
        cost(&hunyuan_dit::shallow_encoder(cfg, n, f32)),
        cost(&hunyuan_dit::deep_core(cfg, n, f32)),
        cost(&hunyuan_dit::shallow_decoder(cfg, n, f32)),
    ]
}

/// Multiply-adds of one block, twice, per picture: four products of self-attention, two of
/// cross-attention over the pixels and two over the text, scores and values of both, feed-forward.
fn block(cfg: &HunyuanDitConfig) -> f64 {
    let (d, ff) = (cfg.hidden_size as f64, cfg.ff_inner_dim() as f64);
    let (tokens, text) = (4096.0, (cfg.text_len + cfg.text_len_t5) as f64);
    let products = (4.0 + 2.0) * tokens * d * d + 2.0 * text * cfg.cross_attention_dim as f64 * d;
    let attention = 2.0 * tokens * (tokens + text) * d;
    2.0 * (products + attention + 2.0 * tokens * d * ff)
}

#[test]
fn a_forward_of_the_released_model_is_14_tflop() {
    let cfg = released();
    let blocks = 40.0 * block(&cfg);
    let skips = 19.0 * 2.0 * 4096.0 * 2.0 * (cfg.hidden_size * cfg.hidden_size) as f64;
    let counted = cost(&hunyuan_dit::full(&cfg, Precision::Fp32));
    // Products alone make 14.4; norms, softmax and additions come on top, 2 % at most.
    assert!((14.3e12..14.5e12).contains(&(blocks + skips)), "{:e}", blocks + skips);
    let ratio = counted / (blocks + skips);
    assert!((1.0..1.02).contains(&ratio), "{counted:e} is {ratio} of the products");
}

#[test]
fn the_three_parts_cost_what_the_whole_does() {
    let cfg = released();
    let full = cost(&hunyuan_dit::full(&cfg, Precision::Fp32));
    for n in [1, 2, 3, 6, 19] {
        let sum: f64 = cut(&cfg, n).iter().sum();
        // `silu(temb)` and the signs of the rotary table are computed once per graph.
        assert!(sum >= full && sum < full * 1.000_001 + 4e6, "cut at {n}: {sum:e}, whole {full:e}");
    }
}

/// A cached step at branch n runs n blocks at either end, of which the last n have a skip product;
/// embedders and final layer add little.
#[test]
fn a_cached_step_costs_five_percent_per_branch() {
    let cfg = released();
    for (n, expected) in [(1, 5.0), (2, 10.0), (3, 15.1), (6, 30.1)] {
        let [encoder, core, decoder] = cut(&cfg, n);
        let share = 100.0 * (encoder + decoder) / (encoder + core + decoder);
        assert!((share - expected).abs() < 0.2, "cut at {n}: {share:.2} %, expected {expected} %");
    }
}

#[test]
fn the_conditioner_runs_once_and_costs_next_to_nothing() {
    let share = cost(&hunyuan_dit::conditioner(&released(), Precision::Fp32))
        / cost(&hunyuan_dit::full(&released(), Precision::Fp32));
    assert!(share < 0.002, "{share}");
}

#[test]
fn a_net_costs_half_a_step_more_whether_the_step_is_cached_or_not() {
    let (cfg, f32) = (released(), Precision::Fp32);
    let [encoder, core, decoder] = cut(&cfg, 1);
    let net = [control::encoder("net", &cfg, 1, f32), control::core("net", &cfg, 1, f32)];
    let [net_encoder, net_core] = net.map(|graph| cost(&graph));
    let cached = net_encoder / (encoder + decoder);
    let full = (net_encoder + net_core) / (encoder + core + decoder);
    println!("a net adds {full:.3} of a step and {cached:.3} of a cached one");
    // 19 of 40 blocks without skip connections; 1 of 2, where there are no core and no final layer.
    assert!((0.45..0.50).contains(&full), "{full}");
    assert!((0.45..0.52).contains(&cached), "{cached}");
}
