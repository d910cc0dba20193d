//! What the program tells of itself: its version, the completions of shells, the manual.

use std::process::Command;

use crate::program::{serve, text};

fn printed(arguments: &[&str]) -> String {
    let output = serve(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The words of `text` that are flags.
fn flags(text: &str) -> Vec<&str> {
    let is_of_flag = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.split(|c| !is_of_flag(c)).filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

/// The commands that `--help` lists.
fn commands(help: &str) -> Vec<&str> {
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let lines = list.expect("a list").lines().filter(|line| line.starts_with("  "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

#[test]
fn the_version_tells_the_build_and_its_features() {
    let first = format!("hydit-serve {} (", env!("CARGO_PKG_VERSION"));
    let (short, long) = (printed(&["-V"]), printed(&["--version"]));
    assert!(short.starts_with(&first) && short.ends_with(")\n"), "{short}");
    assert_eq!(short.lines().next(), long.lines().next());
    for part in ["features  cuda, tensorrt", "tract 0.23", std::env::consts::ARCH] {
        assert!(long.contains(part), "{long}");
    }
}

#[test]
fn bash_completes_commands_and_flags() {
    let complete = |line: &str| {
        let script = r#"
            source <("$1" completions bash)
            shift
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            registered=$(complete -p "$1")
            registered=${registered#*-F }
            "${registered%% *}" "$1" "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[@]}""#;
        let output = Command::new("bash")
            .args(["-c", script, "bash", env!("CARGO_BIN_EXE_hydit-serve")])
            .args(line.split_whitespace())
            .output()
            .expect("bash starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_string()
    };
    assert_eq!(complete("hydit-serve gene"), "generate");
    assert_eq!(complete("hydit-serve generate --cache-st"), "--cache-step --cache-start");
    assert_eq!(complete("hydit-serve completions fi"), "fish");
    for shell in ["zsh", "fish"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("cache-policy") && script.contains("quickstart"), "{shell}");
    }
}

#[test]
fn every_command_has_a_page_of_the_manual_with_all_its_flags() {
    let of_program = printed(&["man"]).replace('\\', "");
    let help = printed(&["--help"]);
    let commands = commands(&help);
    assert!(commands.contains(&"serve") && commands.contains(&"quickstart"), "{commands:?}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        assert!(of_program.contains(&format!("hydit-serve-{command}(1)")), "{command}");
        let page = printed(&["man", command]);
        assert!(
            page.contains(&format!(".TH hydit-serve-{command} 1  \"hydit-serve ")),
            "{command}: {page}"
        );
        let page = page.replace('\\', "");
        let help = printed(&[command, "--help"]);
        // Other names of flags are in no page.
        for flag in help.lines().filter(|line| !line.contains("[alias")).flat_map(flags) {
            assert!(page.contains(flag), "{command} {flag}");
        }
    }
    let refused = serve(&["man", "look"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.starts_with("error: man: look is none of the commands quickstart, "), "{said}");
}
