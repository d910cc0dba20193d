//! `<lora:jade:0.8>` in a prompt, as users of the web UI choose LoRAs.

use hydit::lora::LoraChoice;

use crate::server::http::error::ApiError;

const BEGIN: &str = "<lora:";

/// `prompt` without its tags, and the LoRAs that they name.
///
/// # Errors
/// 400 when one is not `<lora:NAME>` or `<lora:NAME:WEIGHT>`.
pub fn taken_out(prompt: &str) -> Result<(String, Vec<LoraChoice>), ApiError> {
    let (mut rest, mut text, mut loras) = (prompt, String::new(), Vec::new());
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let refuse = |what: &str| {
            let message = format!("prompt: {what}; expected <lora:NAME> or <lora:NAME:WEIGHT>");
            ApiError::field("prompt", message)
        };
        let (tag, behind) = after.split_once('>').ok_or_else(|| refuse("a tag does not end"))?;
        let choice: LoraChoice =
            tag.parse().map_err(|why: String| refuse(&format!("<lora:{tag}>: {why}")))?;
        if choice.name.contains(':') {
            return Err(refuse(&format!("<lora:{tag}> has more than a weight")));
        }
        text += before.trim_end_matches(' ');
        loras.push(choice);
        rest = behind;
    }
    Ok((text + rest, loras))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_out_and_others_are_left() {
        let (prompt, loras) =
            taken_out("a <b> cat <lora:jade:0.8>, red<lora:ink>").expect("two tags");
        assert_eq!(prompt, "a <b> cat, red");
        let named: Vec<_> = loras.iter().map(|lora| (lora.name.as_str(), lora.weight)).collect();
        assert_eq!(named, [("jade", 0.8), ("ink", 1.0)]);
        let plain = taken_out("猫 <hypernet:x:1>").expect("no tag of a LoRA");
        assert_eq!((plain.0.as_str(), plain.1.len()), ("猫 <hypernet:x:1>", 0));
    }

    #[test]
    fn a_tag_that_says_nothing_is_refused() {
        for prompt in ["<lora:jade:0.8", "<lora:>", "<lora:jade:x:y>", "<lora:jade:0.8:lbw=1>"] {
            let error = taken_out(prompt).expect_err(prompt);
            assert!(error.message.contains("expected <lora:NAME>"), "{}", error.message);
        }
    }
}
