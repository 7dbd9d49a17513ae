//! The ranges of a fine-tuning configuration, and what may stand together.

use super::config::{Config, Method, TARGETS};
use crate::error::Result;

/// Largest rank: beyond it an adapter is larger than what it adapts.
const MOST_RANK: usize = 1024;
/// Updates, at most: names of checkpoints have eight digits.
const MOST_STEPS: u64 = 99_999_999;
/// Tokens of a batch, at most, and of a micro batch: sizes of memory are computed from them.
const MOST_TOKENS: [u64; 2] = [1 << 32, 1 << 24];
/// Answers at once, at most.
const MOST_ANSWERS: u64 = 65_536;

/// Refuses what cannot be, by name.
pub(super) fn config(config: &Config) -> Result<()> {
    adapter(config)?;
    words(config)?;
    numbers(config)?;
    counts(config)?;
    relations(config)
}

fn adapter(config: &Config) -> Result<()> {
    let adapter = &config.adapter;
    if !(1..=MOST_RANK).contains(&adapter.rank) {
        return Err(config.wrong("adapter.rank", &format!("1 to {MOST_RANK}"), adapter.rank));
    }
    if let Some(alpha) = adapter.alpha.filter(|alpha| !(alpha.is_finite() && *alpha > 0.0)) {
        return Err(config.wrong("adapter.alpha", "a number above 0", alpha));
    }
    let known = TARGETS.join(", ");
    if let Some(target) = adapter.targets.iter().find(|target| !TARGETS.contains(&target.as_str())) {
        return Err(config.wrong("adapter.targets", &format!("some of {known}"), format!("{target:?}")));
    }
    if adapter.targets.is_empty() && config.method != Method::Full {
        return Err(config.wrong("adapter.targets", &format!("at least one of {known}"), "none"));
    }
    Ok(())
}

fn words(config: &Config) -> Result<()> {
    let formats = ["auto", "chat", "preference", "sharegpt", "alpaca", "items"];
    let data = &config.data;
    for (key, value, known) in [
        ("data.format", &data.format, &formats[..]),
        ("data.on_bad", &data.on_bad, &["fail", "skip"]),
        ("data.reasoning", &data.reasoning, &["low", "medium", "high"]),
    ] {
        if !known.contains(&value.as_str()) {
            return Err(config.wrong(key, &format!("one of {}", known.join(", ")), format!("{value:?}")));
        }
    }
    Ok(())
}

fn numbers(config: &Config) -> Result<()> {
    let u = &config.training;
    let shares = [("training.warmup", u.warmup), ("training.decay", u.decay), ("training.min_lr", u.min_lr)];
    for (key, share) in shares {
        if !(0.0..=1.0).contains(&share) {
            return Err(config.wrong(key, "a share from 0 to 1", share));
        }
    }
    let share = config.validation.share;
    if !(0.0..=0.5).contains(&share) {
        return Err(config.wrong("validation.share", "a share from 0 to 0.5", share));
    }
    let positive = [
        ("lr", config.lr.unwrap_or(1.0)),
        ("lr_multiplier", config.lr_multiplier),
        ("epochs", config.epochs as f32),
        ("training.clip", u.clip),
        ("training.eps", u.eps),
        ("dpo.beta", config.dpo.beta),
        ("grpo.temperature", config.grpo.temperature),
        ("grpo.clip", config.grpo.clip),
    ];
    for (key, value) in positive {
        if !(value.is_finite() && value > 0.0) {
            return Err(config.wrong(key, "a number above 0", value));
        }
    }
    let weights = config.data.weights.classes();
    // One that is no number stays: `min` alone would forget it.
    let lesser = |least: f32, &w: &f32| if least.is_nan() || w.is_nan() { f32::NAN } else { least.min(w) };
    let lightest = weights.iter().fold(0.0, lesser);
    let heaviest = weights.iter().fold(0.0f32, |most, &w| most.max(w));
    for (key, value) in [
        ("training.weight_decay", u.weight_decay),
        ("training.aux_loss", u.aux_loss),
        ("grpo.kl", config.grpo.kl),
        ("data.weights", lightest),
        ("data.weights", heaviest),
    ] {
        if !(value.is_finite() && value >= 0.0) {
            return Err(config.wrong(key, "numbers that are not negative", value));
        }
    }
    for beta in [u.betas.0, u.betas.1] {
        if !(0.0..1.0).contains(&beta) {
            return Err(config.wrong("training.betas", "numbers from 0 to below 1", beta));
        }
    }
    Ok(())
}

fn counts(config: &Config) -> Result<()> {
    let (u, g) = (&config.training, &config.grpo);
    let answers = (g.prompts as u64).saturating_mul(g.group as u64);
    let bounded = [
        ("steps", config.steps.unwrap_or(1), MOST_STEPS),
        ("training.batch_tokens", u.batch_tokens.unwrap_or(1) as u64, MOST_TOKENS[0]),
        ("training.micro_tokens", u.micro_tokens.unwrap_or(1) as u64, MOST_TOKENS[1]),
        ("data.max_len", config.data.max_len.unwrap_or(1) as u64, MOST_TOKENS[1]),
        ("validation.most", config.validation.most as u64, MOST_STEPS),
        ("validation.every", config.validation.every.unwrap_or(1), MOST_STEPS),
        ("checkpoints.every", config.checkpoints.every, MOST_STEPS),
        ("checkpoints.keep", config.checkpoints.keep as u64, MOST_STEPS),
        ("grpo.prompts", g.prompts as u64, MOST_ANSWERS),
        ("grpo.group", g.group as u64, MOST_ANSWERS),
        ("grpo.prompts times grpo.group", answers, MOST_ANSWERS),
        ("grpo.max_tokens", g.max_tokens as u64, MOST_TOKENS[1]),
        ("grpo.updates", g.updates as u64, 1000),
    ];
    for (key, value, most) in bounded {
        if !(1..=most).contains(&value) {
            return Err(config.wrong(key, &format!("1 to {most}"), value));
        }
    }
    Ok(())
}

fn relations(config: &Config) -> Result<()> {
    let u = &config.training;
    if u.warmup + u.decay > 1.0 && u.schedule == crate::recipe::Shape::Wsd {
        return Err(config.wrong("training.decay", "a share that leaves room for the warm-up", u.decay));
    }
    if let (Some(micro), Some(max_len)) = (u.micro_tokens, config.data.max_len)
        && micro < max_len
    {
        let wanted = format!("at least finetune.data.max_len, {max_len}: a document is never split");
        return Err(config.wrong("training.micro_tokens", &wanted, micro));
    }
    if config.data.weights.classes()[1..].iter().all(|weight| *weight == 0.0) {
        return Err(config.wrong("data.weights", "a class of tokens that counts", "none"));
    }
    if config.method == Method::Grpo && config.grpo.group < 2 {
        return Err(config.wrong("grpo.group", "at least 2: an answer is compared with the others of its group", 1));
    }
    if config.method == Method::Grpo && config.grpo.grader.is_empty() {
        return Err(config.wrong("grpo.grader", "a table that says how answers are judged", "none"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::config::{Config, Method};

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("f.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_a_run() {
        let config = parse("").unwrap();
        assert_eq!(config, Config { file: "f.toml".into(), ..Config::default() });
        let adapter = config.adapter_config();
        assert_eq!((adapter.rank, adapter.alpha), (16, 32.0));
        assert!(adapter.targets.attention && adapter.targets.experts.is_some());
        assert!(!adapter.targets.router && !adapter.targets.unembedding);
    }

    #[test]
    fn what_is_said_is_kept() {
        let text = r#"
            [finetune]
            method = "grpo"
            epochs = 2
            [finetune.adapter]
            rank = 4
            targets = ["router", "unembedding"]
            [finetune.grpo]
            group = 4
            grader = { type = "string_check", operation = "eq" }
        "#;
        let config = parse(text).unwrap();
        assert_eq!((config.method, config.epochs, config.grpo.group), (Method::Grpo, 2.0, 4));
        let targets = config.adapter_config().targets;
        assert!(targets.router && targets.unembedding && !targets.attention && targets.experts.is_none());
        assert_eq!(config.adapter_config().alpha, 8.0);
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("[finetune]\nmethd = \"sft\"", "line 2: unknown field `methd`"),
            ("[finetune]\nmethod = \"ppo\"", "line 2: unknown variant `ppo`"),
            ("[fintune]\n", "unknown field `fintune`"),
            ("[finetune.adapter]\ntargets = [\"attention\", \"q_prj\"]", "finetune.adapter.targets: wanted some of"),
            ("[finetune.adapter]\ntargets = []", "finetune.adapter.targets: wanted at least one of"),
            ("[finetune.adapter]\nrank = 0", "finetune.adapter.rank: wanted 1 to 1024, found 0"),
            ("[finetune.adapter]\nalpha = nan", "finetune.adapter.alpha"),
            ("[finetune.data]\nformat = \"csv\"", "finetune.data.format: wanted one of auto"),
            ("[finetune.data.weights]\nfinal = -1.0", "finetune.data.weights: wanted numbers that are not negative"),
            ("[finetune.data.weights]\nfinal = inf", "finetune.data.weights"),
            ("[finetune.data.weights]\nfinal = nan", "finetune.data.weights"),
            (
                "[finetune.data.weights]\nfinal=0\nanalysis=0\ncommentary=0\ntool_call=0",
                "a class of tokens that counts",
            ),
            ("[finetune]\nlr = 0.0", "finetune.lr: wanted a number above 0"),
            ("[finetune]\nepochs = inf", "finetune.epochs"),
            ("[finetune.validation]\nshare = 1.5", "finetune.validation.share: wanted a share from 0 to 0.5"),
            (
                "[finetune.data]\nmax_len = 512\n[finetune.training]\nmicro_tokens = 256",
                "at least finetune.data.max_len",
            ),
            ("[finetune.checkpoints]\nevery = 0", "finetune.checkpoints.every: wanted 1 to"),
            ("[finetune]\nmethod = \"grpo\"", "finetune.grpo.grader: wanted a table"),
            ("[finetune.grpo]\nprompts = 9000\ngroup = 9000", "finetune.grpo.prompts times grpo.group"),
        ];
        for (text, message) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(message) && error.contains("f.toml") && !error.contains('\n'), "{text}: {error}");
        }
    }
}
