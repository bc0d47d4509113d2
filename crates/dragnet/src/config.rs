//! The configuration file of `serve`: each of its flags, by the same name.
//!
//! What the file says is put in front of the command line's own arguments, and clap reads all of it together: a flag that
//! is new is in the file at once, and is checked the same way. Where both speak, the command line wins.

use crate::settings::ConfigFile;
use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command};
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The command that a file configures.
const SERVE: &str = "serve";
/// What only makes sense on the command line.
const NOT_IN_FILE: [&str; 3] = ["config", "check", "help"];
/// How wide the default file is.
const WIDTH: usize = 100;
/// From how much likeness on a key is taken for another that is spelt wrongly.
const LIKE: f64 = 0.7;

/// The arguments with which the program was called, and those of the file.
pub(crate) fn arguments(cli: Command, argv: Vec<OsString>, file: &ConfigFile) -> Result<Vec<OsString>> {
    if argv.get(1).is_none_or(|word| word != SERVE) {
        return Ok(argv);
    }
    // What is wrong on the command line is said when all of it is read.
    let Ok(matches) = cli.clone().ignore_errors(true).try_get_matches_from(&argv) else { return Ok(argv) };
    let Some(said) = matches.subcommand_matches(SERVE) else { return Ok(argv) };
    let named = said.get_one::<PathBuf>("config").cloned().map(ConfigFile::Named);
    let file = named.as_ref().unwrap_or(file);
    let Some((path, table)) = read(file)? else { return Ok(argv) };
    let flags = flags(&cli);
    let mut arguments = argv[..2].to_vec();
    for (key, value) in &table {
        let flag = find(&flags, key).with_context(|| format!("read `{}`", path.display()))?;
        if said.value_source(flag.get_id().as_str()) != Some(ValueSource::CommandLine) {
            let from_file = of_value(flag, key, value);
            arguments.extend(from_file.with_context(|| format!("read `{}`", path.display()))?);
        }
    }
    arguments.extend_from_slice(&argv[2..]);
    Ok(arguments)
}

fn read(file: &ConfigFile) -> Result<Option<(&Path, Table)>> {
    let (path, must_be) = match file {
        ConfigFile::Named(path) => (path, true),
        ConfigFile::Usual(path) => (path, false),
    };
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_be => return Ok(None),
        read => read.with_context(|| format!("read the configuration `{}`", path.display()))?,
    };
    let table = text.parse().with_context(|| format!("read the configuration `{}`", path.display()))?;
    Ok(Some((path, table)))
}

/// The flags that may stand in a file.
fn flags(cli: &Command) -> Vec<Arg> {
    let serve = cli.find_subcommand(SERVE).map(|serve| serve.get_arguments().cloned().collect::<Vec<_>>());
    let is_in_file =
        |flag: &Arg| flag.get_long().is_some_and(|name| !NOT_IN_FILE.contains(&name)) && !flag.is_hide_set();
    serve.unwrap_or_default().into_iter().filter(is_in_file).collect()
}

fn find<'a>(flags: &'a [Arg], key: &str) -> Result<&'a Arg> {
    let names = || flags.iter().filter_map(|flag| Some((flag.get_long()?, flag)));
    let wanted = key.replace('_', "-");
    if let Some((_, flag)) = names().find(|(name, _)| *name == wanted) {
        return Ok(flag);
    }
    let likeness = |name: &str| strsim::jaro_winkler(name, &wanted);
    let nearest = names().map(|(name, _)| name).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|name| likeness(name) >= LIKE) {
        Some(name) => bail!("there is no key `{key}`: is it `{name}`?"),
        None => bail!("there is no key `{key}`: `dragnet config` prints all of them"),
    }
}

/// A key and its value as arguments.
fn of_value(flag: &Arg, key: &str, value: &Value) -> Result<Vec<OsString>> {
    let name = flag.get_long().unwrap_or(key);
    if let ArgAction::SetTrue = flag.get_action() {
        return match value {
            Value::Boolean(true) => Ok(vec![format!("--{name}").into()]),
            Value::Boolean(false) => Ok(Vec::new()),
            other => bail!("`{key}` is `true` or `false`, not `{other}`"),
        };
    }
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(value.to_string()),
        other => bail!("`{key}` takes text or a number, not `{other}`"),
    };
    let argument = |text: String| OsString::from(format!("--{name}={text}"));
    match value {
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(one).collect::<Result<_>>()?;
            match (flag.get_action(), flag.get_value_delimiter()) {
                (_, Some(delimiter)) => Ok(vec![argument(values.join(&delimiter.to_string()))]),
                (ArgAction::Append, None) => Ok(values.into_iter().map(argument).collect()),
                _ => bail!("`{key}` takes one value, not a list"),
            }
        }
        Value::Table(_) => bail!("`{key}` is no section: all keys stand at the top of the file"),
        value => Ok(vec![argument(one(value)?)]),
    }
}

/// The file with all defaults, each in a comment.
pub(crate) fn default_file(cli: &Command) -> String {
    let mut text = String::from(
        "# The configuration of `dragnet serve`: each of its flags, by the same name. What the command line says wins.\n\
         # It is read from --config FILE, else $DRAGNET_CONFIG, else $XDG_CONFIG_HOME/dragnet/config.toml.\n\
         # `#key = value` is a default; `# key = WHAT` has none.\n",
    );
    let mut heading = None;
    for flag in &flags(cli) {
        if flag.get_help_heading() != heading {
            heading = flag.get_help_heading();
            let _ = write!(text, "\n## {}\n", heading.unwrap_or("Service"));
        }
        text.push('\n');
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        for line in wrapped(&help) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "{}", default_line(flag));
    }
    text
}

fn default_line(flag: &Arg) -> String {
    let name = flag.get_long().unwrap_or_default();
    let defaults: Vec<String> =
        flag.get_default_values().iter().map(|value| literal(&value.to_string_lossy())).collect();
    let is_list = matches!(flag.get_action(), ArgAction::Append);
    match (flag.get_action(), defaults.as_slice()) {
        (ArgAction::SetTrue, _) => format!("#{name} = false"),
        (_, []) => {
            let what = flag.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name);
            if is_list { format!("# {name} = [{what}, …]") } else { format!("# {name} = {what}") }
        }
        (_, [one]) if !is_list => format!("#{name} = {one}"),
        (_, many) => format!("#{name} = [{}]", many.join(", ")),
    }
}

/// A default as TOML has it.
fn literal(text: &str) -> String {
    let is_number = text.parse::<f64>().is_ok();
    if is_number { text.to_owned() } else { Value::from(text).to_string() }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().filter(|line| line.len() + word.len() < WIDTH);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn arguments_of(file: &str, command_line: &[&str]) -> Result<String, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = folder.path().join("config.toml");
        std::fs::write(&path, file).map_err(|e| e.to_string())?;
        let argv = ["dragnet", "serve"].iter().chain(command_line).map(OsString::from).collect();
        let found = arguments(crate::Cli::command(), argv, &ConfigFile::Named(path));
        let words = found.map_err(|e| e.root_cause().to_string())?;
        Ok(words[2..].iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_file_says_what_the_command_line_leaves_out() {
        for (file, command_line, want) in [
            ("", &[][..], Ok("")),
            ("mappers = 3", &[], Ok("--mappers=3")),
            ("mapper_silence_s = 9", &[], Ok("--mapper-silence-s=9")),
            ("mappers = 3\npoll-s = 0.5", &["--mappers", "1"], Ok("--poll-s=0.5 --mappers 1")),
            ("roles = ['api', 'launch']", &[], Ok("--roles=api,launch")),
            ("roles = ['api']", &["--roles", "local"], Ok("--roles local")),
            ("beyond = ['a=t', 'b=t']", &[], Ok("--beyond=a=t --beyond=b=t")),
            ("maper = 3", &[], Err("there is no key `maper`: is it `mapper`?")),
            ("disk_low = 3", &[], Err("there is no key `disk_low`: is it `disk-low-mib`?")),
            ("zzz = 3", &[], Err("there is no key `zzz`: `dragnet config` prints all of them")),
            ("config = 'x'", &[], Err("there is no key `config`: is it `confirm-s`?")),
            ("mappers = [1, 2]", &[], Err("`mappers` takes one value, not a list")),
            ("[mappers]\nn = 1", &[], Err("`mappers` is no section: all keys stand at the top of the file")),
        ] {
            let want = want.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(arguments_of(file, command_line), want, "{file:?} and {command_line:?}");
        }
    }

    #[test]
    fn the_default_file_holds_every_flag_and_says_what_clap_says() {
        let cli = crate::Cli::command();
        let text = default_file(&cli);
        for flag in flags(&cli) {
            let name = flag.get_long().unwrap_or_default();
            let key = format!("{name} = ");
            assert!(text.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(&key)), "{name}");
        }
        let is_default =
            |line: &&str| line.starts_with('#') && !line.starts_with("# ") && !line.starts_with("##");
        let defaults: String =
            text.lines().filter(is_default).map(|line| line[1..].to_owned() + "\n").collect();
        let words = arguments_of(&defaults, &[]).unwrap();
        let said =
            cli.try_get_matches_from(["dragnet", "serve"].into_iter().chain(words.split(' '))).unwrap();
        let serve = said.subcommand_matches(SERVE).unwrap();
        assert_eq!(serve.get_one::<u64>("disk_low_mib"), Some(&128));
    }
}
