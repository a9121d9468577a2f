//! The command line as a whole.

use clap::{Parser, Subcommand};

use crate::error::{EXIT_CODES_HELP, Error};
use crate::{classify, collections, duplicates, facet, index, items, model, search, status, up};

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
    /// Tell what a picture is, by what its nearest neighbours are labelled.
    Classify(Box<classify::Command>),
    /// Find pictures that are there more than once.
    Duplicates(Box<duplicates::Command>),
    /// Count items by the values of a field.
    Facet(Box<facet::Command>),
    /// List, show, count, draw, change and remove items.
    Items(Box<items::Command>),
    /// List, make, change and remove collections, their indexes and aliases.
    Collections(Box<collections::Command>),
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
            Command::Index(command) => Box::pin(command.run()).await,
            Command::Search(command) => command.run().await,
            Command::Classify(command) => command.run().await,
            Command::Duplicates(command) => command.run().await,
            Command::Facet(command) => command.run().await,
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
        assert!(parse("clipmesh search --words cat").is_ok(), "words need no query");
        assert!(parse("clipmesh search --vector v.json --item a").is_ok(), "a vector");
        assert!(parse("clipmesh search --batch a.jsonl").is_ok(), "many of them");
        assert!(parse("clipmesh search --batch a.jsonl --text cat").is_err(), "both");
        assert!(parse("clipmesh search --batch a.jsonl --limit 5").is_err(), "it is in the lines");
    }

    #[test]
    fn every_question_and_action_has_a_line() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let fine = [
            "clipmesh classify -i a.jpg --field label -k 5 --uniform --threshold 0.2",
            "clipmesh duplicates",
            "clipmesh duplicates --near --threshold 0.9 --hash-distance 10 -n 5",
            "clipmesh facet album -f year>=2020",
            "clipmesh items list --sort year",
            "clipmesh items sample -n 3 --seed 7",
            "clipmesh items check a b --file c.jpg",
            "clipmesh items update a --set album=x --unset year --uri u --etag e",
            "clipmesh items replace-image a b.jpg",
            "clipmesh items delete a b",
            "clipmesh items delete --filter year<2000 --yes",
            "clipmesh items thumbnail a b.jpg",
            "clipmesh items original a -",
            "clipmesh collections create a --index year:integer --words caption --links 32",
            "clipmesh collections update a --quantization scalar",
            "clipmesh collections clear-cache a",
            "clipmesh collections index add a year:integer",
            "clipmesh collections index remove a year",
            "clipmesh collections alias set a b",
        ];
        for line in fine {
            let parsed = parse(line);
            assert!(
                parsed.is_ok(),
                "{line}: {}",
                parsed.err().map_or(String::new(), |e| e.to_string())
            );
        }
        let refused = [
            "clipmesh classify -i a.jpg",
            "clipmesh classify --field label",
            "clipmesh duplicates --exact --near",
            "clipmesh duplicates --exact --threshold 0.9",
            "clipmesh items check",
            "clipmesh items update a",
            "clipmesh items delete",
            "clipmesh items delete a --filter year<2000",
            "clipmesh collections update a",
            "clipmesh collections create a --index year:number",
        ];
        for line in refused {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn shared_options_stand_anywhere() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("clipmesh items --json list --server host:1").is_ok(), "before and after");
        assert!(parse("clipmesh items list -c Nope").is_err(), "no name of a collection");
    }
}
