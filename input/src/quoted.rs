/// `text` as one word of a shell's command line: as it is if it has nothing that a shell reads
/// otherwise, else in quotes.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_string()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_shell_reads_one_word() {
        for text in
            ["", "a", "models/猫-1.0_b", "a b", "it's", "$HOME", "KEY=a;b", "`id`", "\n", "*"]
        {
            let command = format!("set -- {}; printf '%s %s' $# \"$1\"", quoted(text));
            let output = std::process::Command::new("sh").args(["-c", &command]).output();
            let read = output.expect("a shell").stdout;
            assert_eq!(String::from_utf8_lossy(&read), format!("1 {text}"), "{command}");
        }
        assert_eq!(quoted("models/猫-1.0_b"), "models/猫-1.0_b");
    }
}
