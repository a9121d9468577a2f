//! The command line as a whole.

use clap::{Parser, Subcommand};

use crate::error::{EXIT_CODES_HELP, Error};
use crate::{collections, index, items, model, search, status, up};

/// Find images by example or by words.
#[derive(Debug, Parser)]
#[command(name = "clipmesh", version, after_help = EXIT_CODES_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole mesh in this process, until Ctrl-C.
    Up(Box<up::Command>),
    /// Bring pictures into a collection.
    Index(Box<index::Command>),
    /// Find the pictures nearest to one, to some words, to an item, or to a mix of these.
    Search(Box<search::Command>),
    /// List, show, count and remove items.
    Items(items::Command),
    /// List, make and remove collections.
    Collections(collections::Command),
    /// Show what is behind a gateway, and whether it answers.
    Status(status::Command),
    /// Look into a model, or make one with random weights.
    Model(model::Command),
}

// === impl Cli ===

impl Cli {
    pub(crate) async fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Up(command) => command.run().await,
            Command::Index(command) => command.run().await,
            Command::Search(command) => command.run().await,
            Command::Items(command) => command.run().await,
            Command::Collections(command) => command.run().await,
            Command::Status(command) => command.run().await,
            Command::Model(command) => command.run().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_search_needs_a_query() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("clipmesh search --text cat").is_ok(), "words");
        assert!(parse("clipmesh search").is_err(), "nothing to look for");
        assert!(parse("clipmesh search --text cat --id 1 --text dog").is_ok(), "a mix");
        assert!(parse("clipmesh search --unlike-text cat").is_ok(), "anything else");
        assert!(parse("clipmesh search --text-share 0.5").is_err(), "a share of nothing");
        assert!(parse("clipmesh search -t cat -i a.jpg --text-share 1").is_err(), "all of it");
        assert!(parse("clipmesh search --text cat --limit 0").is_err(), "no hits wanted");
        assert!(parse("clipmesh search --text cat --limit 1001").is_err(), "too many");
        assert!(parse("clipmesh search --text cat --threshold -0.2").is_ok(), "below zero");
        assert!(parse("clipmesh search --text cat -f width>=9 -f a=b").is_ok(), "two filters");
    }

    #[test]
    fn shared_options_stand_anywhere() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("clipmesh items --json list --server host:1").is_ok(), "before and after");
        assert!(parse("clipmesh items list -c Nope").is_err(), "no name of a collection");
    }
}
