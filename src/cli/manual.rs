//! `sphereface completions` and `sphereface man`: shell completions and manual pages, generated from
//! the definitions of the arguments.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;
use sphereface::file;

/// Print shell completions
///
/// `make install` installs those of bash, zsh and fish.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface completions bash > ~/.local/share/bash-completion/completions/sphereface\n  \
    sphereface completions fish > ~/.config/fish/completions/sphereface.fish")]
pub struct CompletionsArgs {
    /// Shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl CompletionsArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let mut text = Vec::new();
        let whole = Cli::command();
        // Hidden commands would be completed, too.
        let shown = whole.get_subcommands().filter(|one| !one.is_hide_set()).cloned();
        let mut shown = Command::new("sphereface")
            .version(env!("CARGO_PKG_VERSION"))
            .propagate_version(true)
            .args(whole.get_arguments().cloned())
            .subcommands(shown);
        clap_complete::generate(self.shell, &mut shown, "sphereface", &mut text);
        out!("{}", String::from_utf8_lossy(&text));
        Ok(())
    }
}

/// Write the manual pages into a folder
///
/// Writes one page for the program and one per command, for example sphereface-label.1. `make
/// install` installs them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sphereface man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Destination folder; created if missing
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
