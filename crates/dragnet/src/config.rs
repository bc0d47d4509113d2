//! The configuration file: every flag of `serve` by its name, so that a new flag is there without a line of code here.
//!
//! What the file says becomes arguments in front of the command line's own, and is left out where the command line or
//! the environment says it. So there is one way in which a value is read, checked and explained.

use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use std::path::PathBuf;

/// The command that reads it.
const SERVE: &str = "serve";
/// Flags that make no sense in the file.
const NOT_IN_FILE: [&str; 4] = ["help", "version", "config", "check"];
/// How alike a key and a flag must be for the one to be taken for a slip of the other (Jaro-Winkler).
const ALIKE: f64 = 0.8;

/// The command line, with what the file says before what the user says.
///
/// # Errors
/// A file that can't be read, is no TOML, or has a key that no flag has.
pub(crate) fn with_file(
    mut command: Command,
    line: Vec<OsString>,
    settings: &Settings,
) -> Result<Vec<OsString>> {
    command.build();
    // Only which flags are given is asked here: whatever is wrong with them is said by the parser, later.
    let first = command.clone().ignore_errors(true).try_get_matches_from(&line);
    let Some((SERVE, given)) = first.as_ref().ok().and_then(ArgMatches::subcommand) else { return Ok(line) };
    let Some(file) = file_of(given, settings) else { return Ok(line) };
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("read the configuration `{}`", file.display()))?;
    let serve = command.find_subcommand(SERVE).context("the command `serve` is missing")?;
    let said = arguments(serve, given, &text)
        .with_context(|| format!("in the configuration `{}`", file.display()))?;
    let at = line.iter().position(|argument| argument == SERVE).map_or(line.len(), |at| at + 1);
    Ok([&line[..at], &said, &line[at..]].concat())
}

/// The file that is named, else the one in its usual place, if there is one.
fn file_of(given: &ArgMatches, settings: &Settings) -> Option<PathBuf> {
    let named = given.try_get_one::<PathBuf>("config").ok().flatten().cloned();
    named
        .or_else(|| settings.config.clone())
        .or_else(|| Some(settings.usual_config.clone()).filter(|file| file.exists()))
}

/// The flags that a file can say.
fn flags(serve: &Command) -> impl Iterator<Item = &Arg> {
    serve.get_arguments().filter(|arg| arg.get_long().is_some_and(|name| !NOT_IN_FILE.contains(&name)))
}

fn arguments(serve: &Command, given: &ArgMatches, text: &str) -> Result<Vec<OsString>> {
    let table: toml::Table = text.parse()?;
    let mut said = Vec::new();
    for (key, value) in &table {
        let flag =
            flags(serve).find(|arg| arg.get_long() == Some(key)).with_context(|| unknown(serve, key))?;
        let source = given
            .try_contains_id(flag.get_id().as_str())
            .ok()
            .and_then(|_| given.value_source(flag.get_id().as_str()));
        if !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            said.extend(of_flag(flag, key, value)?);
        }
    }
    Ok(said)
}

/// What is wrong with a key, and which one is meant.
fn unknown(serve: &Command, key: &str) -> String {
    let names = flags(serve).filter_map(Arg::get_long);
    let like = names.map(|name| (strsim::jaro_winkler(name, key), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    let meant = like
        .filter(|(alike, _)| *alike >= ALIKE)
        .map_or(String::new(), |(_, name)| format!(": `{name}` is meant?"));
    format!("there is no key `{key}`{meant} (`dragnet config` prints all of them)")
}

fn of_flag(flag: &Arg, key: &str, value: &toml::Value) -> Result<Vec<OsString>> {
    use toml::Value::{Array, Boolean, Float, Integer, String};
    let name = format!("--{key}");
    let is_switch = matches!(flag.get_action(), ArgAction::SetTrue);
    Ok(match value {
        Boolean(true) if is_switch => vec![name.into()],
        Boolean(false) if is_switch => Vec::new(),
        _ if is_switch => bail!("`{key}` is of the type {}: it is true or false", value.type_str()),
        Array(values) => {
            let all: Result<Vec<Vec<OsString>>> =
                values.iter().map(|value| of_flag(flag, key, value)).collect();
            all?.concat()
        }
        String(text) => vec![format!("{name}={text}").into()],
        Integer(n) => vec![format!("{name}={n}").into()],
        Float(n) => vec![format!("{name}={n}").into()],
        other => {
            bail!("`{key}` is of the type {}: it is a text, a number or a list of them", other.type_str())
        }
    })
}

/// The file with every key, its meaning and its default, all of it commented out.
pub(crate) fn commented(mut command: Command) -> Result<String> {
    command.build();
    let serve = command.find_subcommand(SERVE).context("the command `serve` is missing")?;
    let mut text = String::from(
        "# The configuration of `dragnet serve`: each key is a flag of it, and what the command line says holds.\n\
         # It is read from --config FILE, $DRAGNET_CONFIG, or $XDG_CONFIG_HOME/dragnet/config.toml.\n",
    );
    let mut heading = None;
    for flag in flags(serve) {
        if flag.get_help_heading() != heading {
            heading = flag.get_help_heading();
            text.push_str(&format!("\n## {}\n", heading.unwrap_or("More")));
        }
        text.push('\n');
        let help = flag.get_long_help().or(flag.get_help()).map(ToString::to_string).unwrap_or_default();
        help.lines().for_each(|line| text.push_str(&format!("# {line}\n")));
        text.push_str(&format!("#{} = {}\n", flag.get_long().unwrap_or_default(), example(flag)));
    }
    Ok(text)
}

/// A flag's default as TOML, else the name of its value.
fn example(flag: &Arg) -> String {
    let defaults: Vec<String> =
        flag.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let quoted = |text: &String| match text.parse::<f64>() {
        Ok(_) => text.clone(),
        Err(_) => format!("{text:?}"),
    };
    let is_list = matches!(flag.get_action(), ArgAction::Append);
    match (flag.get_action(), defaults.as_slice()) {
        (ArgAction::SetTrue, _) => "false".into(),
        (_, []) => {
            let name = flag
                .get_value_names()
                .and_then(|names| names.first())
                .map_or_else(|| "VALUE".to_owned(), ToString::to_string);
            if is_list { format!("[{name:?}]") } else { format!("{name:?}") }
        }
        (_, [one]) if !is_list => quoted(one),
        (_, all) => format!("[{}]", all.iter().map(quoted).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("dragnet").subcommand(
            Command::new(SERVE)
                .arg(
                    Arg::new("listen")
                        .long("listen")
                        .default_value("127.0.0.1:7070")
                        .help("Where the API listens"),
                )
                .arg(Arg::new("set").long("set").action(ArgAction::Append).value_name("NAME=VALUE"))
                .arg(Arg::new("quiet").long("quiet").action(ArgAction::SetTrue))
                .arg(Arg::new("config").long("config").value_parser(clap::value_parser!(PathBuf))),
        )
    }

    /// The whole command line that comes of a file and the user's words.
    fn line(text: &str, words: &[&str]) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).expect("a file");
        let settings = Settings { config: Some(file), ..Settings::default() };
        let words = words.iter().map(OsString::from).collect();
        let line = with_file(command(), words, &settings).map_err(|e| format!("{e:#}"))?;
        Ok(line.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_file_comes_before_the_command_line() {
        let all = "listen = \"h:1\"\nset = [\"a=1\", \"b=2\"]\nquiet = true";
        let rows: [(&str, &[&str], &str); 5] = [
            (all, &["dragnet", "serve"], "dragnet serve --listen=h:1 --quiet --set=a=1 --set=b=2"),
            (
                all,
                &["dragnet", "serve", "--listen", "x:2"],
                "dragnet serve --quiet --set=a=1 --set=b=2 --listen x:2",
            ),
            (all, &["dragnet", "serve", "--set", "c=3"], "dragnet serve --listen=h:1 --quiet --set c=3"),
            ("quiet = false", &["dragnet", "serve"], "dragnet serve"),
            ("what is this", &["dragnet", "list"], "dragnet list"),
        ];
        for (text, words, expected) in rows {
            assert_eq!(line(text, words).as_deref(), Ok(expected), "{words:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rows = [
            ("lissten = \"h:1\"", "there is no key `lissten`: `listen` is meant?"),
            ("smile = 1", "there is no key `smile` ("),
            ("config = \"x\"", "there is no key `config`"),
            ("quiet = 1", "`quiet` is of the type integer: it is true or false"),
            ("listen = { a = 1 }", "`listen` is of the type table: it is a text"),
            ("listen =", "config.toml"),
        ];
        for (text, expected) in rows {
            let said = line(text, &["dragnet", "serve"]).expect_err(text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn the_default_is_a_file_that_says_nothing() {
        let text = commented(command()).expect("a text");
        assert!(text.contains("# Where the API listens\n#listen = \"127.0.0.1:7070\"\n"), "{text}");
        assert!(text.parse::<toml::Table>().is_ok_and(|table| table.is_empty()), "{text}");
        let on: String = text
            .lines()
            .map(|line| {
                line.strip_prefix('#')
                    .filter(|rest| !rest.starts_with([' ', '#']))
                    .unwrap_or_default()
                    .to_owned()
                    + "\n"
            })
            .collect();
        assert_eq!(on.parse::<toml::Table>().map(|table| table.len()), Ok(3), "{on}");
    }
}
