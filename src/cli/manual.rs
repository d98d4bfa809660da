//! `sphereface completions` and `sphereface man`: what a shell and `man` know about the program,
//! made from the definitions of its arguments.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;
use crate::file;

/// Print the completions of a shell
///
/// `make install` puts those of bash, zsh and fish where they belong.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface completions bash > ~/.local/share/bash-completion/completions/sphereface\n  \
    sphereface completions fish > ~/.config/fish/completions/sphereface.fish")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl CompletionsArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "sphereface", &mut text);
        out!("{}", String::from_utf8_lossy(&text));
        Ok(())
    }
}

/// Write the manual pages into a folder
///
/// One page for the program and one per command, named like sphereface-label.1. `make install` puts
/// them where man finds them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sphereface man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// The folder; it is made where it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl ManArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let failed = |path: &PathBuf| format!("{} cannot be written", path.display());
        std::fs::create_dir_all(&self.folder).with_context(|| failed(&self.folder))?;
        let mut whole = Cli::command().disable_help_subcommand(true);
        whole.build();
        let mut commands = vec![whole];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().filter(|one| !one.is_hide_set()).cloned());
            let (name, text) = page(command)?;
            let path = self.folder.join(name);
            file::write(&path, &text).with_context(|| failed(&path))?;
        }
        Ok(())
    }
}

/// The file name and the text of a command's page.
fn page(command: Command) -> Result<(String, Vec<u8>)> {
    let version = format!("sphereface {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).source(version).manual("User Commands");
    let mut text = Vec::new();
    man.render(&mut text).context("a manual page cannot be made")?;
    Ok((man.get_filename(), text))
}
