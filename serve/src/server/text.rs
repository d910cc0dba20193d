//! Text of strangers, where people and their terminals read it.

use hydit_terminal::is_obeyed;

/// Maximum number of characters of a line.
const LONGEST: usize = 1000;

/// Whether a letter shows itself: it neither controls a terminal nor hides, nor turns the direction
/// of what follows.
pub fn is_plain(letter: char) -> bool {
    let hidden = matches!(
        letter,
        '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    !hidden && !is_obeyed(letter)
}

/// `text` as one line of plain letters, with an end.
pub fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LONGEST));
    let mut letters = text.chars();
    for letter in letters.by_ref().take(LONGEST) {
        if is_plain(letter) {
            line.push(letter);
        } else {
            line.extend(letter.escape_default());
        }
    }
    if letters.next().is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_show_itself_is_written_out() {
        assert_eq!(line("蓝色 a\"b\\ é"), "蓝色 a\"b\\ é");
        assert_eq!(
            line("a\u{1b}[31m\r\n\u{9b}\u{202e}\0"),
            "a\\u{1b}[31m\\r\\n\\u{9b}\\u{202e}\\u{0}"
        );
        for hidden in
            ['\u{7f}', '\u{ad}', '\u{200b}', '\u{2028}', '\u{2066}', '\u{feff}', '\u{e0041}']
        {
            assert!(!is_plain(hidden), "{hidden:?}");
        }
        let long = line(&"猫".repeat(LONGEST + 1));
        assert_eq!(long, "猫".repeat(LONGEST) + "…");
        assert_eq!(line(&"猫".repeat(LONGEST)), "猫".repeat(LONGEST));
    }
}
