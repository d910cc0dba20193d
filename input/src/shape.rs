//! Shapes of `tokenizer.json` that the `tokenizers` crate does not survive, or that blow a prompt up
//! until memory ends: a piece so long that dropping it overflows the stack, a normaliser table that
//! leads out of itself, replacements on top of each other.

use std::collections::BTreeMap;
use std::fmt;

use crate::charsmap::Charsmap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

/// The longest piece of a vocabulary, in bytes; SentencePiece's have 16 characters at most.
const MAX_PIECE: usize = 1024;
/// The most normalisers or post-processors in a row.
const MAX_STEPS: usize = 16;
/// How many times longer normalisers may make a text, as an upper bound.
const MAX_GROWTH: usize = 256;
/// The names of padding tokens.
const PADDING: [&str; 2] = ["[PAD]", "<pad>"];
/// The most tokens that a post-processor adds.
const MAX_ADDED: usize = 32;

/// The parts of a `tokenizer.json` that are looked at.
#[derive(Deserialize)]
pub(crate) struct Shape {
    #[serde(default)]
    added_tokens: Vec<Token>,
    normalizer: Option<Step>,
    post_processor: Option<Step>,
    model: Model,
}

/// A normalizer or a post-processor.
#[derive(Deserialize)]
struct Step {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(alias = "normalizers", alias = "processors", default)]
    sequence: Vec<Step>,
    #[serde(default)]
    precompiled_charsmap: String,
    #[serde(default)]
    pattern: Pattern,
    #[serde(default)]
    content: String,
    #[serde(default)]
    prepend: String,
    #[serde(default)]
    single: Vec<Piece>,
    #[serde(default)]
    special_tokens: BTreeMap<String, Special>,
}

/// A text to replace, or else a regular expression.
#[derive(Default, Deserialize)]
struct Pattern {
    #[serde(rename = "String")]
    text: Option<String>,
}

/// A token of a template, or else the text.
#[derive(Deserialize)]
struct Piece {
    #[serde(rename = "SpecialToken")]
    special: Option<Name>,
}

#[derive(Deserialize)]
struct Name {
    id: String,
}

#[derive(Deserialize)]
struct Special {
    ids: Vec<u64>,
    tokens: Vec<String>,
}

/// A token and its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Token {
    pub id: u64,
    pub content: String,
}

#[derive(Deserialize)]
struct Model {
    vocab: Vocabulary,
}

/// What counts of a vocabulary.
#[derive(Default)]
struct Vocabulary {
    /// The token with the highest id.
    last: Token,
    /// The ids of [`PADDING`].
    padding: [Option<u64>; 2],
}

impl Shape {
    /// Reads and checks the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(json: &str) -> Result<Shape, String> {
        let shape: Shape = serde_json::from_str(json).map_err(|error| match error.classify() {
            Category::Data => error.to_string(),
            _ => format!("not JSON: {error}"),
        })?;
        for token in &shape.added_tokens {
            check_piece(&token.content)?;
        }
        let mut growth = 1;
        for step in steps(shape.normalizer.as_ref())? {
            growth *= normalizer_growth(step)?;
            if growth > MAX_GROWTH {
                return Err(format!("its normalizers make a text over {MAX_GROWTH} times longer"));
            }
        }
        steps(shape.post_processor.as_ref())?.into_iter().try_for_each(check_template)?;
        Ok(shape)
    }

    /// The token with the highest id.
    pub fn last_token(&self) -> &Token {
        let all = self.added_tokens.iter().chain([&self.model.vocab.last]);
        all.max_by_key(|token| token.id).expect("at least that of the vocabulary")
    }

    /// The id of the padding token, `[PAD]` or `<pad>`.
    pub fn padding(&self) -> Option<u32> {
        let added = |name| self.added_tokens.iter().find(|token| token.content == name);
        let ids = PADDING.iter().zip(self.model.vocab.padding);
        let mut ids =
            ids.filter_map(|(name, listed)| added(*name).map(|token| token.id).or(listed));
        ids.next()?.try_into().ok()
    }
}

/// A step, or those of a sequence.
fn steps(step: Option<&Step>) -> Result<Vec<&Step>, String> {
    let (mut steps, mut waiting) = (Vec::new(), Vec::from_iter(step));
    while let Some(step) = waiting.pop() {
        waiting.extend(step.sequence.iter().rev());
        steps.push(step);
        if steps.len() + waiting.len() > MAX_STEPS {
            return Err(format!("over {MAX_STEPS} normalizers or post-processors in a row"));
        }
    }
    Ok(steps)
}

/// How many times longer a normalizer may make a text.
fn normalizer_growth(step: &Step) -> Result<usize, String> {
    let content = step.content.len();
    match step.kind.as_str() {
        "Precompiled" => {
            let table = STANDARD.decode(&step.precompiled_charsmap);
            let table = table.map_err(|error| error.to_string());
            let checked = table.and_then(|table| Ok(Charsmap::parse(&table).map(drop)?));
            checked.map_err(|error| format!("its precompiled_charsmap cannot be used: {error}"))?;
            Ok(1)
        }
        "Replace" => match step.pattern.text.as_deref() {
            Some("") => Err("a normalizer that replaces an empty text".to_string()),
            Some(pattern) => Ok(content.div_ceil(pattern.len()).max(1)),
            None => Ok(content + 1), // a pattern may match between any two characters
        },
        "Prepend" if step.prepend.len() > MAX_PIECE => {
            Err(format!("a normalizer that puts over {MAX_PIECE} bytes before a text"))
        }
        _ => Ok(1),
    }
}

/// Checks that a template takes the text once, and adds a token for each id.
fn check_template(step: &Step) -> Result<(), String> {
    if step.kind != "TemplateProcessing" {
        return Ok(());
    }
    let special: Vec<&Name> =
        step.single.iter().filter_map(|piece| piece.special.as_ref()).collect();
    let texts = step.single.len() - special.len();
    if texts != 1 || special.len() > MAX_ADDED {
        return Err(format!(
            "a post-processor with {texts} texts and {} tokens; expected a text, and at most \
             {MAX_ADDED} tokens",
            special.len()
        ));
    }
    for Name { id } in special {
        let fits = |token: &Special| {
            token.ids.len() == token.tokens.len() && (1..=MAX_ADDED).contains(&token.ids.len())
        };
        if !step.special_tokens.get(id).is_some_and(fits) {
            let name: String = id.chars().take(40).collect();
            return Err(format!("a post-processor that adds `{name}`, of which it has no ids"));
        }
    }
    Ok(())
}

fn check_piece(piece: &str) -> Result<(), String> {
    if piece.len() <= MAX_PIECE {
        return Ok(());
    }
    Err(format!("a piece of {} bytes; expected at most {MAX_PIECE}", piece.len()))
}

impl Vocabulary {
    fn add(&mut self, token: Token) -> Result<(), String> {
        check_piece(&token.content)?;
        if let Some(which) = PADDING.iter().position(|name| *name == token.content) {
            self.padding[which].get_or_insert(token.id);
        }
        if token.id >= self.last.id {
            self.last = token;
        }
        Ok(())
    }
}

/// A list of pieces with scores, whose places are their ids, or a map from pieces to ids.
impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Vocabulary, D::Error> {
        struct Pieces;
        impl<'de> Visitor<'de> for Pieces {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pieces: A) -> Result<Vocabulary, A::Error> {
                let mut vocabulary = Vocabulary::default();
                let mut id = 0;
                while let Some((content, _score)) = pieces.next_element::<(String, f64)>()? {
                    vocabulary.add(Token { id, content }).map_err(A::Error::custom)?;
                    id += 1;
                }
                Ok(vocabulary)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pieces: A) -> Result<Vocabulary, A::Error> {
                let mut vocabulary = Vocabulary::default();
                while let Some((content, id)) = pieces.next_entry::<String, u64>()? {
                    vocabulary.add(Token { id, content }).map_err(A::Error::custom)?;
                }
                Ok(vocabulary)
            }
        }
        deserializer.deserialize_any(Pieces)
    }
}
