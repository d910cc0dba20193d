//! Texts of strangers, made harmless.

use std::borrow::Cow;

/// `text` without anything that a terminal obeys: control characters, and the marks that turn the
/// direction of writing, are written as `\u001b`, which JSON reads as the same character. Line
/// breaks and tabs stay.
pub fn plain(text: &str) -> Cow<'_, str> {
    let is_layout = |c: char| matches!(c, '\n' | '\t');
    let escaped = |c: char| is_obeyed(c) && !is_layout(c);
    if !text.contains(escaped) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escaped(c) {
            plain += &format!("\\u{:04x}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// `text` in one line of at most `most` characters: line breaks and tabs are written as `\n` and
/// `\t`, and where the end is left out, it is said how much that is.
pub fn in_a_line(text: &str, most: usize) -> String {
    let cut = text.char_indices().nth(most).map_or(text.len(), |(end, _)| end);
    let (shown, rest) = text.split_at(cut);
    let shown = shown.replace('\n', "\\n").replace('\t', "\\t");
    match rest.chars().count() {
        0 => shown,
        more => format!("{shown}... ({more} more)"),
    }
}

/// `text` in one line of some `most` characters, as [`in_a_line`], without its middle if it is longer.
pub(crate) fn without_middle(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return in_a_line(text, most);
    }
    let (start, end) = (most * 3 / 4, most / 4);
    let last: String = text.chars().skip(count - end).collect();
    let first: String = text.chars().take(start).collect();
    let left = count - start - end;
    format!("{}... ({left} more) ...{}", in_a_line(&first, start), in_a_line(&last, end))
}

/// Whether a terminal obeys `c` instead of showing it: control characters, and the marks that turn
/// the direction of writing.
pub fn is_obeyed(c: char) -> bool {
    let direction = matches!(
        c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    direction || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_stays() {
        for (text, expected) in [
            ("\u{1b}[31mred\u{1b}]0;title\u{7}", "\\u001b[31mred\\u001b]0;title\\u0007"),
            ("\u{9b}2J\r\u{8}\u{7f}\0", "\\u009b2J\\u000d\\u0008\\u007f\\u0000"),
            ("cat\u{202e}gnp.exe\u{2066}\u{2028}", "cat\\u202egnp.exe\\u2066\\u2028"),
        ] {
            assert_eq!(plain(text), expected);
        }
        for text in ["", "一只猫\n\tدب 👩‍🚀", "\\u001b"] {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(in_a_line("猫\n狗\t鸟", 5), "猫\\n狗\\t鸟");
        assert_eq!(in_a_line("猫狗鸟", 2), "猫狗... (1 more)");
        assert_eq!(in_a_line("", 0), "");
        assert_eq!(without_middle("一只猫\n和一条狗", 4), "一只猫... (4 more) ...狗");
        assert_eq!(without_middle("一只猫\n", 4), "一只猫\\n");
    }
}
