//! Small models of every kind, and the released one.

use hydit_graphs::config::{BertConfig, HunyuanDitConfig, T5Config, VaeConfig};
use hydit_graphs::{GraphDef, GraphOptions, bert, control, hunyuan_dit, t5, vae};

/// Hunyuan-DiT v1.2.
pub fn released() -> HunyuanDitConfig {
    HunyuanDitConfig {
        num_layers: 40,
        hidden_size: 1408,
        mlp_ratio: 4.3637,
        sample_size: 128,
        use_style_cond_and_image_meta_size: false,
        ..HunyuanDitConfig::default()
    }
}

/// Every graph of two small models (v1.2 and v1.1) as it is exported for `target`.
pub fn graphs(target: impl Into<GraphOptions>) -> Vec<GraphDef> {
    let target = target.into();
    let precision = target.precision;
    let bert_cfg = r#"{"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 11,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;
    let t5_cfg = |proj: &str| {
        let text = r#"{"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 2,
            "num_heads": 2, "relative_attention_num_buckets": 32, "layer_norm_epsilon": 1e-6,
            "feed_forward_proj": "PROJ"}"#;
        T5Config::from_json(&text.replace("PROJ", proj)).expect("a config")
    };
    let vae_cfg = r#"{"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
        "latent_channels": 4, "out_channels": 3, "scaling_factor": 0.5,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
    let mut graphs = vec![
        bert::text_encoder(&BertConfig::from_json(bert_cfg).expect("a config"), 9, precision),
        t5::text_encoder_2(&t5_cfg("gated-gelu"), 7, precision),
        t5::text_encoder_2(&t5_cfg("gated-silu"), 7, precision),
        t5::text_encoder_2(&t5_cfg("relu"), 7, precision),
        vae::vae_encoder(&VaeConfig::from_json(vae_cfg).expect("a config"), precision),
        vae::vae_decoder(&VaeConfig::from_json(vae_cfg).expect("a config"), precision),
    ];
    for style in [false, true] {
        let cfg = HunyuanDitConfig {
            num_layers: 6,
            hidden_size: 24,
            num_attention_heads: 2,
            attention_head_dim: 12,
            text_len: 9,
            text_len_t5: 7,
            cross_attention_dim: 24,
            cross_attention_dim_t5: 16,
            pooled_projection_dim: 20,
            use_style_cond_and_image_meta_size: style,
            ..HunyuanDitConfig::default()
        };
        cfg.validate().expect("a valid config");
        graphs.extend([
            hunyuan_dit::conditioner(&cfg, precision),
            hunyuan_dit::shallow_encoder(&cfg, 2, target),
            hunyuan_dit::deep_core(&cfg, 2, target),
            hunyuan_dit::shallow_decoder(&cfg, 2, target),
            hunyuan_dit::full(&cfg, target),
            control::conditioner("net", &cfg, precision),
            control::encoder("net", &cfg, 1, target),
            control::core("net", &cfg, 1, target),
            hunyuan_dit::full(&cfg, GraphOptions { controls: true, ..target }),
        ]);
    }
    graphs
}
