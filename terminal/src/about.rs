//! What a program tells of itself: the version, the completions of shells, the manual. All but the
//! version is made from the flags that it has.

use clap::{CommandFactory, Subcommand};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use crate::{WrongArguments, put};

/// The version of the workspace and the commit that it was built from: `0.1.0 (commit c703b6b95a12)`,
/// or `0.1.0 (debug build)`.
pub const VERSION: &str = env!("HYDIT_VERSION");

/// The subcommands by which a program tells of itself, on standard output.
#[derive(Subcommand)]
pub enum About {
    /// Print what a shell needs to complete commands and flags.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print a page of the manual, of the program or of one of its commands: `man -l FILE` shows it.
    Man {
        /// The command.
        command: Option<String>,
    },
}

impl About {
    /// Prints what is asked for of the program `C`.
    ///
    /// # Errors
    /// The command has no such name, or standard output cannot be written.
    pub fn run<C: CommandFactory>(self) -> Result<(), anyhow::Error> {
        let mut program = C::command();
        let mut text = Vec::new();
        match self {
            About::Completions { shell } => {
                let name = program.get_name().to_string();
                generate(shell, &mut program, name.as_str(), &mut text);
                if shell == Shell::Bash {
                    // clap_complete 4.6.11 writes a hyphen of the program's name in two ways, so that
                    // the script finds no flags of any command.
                    let (wrong, right) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
                    text = String::from_utf8(text)?.replace(&wrong, &right).into_bytes();
                }
            }
            About::Man { command } => {
                program = program.disable_help_subcommand(true);
                program.build();
                let source = format!("{} {VERSION}", program.get_name());
                let page = Man::new(page(&program, command.as_deref())?);
                page.source(source).manual("hydit").render(&mut text)?;
            }
        }
        Ok(put(&text)?)
    }
}

/// The command whose page is asked for.
fn page(program: &clap::Command, command: Option<&str>) -> Result<clap::Command, WrongArguments> {
    let Some(name) = command else { return Ok(program.clone()) };
    let pages = || program.get_subcommands().filter(|command| !command.is_hide_set());
    pages().find(|command| command.get_name() == name).cloned().ok_or_else(|| {
        let names: Vec<&str> = pages().map(clap::Command::get_name).collect();
        WrongArguments(format!("man: {name} is none of the commands {}", names.join(", ")))
    })
}
